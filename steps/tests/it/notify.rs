//! `notify` against a receiver that refuses, breaks off, or takes.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use runbook_engine::error::ErrorKind;
use runbook_engine::step::Intent;
use runbook_steps::digest::hmac_sha256;
use serde_json::{Value, json};

use crate::common::{Bench, planned};
use crate::server::Server;

/// The bodies and headers that came in, and the statuses to answer; 200 when there are no more.
#[derive(Default)]
struct Inbox {
    received: Vec<(HeaderMap, Vec<u8>)>,
    answers: Vec<u16>,
}

type Shared = Arc<Mutex<Inbox>>;

async fn receive(State(inbox): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut inbox = inbox.lock().unwrap();
    inbox.received.push((headers, body.to_vec()));
    let status = if inbox.answers.is_empty() { 200 } else { inbox.answers.remove(0) };
    StatusCode::from_u16(status).unwrap()
}

async fn receiver(answers: &[u16]) -> (Server, Shared) {
    let inbox = Shared::default();
    inbox.lock().unwrap().answers = answers.to_vec();
    let server = Server::start(Router::new().route("/hook", post(receive)).with_state(inbox.clone())).await;
    (server, inbox)
}

async fn bench(server: &Server, more: Value) -> Bench {
    let mut with = json!({
        "url": format!("{}/hook?token=in-the-query", server.url),
        "message": "frozen for 30 minutes",
        "secret": "sesame",
        "delay": "10ms",
        "max_delay": "40ms",
    });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Bench::new(vec![planned("tell", "notify", with)], json!({}), json!({})).await
}

#[tokio::test]
async fn a_notification_is_signed_and_names_its_delivery() {
    let (server, inbox) = receiver(&[]).await;
    let bench = bench(&server, json!({})).await;
    let outputs = bench.enter("tell").await.unwrap();
    assert_eq!(outputs["delivered"], true);
    assert_eq!(outputs["attempts"].as_array().unwrap().len(), 1);
    let inbox = inbox.lock().unwrap();
    let (headers, body) = &inbox.received[0];
    assert_eq!(headers["x-runbook-signature"], format!("sha256={}", hmac_sha256("sesame", body)));
    assert_eq!(headers["x-runbook-delivery"], "run-1:tell");
    assert!(headers.contains_key("x-runbook-timestamp"));
    let body: Value = serde_json::from_slice(body).unwrap();
    let expected =
        json!({ "run": "run-1", "runbook": "bench", "step": "tell", "message": "frozen for 30 minutes" });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn headers_go_along_and_the_signature_stands_where_the_receiver_looks() {
    let (server, inbox) = receiver(&[]).await;
    let more = json!({
        "headers": { "X-Tenant-Id": "acme", "Content-Type": "application/cloudevents+json" },
        "signature_header": "X-Omerta-Signature",
    });
    let bench = bench(&server, more).await;
    assert_eq!(bench.enter("tell").await.unwrap()["delivered"], true);
    let inbox = inbox.lock().unwrap();
    let (headers, body) = &inbox.received[0];
    assert_eq!(headers["x-omerta-signature"], format!("sha256={}", hmac_sha256("sesame", body)));
    assert!(!headers.contains_key("x-runbook-signature"));
    assert_eq!(headers["x-tenant-id"], "acme");
    let types: Vec<_> = headers.get_all("content-type").iter().collect();
    assert_eq!(types, ["application/cloudevents+json"]);
}

#[tokio::test]
async fn passing_failures_are_retried_with_the_same_bytes_and_growing_waits() {
    let (server, inbox) = receiver(&[503, 429, 408, 500]).await;
    let bench = bench(&server, json!({})).await;
    let outputs = bench.enter("tell").await.unwrap();
    let waits: Vec<_> =
        outputs["attempts"].as_array().unwrap().iter().map(|one| one["waited_ms"].clone()).collect();
    assert_eq!(waits, [0, 10, 20, 40, 40]);
    let received = &inbox.lock().unwrap().received;
    assert!(received.iter().all(|(headers, body)| {
        body == &received[0].1 && headers["x-runbook-delivery"] == received[0].0["x-runbook-delivery"]
    }));
}

#[tokio::test]
async fn after_five_attempts_there_is_a_dead_letter_and_a_failed_gate() {
    let (server, inbox) = receiver(&[500; 20]).await;
    let bench = bench(&server, json!({})).await;
    let error = bench.enter("tell").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gate);
    assert!(error.message.contains("after 5 attempts: status 500"), "{error}");
    // Entered again it does not begin from the start.
    assert!(bench.enter("tell").await.is_err());
    assert_eq!(inbox.lock().unwrap().received.len(), 5);
}

