//! Connection kind `fountainstore`: a FountainStore over HTTP, with the capabilities it says it has.

use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;

use reqwest::{Method, RequestBuilder, Response};
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::http::{
    BASE_URL, BASE_URL_WANTED, Http, check_status, default_timeout, read_json, transport_error,
};
use crate::kind::{ConnectionKind, OpenContext, SystemIs};

/// A FountainStore over HTTP.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FountainStoreConnection {
    /// The base URL, `http` or `https`.
    #[schemars(extend("pattern" = BASE_URL, "patternErrorMessage" = BASE_URL_WANTED))]
    pub url: String,
    /// The key sent as `X-API-Key`. May hold a secret. Without it, no key is sent.
    #[serde(default)]
    pub api_key: Option<String>,
    /// How long one request may take. Default `30s`.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
}

#[async_trait]
impl ConnectionKind for FountainStoreConnection {
    const NAME: &'static str = "fountainstore";
    const SUMMARY: &'static str = "A FountainStore over HTTP";
    const SECRET_FIELDS: &'static [&'static str] = &["/api_key"];
    type Client = FountainStore;

    fn open(self, _: &OpenContext<'_>) -> Result<FountainStore, StepError> {
        let headers: BTreeMap<_, _> =
            self.api_key.into_iter().map(|key| ("X-API-Key".to_owned(), key)).collect();
        let http = Arc::new(Http::new(&self.url, &headers, self.timeout)?);
        Ok(FountainStore { http, capabilities: Mutex::new(None) })
    }

    fn place(client: &FountainStore) -> String {
        client.describe()
    }

    async fn identity(client: &FountainStore) -> Result<SystemIs, StepError> {
        Ok(SystemIs::There(client.describe()))
    }
}

/// What a store says it can do.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Capabilities {
    corpus: bool,
    documents: Vec<String>,
    query: Vec<String>,
}

impl Capabilities {
    fn has(&self, need: &str) -> bool {
        match need.split_once('.') {
            Some(("documents", flag)) => self.documents.iter().any(|has| has == flag),
            Some(("query", flag)) => self.query.iter().any(|has| has == flag),
            _ => need == "corpus" && self.corpus,
        }
    }
}

/// The client of a FountainStore.
#[derive(Debug)]
pub struct FountainStore {
    http: Arc<Http>,
    capabilities: Mutex<Option<Capabilities>>,
}

/// How long the answer about capabilities may be, in bytes.
const ANSWER: usize = 1024 * 1024;

impl FountainStore {
    /// The HTTP client below it.
    pub fn http(&self) -> &Arc<Http> {
        &self.http
    }

    /// The store in words, for people.
    pub fn describe(&self) -> String {
        self.http.base().as_str().trim_end_matches('/').to_owned()
    }

    /// Refused, naming them, unless the store has all these capabilities (`documents.delete`, `query.sort`). The store is asked once;
    /// again only while one is missing, because somebody may be granting it.
    pub async fn need(&self, needs: &[&str]) -> Result<(), StepError> {
        let mut known = self.capabilities.lock().await;
        let lacking = |has: &Capabilities| -> Vec<String> {
            needs.iter().filter(|need| !has.has(need)).map(|need| format!("`{need}`")).collect()
        };
        if known.as_ref().is_some_and(|has| lacking(has).is_empty()) {
            return Ok(());
        }
        let what = "asking for the store's capabilities";
        let response = self.send(what, self.http.request(Method::GET, "/capabilities")?).await?;
        let has: Capabilities = read_json(what, response, ANSWER).await?;
        let missing = lacking(&has);
        *known = Some(has);
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", ");
        Err(StepError::refused(format!("the store does not support {missing}"))
            .with_help("give the store or its key these capabilities, then resume"))
    }

    /// Sends a request; the response when its status is a success.
    pub async fn send(&self, what: &str, request: RequestBuilder) -> Result<Response, StepError> {
        let response = request.send().await.map_err(|error| transport_error(what, error))?;
        check_status(what, response).await
    }
}
