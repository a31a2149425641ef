//! A sandbox, and what a ChatKit client and a store client do with it.

use std::{ops::Deref, path::Path};

use reqwest::{
    Client, Method, Response, StatusCode,
    multipart::{Form, Part},
};
use runbook_sandbox::{Chatkit, Options};
use serde_json::{Value, json};

pub const SANDBOX: &str = env!("CARGO_BIN_EXE_sandbox");

/// A sandbox with an HTTP client.
pub struct Sandbox {
    chatkit: Chatkit,
    pub http: Client,
}

impl Deref for Sandbox {
    type Target = Chatkit;

    fn deref(&self) -> &Chatkit {
        &self.chatkit
    }
}

/// An answer, taken apart.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

pub fn few() -> Options {
    Options { attachments: 8, orphans: 2, restore: 3, ..Options::default() }
}

impl Sandbox {
    pub async fn start(options: &Options) -> Self {
        let chatkit = Chatkit::start(Path::new(SANDBOX), options).await.unwrap();
        Self { chatkit, http: Client::builder().no_proxy().build().unwrap() }
    }

    pub async fn few() -> Self {
        Self::start(&few()).await
    }

    pub fn into_chatkit(self) -> Chatkit {
        self.chatkit
    }

    /// Sends a request with the key to the store.
    pub async fn store(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        answer(self.try_store(method, path, body).await.unwrap()).await
    }

    pub async fn try_store(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> reqwest::Result<Response> {
        let url = format!("{}{path}", self.store_url());
        let mut request = self.http.request(method, url).header("X-API-Key", self.api_key());
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await
    }

    pub async fn query(&self, collection: &str, query: Value) -> Answer {
        let path = format!("/corpora/chatkit/collections/{collection}/query");
        self.store(Method::POST, &path, Some(query)).await
    }

    pub async fn gateway(&self, path: &str, body: &Value) -> Answer {
        let url = format!("{}{path}", self.gateway_url());
        answer(self.http.post(url).json(body).send().await.unwrap()).await
    }

    /// Opens a session; its body.
    pub async fn session(&self) -> Value {
        let opened = self.gateway("/chatkit/session", &json!({ "metadata": { "by": "test" } })).await;
        assert_eq!(opened.status, 201);
        opened.body
    }

    /// Opens a session; its secret.
    pub async fn secret(&self) -> String {
        self.session().await["client_secret"].as_str().unwrap().to_owned()
    }

    pub async fn upload(&self, secret: &str, mime_type: &str, bytes: &[u8]) -> Answer {
        let part = Part::bytes(bytes.to_vec()).file_name("a b.bin").mime_str(mime_type).unwrap();
        let form = Form::new().text("client_secret", secret.to_owned()).part("file", part);
        self.upload_form(form).await
    }

    pub async fn upload_form(&self, form: Form) -> Answer {
        let url = format!("{}/chatkit/upload", self.gateway_url());
        answer(self.http.post(url).multipart(form).send().await.unwrap()).await
    }

    pub async fn download(&self, secret: &str, id: &str) -> Response {
        let url = format!("{}/chatkit/attachments/{id}", self.gateway_url());
        self.http.get(url).query(&[("client_secret", secret)]).send().await.unwrap()
    }

    /// Changes a variable in the gateway's environment file, and restarts the gateway.
    pub async fn reconfigure(&self, name: &str, value: &str) {
        let text = std::fs::read_to_string(self.env_file()).unwrap();
        let others =
            text.lines().filter(|line| !line.trim().starts_with(name)).collect::<Vec<_>>().join("\n");
        std::fs::write(self.env_file(), format!("{others}\n{name}={value}\n")).unwrap();
        self.restart(runbook_sandbox::Server::Gateway).await.unwrap();
    }
}

pub async fn answer(response: Response) -> Answer {
    let status = response.status();
    let text = response.text().await.unwrap();
    Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
}
