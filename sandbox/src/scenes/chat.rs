//! A chat API with its attachments in S3, measured by Prometheus, and the GitHub that its releases come from. The store and Prometheus are
//! real.

use anyhow::Context;
use reqwest::Client;
use serde_json::json;

use crate::{
    chat, crypto,
    prometheus::PrometheusServer,
    supervisor::{Common, Environment, Scene, Service, Spec, Stage, stand},
    weed::{ACCESS_KEY, SECRET_KEY, Weed},
};

const EXAMPLES: &str = "\
Examples:
  sandbox chat -- bash                                           a shell beside the servers
  sandbox chat -- sh -c 'runbook exec chat-attachment-lifecycle --inputs \"$RUNBOOK_INPUTS\"'";

/// The bucket of the attachments.
const BUCKET: &str = "evidence-sandbox";
/// The repository.
const REPOSITORY: &str = "gotong/royong";
/// The check that its branch requires.
const GATE: &str = "CI / surreal-release-gates";

/// Start a chat API with its attachments in an S3 store, a Prometheus and a GitHub, and run COMMAND beside them.
///
/// COMMAND gets, in its environment: SANDBOX_DIR, SANDBOX_CONTROL_URL, CHAT_API_URL, CHAT_API_TOKEN, S3_ENDPOINT, S3_BUCKET,
/// S3_REGION, S3_ACCESS_KEY, S3_SECRET_KEY, PROMETHEUS_URL, GITHUB_API_URL, GITHUB_TOKEN, CHAT_ENV_FILE, RUNBOOK_INPUTS (an inputs
/// file for the runbook chat-attachment-lifecycle). The service `chat-api` is told what to do with `sandbox stop`, `start`, `restart`,
/// `status`, `inside`, `log` and `set`. The sandbox stops when COMMAND ends, and exits with its code (128 + the signal that killed it).
///
/// Without COMMAND, one JSON line with that environment goes to standard output, and the sandbox runs until
/// SIGTERM, SIGINT, or the end of standard input. However it ends, its servers end with it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Let the API fall back to its own disk: nobody has said where attachments belong, and the bucket was not there when it started
    #[arg(long)]
    fallen_back: bool,
    /// Leave the branch without the protection that the runbook looks for
    #[arg(long)]
    unprotected: bool,
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
    let weed = Weed::start().await?;
    if !args.fallen_back {
        weed.make_bucket(BUCKET).await?;
    }
    let secret = crypto::hex(&crypto::random::<24>());
    let store = [
        ("S3_ENDPOINT", weed.url.clone()),
        ("S3_BUCKET", BUCKET.to_owned()),
        ("S3_REGION", "us-east-1".to_owned()),
        ("S3_ACCESS_KEY", ACCESS_KEY.to_owned()),
        ("S3_SECRET_KEY", SECRET_KEY.to_owned()),
    ];
    let mut settings = format!("JWT_SECRET={secret}\nAPP_ENV=sandbox\n");
    if !args.fallen_back {
        settings.push_str("CHAT_ATTACHMENT_STORAGE_BACKEND=s3\n");
    }
    settings.extend(store.iter().map(|(name, value)| format!("{name}={value}\n")));
    std::fs::write(stage.path("chat.env"), settings).context("cannot write chat.env")?;
    let api = Service::start(Spec {
        name: "chat-api",
        args: Vec::new(),
        env: Vec::new(),
        env_file: Some(stage.path("chat.env")),
        stdout: stage.path("chat-api.out"),
        stderr: stage.path("chat-api.log"),
    })
    .await?;
    if args.fallen_back {
        weed.make_bucket(BUCKET).await?;
    }
    let branch = vec!["--branch".into(), format!("{REPOSITORY}:main").into()];
    let github = super::service(stage, "github-api", branch, Vec::new()).await?;
    if !args.unprotected {
        protect(&github.url()).await.context("the branch can not be protected")?;
    }
    let target = api.url().replace("http://", "");
    let prometheus = PrometheusServer::start(&[("gotong-api", &target)]).await?;

    let mut environment = stage.environment();
    environment.extend(store);
    environment.extend([
        ("CHAT_API_URL", api.url()),
        ("CHAT_API_TOKEN", chat::token(&secret, "smoke")),
        ("PROMETHEUS_URL", prometheus.url()),
        ("GITHUB_API_URL", github.url()),
        ("GITHUB_TOKEN", crypto::hex(&crypto::random::<12>())),
        ("CHAT_ENV_FILE", stage.text("chat.env")),
        ("RUNBOOK_INPUTS", stage.text("inputs.yaml")),
    ]);
    write_inputs(stage, &environment)?;
    Ok(Scene {
        environment,
        services: vec![Box::new(github), Box::new(api)],
        routes: axum::Router::new(),
        held: vec![Box::new(prometheus), Box::new(weed)],
    })
}

async fn protect(url: &str) -> anyhow::Result<()> {
    let url = format!("{url}/repos/{REPOSITORY}/branches/main/protection");
    let body = json!({ "required_status_checks": { "strict": true, "contexts": [GATE] } });
    let request = Client::builder().no_proxy().build()?.put(url).bearer_auth("admin").json(&body);
    request.send().await?.error_for_status()?;
    Ok(())
}

/// The inputs file for the runbook, as this sandbox would have it filled in.
fn write_inputs(stage: &Stage, environment: &Environment) -> anyhow::Result<()> {
    let program = std::env::current_exe()?.to_string_lossy().into_owned();
    let control = &environment["SANDBOX_CONTROL_URL"];
    let sandbox = |verb: &str, more: &[&str]| {
        let words = [&[program.as_str(), verb, "--control", control.as_str()], more].concat();
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let told = ["sh", "-c", "for name; do echo \"$name=$(printenv \"$name\")\"; done", "sh"];
    let inputs = json!({
        "environment": "sandbox",
        "app_url": environment["CHAT_API_URL"],
        "s3_endpoint": environment["S3_ENDPOINT"],
        "bucket": environment["S3_BUCKET"],
        "region": environment["S3_REGION"],
        "prometheus_url": environment["PROMETHEUS_URL"],
        "metrics_job": "gotong-api",
        "metrics_wait": "2s",
        "github_url": environment["GITHUB_API_URL"],
        "repository": REPOSITORY,
        "evidence_dir": stage.text("evidence"),
        "configured_command": sandbox("inside", &[&["--next", "chat-api"], &told[..]].concat()),
        "running_command": sandbox("inside", &[&["chat-api"], &told[..]].concat()),
        "instance_command": sandbox("status", &["--since", "chat-api"]),
        "set_backend_command": sandbox("set", &["chat-api", "CHAT_ATTACHMENT_STORAGE_BACKEND", "s3"]),
        "restart_command": sandbox("restart", &["chat-api"]),
        "rollout_command": [],
        "log_command": sandbox("log", &["chat-api"]),
    });
    std::fs::write(stage.path("inputs.yaml"), serde_yaml::to_string(&inputs)?)
        .context("cannot write inputs.yaml")
}
