//! A step that destroys, or may, and comes after a freeze runs only when that is in force.

use super::safety::{FREEZE, standing_on};
use super::{Context, Finding, codes};
use crate::diagnostic::Diagnostic;
use crate::expr::{Facts, Standings};
use crate::runbook::Step;

pub(super) fn check(cx: &Context<'_>, found: &mut Vec<Finding>) {
    for (at, freeze) in cx.graph.steps[..cx.graph.main].iter().enumerate() {
        if freeze.uses.value != FREEZE || (freeze.condition.is_none() && !freeze.goes_on()) {
            continue;
        }
        for other in standing_on(cx, at) {
            let step = cx.graph.steps[other];
            let (skipped, failed) = lacks(freeze, step);
            if skipped || failed {
                found.push(Finding { step: other, problem: told(freeze, step, skipped, failed) });
            }
        }
    }
}

/// Whether a freeze may have been skipped, and whether it may have failed, when a step after it runs.
fn lacks(freeze: &Step, step: &Step) -> (bool, bool) {
    let known = step.condition_text().map(|text| Facts::of_condition(&text)).unwrap_or_default();
    let stands = known.standings(&freeze.id.value);
    let skipped = !freeze.runs_with(step) && stands.meets(Standings::SKIPPED);
    (skipped, freeze.goes_on() && stands.meets(Standings::FAILED))
}

fn told(freeze: &Step, step: &Step, skipped: bool, failed: bool) -> Diagnostic {
    let (name, frozen) = (&step.id.value, &freeze.id.value);
    let (what, help) = match (skipped, failed) {
        (true, true) => (
            "have been skipped or have failed",
            format!("let `{name}` run only `if: steps.{frozen}.status == 'succeeded'`"),
        ),
        (true, false) => ("have been skipped", format!("give `{frozen}` no `if`, or `{name}` the same")),
        _ => ("have failed", format!("take `on_failure` away from `{frozen}`")),
    };
    let message = format!("`{name}` comes after the freeze `{frozen}`, which may {what}");
    let mut problem = Diagnostic::error(codes::FREEZE_FIRST, step.uses.span.clone(), message);
    if let Some(condition) = freeze.condition.as_ref().filter(|_| skipped) {
        problem = problem.also(condition.node.span.clone(), "nothing is frozen when this is not so");
    }
    if let Some(setting) = freeze.on_failure.as_ref().filter(|_| failed) {
        problem = problem.also(setting.node.span.clone(), "the run goes on when it fails");
    }
    problem.help(format!("{help}, or waive this with `waive: {{ {}: the reason }}`", codes::FREEZE_FIRST))
}
