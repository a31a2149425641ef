//! `runbook schema`.

use crate::exit::Outcome;

/// Prints the schema.
pub fn run() -> Outcome {
    let schema = runbook_engine::schema::runbook(&runbook_steps::catalog::CATALOG);
    super::print_json(&schema)
}
