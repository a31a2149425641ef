//! What comes back from a request, bounded.

use std::time::Instant;

use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, Response};
use runbook_engine::error::StepError;
use runbook_engine::redact::Redactor;
use serde_json::Value;

use super::{Expect, HttpOutputs};
use crate::connections::http::transport_error;
use crate::process::shortened;

/// How much of an answer is kept to be looked at, in bytes.
const BODY: usize = 1024 * 1024;

/// How much of an answer's text is an output, in characters.
const SHOWN: usize = 64 * 1024;

/// The headers of an answer that become outputs.
const HEADERS: [&str; 9] = [
    "cache-control",
    "content-disposition",
    "content-length",
    "content-type",
    "etag",
    "last-modified",
    "location",
    "retry-after",
    "x-request-id",
];

/// The beginning of a body.
pub(crate) struct Body {
    pub bytes: Vec<u8>,
    pub cut: bool,
}

/// The first bytes of a body, at most `limit`; the rest is not read.
pub(crate) async fn head_of_body(mut response: Response, limit: usize) -> Result<Body, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = limit - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return Ok(Body { bytes, cut: true });
        }
    }
    Ok(Body { bytes, cut: false })
}

/// An answer with what is kept of its body.
pub(crate) struct Answer {
    pub status: u16,
    headers: HeaderMap,
    body: Body,
    json: Option<Value>,
    duration_ms: u64,
}

impl Answer {
    /// Sends a request that only looks.
    pub(crate) async fn of(what: &str, request: RequestBuilder) -> Result<Self, StepError> {
        let begun = Instant::now();
        let response = request.send().await.map_err(|error| transport_error(what, error))?;
        Self::read(what, response, begun).await
    }

    pub(super) async fn read(what: &str, response: Response, begun: Instant) -> Result<Self, StepError> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = head_of_body(response, BODY).await.map_err(|error| transport_error(what, error))?;
        let json = if body.cut { None } else { serde_json::from_slice(&body.bytes).ok() };
        let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Self { status, headers, body, json, duration_ms })
    }

    pub(crate) fn has_status(&self, expect: &Expect) -> bool {
        expect.has_status(self.status)
    }

    /// What is not as it should be, as a fragment.
    pub(crate) fn problem(&self, expect: &Expect) -> Option<String> {
        if !self.has_status(expect) {
            return Some(format!("status {} is not one that is expected", self.status));
        }
        for (pointer, value) in &expect.json {
            let Some(json) = &self.json else { return Some("the answer is not JSON".to_owned()) };
            match json.pointer(pointer) {
                Some(present) if present == value => {}
                Some(present) => {
                    let present = shortened(&present.to_string(), 200);
                    return Some(format!("`{pointer}` is {present}, and {value} is expected"));
                }
                None => return Some(format!("the answer has nothing at `{pointer}`")),
            }
        }
        let text = expect.contains.as_ref().filter(|text| !self.contains(text));
        text.map(|text| format!("the answer does not contain {text:?}"))
    }

    fn contains(&self, text: &str) -> bool {
        text.is_empty() || self.body.bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    pub(super) fn outputs(self, redactor: &Redactor, settled_by_check: bool) -> HttpOutputs {
        let header = |name: &&str| {
            let value = self.headers.get(*name)?.to_str().ok()?;
            Some(((*name).to_owned(), redactor.text(value)))
        };
        let text = || shortened(&redactor.text(&String::from_utf8_lossy(&self.body.bytes)), SHOWN);
        let text = (self.json.is_none() && !self.body.bytes.is_empty()).then(text);
        HttpOutputs {
            status: self.status,
            headers: HEADERS.iter().filter_map(header).collect(),
            json: self.json.as_ref().map(|json| redactor.value(json)),
            text,
            duration_ms: self.duration_ms,
            settled_by_check,
        }
    }
}
