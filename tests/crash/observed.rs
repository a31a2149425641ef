//! What is looked at before a release, and a file that is uploaded to see that it arrives: a real Prometheus, a real store with the chat API
//! before it, and the protection of a branch.

use std::path::PathBuf;
use std::process::Output;
use std::sync::OnceLock;

use runbook_sandbox::chat::token;
use runbook_sandbox::prometheus::PrometheusServer;
use runbook_sandbox::weed::{ACCESS_KEY, SECRET_KEY, Weed};
use runbook_sandbox::{Api, sandbox_binary};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::bucket::Bucket;
use crate::matrix::{Case, explore};
use crate::picture::RUNTIME;
use crate::place::Place;
use crate::trial::{Recovery, World, run_in};

/// What tokens of the API are signed with.
const JWT_SECRET: &str = "jwt secret of the worlds";

/// What the worlds of this process share.
struct Shared {
    store: Value,
    endpoint: String,
    prometheus: String,
    github: String,
}

static SHARED: OnceLock<Shared> = OnceLock::new();

struct Observed {
    place: Place,
    _api: Api,
    bucket: Bucket,
    url: String,
}

fn make() -> Box<dyn World> {
    let Shared { store, endpoint, prometheus, github } = SHARED.get().unwrap();
    let bucket = Bucket::make(store);
    let settings = [
        ("JWT_SECRET", JWT_SECRET),
        ("CHAT_ATTACHMENT_STORAGE_BACKEND", "s3"),
        ("S3_ENDPOINT", endpoint),
        ("S3_BUCKET", &bucket.name),
        ("S3_ACCESS_KEY", ACCESS_KEY),
        ("S3_SECRET_KEY", SECRET_KEY),
        ("APP_ENV", "test"),
    ];
    let api = RUNTIME.block_on(Api::start(&sandbox_binary().unwrap(), "chat-api", &settings)).unwrap();
    let place = Place::new();
    let text = format!(
        r#"secrets:
  token: {{ env: CHAT_API_TOKEN }}
  github: {{ env: GITHUB_TOKEN }}
connections:
  app: {{ type: http, url: "{app}", headers: {{ Authorization: "Bearer ${{{{ secrets.token }}}}" }} }}
  metrics: {{ type: prometheus, url: "{prometheus}" }}
  github: {{ type: github, url: "{github}", token: "${{{{ secrets.github }}}}" }}
  bucket: {settings}
collections:
  attachments: {{ type: s3-objects, connection: bucket, prefix: chat-attachments/test/ }}
lock: observed
steps:
  - {{ id: gate, uses: branch-protection, with: {{ connection: github, repository: o/r, branch: main, required: check }} }}
  - id: smoke
    uses: smoke-upload
    with:
      connection: app
      path: /v1/chat/attachments/upload
      file: {{ name: smoke.png, mime_type: image/png, begins: SMOKE- }}
      stored_in: attachments
      keys: ["chat-attachments/test/{{id}}.bin", "chat-attachments/test/{{id}}.json"]
  - {{ id: up, uses: prometheus-query, with: {{ connection: metrics, query: vector(1), expect: {{ min: 1, max: 1 }} }} }}
  - {{ id: stored, uses: count, with: {{ collections: [attachments], at_least: 2 }} }}
finally:
  - {{ id: report, uses: report }}
"#,
        app = api.url,
        settings = bucket.settings,
    );
    place.runbook("observed", &text);
    let url = api.url.clone();
    Box::new(Observed { place, _api: api, bucket, url })
}

impl World for Observed {
    fn run(&self, arguments: &[String], variables: &[(String, String)]) -> Output {
        let own = [("CHAT_API_TOKEN", token(JWT_SECRET, "smoke")), ("GITHUB_TOKEN", "admin".to_owned())];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        run_in(&self.place, arguments, &[variables, &own].concat())
    }

    fn state(&self) -> PathBuf {
        self.place.path("state")
    }

    fn exec(&self) -> Vec<String> {
        ["exec", "observed.yaml"].map(str::to_owned).into()
    }

    fn took_effect(&self, step: &str) -> bool {
        panic!("`{step}` may be repeated");
    }

    fn names(&self) -> Vec<(String, String)> {
        vec![(self.url.clone(), "APP".to_owned()), (self.bucket.name.clone(), "BUCKET".to_owned())]
    }

    /// What the application gives a file, what is in it, and how many files there are after how many crashes.
    fn is_drawn(&self, member: &str) -> bool {
        ["id", "sha256", "keys", "counts", "total", "at"].contains(&member)
    }

    fn picture(&self) -> Value {
        json!({ "arrived": !RUNTIME.block_on(self.bucket.keys()).is_empty() })
    }

    fn wrong(&self, crashed_at: &[String]) -> Vec<String> {
        let keys = RUNTIME.block_on(self.bucket.keys());
        // A file and what is said of it; the crash of a step that uploads leaves one more.
        let most = 2 * (1 + crashed_at.len());
        let mut wrong = Vec::new();
        if keys.len() > most || keys.iter().any(|key| !key.starts_with("chat-attachments/test/")) {
            wrong.push(format!("{} crashes left {keys:?}", crashed_at.len()));
        }
        wrong
    }
}

/// Protects a branch, and says where.
async fn github() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes: axum::Router = runbook_sandbox::github::router(&[("o/r", "main")]);
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let put = reqwest::Client::new().put(format!("{url}/repos/o/r/branches/main/protection"));
    let body = json!({ "required_status_checks": { "contexts": ["check"] } });
    assert!(put.bearer_auth("admin").json(&body).send().await.unwrap().status().is_success());
    url
}

#[test]
fn what_is_looked_at_is_looked_at_and_what_is_uploaded_arrives_whatever_crashes() {
    // Started by this thread, with which they end.
    let (weed, server, github) = RUNTIME.block_on(async {
        let server = PrometheusServer::start(&[]).await.unwrap();
        (Weed::start().await.unwrap(), server, github().await)
    });
    let (store, endpoint) = (weed.bucket(""), weed.url.clone());
    SHARED.get_or_init(|| Shared { store, endpoint, prometheus: server.url(), github });
    explore(&Case { name: "observed", recovery: Recovery::Resume, make, stride: 5, second_stride: 0 });
}
