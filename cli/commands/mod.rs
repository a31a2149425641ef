//! The commands, one file each.

mod abandon;
mod answer;
mod cancel;
mod check;
mod completions;
mod exec;
mod explain;
mod graph;
mod logs;
mod new;
mod plan;
mod reconcile;
mod resume;
mod runs;
mod schema;
mod show;
mod steps;
mod wait;

use std::io::Write;

use serde_json::Value;

use crate::app::App;
use crate::args::Command;
use crate::banner;
use crate::exit::{Exit, Failure, Outcome};
use crate::trouble;

/// Does what the command line says. What is known of a run whose record can not be read is told with every failure for that.
pub async fn run(app: App, command: Command) -> Outcome {
    match dispatch(&app, command).await {
        Err(failure) => Err(match app.location() {
            Ok(location) => trouble::unreadable(&location, failure).await,
            Err(_) => failure,
        }),
        ended => ended,
    }
}

async fn dispatch(app: &App, command: Command) -> Outcome {
    match command {
        Command::Plan(args) => plan::run(app, &args).await,
        Command::Exec(args) => exec::run(app, &args).await,
        Command::Resume(args) => resume::run(app, &args).await,
        Command::Answer(args) => answer::run(app, &args).await,
        Command::Cancel(args) => cancel::run(app, &args).await,
        Command::Runs(args) => runs::run(app, &args).await,
        Command::Show(args) => show::run(app, &args).await,
        Command::Logs(args) => logs::run(app, &args).await,
        Command::Reconcile(_) => reconcile::run(app).await,
        Command::Check(args) => {
            quiet_banner(app).await;
            check::run(app, &args)
        }
        Command::Explain(args) => explain::run(app, &args),
        Command::New(args) => {
            quiet_banner(app).await;
            new::run(app, &args)
        }
        Command::Graph(args) => {
            quiet_banner(app).await;
            graph::run(app, &args)
        }
        Command::Steps(args) => {
            quiet_banner(app).await;
            steps::run(app, &args)
        }
        Command::Schema(args) => {
            quiet_banner(app).await;
            schema::run(&args)
        }
        Command::Completions(args) => completions::run(&args),
    }
}

/// The banner of commands that need no state.
async fn quiet_banner(app: &App) {
    if let Some(state) = app.state_if_there().await {
        banner::show(&state, None).await;
    }
}

/// Prints data on stdout. A reader that has gone is no failure of ours.
fn print(text: &str) -> Outcome {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Bug, format!("stdout: {error}")))
        }
        _ => Ok(Exit::Succeeded),
    }
}

/// Prints one JSON document on stdout.
fn print_json(value: &Value) -> Outcome {
    print(&format!("{value:#}"))
}
