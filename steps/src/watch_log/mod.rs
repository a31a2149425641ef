//! Step kind `watch-log`: waits until a structured log shows what is expected.

mod command;
mod follow;
mod lines;

use std::time::Instant;

use async_trait::async_trait;
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use runbook_engine::artifact::Artifact;
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use runbook_engine::step::Progress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::backoff::pause;
use crate::kind::{Context, End, Step, would};
use crate::records::{blocking, write_records};
use command::LogCommand;
use follow::Follower;

/// Reads a log of one JSON record a line, from its start, and follows it until every expectation is met. When the time is over, or
/// when the log ends, the step fails and says of each how many records were seen. Exactly one of `path` and `command` says where the
/// log is.
///
/// The file may not be there yet, may be rotated (renamed or emptied), and may hold other lines: those that are no JSON object
/// are counted and passed over. A last line without its end is waited for.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["path"]}, {"required": ["command"]}]))]
pub struct WatchLog {
    /// The log file, on this machine.
    #[serde(default)]
    pub path: Option<String>,
    /// A program that prints the log.
    #[serde(default)]
    pub command: Option<LogCommand>,
    /// Only records from this time on count, RFC 3339. It is taken to whole milliseconds, downwards. Records whose time is older,
    /// absent or unreadable are passed over. Default: all records count.
    #[serde(default)]
    pub since: Option<String>,
    /// The field that holds a record's time: RFC 3339 text, or a number of seconds or milliseconds since 1970. Default `timestamp`.
    #[serde(default = "default_timestamp_field")]
    pub timestamp_field: String,
    /// What must be seen; all of it.
    #[schemars(length(min = 1))]
    pub expect: Vec<Expectation>,
    /// How long to wait. Default `5m`.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// How long to wait before looking again into a file. Default `500ms`.
    #[serde(default = "default_interval")]
    pub interval: Duration,
}

/// Records that must be seen.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// What a record's fields must equal, by name; a name that begins with `/` is a JSON pointer into the record.
    #[serde(rename = "match")]
    pub fields: Map<String, Value>,
    /// How many such records at least. Default 1.
    #[serde(default = "default_at_least")]
    pub at_least: u64,
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
    /// How many of them are no JSON object.
    pub non_json: u64,
    /// How many records were passed over because of `since`.
    pub too_old: u64,
    /// The first 1000 records that matched, one a line.
    pub matched: Artifact,
    /// How many milliseconds it took.
    pub waited_ms: u64,
}

/// How many records that matched are kept.
const KEPT: usize = 1000;

#[async_trait]
impl Step for WatchLog {
    const NAME: &'static str = "watch-log";
    const FLEETING_OUTPUTS: &'static [&'static str] = &["/waited_ms"];
    const SUMMARY: &'static str = "Wait until a structured log shows the events that are expected";
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
        Ok(would(format!("watch {what} for at most {}", self.timeout)))
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
            if watch.is_met() {
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

    /// How many records were seen of each expectation, in words.
    fn seen(&self, watch: &Watch) -> String {
        let seen = self.expect.iter().zip(&watch.counts).map(|(expectation, count)| {
            let fields = Value::Object(expectation.fields.clone());
            format!("{fields}: {count} of {} seen", expectation.at_least)
        });
        seen.collect::<Vec<_>>().join("; ")
    }
}

/// What was seen so far.
struct Watch {
    expect: Vec<Expectation>,
    since: Option<Timestamp>,
    timestamp_field: String,
    counts: Vec<u64>,
    lines_read: u64,
    non_json: u64,
    too_old: u64,
    matched: Vec<Value>,
}

impl Watch {
    fn new(with: &WatchLog) -> Result<Self, StepError> {
        let since = with.since.as_deref().map(from).transpose()?;
        Ok(Self {
            expect: with.expect.clone(),
            since,
            timestamp_field: with.timestamp_field.clone(),
            counts: vec![0; with.expect.len()],
            lines_read: 0,
            non_json: 0,
            too_old: 0,
            matched: Vec::new(),
        })
    }

