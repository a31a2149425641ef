//! `verify-header` against a live gateway, and against servers that dress their headers.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::routing::get;
use runbook_engine::error::ErrorKind;
use runbook_sandbox::Server as Standin;
use runbook_sandbox::admin::{Fault, FaultAction};
use runbook_steps::digest::sha256;
use serde_json::{Value, json};

use crate::chatkit::Lab;
use crate::common::{Bench, planned};
use crate::server::Server;

fn download_fault(times: u64, action: FaultAction) -> Fault {
    let (method, path_prefix) = (Some("GET".to_owned()), "/chatkit/attachments".to_owned());
    Fault { method, path_prefix, after: 0, times, action }
}

#[tokio::test]
async fn a_live_sample_is_right_and_stays_the_same() {
    let lab = Lab::new(6).await;
    let restored = lab.restore().await.unwrap();
    let outputs = lab.verify(&restored, json!({ "sample": 3 })).await.unwrap();
    assert_eq!(
        (&outputs["checked"], &outputs["population"], &outputs["seed"]),
        (&json!(3), &json!(6), &json!("42"))
    );
    assert_eq!(outputs["sample"].as_array().unwrap().len(), 3);
    let results = lab.bench.records(&outputs["results"]);
    assert!(
        results.iter().all(|one| one["got"]["etag"] == one["expected"]["sha256"] && one["status"] == 200)
    );
    // Another number drawn later does not change what this step checks.
    let again = lab.verify(&restored, json!({ "sample": 5 })).await.unwrap();
    assert_eq!(again["sample"], outputs["sample"]);
}

#[tokio::test]
async fn a_session_that_is_gone_sends_the_uploads_back() {
    let mut lab = Lab::new(2).await;
    let restored = lab.restore().await.unwrap();
    lab.chatkit.restart(Standin::Gateway).await.unwrap();
    let error = lab.verify(&restored, json!({})).await.unwrap_err();
    assert_eq!((error.kind, error.rewind.as_deref()), (ErrorKind::Gate, Some("restore")));
    lab.bench.reopen_resources();
    let restored = lab.restore().await.unwrap();
    assert_eq!(restored["replaced"], 2);
    assert_eq!(lab.verify(&restored, json!({})).await.unwrap()["checked"], 2);
}

#[tokio::test]
async fn another_session_than_the_uploads_had_sends_them_back() {
    let lab = Lab::new(1).await;
    let restored = lab.restore().await.unwrap();
    let mut descriptors = lab.bench.records(&restored["descriptors"]);
    descriptors[0]["session_id"] = json!("another");
    let other = json!({ "descriptors": lab.bench.artifact("descriptors.jsonl", &descriptors) });
    let error = lab.verify(&other, json!({})).await.unwrap_err();
    assert_eq!(error.rewind.as_deref(), Some("restore"));
}

#[tokio::test]
async fn a_refusal_of_one_download_sends_the_uploads_back_too() {
    let lab = Lab::new(2).await;
    let restored = lab.restore().await.unwrap();
    let action = FaultAction { status: Some(403), ..FaultAction::default() };
    lab.chatkit.fault(Standin::Gateway, &download_fault(1, action)).await.unwrap();
    let error = lab.verify(&restored, json!({})).await.unwrap_err();
    assert_eq!(error.rewind.as_deref(), Some("restore"));
    let restored = lab.restore().await.unwrap();
    assert_eq!(restored["replaced"], 2, "the session was forgotten, so a new one is used");
    assert_eq!(lab.verify(&restored, json!({})).await.unwrap()["checked"], 2);
}

#[tokio::test]
async fn the_local_file_decides_and_not_the_manifest() {
    let lab = Lab::new(3).await;
    let restored = lab.restore().await.unwrap();
    let path = lab.chatkit.archive_dir().join("01.txt");
    let size = std::fs::read(&path).unwrap().len();
    std::fs::write(&path, vec![b'x'; size]).unwrap();
    std::fs::remove_file(lab.chatkit.archive_dir().join("02.txt")).unwrap();
    let error = lab.verify(&restored, json!({})).await.unwrap_err();
    assert!(error.message.starts_with("2 of 3 downloads are not right"), "{error}");
    let expected = sha256(&vec![b'x'; size]);
    for part in [&format!("ETag expected {expected}"), "body SHA-256 expected", "02.txt is missing"] {
        assert!(error.message.contains(part), "{error}");
    }
    assert!(!error.message.contains("old-00") && !error.message.contains("Content-Length"), "{error}");
}

