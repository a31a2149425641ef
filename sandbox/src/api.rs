//! One server of the sandbox as a process of its own, as a test holds it.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

/// A server that listens on a free port of the loopback. Dropped, it is killed.
pub struct Api {
    child: Child,
    /// Where it answers, without a slash at the end.
    pub url: String,
    /// What it said before it listened.
    pub said: String,
    /// Nobody reads what it says later; it stays open, or saying it would fail.
    _rest: Lines<BufReader<ChildStderr>>,
}

impl Api {
    /// Starts the server of this name (`chat-api`, `hub-api`, `image-api`) with nothing in its environment but this.
    ///
    /// # Errors
    /// When it can not be started or ends before it listens: with what it said.
    pub async fn start(binary: &Path, name: &str, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.args([name, "--port", "0"]).env_clear().envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let stderr = child.stderr.take().context("it has no stderr")?;
        let (mut lines, mut said) = (BufReader::new(stderr).lines(), String::new());
        while let Some(line) = lines.next_line().await? {
            said.push_str(&line);
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if line["evt"] == "listening" {
                let url = format!("http://127.0.0.1:{}", line["port"]);
                return Ok(Self { child, url, said, _rest: lines });
            }
        }
        bail!("{name} does not listen: {said}")
    }

    /// Kills it.
    ///
    /// # Errors
    /// When the system does not let it be killed.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}
