//! After something was destroyed, a step looks at what is there now.

use super::safety::{class, destroying};
use super::{Context, Finding, codes};
use crate::diagnostic::Diagnostic;
use crate::kinds::Class;
use crate::runbook::Step;

/// Kinds that judge what they see.
const JUDGES: &[&str] = &["assert", "count", "verify-header", "wait-for", "watch-log"];
/// Kinds that may only look, and fail when they do not see what they expect.
const LOOKS: &[&str] = &["command", "http"];

pub(super) fn check(cx: &Context<'_>, found: &mut Vec<Finding>) {
    for at in destroying(cx) {
        let step = cx.graph.steps[at];
        let after = cx.graph.steps.iter().enumerate().filter(|(_, other)| verifies(cx, other));
        let follows = cx.graph.after(at);
        let after = after.filter(|(other, _)| follows[*other]);
        let (sure, unsure): (Vec<_>, Vec<_>) = after.partition(|(_, other)| other.runs_with(step));
        if !sure.is_empty() {
            continue;
        }
        let message = format!("`{}` destroys, and no step looks afterwards at what is left", step.id.value);
        let mut problem =
            Diagnostic::warning(codes::VERIFY_AFTER, step.uses.span.clone(), message).help(format!(
                "add a step after `{}` that looks, such as `uses: count` with `expect: 0`, or an `assert`",
                step.id.value
            ));
        if let Some((_, unsure)) = unsure.first() {
            problem = problem.also(unsure.id.span.clone(), "this look may be skipped");
        }
        found.push(Finding { step: at, problem });
    }
}

fn verifies(cx: &Context<'_>, step: &Step) -> bool {
    let kind = step.uses.value.as_str();
    JUDGES.contains(&kind) || (LOOKS.contains(&kind) && class(cx, step) == Some(Class::Read))
}
