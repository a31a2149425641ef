//! The rules a runbook must keep, one file each. All of them are run, and all mistakes are collected.

pub mod codes;

mod confirm_first;
mod connections;
mod cycles;
mod graph;
mod ids;
mod kinds;
mod limit;
mod needs;
mod places;
mod references;
mod safety;
mod shell;
mod snapshot_first;
mod unfreeze_after;
mod unused;

pub use codes::{CODES, page, title};

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
}

/// A rule: writes down every place where the runbook breaks it.
type Rule = fn(&Context<'_>, &mut Vec<Diagnostic>);

const RULES: &[Rule] = &[
    ids::check,
    kinds::check,
    needs::check,
    cycles::check,
    references::check,
    connections::check,
    unused::check,
];

/// The rules of safety, which depend on what the settings say.
const SAFETY: &[Rule] = &[snapshot_first::check, confirm_first::check, unfreeze_after::check, limit::check];

/// Every mistake of meaning, in the order of the text.
pub fn check(runbook: &Runbook, catalog: &Catalog) -> Vec<Diagnostic> {
    run(RULES.iter().chain(SAFETY), runbook, catalog)
}

/// The mistakes against the rules of safety alone: they are looked for again once inputs have made settings definite.
pub(crate) fn safety(runbook: &Runbook, catalog: &Catalog) -> Vec<Diagnostic> {
    run(SAFETY.iter(), runbook, catalog)
}

fn run<'r>(rules: impl Iterator<Item = &'r Rule>, runbook: &Runbook, catalog: &Catalog) -> Vec<Diagnostic> {
    let context = Context { runbook, catalog, graph: Graph::new(runbook) };
    let mut problems = Vec::new();
    for rule in rules {
        rule(&context, &mut problems);
    }
    problems.sort_by_key(|problem| problem.span.start);
    problems
}
