//! `runbook completions`.

use clap::CommandFactory;

use crate::args::{Cli, Completions};
use crate::exit::{Exit, Outcome};

/// Prints the script.
pub fn run(args: &Completions) -> Outcome {
    clap_complete::generate(args.shell, &mut Cli::command(), "runbook", &mut std::io::stdout());
    Ok(Exit::Succeeded)
}
