//! What something must be unchanged since is a backup that was taken before: only that says what there was.

use super::safety::BACKUP;
use super::{Context, codes};
use crate::diagnostic::Diagnostic;
use crate::runbook::Step;
use crate::suggest::{did_you_mean, listed};

/// The kinds that are held to a backup, beside that of backups.
const HELD: &[&str] = &["sql-reset", BACKUP];

/// Whether a step counts what it saves. Settings that are known only with inputs may.
fn takes(step: &Step) -> bool {
    let mode = step.with.node.entry("mode").map(|entry| &entry.value);
    step.uses.value == BACKUP && mode.is_none_or(|mode| mode.is_template() || mode.as_str() != Some("check"))
}

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    let all = cx.graph.steps.iter().enumerate();
    for (at, step) in all.filter(|(_, step)| HELD.contains(&step.uses.value.as_str())) {
        let Some(named) = step.with.node.entry("unchanged_since").map(|entry| &entry.value) else { continue };
        let Some(name) = named.as_str().filter(|_| !named.is_template()) else { continue };
        let ids = cx.graph.steps.iter().filter(|step| takes(step)).map(|step| step.id.value.as_str());
        let found = cx.graph.find(name);
        let taken = found.filter(|found| takes(cx.graph.steps[*found]));
        let (message, help) = match taken {
            Some(backup) if cx.graph.before(at)[backup] => continue,
            Some(_) => (
                format!("`{name}` may not have backed anything up when `{}` starts", step.id.value),
                format!("let `{}` need `{name}`, directly or through other steps", step.id.value),
            ),
            None if cx.runbook.unread.contains(name) => continue,
            None => (
                format!("there is no backup `{name}`"),
                did_you_mean(name, ids.clone()).unwrap_or_else(|| match ids.clone().next() {
                    Some(_) => format!("the backups that are taken are {}", listed(ids)),
                    None => "no step of this runbook has `uses: backup` and takes one".to_owned(),
                }),
            ),
        };
        let mut problem = Diagnostic::error(codes::UNCHANGED_SINCE, named.span.clone(), message).help(help);
        if let Some(found) = found.map(|found| cx.graph.steps[found]) {
            let label = match found.uses.value.as_str() {
                _ if taken.is_some() => "this backup",
                BACKUP => "this looks at a backup, and counts nothing",
                _ => "this is no backup",
            };
            problem = problem.also(found.id.span.clone(), label);
        }
        problems.push(problem);
    }
}
