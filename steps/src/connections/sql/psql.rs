//! What a person types to reach a server of PostgreSQL: `psql`, by what is recorded of a connection, without its password.

use std::collections::BTreeMap;

use crate::process::quoted;

/// The options by which the programs of PostgreSQL reach a server, and the variables that they stand for.
const OPTIONS: [(&str, &str); 3] = [("host", "PGHOST"), ("port", "PGPORT"), ("username", "PGUSER")];

/// What of the environment of a connection says which server it reaches, and as whom.
pub(crate) fn reached(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let given = |(_, name): &(&str, &str)| Some(((*name).to_owned(), env.get(*name)?.clone()));
    OPTIONS.iter().filter_map(given).collect()
}

/// The server that was recorded, in words; nothing when nothing was.
pub(crate) fn place(recorded: &BTreeMap<String, String>) -> Option<String> {
    Some(format!("{}:{}", recorded.get("PGHOST")?, recorded.get("PGPORT")?))
}

/// Whether these settings lead to another server than the ones recorded do.
pub(crate) fn elsewhere(recorded: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> bool {
    ["PGHOST", "PGPORT"].iter().any(|name| recorded.get(*name).is_some_and(|was| now.get(*name) != Some(was)))
}

/// The options for a command line.
pub(crate) fn options(env: &BTreeMap<String, String>) -> String {
    let given = OPTIONS
        .iter()
        .filter_map(|(option, name)| env.get(*name).map(|value| format!(" --{option}={}", quoted(value))));
    given.collect()
}

/// One statement, as a line for a shell.
pub(crate) fn line(env: &BTreeMap<String, String>, statement: &str) -> String {
    format!("psql{} --dbname=postgres --no-psqlrc --command={}", options(env), quoted(statement))
}