#[tokio::test]
async fn an_attachment_that_vanished_fails_and_the_rest_is_checked() {
    let lab = Lab::new(3).await;
    let restored = lab.restore().await.unwrap();
    let action = FaultAction { status: Some(404), ..FaultAction::default() };
    lab.chatkit.fault(Standin::Gateway, &download_fault(1, action)).await.unwrap();
    let error = lab.verify(&restored, json!({})).await.unwrap_err();
    assert!(error.message.starts_with("1 of 3") && error.message.contains("404"), "{error}");
    assert_eq!(error.rewind, None);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_fetched_again() {
    let lab = Lab::new(2).await;
    let restored = lab.restore().await.unwrap();
    let action = FaultAction { truncate_body: true, ..FaultAction::default() };
    lab.chatkit.fault(Standin::Gateway, &download_fault(1, action)).await.unwrap();
    assert_eq!(lab.verify(&restored, json!({})).await.unwrap()["checked"], 2);
}

/// A server that answers `hello` with these headers for `/items/{name}`: the name says how the ETag is dressed.
async fn dressed(Path(name): Path<String>) -> (HeaderMap, &'static str) {
    let hash = sha256(b"hello");
    let mut headers = HeaderMap::new();
    let mut set = |header: &'static str, value: String| {
        headers.insert(HeaderName::from_static(header), HeaderValue::from_str(&value).unwrap());
    };
    match name.as_str() {
        "bare" => set("etag", hash),
        "quoted" => set("etag", format!("\"{hash}\"")),
        "weak" => set("etag", format!("W/\"{}\"", hash.to_uppercase())),
        "wrong" => set("etag", format!("\"{}\"", sha256(b"hallo"))),
        _ => {}
    }
    set("content-type", if name == "typed" { "image/png" } else { "text/plain; charset=utf-8" }.to_owned());
    (headers, "hello")
}

async fn verify_dressed(names: &[&str]) -> Result<Value, runbook_engine::error::StepError> {
    let server = Server::start(Router::new().route("/items/{name}", get(dressed))).await;
    let connections = json!({ "web": { "type": "http", "url": server.url } });
    let steps = vec![planned("verify", "verify-header", json!({}))];
    let bench = Bench::new(steps, connections, json!({})).await;
    let file = bench.folder.path().join("hello.txt");
    std::fs::write(&file, "hello").unwrap();
    let item = |name: &&str| {
        json!({
            "key": name, "attachment_id": name, "upload_url": null, "mime_type": "Text/Plain", "name": "hello.txt",
            "asset_mime_type": "text/markdown", "path": file, "bytes": 5, "sha256": "not what is compared",
            "session_id": null,
        })
    };
    let items: Vec<Value> = names.iter().map(item).collect();
    let with = json!({
        "connection": "web", "path": "/items/{attachment_id}", "items": bench.artifact("d.jsonl", &items),
    });
    bench.enter_with(bench.context("verify"), Some(with)).await
}

#[tokio::test]
async fn tags_may_be_bare_quoted_or_weak() {
    let outputs = verify_dressed(&["bare", "quoted", "weak"]).await.unwrap();
    assert_eq!(outputs["checked"], 3);
    assert_eq!(outputs["discrepancies"].as_array().unwrap().len(), 3);
    assert!(outputs["discrepancies"][0].as_str().unwrap().contains("served as text/plain"));
}

#[tokio::test]
async fn every_header_that_is_absent_or_wrong_is_named() {
    let error = verify_dressed(&["absent", "bare", "typed", "wrong"]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gate);
    let hash = sha256(b"hello");
    for part in [
        "3 of 4 downloads are not right".to_owned(),
        format!("absent: ETag expected {hash}, got nothing"),
        format!("typed: Content-Type expected text/plain, got image/png, ETag expected {hash}, got nothing"),
        format!("wrong: ETag expected {hash}, got {}", sha256(b"hallo")),
    ] {
        assert!(error.message.contains(&part), "{part}\n{error}");
    }
}

#[tokio::test]
async fn a_check_of_nothing_proves_nothing() {
    assert_eq!(verify_dressed(&[]).await.unwrap_err().kind, ErrorKind::Gate);
}
