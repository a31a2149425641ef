//! Requests that were announced and whose answer nobody saw: a server may still act on one for as long as it may take.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use runbook_engine::duration::Duration as Spell;
use runbook_engine::error::StepError;
use serde_json::{Value, json};

/// The member of an announcement that says until when the request may be under way.
const UNTIL: &str = "under_way_until";

/// The announcement of a request that begins now and may take so long.
pub(crate) fn announced(mut what: Value, takes: Duration) -> Value {
    let takes = SignedDuration::try_from(takes).unwrap_or(SignedDuration::MAX);
    what[UNTIL] = json!(Timestamp::now().saturating_add(takes).unwrap_or(Timestamp::MAX));
    what
}

/// How much longer an announced request may be under way, at most as long as one may take: clocks are set. Nothing when that was not
/// announced.
pub(crate) fn left(what: &Value, takes: Duration) -> Duration {
    let until = what.get(UNTIL).and_then(Value::as_str).and_then(|until| until.parse::<Timestamp>().ok());
    let left = until.map(|until| until.duration_since(Timestamp::now()));
    left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default().min(takes)
}

/// How long a cancel waits for what may still be under way: less than the minute that a step has to be tidied up.
const PATIENCE: Duration = Duration::from_secs(45);

/// As much longer as `left` says, where a cancel can wait so long; an error that says when to look again where it can not.
pub(crate) fn soon_over(left: Duration) -> Result<Duration, StepError> {
    if left <= PATIENCE {
        return Ok(left);
    }
    let most = Spell::from_secs(left.as_secs() + 1);
    let message = format!("nothing came of it yet, and it may still be under way for at most {most}");
    Err(StepError::transient(message).with_help("cancel again once that is over"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_bounded_whatever_the_clock_says() {
        let takes = Duration::from_secs(30);
        let what = announced(json!({ "method": "PUT" }), takes);
        assert_eq!(what["method"], "PUT");
        assert!(left(&what, takes) > Duration::from_secs(20));
        assert_eq!(left(&what, Duration::from_secs(5)), Duration::from_secs(5));
        let at = |until: &str| left(&json!({ UNTIL: until }), takes);
        assert_eq!(at("2001-01-01T00:00:00Z"), Duration::ZERO);
        assert_eq!(at("9000-01-01T00:00:00Z"), takes);
        assert_eq!(left(&json!({}), takes), Duration::ZERO);
    }

    #[test]
    fn a_cancel_waits_for_less_than_a_minute() {
        let short = Duration::from_secs(44);
        assert_eq!(soon_over(short).unwrap(), short);
        let error = soon_over(Duration::from_secs(600)).unwrap_err();
        assert!(error.kind.retryable() && error.message.contains("for at most 10m1s"), "{error:?}");
    }
}
