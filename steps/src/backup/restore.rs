//! What a person types to have a backup in place of what is there.

use std::collections::BTreeMap;
use std::path::Path;

use crate::connections::sql::{Dialect, psql, quoted as quoted_name};
use crate::process::quoted;

/// The longest part of a database's name that the name of one put aside begins with, of which the longest ends with `_half_` and a time of 14 digits;
/// PostgreSQL keeps 63 bytes of a name.
const KEPT: usize = 40;

/// What to type, one line for a shell: the database is put aside under another name, and made anew from the file as it was, with its owner, its settings and
/// everybody's rights. When that fails, what was put aside is in its place again; and when it was cut off in the middle, what there is of it is put aside too, under
/// the name `…_half_` and the time, when the same is typed once more: it may have been whole, and in use since. Typed again after it was restored, it changes nothing. It is done from the database `beside` it. `file` is a word of the shell.
///
/// Who is connected to it is disconnected; the renaming needs that, and what they see is about to be another database.
/// Nothing is emptied for it: what came later may hang on what was dumped, and what a wipe has left is of use to whoever looks for the cause.
pub(super) fn line(
    env: &BTreeMap<String, String>,
    programs: Option<&Path>,
    beside: &str,
    database: &str,
    file: &str,
    sha256: &str,
) -> String {
    let at = psql::options(env) + &format!(" --dbname={beside}");
    let cut = (0..=KEPT.min(database.len())).rev().find(|at| database.is_char_boundary(*at)).unwrap_or(0);
    let (begin, mark) = (&database[..cut], sha256.get(..8).unwrap_or(sha256));
    // While it is restored, and when it was.
    let [mid, was] = ["mid", "was"].map(|word| format!("{begin}_{word}_{mark}"));
    let name_of = |name: &str| quoted_name(Dialect::Postgres, name);
    let psql = format!("psql{at} --no-psqlrc --quiet --tuples-only --set=ON_ERROR_STOP=1");
    // Statements that another one writes are run by themselves: no database is dropped inside of a transaction.
    let run = |statements: &[String]| {
        let each: Vec<String> = statements.iter().map(|one| quoted(one)).collect();
        format!("printf '%s\\n' {} | {psql} >/dev/null", each.join(" "))
    };
    let there = |name: &str| format!("exists (select from pg_database where datname = {})", literal(name));
    let when = |condition: String, statement: String| {
        format!("select {} where {condition} \\gexec", literal(&statement))
    };
    let renamed =
        |from: &str, to: &str| format!("alter database {} rename to {}", name_of(from), name_of(to));
    let ended = |name: &str| {
        format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = {};", literal(name))
    };
    // What is there when it is typed again may be whole, and in use by then.
    let aside = format!(
        "format('alter database %I rename to %I', {}, {} || to_char(clock_timestamp(), 'YYYYMMDDHH24MISS'))",
        literal(database),
        literal(&format!("{begin}_half_"))
    );
    let both = format!("{} and {}", there(&mid), there(database));
    let back = when(there(&mid), renamed(&mid, database));
    let again =
        [when(both.clone(), ended(database)), format!("select {aside} where {both} \\gexec"), back.clone()];
    // What this very one has left unfinished is of no use to anybody.
    let undo =
        [when(there(&mid), format!("drop database if exists {} with (force)", name_of(database))), back];
    let done =
        format!("raise exception {}", literal(&format!("it is restored: what was there before is in {was}")));
    let away = [
        when(there(&was), format!("do $$begin {done}; end$$")),
        // Whoever comes in between is waited for by the renaming, which then does nothing.
        ended(database),
        format!("{};", renamed(database, &mid)),
    ];
    let first: Vec<String> = again.iter().chain(&away).cloned().collect();
    let last = [ended(&mid), format!("{};", renamed(&mid, &was))];
    let say = |text: String| format!("echo {}", quoted(&text));
    let line = format!(
        "{} && if pg_restore{at} --create --exit-on-error {file}; then if {}; then {}; else {}; fi; elif {}; then {} >&2; false; else {} >&2; false; fi",
        run(&first),
        run(&last),
        say(format!("restored; what was there is in the database {was}")),
        say(format!("restored; what was there is in the database {mid}")),
        run(&undo),
        say("NOT restored: what was there is in its place again".to_owned()),
        say(format!(
            "NOT restored, and what is there now is half of it: what was there is in the database {mid}; type the same again"
        )),
    );
    let set = exported(env, programs);
    if set.is_empty() { line } else { format!("( export{set}; {line} )") }
}

/// What the programs need beside their options, to reach the server as securely as it was, and to be found.
fn exported(env: &BTreeMap<String, String>, programs: Option<&Path>) -> String {
    let loose =
        env.get("PGSSLMODE").is_none_or(|mode| matches!(mode.as_str(), "disable" | "allow" | "prefer"));
    let names: &[&str] = if loose { &[] } else { &["PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"] };
    let secure = names.iter().filter_map(|name| Some(format!(" {name}={}", quoted(env.get(*name)?))));
    let folder = programs.map(|folder| format!(" PATH={}:\"$PATH\"", quoted(&folder.display().to_string())));
    secure.chain(folder).collect()
}

/// A text as SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
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
        let line = line(&env, None, "postgres", "a\"b'c", "'/a b.dump'", "0123456789abcdef");
        let run = std::process::Command::new("sh").args(["-n", "-c", &line]).output().unwrap();
        assert!(run.status.success(), "{line}");
        assert!(line.contains("'/a b.dump'") && line.contains("--host='db host'"), "{line}");
        assert!(line.contains("_was_01234567"), "{line}");
        let long = "n".repeat(63);
        assert!(
            super::line(&env, None, "postgres", &long, "/f", "0123456789")
                .contains(&format!("\"{}_was_01234567\"", &long[..40]))
        );
    }
}
