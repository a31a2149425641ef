//! The clients of a running sandbox's control server: what `docker compose` is for the real systems.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Client, Method, Response};
use serde_json::Value;

/// Which sandbox.
#[derive(Debug, clap::Args)]
struct Control {
    /// Address of the sandbox's control server
    #[arg(long, value_name = "URL", env = "SANDBOX_CONTROL_URL")]
    control: String,
}

/// Which sandbox, and which of its services.
#[derive(Debug, clap::Args)]
pub struct Names {
    #[command(flatten)]
    control: Control,
    /// The services, such as `gateway`
    #[arg(required = true)]
    services: Vec<String>,
}

/// Print whether a service of a running sandbox is `running` or `stopped`.
///
/// As `docker compose ps` would tell of the real one.
#[derive(Debug, clap::Args)]
pub struct Status {
    #[command(flatten)]
    control: Control,
    /// Print when it was started, RFC 3339, and nothing when it does not run
    #[arg(long)]
    since: bool,
    /// The service, such as `hub-api`
    service: String,
}

/// Print what a service of a running sandbox has logged since it was started.
///
/// Also when it ended at its start. As `kubectl logs` does.
#[derive(Debug, clap::Args)]
pub struct Log {
    #[command(flatten)]
    control: Control,
    /// The service, such as `chat-api`
    service: String,
}

/// Run a program in the environment of a service of a running sandbox.
///
/// As `docker compose exec` does: the service has to run, and the environment is the one that it was started with.
#[derive(Debug, clap::Args)]
pub struct Inside {
    #[command(flatten)]
    control: Control,
    /// Take the environment that it is started with the next time, as `docker compose run` does
    #[arg(long)]
    next: bool,
    /// The service, such as `hub-api`
    service: String,
    /// The program, with its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<OsString>,
}

/// Set a variable in the environment file of a service of a running sandbox.
///
/// The service reads it when it is started the next time.
#[derive(Debug, clap::Args)]
pub struct Set {
    #[command(flatten)]
    control: Control,
    /// The service, such as `hub-api`
    service: String,
    /// The name of the variable
    variable: String,
    /// The value; without one the variable is taken out
    value: Option<String>,
    /// A file with the value, whose last line break is dropped
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    from: Option<PathBuf>,
}

impl Control {
    async fn send(&self, method: Method, path: &str, body: Option<String>) -> anyhow::Result<Response> {
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        let url = format!("{}/{path}", self.control.trim_end_matches('/'));
        let request = http.request(method, url).body(body.unwrap_or_default());
        let response = request.send().await.with_context(|| format!("no sandbox at {}", self.control))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let refusal: Value = response.json().await.unwrap_or_default();
        bail!("{}", refusal["error"].as_str().unwrap_or("the sandbox refuses it"));
    }
}

/// Tells services what to do, one after the other: `start`, `stop`, `restart` or `kill`.
///
/// # Errors
/// When the sandbox does not answer, or a service does not do it.
pub async fn order(verb: &str, names: Names) -> anyhow::Result<u8> {
    for service in &names.services {
        names.control.send(Method::POST, &format!("{verb}/{service}"), None).await?;
    }
    Ok(0)
}

/// Prints how a service stands.
///
/// # Errors
/// When the sandbox does not answer, or has no such service.
pub async fn status(args: Status) -> anyhow::Result<u8> {
    let state: Value = args.control.send(Method::GET, "state", None).await?.json().await?;
    let service =
        state.get(&args.service).with_context(|| format!("the sandbox has no service {}", args.service))?;
    let up = service["up"] == true;
    if args.since {
        let started = service["started"].as_str().context("it is not known when it was started")?;
        if up {
            println!("{started}");
        }
    } else {
        println!("{}", if up { "running" } else { "stopped" });
    }
    Ok(0)
}

/// Prints what a service has logged since it was started.
///
/// # Errors
/// When the sandbox does not answer, or the service keeps no log.
pub async fn log(args: Log) -> anyhow::Result<u8> {
    let log: String =
        args.control.send(Method::GET, &format!("log/{}", args.service), None).await?.json().await?;
    print!("{log}");
    Ok(0)
}

/// Becomes the program.
///
/// # Errors
/// When the service does not run, or there is no such program.
pub async fn inside(args: Inside) -> anyhow::Result<u8> {
    let path = format!("{}/{}", if args.next { "configured" } else { "environment" }, args.service);
    let variables: BTreeMap<String, String> =
        args.control.send(Method::GET, &path, None).await?.json().await?;
    let (program, arguments) = args.program.split_first().context("no program")?;
    let mut command = std::process::Command::new(program);
    command.args(arguments).env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH".to_owned(), path)));
    let error = command.envs(variables).exec();
    Err(error).with_context(|| format!("cannot run {}", program.to_string_lossy()))
}

/// Sets a variable, or takes it out.
///
/// # Errors
/// When the sandbox does not answer, or the service has no environment file.
pub async fn set(args: Set) -> anyhow::Result<u8> {
    let path = format!("environment/{}/{}", args.service, args.variable);
    let value = match &args.from {
        Some(file) => {
            let text = std::fs::read_to_string(file);
            let text = text.with_context(|| format!("cannot read {}", file.display()))?;
            Some(text.strip_suffix('\n').unwrap_or(&text).to_owned())
        }
        None => args.value,
    };
    let method = if value.is_some() { Method::PUT } else { Method::DELETE };
    args.control.send(method, &path, value).await?;
    Ok(0)
}
