//! What a person types to have a backup in place of what is there.

use std::collections::BTreeMap;
use std::path::Path;

use crate::connections::sql::{Dialect, psql, quoted as quoted_name};
use crate::process::quoted;

/// The longest part of a database's name that the name of one put aside begins with, of which the longest ends with `_half_` and a time of 14 digits;
/// PostgreSQL keeps 63 bytes of a name.
const KEPT: usize = 40;

/// What to type, one line for a shell: the database is put aside under another name, and made anew from the file as it was, with its owner, its settings and
/// everybody's rights; also when there is none any more. A file that is not the one that was made changes nothing. When it fails, what was put aside is in its place
/// again; and when it was cut off in the middle, what there is of it is put aside too when the same is typed once more, under the name `…_half_` and the
/// time: nothing is ever dropped. `FILE.restoring` is there from before the first renaming until what was there has its last name or is in its place again, and
/// holds `whole` as soon as all of it is restored, so that what was cut off is never taken for whole. Typed again after it was restored, it changes nothing.
/// It is done from the database `beside` it. `file` is a word of the shell.
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
    let psql = format!("psql{at} --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1");
    // Statements that another one writes are run by themselves: no database is renamed inside of a function.
    let run = |statements: &[String]| {
        let each: Vec<String> = statements.iter().map(|one| quoted(one)).collect();
        format!("printf '%s\\n' {} | {psql}", each.join(" "))
    };
    let names = Names::of(database, sha256);
    let (mid, was) = (&names.mid, &names.was);
    let [look, make, away, undo, last] =
        [names.look(), names.make(), names.away(), names.undo(), names.last()]
            .map(|statements| run(&statements));
    let no = |text: &str| format!("no {}", quoted(text));
    let say = |text: &str| format!("echo {}", quoted(text));
    let begun = format!("{file}.restoring");
    let asked = format!(
        "there=$({look}) || {}",
        no("the server can not be asked how it stands; type the same again once it can")
    );
    let half = no(&format!(
        "what is in the database {database} may be half of it, and what was there is in the database {mid}: type the same again"
    ));
    let ended =
        format!("rm -f {begun}; {}", say(&format!("restored; what was there is in the database {was}")));
    let unnamed = say(&format!(
        "restored; what was there is in the database {mid}: type the same again to give it the name {was}"
    ));
    // A process that outlives its shell holds the lock as well. Only 1 says that somebody has it: not every file system knows locks.
    let alone = format!(
        "exec 9<{file} || exit; if command -v flock >/dev/null; then flock -n 9; test $? != 1 || {}; fi",
        no("another process is at it")
    );
    let same = format!(
        "test \"$({{ sha256sum || shasum -a 256; }} <{file} | cut -c-64)\" = {sha256} || {}",
        no("the backup is not as it was made")
    );
    let before = format!(
        "case $there in both) if test -e {begun}; then if {last}; then {ended}; else {unnamed}; fi; exit 0; else {}; fi;; mid) {undo} || {half};; \
         done) rm -f {begun}; {} >&2; exit 1;; gone) {make} || {};; esac",
        no(&names.begun_elsewhere()),
        say(&format!(
            "it is restored: what was there before is in the database {was}. To restore it once more, give that another name first"
        )),
        no(&format!("there is no database {database}, and none can be made")),
    );
    let begin = format!(
        "(: >{begun}) && sync || {}; {}; {away} || {{ rm -f {begun}; {}; }}",
        no("beside the backup nothing can be written; take both files elsewhere"),
        say(&format!(
            "Who uses the database {database} is disconnected. Nothing may write into it until it is restored."
        )),
        no("what is there could not be put aside; type the same again"),
    );
    let restored = format!("echo whole >{begun}; sync; if {last}; then {ended}; else {unnamed}; fi");
    let put_back = format!("{undo} || {half}; rm -f {begun}; {}", no("what was there is in its place again"));
    format!(
        "({} no() {{ echo \"NOT restored: $1\" >&2; exit 1; }}; trap {} INT TERM; {alone}; \
         if test -e {begun} && ! grep -q whole {begun}; then {undo} || {half}; fi; {same}; {asked}; {before}; {begin}; \
         if pg_restore{at} --create --exit-on-error {file}; then {restored}; else {put_back}; fi )",
        exported(env, programs),
        quoted(&no("it was cut off; type the same again")),
    )
}

/// The names that the database has on the way, and the statements that give them.
struct Names<'a> {
    database: &'a str,
    /// What was there, while another one is restored.
    mid: String,
    /// What was there, when it was.
    was: String,
    /// What the name of what a try left begins with.
    half: String,
}

