//! Step kind `assert`: conditions that must hold before the run goes on.

use std::borrow::Cow;
use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use runbook_engine::kinds::Effect;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::kind::{Context, End, Step};

/// Goes on only when every condition holds; otherwise the step fails with the message of each one that does not.
///
/// Give `that`, `window` or both.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["that"]}, {"required": ["window"]}]))]
pub struct Assert {
    /// One condition, usually an expression, or a list of conditions each with its own message. A condition must be true or
    /// false: a number or a text is a mistake.
    #[serde(default)]
    pub that: Option<Conditions>,
    /// What to say when the single condition does not hold. Evaluated only then: it may speak of what is not there otherwise.
    #[serde(default)]
    pub message: Option<String>,
    /// A maintenance window that must be open now.
    #[serde(default)]
    pub window: Option<Window>,
}

/// One condition with its message.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// What must be true.
    pub that: bool,
    /// What to say when it is not. Evaluated only then.
    pub message: String,
}

/// `true`, `false`, or a list of conditions.
#[derive(Clone, Debug, PartialEq)]
pub enum Conditions {
    /// A single condition.
    One(bool),
    /// Each with its message.
    Many(Vec<Condition>),
}

/// A maintenance window. Now must be within it, and its end not past.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// When it begins, RFC 3339 with an offset, such as `2026-02-01T22:00:00Z`.
    pub start: String,
    /// When it ends, RFC 3339 with an offset.
    pub end: String,
    /// The least it must last from start to end, such as `30m`. Default: any length.
    #[serde(default)]
    pub at_least: Duration,
}

/// What a step of kind `assert` leaves.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Asserted {
    /// How many conditions held; a window counts as one.
    pub held: u64,
    /// The window, when one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowFacts>,
}

/// A window that is open.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct WindowFacts {
    /// When it began, RFC 3339, UTC.
    #[schemars(with = "String")]
    pub start: Timestamp,
    /// When it ends, RFC 3339, UTC.
    #[schemars(with = "String")]
    pub end: Timestamp,
    /// How many milliseconds of it were left when it was checked.
    pub remaining_ms: u64,
}

impl<'de> Deserialize<'de> for Conditions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Conditions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or a list of {that, message}")
            }

            fn visit_bool<E>(self, holds: bool) -> Result<Conditions, E> {
                Ok(Conditions::One(holds))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Conditions, A::Error> {
                let mut conditions = Vec::new();
                while let Some(condition) = list.next_element()? {
                    conditions.push(condition);
                }
                if conditions.is_empty() {
                    return Err(A::Error::custom("`that` has no conditions"));
                }
                Ok(Conditions::Many(conditions))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Conditions {
    fn schema_name() -> Cow<'static, str> {
        "Conditions".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let condition = generator.subschema_for::<Condition>();
        json_schema!({
            "anyOf": [{ "type": "boolean" }, { "type": "array", "items": condition, "minItems": 1 }]
        })
    }
}

#[async_trait]
impl Step for Assert {
    const NAME: &'static str = "assert";
    const FLEETING_OUTPUTS: &'static [&'static str] = &["/window/remaining_ms"];
    const SUMMARY: &'static str = "Go on only when conditions hold, such as an open maintenance window";
    const EXAMPLE: &'static str = r#"id: preconditions
uses: assert
with:
  that:
    - { that: "${{ run.by != 'root' }}", message: nobody runs this as root }
"#;
    const LOOKS: bool = false;
    const LAZY_FIELDS: &'static [&'static str] = &["/message", "/that/*/message"];
    type Outputs = Asserted;

    fn effect(_: &Value) -> Effect {
        Effect::READ
    }

    async fn run(self, cx: &Context) -> Result<End<Asserted>, StepError> {
        self.check(Timestamp::now(), |pointer, message| cx.lazy(pointer, message)).map(End::Done)
    }
}

impl Assert {
    /// `said` makes of a message and its place in the settings what is said.
    fn check(
        self,
        now: Timestamp,
        said: impl Fn(&str, String) -> Result<String, StepError>,
    ) -> Result<Asserted, StepError> {
        let conditions = match self.that {
            None => Vec::new(),
            Some(Conditions::One(that)) => {
                let message = self.message.unwrap_or_else(|| "the condition does not hold".to_owned());
                vec![(Condition { that, message }, "/message".to_owned())]
            }
            Some(Conditions::Many(_)) if self.message.is_some() => {
                return Err(StepError::invalid(
                    "`message` goes with a single condition; each one of a list has its own",
                ));
            }
            Some(Conditions::Many(conditions)) => {
                let numbered = conditions.into_iter().enumerate();
                numbered.map(|(at, condition)| (condition, format!("/that/{at}/message"))).collect()
            }
        };
        let mut held = conditions.len() as u64;
        let mut failing: Vec<String> = Vec::new();
        for (condition, pointer) in conditions.into_iter().filter(|(condition, _)| !condition.that) {
            // That it does not hold counts, also when it can not be said why.
            failing.push(said(&pointer, condition.message).unwrap_or_else(|error| {
                format!("a condition does not hold, and its message has no value: {}", error.message)
            }));
        }
        let mut facts = None;
        if let Some(window) = self.window {
            held += 1;
            match window.check(now)? {
                Ok(open) => facts = Some(open),
                Err(violations) => failing.extend(violations),
            }
        }
        if failing.is_empty() {
            return Ok(Asserted { held, window: facts });
        }
        Err(StepError::gate(failing.join("; ")))
    }
}

