//! A chat API with its attachments in S3, measured by Prometheus, and the GitHub that its releases come from: that of this machine, and on
//! demand those of staging and of production with their cluster. The store, Prometheus and the cluster are real.

mod environments;
mod site;

use anyhow::Context;
use reqwest::Client;
use serde_json::json;

use crate::{
    chat, crypto,
    supervisor::{Common, Controlled, Scene, Stage, stand},
    weed::{ACCESS_KEY, SECRET_KEY, Weed},
};
use environments::Environments;
use site::{Place, Site};

const EXAMPLES: &str = "\
Examples:
  sandbox chat -- bash                                           a shell beside the servers
  sandbox chat -- sh -c 'runbook exec chat-attachment-lifecycle --inputs \"$RUNBOOK_INPUTS\"'
  sandbox chat --environments -- bash                            a shell beside all three environments

With --environments, from an empty bucket to production, in a folder that has the runbook or a folder runbooks with it; each asks
for EXPIRE ATTACHMENTS:
  runbook exec chat-attachment-lifecycle --inputs \"$RUNBOOK_INPUTS\"
  runbook exec chat-attachment-lifecycle --inputs \"$STAGING_INPUTS\" \\
    -i preflight_report=\"$(ls -t \"$EVIDENCE_DIR\"/chat-attachment-lifecycle-sandbox-*-????.json | head -n 1)\"
  runbook exec chat-attachment-lifecycle --inputs \"$PRODUCTION_INPUTS\" \\
    -i staging_report=\"$(ls -t \"$EVIDENCE_DIR\"/chat-attachment-lifecycle-staging-*-????.json | head -n 1)\"
  USER=bob runbook answer RUN approve                            as somebody else than who began it

What a run leaves in EVIDENCE_DIR is named after its environment and its id, which ends with four letters.";

/// The repository.
const REPOSITORY: &str = "gotong/royong";
/// The check that its branch requires.
const GATE: &str = "CI / surreal-release-gates";

/// Start a chat API with its attachments in an S3 store, a Prometheus and a GitHub, and run COMMAND beside them.
///
/// COMMAND gets, in its environment: SANDBOX_DIR, SANDBOX_CONTROL_URL, CHAT_API_URL, CHAT_API_TOKEN, S3_ENDPOINT, S3_BUCKET,
/// S3_REGION, S3_ACCESS_KEY, S3_SECRET_KEY, PROMETHEUS_URL, GITHUB_API_URL, GITHUB_TOKEN, CHAT_ENV_FILE, EVIDENCE_DIR, RUNBOOK_INPUTS
/// (an inputs file for the runbook chat-attachment-lifecycle). The service `chat-api` is told what to do with `sandbox stop`, `start`,
/// `restart`, `status`, `inside`, `log` and `set`. The sandbox stops when COMMAND ends, and exits with its code (128 + the signal that
/// killed it).
///
/// With --environments there are staging and production too, each with an API, a bucket and a Prometheus of its own: STAGING_INPUTS and
/// PRODUCTION_INPUTS are their inputs files, the services `chat-api-staging` and `chat-api-production` their APIs. Their servers have
/// names, such as `http://s3.staging.example`, which a proxy leads to this machine: COMMAND gets HTTP_PROXY and NO_PROXY. It gets
/// KUBECONFIG of a real Kubernetes API, which tests/kubernetes builds, APP_DIR with the alerts, and a PATH on which `just` knows the
/// recipes of the application.
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
    /// Add staging and production, with their cluster and the application's checkout
    #[arg(long)]
    environments: bool,
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
    // First, since it says what is missing.
    let others = if args.environments { Some(Environments::start(stage).await?) } else { None };
    let weed = Weed::start().await?;
    let secret = crypto::hex(&crypto::random::<24>());
    let branch = vec!["--branch".into(), format!("{REPOSITORY}:main").into()];
    let github = super::service(stage, "github-api", branch, Vec::new()).await?;
    if !args.unprotected {
        protect(&github.url()).await.context("the branch can not be protected")?;
    }
    let place = Place { stage, weed: &weed, secret: &secret, github: github.url(), names: None };
    let here = Site::start(&place, "sandbox", "chat-api", args.fallen_back).await?;

    let mut environment = stage.environment();
    environment.extend([
        ("CHAT_API_URL", here.service.url()),
        ("CHAT_API_TOKEN", chat::token(&secret, "smoke")),
        ("S3_ENDPOINT", weed.url.clone()),
        ("S3_BUCKET", here.bucket.clone()),
        ("S3_REGION", site::REGION.to_owned()),
        ("S3_ACCESS_KEY", ACCESS_KEY.to_owned()),
        ("S3_SECRET_KEY", SECRET_KEY.to_owned()),
        ("PROMETHEUS_URL", here.prometheus.url()),
        ("GITHUB_API_URL", github.url()),
        ("GITHUB_TOKEN", crypto::hex(&crypto::random::<12>())),
        ("CHAT_ENV_FILE", stage.text("chat.env")),
        ("EVIDENCE_DIR", stage.text(site::EVIDENCE)),
        ("RUNBOOK_INPUTS", stage.text("inputs.yaml")),
    ]);
    let mut inputs = here.inputs(stage)?;
    let mut services: Vec<Box<dyn Controlled>> = vec![Box::new(github), Box::new(here.service)];
    let mut held: Vec<Box<dyn std::any::Any + Send>> = vec![Box::new(here.prometheus)];
    if let Some(others) = others {
        inputs.extend(others.preflight(stage));
        environment.extend(others.variables(stage));
        for one in others.sites(&place).await? {
            services.push(Box::new(one.service));
            held.push(Box::new(one.prometheus));
        }
        held.push(Box::new(others));
    }
    held.push(Box::new(weed));
    site::write_inputs(stage, "inputs.yaml", &inputs)?;
    Ok(Scene { environment, services, routes: axum::Router::new(), held })
}

async fn protect(url: &str) -> anyhow::Result<()> {
    let url = format!("{url}/repos/{REPOSITORY}/branches/main/protection");
    let body = json!({ "required_status_checks": { "strict": true, "contexts": [GATE] } });
    let request = Client::builder().no_proxy().build()?.put(url).bearer_auth("admin").json(&body);
    request.send().await?.error_for_status()?;
    Ok(())
}
