//! What a person types to have a backup in place of what is there.

use std::collections::BTreeMap;
use std::path::Path;

use super::names::Names;
use crate::connections::sql::psql;
use crate::process::quoted;

/// What to type, one line for a shell: the database is put aside under another name, and made anew from the file as it was, with its owner, its settings and
/// everybody's rights; also when there is none any more. A file that is not the one that was made changes nothing. When it fails, what was put aside is in its place
/// again; and when it was cut off in the middle, what there is of it is put aside too when the same is typed once more, under the name `…_half_` and the
/// time: nothing is ever dropped. `FILE.restoring` is there from before the first change until what was there has its last name or is in its place again, and
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
    let way = Way {
        psql: format!("psql{at} --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1"),
        pg_restore: format!("pg_restore{at} --create --exit-on-error {file}"),
        names: Names::of(database, sha256),
        mark: format!("{file}.restoring"),
        file,
        sha256,
    };
    format!(
        "({} no() {{ echo \"NOT restored: $1\" >&2; exit 1; }}; trap {} INT TERM; {} {} {} {} {} )",
        exported(env, programs),
        quoted(&no("it was cut off; type the same again")),
        way.functions(),
        way.looked(),
        way.before(),
        way.begun(),
        way.restored(),
    )
}

/// The parts of the line.
struct Way<'a> {
    psql: String,
    pg_restore: String,
    names: Names<'a>,
    /// The file that says that it was begun, a word of the shell.
    mark: String,
    /// The backup, a word of the shell.
    file: &'a str,
    sha256: &'a str,
}

