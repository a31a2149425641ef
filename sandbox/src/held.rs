//! Any sandbox as a test holds it.

use std::{collections::BTreeMap, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long a sandbox may take until it is ready, seeding included.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a sandbox may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A running sandbox. Dropped, it is killed and its directory removed.
pub struct Sandbox {
    child: Child,
    environment: BTreeMap<String, String>,
    pub(crate) http: reqwest::Client,
    // Declared last: removed after the process was killed.
    _dir: TempDir,
}

impl Sandbox {
    /// Starts `sandbox NAME` with these arguments, and waits until it is ready.
    ///
    /// # Errors
    /// When the binary cannot be run, or does not get ready in time.
    pub async fn start(binary: &Path, name: &str, arguments: &[String]) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir()?;
        let mut child = Command::new(binary)
            .arg(name)
            .args(arguments)
            .arg("--dir")
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", binary.display()))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let line =
            timeout(START_LIMIT, lines.next_line()).await.context("the sandbox does not get ready")??;
        let line = line.context("the sandbox ended before it was ready")?;
        let environment = serde_json::from_str(&line).context("the sandbox's first line is no JSON")?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { child, environment, http, _dir: dir })
    }

    /// The environment for a command that is to work on the sandbox.
    #[must_use]
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// One of its variables.
    ///
    /// # Panics
    /// When there is no such variable.
    #[must_use]
    pub fn var(&self, name: &str) -> &str {
        self.environment.get(name).unwrap_or_else(|| panic!("the sandbox sets no {name}"))
    }

    /// The sandbox's process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        Path::new(self.var("SANDBOX_DIR"))
    }

    /// The address of the control server.
    #[must_use]
    pub fn control_url(&self) -> &str {
        self.var("SANDBOX_CONTROL_URL")
    }

    /// The answer of `GET /state` of the control server.
    ///
    /// # Errors
    /// When the control server does not answer.
    pub async fn state(&self) -> anyhow::Result<Value> {
        let url = format!("{}/state", self.control_url());
        Ok(self.http.get(url).send().await?.error_for_status()?.json().await?)
    }

    /// Tells a service what to do: `start`, `stop`, `restart` or `kill`.
    ///
    /// # Errors
    /// When it does not do it.
    pub async fn order(&self, verb: &str, service: &str) -> anyhow::Result<()> {
        let url = format!("{}/{verb}/{service}", self.control_url());
        let response = self.http.post(&url).send().await?;
        if !response.status().is_success() {
            bail!("{url}: {}", response.text().await?);
        }
        Ok(())
    }

    /// Ends the sandbox as its user would.
    ///
    /// # Errors
    /// When it does not end in time, or ends with a failure.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let status = timeout(STOP_LIMIT, self.child.wait()).await.context("the sandbox does not end")??;
        ensure!(status.success(), "the sandbox ended with {status}");
        Ok(())
    }
}
