//! What the admin routes of the stand-ins speak: faults, the request log, effects, webhooks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A fault: what to do to which requests.
///
/// A request matches by method and by the prefix of its path (without the query). The first `after`
/// matching requests pass, the next `times` ones are hit, the rest pass again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The HTTP method; absent matches every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// What the path must begin with.
    #[serde(default = "root")]
    pub path_prefix: String,
    /// How many matching requests pass first.
    #[serde(default)]
    pub after: u64,
    /// How many matching requests are hit then.
    #[serde(default = "once")]
    pub times: u64,
    /// What happens to a request that is hit.
    pub action: FaultAction,
}

fn root() -> String {
    "/".into()
}

fn once() -> u64 {
    1
}

/// What happens to a request that a [`Fault`] hits. Exactly one of the members says what; `retry_after`
/// goes with `status`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FaultAction {
    /// Answer with this HTTP status, with no effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The `Retry-After` header of that answer, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// Wait this many milliseconds, then go on as usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Refuse for want of this capability (501). On `GET /capabilities`: leave the flag out of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_supported: Option<String>,
    /// Do the effect, then drop the connection with no answer.
    #[serde(skip_serializing_if = "is_false")]
    pub cut_after_effect: bool,
    /// Drop the connection with no effect and no answer.
    #[serde(skip_serializing_if = "is_false")]
    pub cut_before_effect: bool,
    /// Announce the whole body, send half of it, then drop the connection.
    #[serde(skip_serializing_if = "is_false")]
    pub truncate_body: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl FaultAction {
    /// How many of the exclusive members are set; one is right.
    pub(crate) fn choices(&self) -> usize {
        [
            self.status.is_some(),
            self.delay_ms.is_some(),
            self.not_supported.is_some(),
            self.cut_after_effect,
            self.cut_before_effect,
            self.truncate_body,
        ]
        .iter()
        .filter(|set| **set)
        .count()
    }
}

/// One request that a server received.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RequestEntry {
    /// Its number, from 1, in the order of arrival; begins anew when the server starts.
    pub seq: u64,
    /// When it arrived, RFC 3339.
    pub at: String,
    /// The HTTP method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query, as received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The status answered; absent while unanswered, or when the connection was cut instead.
    pub status: Option<u16>,
}

/// One write that the store did, in order; survives a restart of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Its number, from 1.
    pub seq: u64,
    /// `put`, `delete`, `create_corpus` or `delete_corpus`.
    pub op: String,
    /// The corpus.
    pub corpus: String,
    /// The collection, for documents.
    pub collection: Option<String>,
    /// The document id, for documents.
    pub id: Option<String>,
    /// Whether the document or corpus was there before.
    pub existed: bool,
}

/// One webhook that the control server received.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Webhook {
    /// When it arrived, RFC 3339.
    pub at: String,
    /// Whether its signature was right.
    pub verified: bool,
    /// The status answered.
    pub status: u16,
    /// The headers, with lowercase names.
    pub headers: BTreeMap<String, String>,
    /// The raw body, invalid UTF-8 replaced.
    pub body: String,
}

/// A list in an answer of an admin route.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Requests {
    pub(crate) requests: Vec<RequestEntry>,
}

/// The answer of `GET /__sandbox/effects`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Effects {
    pub(crate) effects: Vec<Effect>,
}

/// The answer of `GET /webhooks`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Webhooks {
    pub(crate) webhooks: Vec<Webhook>,
}

/// The query of the routes that list from a sequence number on.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct After {
    /// Only what has a greater number.
    #[serde(default)]
    pub(crate) after: u64,
}
