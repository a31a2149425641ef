use std::time::{Duration, Instant};

use reqwest::Method;
use runbook_sandbox::{
    Server,
    admin::{Fault, FaultAction},
};
use serde_json::json;

use crate::client::Sandbox;

fn on_delete(after: u64, times: u64, action: FaultAction) -> Fault {
    Fault { method: Some("DELETE".into()), path_prefix: "/corpora".into(), after, times, action }
}

async fn sandbox_with_ids() -> (Sandbox, Vec<String>) {
    let sandbox = Sandbox::few().await;
    let ids = sandbox.doc_ids("attachments").await.unwrap();
    let paths = ids.iter().map(|id| format!("/corpora/chatkit/collections/attachments/docs/{id}")).collect();
    (sandbox, paths)
}

#[tokio::test]
async fn a_status_hits_so_many_requests_after_so_many() {
    let (sandbox, paths) = sandbox_with_ids().await;
    let action = FaultAction { status: Some(503), retry_after: Some(2), ..FaultAction::default() };
    sandbox.fault(Server::Store, &on_delete(1, 2, action)).await.unwrap();
    let mut statuses = Vec::new();
    for path in &paths[..4] {
        assert_eq!(sandbox.store(Method::GET, path, None).await.status, 200, "another method");
        let response = sandbox.try_store(Method::DELETE, path, None).await.unwrap();
        if response.status() == 503 {
            assert_eq!(response.headers()["retry-after"], "2");
        }
        statuses.push(response.status().as_u16());
    }
    assert_eq!(statuses, [200, 503, 503, 200]);
    assert_eq!(sandbox.effects().await.unwrap().len(), 2);
    let logged = sandbox.requests(Server::Store).await.unwrap();
    let logged: Vec<_> = logged.iter().filter(|entry| entry.method == "DELETE").collect();
    assert_eq!(logged.iter().map(|entry| entry.status.unwrap()).collect::<Vec<_>>(), statuses);
    assert!(logged.is_sorted_by_key(|entry| entry.seq));
    assert_eq!(logged[0].path, paths[0]);
}

#[tokio::test]
async fn a_cut_after_the_effect_leaves_the_effect_and_no_answer() {
    let (sandbox, paths) = sandbox_with_ids().await;
    let action = FaultAction { cut_after_effect: true, ..FaultAction::default() };
    sandbox.fault(Server::Store, &on_delete(0, 1, action)).await.unwrap();
    assert!(sandbox.try_store(Method::DELETE, &paths[0], None).await.is_err());
    assert_eq!(sandbox.store(Method::GET, &paths[0], None).await.status, 404);
    assert_eq!(sandbox.effects().await.unwrap().len(), 1);
    let logged = sandbox.requests(Server::Store).await.unwrap();
    assert_eq!(logged.iter().find(|entry| entry.method == "DELETE").unwrap().status, None);
}

#[tokio::test]
async fn a_cut_before_the_effect_leaves_nothing() {
    let (sandbox, paths) = sandbox_with_ids().await;
    let action = FaultAction { cut_before_effect: true, ..FaultAction::default() };
    sandbox.fault(Server::Store, &on_delete(0, 1, action)).await.unwrap();
    assert!(sandbox.try_store(Method::DELETE, &paths[0], None).await.is_err());
    assert_eq!(sandbox.store(Method::GET, &paths[0], None).await.status, 200);
    assert!(sandbox.effects().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_truncated_body_ends_before_its_announced_length() {
    let (sandbox, paths) = sandbox_with_ids().await;
    let whole = sandbox.try_store(Method::GET, &paths[0], None).await.unwrap().bytes().await.unwrap();
    let fault = Fault {
        method: Some("GET".into()),
        path_prefix: "/corpora".into(),
        after: 0,
        times: 1,
        action: FaultAction { truncate_body: true, ..FaultAction::default() },
    };
    sandbox.fault(Server::Store, &fault).await.unwrap();
    let mut response = sandbox.try_store(Method::GET, &paths[0], None).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.content_length(), Some(whole.len() as u64));
    let first = response.chunk().await.unwrap().unwrap();
    assert_eq!(first, whole[..whole.len() / 2]);
    assert!(response.chunk().await.is_err());
}

#[tokio::test]
async fn a_delay_passes_and_a_missing_capability_does_not() {
    let (sandbox, paths) = sandbox_with_ids().await;
    let delay = FaultAction { delay_ms: Some(300), ..FaultAction::default() };
    sandbox.fault(Server::Store, &on_delete(0, 1, delay)).await.unwrap();
    let started = Instant::now();
    assert_eq!(sandbox.store(Method::DELETE, &paths[0], None).await.status, 200);
    assert!(started.elapsed() >= Duration::from_millis(300));

    let missing = FaultAction { not_supported: Some("documents.delete".into()), ..FaultAction::default() };
    sandbox.fault(Server::Store, &on_delete(0, 9, missing.clone())).await.unwrap();
    let refused = sandbox.store(Method::DELETE, &paths[1], None).await;
    assert_eq!((refused.status.as_u16(), &refused.body["need"]), (501, &json!("documents.delete")));
    let told =
        Fault { method: None, path_prefix: "/capabilities".into(), after: 0, times: 1, action: missing };
    sandbox.fault(Server::Store, &told).await.unwrap();
    let capabilities = sandbox.store(Method::GET, "/capabilities", None).await.body;
    assert_eq!(capabilities["documents"], json!(["upsert", "get"]));

    sandbox.clear_faults(Server::Store).await.unwrap();
    assert_eq!(sandbox.store(Method::DELETE, &paths[1], None).await.status, 200);
}

#[tokio::test]
async fn the_gateway_fails_on_demand_too_and_a_senseless_fault_is_refused() {
    let sandbox = Sandbox::few().await;
    let secret = sandbox.secret().await;
    let action = FaultAction { cut_after_effect: true, ..FaultAction::default() };
    let fault = Fault {
        method: Some("POST".into()),
        path_prefix: "/chatkit/upload".into(),
        after: 0,
        times: 1,
        action,
    };
    sandbox.fault(Server::Gateway, &fault).await.unwrap();
    let form = reqwest::multipart::Form::new().text("client_secret", secret).part(
        "file",
        reqwest::multipart::Part::bytes(b"x".to_vec()).file_name("x").mime_str("text/plain").unwrap(),
    );
    let url = format!("{}/chatkit/upload", sandbox.gateway_url());
    assert!(sandbox.http.post(url).multipart(form).send().await.is_err());
    assert_eq!(sandbox.doc_ids("attachment-metadata").await.unwrap().len(), 9);

    for action in [
        FaultAction::default(),
        FaultAction { status: Some(503), truncate_body: true, ..FaultAction::default() },
        FaultAction { status: Some(7), ..FaultAction::default() },
    ] {
        assert!(sandbox.fault(Server::Gateway, &on_delete(0, 1, action)).await.is_err());
    }
}
