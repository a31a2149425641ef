//! The binary `sandbox`: stand-ins of the systems that the shipped runbooks act on.

use clap::{Parser, Subcommand};
use runbook_sandbox::{chat, demo, gateway, github, hub, image_api, remote, scenes, store};

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
    Chat(scenes::chat::Args),
    Chatkit(scenes::chatkit::Args),
    Hub(scenes::hub::Args),
    Images(scenes::images::Args),
    Demo(demo::Args),
    /// Start services of a running sandbox that are stopped
    ///
    /// They read their environment files anew. The ports stay the same.
    Start(remote::Names),
    /// Stop services of a running sandbox
    ///
    /// They end what they are at, and stay down until they are started.
    Stop(remote::Names),
    /// Restart services of a running sandbox, and wait until they answer again
    ///
    /// They read their environment files anew. The ports stay the same.
    Restart(remote::Names),
    Status(remote::Status),
    Log(remote::Log),
    Inside(remote::Inside),
    Set(remote::Set),
    Join(hub::join::Args),
    Store(store::Args),
    Gateway(gateway::Args),
    ChatApi(chat::Args),
    GithubApi(github::Args),
    HubApi(hub::Args),
    ImageApi(image_api::Args),
}

#[tokio::main]
async fn main() {
    let outcome = match Args::parse().command {
        Command::Chat(args) => scenes::chat::run(args).await,
        Command::Chatkit(args) => scenes::chatkit::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Hub(args) => scenes::hub::run(args).await,
        Command::Images(args) => scenes::images::run(args).await,
        Command::Start(names) => remote::order("start", names).await,
        Command::Stop(names) => remote::order("stop", names).await,
        Command::Restart(names) => remote::order("restart", names).await,
        Command::Status(args) => remote::status(args).await,
        Command::Log(args) => remote::log(args).await,
        Command::Inside(args) => remote::inside(args).await,
        Command::Set(args) => remote::set(args).await,
        Command::Join(args) => hub::join::run(args).await,
        Command::Store(args) => store::run(args).await.map(|()| 0),
        Command::Gateway(args) => gateway::run(args).await.map(|()| 0),
        Command::ChatApi(args) => chat::run(args).await.map(|()| 0),
        Command::GithubApi(args) => github::run(args).await.map(|()| 0),
        Command::HubApi(args) => hub::run(args).await.map(|()| 0),
        Command::ImageApi(args) => image_api::run(args).await.map(|()| 0),
    };
    let code = outcome.unwrap_or_else(|error| {
        eprintln!("sandbox: {error:#}");
        1
    });
    // Returning would wait for a reader of standard input that may never get anything.
    std::process::exit(i32::from(code));
}
