//! A real Redis server, started on a free port with a folder of its own, and stopped with the test that started it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, FromRedisValue};

use crate::database::mortal;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. What it holds is written to its folder when it is stopped, and not when it is killed.
pub struct RedisServer {
    port: u16,
    folder: tempfile::TempDir,
    options: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts a server.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a server with these further options of its command line.
    pub async fn start_with(options: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("runbook-redis-").tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut server = Self { port, folder, options, child: None };
        server.run().await?;
        Ok(server)
    }

    /// Where it answers without encryption.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps its socket and its data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A connection to one of its databases.
    pub async fn connect(&self, database: u32) -> Result<MultiplexedConnection> {
        let mut url = format!("redis+unix://{}?db={database}", self.folder.path().join("socket").display());
        if let Some(at) = self.options.iter().position(|option| option == "--requirepass") {
            url.push_str(&format!("&pass={}", self.options.get(at + 1).map_or("", String::as_str)));
        }
        Ok(Client::open(url)?.get_multiplexed_async_connection().await?)
    }

    /// Runs one command in one of its databases.
    pub async fn run_in<T: FromRedisValue>(&self, database: u32, command: &Cmd) -> Result<T> {
        Ok(command.query_async(&mut self.connect(database).await?).await?)
    }

    /// Whether it runs.
    pub fn is_up(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ends it as its service would: what it holds is written to its folder, and read when it is started again.
    pub async fn stop(&mut self) -> Result<()> {
        if !self.is_up() {
            return Ok(());
        }
        let mut connection = self.connect(0).await?;
        // It ends without an answer.
        let _ = redis::cmd("SHUTDOWN").arg("SAVE").query_async::<()>(&mut connection).await;
        let begun = Instant::now();
        while self.is_up() {
            if begun.elapsed() > PATIENCE {
                bail!("the server does not end");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.child = None;
        Ok(())
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again after it was ended, with what it wrote to its folder.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.run().await
    }

    async fn run(&mut self) -> Result<()> {
        let mut command = mortal(Path::new("redis-server"));
        command.current_dir(self.folder.path()).args(["--bind", "127.0.0.1", "--unixsocket", "socket"]);
        command.args(["--save", "", "--appendonly", "no", "--port"]).arg(self.port.to_string());
        command.args(&self.options);
        let log = fs::File::create(self.folder.path().join("log"))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        self.child = Some(child.context("redis-server can not be started: install it, as tests/run does")?);
        let begun = Instant::now();
        loop {
            let Err(error) = self.run_in::<String>(0, &redis::cmd("PING")).await else { return Ok(()) };
            let ended = self.child.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_))));
            if ended || begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                bail!("the server does not answer: {error:#}\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
