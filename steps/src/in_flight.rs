//! Requests that were announced and whose answer nobody saw: a server may still act on one for as long as it may take.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
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
}
