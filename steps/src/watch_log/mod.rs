//! Step kind `watch-log`: waits until a log shows what is expected, and fails when it shows what must not be there.

mod command;
mod follow;
mod lines;
mod watch;

use std::time::Instant;

use async_trait::async_trait;
use runbook_engine::artifact::Artifact;
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::backoff::pause;
use crate::kind::{Context, End, Step, would};
use crate::records::{blocking, write_records};
use command::LogCommand;
use follow::Follower;
use watch::Watch;

/// Reads a log of one record a line, from its start, and follows it until every expectation is met. When the time is over, or
/// when the log ends, the step fails and says of each how many records were seen. A record that is forbidden fails it at once, and is
/// shown. Exactly one of `path` and `command` says where the log is.
///
/// Without `expect` the log is read to its end: a file as far as it has been written, a program until it ends by itself. A log without
/// a single line that counts proves nothing then, and fails the step.
///
/// The file may not be there yet, may be rotated (renamed or emptied), and may hold both JSON records and lines of text. Of
/// those, only what looks for a text (`contains`) takes notice. A last line without its end is waited for.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "oneOf" = [{"required": ["path"]}, {"required": ["command"]}],
    "anyOf" = [{"required": ["expect"]}, {"required": ["forbid"]}]
))]
pub struct WatchLog {
    /// The log file, on this machine.
    #[serde(default)]
    pub path: Option<String>,
    /// A program that prints the log.
    #[serde(default)]
    pub command: Option<LogCommand>,
    /// Only records from this time on count, RFC 3339. It is taken to whole milliseconds, downwards. Records whose time is older,
    /// absent or unreadable are passed over. A line of text has the time that it begins with, or that of the line before it; as
    /// long as none is known, it counts. Default: all records count.
    #[serde(default)]
    pub since: Option<String>,
    /// The field that holds a record's time: RFC 3339 text, or a number of seconds or milliseconds since 1970. Default `timestamp`.
    #[serde(default = "default_timestamp_field")]
    pub timestamp_field: String,
    /// What must be seen; all of it.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub expect: Vec<Expectation>,
    /// What must not be seen, before everything is seen that is expected.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub forbid: Vec<Forbidden>,
    /// How long to wait. Default `5m`.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// How long to wait before looking again into a file. Default `500ms`.
    #[serde(default = "default_interval")]
    pub interval: Duration,
}

/// Records that must be seen: those that fit both `match` and `contains`, of which one may be left out.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["match"]}, {"required": ["contains"]}]))]
pub struct Expectation {
    /// What a record's fields must equal, by name; a name that begins with `/` is a JSON pointer into the record.
    #[serde(rename = "match", default)]
    pub fields: Option<Map<String, Value>>,
    /// What the line must contain as it stands, or one of the texts in the record. Without `match` a line of text will do.
    #[serde(default)]
    pub contains: Option<String>,
    /// How many such records at least. Default 1.
    #[serde(default = "default_at_least")]
    pub at_least: u64,
}

/// Records that must not be seen: those that fit both `match` and `contains`, of which one may be left out.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["match"]}, {"required": ["contains"]}]))]
pub struct Forbidden {
    /// What a record's fields equal, by name; a name that begins with `/` is a JSON pointer into the record.
    #[serde(rename = "match", default)]
    pub fields: Option<Map<String, Value>>,
    /// What the line contains as it stands, or one of the texts in the record. Without `match` lines of text are meant too.
    #[serde(default)]
    pub contains: Option<String>,
}

fn default_timestamp_field() -> String {
    "timestamp".to_owned()
}

fn default_timeout() -> Duration {
    Duration::from_secs(300)
}

fn default_interval() -> Duration {
    Duration::from_millis(500)
}

fn default_at_least() -> u64 {
    1
}

/// What a step of kind `watch-log` leaves.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Watched {
    /// How many records were seen of each expectation, in their order.
    pub counts: Vec<u64>,
    /// How many lines were read, empty ones not counted.
    pub lines_read: u64,
    /// How many of them are no JSON object, but text.
    pub non_json: u64,
    /// How many lines were passed over because of `since`.
    pub too_old: u64,
    /// The first 1000 records that matched, one a line; a line of text as `{"text": …}`.
    pub matched: Artifact,
    /// How many milliseconds it took.
    pub waited_ms: u64,
}

/// How much is shown of a line that must not be there, in characters.
const SHOWN: usize = 500;

