//! The ChatKit sandbox as a test holds it.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    Sandbox,
    admin::{Effect, Effects, Fault, RequestEntry, Requests, Webhook, Webhooks},
};

/// A server of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The ChatKit gateway.
    Gateway,
    /// The FountainStore.
    Store,
}

impl Server {
    /// Its name in the routes of the control server.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Store => "store",
        }
    }
}

/// What a sandbox is to hold; the defaults are small, for tests.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many attachments.
    pub attachments: usize,
    /// How many further contents without a description.
    pub orphans: usize,
    /// How many attachments the inputs file asks to restore.
    pub restore: usize,
    /// What contents, ids and names are derived from.
    pub seed: u64,
    /// Contents of a few bytes.
    pub tiny: bool,
    /// Whether the gateway shows the behaviour of the real server (`--profile wire`).
    pub wire: bool,
    /// How long a session lives without a refresh.
    pub session_ttl: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            attachments: 40,
            orphans: 3,
            restore: 6,
            seed: 7,
            tiny: true,
            wire: false,
            session_ttl: Duration::from_mins(15),
        }
    }
}

impl Options {
    fn arguments(&self) -> Vec<String> {
        let profile = if self.wire { "wire" } else { "documented" };
        let mut arguments: Vec<String> = vec!["--profile".into(), profile.into()];
        for (flag, value) in [
            ("--attachments", self.attachments.to_string()),
            ("--orphans", self.orphans.to_string()),
            ("--restore", self.restore.to_string()),
            ("--seed", self.seed.to_string()),
            ("--session-ttl", self.session_ttl.as_secs_f64().to_string()),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        if self.tiny {
            arguments.push("--tiny".into());
        }
        arguments
    }
}

/// The `sandbox` binary beside the running test binary, or what `RUNBOOK_SANDBOX_BIN` names.
///
/// # Errors
/// When there is none: it is built with the workspace.
pub fn sandbox_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("RUNBOOK_SANDBOX_BIN") {
        return Ok(path.into());
    }
    let exe = std::env::current_exe()?;
    exe.ancestors()
        .skip(1)
        .take(3)
        .map(|dir| dir.join("sandbox"))
        .find(|path| path.is_file())
        .context("no sandbox binary beside the tests: cargo build -p runbook-sandbox")
}

/// A running ChatKit sandbox. Dropped, it is killed and its directory removed.
pub struct Chatkit {
    sandbox: Sandbox,
}

impl Deref for Chatkit {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Chatkit {
    /// Starts a sandbox and waits until it is ready.
    ///
    /// # Errors
    /// When the binary cannot be run, or does not get ready in time.
    pub async fn start(binary: &Path, options: &Options) -> anyhow::Result<Self> {
        Ok(Self { sandbox: Sandbox::start(binary, "chatkit", &options.arguments()).await? })
    }

    /// The address of the gateway.
    #[must_use]
    pub fn gateway_url(&self) -> &str {
        self.var("CHATKIT_GATEWAY_URL")
    }

    /// The address of the store.
    #[must_use]
    pub fn store_url(&self) -> &str {
        self.var("FOUNTAINSTORE_URL")
    }

    /// The store's key.
    #[must_use]
    pub fn api_key(&self) -> &str {
        self.var("FOUNTAINSTORE_API_KEY")
    }

    /// The gateway's environment file.
    #[must_use]
    pub fn env_file(&self) -> &Path {
        Path::new(self.var("CHATKIT_ENV_FILE"))
    }

    /// The gateway's structured log.
    #[must_use]
    pub fn log(&self) -> &Path {
        Path::new(self.var("CHATKIT_LOG"))
    }

    /// The empty directory for archived attachments.
    #[must_use]
    pub fn archive_dir(&self) -> &Path {
        Path::new(self.var("CHATKIT_ARCHIVE"))
    }

    /// The secret that webhooks are signed with.
    #[must_use]
    pub fn notify_secret(&self) -> &str {
        self.var("NOTIFY_SECRET")
    }

    /// The inputs file for the ChatKit runbook.
    #[must_use]
    pub fn inputs(&self) -> &Path {
        Path::new(self.var("RUNBOOK_INPUTS"))
    }

