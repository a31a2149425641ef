//! One download, and what it is compared with.

use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName};
use reqwest::{Method, Response, StatusCode};
use runbook_engine::error::{ErrorKind, StepError};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Checks;
use crate::backoff::{exponential, pause};
use crate::connections::http::{Http, check_status, transport_error};
use crate::connections::session::SessionValue;
use crate::digest::hex;
use crate::kind::Context;
use crate::upload::Descriptor;

/// How often one download is tried.
const TRIES: u32 = 4;
/// The wait after the first try; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

const WHAT: &str = "downloading";

/// What came back.
pub(super) enum Fetched {
    /// The item.
    Got(Box<Got>),
    /// The server does not know the session.
    NoSession(String),
    /// The item belongs to another session.
    NotOurs(String),
    /// The item can not be had; the status when there was one.
    Failed(Option<u16>, String),
}

/// The headers and the body of a download; absent headers are absent here.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Got {
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_length: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_bytes: Option<u64>,
}

/// What the local file and the upload say.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Expected {
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    bytes: u64,
    sha256: String,
}

/// One item of the sample.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Checked {
    pub(super) key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    attachment_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<Expected>,
    #[serde(skip_serializing_if = "Option::is_none")]
    got: Option<Got>,
    pub(super) failures: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) discrepancy: Option<String>,
}

/// Downloads one item. What may work in a moment is tried a few times; an error means that the server can not be reached.
pub(super) async fn fetch(
    cx: &Context,
    http: &Http,
    session: Option<&SessionValue>,
    path: &str,
    body: bool,
) -> Result<Fetched, StepError> {
    let mut attempt = 1;
    loop {
        let error = match once(http, session, path, body).await {
            Ok(fetched) => return Ok(fetched),
            Err(error) if error.kind != ErrorKind::Transient => return Err(error),
            Err(error) => error,
        };
        if attempt == TRIES {
            return Err(error);
        }
        let asked = error.retry_after_ms.map_or(Duration::ZERO, Duration::from_millis);
        pause(cx, exponential(FIRST_WAIT, attempt, LONGEST_WAIT).max(asked).min(LONGEST_WAIT)).await?;
        attempt += 1;
    }
}

async fn once(
    http: &Http,
    session: Option<&SessionValue>,
    path: &str,
    body: bool,
) -> Result<Fetched, StepError> {
    let mut request = http.request(Method::GET, path)?;
    if let (Some(session), Some(value)) = (http.session(), session) {
        request = request.query(&[(session.field(), &value.secret)]);
    }
    let response = request.send().await.map_err(|error| transport_error(WHAT, error))?;
    let status = response.status();
    if status == StatusCode::OK {
        return got(response, body).await.map(|got| Fetched::Got(Box::new(got)));
    }
    if status.is_success() {
        let why = format!("{WHAT}: status {status}, and 200 was expected");
        return Ok(Fetched::Failed(Some(status.as_u16()), why));
    }
    let error = match check_status(WHAT, response).await {
        Ok(_) => return Ok(Fetched::Failed(Some(status.as_u16()), format!("{WHAT}: status {status}"))),
        Err(error) => error,
    };
    match status {
        StatusCode::UNAUTHORIZED => Ok(Fetched::NoSession(error.message)),
        StatusCode::FORBIDDEN => Ok(Fetched::NotOurs(error.message)),
        _ if error.kind == ErrorKind::Transient => Err(error),
        _ => Ok(Fetched::Failed(Some(status.as_u16()), error.message)),
    }
}

async fn got(mut response: Response, body: bool) -> Result<Got, StepError> {
    let headers = response.headers();
    let mut got = Got {
        content_type: text(headers, &CONTENT_TYPE),
        content_length: text(headers, &CONTENT_LENGTH),
        etag: text(headers, &ETAG),
        ..Got::default()
    };
    if body {
        let (mut digest, mut bytes) = (Sha256::new(), 0);
        while let Some(chunk) = response.chunk().await.map_err(|error| transport_error(WHAT, error))? {
            digest.update(&chunk);
            bytes += chunk.len() as u64;
        }
        got.body_sha256 = Some(hex(&digest.finalize()));
        got.body_bytes = Some(bytes);
    }
    Ok(got)
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(String::from_utf8_lossy(headers.get(name)?.as_bytes()).into_owned())
}

