//! `runbook`: runs operational procedures that are dangerous to run by hand.

/// Talks on stderr. Nobody listening any more (a closed pipe, a terminal that is gone, a full disk) must not end a run in the middle
/// of an effect, as the standard macro would by its panic.
macro_rules! eprintln {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

mod app;
mod args;
mod banner;
mod behind;
mod commands;
mod confirm;
mod diagnostics;
mod exit;
mod fields;
mod find;
mod format;
mod graph;
mod inputs;
mod log;
mod lost;
mod planning;
mod prompt;
mod redacted_panic;
mod report;
mod reviewed;
mod secrets;
mod session;
mod signals;
mod state;
mod template;
mod topics;
mod trace;
mod trouble;

use clap::Parser;

use crate::app::App;
use crate::args::Cli;
use crate::exit::Exit;

fn main() {
    redacted_panic::install();
    trace::install();
    prompt::remember_terminal();
    // The first to be installed wins; there is none before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    let exit = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => {
            eprintln!("error: the runtime does not start: {error}");
            Exit::Bug
        }
    };
    // A prompt may still be blocked on the terminal: it must not keep the process.
    prompt::restore_terminal();
    std::process::exit(exit.code());
}

async fn run(cli: Cli) -> Exit {
    let (app, json) = (App::new(cli.state.as_deref(), cli.json), cli.json);
    match commands::run(app, cli.command).await {
        Ok(exit) => exit,
        Err(failure) => {
            if json && failure.exit == Exit::Drift {
                report::print_refused(&failure);
            }
            format::failure(&failure);
            failure.exit
        }
    }
}
