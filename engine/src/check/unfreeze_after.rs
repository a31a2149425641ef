//! What is frozen is lifted by a step; the end of the run is only the last resort.

use super::{Context, codes};
use crate::diagnostic::Diagnostic;

const FREEZE: &str = "freeze";
const UNFREEZE: &str = "unfreeze";

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    for (at, step) in cx.graph.steps.iter().enumerate() {
        if step.uses.value != FREEZE || step.waive.contains_key(codes::UNFREEZE_AFTER) {
            continue;
        }
        let lifted = cx.graph.steps.iter().enumerate().any(|(other, lifting)| {
            lifting.uses.value == UNFREEZE
                && lifting.with.value.get("freeze").is_none_or(|named| named == step.id.value.as_str())
                && cx.graph.before(other)[at]
        });
        if !lifted {
            let message = format!("no `unfreeze` comes after the freeze `{}`", step.id.value);
            problems.push(
                Diagnostic::warning(codes::UNFREEZE_AFTER, step.uses.span.clone(), message).help(format!(
                    "it is lifted when the run ends; to lift it earlier add a step with `uses: unfreeze` and `with: {{ freeze: {} }}`",
                    step.id.value
                )),
            );
        }
    }
}
