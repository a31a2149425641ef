//! What every sandbox does: it sets up a scene of servers, runs a command beside them, and stops all of it.

mod cache;
mod command;
mod control;
mod env_file;
mod service;

use std::{
    any::Any,
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};
use axum::{Router, serve::ListenerExt};
use futures_util::future::{BoxFuture, FutureExt as _, ready};
use serde_json::Value;
use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::serve;
pub(crate) use cache::Cache;
pub(crate) use service::{Service, Spec};

/// What every sandbox is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// Work in this directory, which must be missing or empty, and keep it [default: a temporary one]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print the JSON line also when there is a COMMAND, before it starts
    #[arg(long)]
    ready_json: bool,
    /// What to run beside the servers, with its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What the command is told; also the members of the JSON line.
pub(crate) type Environment = BTreeMap<&'static str, String>;

/// What a service can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Start, unless it runs.
    Start,
    /// End by itself.
    Stop,
    /// End by itself, and start anew.
    Restart,
    /// End without a warning.
    Kill,
}

/// A server that can be started and stopped, always at the same address.
pub(crate) trait Controlled: Send + Sync {
    /// Its name in the routes of the control server.
    fn name(&self) -> &'static str;

    /// Does what it is told.
    fn order(&self, verb: Verb) -> BoxFuture<'_, anyhow::Result<()>>;

    /// Whether it is `up`, and how many `restarts` there were; of a program also when it was `started`.
    fn describe(&self) -> BoxFuture<'_, Value>;

    /// The environment that it runs in, when it is a program with one.
    fn environment(&self) -> BoxFuture<'_, anyhow::Result<Vec<(String, String)>>> {
        let name = self.name();
        ready(Err(anyhow!("{name} has no environment of its own"))).boxed()
    }

    /// The environment that it is started with the next time.
    fn configured(&self) -> anyhow::Result<Vec<(String, String)>> {
        bail!("{} has no environment of its own", self.name())
    }

    /// What it has logged since it was started, or since the start that failed.
    fn log(&self) -> BoxFuture<'_, anyhow::Result<String>> {
        let name = self.name();
        ready(Err(anyhow!("{name} keeps no log"))).boxed()
    }

    /// Sets a variable of the environment that it is started with the next time, or takes it out.
    fn set(&self, variable: &str, _value: Option<&str>) -> anyhow::Result<()> {
        bail!("{} takes no variable {variable}", self.name())
    }
}

/// Where a scene is set up.
pub(crate) struct Stage {
    dir: PathBuf,
    control_url: String,
}

/// The servers of a sandbox, as they stand.
pub(crate) struct Scene {
    /// What the command is told of them.
    pub(crate) environment: Environment,
    /// What the control server starts and stops. At the end they are stopped in reverse order.
    pub(crate) services: Vec<Box<dyn Controlled>>,
    /// Further routes of the control server.
    pub(crate) routes: Router,
    /// What ends when it is dropped, such as a database server, after the services and in this order.
    pub(crate) held: Vec<Box<dyn Any + Send>>,
}

impl Stage {
    /// A file or folder of this sandbox.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The same as a text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// What every command is told.
    pub(crate) fn environment(&self) -> Environment {
        Environment::from([
            ("SANDBOX_DIR", self.dir.to_string_lossy().into_owned()),
            ("SANDBOX_CONTROL_URL", self.control_url.clone()),
        ])
    }
}

/// The directory of a sandbox, and what removes it at the end when it is a temporary one.
fn directory(dir: Option<&Path>) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    let Some(dir) = dir else {
        let temporary = tempfile::Builder::new().prefix("sandbox-").tempdir()?;
        return Ok((temporary.path().canonicalize()?, Some(temporary)));
    };
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    if std::fs::read_dir(dir)?.next().is_some() {
        bail!("{} is not empty", dir.display());
    }
    Ok((dir.canonicalize()?, None))
}

/// The signals that end a sandbox, or are passed on to the command.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// Sets up a scene, runs the command beside it, and stops it; the exit code is the command's.
///
/// # Errors
/// When it cannot be set up; what the command does is in the exit code.
pub(crate) async fn stand(
    common: &Common,
    scene: impl AsyncFnOnce(&Stage) -> anyhow::Result<Scene>,
) -> anyhow::Result<u8> {
    // From here on a signal is noticed, not fatal: what is started must be stopped again.
    let mut signals =
        Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? };
    let (dir, temporary) = directory(common.dir.as_deref())?;
    let control = serve::bind(0).await?;
    let stage = Stage { dir, control_url: format!("http://{}", control.local_addr()?) };
    let Scene { environment, services, routes, held } = scene(&stage).await?;

    let services = Arc::new(services);
    let router = control::router(Arc::clone(&services)).merge(routes);
    let control = control.tap_io(|stream| drop(stream.set_nodelay(true)));
    tokio::spawn(async move { axum::serve(control, router).await });

    if common.command.is_empty() || common.ready_json {
        println!("{}", serde_json::to_string(&environment)?);
    }
    let code = match common.command.split_first() {
        Some((program, arguments)) => command::run(program, arguments, &environment, &mut signals).await,
        None => {
            command::until_released(&mut signals).await;
            0
        }
    };
    for service in services.iter().rev() {
        if let Err(error) = service.order(Verb::Stop).await {
            eprintln!("sandbox: cannot stop the {}: {error:#}", service.name());
        }
    }
    drop(held);
    if let Some(temporary) = temporary {
        temporary.close().context("cannot remove the temporary directory")?;
    }
    Ok(code)
}
