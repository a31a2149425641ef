//! `wait-for`: waits until something is so.

use std::path::PathBuf;
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use jiff::Timestamp;
use runbook_engine::duration::Duration;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::connections::http::http_of;
use crate::http::{Answer, Expect, Method};
use crate::kind::{Context, End, Step, would};

/// How long one connection attempt may take.
const CONNECT: StdDuration = StdDuration::from_secs(5);

/// Waits until something is so. Exactly one of `http`, `tcp`, `file`, `duration` and `until` says what.
///
/// A `duration` counts from the first attempt: after a crash its rest is waited, not all of it again.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    {"required": ["http"]},
    {"required": ["tcp"]},
    {"required": ["file"]},
    {"required": ["duration"]},
    {"required": ["until"]},
]))]
pub struct WaitFor {
    /// Until a request is answered as expected.
    #[serde(default)]
    http: Option<HttpTarget>,
    /// Until a port takes connections.
    #[serde(default)]
    tcp: Option<TcpTarget>,
    /// Until a file or folder is there.
    #[serde(default)]
    file: Option<FileTarget>,
    /// So long, such as `10s`.
    #[serde(default)]
    duration: Option<Duration>,
    /// Until this time, RFC 3339, such as `2030-01-31T02:00:00Z`.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    until: Option<Timestamp>,
    /// The pause between two attempts. Default: 2s.
    #[serde(default = "interval")]
    interval: Duration,
    /// How long to wait at most before the step fails; it does not bound `duration` and `until`. Default: 5m.
    #[serde(default = "timeout")]
    timeout: Duration,
}

/// A request to be answered as expected.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpTarget {
    /// The connection, of a type that speaks HTTP.
    connection: String,
    /// The method: `GET` or `HEAD`. Default: `GET`.
    #[serde(default)]
    method: Method,
    /// The path below the connection's URL.
    path: String,
    /// What the answer must be. Default: any status from 200 to 299.
    #[serde(default)]
    expect: Expect,
}

/// A port that takes connections.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpTarget {
    /// The host name or address.
    host: String,
    /// The port.
    port: u16,
}

/// A file or folder that is there.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileTarget {
    /// Its path.
    path: PathBuf,
}

fn interval() -> Duration {
    Duration::from_secs(2)
}

fn timeout() -> Duration {
    Duration::from_secs(300)
}

/// What waiting came to.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct WaitForOutputs {
    /// How long it was waited since the first attempt, in milliseconds.
    pub waited_ms: u64,
    /// How many times it was looked, in the last attempt of the step.
    pub attempts: u64,
    /// What was found last.
    pub last: String,
}

#[async_trait]
impl Step for WaitFor {
    const NAME: &'static str = "wait-for";
    const FLEETING_OUTPUTS: &'static [&'static str] = &["/waited_ms"];
    const SUMMARY: &'static str =
        "Waits until a request is answered, a port is open, a file is there, or a time has come";
    const EXAMPLE: &'static str = "\
- id: gateway_up
  uses: wait-for
  with:
    http: { connection: gateway, path: /health }
    interval: 1s
    timeout: 2m
";
    type Outputs = WaitForOutputs;

    fn effect(_: &Value) -> Effect {
        Effect::READ
    }

    async fn foresee(self, _: Effect, _: &Context) -> Result<Foresight, StepError> {
        let looked = [
            self.http.as_ref().map(|http| format!("{} of `{}`", http.path, http.connection)),
            self.tcp.as_ref().map(|tcp| format!("{}:{}", tcp.host, tcp.port)),
            self.file.as_ref().map(|file| file.path.display().to_string()),
        ];
        Ok(would(match (self.until, self.duration, looked.into_iter().flatten().next()) {
            (Some(until), ..) => format!("wait until {until}"),
            (None, Some(duration), _) => format!("wait for {duration}"),
            (None, None, what) => {
                format!("wait at most {} for {}", self.timeout, what.unwrap_or_default())
            }
        }))
    }

    async fn run(self, cx: &Context) -> Result<End<WaitForOutputs>, StepError> {
        if self.http.as_ref().is_some_and(|http| !matches!(http.method, Method::Get | Method::Head)) {
            return Err(StepError::invalid("waiting only looks: the method must be GET or HEAD"));
        }
        let now = Timestamp::now();
        let since = cx.ledger.remember("since", json!(now)).await?;
        let since: Timestamp = serde_json::from_value(since).unwrap_or(now);
        match self.until.or(self.duration.map(|duration| duration.after(since))) {
            Some(until) => sleep_until(until, since, cx).await,
            None => self.poll(since, cx).await,
        }
        .map(End::Done)
    }
}