    fn line(&mut self, line: &[u8]) {
        self.lines_read += 1;
        let Ok(record) = serde_json::from_slice::<Map<String, Value>>(line) else {
            self.non_json += 1;
            return;
        };
        let record = Value::Object(record);
        if let Some(since) = self.since
            && field(&record, &self.timestamp_field).and_then(instant).is_none_or(|at| at < since)
        {
            self.too_old += 1;
            return;
        }
        let mut any = false;
        for (expectation, count) in self.expect.iter().zip(&mut self.counts) {
            if expectation.fields.iter().all(|(name, value)| field(&record, name) == Some(value)) {
                *count += 1;
                any = true;
            }
        }
        if any && self.matched.len() < KEPT {
            self.matched.push(record);
        }
    }

    /// What was read, in words.
    fn read(&self) -> String {
        let Self { lines_read, non_json, too_old, .. } = self;
        format!("{lines_read} lines were read ({non_json} no JSON object, {too_old} too old)")
    }

    fn met(&self) -> usize {
        self.expect
            .iter()
            .zip(&self.counts)
            .filter(|(expectation, count)| **count >= expectation.at_least)
            .count()
    }

    fn is_met(&self) -> bool {
        self.met() == self.expect.len()
    }

    fn show(&self, cx: &Context) {
        cx.live.progress(Progress {
            done: self.met() as u64,
            total: Some(self.expect.len() as u64),
            unit: "expectations".to_owned(),
            failed: 0,
            note: format!("{} lines read", self.lines_read),
        });
    }
}

fn field<'a>(record: &'a Value, name: &str) -> Option<&'a Value> {
    if name.starts_with('/') { record.pointer(name) } else { record.get(name) }
}

/// The time from which records count. Logs have whole milliseconds, so an event of the same millisecond is not older.
fn from(text: &str) -> Result<Timestamp, StepError> {
    let invalid = |error: &jiff::Error| {
        StepError::invalid(format!("`since` is `{text}`, no RFC 3339 time with an offset")).with_source(error)
    };
    let at: Timestamp = text.trim().parse().map_err(|error| invalid(&error))?;
    at.round(TimestampRound::new().smallest(Unit::Millisecond).mode(RoundMode::Floor))
        .map_err(|error| invalid(&error))
}

/// Numbers of this size and above are milliseconds: as seconds they would be in the year 5138.
const MILLISECONDS_FROM: f64 = 1e11;

fn instant(value: &Value) -> Option<Timestamp> {
    if let Some(text) = value.as_str() {
        return text.parse().ok();
    }
    let number = value.as_f64()?;
    let millis = if number.abs() >= MILLISECONDS_FROM { number } else { number * 1000.0 };
    #[expect(clippy::cast_possible_truncation, reason = "what does not fit is no time, and is refused next")]
    Timestamp::from_millisecond(millis as i64).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn watch(more: Value) -> Watch {
        let mut with = json!({ "path": "x", "expect": [{ "match": { "kind": "up", "/a/0": 1 } }] });
        with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Watch::new(&serde_json::from_value(with).unwrap()).unwrap()
    }

    #[test]
    fn records_match_by_every_field() {
        let mut watch = watch(json!({}));
        for line in [
            r#"{"kind":"up","a":[1]}"#,
            r#"{"kind":"up","a":[2]}"#,
            r#"{"kind":"down","a":[1]}"#,
            r#"{"kind":"up"}"#,
            r#"["kind"]"#,
            "plain text",
        ] {
            watch.line(line.as_bytes());
        }
        assert_eq!((watch.counts.as_slice(), watch.lines_read, watch.non_json), ([1].as_slice(), 6, 2));
        assert_eq!(watch.matched, [json!({ "kind": "up", "a": [1] })]);
    }

    #[test]
    fn only_records_of_the_time_count() {
        let mut watch = watch(json!({ "since": "2026-02-01T12:00:00.1239Z", "expect": [{ "match": {} }] }));
        for (at, counts) in [
            (json!("2026-02-01T12:00:00.122Z"), 0),
            (json!("2026-02-01T12:00:00.123Z"), 1),
            (json!("2026-02-01T13:00:00.123+01:00"), 2),
            (json!("noon"), 2),
            (json!(null), 2),
            (json!(1_769_947_200.124), 3),
            (json!(1_769_947_200_122_u64), 3),
            (json!(1_769_947_200_123_u64), 4),
        ] {
            watch.line(json!({ "timestamp": at }).to_string().as_bytes());
            assert_eq!(watch.counts, [counts], "{at}");
        }
    }
}
