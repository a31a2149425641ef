//! `smoke-upload`, against a real store and an application that does what a test tells it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::presigning::PresigningConfig;
use axum::extract::{Multipart, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use runbook_engine::error::{ErrorKind, StepError};
use runbook_sandbox::weed::Weed;
use runbook_steps::connections::s3::S3;
use serde_json::{Value, json};

use crate::common::{Bench, planned};
use crate::s3::make;
use crate::server::Server;

/// The application: what it does, and what it was told of the uploads.
struct App {
    does: Mutex<&'static str>,
    seen: Mutex<Vec<String>>,
    s3: Arc<S3>,
}

impl App {
    fn does(&self) -> &'static str {
        *self.does.lock().unwrap()
    }
}

async fn upload(State(app): State<Arc<App>>, headers: HeaderMap, mut form: Multipart) -> Response {
    let part = form.next_field().await.unwrap().unwrap();
    let name = part.file_name().unwrap().to_owned();
    let told = format!("{} {name} {}", part.name().unwrap(), part.content_type().unwrap());
    app.seen.lock().unwrap().push(told);
    assert_eq!(headers[header::AUTHORIZATION], "Bearer t");
    let mut bytes = part.bytes().await.unwrap().to_vec();
    match app.does() {
        "refuses" => {
            let error =
                json!({ "error": { "code": "validation_error", "message": "validation failed: no file" } });
            return (StatusCode::BAD_REQUEST, Json(error)).into_response();
        }
        "accepts" => return StatusCode::ACCEPTED.into_response(),
        "changes a byte" => bytes[0] ^= 1,
        "adds a byte" => bytes.push(0),
        _ => {}
    }
    let client = app.s3.client().await;
    for key in ["in/7.bin", "in/7.json", "in/8.bin", "out/7.bin"] {
        if !(app.does() == "keeps half" && key.ends_with("json")) {
            client.put_object().bucket("files").key(key).body(bytes.clone().into()).send().await.unwrap();
        }
    }
    let link = match app.does() {
        "links elsewhere" => "http://127.0.0.1:1/x",
        "links nowhere" => "",
        _ => "/a/7?sig=secret",
    };
    Json(json!({ "attachment_id": "7", "url": link })).into_response()
}

async fn download(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    assert!(!headers.contains_key(header::AUTHORIZATION), "a link needs no credential");
    let key = match app.does() {
        "mixes up" => "in/8.bin",
        "leads out" => "out/7.bin",
        _ => "in/7.bin",
    };
    let signing = PresigningConfig::expires_in(Duration::from_mins(1)).unwrap();
    let url = app.s3.client().await.get_object().bucket("files").key(key).presigned(signing).await.unwrap();
    let status = match app.does() {
        "hands out" => return "bytes".into_response(),
        "says nothing" => return StatusCode::TEMPORARY_REDIRECT.into_response(),
        "redirects so" => StatusCode::FOUND,
        "forbids" => return StatusCode::FORBIDDEN.into_response(),
        _ => StatusCode::TEMPORARY_REDIRECT,
    };
    let to = if app.does() == "leads away" { "http://other.example/in/7.bin?sig=secret" } else { url.uri() };
    (status, [(header::LOCATION, to)]).into_response()
}

async fn smoke(weed: &Weed, server: &Server) -> Result<Value, StepError> {
    let connections = json!({
        "api": { "type": "http", "url": server.url, "headers": { "Authorization": "Bearer t" } },
        "bucket": weed.bucket("files"),
    });
    let collections = json!({ "files": { "type": "s3-objects", "connection": "bucket", "prefix": "in/", "contents": false } });
    let with = json!({
        "connection": "api", "path": "/upload", "stored_in": "files", "keys": ["in/{id}.bin", "in/{id}.json"],
        "file": { "name": "foto.png", "mime_type": "image/png", "begins": "PNGDATA-" },
    });
    Bench::new(vec![planned("it", "smoke-upload", with)], connections, collections).await.enter("it").await
}

#[tokio::test]
async fn a_file_ends_in_the_store_under_its_keys_and_comes_back_by_its_link_or_the_step_fails() {
    let weed = Weed::start().await.unwrap();
    let s3 = make(&weed, "files").await;
    let app = Arc::new(App { does: Mutex::new("right"), seen: Mutex::default(), s3 });
    let routes = Router::new().route("/upload", post(upload)).route("/a/7", get(download));
    let server = Server::start(routes.with_state(Arc::clone(&app))).await;
    let found = smoke(&weed, &server).await.unwrap();
    assert_eq!((&found["id"], &found["keys"]), (&json!("7"), &json!(["in/7.bin", "in/7.json"])));
    assert_eq!((&found["upload_status"], &found["redirect_status"]), (&json!(200), &json!(307)));
    assert_eq!(*app.seen.lock().unwrap(), ["file foto.png image/png"]);

    for (does, kind, told) in [
        ("refuses", ErrorKind::Refused, "validation_error: validation failed: no file"),
        ("accepts", ErrorKind::Gate, "status 202 Accepted does not say that it is kept"),
        ("links elsewhere", ErrorKind::Gate, "leads to another server"),
        ("links nowhere", ErrorKind::Gate, "has no text at `/url`"),
        ("hands out", ErrorKind::Gate, "status 200 OK and hands it out itself, where 307"),
        ("redirects so", ErrorKind::Gate, "status 302 Found, and not with 307"),
        ("says nothing", ErrorKind::Gate, "says not where to"),
        ("forbids", ErrorKind::Refused, "following its link: status 403"),
        ("leads away", ErrorKind::Gate, "leads to http://other.example/in/7.bin, which is not among"),
        ("leads out", ErrorKind::Gate, "it is not below in/"),
        ("mixes up", ErrorKind::Gate, "leads to `in/8.bin`, and not to `in/7.bin`"),
        ("changes a byte", ErrorKind::Gate, "bytes that are not the"),
        ("adds a byte", ErrorKind::Refused, "the answer is longer than"),
        ("keeps half", ErrorKind::Gate, "there is no `in/7.json`"),
    ] {
        *app.does.lock().unwrap() = does;
        app.s3.client().await.delete_object().bucket("files").key("in/7.json").send().await.unwrap();
        let error = smoke(&weed, &server).await.unwrap_err();
        assert_eq!(error.kind, kind, "{does}: {error:?}");
        assert!(
            error.message.contains(told) && !error.message.contains("secret"),
            "{does}: {}",
            error.message
        );
    }
}
