//! `branch-protection`, against the API as the sandbox serves it.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use reqwest::Client;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_sandbox::github::router;
use serde_json::{Value, json};

use crate::common::{Bench, planned};
use crate::server::Server;

const GATE: &str = "CI / surreal-release-gates";

struct Github(Server);

impl Github {
    async fn start() -> Self {
        Self(Server::start(router(&[("gotong/royong", "main"), ("gotong/royong", "release/1")])).await)
    }

    async fn put(&self, path: &str, body: &Value) {
        let url = format!("{}/repos/gotong/royong/{path}", self.0.url);
        let answer = Client::new().put(url).bearer_auth("admin").json(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
    }

    async fn protect(&self, checks: Value) {
        self.put("branches/main/protection", &json!({ "required_status_checks": checks })).await;
    }

    async fn look(&self, more: Value) -> Result<Value, StepError> {
        let mut with = json!({ "connection": "github", "repository": "gotong/royong", "required": GATE });
        let mut connection = json!({ "type": "github", "url": self.0.url, "token": "admin" });
        for (name, value) in more.as_object().unwrap() {
            let into = if name == "token" { &mut connection } else { &mut with };
            into[name] = value.clone();
        }
        let step = planned("it", "branch-protection", with);
        Bench::new(vec![step], json!({ "github": connection }), json!({})).await.enter("it").await
    }

    async fn gate(&self, wrong: &str) {
        let error = self.look(json!({})).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Gate, "{error:?}");
        assert!(error.message.contains(wrong), "{}", error.message);
    }
}

#[tokio::test]
async fn a_check_is_required_wherever_it_is_said_and_by_its_exact_name() {
    let github = Github::start().await;
    github.gate("main of gotong/royong at").await;
    github.gate("is not protected").await;
    github.protect(Value::Null).await;
    github.gate("requires no checks").await;
    github.protect(json!({ "contexts": ["lint"], "checks": [{ "context": "build", "app_id": null }] })).await;
    github.gate("it requires `build`, `lint`").await;

    // The name that a page shows is not the name of the job.
    github.protect(json!({ "contexts": ["surreal-release-gates"], "checks": [] })).await;
    let error = github.look(json!({})).await.unwrap_err();
    assert!(error.help.as_deref().unwrap().contains("is another name than"), "{error:?}");
    github
        .protect(json!({ "contexts": ["CI / Surreal-release-gates", " CI / surreal-release-gates"] }))
        .await;
    github.gate("does not require").await;

    // In each of the three places.
    github.protect(json!({ "contexts": [GATE, "lint"] })).await;
    let found = github.look(json!({})).await.unwrap();
    assert_eq!((&found["status"], &found["missing"]), (&json!("PASS"), &json!([])));
    assert_eq!((&found["protected"], &found["required"]), (&json!(true), &json!([GATE, "lint"])));
    github.protect(json!({ "contexts": [], "checks": [{ "context": GATE, "app_id": 15368 }] })).await;
    github.look(json!({})).await.unwrap();
    let rule = json!({ "type": "required_status_checks", "ruleset_id": 7, "parameters": {
        "required_status_checks": [{ "context": GATE }], "strict_required_status_checks_policy": true } });
    let mut rules = vec![json!({ "type": "deletion", "ruleset_id": 7 }); 120];
    rules.push(rule);
    github.put("rules/branches/release%2F1", &json!(rules)).await;
    let found = github.look(json!({ "branch": "release/1" })).await.unwrap();
    assert_eq!((&found["status"], &found["protected"]), (&json!("PASS"), &json!(false)), "on a second page");

    // All of them, and not only one.
    github.protect(json!({ "contexts": [GATE] })).await;
    let error = github.look(json!({ "required": [GATE, "lint"] })).await.unwrap_err();
    assert!(error.message.contains("does not require `lint`"), "{error:?}");
}

#[tokio::test]
async fn a_dry_run_is_no_pass() {
    let github = Github::start().await;
    let found = github.look(json!({ "mode": "plan" })).await.unwrap();
    assert_eq!((&found["status"], &found["missing"]), (&json!("DRY_RUN"), &json!([GATE])));
    github.protect(json!({ "contexts": [GATE] })).await;
    let found = github.look(json!({ "mode": "plan" })).await.unwrap();
    assert_eq!((&found["status"], &found["missing"]), (&json!("DRY_RUN"), &json!([])));
}

#[tokio::test]
async fn what_says_nothing_about_the_branch_is_an_error_and_not_a_missing_protection() {
    let github = Github::start().await;
    for (with, wrong) in [
        (json!({ "repository": "gotong/royongg" }), "404 Not Found: Not Found"),
        (json!({ "branch": "mian" }), "404 Not Found: Branch not found"),
        (json!({ "token": "reader" }), "403 Forbidden: Resource not accessible"),
        (json!({ "required": [""] }), "`required` is empty"),
    ] {
        let error = github.look(with.clone()).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Refused | ErrorKind::Invalid), "{with}: {error:?}");
        assert!(error.message.contains(wrong), "{with}: {}", error.message);
    }
    // In trouble, and with a page of a proxy in the place of the answer.
    let trouble = Router::new().fallback(get(async || StatusCode::BAD_GATEWAY));
    let github = Github(Server::start(trouble).await);
    assert_eq!(github.look(json!({})).await.unwrap_err().kind, ErrorKind::Transient);
    let page =
        Router::new().fallback(get(async || (StatusCode::NOT_FOUND, "<html>Branch not protected</html>")));
    let github = Github(Server::start(page).await);
    assert_eq!(github.look(json!({})).await.unwrap_err().kind, ErrorKind::Refused);
    // Who may not look is told as little of what protects a branch as of what is not there.
    let guarded = |branch: Value| {
        let hidden = || async { (StatusCode::NOT_FOUND, r#"{"message":"Not Found"}"#) };
        Router::new()
            .route("/repos/gotong/royong/branches/main", get(async move || branch.to_string()))
            .fallback(get(hidden))
    };
    let github = Github(Server::start(guarded(json!({ "protected": true }))).await);
    let error = github.look(json!({})).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    assert!(error.message.contains("404 Not Found: Not Found"), "{}", error.message);
    let github = Github(Server::start(guarded(json!({ "name": "main" }))).await);
    assert_eq!(github.look(json!({})).await.unwrap_err().kind, ErrorKind::Refused);
    let github = Github(Server::start(guarded(json!({ "protected": false }))).await);
    github.gate("is not protected").await;
    // A server without rulesets has none.
    let old = Router::new().route(
        "/repos/gotong/royong/branches/main/protection",
        get(async || r#"{"required_status_checks":{"contexts":["CI / surreal-release-gates"]}}"#),
    );
    Github(Server::start(old).await).look(json!({})).await.unwrap();
}
