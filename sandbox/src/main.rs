//! The binary `sandbox`: stand-ins of the systems that the shipped runbooks act on.

use clap::{Parser, Subcommand};
use runbook_sandbox::{chat, demo, gateway, github, hub, restart, scenes, store};

/// Stand-ins of the systems that the shipped runbooks act on, as real servers on this machine.
///
/// `sandbox NAME -- COMMAND` is the usual way in, such as `sandbox chatkit -- bash`: it sets up the servers of NAME, runs COMMAND
/// with their addresses and keys in its environment, and stops everything afterwards.
#[derive(Parser)]
#[command(name = "sandbox", version, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Chatkit(scenes::chatkit::Args),
    Demo(demo::Args),
    Restart(restart::Args),
    Store(store::Args),
    Gateway(gateway::Args),
    ChatApi(chat::Args),
    GithubApi(github::Args),
    HubApi(hub::Args),
}

#[tokio::main]
async fn main() {
    let outcome = match Args::parse().command {
        Command::Chatkit(args) => scenes::chatkit::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Restart(args) => restart::run(args).await.map(|()| 0),
        Command::Store(args) => store::run(args).await.map(|()| 0),
        Command::Gateway(args) => gateway::run(args).await.map(|()| 0),
        Command::ChatApi(args) => chat::run(args).await.map(|()| 0),
        Command::GithubApi(args) => github::run(args).await.map(|()| 0),
        Command::HubApi(args) => hub::run(args).await.map(|()| 0),
    };
    let code = outcome.unwrap_or_else(|error| {
        eprintln!("sandbox: {error:#}");
        1
    });
    // Returning would wait for a reader of standard input that may never get anything.
    std::process::exit(i32::from(code));
}
