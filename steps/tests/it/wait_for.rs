//! `wait-for`, with real ports, files and servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use jiff::{SignedDuration, Timestamp};
use runbook_engine::drive::{Finish, Halt, Purpose};
use runbook_engine::error::ErrorKind;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::driven::{Driven, error, outputs, step};
use crate::server::Server;

fn wait(mut with: Value) -> Vec<runbook_engine::plan::PlannedStep> {
    with["interval"] = json!("20ms");
    vec![step("x", "wait-for", with)]
}

#[tokio::test]
async fn it_waits_until_a_server_answers_as_expected() {
    let count = Arc::new(AtomicU32::new(0));
    let seen = count.clone();
    let health = get(move || async move {
        if seen.fetch_add(1, Ordering::SeqCst) < 2 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    });
    let server = Server::start(Router::new().route("/health", health)).await;
    let driven = Driven::new(&json!({"api": {"type": "http", "url": server.url}}), &json!({}));
    let target = json!({"connection": "api", "path": "/health"});
    let state = driven.run("r", wait(json!({"http": target, "timeout": "10s"}))).await;
    assert_eq!(
        (&outputs(&state, "x")["attempts"], &outputs(&state, "x")["last"]),
        (&json!(3), &json!("status 200"))
    );
    let never = json!({"connection": "api", "path": "/health", "expect": {"status": [418]}});
    let state = driven.run("s", wait(json!({"http": never, "timeout": "100ms"}))).await;
    assert_eq!(error(&state, "x").kind, ErrorKind::Timeout);
    assert!(error(&state, "x").message.contains("status 200"), "{:?}", error(&state, "x"));
    let post = json!({"connection": "api", "path": "/health", "method": "POST"});
    let state = driven.run("t", wait(json!({"http": post}))).await;
    assert_eq!(error(&state, "x").kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn it_waits_for_ports_files_and_times() {
    let driven = Driven::new(&json!({}), &json!({}));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tcp = json!({"host": "127.0.0.1", "port": port});
    outputs(&driven.run("tcp", wait(json!({"tcp": tcp}))).await, "x");
    drop(listener);
    let state = driven.run("closed", wait(json!({"tcp": tcp, "timeout": "60ms"}))).await;
    assert_eq!(error(&state, "x").kind, ErrorKind::Timeout);
    let path = driven.path("ready");
    let (state, ()) = tokio::join!(driven.run("file", wait(json!({"file": {"path": path}}))), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        std::fs::write(&path, "").unwrap();
    });
    assert!(outputs(&state, "x")["attempts"].as_u64().unwrap() > 1);
    let state = driven.run("duration", wait(json!({"duration": "150ms"}))).await;
    assert!(outputs(&state, "x")["waited_ms"].as_u64().unwrap() >= 150);
    let until = (Timestamp::now() - SignedDuration::from_secs(5)).to_string();
    outputs(&driven.run("until", wait(json!({"until": until}))).await, "x");
    let state = driven.run("two", wait(json!({"until": until, "duration": "1s"}))).await;
    assert_eq!(error(&state, "x").kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn it_stops_at_once_and_goes_on_with_the_rest() {
    let driven = Driven::new(&json!({}), &json!({}));
    driven.create("r", wait(json!({"duration": "1s"}))).await;
    let begun = Instant::now();
    let (finish, ()) = tokio::join!(driven.drive("r", Purpose::GoOn), async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        driven.halt.send_replace(Halt::Gently);
    });
    assert!(matches!(finish.unwrap(), Finish::Halted(_)) && begun.elapsed() < Duration::from_millis(900));
    driven.halt.send_replace(Halt::No);
    driven.ended("r", Purpose::GoOn).await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_millis(1390), "{took:?}");
}
