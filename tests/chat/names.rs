//! Names for servers of this machine: a proxy that leads requests for `http://NAME` where the name stands for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

#[derive(Default)]
struct Told {
    /// Where each name leads.
    names: BTreeMap<String, String>,
    /// What was asked, as method and address.
    asked: Vec<String>,
    /// Which looks at the lifecycle of a bucket find none, counted from 1.
    blind: Vec<usize>,
    looks: usize,
}

#[derive(Clone)]
struct Proxy {
    told: Arc<Mutex<Told>>,
    client: reqwest::Client,
}

/// A running proxy.
pub struct Names {
    /// Where it answers.
    pub url: String,
    told: Arc<Mutex<Told>>,
    task: JoinHandle<()>,
}

impl Names {
    pub async fn start() -> Self {
        let told = Arc::new(Mutex::new(Told::default()));
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let proxy = Proxy { told: Arc::clone(&told), client: client.build().unwrap() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().fallback(pass).with_state(proxy);
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, told, task }
    }

    /// Lets a name lead to the server at `url`; the URL by that name.
    pub fn call(&self, name: &str, url: &str) -> String {
        self.told.lock().unwrap().names.insert(name.to_owned(), url.to_owned());
        format!("http://{name}")
    }

    /// Hides the lifecycle of buckets from these looks at it, counted from the next one.
    pub fn blind(&self, looks: impl IntoIterator<Item = usize>) {
        let mut told = self.told.lock().unwrap();
        told.looks = 0;
        told.blind = looks.into_iter().collect();
    }

    /// What was asked of a name.
    pub fn asked(&self, name: &str) -> Vec<String> {
        let told = self.told.lock().unwrap();
        told.asked.iter().filter(|line| line.contains(&format!("//{name}/"))).cloned().collect()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(State(proxy): State<Proxy>, request: Request) -> Response<Body> {
    let status = |status: StatusCode| Response::builder().status(status).body(Body::empty()).unwrap();
    let (parts, body) = request.into_parts();
    let target = {
        let mut told = proxy.told.lock().unwrap();
        told.asked.push(format!("{} {}", parts.method, parts.uri));
        if parts.method == Method::GET
            && parts.uri.query().is_some_and(|query| query.starts_with("lifecycle"))
        {
            told.looks += 1;
            if told.blind.contains(&told.looks) {
                return status(StatusCode::NOT_FOUND);
            }
        }
        told.names.get(parts.uri.host().unwrap_or_default()).cloned()
    };
    let Some(target) = target else { return status(StatusCode::BAD_GATEWAY) };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    // The name goes along: what is signed holds it.
    let request =
        proxy.client.request(parts.method, format!("{target}{path}")).headers(parts.headers).body(body);
    let Ok(answer) = request.send().await else { return status(StatusCode::BAD_GATEWAY) };
    let mut response = Response::builder().status(answer.status());
    response.headers_mut().unwrap().extend(answer.headers().clone());
    response.body(Body::from(answer.bytes().await.unwrap_or_default())).unwrap()
}
