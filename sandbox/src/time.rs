//! Times as the stand-ins write them: RFC 3339, UTC, three fractional digits.

use jiff::Timestamp;

/// Formats a time as `2026-01-31T12:00:00.000Z`.
pub(crate) fn millis(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// The present, formatted by [`millis`].
pub(crate) fn now() -> String {
    millis(Timestamp::now())
}
