//! Connection kind `prometheus`: a Prometheus server, or one that answers its queries.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Method;
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::http::{
    BASE_URL, BASE_URL_WANTED, Http, check_status, default_timeout, read_json, transport_error,
};
use crate::kind::{ConnectionKind, OpenContext, SystemIs};

/// A Prometheus server, or one that answers its queries.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrometheusConnection {
    /// The base URL, `http` or `https`; the API is at `/api/v1` below it.
    #[schemars(extend("pattern" = BASE_URL, "patternErrorMessage" = BASE_URL_WANTED))]
    pub url: String,
    /// Headers sent with every request, by name. Values may hold secrets.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Where the server says whether it is ready; empty for one that does not. Default `/-/ready`.
    #[serde(default = "default_ready")]
    pub ready: String,
    /// How long one request may take. Default `30s`.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
}

fn default_ready() -> String {
    "/-/ready".to_owned()
}

#[async_trait]
impl ConnectionKind for PrometheusConnection {
    const NAME: &'static str = "prometheus";
    const SUMMARY: &'static str = "A Prometheus server, or one that answers its queries";
    const SECRET_FIELDS: &'static [&'static str] = &["/headers/*"];
    type Client = Prometheus;

    fn open(self, _: &OpenContext<'_>) -> Result<Prometheus, StepError> {
        let http = Arc::new(Http::new(&self.url, &self.headers, self.timeout)?);
        Ok(Prometheus { http, ready: self.ready })
    }

    fn place(client: &Prometheus) -> String {
        client.describe()
    }

    async fn identity(client: &Prometheus) -> Result<SystemIs, StepError> {
        Ok(SystemIs::There(client.describe()))
    }
}

/// The client of a Prometheus server.
#[derive(Debug)]
pub struct Prometheus {
    http: Arc<Http>,
    ready: String,
}

/// The longest answer, in bytes.
const ANSWER: usize = 16 * 1024 * 1024;

impl Prometheus {
    /// The HTTP client below it.
    pub fn http(&self) -> &Arc<Http> {
        &self.http
    }

    /// The server in words, for people.
    pub fn describe(&self) -> String {
        self.http.base().as_str().trim_end_matches('/').to_owned()
    }

    /// Fails unless the server says that it is ready.
    pub async fn need_ready(&self) -> Result<(), StepError> {
        if self.ready.is_empty() {
            return Ok(());
        }
        let what = format!("asking {} whether it is ready", self.describe());
        let request = self.http.request(Method::GET, &self.ready)?;
        let response = request.send().await.map_err(|error| transport_error(&what, error))?;
        check_status(&what, response).await.map(drop)
    }

    /// What the API answers to a GET of this path with these parameters.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, StepError> {
        let what = format!("querying {}", self.describe());
        let request = self.http.request(Method::GET, path)?.query(query);
        let response = request.send().await.map_err(|error| transport_error(&what, error))?;
        read_json(&what, check_status(&what, response).await?, ANSWER).await
    }
}
