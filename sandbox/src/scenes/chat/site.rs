//! One environment: the chat API, its bucket, and the Prometheus that measures it.

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::REPOSITORY;
use crate::{
    names::Names,
    prometheus::PrometheusServer,
    supervisor::{Service, Spec, Stage},
    weed::{ACCESS_KEY, SECRET_KEY, Weed},
};

/// The region of every bucket.
pub(super) const REGION: &str = "us-east-1";
/// The folder of the reports.
pub(super) const EVIDENCE: &str = "evidence";
/// The label `job` of every API in its Prometheus.
const JOB: &str = "gotong-api";

/// What environments have in common.
pub(super) struct Place<'a> {
    pub(super) stage: &'a Stage,
    pub(super) weed: &'a Weed,
    /// What tokens are signed with.
    pub(super) secret: &'a str,
    /// Where the GitHub answers.
    pub(super) github: String,
    /// What gives servers their names, where they have any.
    pub(super) names: Option<&'a Names>,
}

impl Place<'_> {
    /// The address of a server by its name, or as it is where there are none.
    fn address(&self, name: &str, url: &str) -> String {
        self.names.map_or_else(|| url.to_owned(), |names| names.call(&format!("{name}.example"), url))
    }
}

/// A running environment.
pub(super) struct Site {
    environment: &'static str,
    pub(super) service: Service,
    /// What the API is called among the services.
    name: &'static str,
    pub(super) prometheus: PrometheusServer,
    pub(super) bucket: String,
    /// Where the API, the store, Prometheus and the GitHub answer, as inputs of the runbook.
    addresses: [(&'static str, String); 4],
}

impl Site {
    /// Starts its servers. An API that has fallen back was started before its bucket was there, and was not told where attachments belong.
    pub(super) async fn start(
        place: &Place<'_>,
        environment: &'static str,
        name: &'static str,
        fallen_back: bool,
    ) -> anyhow::Result<Self> {
        let Place { stage, weed, secret, .. } = place;
        let bucket = format!("evidence-{environment}");
        if !fallen_back {
            weed.make_bucket(&bucket).await?;
        }
        let store = place.address(&format!("s3.{environment}"), &weed.url);
        let mut settings = format!(
            "JWT_SECRET={secret}\nAPP_ENV={environment}\nS3_ENDPOINT={store}\nS3_BUCKET={bucket}\nS3_REGION={REGION}\n\
             S3_ACCESS_KEY={ACCESS_KEY}\nS3_SECRET_KEY={SECRET_KEY}\n"
        );
        if !fallen_back {
            settings.push_str("CHAT_ATTACHMENT_STORAGE_BACKEND=s3\n");
        }
        let through = place.names.map(Names::variables).into_iter().flatten();
        settings.extend(through.map(|(name, value)| format!("{name}={value}\n")));
        let file = stage.path(&name.replace("chat-api", "chat")).with_extension("env");
        std::fs::write(&file, settings).with_context(|| format!("cannot write {}", file.display()))?;
        let service = Service::start(Spec {
            name,
            command: "chat-api",
            args: Vec::new(),
            env: Vec::new(),
            env_file: Some(file),
            stdout: stage.path(&format!("{name}.out")),
            stderr: stage.path(&format!("{name}.log")),
        })
        .await?;
        if fallen_back {
            weed.make_bucket(&bucket).await?;
        }
        let prometheus =
            PrometheusServer::start(&[(JOB, service.url().trim_start_matches("http://"))]).await?;
        let addresses = [
            ("app_url", place.address(&format!("app.{environment}"), &service.url())),
            ("s3_endpoint", store),
            ("prometheus_url", place.address(&format!("prometheus.{environment}"), &prometheus.url())),
            ("github_url", place.address("github", &place.github)),
        ];
        Ok(Self { environment, service, name, prometheus, bucket, addresses })
    }

    /// The inputs of the runbook, as this sandbox would have them filled in.
    pub(super) fn inputs(&self, stage: &Stage) -> anyhow::Result<Map<String, Value>> {
        let program = std::env::current_exe()?.to_string_lossy().into_owned();
        let control = stage.environment()["SANDBOX_CONTROL_URL"].clone();
        let sandbox = |verb: &str, more: &[&str]| {
            let words = [&[program.as_str(), verb, "--control", control.as_str()], more].concat();
            json!(words)
        };
        let told = ["sh", "-c", "for name; do echo \"$name=$(printenv \"$name\")\"; done", "sh"];
        let api = self.name;
        let mut inputs: Map<String, Value> =
            self.addresses.iter().map(|(name, url)| ((*name).to_owned(), json!(url))).collect();
        let others = [
            ("environment", json!(self.environment)),
            ("bucket", json!(self.bucket)),
            ("region", json!(REGION)),
            ("metrics_job", json!(JOB)),
            ("metrics_wait", json!("2s")),
            ("repository", json!(REPOSITORY)),
            ("evidence_dir", json!(stage.text(EVIDENCE))),
            ("configured_command", sandbox("inside", &[&["--next", api], &told[..]].concat())),
            ("running_command", sandbox("inside", &[&[api], &told[..]].concat())),
            ("instance_command", sandbox("status", &["--since", api])),
            ("set_backend_command", sandbox("set", &[api, "CHAT_ATTACHMENT_STORAGE_BACKEND", "s3"])),
            ("restart_command", sandbox("restart", &[api])),
            ("rollout_command", json!([])),
            ("log_command", sandbox("log", &[api])),
        ];
        inputs.extend(others.map(|(name, value)| (name.to_owned(), value)));
        Ok(inputs)
    }
}

/// Writes an inputs file for the runbook.
pub(super) fn write_inputs(stage: &Stage, name: &str, inputs: &Map<String, Value>) -> anyhow::Result<()> {
    std::fs::write(stage.path(name), serde_yaml::to_string(inputs)?)
        .with_context(|| format!("cannot write {name}"))
}
