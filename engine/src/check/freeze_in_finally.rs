//! What is frozen is lifted before the final steps run: none of them freezes.

use super::safety::FREEZE;
use super::{Context, codes};
use crate::diagnostic::Diagnostic;

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    let last = &cx.graph.steps[cx.graph.main..];
    for step in last.iter().filter(|step| step.uses.value == FREEZE) {
        let message = format!("`{}` freezes in `finally`", step.id.value);
        let help = format!(
            "what a run holds is lifted when `steps` have ended: put `{}` into `steps`, before what needs it",
            step.id.value
        );
        problems
            .push(Diagnostic::error(codes::FREEZE_IN_FINALLY, step.uses.span.clone(), message).help(help));
    }
}
