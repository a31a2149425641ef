//! In a runbook for production every step says what it does: what nobody declared is neither confirmed, limited nor undone.

use std::ops::Range;

use super::safety::{FREEZE, class, destroying};
use super::{Context, Finding, codes};
use crate::diagnostic::Diagnostic;
use crate::kinds::Class;

pub(super) fn check(cx: &Context<'_>, found: &mut Vec<Finding>) {
    let Some((place, why)) = production(cx) else { return };
    for (at, step) in cx.graph.steps.iter().enumerate() {
        let silent = step.with.value.get("effect").is_none_or(serde_json::Value::is_null);
        if !silent || class(cx, step) != Some(Class::Undetermined) {
            continue;
        }
        let message = format!("nobody says what `{}` does to the world", step.id.value);
        let problem = Diagnostic::warning(codes::UNDECLARED, step.uses.span.clone(), message)
            .also(place.clone(), why)
            .help("declare it below `with`: `effect: { class: read, repeat: repeatable }`, or `write`, or `destroy`");
        found.push(Finding { step: at, problem });
    }
}

/// What makes it a runbook for production: it destroys or freezes, or an input may name production.
fn production(cx: &Context<'_>) -> Option<(Range<usize>, &'static str)> {
    if let Some(at) = destroying(cx).next() {
        return Some((cx.graph.steps[at].id.span.clone(), "this step destroys"));
    }
    if let Some(freeze) = cx.graph.steps.iter().find(|step| step.uses.value == FREEZE) {
        return Some((freeze.id.span.clone(), "this step freezes"));
    }
    let named = |value: &serde_json::Value| matches!(value.as_str(), Some("production" | "prod"));
    let input =
        cx.runbook.inputs.iter().find(|input| input.choices.iter().any(named) || named(&input.default))?;
    Some((input.name.span.clone(), "this may be production"))
}
