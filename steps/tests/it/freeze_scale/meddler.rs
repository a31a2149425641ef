//! Somebody who changes a workload right before a change of its scale gets to the API server.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, Response};
use runbook_sandbox::kubernetes::{ADMIN, KubernetesServer};
use serde_json::Value;

use crate::server::Server;

/// What is put there before each change that comes, as a merge patch.
type Changes = Arc<Mutex<VecDeque<Value>>>;

#[derive(Clone)]
struct Between {
    server: Arc<KubernetesServer>,
    client: reqwest::Client,
    changes: Changes,
}

/// A way to the API server, as somebody who may do everything.
pub struct Meddler {
    /// Where it answers.
    pub url: String,
    changes: Changes,
    _server: Server,
}

impl Meddler {
    pub async fn start(server: &Arc<KubernetesServer>) -> Self {
        let mut client = reqwest::Client::builder().no_proxy();
        let authorities = std::fs::read(server.authorities()).unwrap();
        for certificate in reqwest::Certificate::from_pem_bundle(&authorities).unwrap() {
            client = client.add_root_certificate(certificate);
        }
        let changes = Changes::default();
        let between = Between {
            server: Arc::clone(server),
            client: client.build().unwrap(),
            changes: Arc::clone(&changes),
        };
        let server = Server::start(Router::new().fallback(pass).with_state(between)).await;
        Self { url: server.url.clone(), changes, _server: server }
    }

    pub fn before_the_next_change(&self, patch: &Value) {
        self.changes.lock().unwrap().push_back(patch.clone());
    }

    /// How many changes have not been made yet.
    pub fn left(&self) -> usize {
        self.changes.lock().unwrap().len()
    }
}

async fn pass(State(between): State<Between>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let changes =
        parts.method == Method::PUT && !parts.uri.query().is_some_and(|query| query.contains("dryRun"));
    let meddling = if changes { between.changes.lock().unwrap().pop_front() } else { None };
    if let Some(patch) = meddling {
        let path = parts.uri.path().trim_end_matches("/scale");
        between.server.call("PATCH", path, Some(&patch)).await.unwrap();
    }
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let url = format!("{}{path}", between.server.url());
    let request = between.client.request(parts.method, url).bearer_auth(ADMIN);
    let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
    let response = Response::builder().status(answer.status()).header("content-type", "application/json");
    response.body(Body::from(answer.bytes().await.unwrap())).unwrap()
}
