//! What may be destroyed has a limit.

use super::safety::destroying;
use super::{Context, codes};
use crate::diagnostic::Diagnostic;

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    let limited = |limits: &Option<crate::runbook::Setting>| {
        limits
            .as_ref()
            .is_some_and(|limits| limits.value.get("max_items").is_some_and(|items| !items.is_null()))
    };
    if limited(&cx.runbook.limits) {
        return;
    }
    for at in destroying(cx, codes::LIMIT) {
        let step = cx.graph.steps[at];
        if !limited(&step.limits) {
            let message = format!("`{}` destroys without a limit on how much", step.id.value);
            problems.push(
                Diagnostic::warning(codes::LIMIT, step.uses.span.clone(), message).help(
                    "write `limits: { max_items: 1000 }` in the step, or in the runbook for all of them",
                ),
            );
        }
    }
}
