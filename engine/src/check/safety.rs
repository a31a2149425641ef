//! What the rules of safety share: which steps destroy, and which steps surely ran before one.

use std::ops::Range;

use serde_json::Value;

use super::Context;
use crate::expr::only_inputs;
use crate::kinds::Class;
use crate::runbook::Step;

/// The places of the steps that destroy.
pub(super) fn destroying<'c>(cx: &'c Context<'_>) -> impl Iterator<Item = usize> + 'c {
    (0..cx.graph.steps.len()).filter(move |at| class(cx, cx.graph.steps[*at]) == Some(Class::Destroy))
}

/// How deep a step cuts; nothing when its kind does not exist.
pub(super) fn class(cx: &Context<'_>, step: &Step) -> Option<Class> {
    cx.catalog.step(&step.uses.value).map(|kind| (kind.effect)(&step.with.value).class)
}

/// The kind of a step that freezes.
pub(super) const FREEZE: &str = "freeze";
/// The kind of a step that lifts a freeze.
pub(super) const UNFREEZE: &str = "unfreeze";

/// The kind of a step that saves a whole system.
pub(super) const BACKUP: &str = "backup";

/// Whether a step lifts this freeze.
pub(super) fn lifts(step: &Step, freeze: &Step) -> bool {
    step.uses.value == UNFREEZE
        && step.with.value.get("freeze").is_none_or(|named| named == freeze.id.value.as_str())
}

/// Whether a step lifts something that is no freeze.
pub(super) fn lifts_nothing(cx: &Context<'_>, step: &Step) -> bool {
    let named = step.with.value.get("freeze").and_then(Value::as_str);
    step.uses.value == UNFREEZE
        && named.is_some_and(|name| {
            cx.graph.find(name).is_none_or(|found| cx.graph.steps[found].uses.value != FREEZE)
        })
}

/// The places of the steps that stand on a freeze: those after it that destroy, or may, and come after no step that lifts it. When the
/// final steps run it has been lifted already. What an input decides is judged once that is known.
pub(super) fn standing_on(cx: &Context<'_>, freeze: usize) -> Vec<usize> {
    let stands = |step: &Step| match class(cx, step) {
        Some(Class::Destroy) => true,
        Some(Class::Undetermined) => !step.with.value.get("effect").is_some_and(open),
        Some(Class::Read | Class::Write) | None => false,
    };
    let mut after = cx.graph.after(freeze);
    for lifting in 0..cx.graph.main {
        let step = cx.graph.steps[lifting];
        if after[lifting] && (lifts(step, cx.graph.steps[freeze]) || lifts_nothing(cx, step)) {
            let lifted = cx.graph.after(lifting);
            after.iter_mut().zip(lifted).for_each(|(after, lifted)| *after &= !lifted);
        }
    }
    (0..cx.graph.main).filter(|at| after[*at] && stands(cx.graph.steps[*at])).collect()
}

/// Whether inputs that are not known yet decide a part of this value.
fn open(value: &Value) -> bool {
    match value {
        Value::String(text) => only_inputs(text),
        Value::Array(items) => items.iter().any(open),
        Value::Object(map) => map.values().any(open),
        _ => false,
    }
}

/// The guards of these kinds that come before a step: those that surely ran, and those that may not have.
pub(super) fn guards<'c>(cx: &'c Context<'_>, at: usize, kinds: &[&str]) -> (Vec<&'c Step>, Vec<&'c Step>) {
    let mut before = cx.graph.before(at);
    if cx.graph.is_final(at) {
        // A final step runs however the others ended, so none of them surely ran.
        before[..cx.graph.main].fill(false);
    }
    let step = cx.graph.steps[at];
    let found = cx.graph.steps.iter().copied().zip(before);
    let found = found.filter(|(other, is_before)| *is_before && kinds.contains(&other.uses.value.as_str()));
    found.map(|(other, _)| other).partition(|guard| guard.always_ran(step))
}

/// The collections a step names, each with its place.
pub(super) fn collections(step: &Step) -> Vec<(String, Range<usize>)> {
    let mut found = Vec::new();
    for key in ["collection", "collections"] {
        let Some(value) = step.with.value.get(key) else { continue };
        let items: Vec<(String, &Value)> = match value {
            Value::Array(items) => {
                items.iter().enumerate().map(|(at, item)| (format!("/{key}/{at}"), item)).collect()
            }
            one => vec![(format!("/{key}"), one)],
        };
        for (pointer, item) in items {
            if let Some(name) = item.as_str() {
                found.push((name.to_owned(), step.with.node.locate(&pointer, false)));
            }
        }
    }
    found
}
