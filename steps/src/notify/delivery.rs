//! The attempts of one notification, each a batch of the ledger.

use std::time::Duration as StdDuration;

use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode, redirect};
use runbook_engine::artifact::Artifact;
use runbook_engine::crash;
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use runbook_engine::plan::Backoff;
use runbook_engine::step::{Intent, Progress, Settlement};
use runbook_engine::store::BatchRow;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use super::{Attempt, Notify};
use crate::backoff::{exponential, pause};
use crate::connections::http::{asked_to_wait, http_of, transport_error};
use crate::digest::hmac_sha256;
use crate::http::{header_name, headers as given_headers};
use crate::kind::Context;
use crate::records::write_text;

/// How the attempts ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The receiver took it.
    Delivered,
    /// The last attempt that there is failed, or an answer was final.
    Undelivered,
}

/// What the ledger keeps of an attempt before it is made.
#[derive(Serialize, Deserialize)]
struct Announced {
    /// How often the step had been reopened: an explicit resume starts over with the attempts.
    series: u32,
    at: Timestamp,
    waited_ms: u64,
}

/// What the ledger keeps of it afterwards.
#[derive(Serialize, Deserialize)]
struct Recorded {
    attempt: Attempt,
    delivered: bool,
    /// No further attempt makes sense.
    last: bool,
    /// How long the receiver asked to be left alone.
    retry_after_ms: Option<u64>,
}

enum Target {
    Url(reqwest::Client, Url),
    Connection(String, String),
}

/// One notification on its way.
pub(super) struct Delivery<'a> {
    notify: &'a Notify,
    cx: &'a Context,
    body: Vec<u8>,
    target: Target,
    series: u32,
    made: Vec<Recorded>,
    attempts: Vec<Attempt>,
}

const TIMEOUT: Duration = Duration::from_secs(10);

impl<'a> Delivery<'a> {
    /// The notification as earlier attempts left it.
    pub(super) async fn enter(notify: &'a Notify, cx: &'a Context, body: Vec<u8>) -> Result<Self, StepError> {
        let series = cx.history.state().await?.step(&cx.step).map_or(0, |state| state.reopened);
        let target = target(notify)?;
        // Before anything is announced: no attempt can mend them.
        given_headers(&notify.headers)?;
        header_name(&notify.signature_header)?;
        let mut delivery = Self { notify, cx, body, target, series, made: Vec::new(), attempts: Vec::new() };
        let mut after = 0;
        loop {
            let rows = cx.ledger.batches(after, 100).await?;
            let Some(last) = rows.last() else { return Ok(delivery) };
            after = last.batch;
            for row in rows {
                delivery.remember(row).await?;
            }
        }
    }

    async fn remember(&mut self, row: BatchRow) -> Result<(), StepError> {
        let Ok(announced) = serde_json::from_value::<Announced>(row.intent) else { return Ok(()) };
        let recorded = match row.settled {
            Some(settled) => serde_json::from_value(settled.outcome).ok(),
            None => None,
        };
        let recorded = match recorded {
            Some(recorded) => recorded,
            // Nobody knows whether it arrived. The delivery id lets the receiver drop the next one if it did.
            None => {
                let attempt = Attempt {
                    at: announced.at,
                    status: None,
                    error: Some("the process ended before the answer came".to_owned()),
                    waited_ms: announced.waited_ms,
                };
                let recorded = Recorded { attempt, delivered: false, last: false, retry_after_ms: None };
                self.settle(row.batch, &recorded).await?;
                recorded
            }
        };
        if announced.series == self.series {
            self.attempts.push(recorded.attempt.clone());
            self.made.push(recorded);
        }
        Ok(())
    }

    /// Tries until it is delivered or there are no attempts left.
    pub(super) async fn go_on(&mut self) -> Result<Ended, StepError> {
        loop {
            match self.made.last() {
                Some(last) if last.delivered => return Ok(Ended::Delivered),
                Some(last) if last.last || self.made.len() >= self.notify.max_attempts as usize => {
                    return Ok(Ended::Undelivered);
                }
                _ => {}
            }
            let wait = self.wait();
            pause(self.cx, wait).await?;
            self.attempt(wait).await?;
        }
    }

    /// How long to wait before the next attempt.
    fn wait(&self) -> StdDuration {
        let Some(last) = self.made.last() else { return StdDuration::ZERO };
        let most = self.notify.max_delay.0;
        let made = u32::try_from(self.made.len()).unwrap_or(u32::MAX);
        let wait = match self.notify.backoff {
            Backoff::Exponential => exponential(self.notify.delay.0, made, most),
            Backoff::Constant => self.notify.delay.0.min(most),
        };
        let asked = StdDuration::from_millis(last.retry_after_ms.unwrap_or(0)).min(most);
        wait.max(asked)
    }

