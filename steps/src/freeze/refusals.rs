//! Why a freeze is not made, and why a value is left where it is.

use runbook_engine::error::StepError;
use runbook_engine::step::{Hold, Release};
use serde_json::Value;

use super::way::Way;

/// What a release does about a value that is neither of the two. Where the run may have made it itself, of a change that it began and that is made in
/// some way of its own, it is not said to be somebody else's: the hold stays, for a person.
pub(super) fn left_alone(way: &dyn Way, hold: Hold, present: String) -> Result<Release, StepError> {
    if hold == Hold::Applied || way.makes_two_values() {
        return Ok(Release::Foreign(present));
    }
    let message =
        format!("{} reads {present}: neither its original value nor the one that freezes", way.label());
    Err(StepError::gate(message).with_help(
        "nothing was overwritten. It may be on its way, or what `apply` or `release` made of a value, or somebody else's: look at the \
         system, put the original back by hand, then answer `done`",
    ))
}

/// Why a value that is neither of the two is not taken over by the freeze.
pub(super) fn neither(way: &dyn Way, hold: Hold, present: &str, original: &str) -> StepError {
    let label = way.label();
    let neither = format!("neither the original value {original} nor the one that freezes");
    if hold == Hold::Opened || hold == Hold::Applied || way.makes_two_values() {
        let message = format!("{label} was changed by somebody else to {present}: it is {neither}");
        return StepError::gate(message).with_help("nothing was overwritten; talk to whoever changed it");
    }
    StepError::gate(format!("{label} reads {present}: {neither}")).with_help(
        "nothing was overwritten; it is what `apply` made of a value, or somebody else's: look at the system",
    )
}

pub(super) fn secret(way: &dyn Way) -> StepError {
    StepError::refused(format!(
        "the original value of {} holds a secret and can not be recorded",
        way.label()
    ))
}

pub(super) fn unread(error: StepError) -> StepError {
    let message = format!("the original value can not be read, so nothing was changed: {}", error.message);
    StepError { message, ..error }
}

pub(super) fn frozen_by_another(way: &dyn Way, present: &Value) -> StepError {
    let message = format!("{} is already {}", way.label(), way.text(present));
    StepError::gate(message).with_help(
        "another run or somebody by hand froze it, and the original value is not known here: find out what it was, put it back, and \
         start again",
    )
}
