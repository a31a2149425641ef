//! A proxy before a store, which answers for some objects as a store in trouble does.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How the store answers when somebody looks for an object.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// With this status.
    Status(u16),
    /// With this status, and so many times only.
    Times(u16, u32),
    /// Rightly, but so late.
    Slow(Duration),
}

/// Who answers a request before the proxy does.
pub trait First: Send + Sync {
    /// The answer; nothing when the proxy is to answer.
    fn answer<'a>(
        &'a self,
        head: &'a Parts,
        body: &'a [u8],
    ) -> Pin<Box<dyn Future<Output = Option<Response<Body>>> + Send + 'a>>;
}

#[derive(Default)]
struct Told {
    faults: BTreeMap<String, Fault>,
    /// What every request is answered with, when something is.
    all: Option<u16>,
    heads: u64,
    lists: u64,
    /// Requests that neither look nor list nor read, as method and path.
    others: Vec<String>,
}

#[derive(Clone)]
struct Store {
    url: String,
    client: reqwest::Client,
    told: Arc<Mutex<Told>>,
    first: Option<Arc<dyn First>>,
}

/// A running proxy.
pub struct Proxy {
    /// Where it answers.
    pub url: String,
    told: Arc<Mutex<Told>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// One before a store.
    pub async fn before(store: &str) -> Self {
        Self::after(None, store).await
    }

    /// One before a store, and after somebody who answers first.
    pub async fn after(first: Option<Arc<dyn First>>, store: &str) -> Self {
        let told = Arc::new(Mutex::new(Told::default()));
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let state = Store { url: store.to_owned(), client, told: Arc::clone(&told), first };
        let routes = Router::new().fallback(pass).with_state(state);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, told, task }
    }

    /// From now on looking for the object of this key ends so.
    pub fn fault(&self, key: &str, fault: Fault) {
        self.told.lock().unwrap().faults.insert(key.to_owned(), fault);
    }

    /// All is well again.
    pub fn heal(&self) {
        let mut told = self.told.lock().unwrap();
        told.faults.clear();
        told.all = None;
    }

    /// Every request is answered with this status.
    pub fn answer_all(&self, status: u16) {
        self.told.lock().unwrap().all = Some(status);
    }

    /// How many requests there were since the last time that looked for an object, and that listed.
    pub fn counted(&self) -> (u64, u64) {
        let mut told = self.told.lock().unwrap();
        (std::mem::take(&mut told.heads), std::mem::take(&mut told.lists))
    }

    /// The requests so far that are no reads.
    pub fn writes(&self) -> Vec<String> {
        self.told.lock().unwrap().others.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn empty(status: u16) -> Response<Body> {
    Response::builder().status(StatusCode::from_u16(status).unwrap()).body(Body::empty()).unwrap()
}

async fn pass(State(store): State<Store>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let key = path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key).to_owned();
    let bytes: Bytes = axum::body::to_bytes(body, 64 * 1024 * 1024).await.unwrap();
    if let Some(first) = &store.first
        && let Some(answer) = first.answer(&head, &bytes).await
    {
        return answer;
    }
    let slow = {
        let mut told = store.told.lock().unwrap();
        if let Some(status) = told.all {
            return empty(status);
        }
        let looks = head.method == Method::HEAD;
        if !looks && head.method != Method::GET {
            told.others.push(format!("{} {path}", head.method));
        }
        told.heads += u64::from(looks);
        told.lists += u64::from(
            head.method == Method::GET && head.uri.query().is_some_and(|query| query.contains("list-type")),
        );
        match told.faults.get(&key).copied().filter(|_| looks) {
            Some(Fault::Status(status)) => return empty(status),
            Some(Fault::Times(_, 0)) | None => Duration::ZERO,
            Some(Fault::Times(status, left)) => {
                told.faults.insert(key, Fault::Times(status, left - 1));
                return empty(status);
            }
            Some(Fault::Slow(time)) => time,
        }
    };
    tokio::time::sleep(slow).await;
    let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let url = format!("{}{path}{query}", store.url);
    // The signature is over the host that the client named.
    let sent = store.client.request(head.method, url).headers(head.headers).body(bytes).send().await.unwrap();
    let mut answer = Response::builder().status(sent.status());
    for (name, value) in
        sent.headers().iter().filter(|(name, _)| *name != "transfer-encoding" && *name != "connection")
    {
        answer = answer.header(name, value);
    }
    let body = sent.bytes().await.unwrap();
    answer.body(Body::from(body)).unwrap()
}
