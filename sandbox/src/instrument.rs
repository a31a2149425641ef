//! The request log and the faults on demand that every stand-in server has.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, Query, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::{
    admin::{After, Fault, FaultAction, RequestEntry, Requests},
    serve::CutHandle,
    time,
};

/// Where the admin routes live; requests to them are neither logged nor hit by faults.
const ADMIN_PREFIX: &str = "/__sandbox/";

/// How many requests the log keeps; older ones are forgotten.
const LOG_CAPACITY: usize = 1_000_000;

/// Capability flags that `GET /capabilities` must not name; set on a request that a fault hit.
#[derive(Clone)]
pub(crate) struct WithheldCapability(pub(crate) String);

#[derive(Default)]
struct Instruments {
    log: Mutex<Log>,
    faults: Mutex<Faults>,
}

#[derive(Default)]
struct Log {
    last_seq: u64,
    entries: VecDeque<RequestEntry>,
}

#[derive(Default)]
struct Faults {
    last_id: u64,
    active: Vec<ActiveFault>,
}

struct ActiveFault {
    fault: Fault,
    passed: u64,
    hit: u64,
}

/// No code panics while it holds one of these locks, so a poisoned one is still sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Instruments {
    fn arrived(&self, request: &Request) -> u64 {
        let mut log = lock(&self.log);
        log.last_seq += 1;
        let entry = RequestEntry {
            seq: log.last_seq,
            at: time::now(),
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().map(str::to_owned),
            status: None,
        };
        log.entries.push_back(entry);
        if log.entries.len() > LOG_CAPACITY {
            log.entries.pop_front();
        }
        log.last_seq
    }

    fn answered(&self, seq: u64, status: StatusCode) {
        let mut log = lock(&self.log);
        let first = log.entries.front().map_or(0, |entry| entry.seq);
        let at = usize::try_from(seq.saturating_sub(first)).unwrap_or(usize::MAX);
        if let Some(entry) = log.entries.get_mut(at).filter(|entry| entry.seq == seq) {
            entry.status = Some(status.as_u16());
        }
    }

    /// The action of the first fault that hits this request.
    fn hit(&self, request: &Request) -> Option<FaultAction> {
        let (method, path) = (request.method().as_str(), request.uri().path());
        for active in &mut lock(&self.faults).active {
            let fault = &active.fault;
            let method_matches =
                fault.method.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method));
            if !method_matches || !path.starts_with(&fault.path_prefix) {
                continue;
            }
            if active.passed < fault.after {
                active.passed += 1;
            } else if active.hit < fault.times {
                active.hit += 1;
                return Some(fault.action.clone());
            }
        }
        None
    }
}

/// Puts the request log, the faults and their admin routes around a server's routes.
pub(crate) fn instrument(router: Router) -> Router {
    let instruments = Arc::new(Instruments::default());
    let admin = Router::new()
        .route("/__sandbox/faults", post(add_fault).delete(clear_faults))
        .route("/__sandbox/requests", get(list_requests))
        .with_state(Arc::clone(&instruments));
    router.merge(admin).layer(middleware::from_fn_with_state(instruments, observe))
}

async fn add_fault(State(instruments): State<Arc<Instruments>>, Json(fault): Json<Fault>) -> Response {
    let status_valid = fault.action.status.is_none_or(|status| StatusCode::from_u16(status).is_ok());
    if fault.action.choices() != 1 || !status_valid {
        let message = "an action has exactly one of status, delay_ms, not_supported, cut_after_effect, \
                       cut_before_effect, truncate_body; a status is between 100 and 999";
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": message }))).into_response();
    }
    let mut faults = lock(&instruments.faults);
    faults.last_id += 1;
    let id = faults.last_id;
    faults.active.push(ActiveFault { fault, passed: 0, hit: 0 });
    (StatusCode::CREATED, Json(json!({ "id": id }))).into_response()
}

async fn clear_faults(State(instruments): State<Arc<Instruments>>) -> StatusCode {
    lock(&instruments.faults).active.clear();
    StatusCode::NO_CONTENT
}

async fn list_requests(
    State(instruments): State<Arc<Instruments>>,
    Query(After { after }): Query<After>,
) -> Json<Requests> {
    let log = lock(&instruments.log);
    Json(Requests { requests: log.entries.iter().filter(|entry| entry.seq > after).cloned().collect() })
}

async fn observe(State(instruments): State<Arc<Instruments>>, mut request: Request, next: Next) -> Response {
    if request.uri().path().starts_with(ADMIN_PREFIX) {
        return next.run(request).await;
    }
    let seq = instruments.arrived(&request);
    let cut =
        request.extensions().get::<ConnectInfo<CutHandle>>().map(|info| info.0.clone()).unwrap_or_default();
    let action = instruments.hit(&request).unwrap_or_default();

    if action.cut_before_effect {
        cut.cut();
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if let Some(delay) = action.delay_ms {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let response = if let Some(status) = action.status {
        refuse(status, action.retry_after)
    } else if let Some(need) = action.not_supported {
        if request.uri().path() == "/capabilities" {
            request.extensions_mut().insert(WithheldCapability(need));
            next.run(request).await
        } else {
            not_supported(&need)
        }
    } else {
        next.run(request).await
    };
    if action.cut_after_effect {
        cut.cut();
        return response;
    }
    instruments.answered(seq, response.status());
    if action.truncate_body { truncate(response).await } else { response }
}

fn refuse(status: u16, retry_after: Option<u64>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = json!({ "code": "unavailable", "error": "fault on demand", "message": "fault on demand" });
    let mut response = (status, Json(body)).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The refusal for want of a capability: 501, naming the need.
pub(crate) fn not_supported(need: &str) -> Response {
    eprintln!("capability request: need={need}");
    let message = format!("capability request: need={need}");
    let body = json!({ "code": "notSupported", "need": need, "message": message });
    (StatusCode::NOT_IMPLEMENTED, Json(body)).into_response()
}

/// Announces the whole body but ends the connection in the middle of it.
async fn truncate(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let half = bytes.slice(..bytes.len() / 2);
    let first = stream::once(async move { Ok::<Bytes, std::io::Error>(half) });
    // The pause lets the first half reach the client before the connection ends.
    let rest = stream::once(async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    });
    Response::from_parts(parts, Body::from_stream(first.chain(rest)))
}