    /// The events in the gateway's log; lines that are no JSON are left out.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn events(&self) -> anyhow::Result<Vec<Value>> {
        let text = tokio::fs::read_to_string(self.log()).await?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// All documents of a collection of the corpus `chatkit`, in the order of their ids.
    ///
    /// # Errors
    /// When the store does not answer. Note that this request is in the store's log too.
    pub async fn documents(&self, collection: &str) -> anyhow::Result<Vec<Value>> {
        let path = format!("/corpora/chatkit/collections/{collection}/query");
        let answer = self.send(Server::Store, Method::POST, &path, Some(&json!({}))).await?;
        let documents =
            answer.get("documents").and_then(Value::as_array).context("no documents in the answer")?;
        Ok(documents.clone())
    }

    /// The ids of all documents of a collection of the corpus `chatkit`, in order.
    ///
    /// # Errors
    /// When the store does not answer, or a document has no id.
    pub async fn doc_ids(&self, collection: &str) -> anyhow::Result<Vec<String>> {
        let id = |document: Value| {
            let id = document.get("attachmentId").or_else(|| document.get("id")).and_then(Value::as_str);
            id.map(str::to_owned).with_context(|| format!("a document without an id: {document}"))
        };
        self.documents(collection).await?.into_iter().map(id).collect()
    }

    /// Every write that the store did since the sandbox started, in order.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn effects(&self) -> anyhow::Result<Vec<Effect>> {
        let answer: Effects = self.get(&self.url(Server::Store, "/__sandbox/effects")).await?;
        Ok(answer.effects)
    }

    /// Every request that a server received since it was started, in order.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn requests(&self, server: Server) -> anyhow::Result<Vec<RequestEntry>> {
        let answer: Requests = self.get(&self.url(server, "/__sandbox/requests")).await?;
        Ok(answer.requests)
    }

    /// Makes a server fail. A restart of the server forgets it.
    ///
    /// # Errors
    /// When the server does not accept the fault.
    pub async fn fault(&self, server: Server, fault: &Fault) -> anyhow::Result<()> {
        let body = serde_json::to_value(fault)?;
        self.send(server, Method::POST, "/__sandbox/faults", Some(&body)).await.map(drop)
    }

    /// Takes back all faults of a server.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn clear_faults(&self, server: Server) -> anyhow::Result<()> {
        self.send(server, Method::DELETE, "/__sandbox/faults", None).await.map(drop)
    }

    /// Every webhook that was received, in order.
    ///
    /// # Errors
    /// When the control server does not answer.
    pub async fn webhooks(&self) -> anyhow::Result<Vec<Webhook>> {
        let answer: Webhooks = self.get(&format!("{}/webhooks", self.control_url())).await?;
        Ok(answer.webhooks)
    }

    /// Answers the next `times` webhooks with `status`.
    ///
    /// # Errors
    /// When the control server does not answer.
    pub async fn fault_webhooks(&self, times: u64, status: u16) -> anyhow::Result<()> {
        let body = json!({ "times": times, "status": status });
        let url = format!("{}/webhook-faults", self.control_url());
        self.http.post(url).json(&body).send().await?.error_for_status()?;
        Ok(())
    }

    /// Ends a server and starts it again on the same port.
    ///
    /// # Errors
    /// When it does not come up again.
    pub async fn restart(&self, server: Server) -> anyhow::Result<()> {
        self.sandbox.order("restart", server.name()).await
    }

    /// Kills a server; it stays down until [`Chatkit::restart`].
    ///
    /// # Errors
    /// When the control server does not answer.
    pub async fn kill(&self, server: Server) -> anyhow::Result<()> {
        self.sandbox.order("kill", server.name()).await
    }

    /// Ends the sandbox as its user would.
    ///
    /// # Errors
    /// When it does not end in time, or ends with a failure.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.sandbox.stop().await
    }

    fn url(&self, server: Server, path: &str) -> String {
        let base = match server {
            Server::Gateway => self.gateway_url(),
            Server::Store => self.store_url(),
        };
        format!("{base}{path}")
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> anyhow::Result<T> {
        Ok(self.http.get(url).send().await?.error_for_status()?.json().await?)
    }

    async fn send(
        &self,
        server: Server,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let mut request =
            self.http.request(method, self.url(server, path)).header("X-API-Key", self.api_key());
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "{path}: {status}: {text}");
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}
