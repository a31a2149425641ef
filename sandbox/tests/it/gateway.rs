use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, multipart::Form};
use runbook_sandbox::{Options, Server};
use serde_json::{Value, json};

use crate::client::{Sandbox, few};

const FROZEN: &str = "0.0000001";

fn sha256(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn wire() -> Options {
    Options { wire: true, ..few() }
}

#[tokio::test]
async fn an_upload_is_checked_in_order_form_session_size_type_store() {
    let sandbox = Sandbox::few().await;
    sandbox.reconfigure("CHATKIT_ATTACHMENT_MAX_MB", FROZEN).await;
    let secret = sandbox.secret().await;
    sandbox.kill(Server::Store).await.unwrap();
    let code = |body: &Value| body["code"].as_str().unwrap().to_owned();

    // Everything is wrong; each answer names the first thing in the order.
    let form = sandbox.upload_form(Form::new().text("client_secret", "wrong")).await;
    assert_eq!((form.status.as_u16(), code(&form.body)), (400, "invalid_request".into()));
    let session = sandbox.upload("wrong", "video/mp4", b"x").await;
    assert_eq!((session.status.as_u16(), code(&session.body)), (401, "invalid_secret".into()));
    let size = sandbox.upload(&secret, "video/mp4", b"x").await;
    assert_eq!(size.status, 413);
    assert_eq!(
        size.body,
        json!({ "code": "attachment_too_large", "error": "attachments cannot exceed 0 KB" })
    );
    // The limit is exceeded only by more bytes than it: none are still allowed.
    let mime = sandbox.upload(&secret, "video/mp4", b"").await;
    assert_eq!((mime.status.as_u16(), code(&mime.body)), (415, "unsupported_media_type".into()));
    let store = sandbox.upload(&secret, "text/plain", b"").await;
    assert_eq!((store.status.as_u16(), code(&store.body)), (500, "storage_error".into()));
}

#[tokio::test]
async fn a_download_tells_size_type_and_digest() {
    let sandbox = Sandbox::few().await;
    let secret = sandbox.secret().await;
    let bytes: Vec<u8> = (0..=255).cycle().take(3 * 1024 * 1024).collect();
    let uploaded = sandbox.upload(&secret, "Image/PNG", &bytes).await;
    assert_eq!(uploaded.status, 201);
    let id = uploaded.body["attachment_id"].as_str().unwrap().to_owned();
    assert_eq!(uploaded.body["mime_type"], "image/png");
    assert_eq!(uploaded.body["upload_url"], format!("fountain://chatkit/attachments/{id}"));

    let response = sandbox.download(&secret, &id).await;
    assert_eq!(response.status(), 200);
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("etag"), sha256(&bytes));
    assert_eq!(header("content-length"), bytes.len().to_string());
    assert_eq!(header("content-type"), "image/png");
    assert_eq!(header("cache-control"), "no-store");
    assert_eq!(header("content-disposition"), "attachment; filename=\"a b.bin\"");
    assert!(response.bytes().await.unwrap() == bytes, "the bytes differ");

    // Content first, then its description.
    let puts: Vec<_> = sandbox.effects().await.unwrap();
    let collections: Vec<_> = puts.iter().map(|effect| effect.collection.as_deref().unwrap()).collect();
    assert_eq!(collections, ["attachments", "attachment-metadata"]);
    let events = sandbox.events().await.unwrap();
    let kinds: Vec<_> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["attachmentUploadSucceeded", "attachmentDownloadSucceeded"]);
    assert_eq!(events[1]["bytes"], bytes.len());
    assert_eq!(events[0]["attachmentId"], id);
}

