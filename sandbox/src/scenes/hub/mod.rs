//! A ring hub in production: its API, a PostgreSQL and a Redis, all of them real but the API.

use anyhow::Context;
use serde_json::json;

use crate::{
    crypto,
    database::{DatabaseServer, Kind},
    hub::{Key, SCHEMA},
    redis::RedisServer,
    supervisor::{Cache, Common, Environment, Scene, Service, Spec, Stage, stand},
};

const EXAMPLES: &str = "\
Examples:
  sandbox hub -- bash                                            a shell beside the hub
  sandbox hub -- runbook exec reset-production -i environment=staging";

/// What is in the database in the beginning, as SQL.
pub const PRODUCTION: &str = include_str!("production.sql");

/// Prints which Redis a hub uses, by what its REDIS_URL leads to.
const CACHE: &str = r#"ask() { redis-cli --no-auth-warning -u "$REDIS_URL" "$@"; }
echo "$(ask info server | sed -n 's/^run_id:\([0-9a-f]*\).*/\1/p')/$(ask client info | sed -n 's/.* db=\([0-9]*\) .*/\1/p')""#;

/// Start a ring hub with a PostgreSQL and a Redis full of data, and run COMMAND beside them.
///
/// COMMAND gets, in its environment: SANDBOX_DIR, SANDBOX_CONTROL_URL, DATABASE_URL, REDIS_URL, HUB_API_URL, INSTANCE_DID,
/// RING_HUB_URL, ROOT_RING_SLUG, RING_HUB_PRIVATE_KEY, HUB_ENV_FILE, RUNBOOK_INPUTS (an inputs file for the runbook
/// reset-production), HUB_KEY_INPUTS (one for make-badge-key). The services `hub-api` and `redis` are told what to do with `sandbox stop`, `start`, `restart`, `status`,
/// `inside` and `set`. The sandbox stops when COMMAND ends, and exits with its code (128 + the signal that killed it).
///
/// Without COMMAND, one JSON line with that environment goes to standard output, and the sandbox runs until
/// SIGTERM, SIGINT, or the end of standard input. However it ends, its servers end with it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Let the hub serve its DID document too, which the real one does not
    #[arg(long)]
    did_document: bool,
    /// The name of the hub's host, which its address and its DID hold
    #[arg(long, default_value = "hub.example")]
    host: String,
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
    let database = DatabaseServer::start(Kind::Postgres).await?;
    database.execute(SCHEMA).await?;
    database.execute(PRODUCTION).await?;
    let cache = RedisServer::start().await?;
    let cached = redis::cmd("MSET").arg("did:did:web:people.example:1").arg("{}").to_owned();
    cache.run_in::<()>(0, &cached).await?;
    cache.run_in::<()>(1, redis::cmd("SET").arg("queue").arg("a job")).await?;

    let password = crypto::hex(&crypto::random::<12>());
    let variables = [
        ("DATABASE_URL", database.url().replacen("runbook@", &format!("runbook:{password}@"), 1)),
        ("REDIS_URL", cache.url()),
        ("INSTANCE_DID", format!("did:web:{}", args.host)),
        ("RING_HUB_URL", format!("https://{}", args.host)),
        ("ROOT_RING_SLUG", "spool".to_owned()),
        ("RING_HUB_PRIVATE_KEY", Key::drawn()?),
    ];
    let mut file = "NODE_ENV=production\n".to_owned();
    file.extend(variables.iter().map(|(name, value)| format!("{name}={value}\n")));
    std::fs::write(stage.path("hub.env"), file).context("cannot write hub.env")?;
    let api = Service::start(Spec {
        name: "hub-api",
        command: "hub-api",
        args: if args.did_document { vec!["--did-document".into()] } else { Vec::new() },
        env: Vec::new(),
        env_file: Some(stage.path("hub.env")),
        stdout: stage.path("hub.log"),
        stderr: stage.path("hub.err"),
    })
    .await?;

    let mut environment = stage.environment();
    environment.extend(variables);
    environment.extend([
        ("HUB_API_URL", api.url()),
        ("HUB_ENV_FILE", stage.text("hub.env")),
        ("HUB_KEY_INPUTS", stage.text("key-inputs.yaml")),
        ("RUNBOOK_INPUTS", stage.text("inputs.yaml")),
    ]);
    std::fs::create_dir(stage.path("backups"))?;
    std::fs::write(stage.path("schema.sql"), SCHEMA)?;
    write_inputs(stage, &environment)?;
    Ok(Scene {
        environment,
        services: vec![Box::new(Cache::new(cache)), Box::new(api)],
        routes: axum::Router::new(),
        held: vec![Box::new(database)],
    })
}

/// The inputs files for the runbooks, as this sandbox would have them filled in.
fn write_inputs(stage: &Stage, environment: &Environment) -> anyhow::Result<()> {
    let program = std::env::current_exe()?.to_string_lossy().into_owned();
    let control = &environment["SANDBOX_CONTROL_URL"];
    let sandbox = |verb: &str, more: &[&str]| {
        let words = [&[program.as_str(), verb, "--control", control.as_str()], more].concat();
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let slug = &environment["ROOT_RING_SLUG"];
    let did = "did:web:test.example";
    let api = &environment["HUB_API_URL"];
    let inputs = json!({
        "hub_api_url": api,
        "instance_did": environment["INSTANCE_DID"],
        "ring_hub_url": environment["RING_HUB_URL"],
        "backup_dir": stage.text("backups"),
        "schema_files": [stage.text("schema.sql")],
        "report_dir": stage.text("reports"),
        "test_did": did,
        "service_command": sandbox("inside", &["hub-api"]),
        "query_command": ["sh", "-c", "psql --no-psqlrc --tuples-only --no-align --dbname=\"$DATABASE_URL\" --command=\"$0\""],
        "cache_command": ["sh", "-c", CACHE],
        "status_command": sandbox("status", &["hub-api"]),
        "stop_command": sandbox("stop", &["hub-api"]),
        "start_command": sandbox("start", &["hub-api"]),
        "restart_command": sandbox("restart", &["hub-api"]),
        "restart_cache_command": sandbox("restart", &["redis"]),
        "join_command": [program, "join", "--url", api, "--slug", slug, "--did", did],
    });
    std::fs::write(stage.path("inputs.yaml"), serde_yaml::to_string(&inputs)?)?;
    let inputs = json!({
        "hub_api_url": api,
        "key_file": stage.text("badge-key"),
        "public_key_file": stage.text("badge-key.pub"),
        "service_command": sandbox("inside", &["hub-api"]),
        "set_key_command": sandbox("set", &["hub-api", "RING_HUB_PRIVATE_KEY", "--from"]),
        "apply_command": sandbox("restart", &["hub-api"]),
    });
    std::fs::write(stage.path("key-inputs.yaml"), serde_yaml::to_string(&inputs)?)?;
    Ok(())
}
