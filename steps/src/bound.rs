//! What a step found in the world when a plan was reviewed binds the run: what it finds when it begins is held against that.

use std::collections::{BTreeMap, BTreeSet};

use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::plan::Reviewed;

/// What was found, by name: what a plan keeps for a step, and shows.
pub(crate) type Facts = BTreeMap<String, String>;

/// How many differences are told.
const TOLD: usize = 5;

/// Of kind drift when something else is so `now` than the plan saw. `done` is what was not done: `frozen`.
pub(crate) fn as_reviewed(
    reviewed: &Reviewed,
    planned: &Facts,
    now: &Facts,
    done: &str,
) -> Result<(), StepError> {
    let words = |fact: Option<&String>| fact.map_or_else(|| "not there".to_owned(), String::clone);
    let names: BTreeSet<&String> = planned.keys().chain(now.keys()).collect();
    let moved: Vec<String> = names
        .into_iter()
        .filter(|name| planned.get(*name) != now.get(*name))
        .map(|name| format!("{name}: {} then, and {} now", words(planned.get(name)), words(now.get(name))))
        .collect();
    if moved.is_empty() {
        return Ok(());
    }
    let shown = moved.iter().take(TOLD).cloned().collect::<Vec<_>>().join("; ");
    let rest = moved.len().saturating_sub(TOLD);
    let rest = if rest > 0 { format!("; and {rest} more") } else { String::new() };
    let id = reviewed.short_id();
    let message = format!("what would be {done} is not what the reviewed plan {id} saw: {shown}{rest}");
    Err(drift(message, done))
}

/// An error of kind drift, with what to do about it. `done` is what was not done.
pub(crate) fn drift(message: String, done: &str) -> StepError {
    StepError::new(ErrorKind::Drift, message)
        .with_help(format!("nothing was {done}; cancel the run, make a new plan and have it reviewed"))
}
