//! What a person types to have a backup in place of what is there.

use std::collections::BTreeMap;
use std::path::Path;

use crate::connections::sql::{Dialect, psql, quoted as quoted_name};
use crate::process::quoted;

/// The longest part of a database's name that the name of the one put aside begins with; PostgreSQL keeps 63 bytes of a name.
const KEPT: usize = 40;

/// What to type, one line for a shell: the database is put aside under another name, and made anew from the file as it was, with its owner, its settings and
/// everybody's rights. When that fails, what was put aside is in its place again.
///
/// Who is connected to it is disconnected; the renaming needs that, and what they see is about to be another database.
/// Nothing is emptied for it: what came later may hang on what was dumped, and what a wipe has left is of use to whoever looks for the cause.
pub(super) fn line(env: &BTreeMap<String, String>, database: &str, file: &Path, sha256: &str) -> String {
    let at = psql::options(env);
    let cut = (0..=KEPT.min(database.len())).rev().find(|at| database.is_char_boundary(*at)).unwrap_or(0);
    let begin = &database[..cut];
    let aside = format!("{begin}_was_{}", sha256.get(..8).unwrap_or(sha256));
    let [name, other] = [database, &aside].map(|name| quoted_name(Dialect::Postgres, name));
    let statement = |sql: String| format!(" --command={}", quoted(&sql));
    let psql =
        format!("psql{at} --dbname=postgres --no-psqlrc --quiet --output=/dev/null --set=ON_ERROR_STOP=1");
    let literal = database.replace('\'', "''");
    // Whoever comes in between is waited for by the renaming, which then does nothing.
    // Only what is selected is called for the rows that are left, and for no other.
    let ended = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{literal}'");
    let away = statement(ended) + &statement(format!("alter database {name} rename to {other}"));
    let back = statement(format!("drop database if exists {name} with (force)"))
        + &statement(format!("alter database {other} rename to {name}"));
    let file = quoted(&file.display().to_string());
    let said = quoted(&format!("restored; what was there is in the database {aside}"));
    format!(
        "{psql}{away} && {{ pg_restore{at} --dbname=postgres --create --exit-on-error {file} && echo {said} || {{ {psql}{back}; false; }}; }}"
    )
}

/// What to type to drop a database of a probe, one line for a shell.
pub(super) fn dropping(env: &BTreeMap<String, String>, probe: &str) -> String {
    psql::line(env, &super::probe::dropping(probe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_stay_one_word_each() {
        let env = BTreeMap::from([("PGHOST".to_owned(), "db host".to_owned())]);
        let line = line(&env, "a\"b'c", Path::new("/a b.dump"), "0123456789abcdef");
        let run = std::process::Command::new("sh").args(["-n", "-c", &line]).output().unwrap();
        assert!(run.status.success(), "{line}");
        assert!(line.contains("'/a b.dump'") && line.contains("--host='db host'"), "{line}");
        assert!(line.contains("_was_01234567"), "{line}");
        let long = "n".repeat(63);
        assert!(
            super::line(&env, &long, Path::new("/f"), "0123456789")
                .contains(&format!("\"{}_was_01234567\"", &long[..40]))
        );
    }
}