#[tokio::test]
async fn a_download_is_refused_for_a_reason_that_is_named() {
    let sandbox = Sandbox::few().await;
    let secret = sandbox.secret().await;
    let uploaded = sandbox.upload(&secret, "text/plain", b"hello").await;
    let id = uploaded.body["attachment_id"].as_str().unwrap();
    let refusal = async |secret: &str, id: &str| {
        let answer = crate::client::answer(sandbox.download(secret, id).await).await;
        (answer.status.as_u16(), answer.body["code"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(refusal("", id).await, (400, "invalid_request".into()));
    assert_eq!(refusal("wrong", id).await, (401, "invalid_secret".into()));
    assert_eq!(refusal(&secret, "11111111-2222-4333-8444-555555555555").await, (404, "not_found".into()));
    let other = sandbox.secret().await;
    assert_eq!(refusal(&other, id).await, (403, "forbidden".into()));
    let seeded = sandbox.doc_ids("attachment-metadata").await.unwrap();
    let seeded = seeded.iter().find(|seeded| *seeded != id).unwrap();
    assert_eq!(refusal(&secret, seeded).await, (403, "forbidden".into()));

    let path = format!("/corpora/chatkit/collections/attachments/docs/{id}");
    let blob = sandbox.store(Method::GET, &path, None).await.body;
    for (content, message) in
        [("hell", "attachment size metadata mismatch"), ("HELLO", "attachment checksum mismatch")]
    {
        let mut changed = blob.clone();
        changed["dataBase64"] = STANDARD.encode(content).into();
        assert_eq!(sandbox.store(Method::PUT, &path, Some(changed)).await.status, 200);
        let answer = crate::client::answer(sandbox.download(&secret, id).await).await;
        assert_eq!(answer.status, 409);
        assert_eq!(answer.body, json!({ "code": "metadata_mismatch", "error": message }));
    }
    let failures = sandbox.events().await.unwrap();
    let failures: Vec<_> =
        failures.iter().filter(|event| event["kind"] == "attachmentDownloadFailed").collect();
    assert_eq!(failures.len(), 7);
    assert_eq!(failures[6]["level"], "warn");
}

#[tokio::test]
async fn on_the_wire_an_oversize_is_a_400_without_a_code_and_leaves_no_event() {
    let sandbox = Sandbox::start(&wire()).await;
    sandbox.reconfigure("CHATKIT_ATTACHMENT_MAX_MB", FROZEN).await;
    let secret = sandbox.secret().await;
    let refused = sandbox.upload(&secret, "text/plain", b"x").await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.body, json!({ "error": "[attachment_too_large] attachments cannot exceed 0 KB" }));
    assert_eq!(sandbox.upload("wrong", "text/plain", b"x").await.status, 401);
    assert!(sandbox.events().await.unwrap().is_empty());
}

#[tokio::test]
async fn on_the_wire_the_type_is_lost_and_so_is_a_large_body() {
    let sandbox = Sandbox::start(&wire()).await;
    let secret = sandbox.secret().await;
    for (size, arrives) in [(2 * 1024 * 1024, true), (2 * 1024 * 1024 + 1, false)] {
        let bytes = vec![7; size];
        let uploaded = sandbox.upload(&secret, "image/png", &bytes).await;
        assert_eq!(uploaded.status, 201);
        assert_eq!(uploaded.body["mime_type"], "application/octet-stream");
        let response = sandbox.download(&secret, uploaded.body["attachment_id"].as_str().unwrap()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["etag"].to_str().unwrap(), sha256(&bytes));
        assert_eq!(response.headers()["content-type"], "application/octet-stream");
        assert_eq!(response.bytes().await.unwrap().len(), if arrives { size } else { 0 });
    }
}

#[tokio::test]
async fn the_limit_is_read_at_the_start_and_zero_does_not_freeze() {
    let sandbox = Sandbox::few().await;
    let upload = async |bytes: &[u8]| {
        let secret = sandbox.secret().await;
        sandbox.upload(&secret, "text/plain", bytes).await.status.as_u16()
    };
    let text = std::fs::read_to_string(sandbox.env_file()).unwrap();
    let edited = text.replace("CHATKIT_ATTACHMENT_MAX_MB=25", "CHATKIT_ATTACHMENT_MAX_MB=0.0000001");
    std::fs::write(sandbox.env_file(), edited).unwrap();
    assert_eq!(upload(b"x").await, 201, "not read before a restart");
    sandbox.restart(Server::Gateway).await.unwrap();
    assert_eq!(upload(b"x").await, 413);

    sandbox.reconfigure("CHATKIT_ATTACHMENT_MAX_MB", "0").await;
    assert_eq!(upload(b"x").await, 201, "0 falls back to the default");
    assert_eq!(upload(&vec![0; 25 * 1_048_576 + 1]).await, 413);

    sandbox.reconfigure("CHATKIT_ATTACHMENT_ALLOWED_MIME_TYPES", "").await;
    assert_eq!(upload(b"x").await, 415, "a list that is set but empty allows nothing");
}

#[tokio::test]
async fn the_guardian_stops_what_destroys_and_the_access_log_shows_the_query() {
    let sandbox = Sandbox::few().await;
    let url = format!("{}/chatkit/attachments/x?client_secret=a%2Bb", sandbox.gateway_url());
    let answer = crate::client::answer(sandbox.http.delete(&url).send().await.unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.body), (403, json!({ "error": "guardian" })));
    let elsewhere = format!("{}/elsewhere", sandbox.gateway_url());
    assert_eq!(sandbox.http.delete(elsewhere).send().await.unwrap().status(), 403);
    assert_eq!(sandbox.http.get(url).send().await.unwrap().status(), 401);

    let lines = std::fs::read_to_string(sandbox.dir().join("gateway.err")).unwrap();
    let access: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let path = "/chatkit/attachments/x?client_secret=a%2Bb";
    let logged = |method: &str, status: u16| {
        access.iter().any(|line| {
            line["evt"] == "http_access"
                && line["path"] == path
                && line["method"] == method
                && line["status"] == status
        })
    };
    assert!(logged("DELETE", 403) && logged("GET", 401), "{lines}");
}

#[tokio::test]
async fn the_cleanup_deletes_what_is_older_than_its_time_to_live() {
    let sandbox = Sandbox::start(&Options { attachments: 30, orphans: 1, ..few() }).await;
    let secret = sandbox.secret().await;
    let fresh = sandbox.upload(&secret, "text/plain", b"fresh").await.body["attachment_id"].clone();
    std::fs::write(
        sandbox.env_file(),
        "CHATKIT_ATTACHMENT_TTL_HOURS=0.01\nCHATKIT_ATTACHMENT_CLEANUP_BATCH_SIZE=7\n\
         CHATKIT_ATTACHMENT_CLEANUP_INTERVAL_MINUTES=0.002\n",
    )
    .unwrap();
    sandbox.restart(Server::Gateway).await.unwrap();
    let started = Instant::now();
    while sandbox.doc_ids("attachment-metadata").await.unwrap().len() > 1 {
        assert!(started.elapsed() < Duration::from_secs(20), "nothing was cleaned up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(sandbox.doc_ids("attachment-metadata").await.unwrap(), [fresh.as_str().unwrap()]);
    // The orphan has no description, so the job never finds it.
    assert_eq!(sandbox.doc_ids("attachments").await.unwrap().len(), 2);
    let events = sandbox.events().await.unwrap();
    let deleted: u64 = events.iter().filter_map(|event| event["deleted"].as_u64()).sum();
    assert_eq!(deleted, 30);
}
