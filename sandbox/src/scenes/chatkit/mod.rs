//! A ChatKit gateway in front of a seeded FountainStore.

mod inputs;
mod seed;
mod webhook;

use std::path::Path;

use anyhow::Context;

use crate::{
    crypto,
    gateway::Profile,
    supervisor::{Common, Environment, Scene, Service, Spec, Stage, stand},
};

const EXAMPLES: &str = "\
Examples:
  sandbox chatkit -- bash                                     a shell beside the servers
  sandbox chatkit --attachments 200000 --tiny -- ./load.sh    very many attachments
  sandbox chatkit --profile wire --dir /tmp/chatkit -- true   only make the files";

/// The gateway's environment file at the start. Its oddities are meant: who edits it must leave every other byte as it is.
const ENVIRONMENT: &str = "\
# ChatKit gateway. Read once, when the gateway starts.

CHATKIT_ATTACHMENT_MAX_MB=25
export CHATKIT_RESPONDER=\"echo\"   # no model in this environment
CHATKIT_DEFAULT_MODEL='gpt-4o-mini'
  CHATKIT_ATTACHMENT_TTL_HOURS=24 # a day

#CHATKIT_ATTACHMENT_MAX_MB=100
CHATKIT_ATTACHMENT_ALLOWED_MIME_TYPES=\"image/png, image/jpeg image/webp,image/gif,\
application/pdf text/plain,application/json,application/octet-stream\"\t
GATEWAY_DISABLE_RATELIMIT=1";

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
    #[command(flatten)]
    common: Common,
}

/// Runs the sandbox; the exit code is the command's.
///
/// # Errors
/// When it cannot be set up; what the command does is in the exit code.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    stand(&args.common, async |stage| scene(&args, stage).await).await
}

async fn scene(args: &Args, stage: &Stage) -> anyhow::Result<Scene> {
    std::fs::create_dir(stage.path("archive"))?;
    let seeded = seed::fill(&stage.path("store.db"), args).await.context("cannot seed the store")?;
    write_environment(&stage.path("gateway.env"))?;

    let api_key = format!("fs+{}/=", crypto::random_base64::<24>());
    let notify_secret = crypto::hex(&crypto::random::<24>());
    let key = ("FOUNTAINSTORE_API_KEY".to_owned(), api_key.clone());
    let store = Service::start(Spec {
        name: "store",
        command: "store",
        args: vec!["--db".into(), stage.path("store.db").into()],
        env: vec![key.clone()],
        env_file: None,
        stdout: stage.path("store.log"),
        stderr: stage.path("store.err"),
    })
    .await?;
    let gateway = Service::start(Spec {
        name: "gateway",
        command: "gateway",
        args: Vec::new(),
        env: vec![
            key,
            ("FOUNTAINSTORE_URL".into(), store.url()),
            ("SANDBOX_PROFILE".into(), args.profile.name().into()),
            ("SANDBOX_SESSION_TTL_SECONDS".into(), args.session_ttl.to_string()),
        ],
        env_file: Some(stage.path("gateway.env")),
        stdout: stage.path("gateway.log"),
        stderr: stage.path("gateway.err"),
    })
    .await?;

    let mut environment = stage.environment();
    environment.extend([
        ("CHATKIT_GATEWAY_URL", gateway.url()),
        ("FOUNTAINSTORE_URL", store.url()),
        ("FOUNTAINSTORE_API_KEY", api_key),
        ("CHATKIT_ENV_FILE", stage.text("gateway.env")),
        ("CHATKIT_LOG", stage.text("gateway.log")),
        ("CHATKIT_ARCHIVE", stage.text("archive")),
        ("NOTIFY_SECRET", notify_secret.clone()),
        ("RUNBOOK_INPUTS", stage.text("inputs.yaml")),
    ]);
    inputs::write(&stage.path("inputs.yaml"), &environment, &seeded)?;
    Ok(Scene {
        environment,
        services: vec![Box::new(store), Box::new(gateway)],
        routes: webhook::router(notify_secret),
        held: Vec::new(),
    })
}

fn write_environment(path: &Path) -> anyhow::Result<()> {
    std::fs::write(path, ENVIRONMENT).with_context(|| format!("cannot write {}", path.display()))
}
