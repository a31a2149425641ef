//! What may be destroyed has a limit, and the limit can bind it.

use super::safety::destroying;
use super::{Context, Finding, codes};
use crate::diagnostic::Diagnostic;
use crate::runbook::Setting;

/// The setting that limits how many items are destroyed.
fn limiting(limits: Option<&Setting>) -> Option<&Setting> {
    limits.filter(|limits| limits.value.get("max_items").is_some_and(|items| !items.is_null()))
}

pub(super) fn check(cx: &Context<'_>, found: &mut Vec<Finding>) {
    let of_run = limiting(cx.runbook.limits.as_ref());
    for at in destroying(cx) {
        let step = cx.graph.steps[at];
        if of_run.or(limiting(step.limits.as_ref())).is_none() {
            let message = format!("`{}` destroys without a limit on how much", step.id.value);
            let help = "write `limits: { max_items: 1000 }` in the step, or in the runbook for all of them";
            let problem = Diagnostic::warning(codes::LIMIT, step.uses.span.clone(), message).help(help);
            found.push(Finding { step: at, problem });
        }
    }
    for at in destroying(cx) {
        let step = cx.graph.steps[at];
        let kind = cx.catalog.step(&step.uses.value);
        let Some(limits) = limiting(step.limits.as_ref()).or(of_run) else { continue };
        if kind.is_some_and(|kind| !(kind.counts)(&step.with.value)) {
            let message =
                format!("`{}` does not say how many items it destroys, and counts as one", step.id.value);
            let help = "declare it below `with`: `effect: { class: destroy, …, items: 500 }`; an expression may say how many";
            let problem = Diagnostic::warning(codes::UNCOUNTED, step.uses.span.clone(), message)
                .also(limits.node.locate("/max_items", true), "this can not bind it")
                .help(help);
            found.push(Finding { step: at, problem });
        }
    }
}
