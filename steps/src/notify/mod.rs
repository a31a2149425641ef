//! Step kind `notify`: tells another system by a signed webhook, or leaves a dead letter.

mod delivery;

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use runbook_engine::artifact::Artifact;
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use runbook_engine::kinds::Effect;
use runbook_engine::plan::Backoff;
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kind::{Context, End, Step, would};
use crate::text::{Text, in_brief};
use delivery::{Delivery, Ended};

/// Posts JSON to a webhook, at most five times. 2xx is delivered; 408, 429, 5xx and a broken connection are tried again; every
/// other answer is final. An attempt that a crash cut off counts as one of the five.
///
/// Each request carries `X-Runbook-Delivery` (the same for every attempt of this step, so that a receiver can drop what it has
/// already), `X-Runbook-Timestamp` (when it was sent, RFC 3339) and, with a secret, `X-Runbook-Signature: sha256=<hex>`, the
/// HMAC-SHA256 of the raw body; `signature_header` gives that header the name that the receiver looks for.
///
/// What can not be delivered is kept as the artifact `dead-letter.json`.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "oneOf" = [{"required": ["url"]}, {"required": ["connection"]}],
    "not" = {"required": ["payload", "message"]},
    "dependencies" = {"connection": ["path"], "path": ["connection"]},
))]
pub struct Notify {
    /// Where to post, `http` or `https`. Give this, or `connection` and `path`.
    #[serde(default)]
    #[schemars(extend("pattern" = r"^[Hh][Tt][Tt][Pp][Ss]?://[^\s/?#]+", "patternErrorMessage" = "an http or https URL"))]
    pub url: Option<String>,
    /// A connection of type `http`, with its headers and timeout.
    #[serde(default)]
    pub connection: Option<String>,
    /// The path below the connection's URL.
    #[serde(default)]
    pub path: Option<String>,
    /// What to post. Default: the run's id, the runbook, the step and `message`.
    #[serde(default)]
    pub payload: Option<Value>,
    /// The text of the default payload; a `payload` holds its own.
    #[serde(default)]
    pub message: Option<String>,
    /// Headers in addition to those above and the connection's, such as `X-Tenant-Id`. Secrets may be used here.
    #[serde(default)]
    #[schemars(extend("propertyNames" = {"pattern": HEADER, "patternErrorMessage": "the name of a header"}))]
    pub headers: BTreeMap<String, Text>,
    /// The key that the body is signed with. May be a secret.
    #[serde(default)]
    pub secret: Option<String>,
    /// The header that carries the signature, such as `X-Hub-Signature-256`. Default `X-Runbook-Signature`.
    #[serde(default = "default_signature_header")]
    #[schemars(extend("pattern" = HEADER, "patternErrorMessage" = "the name of a header"))]
    pub signature_header: String,
    /// How often it is tried, 1 to 5. Default 5.
    #[serde(default = "default_attempts")]
    #[schemars(range(min = 1, max = 5))]
    pub max_attempts: u32,
    /// How long to wait after the first attempt. Default `1s`.
    #[serde(default = "default_delay")]
    pub delay: Duration,
    /// Whether the wait doubles after each attempt (`exponential`, the default) or stays (`constant`).
    #[serde(default = "default_backoff")]
    pub backoff: Backoff,
    /// The longest wait, also when the receiver asks for more. Default `30s`.
    #[serde(default = "default_max_delay")]
    pub max_delay: Duration,
    /// How long one attempt may take. Default `10s`; with `connection`, that connection's timeout.
    #[serde(default)]
    pub timeout: Option<Duration>,
    /// Whether the step fails when nothing was delivered. Default true; with false it succeeds with `delivered: false`.
    #[serde(default = "default_required")]
    pub required: bool,
}

/// What the name of a header is.
const HEADER: &str = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";

fn default_signature_header() -> String {
    "X-Runbook-Signature".to_owned()
}

/// How many attempts there are at most, whatever the runbook says.
const MOST_ATTEMPTS: u32 = 5;

fn default_attempts() -> u32 {
    MOST_ATTEMPTS
}

fn default_delay() -> Duration {
    Duration::from_secs(1)
}

fn default_backoff() -> Backoff {
    Backoff::Exponential
}

fn default_max_delay() -> Duration {
    Duration::from_secs(30)
}

fn default_required() -> bool {
    true
}

/// What a step of kind `notify` leaves.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Notified {
    /// Whether the receiver took it.
    pub delivered: bool,
    /// Every attempt, oldest first.
    pub attempts: Vec<Attempt>,
    /// The body and the attempts, when it was not delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<Artifact>,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// When it began, RFC 3339, UTC.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// The status that was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why there was no answer, or what was wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How many milliseconds it was waited before it.
    pub waited_ms: u64,
}

#[async_trait]
impl Step for Notify {
    const NAME: &'static str = "notify";
    const SUMMARY: &'static str =
        "Tell another system by a signed webhook, with bounded retries and a dead letter";
    const EXAMPLE: &'static str = r#"id: teams_told
uses: notify
with:
  url: http://127.0.0.1:9000/webhook
  message: Attachments are frozen for 30 minutes.
  required: false
"#;
    const SECRET_FIELDS: &'static [&'static str] = &["/secret", "/url", "/headers/*"];
    const SHOWN_FIELDS: &'static [&'static str] = &["/message", "/payload"];
    type Outputs = Notified;

    fn effect(_: &Value) -> Effect {
        Effect::WRITE
    }

    async fn foresee(self, _: Effect, _: &Context) -> Result<Foresight, StepError> {
        let to = self.url.or(self.connection).unwrap_or_default();
        let says = self.message.map_or_else(String::new, |message| format!(": {}", in_brief(&message)));
        Ok(would(format!("send a webhook to {to}{says}")))
    }

    async fn run(self, cx: &Context) -> Result<End<Notified>, StepError> {
        let body = self.body(cx);
        let mut delivery = Delivery::enter(&self, cx, body).await?;
        let ended = delivery.go_on().await?;
        let attempts = delivery.attempts().to_vec();
        if ended == Ended::Delivered {
            return Ok(End::Done(Notified { delivered: true, attempts, dead_letter: None }));
        }
        let dead_letter = delivery.dead_letter().await?;
        let last = attempts.last().map(said).unwrap_or_default();
        let many = if attempts.len() == 1 { "attempt" } else { "attempts" };
        let what = format!(
            "{} did not take the notification after {} {many}: {last}",
            delivery.to(),
            attempts.len()
        );
        if self.required {
            return Err(StepError::gate(what).with_help(format!(
                "the body and every attempt are in the artifact {} ({})",
                dead_letter.name, dead_letter.sha256
            )));
        }
        cx.live.say(&what);
        Ok(End::Done(Notified { delivered: false, attempts, dead_letter: Some(dead_letter) }))
    }
}

fn said(attempt: &Attempt) -> String {
    match (&attempt.error, attempt.status) {
        (Some(error), _) => error.clone(),
        (None, Some(status)) => format!("status {status}"),
        (None, None) => "no answer".to_owned(),
    }
}

impl Notify {
    /// The raw body: the same bytes at every attempt and after every crash.
    fn body(&self, cx: &Context) -> Vec<u8> {
        let payload = self.payload.clone().unwrap_or_else(|| {
            json!({
                "run": cx.run.id,
                "runbook": cx.run.runbook,
                "step": cx.step,
                "message": self.message.as_deref().unwrap_or_default(),
            })
        });
        payload.to_string().into_bytes()
    }
}
