//! When all went well nothing is frozen any more when the final steps run: one that lifts a freeze would fail.

use serde_json::{Map, Value, json};

use super::safety::{FREEZE, UNFREEZE, lifts};
use super::{Context, Finding, codes};
use crate::diagnostic::Diagnostic;
use crate::expr::{Scope, analyse_expression, condition};
use crate::runbook::Step;

pub(super) fn check(cx: &Context<'_>, found: &mut Vec<Finding>) {
    for at in cx.graph.main..cx.graph.steps.len() {
        let step = cx.graph.steps[at];
        // Whether one that does not say is to take it for fine, an input may tell.
        let strict = matches!(step.with.value.get("if_open"), None | Some(Value::Null | Value::Bool(false)));
        if step.uses.value != UNFREEZE || !strict || !runs_when_all_went_well(cx, step) {
            continue;
        }
        let mut frozen = cx.graph.steps.iter().enumerate().filter(|(_, freeze)| freeze.uses.value == FREEZE);
        let Some((freeze_at, freeze)) = frozen.find(|(_, freeze)| lifts(step, freeze)) else { continue };
        if cx.graph.is_final(freeze_at) {
            continue;
        }
        let message = format!(
            "`{}` fails when all went well: `{}` is lifted before `finally`, and holds nothing frozen then",
            step.id.value, freeze.id.value
        );
        let problem = Diagnostic::error(codes::UNFREEZE_IN_FINALLY, step.uses.span.clone(), message)
            .also(freeze.id.span.clone(), "this freeze")
            .help(
                "put it at the end of `steps`, or leave it out: the end of the run lifts what is frozen; \
                 to lift it after a failure too, say `if_open: true`",
            );
        found.push(Finding { step: at, problem });
    }
}

/// Whether a final step surely runs, for some inputs, when every other step has succeeded.
fn runs_when_all_went_well(cx: &Context<'_>, step: &Step) -> bool {
    let Some(text) = step.condition_text() else { return true };
    if analyse_expression(&text).references.iter().all(|reference| reference.root == "inputs") {
        return true;
    }
    let main = cx.graph.steps[..cx.graph.main].iter();
    let steps: Map<String, Value> =
        main.map(|step| (step.id.value.clone(), json!({ "status": "succeeded" }))).collect();
    condition(&text, &Scope { steps, ..Scope::default() }) == Ok(true)
}
