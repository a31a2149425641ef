//! What is seen of a log, line by line. Nothing here reaches anything.

use std::borrow::Cow;

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use runbook_engine::error::StepError;
use runbook_engine::step::Progress;
use serde_json::{Map, Value, json};

use super::{Expectation, Forbidden, WatchLog};
use crate::kind::Context;

/// How many records that matched are kept.
const KEPT: usize = 1000;

/// What was seen so far.
pub(super) struct Watch {
    expect: Vec<Expectation>,
    forbid: Vec<Forbidden>,
    since: Option<Timestamp>,
    timestamp_field: String,
    /// Whether the line before was passed over, which a line of text without a time of its own follows.
    passing: bool,
    /// How many records were seen of each expectation.
    pub(super) counts: Vec<u64>,
    /// How many lines were read.
    pub(super) lines_read: u64,
    /// How many of them are text.
    pub(super) non_json: u64,
    /// How many were passed over because of their time.
    pub(super) too_old: u64,
    /// How many were looked at.
    pub(super) counted: u64,
    /// The first records that matched.
    pub(super) matched: Vec<Value>,
    /// The first line that must not be there.
    pub(super) forbidden: Option<String>,
}

/// One line of a log.
enum Line<'a> {
    Record(Value),
    Text(Cow<'a, str>),
}

impl Watch {
    pub(super) fn new(with: &WatchLog) -> Result<Self, StepError> {
        if with.expect.is_empty() && with.forbid.is_empty() {
            return Err(StepError::invalid("`expect` or `forbid` is needed"));
        }
        let nothing = |fields: &Option<_>, contains: &Option<_>| fields.is_none() && contains.is_none();
        if with.expect.iter().any(|one| nothing(&one.fields, &one.contains))
            || with.forbid.iter().any(|one| nothing(&one.fields, &one.contains))
        {
            return Err(StepError::invalid("`match` or `contains` is needed of each record"));
        }
        let since = with.since.as_deref().map(from).transpose()?;
        Ok(Self {
            expect: with.expect.clone(),
            forbid: with.forbid.clone(),
            since,
            timestamp_field: with.timestamp_field.clone(),
            passing: false,
            counts: vec![0; with.expect.len()],
            lines_read: 0,
            non_json: 0,
            too_old: 0,
            counted: 0,
            matched: Vec::new(),
            forbidden: None,
        })
    }

    pub(super) fn line(&mut self, bytes: &[u8]) {
        self.lines_read += 1;
        let raw = String::from_utf8_lossy(bytes);
        let line = match serde_json::from_slice::<Map<String, Value>>(bytes) {
            Ok(record) => Line::Record(Value::Object(record)),
            Err(_) => Line::Text(without_colours(&raw)),
        };
        self.non_json += u64::from(matches!(line, Line::Text(_)));
        if self.is_too_old(&line) {
            self.too_old += 1;
            return;
        }
        self.counted += 1;
        // What comes after everything was seen comes by chance.
        let forbids = |one: &Forbidden| line.fits(one.fields.as_ref(), one.contains.as_deref(), &raw);
        if self.forbidden.is_none() && !self.is_met() && self.forbid.iter().any(forbids) {
            self.forbidden = Some(raw.trim().to_owned());
        }
        let mut any = false;
        for (expectation, count) in self.expect.iter().zip(&mut self.counts) {
            if line.fits(expectation.fields.as_ref(), expectation.contains.as_deref(), &raw) {
                *count += 1;
                any = true;
            }
        }
        if any && self.matched.len() < KEPT {
            self.matched.push(match line {
                Line::Record(record) => record,
                Line::Text(text) => json!({ "text": text }),
            });
        }
    }

    fn is_too_old(&mut self, line: &Line<'_>) -> bool {
        let Some(since) = self.since else { return false };
        self.passing = match line {
            Line::Record(record) => {
                field(record, &self.timestamp_field).and_then(instant).is_none_or(|at| at < since)
            }
            Line::Text(text) => {
                let first = text.split_whitespace().next().unwrap_or_default();
                first.parse().map_or(self.passing, |at: Timestamp| at < since)
            }
        };
        self.passing
    }

