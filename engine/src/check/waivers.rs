//! A rule of safety may be waived for one step, with a reason; a waiver that nothing needs is told.

use super::{Context, Finding, codes};
use crate::diagnostic::Diagnostic;

/// What no waiver takes away.
pub(super) fn standing(cx: &Context<'_>, findings: Vec<Finding>) -> impl Iterator<Item = Diagnostic> {
    findings
        .into_iter()
        .filter(|finding| !cx.graph.steps[finding.step].waives(finding.problem.code))
        .map(|finding| finding.problem)
}

/// Waivers of rules that the step keeps: they would hide the mistake that is made later.
pub(super) fn needless(cx: &Context<'_>, findings: &[Finding], problems: &mut Vec<Diagnostic>) {
    for (at, step) in cx.graph.steps.iter().enumerate() {
        // What depends on an input is known only in a plan.
        let open = ["effect", "collection", "collections", "freeze"].into_iter().any(|key| {
            let mut open = false;
            if let Some(entry) = step.with.node.entry(key) {
                entry.value.texts(&mut |_, node, _| open |= node.is_template());
            }
            open
        });
        for waiver in step.waive.iter().filter(|waiver| !open && !waiver.reason.is_empty()) {
            let code = waiver.code.value.as_str();
            if findings.iter().any(|finding| finding.step == at && finding.problem.code == code) {
                continue;
            }
            let message = format!("`{}` keeps {code} and waives it", step.id.value);
            problems.push(
                Diagnostic::warning(codes::NEEDLESS_WAIVER, waiver.code.span.clone(), message)
                    .help("take the waiver away: it would hide the mistake when it is made one day"),
            );
        }
    }
}
