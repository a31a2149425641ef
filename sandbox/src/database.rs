//! Real database servers, each started on a free port with a folder of its own, and stopped with the test that started it. PostgreSQL does
//! not run as root: started by root, it runs as the user `postgres`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// The server of Debian's package, whose folder is not in everybody's path.
const MARIADBD: &str = "/usr/sbin/mariadbd";

/// How long a server has to end by itself.
const GRACE: Duration = Duration::from_secs(10);

/// Which server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// PostgreSQL.
    Postgres,
    /// MariaDB.
    MariaDb,
}

/// A running server with an empty database `app`.
pub struct DatabaseServer {
    kind: Kind,
    port: u16,
    folder: tempfile::TempDir,
    options: Vec<String>,
    child: Option<Child>,
}

impl DatabaseServer {
    /// Starts a server.
    pub async fn start(kind: Kind) -> Result<Self> {
        Self::start_with(kind, &[]).await
    }

    /// Starts a server with these further options of its command line.
    pub async fn start_with(kind: Kind, options: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("runbook-database-").tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut server = Self { kind, port, folder, options, child: None };
        server.initialize()?;
        server.run().await?;
        let create = "create database app";
        match kind {
            Kind::Postgres => server.execute_in("postgres", create).await?,
            Kind::MariaDb => server.execute_in("mysql", create).await?,
        }
        Ok(server)
    }

    /// Where its database `app` is.
    pub fn url(&self) -> String {
        self.url_of("app")
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn url_of(&self, database: &str) -> String {
        match self.kind {
            Kind::Postgres => {
                format!("postgres://runbook@127.0.0.1:{}/{database}?sslmode=disable", self.port)
            }
            Kind::MariaDb => format!("mysql://root@127.0.0.1:{}/{database}?ssl-mode=disabled", self.port),
        }
    }

    /// Runs statements in its database, as they stand.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        self.execute_in("app", sql).await
    }

    /// Runs statements in another of its databases.
    ///
    /// # Errors
    /// When the server refuses one.
    pub async fn execute_in(&self, database: &str, sql: &str) -> Result<()> {
        let (url, sql) = (self.url_of(database), sqlx::raw_sql(AssertSqlSafe(sql.to_owned())));
        match self.kind {
            Kind::Postgres => {
                let options: sqlx::postgres::PgConnectOptions = url.parse()?;
                options.connect().await?.execute(sql).await?;
            }
            Kind::MariaDb => {
                let options: sqlx::mysql::MySqlConnectOptions = url.parse()?;
                options.connect().await?.execute(sql).await?;
            }
        }
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

    /// Starts it again after [`DatabaseServer::kill`].
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        // What a server that was killed left would keep another one from the folder.
        let _ = fs::remove_file(self.data().join("postmaster.pid"));
        self.run().await
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn initialize(&self) -> Result<()> {
        let data = self.data();
        let mut command = match self.kind {
            Kind::Postgres => {
                if is_root() {
                    let owned = Command::new("chown").arg("postgres").arg(self.folder.path()).status()?;
                    if !owned.success() {
                        bail!("there is no user `postgres`: install PostgreSQL, as tests/run does");
                    }
                }
                let mut command = self.unprivileged(&postgres_program("initdb")?);
                command.args(["-N", "-A", "trust", "-U", "runbook", "-E", "UTF8", "--locale=C.UTF-8", "-D"]);
                command.arg(&data);
                command
            }
            Kind::MariaDb => {
                let mut command = Command::new("mariadb-install-db");
                // A server that starts removes the temporary tables of every other one from the folder that they share.
                command.env("TMPDIR", self.folder.path());
                command.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]);
                command.arg(format!("--datadir={}", data.display()));
                if is_root() {
                    command.arg("--user=root");
                }
                command
            }
        };
        let output = command.stdin(Stdio::null()).output().with_context(|| missing(self.kind))?;
        if !output.status.success() {
            bail!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    async fn run(&mut self) -> Result<()> {
        let data = self.data();
        let mut command = match self.kind {
            Kind::Postgres => {
                let mut command = self.unprivileged(&postgres_program("postgres")?);
                command.arg("-D").arg(&data).args(["-F", "-c", "listen_addresses=127.0.0.1", "-p"]);
                command.arg(self.port.to_string()).arg("-k").arg(self.folder.path());
                command
            }
            Kind::MariaDb => {
                let mut command = mortal(Path::new(MARIADBD));
                command.env("TMPDIR", self.folder.path());
                let socket = self.folder.path().join("socket");
                command.args([
                    "--no-defaults",
                    "--bind-address=127.0.0.1",
                    "--innodb-flush-log-at-trx-commit=0",
                ]);
                command.args(["--innodb-buffer-pool-size=32M", "--skip-log-bin", "--skip-name-resolve"]);
                command.arg(format!("--datadir={}", data.display()));
                command.arg(format!("--socket={}", socket.display())).arg(format!("--port={}", self.port));
                if is_root() {
                    command.arg("--user=root");
                }
                command
            }
        };
        command.args(&self.options);
        let log = fs::File::create(self.folder.path().join("log"))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        self.child = Some(child.with_context(|| missing(self.kind))?);
        self.answers().await
    }

    async fn answers(&mut self) -> Result<()> {
        let database = if self.kind == Kind::Postgres { "postgres" } else { "mysql" };
        let begun = Instant::now();
        loop {
            let Err(error) = self.execute_in(database, "select 1").await else { return Ok(()) };
            let ended = self.child.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_))));
            if ended || begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(error.context(format!("the server does not answer: {log}")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A program that does not run as root.
    fn unprivileged(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        if is_root() {
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        }
        command.arg("--pdeathsig=INT").arg(program).current_dir(self.folder.path());
        // A group of its own, so that Ctrl-C in a terminal does not reach it.
        command.process_group(0);
        command
    }
}

/// A program that ends with this one, however this one ends, and that Ctrl-C in a terminal does not reach.
pub(crate) fn mortal(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=KILL").arg(program).process_group(0);
    command
}

impl Drop for DatabaseServer {
    fn drop(&mut self) {
        // PostgreSQL removes its shared memory when it is told to end at once, and not when it is killed.
        if let (Kind::Postgres, Some(child)) = (self.kind, &mut self.child) {
            let begun = Instant::now();
            let told = kill_process(Pid::from_child(child), Signal::QUIT);
            while told.is_ok() && matches!(child.try_wait(), Ok(None)) && begun.elapsed() < GRACE {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.kill();
    }
}

fn missing(kind: Kind) -> String {
    format!("{kind:?} can not be started: install it, as tests/run does")
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// A program of the newest PostgreSQL that Debian's packages installed.
fn postgres_program(name: &str) -> Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir("/usr/lib/postgresql").with_context(|| missing(Kind::Postgres))? {
        let entry = entry?;
        let version = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        found.push((version, entry.path().join("bin").join(name)));
    }
    found.sort();
    let found = found.into_iter().rev().map(|(_, path)| path).find(|path| path.exists());
    found.ok_or_else(|| anyhow!(missing(Kind::Postgres)))
}