impl Way<'_> {
    /// Runs statements. Those that another one writes are run by themselves: no database is renamed inside of a function.
    fn run(&self, statements: &[String]) -> String {
        let each: Vec<String> = statements.iter().map(|one| quoted(one)).collect();
        format!("printf '%s\\n' {} | {}", each.join(" "), self.psql)
    }

    /// What is said and done in several places.
    fn functions(&self) -> String {
        let Names { database, mid, was, .. } = &self.names;
        let [look, busy, undo, last, told] =
            [self.names.look(), self.names.busy(), self.names.undo(), self.names.last(), self.names.told()]
                .map(|statements| self.run(&statements));
        let mark = &self.mark;
        let half = no(&format!(
            "what was there is in the database {mid}, where that is, and what is in {database} may be half of it: stop what uses it, \
             and type the same again once the server can be asked"
        ));
        let lost = "the backup is not there, or is not as it was made";
        let lost_on_the_way = no(&format!(
            "{lost}. A try to bring it back was cut off: where the database {mid} is, what was there is in that, and what is in {database} may be half \
             of it. Look for a copy of the backup, put it there, and type the same again; or give {database} another name, and {mid} the name {database}"
        ));
        let unnamed = say(&format!(
            "restored; what was there is in the database {mid}: type the same again to give it the name {was}"
        ));
        let not_noted = say(&format!(
            "restored; what was there is in the database {mid}. That could not be noted beside the backup: do NOT type the same again, which \
             would restore it once more. Give {mid} the name {was}, and remove the file beside the backup whose name ends with .restoring"
        ));
        format!(
            "look() {{ there=$({look}); }}; busy() {{ {busy} || :; }}; told() {{ {told} || :; }}; is_whole() {{ grep -q whole {mark}; }}; \
             half() {{ busy; {half}; }}; undo() {{ {undo} || half; }}; \
             lost() {{ if test -e {mark} && ! is_whole; then {lost_on_the_way}; else {}; fi; }}; \
             end() {{ if {last}; then rm -f {mark}; elif is_whole; then {unnamed}; else {not_noted}; fi; }};",
            no(lost),
        )
    }

    /// Whether it can be done at all, by whom, and how it stands. Nothing is changed before the backup is known to be the one that was made.
    fn looked(&self) -> String {
        let (file, mark) = (self.file, &self.mark);
        let not_theirs = format!(
            "no {}{mark}{}",
            quoted("the file "),
            quoted(" can not be read and written: type the same as the user who began")
        );
        // A process that outlives its shell holds the lock as well. Only 1 says that somebody has it: not every file system knows locks.
        format!(
            "for one in psql pg_restore; do command -v $one >/dev/null || no \"$one is not in PATH\"; done; \
             command -v sha256sum >/dev/null || command -v shasum >/dev/null || {}; test -r {file} || lost; exec 9<{file}; \
             if command -v flock >/dev/null; then flock -n 9; test $? != 1 || {}; fi; \
             test \"$({{ if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi; }} <{file} | cut -c-64)\" = {} || lost; \
             mark=none; if test -e {mark}; then test -r {mark} && test -w {mark} || {not_theirs}; mark=begun; if is_whole; then mark=whole; fi; fi; \
             look || {};",
            no("neither sha256sum nor shasum is in PATH"),
            no("another process is at it"),
            self.sha256,
            no("the server can not be asked how it stands; type the same again once it can"),
        )
    }

    /// What an earlier try has left to do.
    fn before(&self) -> String {
        let Names { database, was, .. } = &self.names;
        format!(
            "case $there in both) case $mark in whole) end; exit 0;; begun) undo; told;; *) {};; esac;; mid) undo;; \
             other*) no {}\"${{there#other }}\"{};; \
             done) case $mark in whole) rm -f {}; {}; exit 0;; none) {};; esac;; esac;",
            no(&self.names.begun_elsewhere()),
            quoted(&format!(
                "another backup was being brought back into {database}, and that was cut off: what was there before is in the database "
            )),
            quoted(
                ", which is to have its name again first: type what began that once more, or give both the names that they are to have; then type the same again"
            ),
            self.mark,
            say(&format!("restored; what was there is in the database {was}")),
            no(&format!(
                "it was restored before: what was there then is in the database {was}. What is in {database} now may be something else. To restore it \
                 once more, give {was} another name first"
            )),
        )
    }

    /// Puts aside what is there.
    fn begun(&self) -> String {
        let database = self.names.database;
        let [make, away] = [self.names.make(), self.names.away()].map(|statements| self.run(&statements));
        let mark = &self.mark;
        format!(
            "(echo begun >{mark}) && sync || {}; if test \"$there\" = gone; then {make} || {{ rm -f {mark}; {}; }}; fi; {}; \
             {away} || {{ busy; look; if test \"$there\" = there; then rm -f {mark}; {}; else {}; fi; }};",
            no("beside the backup nothing can be written; take both files elsewhere"),
            no(&format!("there is no database {database}, and none can be made")),
            say(&format!(
                "Who uses the database {database} is disconnected. Nothing may write into it until it is restored."
            )),
            no("what is there could not be put aside: see to what is said above, and type the same again"),
            no("it was cut off; type the same again"),
        )
    }

    /// Restores it, or has what was there in its place again.
    fn restored(&self) -> String {
        let (pg_restore, mark) = (&self.pg_restore, &self.mark);
        format!(
            "if {pg_restore}; then (echo whole >>{mark}); sync; end; else undo; rm -f {mark}; told; {}; fi",
            no("what was there is in its place again")
        )
    }
}

/// Ends it with what is the matter.
fn no(text: &str) -> String {
    format!("no {}", quoted(text))
}

fn say(text: &str) -> String {
    format!("echo {}", quoted(text))
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
        let long = super::line(&env, None, "postgres", &"n".repeat(63), "/f", "0123456789");
        for (word, last) in [("mid", "mid_01234567"), ("was", "was_01234567"), ("half", "half_")] {
            assert!(long.contains(&format!("'{}_{last}", "n".repeat(40))), "{word}: {long}");
            assert!(!long.contains(&format!("{}_{word}", "n".repeat(41))), "{word}: {long}");
        }
    }
}
