//! A reviewed plan binds which target is frozen, and from which value.

use runbook_engine::error::StepError;
use serde_json::Value;

use super::way::Way;
use crate::bound::{Facts, as_reviewed};
use crate::kind::Context;

/// What a plan keeps of a target and of the value that is there: that of an `env_file` by the file that its path leads to.
pub(super) fn bound(way: &dyn Way, present: &Value, cx: &Context) -> Facts {
    let fact = |name: &str, text: &str| (name.to_owned(), cx.redactor.text(text));
    [fact("target", &way.target()), fact("value", &way.text(present))].into()
}

/// Of kind drift when the run was started with a plan that saw another target or another value. Asked before anything is recorded or changed. What
/// the plan could not look at is not bound.
pub(super) fn as_planned(way: &dyn Way, present: &Value, cx: &Context) -> Result<(), StepError> {
    let reviewed = cx.history.plan.reviewed.as_ref();
    let Some((reviewed, planned)) = reviewed.and_then(|one| Some((one, one.binds.get(&cx.step)?))) else {
        return Ok(());
    };
    as_reviewed(reviewed, planned, &bound(way, present, cx), "frozen")
}