impl Window {
    /// The window's facts, or everything that is wrong with it; an error when its times can not be read.
    fn check(&self, now: Timestamp) -> Result<Result<WindowFacts, Vec<String>>, StepError> {
        let (start, end) = (instant("start", &self.start)?, instant("end", &self.end)?);
        let mut violations = Vec::new();
        if end <= start {
            violations.push(format!("the window ends at {end}, not after its start at {start}"));
        } else if self.at_least.after(start) > end {
            let length = Duration(end.duration_since(start).unsigned_abs());
            violations.push(format!("the window lasts {length}, and at least {} is needed", self.at_least));
        }
        if now < start {
            violations.push(format!("the window opens only at {start}, and it is {now}"));
        }
        if now >= end {
            violations.push(format!("the window ended at {end}, and it is {now}"));
        }
        if !violations.is_empty() {
            return Ok(Err(violations));
        }
        let remaining_ms = Duration(end.duration_since(now).unsigned_abs()).as_millis();
        Ok(Ok(WindowFacts { start, end, remaining_ms }))
    }
}

fn instant(name: &str, text: &str) -> Result<Timestamp, StepError> {
    text.trim().parse().map_err(|error: jiff::Error| {
        StepError::invalid(format!("window.{name}: `{text}` is not an RFC 3339 time with an offset"))
            .with_source(&error)
            .with_help("write it like 2026-02-01T22:00:00Z or 2026-02-01T23:00:00+01:00")
    })
}

#[cfg(test)]
mod tests {
    use runbook_engine::error::ErrorKind;
    use serde_json::json;

    use super::*;

    fn check(with: Value, now: &str) -> Result<Asserted, StepError> {
        serde_json::from_value::<Assert>(with).unwrap().check(now.parse().unwrap(), |_, message| Ok(message))
    }

    const NOON: &str = "2026-02-01T12:00:00Z";

    #[test]
    fn a_condition_that_does_not_hold_is_a_gate_with_its_message() {
        assert_eq!(check(json!({ "that": true }), NOON).unwrap().held, 1);
        let error = check(json!({ "that": false, "message": "the corpus is not empty" }), NOON).unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Gate, "the corpus is not empty"));
    }

    #[test]
    fn all_failing_conditions_are_named() {
        let that = json!([
            { "that": false, "message": "a is wrong" },
            { "that": true, "message": "b is wrong" },
            { "that": false, "message": "c is wrong" },
        ]);
        let error = check(json!({ "that": that }), NOON).unwrap_err();
        assert_eq!(error.message, "a is wrong; c is wrong");
    }

    #[test]
    fn only_the_message_of_what_does_not_hold_is_asked_for() {
        let that = json!([{ "that": true, "message": "a" }, { "that": false, "message": "b" }, { "that": false, "message": "c" }]);
        let assert = serde_json::from_value::<Assert>(json!({ "that": that })).unwrap();
        let said = |pointer: &str, message: String| match message.as_str() {
            "b" => Ok(format!("{message} at {pointer}")),
            _ => Err(StepError::invalid("`inputs.x` has no value")),
        };
        let error = assert.check(NOON.parse().unwrap(), said).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Gate);
        let told = "b at /that/1/message; a condition does not hold, and its message has no value: `inputs.x` has no value";
        assert_eq!(error.message, told);
    }

    #[test]
    fn only_true_and_false_are_conditions() {
        for that in [json!(1), json!("true"), json!(null), json!([]), json!([{ "that": 0, "message": "m" }])]
        {
            let assert = serde_json::from_value::<Assert>(json!({ "that": that, "window": null }));
            assert!(assert.is_err() || that.is_null(), "{that}");
        }
    }

    fn window(start: &str, end: &str, at_least: &str) -> Result<Asserted, StepError> {
        check(json!({ "window": { "start": start, "end": end, "at_least": at_least } }), NOON)
    }

    #[test]
    fn an_open_window_that_is_long_enough_passes() {
        let done = window("2026-02-01T12:45:00+01:00", "2026-02-01T12:15:00Z", "30m").unwrap();
        let facts = done.window.unwrap();
        assert_eq!(facts.start.to_string(), "2026-02-01T11:45:00Z");
        assert_eq!(facts.remaining_ms, 15 * 60_000);
    }

    #[test]
    fn each_violation_of_a_window_is_named() {
        let message = |start, end, at_least| {
            let error = window(start, end, at_least).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Gate);
            error.message
        };
        let short = message("2026-02-01T11:50:00Z", "2026-02-01T12:15:00Z", "30m");
        assert_eq!(short, "the window lasts 25m, and at least 30m is needed");
        let past_and_short = message("2026-02-01T11:00:00Z", "2026-02-01T11:20:00Z", "30m");
        assert!(
            past_and_short.contains("lasts 20m") && past_and_short.contains("ended at"),
            "{past_and_short}"
        );
        assert!(message("2026-02-01T13:00:00Z", "2026-02-01T14:00:00Z", "30m").contains("opens only at"));
        assert!(
            message("2026-02-01T13:00:00Z", "2026-02-01T11:00:00Z", "30m").contains("not after its start")
        );
        assert!(message("2026-02-01T11:00:00Z", NOON, "30m").contains("ended at"));
    }

    #[test]
    fn a_time_that_can_not_be_read_is_invalid() {
        for text in ["tomorrow", "2026-02-01T12:00:00", "2026-02-01"] {
            assert_eq!(
                window(text, "2026-02-01T14:00:00Z", "30m").unwrap_err().kind,
                ErrorKind::Invalid,
                "{text}"
            );
        }
    }
}