impl Checked {
    fn new(item: &Descriptor) -> Self {
        Self {
            key: item.key.clone(),
            attachment_id: Some(item.attachment_id.clone()),
            status: None,
            expected: None,
            got: None,
            failures: Vec::new(),
            discrepancy: None,
        }
    }

    /// The recorded sample has a key that is not among the items.
    pub(super) fn absent(key: &str) -> Self {
        let failures = vec!["it is not among the items any more".to_owned()];
        let key = key.to_owned();
        Self {
            key,
            attachment_id: None,
            status: None,
            expected: None,
            got: None,
            failures,
            discrepancy: None,
        }
    }

    /// There is nothing to compare with.
    pub(super) fn without_file(item: &Descriptor) -> Self {
        Self::failed(item, format!("the local file {} is missing", item.path))
    }

    /// It could not be downloaded.
    pub(super) fn failed(item: &Descriptor, why: String) -> Self {
        Self { failures: vec![why], ..Self::new(item) }
    }

    /// The server would not give it.
    pub(super) fn refused(item: &Descriptor, status: Option<u16>, why: String) -> Self {
        Self { status, ..Self::failed(item, why) }
    }

    /// What differs between the download and the local file.
    pub(super) fn compared(item: &Descriptor, checks: Checks, sha256: &str, bytes: u64, got: Got) -> Self {
        let wanted_type = item.mime_type.as_ref().or(item.asset_mime_type.as_ref()).map(|text| essence(text));
        let mut failures = Vec::new();
        let mut compare = |what: &str, expected: &str, found: Option<&str>| {
            if found != Some(expected) {
                let found = found.unwrap_or("nothing");
                failures.push(format!("{what} expected {expected}, got {found}"));
            }
        };
        let found_type = got.content_type.as_deref().map(essence);
        if checks.content_type
            && let Some(expected) = &wanted_type
        {
            compare("Content-Type", expected, found_type.as_deref());
        }
        if checks.content_length {
            let found = got.content_length.as_deref().map(str::trim);
            compare("Content-Length", &bytes.to_string(), found);
        }
        if checks.etag {
            compare("ETag", sha256, got.etag.as_deref().map(bare).as_deref());
        }
        if checks.body {
            compare("body SHA-256", sha256, got.body_sha256.as_deref());
        }
        if checks.content_type && wanted_type.is_none() {
            failures
                .push("Content-Type: neither the upload nor the manifest says what it should be".to_owned());
        }
        let asset_type = item.asset_mime_type.as_deref().map(essence);
        let discrepancy = match (&found_type, &asset_type) {
            (Some(found), Some(asset)) if found != asset => {
                Some(format!("{}: served as {found}, and the file is {asset}", item.key))
            }
            _ => None,
        };
        let expected = Expected { content_type: wanted_type, bytes, sha256: sha256.to_owned() };
        let (expected, got) = (Some(expected), Some(got));
        Self { status: Some(200), expected, got, failures, discrepancy, ..Self::new(item) }
    }
}

/// A media type without its parameters, lower case.
fn essence(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// An ETag without its weakness mark and its quotes, lower case: gateways send the bare hash, proxies quote or weaken it.
fn bare(etag: &str) -> String {
    let tag = etag.trim();
    let tag = tag.strip_prefix("W/").or_else(|| tag.strip_prefix("w/")).unwrap_or(tag);
    let tag = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
    tag.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_types_are_compared_without_their_dress() {
        for tag in ["ab12", "\"ab12\"", "W/\"ab12\"", " AB12 ", "w/\"AB12\""] {
            assert_eq!(bare(tag), "ab12", "{tag}");
        }
        for tag in ["sha256:ab12", "\"ab12", "ab123"] {
            assert_ne!(bare(tag), "ab12", "{tag}");
        }
        assert_eq!(essence("Text/Plain; charset=utf-8"), "text/plain");
    }
}