impl<'a> Names<'a> {
    fn of(database: &'a str, sha256: &str) -> Self {
        let cut = (0..=KEPT.min(database.len())).rev().find(|at| database.is_char_boundary(*at)).unwrap_or(0);
        let (begin, mark) = (&database[..cut], sha256.get(..8).unwrap_or(sha256));
        let [mid, was] = ["mid", "was"].map(|word| format!("{begin}_{word}_{mark}"));
        Self { database, mid, was, half: format!("{begin}_half_") }
    }

    /// How it stands, in a word.
    fn look(&self) -> Vec<String> {
        let (own, mid, was) = (there(self.database), there(&self.mid), there(&self.was));
        vec![format!(
            "select case when {own} and {mid} then 'both' when {mid} then 'mid' when {own} and {was} then 'done' when {own} then 'there' else 'gone' end;"
        )]
    }

    /// What is put aside when there is none any more.
    fn make(&self) -> Vec<String> {
        vec![format!("create database {};", name_of(self.database))]
    }

    /// Puts aside what is there. Whoever comes in between is waited for by the renaming, which then does nothing.
    fn away(&self) -> Vec<String> {
        vec![disconnected(self.database), format!("{};", renamed(self.database, &self.mid))]
    }

    /// Has what was there in its place again. What stands there meanwhile may be somebody's.
    fn undo(&self) -> Vec<String> {
        let both = self.both();
        vec![
            when(&both, &disconnected(self.database)),
            self.aside(self.database, &both),
            when(&there(&self.mid), &renamed(&self.mid, self.database)),
            self.told(),
        ]
    }

    /// Gives what was there its last name. Where another one has that, it was brought back before.
    fn last(&self) -> Vec<String> {
        let taken = there(&self.was);
        vec![
            disconnected(&self.mid),
            self.aside(&self.mid, &taken),
            when(&format!("not {taken}"), &renamed(&self.mid, &self.was)),
            self.told(),
        ]
    }

    /// Gives a database a name of its own.
    fn aside(&self, name: &str, condition: &str) -> String {
        format!(
            "select format('alter database %I rename to %I', {}, {} || to_char(clock_timestamp(), 'YYYYMMDDHH24MISS')) where {condition} \\gexec",
            literal(name),
            literal(&self.half)
        )
    }

    /// Names what tries have left.
    fn told(&self) -> String {
        format!(
            "select 'put aside as well, and not dropped: the database ' || datname from pg_database where starts_with(datname, {}) order by 1;",
            literal(&self.half)
        )
    }

    /// Both are there, and no file says what came of it.
    fn begun_elsewhere(&self) -> String {
        let (database, mid, was) = (self.database, &self.mid, &self.was);
        format!(
            "the database {mid} is there, so that it was begun elsewhere, and whether {database} is whole is not known here. If it is, give {mid} the name {was}; \
             if not, give {database} another name; then type the same again"
        )
    }

    fn both(&self) -> String {
        format!("{} and {}", there(&self.mid), there(self.database))
    }
}

fn there(name: &str) -> String {
    format!("exists (select from pg_database where datname = {})", literal(name))
}

fn when(condition: &str, statement: &str) -> String {
    format!("select {} where {condition} \\gexec", literal(statement))
}

fn name_of(name: &str) -> String {
    quoted_name(Dialect::Postgres, name)
}

fn renamed(from: &str, to: &str) -> String {
    format!("alter database {} rename to {}", name_of(from), name_of(to))
}

/// Ends the sessions that are in a database. What vacuums it is ended by the renaming: not everybody may.
fn disconnected(name: &str) -> String {
    format!(
        "do $$begin perform pg_terminate_backend(pid) from pg_stat_activity where datname = {} and backend_type = 'client backend'; end$$;",
        literal(name)
    )
}

/// What the programs need beside their options, to reach the server as securely as it was, and to be found; nothing, or a statement.
fn exported(env: &BTreeMap<String, String>, programs: Option<&Path>) -> String {
    let loose =
        env.get("PGSSLMODE").is_none_or(|mode| matches!(mode.as_str(), "disable" | "allow" | "prefer"));
    let names: &[&str] = if loose { &[] } else { &["PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"] };
    let secure = names.iter().filter_map(|name| Some(format!(" {name}={}", quoted(env.get(*name)?))));
    let folder = programs.map(|folder| format!(" PATH={}:\"$PATH\"", quoted(&folder.display().to_string())));
    let set: String = secure.chain(folder).collect();
    if set.is_empty() { set } else { format!(" export{set};") }
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