#[async_trait]
impl Step for WatchLog {
    const NAME: &'static str = "watch-log";
    const FLEETING_OUTPUTS: &'static [&'static str] = &["/waited_ms"];
    const SUMMARY: &'static str =
        "Wait until a log shows what is expected, or make sure that it does not show what is forbidden";
    const EXAMPLE: &'static str = r"id: healthy
uses: watch-log
with:
  path: /var/log/chatkit/gateway.log
  expect:
    - { match: { kind: attachmentUploadSucceeded }, at_least: 1 }
  timeout: 2m
";
    const SECRET_FIELDS: &'static [&'static str] = &["/command/env/*"];
    type Outputs = Watched;

    fn effect(_: &Value) -> Effect {
        Effect::READ
    }

    async fn foresee(self, _: Effect, _: &Context) -> Result<Foresight, StepError> {
        let what = self.path.unwrap_or_else(|| "what a program prints".to_owned());
        let does = if self.expect.is_empty() { "read" } else { "watch" };
        Ok(would(format!("{does} {what} for at most {}", self.timeout)))
    }

    async fn run(self, cx: &Context) -> Result<End<Watched>, StepError> {
        let mut watch = Watch::new(&self)?;
        let begun = Instant::now();
        cx.checkpoint()?;
        match (&self.path, &self.command) {
            (Some(path), None) => watch = self.follow(path, watch, cx).await?,
            (None, Some(command)) => command.watch(&self, &mut watch, cx).await?,
            _ => return Err(StepError::invalid("exactly one of `path` and `command` is needed")),
        }
        let matched = write_records(cx, "matched.jsonl", &watch.matched).await?;
        let Watch { counts, lines_read, non_json, too_old, .. } = watch;
        let waited_ms = Duration(begun.elapsed()).as_millis();
        Ok(End::Done(Watched { counts, lines_read, non_json, too_old, matched, waited_ms }))
    }
}

async fn look(
    path: &str,
    mut follower: Follower,
    mut watch: Watch,
) -> Result<(Follower, Watch, bool), StepError> {
    blocking(&format!("reading {path}"), move || {
        let more = follower.poll(|line| watch.line(line))?;
        Ok((follower, watch, more))
    })
    .await
}

impl WatchLog {
    /// Follows a file until everything was seen.
    async fn follow(&self, path: &str, mut watch: Watch, cx: &Context) -> Result<Watch, StepError> {
        let mut follower = Follower::new(path);
        let begun = Instant::now();
        loop {
            let more;
            (follower, watch, more) = look(path, follower, watch).await?;
            watch.show(cx);
            self.allows(&watch, cx)?;
            if watch.is_met() || self.expect.is_empty() && !more && watch.counted > 0 {
                return Ok(watch);
            }
            cx.checkpoint()?;
            if more {
                continue;
            }
            let left = self.timeout.0.saturating_sub(begun.elapsed());
            if left.is_zero() {
                let error = StepError::gate(format!("after {}: {}", self.timeout, self.seen(&watch)));
                let found = follower.found.then(|| format!("{} from {path}", watch.read()));
                return Err(error.with_help(found.unwrap_or_else(|| format!("{path} is not there"))));
            }
            pause(cx, self.interval.0.min(left)).await?;
        }
    }

    /// Fails when something was seen that is forbidden.
    fn allows(&self, watch: &Watch, cx: &Context) -> Result<(), StepError> {
        let Some(line) = &watch.forbidden else { return Ok(()) };
        let line: String = cx.redactor.text(line).chars().take(SHOWN).collect();
        let error = StepError::gate(format!("the log shows what must not be there: {line}"));
        Err(error.with_help(format!("{}, up to there", watch.read())))
    }

    /// How many records were seen of each expectation, in words.
    fn seen(&self, watch: &Watch) -> String {
        if self.expect.is_empty() {
            return "no line counts, and a log that says nothing proves nothing".to_owned();
        }
        let seen = self.expect.iter().zip(&watch.counts).map(|(expectation, count)| {
            let fields = expectation.fields.as_ref().map(|fields| Value::Object(fields.clone()).to_string());
            let text = expectation.contains.as_ref().map(|text| format!("`{text}`"));
            let what = fields.into_iter().chain(text).collect::<Vec<_>>().join(" with ");
            format!("{what}: {count} of {} seen", expectation.at_least)
        });
        seen.collect::<Vec<_>>().join("; ")
    }
}