fn outputs(since: Timestamp, attempts: u64, last: String) -> WaitForOutputs {
    let waited_ms = u64::try_from(Timestamp::now().duration_since(since).as_millis()).unwrap_or(0);
    WaitForOutputs { waited_ms, attempts, last }
}

async fn pause(cx: &Context, time: StdDuration) -> Result<(), StepError> {
    tokio::select! {
        () = tokio::time::sleep(time) => Ok(()),
        () = cx.stop.cancelled() => Err(StepError::interrupted()),
    }
}

/// In pieces, because the wall clock may be set meanwhile.
async fn sleep_until(until: Timestamp, since: Timestamp, cx: &Context) -> Result<WaitForOutputs, StepError> {
    cx.checkpoint()?;
    loop {
        let left = until.duration_since(Timestamp::now());
        let Ok(left) = StdDuration::try_from(left) else { break };
        if left.is_zero() {
            break;
        }
        pause(cx, left.min(StdDuration::from_secs(30))).await?;
    }
    Ok(outputs(since, 1, format!("it is {until}")))
}

/// One look: it is so, or not yet, and why.
type Look = Result<String, String>;

impl WaitFor {
    async fn poll(&self, since: Timestamp, cx: &Context) -> Result<WaitForOutputs, StepError> {
        // A new attempt of the step gets the whole time: it was asked for, by a retry or a resume.
        let deadline = Instant::now() + self.timeout.0;
        let mut attempts = 0;
        let mut said = String::new();
        loop {
            cx.checkpoint()?;
            attempts += 1;
            let look = tokio::select! {
                look = self.look(cx) => look?,
                () = cx.stop.cancelled() => return Err(StepError::interrupted()),
            };
            match look {
                Ok(last) => return Ok(outputs(since, attempts, last)),
                Err(last) if Instant::now() + self.interval.0 >= deadline => {
                    let message = format!("{} within {}: {last}", self.failed(), self.timeout);
                    return Err(StepError::new(ErrorKind::Timeout, message));
                }
                Err(last) => {
                    if last != said {
                        cx.live.say(&last);
                        said = last;
                    }
                }
            }
            pause(cx, self.interval.0).await?;
        }
    }

    fn failed(&self) -> String {
        match (&self.http, &self.tcp, &self.file) {
            (Some(http), _, _) => {
                format!("{} {} was not answered as expected", http.method.name(), http.path)
            }
            (_, Some(tcp), _) => format!("{}:{} took no connection", tcp.host, tcp.port),
            (_, _, Some(file)) => format!("{} did not appear", file.path.display()),
            _ => "nothing came".to_owned(),
        }
    }

    async fn look(&self, cx: &Context) -> Result<Look, StepError> {
        if let Some(http) = &self.http {
            return look_http(http, cx).await;
        }
        if let Some(TcpTarget { host, port }) = &self.tcp {
            return Ok(
                match tokio::time::timeout(CONNECT, TcpStream::connect((host.as_str(), *port))).await {
                    Ok(Ok(_)) => Ok(format!("{host}:{port} takes connections")),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("no answer in time".to_owned()),
                },
            );
        }
        let Some(FileTarget { path }) = &self.file else {
            return Err(StepError::new(ErrorKind::Bug, "there is nothing to wait for"));
        };
        Ok(match tokio::fs::metadata(path).await {
            Ok(_) => Ok(format!("{} is there", path.display())),
            Err(error) => Err(error.to_string()),
        })
    }
}

async fn look_http(target: &HttpTarget, cx: &Context) -> Result<Look, StepError> {
    let what = format!("{} {}", target.method.name(), target.path);
    let request = http_of(&cx.resources, &target.connection)?.request(target.method.into(), &target.path)?;
    match Answer::of(&what, request).await {
        Ok(answer) => Ok(match answer.problem(&target.expect) {
            None => Ok(format!("status {}", answer.status)),
            Some(problem) => Err(cx.redactor.text(&problem)),
        }),
        Err(error) if error.kind == ErrorKind::Transient => Ok(Err(error.message)),
        Err(error) => Err(error),
    }
}
