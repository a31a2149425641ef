//! The programs of PostgreSQL, run with the settings of a connection in their environment: no password is in a command line.

use std::collections::BTreeMap;
use std::path::Path;

use runbook_engine::error::StepError;

use super::Backup;
use crate::connections::sql::Database;
use crate::kind::Context;
use crate::process::{Ended, Kept, Process};

/// How a line of these programs begins that says what went wrong, after the program's name.
const ERROR: [&str; 2] = [": error: ", ": fatal: "];

/// The environment in which a program of PostgreSQL reaches a database; an error for one of another kind.
pub(super) fn environment(database: &Database, name: &str) -> Result<BTreeMap<String, String>, StepError> {
    database.environment().ok_or_else(|| {
        StepError::invalid(format!(
            "connection `{name}` is none of type `postgres`, and nothing else can be dumped"
        ))
    })
}

/// A program that nobody sees print, with these arguments.
pub(super) fn process(step: &Backup, program: &str, arguments: &[&str]) -> Process {
    let path =
        step.programs.as_deref().map_or_else(|| Path::new(program).to_owned(), |folder| folder.join(program));
    let mut argv = vec![path.display().to_string()];
    argv.extend(arguments.iter().map(|&argument| argument.to_owned()));
    Process { quiet: true, ..Process::new(&argv) }
}

/// Runs a program to its end; what it printed.
pub(super) async fn run(
    step: &Backup,
    cx: &Context,
    program: &str,
    arguments: &[&str],
    env: BTreeMap<String, String>,
) -> Result<Kept, StepError> {
    let process = Process { env, ..process(step, program, arguments) };
    let finished = process.run(&cx.engine, &cx.stop).await.map_err(|error| {
        error.with_help(format!("install the client programs of PostgreSQL, or name their folder in `programs`: `{program}` is needed"))
    })?;
    match finished.ended {
        Ended::Exited if finished.code() == Some(0) => Ok(finished.stdout),
        Ended::Exited => {
            let mut error = StepError::refused(format!("`{program}` {}", finished.how()));
            // What comes after it is advice, or what was being done.
            let said = finished.stderr.text.lines().find(|line| ERROR.iter().any(|word| line.contains(word)));
            error.causes.extend(said.map(str::to_owned).or_else(|| finished.last_error_line()));
            Err(error)
        }
        Ended::Stopped | Ended::TimedOut => Err(StepError::interrupted()),
    }
}
