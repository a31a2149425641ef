//! A person agrees before anything is destroyed: every way to a step that destroys passes a confirmation.

use super::safety::{destroying, guards};
use super::{Context, Finding, codes};
use crate::diagnostic::Diagnostic;

const KINDS: &[&str] = &["confirm-prompt", "approval"];

pub(super) fn check(cx: &Context<'_>, found: &mut Vec<Finding>) {
    for at in destroying(cx) {
        let step = cx.graph.steps[at];
        let (sure, unsure) = guards(cx, at, KINDS);
        if !sure.is_empty() {
            continue;
        }
        let message = format!("`{}` destroys, and nobody is asked before", step.id.value);
        let mut problem =
            Diagnostic::error(codes::CONFIRM_FIRST, step.uses.span.clone(), message).help(format!(
                "put a `confirm-prompt` step before `{}`, or waive this with `waive: {{ {}: the reason }}`",
                step.id.value,
                codes::CONFIRM_FIRST
            ));
        if let Some(prompt) = unsure.first() {
            problem =
                problem.also(prompt.id.span.clone(), "this question may be skipped, or its refusal ignored");
        }
        found.push(Finding { step: at, problem });
    }
}
