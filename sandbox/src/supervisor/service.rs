//! A server as a child process that can be restarted and killed, always on the same port.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    sync::Mutex,
    time::timeout,
};

use super::env_file;
use crate::crypto;

/// How long a child may take to end by itself before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long a child may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Ports are taken from below the range that the system uses for outgoing connections: in there, another
/// process could take the port while the server is being restarted.
const PORTS: std::ops::Range<u16> = 18_000..32_000;

/// How to run a server.
pub(crate) struct Spec {
    /// The subcommand, which is also the name.
    pub(crate) name: &'static str,
    pub(crate) args: Vec<OsString>,
    /// Its whole environment, before the environment file.
    pub(crate) env: Vec<(String, String)>,
    /// Read anew at every start.
    pub(crate) env_file: Option<PathBuf>,
    /// Appended to, as is `stderr`.
    pub(crate) stdout: PathBuf,
    pub(crate) stderr: PathBuf,
}

/// A server and the process that runs it.
pub(crate) struct Service {
    spec: Spec,
    port: u16,
    http: reqwest::Client,
    state: Mutex<Running>,
}

struct Running {
    child: Option<Child>,
    restarts: u64,
}

impl Service {
    /// Starts the server on a free port and waits until it answers.
    pub(crate) async fn start(spec: Spec) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(1)).build()?;
        let port = free_port()?;
        let service = Self { spec, port, http, state: Mutex::new(Running { child: None, restarts: 0 }) };
        let mut running = service.state.lock().await;
        service.launch(&mut running).await?;
        drop(running);
        Ok(service)
    }

    pub(super) fn name(&self) -> &'static str {
        self.spec.name
    }

    /// Where it answers.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends the process and starts it again, on the same port, with the environment file read anew.
    pub(super) async fn restart(&self) -> anyhow::Result<()> {
        let mut running = self.state.lock().await;
        terminate(&mut running).await?;
        running.restarts += 1;
        self.launch(&mut running).await
    }

    /// Kills the process without a warning.
    pub(super) async fn kill(&self) -> anyhow::Result<()> {
        let mut running = self.state.lock().await;
        if let Some(mut child) = running.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Ends the process.
    pub(super) async fn stop(&self) {
        let mut running = self.state.lock().await;
        if let Err(error) = terminate(&mut running).await {
            eprintln!("sandbox: cannot stop the {}: {error:#}", self.spec.name);
        }
    }

    /// Process id, whether it runs, and how often it was restarted.
    pub(super) async fn describe(&self) -> Value {
        let mut running = self.state.lock().await;
        let restarts = running.restarts;
        let alive = |child: &mut Child| matches!(child.try_wait(), Ok(None)).then(|| child.id()).flatten();
        let pid = running.child.as_mut().and_then(alive);
        json!({ "pid": pid, "up": pid.is_some(), "restarts": restarts })
    }

    async fn launch(&self, running: &mut Running) -> anyhow::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(self.spec.name).args(["--port", &self.port.to_string()]).args(&self.spec.args);
        // Only what is meant for the server: a variable removed from the file must be gone after a restart.
        command.env_clear();
        if let Some(file) = &self.spec.env_file {
            let text =
                std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            command.envs(env_file::parse(&text));
        }
        command.envs(self.spec.env.iter().map(|(name, value)| (name, value)));
        // A group of its own, so that Ctrl-C in a terminal reaches the command but not the servers. The pipe
        // ends when this process does, even by SIGKILL, and the server with it.
        command.process_group(0).stdin(Stdio::piped()).kill_on_drop(true);
        command.stdout(append(&self.spec.stdout)?).stderr(append(&self.spec.stderr)?);
        let child = command.spawn().with_context(|| format!("cannot start the {}", self.spec.name))?;
        let child = running.child.insert(child);
        self.wait_until_healthy(child).await
    }

    async fn wait_until_healthy(&self, child: &mut Child) -> anyhow::Result<()> {
        let health = format!("{}/health", self.url());
        let started = Instant::now();
        while started.elapsed() < START_LIMIT {
            if let Some(status) = child.try_wait()? {
                let stderr = std::fs::read_to_string(&self.spec.stderr).unwrap_or_default();
                let last = stderr.lines().last().unwrap_or_default();
                bail!("the {} ended at its start with {status}: {last}", self.spec.name);
            }
            if self.http.get(&health).send().await.is_ok_and(|response| response.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("the {} does not answer {health}", self.spec.name)
    }
}

async fn terminate(running: &mut Running) -> anyhow::Result<()> {
    let Some(mut child) = running.child.take() else { return Ok(()) };
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        kill_process(pid, Signal::TERM)?;
        // `wait` would close the standard input first, and the server take that for its owner's end.
        let input = child.stdin.take();
        let ended = timeout(STOP_GRACE, child.wait()).await;
        drop(input);
        if ended.is_err() {
            child.kill().await?;
        }
    }
    Ok(())
}

fn append(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn free_port() -> anyhow::Result<u16> {
    for _ in 0..1000 {
        let port = PORTS.start + u16::from_le_bytes(crypto::random()) % (PORTS.end - PORTS.start);
        if std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {} to {}", PORTS.start, PORTS.end)
}
