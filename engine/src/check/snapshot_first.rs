//! What is destroyed was saved before: every way to a step that destroys passes a snapshot of that collection, or a backup of the system.

use super::safety::{BACKUP, collections, destroying, guards};
use super::{Context, Finding, codes};
use crate::diagnostic::Diagnostic;
use crate::runbook::Step;

const KINDS: &[&str] = &["snapshot", BACKUP];

pub(super) fn check(cx: &Context<'_>, found: &mut Vec<Finding>) {
    for at in destroying(cx) {
        let step = cx.graph.steps[at];
        let (sure, unsure) = guards(cx, at, KINDS);
        let named = collections(step);
        let saved = sure.iter().any(|guard| guard.uses.value != BACKUP || same_system(guard, step));
        if named.is_empty() && !saved {
            let message = format!("`{}` destroys, and nothing is saved before", step.id.value);
            let problem = Diagnostic::error(codes::SNAPSHOT_FIRST, step.uses.span.clone(), message);
            found.push(Finding { step: at, problem: finish(problem, unsure.first(), step) });
        }
        for (name, span) in named {
            if sure.iter().any(|snapshot| saves(snapshot, &name)) {
                continue;
            }
            let message =
                format!("`{}` destroys items of `{name}`, and no snapshot of it comes before", step.id.value);
            let doubtful = unsure.iter().find(|snapshot| saves(snapshot, &name));
            let problem = Diagnostic::error(codes::SNAPSHOT_FIRST, span, message);
            found.push(Finding { step: at, problem: finish(problem, doubtful, step) });
        }
    }
}

/// Whether a backup is of the system that a step works on.
fn same_system(backup: &Step, step: &Step) -> bool {
    let connection = |step: &Step| step.with.value.get("connection").cloned();
    connection(backup).is_some() && connection(backup) == connection(step)
}

/// Whether a snapshot holds all of a collection.
fn saves(snapshot: &Step, name: &str) -> bool {
    snapshot.with.value.get("only").is_none() && collections(snapshot).iter().any(|(saved, _)| saved == name)
}

fn finish(mut problem: Diagnostic, doubtful: Option<&&Step>, step: &Step) -> Diagnostic {
    if let Some(snapshot) = doubtful {
        problem = problem.also(snapshot.id.span.clone(), "this snapshot may be skipped or may have failed");
    }
    problem.help(format!(
        "put a `snapshot` step before `{}`, or waive this with `waive: {{ {}: the reason }}`",
        step.id.value,
        codes::SNAPSHOT_FIRST
    ))
}
