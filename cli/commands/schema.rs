//! `runbook schema`.

use runbook_engine::schema;
use runbook_steps::catalog::CATALOG;

use crate::args::{Schema, SchemaOf};
use crate::exit::Outcome;

/// Prints a schema.
pub fn run(args: &Schema) -> Outcome {
    super::print_json(&match args.of {
        SchemaOf::Runbook => schema::runbook(&CATALOG),
        SchemaOf::Plan => schema::plan(),
        SchemaOf::SavedPlan => schema::saved_plan(),
        SchemaOf::Event => schema::event(),
    })
}
