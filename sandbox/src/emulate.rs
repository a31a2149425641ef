//! GitHub as others take it to be: `emulate` by Vercel Labs, on a free port, stopped with the test that started it.
//!
//! It keeps repositories, branches and their protections, and differs from GitHub in what matters here: it knows of no rulesets, says
//! `Not Found` of a branch that is not protected, and shows the protection of a public repository to everybody.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::database::mortal;
use crate::free_port;
use crate::installed::installed;

/// The owner of all that it makes. Every token that it does not know is this user's.
pub const OWNER: &str = "admin";
/// The token of a user who has nothing.
pub const STRANGER: &str = "stranger-token";

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running stand-in.
pub struct Emulate {
    child: Child,
    folder: tempfile::TempDir,
    /// Where its API answers.
    pub url: String,
}

impl Emulate {
    /// Starts one, and waits until it answers.
    ///
    /// # Errors
    /// When it is not installed, or does not answer.
    pub async fn start() -> Result<Self> {
        free_port::start("EADDRINUSE", Self::try_start).await
    }

    async fn try_start() -> Result<Self> {
        let at = installed("emulate-0.12.2");
        let node = at.join("bin/node");
        ensure!(node.exists(), "emulate is not in {}: install it, as tests/run does", at.display());
        let folder = tempfile::Builder::new().prefix("runbook-github-").tempdir()?;
        let users = json!([{ "login": OWNER }, { "login": "stranger" }]);
        let tokens = json!({ STRANGER: { "login": "stranger", "scopes": ["repo"] } });
        // JSON is YAML too.
        fs::write(
            folder.path().join("seed.yaml"),
            json!({ "tokens": tokens, "github": { "users": users } }).to_string(),
        )?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = mortal(&node);
        command.arg(at.join("node_modules/emulate/dist/index.js"));
        command.args(["--service", "github", "--seed", "seed.yaml", "--port", &port.to_string()]);
        let log = fs::File::create(folder.path().join("log"))?;
        let command = command.current_dir(folder.path()).stdin(Stdio::null()).stdout(log.try_clone()?);
        let child = command.stderr(log).spawn().context("emulate can not be started")?;
        let mut server = Self { child, folder, url: format!("http://127.0.0.1:{port}") };
        server.answers().await?;
        Ok(server)
    }

    async fn answers(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let up = self.call(Method::GET, "/user", Value::Null).await.is_ok();
            let ended = matches!(self.child.try_wait(), Ok(Some(_)));
            if up && !ended {
                return Ok(());
            }
            if ended || begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                bail!("emulate does not answer: {log}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes a repository of [`OWNER`] with a first commit on `main`.
    ///
    /// # Errors
    /// When it is not made.
    pub async fn make_repository(&self, name: &str, private: bool) -> Result<()> {
        let wanted = json!({ "name": name, "private": private, "auto_init": true });
        self.call(Method::POST, "/user/repos", wanted).await.map(drop)
    }

    /// What it answers to [`OWNER`]; null where it answers nothing. A body that is null is not sent.
    ///
    /// # Errors
    /// When there is no answer, or no success.
    pub async fn call(&self, method: Method, path: &str, body: Value) -> Result<Value> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let request = http.request(method, format!("{}{path}", self.url)).bearer_auth("owner");
        let request = if body.is_null() { request } else { request.json(&body) };
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "{path}: {status}: {text}");
        if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }
}

impl Drop for Emulate {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
