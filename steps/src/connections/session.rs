//! A session of an HTTP API: opened at first need, refreshed while it lives, kept across a crash of the process.

use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::DATE;
use reqwest::{Method, Response};
use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, Outcome, StepError};
use runbook_engine::redact::Redactor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::http::{Endpoint, check_status, http_date, read_json, transport_error};
use crate::kind::{OpenContext, Vault};

/// How a session is opened and refreshed.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionSettings {
    /// The path that opens a session by POST. Default `/chatkit/session`.
    #[serde(default = "default_open")]
    pub open: String,
    /// The path that refreshes it by POST of the present secret; the answer has the shape of the opening. Default
    /// `/chatkit/session/refresh`.
    #[serde(default = "default_refresh")]
    pub refresh: String,
    /// The member of the answer that holds the secret; also its name in forms and queries. Default `client_secret`.
    #[serde(default = "default_secret")]
    pub secret: String,
    /// The member of the answer that holds the session's id. Default `session_id`.
    #[serde(default = "default_id")]
    pub id: String,
    /// The member of the answer that holds when the session ends, RFC 3339. Default `expires_at`.
    #[serde(default = "default_expires_at")]
    pub expires_at: String,
    /// What is posted to open it, JSON. Default `{}`.
    #[serde(default)]
    pub body: Option<Value>,
}

fn default_open() -> String {
    "/chatkit/session".to_owned()
}

fn default_refresh() -> String {
    "/chatkit/session/refresh".to_owned()
}

fn default_secret() -> String {
    "client_secret".to_owned()
}

fn default_id() -> String {
    "session_id".to_owned()
}

fn default_expires_at() -> String {
    "expires_at".to_owned()
}

/// A live session. Its secret is in no output, log or error; `Debug` leaves it out.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionValue {
    /// The session's id, which stays the same when it is refreshed.
    pub id: String,
    /// The secret that requests carry.
    pub secret: String,
    /// When it ends, by the server's clock.
    pub expires_at: Timestamp,
}

impl fmt::Debug for SessionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionValue")
            .field("id", &self.id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// A session with what is needed to know, by this machine's clock, when to refresh it. This is what the vault keeps.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    id: String,
    secret: String,
    expires_at: Timestamp,
    refresh_from: Timestamp,
    ends: Timestamp,
}

impl Held {
    fn value(&self) -> SessionValue {
        SessionValue { id: self.id.clone(), secret: self.secret.clone(), expires_at: self.expires_at }
    }
}

/// How long an answer about a session may be, in bytes.
const ANSWER: usize = 1024 * 1024;

/// The session of one connection.
pub struct Session {
    settings: SessionSettings,
    endpoint: Endpoint,
    redactor: Redactor,
    vault: Arc<dyn Vault>,
    entry: String,
    held: Mutex<Option<Held>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(settings: SessionSettings, endpoint: Endpoint, cx: &OpenContext<'_>) -> Self {
        Self {
            settings,
            endpoint,
            redactor: cx.redactor.clone(),
            vault: Arc::clone(cx.vault),
            entry: format!("session:{}", cx.name),
            held: Mutex::new(None),
        }
    }

    /// The live session: opened at first need, taken from the vault after a crash, refreshed when less than a third of its life
    /// is left. A session that the server no longer knows is replaced by a new one, with a new id.
    pub async fn get(&self) -> Result<SessionValue, StepError> {
        let mut held = self.held.lock().await;
        if held.is_none() {
            *held = self.kept();
        }
        let now = Timestamp::now();
        let Some(present) = held.clone().filter(|present| now < present.ends) else {
            return self.open(&mut held).await;
        };
        if now < present.refresh_from {
            return Ok(present.value());
        }
        match self.exchange(&present, &mut held).await {
            Ok(value) => Ok(value),
            Err(error) if error.kind == ErrorKind::Refused => {
                self.drop_held(&mut held);
                self.open(&mut held).await
            }
            // Nothing was sent or done, so the present secret still counts.
            Err(error) if error.kind == ErrorKind::Transient && error.outcome == Outcome::Failed => {
                Ok(present.value())
            }
            Err(error) => Err(error),
        }
    }

