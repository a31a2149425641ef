//! A server that counts what it is told, on a free port, gone with its handle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post, put};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::picture::RUNTIME;

/// The secret of the webhook.
pub const SECRET: &str = "a secret of the webhook";

/// How many requests for what is done late are turned away first.
pub const BUSY: u64 = 2;

/// What the server was told.
#[derive(Default)]
pub struct Told {
    /// How often each thing was done, by its name.
    pub done: BTreeMap<String, u64>,
    /// How often it turned each of them away, by its name.
    pub turned_away: BTreeMap<String, u64>,
    /// How often each delivery came, by its id.
    pub deliveries: BTreeMap<String, u64>,
    /// How many requests were not as they should be.
    pub bad: u64,
    /// The value that can be frozen.
    pub value: Value,
}

type Shared = Arc<Mutex<Told>>;

pub struct Server {
    pub url: String,
    told: Shared,
    task: JoinHandle<()>,
}

impl Server {
    pub fn start() -> Self {
        let told: Shared = Arc::new(Mutex::new(Told { value: json!(25), ..Told::default() }));
        let routes = Router::new()
            .route("/done/{name}", post(act).put(act).get(seen))
            .route("/late/{name}", put(late))
            .route("/refused/{name}", post(refused))
            .route("/hook", post(hook))
            .route("/value", get(value))
            .route("/value", put(set))
            .with_state(Arc::clone(&told));
        let (url, task) = RUNTIME.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            (url, tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() }))
        });
        Self { url, told, task }
    }

    /// What it was told so far.
    pub fn told<T>(&self, look: impl FnOnce(&Told) -> T) -> T {
        look(&self.told.lock().unwrap())
    }

    /// How often something was done.
    pub fn done(&self, name: &str) -> u64 {
        self.told(|told| told.done.get(name).copied().unwrap_or(0))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn act(State(told): State<Shared>, Path(name): Path<String>) -> Json<Value> {
    *told.lock().unwrap().done.entry(name.clone()).or_default() += 1;
    Json(json!({ "done": name }))
}

/// Busy for the first two that come.
async fn late(State(told): State<Shared>, Path(name): Path<String>) -> StatusCode {
    let mut told = told.lock().unwrap();
    let turned_away = told.turned_away.entry(name.clone()).or_default();
    if *turned_away < BUSY {
        *turned_away += 1;
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    *told.done.entry(name).or_default() += 1;
    StatusCode::NO_CONTENT
}

/// Never lets it be done.
async fn refused(State(told): State<Shared>, Path(name): Path<String>) -> StatusCode {
    *told.lock().unwrap().turned_away.entry(name).or_default() += 1;
    StatusCode::UNPROCESSABLE_ENTITY
}

async fn seen(State(told): State<Shared>, Path(name): Path<String>) -> (StatusCode, Json<Value>) {
    let is_done = told.lock().unwrap().done.contains_key(&name);
    let status = if is_done { StatusCode::OK } else { StatusCode::NOT_FOUND };
    (status, Json(json!({ "done": name })))
}

async fn value(State(told): State<Shared>) -> Json<Value> {
    Json(json!({ "max": told.lock().unwrap().value.clone() }))
}

async fn set(State(told): State<Shared>, Json(body): Json<Value>) -> StatusCode {
    told.lock().unwrap().value = body["max"].clone();
    StatusCode::NO_CONTENT
}

async fn hook(State(told): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut told = told.lock().unwrap();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(&body);
    let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    if header("X-Runbook-Signature") != format!("sha256={signature}") {
        told.bad += 1;
        return StatusCode::UNAUTHORIZED;
    }
    *told.deliveries.entry(header("X-Runbook-Delivery").to_owned()).or_default() += 1;
    StatusCode::NO_CONTENT
}
