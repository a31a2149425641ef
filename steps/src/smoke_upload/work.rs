//! One attempt of `smoke-upload`.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use reqwest::header::LOCATION;
use reqwest::multipart::{Form, Part};
use reqwest::{Client, Method, Response, StatusCode, redirect};
use runbook_engine::crash;
use runbook_engine::error::StepError;
use serde_json::Value;
use url::Url;

use super::{Outputs, SmokeUpload};
use crate::collections::{Collection, NamedBy};
use crate::connections::http::{Http, check_status, http_of, read_body, read_json, transport_error};
use crate::digest::sha256;
use crate::kind::Context;
use crate::retry::patiently;

/// The longest answer to an upload, in bytes.
const ANSWER: usize = 1024 * 1024;

/// How long fetching may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

const UPLOADING: &str = "uploading the file";
const FOLLOWING: &str = "following its link";
const FETCHING: &str = "fetching it from the store";

/// What an attempt needs.
pub(super) struct Work<'a> {
    step: &'a SmokeUpload,
    http: Arc<Http>,
    /// Follows links with no credential of ours, and no redirect by itself.
    plain: Client,
    store: Arc<dyn Collection>,
    content: String,
}

/// What the application answered.
struct Kept {
    status: u16,
    id: String,
    link: Url,
}

impl<'a> Work<'a> {
    pub(super) fn begin(step: &'a SmokeUpload, cx: &Context) -> Result<Self, StepError> {
        let plain = Client::builder().redirect(redirect::Policy::none()).timeout(PATIENCE).build();
        Ok(Self {
            step,
            http: http_of(&cx.resources, &step.connection)?,
            plain: plain
                .map_err(|error| StepError::invalid("no HTTP client can be made").with_source(&error))?,
            store: cx.resources.collection(&step.stored_in)?,
            content: format!("{}{}-{}", step.file.begins, cx.run.id, Timestamp::now().as_nanosecond()),
        })
    }

    pub(super) async fn all(&self) -> Result<Outputs, StepError> {
        let begun = Instant::now();
        let kept = self.upload().await?;
        let keys: Vec<String> = self.step.keys.iter().map(|key| key.replace("{id}", &kept.id)).collect();
        let location = self.follow(&kept, &keys).await?;
        let download_status = self.fetch(location).await?;
        for key in &keys {
            if !patiently(|| self.store.exists(key)).await? {
                return Err(self.gate(format!("there is no `{key}` in {}", self.store.describe())));
            }
        }
        Ok(Outputs {
            id: kept.id,
            bytes: self.content.len() as u64,
            sha256: sha256(self.content.as_bytes()),
            upload_status: kept.status,
            redirect_status: self.step.redirect,
            download_status,
            keys,
            took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn gate(&self, why: impl std::fmt::Display) -> StepError {
        StepError::gate(format!("a file uploaded to {} is not where it has to be: {why}", self.step.path))
    }

    async fn upload(&self) -> Result<Kept, StepError> {
        let file = &self.step.file;
        let part = Part::text(self.content.clone()).file_name(file.name.clone());
        let part = part
            .mime_str(&file.mime_type)
            .map_err(|_| StepError::invalid(format!("`{}` is no media type", file.mime_type)))?;
        let form = Form::new().part(self.step.field.clone(), part);
        let request = self.http.request(Method::POST, &self.step.path)?.multipart(form);
        let sent = crash::around("smoke-upload", request.send()).await;
        let response =
            check_status(UPLOADING, sent.map_err(|error| transport_error(UPLOADING, error))?).await?;
        let status = response.status();
        if !matches!(status, StatusCode::OK | StatusCode::CREATED) {
            return Err(StepError::gate(format!(
                "{UPLOADING}: status {status} does not say that it is kept"
            )));
        }
        let answer: Value = read_json(UPLOADING, response, ANSWER).await?;
        let text = |pointer: &str| {
            let text = answer.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
            text.ok_or_else(|| StepError::gate(format!("{UPLOADING}: the answer has no text at `{pointer}`")))
        };
        let id = text(&self.step.answer.id)?.to_owned();
        let link = self.link(text(&self.step.answer.url)?)?;
        Ok(Kept { status: status.as_u16(), id, link })
    }

    /// The link of the answer, as a URL of the application.
    fn link(&self, text: &str) -> Result<Url, StepError> {
        if text.starts_with('/') {
            let request = self.http.request(Method::GET, text)?.build();
            return request
                .map(|request| request.url().clone())
                .map_err(|error| transport_error(FOLLOWING, error));
        }
        let url = Url::parse(text).ok().filter(|url| url.origin() == self.http.base().origin());
        url.ok_or_else(|| {
            StepError::gate(format!("{UPLOADING}: the link of the answer leads to another server"))
        })
    }

    async fn get(&self, what: &str, url: &Url) -> Result<Response, StepError> {
        self.plain.get(url.clone()).send().await.map_err(|error| transport_error(what, error))
    }

    /// Where the link leads: to the first of the keys, in the store.
    async fn follow(&self, kept: &Kept, keys: &[String]) -> Result<Url, StepError> {
        let response = patiently(async || {
            let response = self.get(FOLLOWING, &kept.link).await?;
            let status = response.status();
            if status.is_redirection() { Ok(response) } else { check_status(FOLLOWING, response).await }
        })
        .await?;
        let (status, wanted) = (response.status(), self.step.redirect);
        if status.is_success() {
            return Err(self
                .gate(format!("its link answers with status {status} and hands it out itself, where {wanted} has to lead to the store"))
                .with_help("the application keeps files in a place of its own: set it to the store, and let it refuse to start without"));
        }
        if status.as_u16() != wanted {
            return Err(self.gate(format!("its link answers with status {status}, and not with {wanted}")));
        }
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| self.gate("the redirect of its link says not where to"))?;
        let url = kept.link.join(location).map_err(|_| self.gate("the redirect of its link is no URL"))?;
        let key = self.store.resolve(url.as_str(), NamedBy::Url).map_err(|why| {
            // What follows the path is signed.
            let mut shown = url.clone();
            shown.set_query(None);
            self.gate(format!(
                "its link leads to {shown}, which is not among {}: {why}",
                self.store.describe()
            ))
        })?;
        match keys.first() {
            Some(wanted) if *wanted == key => Ok(url),
            Some(wanted) => Err(self.gate(format!("its link leads to `{key}`, and not to `{wanted}`"))),
            None => Err(StepError::invalid("`keys` is empty")),
        }
    }

    /// Fetches it from the store; the status with which it came.
    async fn fetch(&self, url: Url) -> Result<u16, StepError> {
        let (status, body) = patiently(async || {
            let response = check_status(FETCHING, self.get(FETCHING, &url).await?).await?;
            let status = response.status();
            // A longer one is another one.
            read_body(FETCHING, response, self.content.len()).await.map(|body| (status, body))
        })
        .await?;
        if status != StatusCode::OK {
            return Err(self.gate(format!("the store answers with status {status}, and not with 200 OK")));
        }
        if body != self.content.as_bytes() {
            return Err(self.gate(format!(
                "the store hands out {} bytes that are not the {} that were sent",
                body.len(),
                self.content.len()
            )));
        }
        Ok(status.as_u16())
    }
}