#[tokio::test]
async fn what_is_not_required_leaves_its_dead_letter_and_goes_on() {
    let (server, inbox) = receiver(&[404]).await;
    let bench = bench(&server, json!({ "required": false })).await;
    let outputs = bench.enter("tell").await.unwrap();
    assert_eq!(outputs["delivered"], false);
    assert_eq!(inbox.lock().unwrap().received.len(), 1, "404 is final");
    let text = bench.text(&outputs["dead_letter"]);
    assert!(!text.contains("sesame") && !text.contains("in-the-query"), "{text}");
    let letter: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(letter["attempts"][0]["status"], 404);
    assert_eq!(letter["body"]["message"], "frozen for 30 minutes");
}

#[tokio::test]
async fn an_attempt_that_a_crash_cut_off_is_one_of_the_five() {
    let (server, inbox) = receiver(&[503; 20]).await;
    let bench = bench(&server, json!({ "required": false })).await;
    let what = json!({ "series": 0, "at": "2026-02-01T00:00:00Z", "waited_ms": 0 });
    let intent = Intent { what, items: 1, charged_items: 0, charged_bytes: 0 };
    bench.context("tell").ledger.intend(intent).await.unwrap();
    let outputs = bench.enter("tell").await.unwrap();
    assert_eq!(inbox.lock().unwrap().received.len(), 4);
    let attempts = outputs["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 5);
    assert!(attempts[0]["error"].as_str().unwrap().contains("process ended"));
}

#[tokio::test]
async fn an_explicit_resume_has_five_attempts_again() {
    let (server, inbox) = receiver(&[500; 5]).await;
    let bench = bench(&server, json!({})).await;
    assert!(bench.run("tell", 1).await.is_err());
    bench.reopen("tell").await;
    assert_eq!(bench.run("tell", 2).await.unwrap()["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(inbox.lock().unwrap().received.len(), 6);
}

#[tokio::test]
async fn nobody_listening_is_retried_too() {
    let (server, _) = receiver(&[]).await;
    let url = format!("{}/hook", server.url);
    drop(server);
    let with = json!({ "url": url, "delay": "1ms", "max_attempts": 2, "required": false });
    let bench = Bench::new(vec![planned("tell", "notify", with)], json!({}), json!({})).await;
    let outputs = bench.enter("tell").await.unwrap();
    assert_eq!(outputs["attempts"].as_array().unwrap().len(), 2);
    assert!(outputs["attempts"][0]["error"].as_str().unwrap().contains("no connection"));
}

#[tokio::test]
async fn settings_that_can_not_be_are_invalid() {
    for with in [
        json!({}),
        json!({ "url": "ftp://h/" }),
        json!({ "connection": "c" }),
        json!({ "url": "http://h/", "max_attempts": 6 }),
        json!({ "url": "http://h/", "payload": 1, "message": "m" }),
        json!({ "url": "http://h/", "signature_header": "not a name" }),
        json!({ "url": "http://h/", "headers": { "a:b": "c" } }),
        json!({ "url": "http://h/", "headers": { "a": "line\nbreak" } }),
    ] {
        let bench = Bench::new(vec![planned("tell", "notify", with)], json!({}), json!({})).await;
        assert_eq!(bench.enter("tell").await.unwrap_err().kind, ErrorKind::Invalid);
    }
}
