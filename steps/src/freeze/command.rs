//! Freezing by commands that read, apply and release a value.

use std::collections::BTreeMap;

use async_trait::async_trait;
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::way::{Way, plain_name};
use crate::kind::Context;
use crate::process::{Ended, Hear, IfOrphaned, KEPT, Process, quoted};
use crate::text::Text;

/// Commands that read, apply and release a value. Each gets the variable `RUNBOOK_VALUE`, the value that freezes; `apply` and
/// `release` also get `RUNBOOK_ORIGINAL`, the value that was read first. Both of these may be run twice, but never beside each other:
/// one that outlives a runbook that was killed is waited for, and ended when its `timeout` is over. A value that holds a secret, or that is
/// no text, is refused: it could not be put back as it was.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandWay {
    /// A name for what is frozen, the same in every runbook that freezes it; capital letters and the number of spaces make no difference.
    #[schemars(length(min = 1))]
    target: String,
    /// Prints the present value, and nothing else to its standard output, which nobody sees. Spaces and line breaks around it do not count.
    #[schemars(length(min = 1))]
    read: Vec<Text>,
    /// Puts the value that freezes there. It ends when the value is in force.
    #[schemars(length(min = 1))]
    apply: Vec<Text>,
    /// Puts the original value back. It ends when the value is in force. It runs too when `apply` was cut off before the value changed.
    #[schemars(length(min = 1))]
    release: Vec<Text>,
    /// The value that freezes, as `read` prints it.
    value: Text,
    /// How long each command may take. Default: 5m.
    #[serde(default = "timeout")]
    timeout: Duration,
}

fn timeout() -> Duration {
    Duration::from_secs(300)
}

impl CommandWay {
    async fn command(
        &self,
        cx: &Context,
        what: &str,
        argv: &[Text],
        original: Option<&Value>,
        hear: Option<Hear<'_>>,
    ) -> Result<(), StepError> {
        let mut env = BTreeMap::from([("RUNBOOK_VALUE".to_owned(), self.value.0.clone())]);
        if let Some(original) = original {
            env.insert("RUNBOOK_ORIGINAL".to_owned(), self.text(original));
        }
        let argv: Vec<String> = argv.iter().map(|word| word.0.clone()).collect();
        // Reading changes nothing, so that it may be cut off.
        let if_orphaned = if original.is_some() { IfOrphaned::Await } else { IfOrphaned::End };
        // It is read again and again; what it prints is the value, which is told where it matters.
        let quiet = original.is_none();
        let process =
            Process { env, timeout: Some(self.timeout.0), quiet, if_orphaned, ..Process::new(&argv) };
        // A change that was begun is finished; the time-out bounds it.
        let stop = CancellationToken::new();
        let finished = match hear {
            Some(hear) => process.run_hearing(&cx.engine, &stop, hear).await?,
            None => process.run(&cx.engine, &stop).await?,
        };
        let how = match finished.ended {
            Ended::Exited if finished.code() == Some(0) => return Ok(()),
            Ended::TimedOut => format!("did not end within {}", self.timeout),
            Ended::Exited | Ended::Stopped => finished.how(),
        };
        let mut error = StepError::transient(format!("{}: the {what} command {how}", self.target));
        error.causes.extend(finished.last_line());
        // As it can be typed: without these it would put another value there.
        let given = process.env.iter().map(|(name, value)| format!("{name}={} ", quoted(value)));
        let given: String = if quiet { String::new() } else { given.collect() };
        Err(error.with_help(format!("the command is `{given}{}`", process.line())))
    }
}

#[async_trait]
impl Way for CommandWay {
    fn target(&self) -> String {
        format!("command:{}", plain_name(&self.target))
    }

    fn label(&self) -> String {
        self.target.clone()
    }

    fn replacement(&self) -> Value {
        Value::from(self.value.as_str().trim_ascii())
    }

    async fn read(&self, cx: &Context) -> Result<Value, StepError> {
        // As it is, byte for byte: what is shown and recorded of a process is without secrets, and would put back another value.
        let mut printed = Vec::new();
        let mut hear = |bytes: &[u8]| {
            let room = (KEPT + 1).saturating_sub(printed.len());
            printed.extend_from_slice(&bytes[..bytes.len().min(room)]);
        };
        self.command(cx, "read", &self.read, None, Some(&mut hear)).await?;
        let refused =
            |what: &str| StepError::refused(format!("{}: the read command printed {what}", self.target));
        if printed.len() > KEPT {
            return Err(refused("more than 64 KiB"));
        }
        let Ok(text) = std::str::from_utf8(&printed) else {
            return Err(refused("bytes that are not UTF-8 text, which could not be put back as they are"));
        };
        match text.trim_ascii() {
            "" => Err(refused("nothing")),
            text if text.contains('\0') => Err(refused("a NUL byte, which no command can be given")),
            text => Ok(Value::from(text)),
        }
    }

    fn text(&self, present: &Value) -> String {
        present.as_str().unwrap_or_default().to_owned()
    }

    fn frozen(&self, present: &Value) -> bool {
        *present == self.replacement()
    }

    fn makes_two_values(&self) -> bool {
        false
    }

    async fn apply(&self, cx: &Context, original: &Value) -> Result<(), StepError> {
        self.command(cx, "apply", &self.apply, Some(original), None).await
    }

    async fn put_back(&self, cx: &Context, original: &Value) -> Result<(), StepError> {
        self.command(cx, "release", &self.release, Some(original), None).await
    }

    async fn insist(&self, cx: &Context, original: &Value) -> Result<(), StepError> {
        // What `apply` does besides the value may have been done.
        self.put_back(cx, original).await
    }
}
