//! `needs` names other steps of the same list.

use super::{Context, codes};
use crate::diagnostic::Diagnostic;
use crate::suggest::{did_you_mean, listed};

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    for (at, step) in cx.graph.steps.iter().enumerate() {
        for need in step.needs.iter().flatten() {
            let Some(target) = cx.graph.find(&need.value) else {
                if cx.runbook.unread.contains(&need.value) {
                    continue;
                }
                let ids = cx.graph.steps.iter().enumerate();
                let ids = ids
                    .filter(|(other, _)| *other != at && cx.graph.is_final(*other) == cx.graph.is_final(at));
                let mut problem = Diagnostic::error(
                    codes::UNKNOWN_NEED,
                    need.span.clone(),
                    format!("step `{}` needs unknown step `{}`", step.id.value, need.value),
                )
                .label("no step has this id")
                .also(step.id.span.clone(), "in this step");
                let ids = ids.map(|(_, step)| step.id.value.as_str());
                problem.help = did_you_mean(&need.value, ids.clone())
                    .or_else(|| Some(format!("the other steps are {}", listed(ids))));
                problems.push(problem);
                continue;
            };
            if cx.graph.is_final(target) == cx.graph.is_final(at) {
                continue;
            }
            let (message, help) = if cx.graph.is_final(at) {
                (
                    format!("`{}` runs in `finally` and needs no step of `steps`", step.id.value),
                    "final steps start when all the others have ended: leave this need out",
                )
            } else {
                (
                    format!(
                        "`{}` cannot need `{}`, which runs when all steps have ended",
                        step.id.value, need.value
                    ),
                    "move the step out of `finally`, or leave this need out",
                )
            };
            problems.push(Diagnostic::error(codes::FINALLY_NEED, need.span.clone(), message).help(help));
        }
    }
}
