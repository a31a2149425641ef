//! Sessions: in memory only, short-lived, renewed by a refresh that voids the old secret at once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Shared, failure::Failure};
use crate::{crypto, time};

/// A session, as it is answered.
#[derive(Debug, Clone, Serialize)]
struct Session {
    session_id: String,
    client_secret: String,
    expires_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<BTreeMap<String, String>>,
}

/// The live sessions by secret.
pub(super) struct Sessions {
    ttl: Duration,
    live: Mutex<HashMap<String, Live>>,
}

struct Live {
    session_id: String,
    expires_at: Timestamp,
    metadata: Option<BTreeMap<String, String>>,
}

impl Sessions {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, live: Mutex::default() }
    }

    /// The id of the session that a secret belongs to, unless it has expired.
    pub(super) fn id_of(&self, secret: &str) -> Option<String> {
        self.live_now().get(secret).map(|session| session.session_id.clone())
    }

    fn open(&self, session_id: String, metadata: Option<BTreeMap<String, String>>) -> Session {
        let client_secret = crypto::random_base64::<24>();
        let ttl = SignedDuration::try_from(self.ttl).unwrap_or(SignedDuration::MAX);
        let expires_at = Timestamp::now().saturating_add(ttl).unwrap_or(Timestamp::MAX);
        let session = Session {
            session_id: session_id.clone(),
            client_secret: client_secret.clone(),
            expires_at: time::millis(expires_at),
            metadata: metadata.clone(),
        };
        self.live_now().insert(client_secret, Live { session_id, expires_at, metadata });
        session
    }

    fn refresh(&self, secret: &str) -> Option<Session> {
        let old = self.live_now().remove(secret)?;
        Some(self.open(old.session_id, old.metadata))
    }

    /// The sessions that have not expired.
    fn live_now(&self) -> MutexGuard<'_, HashMap<String, Live>> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Timestamp::now();
        live.retain(|_, session| session.expires_at > now);
        live
    }
}

#[derive(Default, Deserialize)]
struct NewSession {
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

/// `POST /chatkit/session`: the body may be absent.
pub(super) async fn create(State(gateway): Shared, body: Bytes) -> Result<Response, Failure> {
    let request: NewSession = if body.is_empty() {
        NewSession::default()
    } else {
        serde_json::from_slice(&body).map_err(|_| Failure::invalid_request("malformed session request"))?
    };
    let session = gateway.sessions.open(crypto::uuid(), request.metadata);
    Ok((StatusCode::CREATED, Json(session)).into_response())
}

#[derive(Deserialize)]
struct RefreshRequest {
    client_secret: String,
}

/// `POST /chatkit/session/refresh`: the same session, a new secret.
pub(super) async fn refresh(State(gateway): Shared, body: Bytes) -> Result<Response, Failure> {
    let request: RefreshRequest =
        serde_json::from_slice(&body).map_err(|_| Failure::invalid_request("missing client_secret"))?;
    if request.client_secret.is_empty() {
        return Err(Failure::invalid_request("missing client_secret"));
    }
    let session = gateway.sessions.refresh(&request.client_secret).ok_or_else(Failure::invalid_secret)?;
    Ok(Json(session).into_response())
}
