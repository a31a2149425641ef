//! A receiver of signed webhooks that keeps all it gets, and can be told to refuse some.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    admin::{Webhook, Webhooks},
    crypto, time,
};

/// The header with `sha256=` and the hexadecimal HMAC-SHA256 of the raw body.
const SIGNATURE: &str = "x-runbook-signature";

/// How many webhooks are kept; further ones are refused.
const CAPACITY: usize = 10_000;

struct Receiver {
    secret: String,
    inbox: Mutex<Inbox>,
}

#[derive(Default)]
struct Inbox {
    received: Vec<Webhook>,
    fault: WebhookFault,
}

/// Answer the next `times` webhooks with `status`.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookFault {
    times: u64,
    status: u16,
}

/// The routes of the receiver.
pub(super) fn router(secret: String) -> Router {
    let receiver = Arc::new(Receiver { secret, inbox: Mutex::default() });
    Router::new()
        .route("/webhook", post(receive))
        .route("/webhooks", get(list))
        .route("/webhook-faults", post(set_fault))
        .with_state(receiver)
}

impl Receiver {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> Response {
    let signature = headers.get(SIGNATURE).and_then(|value| value.to_str().ok());
    let verified = signature
        .and_then(|value| value.strip_prefix("sha256="))
        .is_some_and(|tag| crypto::verify_hmac(&receiver.secret, &body, tag));
    let mut inbox = receiver.inbox();
    if inbox.received.len() >= CAPACITY {
        return StatusCode::INSUFFICIENT_STORAGE.into_response();
    }
    let status = if inbox.fault.times > 0 {
        inbox.fault.times -= 1;
        StatusCode::from_u16(inbox.fault.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
    } else if verified {
        StatusCode::OK
    } else {
        StatusCode::UNAUTHORIZED
    };
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    inbox.received.push(Webhook {
        at: time::now(),
        verified,
        status: status.as_u16(),
        headers: headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    (status, Json(json!({ "received": status.is_success() }))).into_response()
}

async fn list(State(receiver): State<Arc<Receiver>>) -> Json<Webhooks> {
    Json(Webhooks { webhooks: receiver.inbox().received.clone() })
}

async fn set_fault(State(receiver): State<Arc<Receiver>>, Json(fault): Json<WebhookFault>) -> Response {
    if StatusCode::from_u16(fault.status).is_err() {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": "not an HTTP status" }))).into_response();
    }
    receiver.inbox().fault = fault;
    (StatusCode::CREATED, Json(json!(fault))).into_response()
}
