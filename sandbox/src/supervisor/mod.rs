//! The ChatKit sandbox: seeds a store, runs store and gateway as child processes, and a command beside them.

mod command;
mod control;
mod env_file;
mod inputs;
mod seed;
mod service;
mod webhook;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use axum::serve::ListenerExt;
use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{crypto, gateway::Profile, serve};
use service::{Service, Services};

const EXAMPLES: &str = "\
Examples:
  sandbox chatkit -- bash                                     a shell beside the servers
  sandbox chatkit --attachments 200000 --tiny -- ./load.sh    very many attachments
  sandbox chatkit --profile wire --dir /tmp/chatkit -- true   only make the files";

/// Start a seeded FountainStore and a ChatKit gateway, and run COMMAND beside them.
///
/// COMMAND gets, in its environment: SANDBOX_DIR, SANDBOX_CONTROL_URL, CHATKIT_GATEWAY_URL,
/// FOUNTAINSTORE_URL, FOUNTAINSTORE_API_KEY, CHATKIT_ENV_FILE, CHATKIT_LOG, CHATKIT_ARCHIVE, NOTIFY_SECRET,
/// RUNBOOK_INPUTS (an inputs file for the ChatKit runbook). The sandbox stops when COMMAND ends, and exits
/// with its code (128 + the signal that killed it).
///
/// Without COMMAND, one JSON line with that environment goes to standard output, and the sandbox runs until
/// SIGTERM, SIGINT, or the end of standard input. However it ends, its servers end with it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How the gateway behaves
    #[arg(long, value_enum, default_value_t = Profile::Documented)]
    profile: Profile,
    /// How many attachments the store holds
    #[arg(long, value_name = "N", default_value_t = 300)]
    attachments: usize,
    /// How many further contents have no description
    #[arg(long, value_name = "N", default_value_t = 3)]
    orphans: usize,
    /// How many attachments the inputs file asks to restore
    #[arg(long, value_name = "N", default_value_t = 12)]
    restore: usize,
    /// What the seeded contents, ids and names are derived from
    #[arg(long, value_name = "N", default_value_t = 7)]
    seed: u64,
    /// Seed contents of a few bytes, for very many attachments
    #[arg(long)]
    tiny: bool,
    /// How long a gateway session lives without a refresh
    #[arg(long, value_name = "SECONDS", default_value_t = 900.0)]
    session_ttl: f64,
    /// Work in this directory, which must be missing or empty, and keep it [default: a temporary one]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print the JSON line also when there is a COMMAND, before it starts
    #[arg(long)]
    ready_json: bool,
    /// What to run beside the servers, with its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What the children and the command are told; also the members of the JSON line.
type Environment = BTreeMap<&'static str, String>;

/// Files and directories of one sandbox.
struct Layout {
    dir: PathBuf,
    /// Removes a temporary directory at the end.
    temporary: Option<TempDir>,
}

impl Layout {
    fn new(dir: Option<&Path>) -> anyhow::Result<Self> {
        let (dir, temporary) = match dir {
            None => {
                let temporary = tempfile::Builder::new().prefix("sandbox-").tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
            Some(dir) => {
                std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
                if std::fs::read_dir(dir)?.next().is_some() {
                    bail!("{} is not empty", dir.display());
                }
                (dir.to_owned(), None)
            }
        };
        let dir = dir.canonicalize()?;
        let layout = Self { dir, temporary };
        std::fs::create_dir(layout.path("archive"))?;
        Ok(layout)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }
}

/// The signals that end a sandbox, or are passed on to the command.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// Runs the sandbox; the exit code is the command's.
///
/// # Errors
/// When it cannot be set up; what the command does is in the exit code.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    // From here on a signal is noticed, not fatal: what is started must be stopped again.
    let mut signals =
        Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? };
    let layout = Layout::new(args.dir.as_deref())?;
    let seeded = seed::fill(&layout.path("store.db"), &args).await.context("cannot seed the store")?;
    env_file::write_initial(&layout.path("gateway.env"))?;

    let api_key = format!("fs+{}/=", crypto::random_base64::<24>());
    let notify_secret = crypto::hex(&crypto::random::<24>());
    let services = Arc::new(start_services(&args, &layout, &api_key).await?);
    let control = serve::bind(0).await?;
    let control_url = format!("http://{}", control.local_addr()?);

    let environment = Environment::from([
        ("SANDBOX_DIR", layout.dir.to_string_lossy().into_owned()),
        ("SANDBOX_CONTROL_URL", control_url),
        ("CHATKIT_GATEWAY_URL", services.gateway.url()),
        ("FOUNTAINSTORE_URL", services.store.url()),
        ("FOUNTAINSTORE_API_KEY", api_key),
        ("CHATKIT_ENV_FILE", layout.text("gateway.env")),
        ("CHATKIT_LOG", layout.text("gateway.log")),
        ("CHATKIT_ARCHIVE", layout.text("archive")),
        ("NOTIFY_SECRET", notify_secret.clone()),
        ("RUNBOOK_INPUTS", layout.text("inputs.yaml")),
    ]);
    inputs::write(&layout.path("inputs.yaml"), &environment, &seeded)?;
    let router = control::router(Arc::clone(&services), notify_secret);
    let control = control.tap_io(|stream| drop(stream.set_nodelay(true)));
    tokio::spawn(async move { axum::serve(control, router).await });

    if args.command.is_empty() || args.ready_json {
        println!("{}", serde_json::to_string(&environment)?);
    }
    let code = match args.command.split_first() {
        Some((program, arguments)) => command::run(program, arguments, &environment, &mut signals).await,
        None => {
            command::until_released(&mut signals).await;
            0
        }
    };
    services.stop().await;
    if let Some(temporary) = layout.temporary {
        temporary.close().context("cannot remove the temporary directory")?;
    }
    Ok(code)
}

async fn start_services(args: &Args, layout: &Layout, api_key: &str) -> anyhow::Result<Services> {
    let key = ("FOUNTAINSTORE_API_KEY".to_owned(), api_key.to_owned());
    let store = Service::start(service::Spec {
        name: "store",
        args: vec!["--db".into(), layout.path("store.db").into()],
        env: vec![key.clone()],
        env_file: None,
        stdout: layout.path("store.log"),
        stderr: layout.path("store.err"),
    })
    .await?;
    let gateway = Service::start(service::Spec {
        name: "gateway",
        args: Vec::new(),
        env: vec![
            key,
            ("FOUNTAINSTORE_URL".into(), store.url()),
            ("SANDBOX_PROFILE".into(), args.profile.name().into()),
            ("SANDBOX_SESSION_TTL_SECONDS".into(), args.session_ttl.to_string()),
        ],
        env_file: Some(layout.path("gateway.env")),
        stdout: layout.path("gateway.log"),
        stderr: layout.path("gateway.err"),
    })
    .await?;
    Ok(Services { store, gateway })
}
