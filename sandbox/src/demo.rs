//! The demo: the ChatKit reset, for real, against the stand-ins.
//!
//! It builds `runbook`, starts the sandbox around itself, and runs the reset there. At a terminal the person is asked; without
//! one the run waits, as it always does, and the demo answers it the way a second terminal would.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context, bail};
use tokio::process::Command;

/// How `runbook` says that it waits for a person.
const WAITING: i32 = 5;

/// Run the ChatKit reset against a sandbox of its own, with nothing to install.
///
/// At a terminal you are asked to type the phrase that starts the purge. Without a terminal the run waits for an answer, and the
/// demo gives it with `runbook answer`. The folder with the servers' data, the state and the report is kept and named at the end.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many attachments the store holds
    #[arg(long, value_name = "N", default_value_t = 300)]
    attachments: usize,
    /// Run inside the sandbox that is in the environment already
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

/// Runs the demo; the exit code is that of the last command.
///
/// # Errors
/// When `runbook` can not be built or started.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    if let Some(runbook) = &args.inside {
        return inside(runbook).await;
    }
    let runbook = build().await?;
    let dir = std::env::temp_dir().join(format!("runbook-demo-{}", std::process::id()));
    let status = Command::new(std::env::current_exe()?)
        .arg("chatkit")
        .args(["--attachments", &args.attachments.to_string(), "--dir"])
        .arg(&dir)
        .arg("--")
        .arg(std::env::current_exe()?)
        .args(["demo", "--inside"])
        .arg(&runbook)
        .status()
        .await?;
    eprintln!("\nThe servers have stopped. Everything is kept in {}", dir.display());
    eprintln!("  data       store.db, gateway.env (as it was before), gateway.log, archive/");
    eprintln!("  the run    {} show --state sqlite:{}", runbook.display(), state(&dir).display());
    Ok(code(status))
}

/// Builds the command line with the same cargo that runs this.
async fn build() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the sandbox has no workspace")?;
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--bin", "runbook"]).current_dir(root);
    if !build.status().await?.success() {
        bail!("runbook does not build");
    }
    let binary = std::env::current_exe()?.with_file_name("runbook");
    if !binary.is_file() {
        bail!("{} is not there", binary.display());
    }
    Ok(binary)
}

fn state(dir: &Path) -> PathBuf {
    dir.join("state").join("state.db")
}

fn code(status: ExitStatus) -> u8 {
    u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)
}

async fn inside(runbook: &Path) -> anyhow::Result<u8> {
    let dir = std::env::var_os("SANDBOX_DIR").context("SANDBOX_DIR is not set")?;
    let state = format!("sqlite:{}", state(Path::new(&dir)).display());
    let definition = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runbooks/reset-chatkit.yaml");
    let definition = definition.canonicalize()?;
    let mut last = say_and_run(runbook, &["exec", &definition.to_string_lossy(), "--state", &state]).await?;
    let at_a_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if last.code() == Some(WAITING) && !at_a_terminal {
        let run = only_run(runbook, &state).await?;
        eprintln!("\nNo terminal, so the run waits. This is how it is answered from another one:");
        last = say_and_run(runbook, &["answer", &run, "confirm", "RESET CHATKIT", "--state", &state]).await?;
    }
    Ok(code(last))
}

async fn say_and_run(runbook: &Path, arguments: &[&str]) -> anyhow::Result<ExitStatus> {
    let quoted =
        arguments.iter().map(|one| if one.contains(' ') { format!("'{one}'") } else { (*one).to_owned() });
    eprintln!("\n$ runbook {}\n", quoted.collect::<Vec<_>>().join(" "));
    Command::new(runbook)
        .args(arguments)
        .status()
        .await
        .with_context(|| format!("cannot run {}", runbook.display()))
}

/// The id of the one run in this state.
async fn only_run(runbook: &Path, state: &str) -> anyhow::Result<String> {
    let output = Command::new(runbook).args(["runs", "--json", "--state", state]).output().await?;
    let runs: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("runs --json is not JSON")?;
    let run = runs.as_array().or_else(|| runs["runs"].as_array()).and_then(|runs| runs.first());
    run.and_then(|run| run["id"].as_str()).map(str::to_owned).context("there is no run")
}
