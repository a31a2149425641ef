//! What an `unfreeze` lifts is a freeze, and was frozen before.

use super::safety::{FREEZE, UNFREEZE};
use super::{Context, codes};
use crate::diagnostic::Diagnostic;
use crate::suggest::{did_you_mean, listed};

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    for (at, step) in cx.graph.steps.iter().enumerate().filter(|(_, step)| step.uses.value == UNFREEZE) {
        let Some(named) = step.with.node.entry("freeze").map(|entry| &entry.value) else { continue };
        let Some(name) = named.as_str().filter(|_| !named.is_template()) else { continue };
        let freezes = cx.graph.steps.iter().filter(|step| step.uses.value == FREEZE);
        let ids = freezes.map(|step| step.id.value.as_str());
        let found = cx.graph.find(name).filter(|found| cx.graph.steps[*found].uses.value == FREEZE);
        let (message, help) = match found {
            Some(freeze) if cx.graph.before(at)[freeze] => continue,
            Some(_) => (
                format!("`{name}` may not have frozen anything when `{}` starts", step.id.value),
                format!("let `{}` need `{name}`, directly or through other steps", step.id.value),
            ),
            None if cx.runbook.unread.contains(name) => continue,
            None => (
                format!("there is no freeze `{name}`"),
                did_you_mean(name, ids.clone()).unwrap_or_else(|| match ids.clone().next() {
                    Some(_) => format!("the freezes are {}", listed(ids)),
                    None => "no step of this runbook has `uses: freeze`".to_owned(),
                }),
            ),
        };
        let mut problem = Diagnostic::error(codes::UNFREEZE_WHAT, named.span.clone(), message).help(help);
        if let Some(found) = cx.graph.find(name) {
            let label =
                if cx.graph.steps[found].uses.value == FREEZE { "this freeze" } else { "this is no freeze" };
            problem = problem.also(cx.graph.steps[found].id.span.clone(), label);
        }
        problems.push(problem);
    }
}
