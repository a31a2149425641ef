use std::time::Duration;

use serde_json::json;

use crate::client::{Sandbox, few};

#[tokio::test]
async fn a_refresh_keeps_the_session_and_voids_the_old_secret_at_once() {
    let sandbox = Sandbox::few().await;
    let opened = sandbox.session().await;
    let old = opened["client_secret"].as_str().unwrap();
    let uploaded = sandbox.upload(old, "text/plain", b"hello").await;
    let id = uploaded.body["attachment_id"].as_str().unwrap();

    let refreshed = sandbox.gateway("/chatkit/session/refresh", &json!({ "client_secret": old })).await;
    assert_eq!(refreshed.status, 200);
    assert_eq!(refreshed.body["session_id"], opened["session_id"]);
    assert_eq!(refreshed.body["metadata"], json!({ "by": "test" }));
    let new = refreshed.body["client_secret"].as_str().unwrap();
    assert_ne!(new, old);
    assert_eq!(sandbox.download(new, id).await.status(), 200);
    assert_eq!(sandbox.download(old, id).await.status(), 401);

    let again = sandbox.gateway("/chatkit/session/refresh", &json!({ "client_secret": old })).await;
    assert_eq!((again.status.as_u16(), &again.body["code"]), (401, &json!("invalid_secret")));
    let missing = sandbox.gateway("/chatkit/session/refresh", &json!({})).await;
    assert_eq!(missing.status, 400);
    assert_eq!(missing.body, json!({ "code": "invalid_request", "error": "missing client_secret" }));
}

#[tokio::test]
async fn a_session_dies_unless_refreshed() {
    let sandbox =
        Sandbox::start(&runbook_sandbox::Options { session_ttl: Duration::from_secs(2), ..few() }).await;
    let mut secret = sandbox.secret().await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let body = json!({ "client_secret": secret });
        let refreshed = sandbox.gateway("/chatkit/session/refresh", &body).await;
        assert_eq!(refreshed.status, 200);
        secret = refreshed.body["client_secret"].as_str().unwrap().to_owned();
    }
    assert_eq!(sandbox.upload(&secret, "text/plain", b"x").await.status, 201);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(sandbox.upload(&secret, "text/plain", b"x").await.status, 401);
}

#[tokio::test]
async fn a_session_without_a_body_lives_fifteen_minutes_and_ends_with_the_process() {
    let sandbox = Sandbox::few().await;
    let url = format!("{}/chatkit/session", sandbox.gateway_url());
    let opened: serde_json::Value = sandbox.http.post(url).send().await.unwrap().json().await.unwrap();
    assert!(opened.get("metadata").is_none());
    let expires: jiff::Timestamp = opened["expires_at"].as_str().unwrap().parse().unwrap();
    let left = expires.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((880..=900).contains(&left), "{left}");

    let secret = opened["client_secret"].as_str().unwrap();
    sandbox.restart(runbook_sandbox::Server::Gateway).await.unwrap();
    assert_eq!(sandbox.upload(secret, "text/plain", b"x").await.status, 401);
}