    async fn attempt(&mut self, wait: StdDuration) -> Result<(), StepError> {
        let (at, waited_ms) = (Timestamp::now(), Duration(wait).as_millis());
        let announced = Announced { series: self.series, at, waited_ms };
        let intent = Intent { what: json!(announced), items: 1, charged_items: 0, charged_bytes: 0 };
        let batch = self.cx.ledger.intend(intent).await?;
        let mut attempt = Attempt { at, status: None, error: None, waited_ms };
        let (mut delivered, mut retry_after_ms) = (false, None);
        let last;
        match self.send(at).await {
            Ok(response) => {
                let status = response.status();
                attempt.status = Some(status.as_u16());
                delivered = status.is_success();
                last = !delivered && !worth_retrying(status);
                retry_after_ms = asked_to_wait(&response);
            }
            Err(error) => {
                last = !error.kind.retryable();
                let cause = error.causes.last().map(|cause| format!(": {cause}")).unwrap_or_default();
                attempt.error = Some(self.cx.redactor.text(&format!("{}{cause}", error.message)));
            }
        }
        let recorded = Recorded { attempt: attempt.clone(), delivered, last, retry_after_ms };
        self.settle(batch.number, &recorded).await?;
        self.attempts.push(attempt);
        self.made.push(recorded);
        self.cx.live.progress(Progress {
            done: self.made.len() as u64,
            total: Some(u64::from(self.notify.max_attempts)),
            unit: "attempts".to_owned(),
            failed: self.made.iter().filter(|one| !one.delivered).count() as u64,
            note: self.to(),
        });
        Ok(())
    }

    async fn settle(&self, batch: u64, recorded: &Recorded) -> Result<(), StepError> {
        let settlement = Settlement {
            cursor: Value::Null,
            outcome: json!(recorded),
            done: u64::from(recorded.delivered),
            ..Settlement::default()
        };
        self.cx.ledger.settle(batch, settlement).await
    }

    async fn send(&self, at: Timestamp) -> Result<Response, StepError> {
        let header = |text: String| {
            HeaderValue::from_str(&text)
                .map_err(|_| StepError::invalid("a header of the notification can not be sent"))
        };
        let mut headers =
            HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        headers.extend(given_headers(&self.notify.headers)?);
        headers.insert("X-Runbook-Delivery", header(self.id())?);
        headers.insert("X-Runbook-Timestamp", header(at.to_string())?);
        if let Some(secret) = &self.notify.secret {
            let signature = hmac_sha256(secret, &self.body);
            let name = header_name(&self.notify.signature_header)?;
            headers.insert(name, header(format!("sha256={signature}"))?);
        }
        let request = self.request()?.headers(headers);
        crash::around("notify", request.body(self.body.clone()).send())
            .await
            .map_err(|error| transport_error("posting the notification", error))
    }

    fn request(&self) -> Result<RequestBuilder, StepError> {
        match &self.target {
            Target::Url(client, url) => Ok(client.post(url.clone())),
            Target::Connection(connection, path) => {
                let request = http_of(&self.cx.resources, connection)?.request(Method::POST, path)?;
                Ok(match self.notify.timeout {
                    Some(timeout) => request.timeout(timeout.0),
                    None => request,
                })
            }
        }
    }

    /// The same for every attempt of this step in this run.
    fn id(&self) -> String {
        format!("{}:{}", self.cx.run.id, self.cx.step)
    }

    /// The receiver in words. Paths and queries of a URL often are credentials, so they are left out.
    pub(super) fn to(&self) -> String {
        match &self.target {
            Target::Url(_, url) => url.origin().ascii_serialization(),
            Target::Connection(connection, path) => {
                format!("{connection}{}", path.split('?').next().unwrap_or_default())
            }
        }
    }

    /// The attempts so far, oldest first.
    pub(super) fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Keeps the body and what became of every attempt.
    pub(super) async fn dead_letter(&self) -> Result<Artifact, StepError> {
        let body = String::from_utf8_lossy(&self.body);
        let letter = json!({
            "delivery": self.id(),
            "to": self.to(),
            "body": serde_json::from_str(&body).unwrap_or(Value::Null),
            "attempts": self.attempts,
        });
        let text = format!("{:#}\n", self.cx.redactor.value(&letter));
        write_text(self.cx, "dead-letter.json", &text).await
    }
}

fn target(notify: &Notify) -> Result<Target, StepError> {
    match (&notify.url, &notify.connection, &notify.path) {
        (Some(url), None, None) => {
            let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            let url = url.ok_or_else(|| StepError::invalid("`url` is neither an http nor an https URL"))?;
            let client = reqwest::Client::builder()
                .timeout(notify.timeout.unwrap_or(TIMEOUT).0)
                .redirect(redirect::Policy::none())
                .user_agent(concat!("runbook/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|error| StepError::invalid("no HTTP client can be made").with_source(&error))?;
            Ok(Target::Url(client, url))
        }
        (None, Some(connection), Some(path)) => Ok(Target::Connection(connection.clone(), path.clone())),
        _ => Err(StepError::invalid("give `url`, or `connection` and `path`")),
    }
}

/// Whether the receiver may say something else in a moment.
fn worth_retrying(status: StatusCode) -> bool {
    // 501 says that it never will.
    (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}
