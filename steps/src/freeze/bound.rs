//! A reviewed plan binds which target is frozen, and from which value.

use std::collections::BTreeMap;

use runbook_engine::error::{ErrorKind, StepError};
use serde_json::Value;

use super::way::Way;
use crate::kind::Context;

/// What a plan keeps of a target and of the value that is there: that of an `env_file` by the file that its path leads to.
pub(super) fn bound(way: &dyn Way, present: &Value, cx: &Context) -> BTreeMap<String, String> {
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
    let now = bound(way, present, cx);
    let moved: Vec<String> = planned
        .iter()
        .filter(|(name, then)| now.get(*name) != Some(then))
        .map(|(name, then)| {
            let now = now.get(name).map_or("nothing", String::as_str);
            format!("its {name} was {then} and is {now}")
        })
        .collect();
    if moved.is_empty() {
        return Ok(());
    }
    let id = reviewed.short_id();
    let message = format!(
        "not begun: what would be frozen is not what the reviewed plan {id} saw: {}",
        moved.join("; ")
    );
    Err(StepError::new(ErrorKind::Drift, message)
        .with_help("nothing was changed; cancel the run, make a new plan and have it reviewed"))
}