    /// Refreshes the session now: the same id, a new secret, the old one void. Refused when the server no longer knows it, or when
    /// none was opened.
    pub async fn refresh(&self) -> Result<SessionValue, StepError> {
        let mut held = self.held.lock().await;
        if held.is_none() {
            *held = self.kept();
        }
        let Some(present) = held.clone() else {
            return Err(StepError::refused("there is no session to refresh"));
        };
        self.exchange(&present, &mut held).await
    }

    /// Forgets the session: the next `get` opens a new one.
    pub async fn forget(&self) {
        let mut held = self.held.lock().await;
        self.drop_held(&mut held);
    }

    /// The name of the secret in forms and queries.
    pub fn field(&self) -> &str {
        &self.settings.secret
    }

    fn drop_held(&self, held: &mut Option<Held>) {
        *held = None;
        self.vault.keep(&self.entry, "");
    }

    fn kept(&self) -> Option<Held> {
        let text = self.vault.get(&self.entry).filter(|text| !text.is_empty())?;
        let held: Held = serde_json::from_str(&text).ok()?;
        self.redactor.learn(&held.secret);
        Some(held)
    }

    async fn open(&self, held: &mut Option<Held>) -> Result<SessionValue, StepError> {
        let body = self.settings.body.clone().unwrap_or_else(|| json!({}));
        self.post("opening a session", &self.settings.open, &body, held).await
    }

    async fn exchange(&self, present: &Held, held: &mut Option<Held>) -> Result<SessionValue, StepError> {
        let body = json!({ self.settings.secret.as_str(): present.secret });
        self.post("refreshing the session", &self.settings.refresh, &body, held).await
    }

    async fn post(
        &self,
        what: &str,
        path: &str,
        body: &Value,
        held: &mut Option<Held>,
    ) -> Result<SessionValue, StepError> {
        let request = self.endpoint.request(Method::POST, path)?.json(body);
        let response = crash::around("session", request.send()).await;
        let response = response.map_err(|error| transport_error(what, error))?;
        let response = check_status(what, response).await?;
        let server_now = server_clock(&response);
        let answer: Value = read_json(what, response, ANSWER).await?;
        let fresh = self.decode(what, &answer, server_now)?;
        if let Ok(text) = serde_json::to_string(&fresh) {
            self.vault.keep(&self.entry, &text);
        }
        Ok(held.insert(fresh).value())
    }

    fn decode(&self, what: &str, answer: &Value, server_now: Option<Timestamp>) -> Result<Held, StepError> {
        let member =
            |name: &str| {
                answer.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).ok_or_else(|| {
                    StepError::refused(format!("{what}: the answer has no text under `{name}`"))
                })
            };
        let secret = member(&self.settings.secret)?.to_owned();
        self.redactor.learn(&secret);
        let id = member(&self.settings.id)?.to_owned();
        let expires_at: Timestamp = member(&self.settings.expires_at)?.parse().map_err(|_| {
            StepError::refused(format!("{what}: `{}` in the answer is no time", self.settings.expires_at))
        })?;
        let now = Timestamp::now();
        // By the server's clock, so that a clock that is off by minutes does not shorten or lengthen the life.
        let life = expires_at.duration_since(server_now.unwrap_or(now)).max(SignedDuration::ZERO);
        let later = |span: SignedDuration| now.checked_add(span).unwrap_or(Timestamp::MAX);
        Ok(Held { id, secret, expires_at, refresh_from: later(life * 2 / 3), ends: later(life) })
    }
}

fn server_clock(response: &Response) -> Option<Timestamp> {
    http_date(response.headers().get(DATE)?.to_str().ok()?)
}
