//! The stand-in of the chat API, on a real S3 store and without one.

use reqwest::multipart::{Form, Part};
use reqwest::{Client, StatusCode, redirect};
use runbook_sandbox::chat::token;
use runbook_sandbox::weed::{ACCESS_KEY, SECRET_KEY, Weed};
use runbook_sandbox::{Api, sandbox_binary};
use serde_json::Value;

const SECRET: &str = "jwt secret";

/// The API as a process.
struct Chat {
    api: Api,
    http: Client,
}

impl Chat {
    /// Starts one; what it said when it did not come to listen.
    async fn start(environment: &[(&str, &str)]) -> Result<Self, String> {
        let all = [&[("JWT_SECRET", SECRET)], environment].concat();
        let api = Api::start(&sandbox_binary().unwrap(), "chat-api", &all).await;
        let http = Client::builder().redirect(redirect::Policy::none()).build().unwrap();
        api.map(|api| Self { api, http }).map_err(|error| error.to_string())
    }

    async fn send(&self, token: &str, form: Form) -> (StatusCode, Value) {
        let request = self.http.post(format!("{}/v1/chat/attachments/upload", self.api.url)).multipart(form);
        let answer = request.bearer_auth(token).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    async fn upload(&self, bytes: &[u8], name: &str, mime_type: &str) -> (StatusCode, Value) {
        let part = Part::bytes(bytes.to_vec()).file_name(name.to_owned()).mime_str(mime_type).unwrap();
        self.send(&token(SECRET, "ada"), Form::new().text("note", "no file").part("file", part)).await
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(format!("{}{path}", self.api.url)).send().await.unwrap()
    }
}

#[tokio::test]
async fn with_s3_a_download_leads_to_the_store_and_without_it_does_not() {
    let weed = Weed::start().await.unwrap();
    let s3 = [
        ("S3_ENDPOINT", weed.url.as_str()),
        ("S3_BUCKET", "evidence"),
        ("S3_ACCESS_KEY", ACCESS_KEY),
        ("S3_SECRET_KEY", SECRET_KEY),
        ("APP_ENV", " Staging "),
        ("CHAT_ATTACHMENT_S3_PREFIX", "/chat-attachments/"),
    ];
    // Without its bucket it falls back, or does not start.
    let local = Chat::start(&s3).await.unwrap();
    assert!(local.api.said.contains("falling back to local chat attachment storage"), "{}", local.api.said);
    let (_, kept) = local.upload(b"here", "a b.png", "image/png").await;
    let answer = local.get(kept["url"].as_str().unwrap()).await;
    assert_eq!((answer.status(), &answer.bytes().await.unwrap()[..]), (StatusCode::OK, &b"here"[..]));
    for strict in [("CHAT_ATTACHMENT_STORAGE_BACKEND", "s3"), ("APP_ENV", "Production")] {
        let said = Chat::start(&[&s3[..], &[strict]].concat()).await.err().unwrap();
        assert!(said.contains("failed to initialize S3 chat attachment storage"), "{said}");
    }

    weed.make_bucket("evidence").await.unwrap();
    let chat = Chat::start(&[&s3[..], &[("CHAT_ATTACHMENT_STORAGE_BACKEND", "s3")]].concat()).await.unwrap();
    let (status, kept) = chat.upload(b"PNGDATA", "my foto.png", "image/png").await;
    assert_eq!(
        (status, &kept["file_name"], &kept["size_bytes"]),
        (StatusCode::OK, &"my_foto.png".into(), &7.into())
    );
    let id = kept["attachment_id"].as_str().unwrap();
    assert!(id.len() == 32 && id.as_bytes()[12] == b'7', "{id}");
    let link = kept["url"].as_str().unwrap();
    let answer = chat.get(link).await;
    assert_eq!(answer.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(answer.headers()["cache-control"], "private,max-age=300");
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let key = format!("{}/evidence/chat-attachments/staging/{id}", weed.url);
    assert!(location.starts_with(&format!("{key}.bin?")), "{location}");
    let answer = chat.http.get(&location).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "image/png");
    assert_eq!(&answer.bytes().await.unwrap()[..], b"PNGDATA");
    // A signature is for one object.
    let other = location.replace(".bin?", ".json?");
    assert_eq!(chat.http.get(&other).send().await.unwrap().status(), StatusCode::FORBIDDEN);

    // What is refused, and in which words.
    for path in [
        link.replace("sig=", "sig=0"),
        link.replace("exp=", "exp=9"),
        format!("/v1/chat/attachments/{id}/download"),
    ] {
        assert_eq!(chat.get(&path).await.status(), StatusCode::FORBIDDEN, "{path}");
    }
    let (status, said) = chat.upload(b"x", "a.txt", "text/plain").await;
    assert_eq!((status, &said["error"]["code"]), (StatusCode::BAD_REQUEST, &"validation_error".into()));
    assert!(said["error"]["message"].as_str().unwrap().starts_with("validation failed: "), "{said}");
    assert_eq!(chat.upload(b"", "a.png", "image/png").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(chat.send("wrong", Form::new()).await.0, StatusCode::UNAUTHORIZED);

    let measured = chat.get("/metrics").await.text().await.unwrap();
    let uploads = "gotong_api_http_requests_total{method=\"POST\",route=\"/v1/chat/attachments/upload\"} 4";
    assert!(measured.contains(uploads) && !measured.contains("errors_total"), "{measured}");
}
