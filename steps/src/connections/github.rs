//! Connection kind `github`: the API of GitHub, or of a GitHub Enterprise server.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::Deserialize;

use super::http::{BASE_URL, BASE_URL_WANTED, Http, default_timeout};
use crate::kind::{ConnectionKind, OpenContext, SystemIs};

/// The API of GitHub, or of a GitHub Enterprise server.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GithubConnection {
    /// Where the API answers, such as `https://github.example.com/api/v3`. Default: `https://api.github.com`.
    #[serde(default = "default_url")]
    #[schemars(extend("pattern" = BASE_URL, "patternErrorMessage" = BASE_URL_WANTED))]
    pub url: String,
    /// The token. May hold a secret. What protects a branch is told only to a token that may administer the repository, or read its
    /// administration.
    pub token: String,
    /// How long one request may take. Default `30s`.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
}

fn default_url() -> String {
    "https://api.github.com".to_owned()
}

#[async_trait]
impl ConnectionKind for GithubConnection {
    const NAME: &'static str = "github";
    const SUMMARY: &'static str = "The API of GitHub, or of a GitHub Enterprise server";
    const SECRET_FIELDS: &'static [&'static str] = &["/token"];
    type Client = Github;

    fn open(self, _: &OpenContext<'_>) -> Result<Github, StepError> {
        let headers = [
            ("Accept", "application/vnd.github+json".to_owned()),
            ("Authorization", format!("Bearer {}", self.token)),
            ("X-GitHub-Api-Version", "2022-11-28".to_owned()),
        ];
        let headers: BTreeMap<_, _> =
            headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Github { http: Arc::new(Http::new(&self.url, &headers, self.timeout)?) })
    }

    fn place(client: &Github) -> String {
        client.describe()
    }

    async fn identity(client: &Github) -> Result<SystemIs, StepError> {
        Ok(SystemIs::There(client.describe()))
    }
}

/// The client of the API of GitHub.
#[derive(Debug)]
pub struct Github {
    http: Arc<Http>,
}

impl Github {
    /// The HTTP client below it.
    pub fn http(&self) -> &Arc<Http> {
        &self.http
    }

    /// The server in words, for people.
    pub fn describe(&self) -> String {
        self.http.base().as_str().trim_end_matches('/').to_owned()
    }
}