    /// What was read, in words.
    pub(super) fn read(&self) -> String {
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

    /// Whether all was seen that is expected. Where nothing is, that is never so: the log is read to its end.
    pub(super) fn is_met(&self) -> bool {
        !self.expect.is_empty() && self.met() == self.expect.len()
    }

    /// Whether nothing that comes could change what it comes to.
    pub(super) fn is_over(&self) -> bool {
        self.is_met() || self.forbidden.is_some()
    }

    pub(super) fn show(&self, cx: &Context) {
        cx.live.progress(Progress {
            done: self.met() as u64,
            total: Some(self.expect.len() as u64),
            unit: "expectations".to_owned(),
            failed: 0,
            note: format!("{} lines read", self.lines_read),
        });
    }
}

impl Line<'_> {
    /// Whether the line, as it stands in `raw`, has these fields and contains this text.
    fn fits(&self, fields: Option<&Map<String, Value>>, contains: Option<&str>, raw: &str) -> bool {
        let has = |fields: &Map<String, Value>| match self {
            Self::Record(record) => fields.iter().all(|(name, value)| field(record, name) == Some(value)),
            Self::Text(_) => false,
        };
        let says = |text: &str| match self {
            Self::Record(record) => raw.contains(text) || has_text(record, text),
            Self::Text(line) => line.contains(text),
        };
        fields.is_none_or(has) && contains.is_none_or(says)
    }
}

/// Whether a text in a record, at any depth, contains this one. In the line it may stand escaped.
fn has_text(record: &Value, text: &str) -> bool {
    match record {
        Value::String(own) => own.contains(text),
        Value::Array(all) => all.iter().any(|one| has_text(one, text)),
        Value::Object(all) => all.values().any(|one| has_text(one, text)),
        _ => false,
    }
}

/// The line without the colours that programs write for terminals.
fn without_colours(line: &str) -> Cow<'_, str> {
    if !line.contains("\x1b[") {
        return Cow::Borrowed(line);
    }
    let mut pieces = line.split("\x1b[");
    let first = pieces.next().unwrap_or_default().to_owned();
    let end = |piece: &str| piece.find(|c: char| c.is_ascii_alphabetic()).map_or(piece.len(), |at| at + 1);
    Cow::Owned(pieces.fold(first, |text, piece| text + &piece[end(piece)..]))
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
    fn a_text_is_found_in_lines_and_in_records() {
        let contains =
            json!({ "expect": [{ "contains": "a \"b\"" }, { "match": { "kind": "up" }, "contains": "b" }] });
        let mut watch = watch(contains);
        for (line, counts) in [
            (r#"plain a "b""#, [1, 0]),
            (r#"{"fields":{"message":"a \"b\""}}"#, [2, 0]),
            (r#"{"kind":"up","fields":["b"]}"#, [2, 1]),
            (r#"{"kind":"up","fields":["c"]}"#, [2, 1]),
            ("a \u{1b}[33m\"b\"\u{1b}[0m", [3, 1]),
        ] {
            watch.line(line.as_bytes());
            assert_eq!(watch.counts, counts, "{line}");
        }
        assert_eq!(watch.matched[0], json!({ "text": "plain a \"b\"" }));
    }

    #[test]
    fn lines_of_text_have_the_time_that_they_begin_with_or_that_of_the_line_before() {
        let forbid = json!([{ "contains": "falling back" }]);
        let lines = |first: &str, second: &str| {
            let more = json!({ "since": "2026-02-01T12:00:00Z", "expect": [], "forbid": forbid });
            let mut watch = watch(more);
            watch.line(first.as_bytes());
            watch.line(second.as_bytes());
            (watch.forbidden.is_some(), watch.counted)
        };
        let (old, new) =
            ("\u{1b}[2m2026-02-01T11:59:59.999Z\u{1b}[0m  WARN", "2026-02-01T12:00:00.000001Z WARN");
        for (first, second, told) in [
            (format!("{old} falling back"), "  because".to_owned(), (false, 0)),
            (old.to_owned(), "falling back".to_owned(), (false, 0)),
            (old.to_owned(), format!("{new} falling back"), (true, 1)),
            (new.to_owned(), "falling back".to_owned(), (true, 2)),
            ("falling back".to_owned(), old.to_owned(), (true, 1)),
        ] {
            assert_eq!(lines(&first, &second), told, "{first} {second}");
        }
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
