//! What a freeze refuses is not done while it is held: a restore comes after the freeze is lifted.

use serde_json::Value;

use super::safety::{FREEZE, class, lifts, lifts_nothing};
use super::{Context, Finding, codes};
use crate::diagnostic::Diagnostic;
use crate::kinds::Class;
use crate::runbook::Step;

const UPLOAD: &str = "upload";
const HTTP: &str = "http";

pub(super) fn check(cx: &Context<'_>, found: &mut Vec<Finding>) {
    let freezes = cx.graph.steps.iter().copied().enumerate().filter(|(_, step)| step.uses.value == FREEZE);
    let freezes = freezes.filter(|(at, _)| !cx.graph.is_final(*at));
    let freezes: Vec<_> = freezes.collect();
    if freezes.is_empty() {
        return;
    }
    for (at, step) in cx.graph.steps.iter().copied().enumerate() {
        if !sends(cx, step) {
            continue;
        }
        let before = cx.graph.before(at);
        for (_, freeze) in freezes.iter().filter(|(freeze, _)| before[*freeze]) {
            let lifting = cx.graph.steps.iter().zip(&before);
            let lifting = lifting
                .filter(|(other, before)| **before && (lifts(other, freeze) || lifts_nothing(cx, other)));
            let (sure, unsure): (Vec<_>, Vec<_>) =
                lifting.partition(|(other, _)| cx.graph.is_final(at) || other.always_ran(step));
            if sure.is_empty()
                && let Some(mut problem) = refused(step, freeze)
            {
                if let Some((unsure, _)) = unsure.first() {
                    problem =
                        problem.also(unsure.id.span.clone(), "this may be skipped, or its failure ignored");
                }
                let help = format!(
                    "put a step with `uses: unfreeze` and `with: {{ freeze: {} }}` before `{}`",
                    freeze.id.value, step.id.value
                );
                let problem = problem.also(freeze.id.span.clone(), "frozen here").help(help);
                found.push(Finding { step: at, problem });
            }
        }
    }
}

/// Whether a step sends what a freeze may refuse.
fn sends(cx: &Context<'_>, step: &Step) -> bool {
    step.uses.value == UPLOAD || (step.uses.value == HTTP && class(cx, step) != Some(Class::Read))
}

/// What is wrong with a step that runs while this is frozen: surely when the probe of the freeze is refused at the same place.
fn refused(step: &Step, freeze: &Step) -> Option<Diagnostic> {
    let at = |name: &str| step.with.value.get(name).and_then(Value::as_str);
    let probe = freeze.with.value.get("probe").filter(|probe| !probe.is_null());
    let span = step.with.node.locate("/path", false);
    let name = (&step.id.value, &freeze.id.value);
    match probe {
        Some(probe) => {
            let of_probe = |name: &str| probe.get(name).and_then(Value::as_str);
            let same =
                ["connection", "path"].into_iter().all(|key| at(key).is_some() && at(key) == of_probe(key));
            let message =
                format!("`{}` sends what the freeze `{}` refuses, and it is still held", name.0, name.1);
            same.then(|| Diagnostic::error(codes::HELD, span, message))
        }
        None if step.uses.value == UPLOAD => {
            let message = format!("`{}` uploads while the freeze `{}` is still held", name.0, name.1);
            Some(Diagnostic::warning(codes::HELD, step.uses.span.clone(), message))
        }
        None => None,
    }
}
