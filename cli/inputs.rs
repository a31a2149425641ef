//! From a runbook's text and what the command line gives, to a plan.

use runbook_engine::diagnostic::Diagnostic;
use runbook_engine::plan::Plan;

use crate::args::Exec;
use crate::exit::{Exit, Failure, Outcome};
use crate::find::Source;

/// Every mistake in the source.
pub fn compile(source: &Source) -> (Option<Plan>, Vec<Diagnostic>) {
    let end = source.text.len();
    (None, vec![Diagnostic::error("RB0000", 0..end, "this build has no compiler")])
}

/// The plan that the source and the inputs make.
pub fn plan(source: &Source, args: &Exec) -> Outcome<Plan> {
    let _ = (compile(source), &args.input, &args.inputs);
    Err(Failure::new(Exit::Invalid, "this build has no compiler"))
}
