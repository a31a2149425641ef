//! Names for servers of this machine: a proxy that leads requests for `http://NAME` where the name stands for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, Response, StatusCode};
use tokio::task::JoinHandle;

use crate::serve;

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

/// What is told stays as it was when somebody who held it panicked: nothing of it is half done.
fn hold(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running proxy.
pub struct Names {
    /// Where it answers.
    pub url: String,
    told: Arc<Mutex<Told>>,
    task: JoinHandle<()>,
}

impl Names {
    /// Starts one that knows no name.
    ///
    /// # Errors
    /// When there is no port for it.
    pub async fn start() -> anyhow::Result<Self> {
        let told = Arc::new(Mutex::new(Told::default()));
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let proxy = Proxy { told: Arc::clone(&told), client: client.build()? };
        let listener = serve::bind(0).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let routes = Router::new().fallback(pass).with_state(proxy);
        let task = tokio::spawn(async move { drop(axum::serve(listener, routes).await) });
        Ok(Self { url, told, task })
    }

    /// What leads a program through it, as variables of its environment. Servers of this machine are asked without it.
    pub fn variables(&self) -> [(&'static str, String); 4] {
        // curl takes the one in lower case only.
        let none = "127.0.0.1".to_owned();
        [
            ("HTTP_PROXY", self.url.clone()),
            ("http_proxy", self.url.clone()),
            ("NO_PROXY", none.clone()),
            ("no_proxy", none),
        ]
    }

    /// Lets a name lead to the server at `url`; the URL by that name.
    pub fn call(&self, name: &str, url: &str) -> String {
        hold(&self.told).names.insert(name.to_owned(), url.to_owned());
        format!("http://{name}")
    }

    /// Hides the lifecycle of buckets from these looks at it, counted from the next one.
    pub fn blind(&self, looks: impl IntoIterator<Item = usize>) {
        let mut told = hold(&self.told);
        told.looks = 0;
        told.blind = looks.into_iter().collect();
    }

    /// What was asked of a name.
    pub fn asked(&self, name: &str) -> Vec<String> {
        let told = hold(&self.told);
        told.asked.iter().filter(|line| line.contains(&format!("//{name}/"))).cloned().collect()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(State(proxy): State<Proxy>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let target = {
        let mut told = hold(&proxy.told);
        told.asked.push(format!("{} {}", parts.method, parts.uri));
        if parts.method == Method::GET
            && parts.uri.query().is_some_and(|query| query.starts_with("lifecycle"))
        {
            told.looks += 1;
            if told.blind.contains(&told.looks) {
                return empty(StatusCode::NOT_FOUND);
            }
        }
        told.names.get(parts.uri.host().unwrap_or_default()).cloned()
    };
    let Some(target) = target else { return empty(StatusCode::BAD_GATEWAY) };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return empty(StatusCode::BAD_REQUEST);
    };
    // The name goes along: what is signed holds it.
    let request =
        proxy.client.request(parts.method, format!("{target}{path}")).headers(parts.headers).body(body);
    let Ok(answer) = request.send().await else { return empty(StatusCode::BAD_GATEWAY) };
    let (status, headers) = (answer.status(), answer.headers().clone());
    let Ok(bytes) = answer.bytes().await else { return empty(StatusCode::BAD_GATEWAY) };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
