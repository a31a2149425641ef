//! The rules a runbook must keep, one file each. All of them are run, and all mistakes are collected.

pub mod codes;

mod batch_size;
mod comparisons;
mod confirm_first;
mod connections;
mod cycles;
mod freeze_first;
mod freeze_in_finally;
mod graph;
mod held;
mod ids;
mod kinds;
mod limit;
mod needs;
mod no_outputs;
mod only_read;
mod places;
mod references;
mod safety;
mod shapes;
mod shell;
mod snapshot_first;
mod types;
mod unchanged_since;
mod undeclared;
mod unfreeze_after;
mod unfreeze_beside;
mod unfreeze_in_finally;
mod unfreeze_what;
mod unreachable;
mod unused;
mod verify_after;
mod waivers;

pub use codes::{CODES, page, title};

use std::collections::HashMap;

use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::kinds::Catalog;
use crate::runbook::Runbook;

pub(crate) use graph::Graph;
pub(crate) use kinds::setting_problems;

/// What every rule sees.
struct Context<'a> {
    runbook: &'a Runbook,
    catalog: &'a Catalog,
    graph: Graph<'a>,
    /// The schema of the outputs of each step kind that is used: making one is dear.
    outputs: HashMap<&'a str, Value>,
}

/// A rule: writes down every place where the runbook breaks it.
type Rule = fn(&Context<'_>, &mut Vec<Diagnostic>);

const RULES: &[Rule] = &[
    ids::check,
    kinds::check,
    needs::check,
    cycles::check,
    unfreeze_what::check,
    freeze_in_finally::check,
    unchanged_since::check,
    references::check,
    types::check,
    no_outputs::check,
    comparisons::check,
    connections::check,
    only_read::check,
    batch_size::check,
    unused::check,
];

/// What a rule of safety finds: the step that breaks it, and may waive it.
struct Finding {
    step: usize,
    problem: Diagnostic,
}

/// A rule of safety.
type SafetyRule = fn(&Context<'_>, &mut Vec<Finding>);

/// The rules of safety, which depend on what the settings say.
const SAFETY: &[SafetyRule] = &[
    snapshot_first::check,
    confirm_first::check,
    unfreeze_after::check,
    limit::check,
    verify_after::check,
    undeclared::check,
    unreachable::check,
    held::check,
    unfreeze_in_finally::check,
    unfreeze_beside::check,
    freeze_first::check,
];

/// Every mistake of meaning, in the order of the text.
pub fn check(runbook: &Runbook, catalog: &Catalog) -> Vec<Diagnostic> {
    let context = Context::new(runbook, catalog);
    let mut problems = Vec::new();
    for rule in RULES {
        rule(&context, &mut problems);
    }
    // What is misspelled where it is used is not unused.
    let meant: Vec<String> = problems.iter().filter_map(connections::meant).collect();
    problems.retain(|problem| !unused::names(problem, &meant, runbook));
    let findings = context.findings();
    waivers::needless(&context, &findings, &mut problems);
    problems.extend(waivers::standing(&context, findings));
    problems.sort_by_key(|problem| problem.span.start);
    problems
}

/// The mistakes against the rules of safety alone: they are looked for again once inputs have made settings definite.
pub(crate) fn safety(runbook: &Runbook, catalog: &Catalog) -> Vec<Diagnostic> {
    let context = Context::new(runbook, catalog);
    let mut problems: Vec<Diagnostic> = waivers::standing(&context, context.findings()).collect();
    problems.sort_by_key(|problem| problem.span.start);
    problems
}

impl<'a> Context<'a> {
    fn new(runbook: &'a Runbook, catalog: &'a Catalog) -> Self {
        let mut outputs = HashMap::new();
        for step in runbook.all_steps() {
            if let Some(kind) = catalog.step(&step.uses.value) {
                outputs.entry(step.uses.value.as_str()).or_insert_with(|| (kind.outputs)().to_value());
            }
        }
        Self { runbook, catalog, graph: Graph::new(runbook), outputs }
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for rule in SAFETY {
            rule(self, &mut findings);
        }
        findings
    }
}
