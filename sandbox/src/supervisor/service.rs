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
use futures_util::future::{BoxFuture, FutureExt as _};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    sync::Mutex,
    time::timeout,
};

use super::{Controlled, Verb, env_file};
use crate::{crypto, time};

/// How long a child may take to end by itself before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long a child may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Ports are taken from below the range that the system uses for outgoing connections: in there, another
/// process could take the port while the server is being restarted.
const PORTS: std::ops::Range<u16> = 18_000..32_000;

/// How to run a server.
pub(crate) struct Spec {
    /// What it is called among the servers of a sandbox.
    pub(crate) name: &'static str,
    /// The subcommand that serves it.
    pub(crate) command: &'static str,
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

#[derive(Default)]
struct Running {
    child: Option<Child>,
    restarts: u64,
    /// What it was started with.
    variables: Vec<(String, String)>,
    /// When it was started, RFC 3339.
    started: String,
    /// Where what it wrote to its standard error since then begins, in bytes.
    log_from: u64,
}

impl Running {
    /// The process, while it runs.
    fn pid(&mut self) -> Option<u32> {
        let alive = |child: &mut Child| matches!(child.try_wait(), Ok(None)).then(|| child.id()).flatten();
        self.child.as_mut().and_then(alive)
    }
}

impl Service {
    /// Starts the server on a free port and waits until it answers.
    pub(crate) async fn start(spec: Spec) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(1)).build()?;
        let port = free_port()?;
        let service = Self { spec, port, http, state: Mutex::default() };
        let mut running = service.state.lock().await;
        service.launch(&mut running).await?;
        drop(running);
        Ok(service)
    }

    /// Where it answers.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn launch(&self, running: &mut Running) -> anyhow::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(self.spec.command).args(["--port", &self.port.to_string()]).args(&self.spec.args);
        // Only what is meant for the server: a variable removed from the file must be gone after a restart.
        let variables = self.configured()?;
        command.env_clear().envs(variables.iter().map(|(name, value)| (name, value)));
        running.variables = variables;
        // A group of its own, so that Ctrl-C in a terminal reaches the command but not the servers. The pipe
        // ends when this process does, even by SIGKILL, and the server with it.
        command.process_group(0).stdin(Stdio::piped()).kill_on_drop(true);
        let stderr = append(&self.spec.stderr)?;
        running.log_from = stderr.metadata()?.len();
        running.started = time::now();
        command.stdout(append(&self.spec.stdout)?).stderr(stderr);
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

impl Controlled for Service {
    fn name(&self) -> &'static str {
        self.spec.name
    }

    fn order(&self, verb: Verb) -> BoxFuture<'_, anyhow::Result<()>> {
        async move {
            let mut running = self.state.lock().await;
            match verb {
                Verb::Start if running.pid().is_some() => Ok(()),
                Verb::Start => self.launch(&mut running).await,
                Verb::Stop => terminate(&mut running).await,
                Verb::Restart => {
                    terminate(&mut running).await?;
                    running.restarts += 1;
                    self.launch(&mut running).await
                }
                Verb::Kill => {
                    if let Some(mut child) = running.child.take() {
                        child.kill().await?;
                    }
                    Ok(())
                }
            }
        }
        .boxed()
    }

    fn describe(&self) -> BoxFuture<'_, Value> {
        async move {
            let mut running = self.state.lock().await;
            let pid = running.pid();
            json!({ "pid": pid, "up": pid.is_some(), "restarts": running.restarts, "started": running.started })
        }
        .boxed()
    }

    fn environment(&self) -> BoxFuture<'_, anyhow::Result<Vec<(String, String)>>> {
        async move {
            let mut running = self.state.lock().await;
            if running.pid().is_none() {
                bail!("the {} is not running", self.spec.name);
            }
            Ok(running.variables.clone())
        }
        .boxed()
    }

    fn configured(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut variables = match &self.spec.env_file {
            Some(file) => env_file::parse(&read(file)?),
            None => Vec::new(),
        };
        variables.extend(self.spec.env.iter().cloned());
        Ok(variables)
    }

    fn log(&self) -> BoxFuture<'_, anyhow::Result<String>> {
        async move {
            let from = self.state.lock().await.log_from;
            let whole = std::fs::read(&self.spec.stderr)
                .with_context(|| format!("cannot read {}", self.spec.stderr.display()))?;
            let since = whole.get(usize::try_from(from)?..).unwrap_or_default();
            Ok(String::from_utf8_lossy(since).into_owned())
        }
        .boxed()
    }

    fn set(&self, variable: &str, value: Option<&str>) -> anyhow::Result<()> {
        let Some(file) = &self.spec.env_file else { bail!("the {} has no environment file", self.spec.name) };
        let text = env_file::set(&read(file)?, variable, value);
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
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
