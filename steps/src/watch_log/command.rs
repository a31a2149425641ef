//! A log that a program prints, such as `kubectl logs -f`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration as StdDuration;

use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::Deserialize;

use super::lines::Lines;
use super::{Watch, WatchLog};
use crate::kind::Context;
use crate::process::{Ended, Finished, Process};
use crate::text::Text;

/// A program that prints the log to its standard output, and, where something is expected, may go on printing. Its standard error is
/// shown while it runs.
///
/// It is ended with its children (TERM, and KILL 5 seconds later) when everything was seen, when the time is over and when the run
/// stops. It is meant to look only: it may be started any number of times.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogCommand {
    /// The program and its arguments, one item each.
    #[schemars(length(min = 1))]
    argv: Vec<Text>,
    /// Variables in addition to those that runbook itself has. Secrets may be used here.
    #[serde(default)]
    env: BTreeMap<String, Text>,
    /// The folder it starts in. Default: the one runbook was started in.
    #[serde(default)]
    cwd: Option<PathBuf>,
}

/// How long the program has between TERM and KILL.
const GRACE: StdDuration = StdDuration::from_secs(5);

impl LogCommand {
    /// Reads what the program prints until everything was seen; otherwise why that did not come about.
    pub(super) async fn watch(
        &self,
        with: &WatchLog,
        watch: &mut Watch,
        cx: &Context,
    ) -> Result<(), StepError> {
        let process = Process {
            argv: self.argv.iter().map(|word| word.0.clone()).collect(),
            env: self.env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect(),
            cwd: self.cwd.clone(),
            timeout: Some(with.timeout.0),
            grace: GRACE,
            ..Process::default()
        };
        let enough = cx.stop.child_token();
        let mut lines = Lines::default();
        let take = |line: &[u8], watch: &mut Watch| {
            // What comes after everything was seen comes by chance.
            if !watch.is_over() {
                watch.line(cx.redactor.text(&String::from_utf8_lossy(line)).as_bytes());
            }
        };
        let mut hear = |bytes: &[u8]| {
            lines.push(bytes, &mut |line| take(line, watch));
            watch.show(cx);
            if watch.is_over() {
                enough.cancel();
            }
        };
        let finished = process.run_hearing(&cx.engine, &enough, &mut hear).await?;
        lines.end(&mut |line| take(line, watch));
        with.allows(watch, cx)?;
        let read = with.expect.is_empty() && watch.counted > 0;
        if watch.is_met() || read && finished.ended == Ended::Exited && finished.code() == Some(0) {
            return Ok(());
        }
        cx.checkpoint()?;
        let said = with.seen(watch);
        Err(match finished.ended {
            Ended::Stopped => StepError::interrupted(),
            Ended::TimedOut if read => StepError::gate(format!(
                "`{}` did not end within {}, and without `expect` a log is read to its end",
                process.program(),
                with.timeout
            )),
            Ended::TimedOut => StepError::gate(format!("after {}: {said}", with.timeout)),
            Ended::Exited if read => ended_early(&process, &finished, "before the end of the log"),
            Ended::Exited if with.expect.is_empty() => {
                ended_early(&process, &finished, &format!("and {said}"))
            }
            Ended::Exited => ended_early(&process, &finished, &format!("before everything was seen: {said}")),
        }
        .with_help(format!("{} from `{}`", watch.read(), process.program())))
    }
}

/// The program ended by itself and should not have yet, or because it could not go on; `when` says what it had come to.
fn ended_early(process: &Process, finished: &Finished, when: &str) -> StepError {
    let message = format!("`{}` {} {when}", process.program(), finished.how());
    let mut error =
        if finished.code() == Some(0) { StepError::gate(message) } else { StepError::refused(message) };
    error.causes.extend(finished.last_error_line());
    error
}
