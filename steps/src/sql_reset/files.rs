//! The files of a reset: read once, looked through, and run as they stand.

use std::path::PathBuf;

use runbook_engine::error::StepError;

use super::FileOutputs;
use crate::connections::sql::Dialect;
use crate::connections::sql::scan::statements;
use crate::digest::sha256;
use crate::manifest::blocking;

/// The largest file, in bytes.
const LARGEST: u64 = 64 * 1024 * 1024;

/// A file that was read.
pub(super) struct File {
    /// Its text.
    pub text: String,
    /// What the outputs say of it.
    pub outputs: FileOutputs,
}

/// Reads the files, and refuses what can not be run from one.
pub(super) async fn read(paths: &[PathBuf], dialect: Dialect) -> Result<Vec<File>, StepError> {
    let paths = paths.to_vec();
    blocking(move || paths.into_iter().map(|path| one(path, dialect)).collect()).await
}

fn one(path: PathBuf, dialect: Dialect) -> Result<File, StepError> {
    let shown = path.display().to_string();
    let failed =
        |error: std::io::Error| StepError::refused(format!("reading {shown} failed")).with_source(&error);
    let bytes = std::fs::metadata(&path).map_err(failed)?.len();
    if bytes > LARGEST {
        return Err(StepError::refused(format!("{shown} has {bytes} bytes; {LARGEST} are the most")));
    }
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    let found = statements(&text, dialect);
    if found.is_empty() {
        return Err(StepError::refused(format!("{shown} holds no statement")));
    }
    for statement in &found {
        let first: String = statement.text.lines().next().unwrap_or_default().chars().take(80).collect();
        let refused = |why: &str, help: &str| {
            Err(StepError::refused(format!("{shown}: `{first}` {why}")).with_help(help.to_owned()))
        };
        if statement.controls_transaction() {
            return refused(
                "begins or ends a transaction",
                "leave it out: the whole reset is one transaction",
            );
        }
        if statement.text.starts_with('\\') {
            return refused("is a command of psql", "write SQL; `pg_dump --no-owner --inserts` does");
        }
        let copies = statement.verb() == "COPY" && statement.words.iter().any(|word| word == "STDIN");
        if copies {
            return refused("takes rows that follow it", "write inserts; `pg_dump --inserts` does");
        }
    }
    let outputs =
        FileOutputs { path: shown, sha256: sha256(text.as_bytes()), statements: found.len() as u64 };
    Ok(File { text, outputs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_may_not_hold() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sql");
        let of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            one(path.clone(), Dialect::Postgres)
        };
        assert_eq!(of("create table a (b int); -- ;\ncreate table c ();").unwrap().outputs.statements, 2);
        for (text, why) in [
            ("", "holds no statement"),
            ("create table a (); commit;", "ends a transaction"),
            ("\\connect x\nselect 1", "psql"),
            ("copy a from stdin;\n1\n\\.\n", "rows that follow"),
        ] {
            assert!(of(text).err().unwrap().message.contains(why), "{text}");
        }
    }
}
