//! The gateway's way to the store: HTTP only.

use std::collections::HashSet;

use anyhow::{Context, ensure};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::records::CORPUS;

/// A client of the store.
pub(super) struct StoreClient {
    http: reqwest::Client,
    url: String,
    key: String,
    /// Collections whose corpus is known to exist. Never checked again, as in the real gateway: after the
    /// corpus was deleted by somebody else, storing fails until the corpus is back.
    ensured: Mutex<HashSet<&'static str>>,
}

#[derive(Deserialize)]
struct Page {
    documents: Vec<Value>,
}

impl StoreClient {
    pub(super) fn new(url: &str, key: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().build().context("cannot make the store client")?;
        Ok(Self {
            http,
            url: url.trim_end_matches('/').to_owned(),
            key: key.to_owned(),
            ensured: Mutex::default(),
        })
    }

    /// Stores a document.
    pub(super) async fn put(
        &self,
        collection: &'static str,
        id: &str,
        document: &impl Serialize,
    ) -> anyhow::Result<()> {
        self.ensure_corpus(collection).await?;
        let request = self.request(Method::PUT, &document_path(collection, id)).json(document);
        request.send().await?.error_for_status()?;
        Ok(())
    }

    /// Reads a document, if it is there.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        collection: &str,
        id: &str,
    ) -> anyhow::Result<Option<T>> {
        let response = self.request(Method::GET, &document_path(collection, id)).send().await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(response.error_for_status()?.json().await?))
    }

    /// Deletes a document; one that is not there is no error.
    pub(super) async fn delete(&self, collection: &str, id: &str) -> anyhow::Result<()> {
        self.request(Method::DELETE, &document_path(collection, id)).send().await?.error_for_status()?;
        Ok(())
    }

    /// The oldest documents of a collection.
    pub(super) async fn oldest(&self, collection: &str, limit: u32) -> anyhow::Result<Vec<Value>> {
        let path = format!("/corpora/{CORPUS}/collections/{collection}/query");
        let query = json!({ "sort": [{ "field": "storedAt", "ascending": true }], "limit": limit });
        let response = self.request(Method::POST, &path).json(&query).send().await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(Vec::new());
        }
        Ok(response.error_for_status()?.json::<Page>().await?.documents)
    }

    async fn ensure_corpus(&self, collection: &'static str) -> anyhow::Result<()> {
        let mut ensured = self.ensured.lock().await;
        if ensured.contains(collection) {
            return Ok(());
        }
        let response = self.request(Method::GET, &format!("/corpora/{CORPUS}")).send().await?;
        if response.status() == StatusCode::NOT_FOUND {
            let metadata = json!({ "purpose": "chatkit-attachments", "collection": collection });
            let corpus = json!({ "corpusId": CORPUS, "metadata": metadata });
            let created = self.request(Method::POST, "/corpora").json(&corpus).send().await?;
            ensure!(created.status().is_success(), "cannot create the corpus: {}", created.status());
        } else {
            response.error_for_status()?;
        }
        ensured.insert(collection);
        Ok(())
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).header("X-API-Key", &self.key)
    }
}

/// Ids come from the path of a request, so they are encoded before they go into another one.
fn document_path(collection: &str, id: &str) -> String {
    let id: String = id
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    format!("/corpora/{CORPUS}/collections/{collection}/docs/{id}")
}
