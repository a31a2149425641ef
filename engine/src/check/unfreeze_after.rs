//! What is frozen is lifted by a step; the end of the run is only the last resort.

use super::safety::{FREEZE, lifts, lifts_nothing};
use super::{Context, Finding, codes};
use crate::diagnostic::Diagnostic;

pub(super) fn check(cx: &Context<'_>, found: &mut Vec<Finding>) {
    // What a misspelled `unfreeze` was meant for is not known.
    let unclear = cx.graph.steps.iter().any(|step| lifts_nothing(cx, step));
    for (at, step) in cx.graph.steps.iter().copied().enumerate() {
        if step.uses.value != FREEZE || unclear || cx.graph.is_final(at) {
            continue;
        }
        let follows = cx.graph.after(at);
        let after = cx.graph.steps.iter().copied().enumerate();
        let lifting: Vec<_> = after
            .filter(|(other, lifting)| follows[*other] && lifts(lifting, step))
            .map(|(_, lifting)| lifting)
            .collect();
        if lifting.iter().any(|lifting| lifting.runs_with(step)) {
            continue;
        }
        let (message, help) = match lifting.first() {
            None => (
                format!("no `unfreeze` comes after the freeze `{}`", step.id.value),
                format!(
                    "it is lifted when the run ends; to lift it earlier add a step with `uses: unfreeze` and `with: {{ freeze: {} }}`",
                    step.id.value
                ),
            ),
            Some(lifting) => (
                format!("the freeze `{}` may not be lifted by a step", step.id.value),
                format!(
                    "it is lifted when the run ends; give `{}` no `if`, or the freeze the same",
                    lifting.id.value
                ),
            ),
        };
        let mut problem =
            Diagnostic::warning(codes::UNFREEZE_AFTER, step.uses.span.clone(), message).help(help);
        if let Some(lifting) = lifting.first() {
            let condition = lifting.condition.as_ref().map_or(&lifting.id.span, |one| &one.node.span);
            problem = problem.also(condition.clone(), "it is skipped when this is not so");
        }
        found.push(Finding { step: at, problem });
    }
}
