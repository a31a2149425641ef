//! The proof of a freeze: a request that a frozen system refuses. What it creates in a system that is not frozen is removed.

use std::collections::BTreeMap;
use std::time::Duration as StdDuration;

use jiff::Timestamp;
use reqwest::multipart::{Form, Part};
use runbook_engine::crash;
use runbook_engine::duration::Duration;
use runbook_engine::error::{ErrorKind, Outcome, StepError};
use runbook_engine::step::{Intent, Settlement};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::undo::Undo;
use crate::connections::http::{Http, http_of, transport_error};
use crate::http::{Method, head_of_body};
use crate::kind::Context;
use crate::process::shortened;
use crate::text::Text;

/// How much of an answer is looked at, in bytes.
const ANSWER: usize = 64 * 1024;

/// How long the message of an answer may be, in characters.
const MESSAGE: usize = 300;

/// A request that a frozen system refuses. When the connection has a session, its secret goes along: as a field of the multipart
/// form, else in the query.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The connection, of a type that speaks HTTP.
    connection: String,
    /// The method. Default: `POST`.
    #[serde(default = "post")]
    method: Method,
    /// The path below the connection's URL.
    path: String,
    /// A small generated file, sent as a multipart form.
    #[serde(default)]
    multipart: Option<Multipart>,
    /// A JSON body, instead of `multipart`.
    #[serde(default)]
    json: Option<Value>,
    /// The answers that prove the freeze; any one of them does. Every other success means that the system is not frozen: what was
    /// created is removed, the freeze is lifted, and the step fails. 202 proves nothing either way.
    #[schemars(length(min = 1))]
    expect: Vec<Expected>,
    /// How to remove what the probe created when the system was not frozen.
    #[serde(default)]
    undo: Option<Undo>,
}

/// A generated file in a multipart form.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Multipart {
    /// The name of the form's file field. Default: `file`.
    #[serde(default = "file")]
    field: String,
    /// The name of the file; something unique is added to it. Default: `freeze-probe.bin`.
    #[serde(default = "file_name")]
    file_name: String,
    /// Its media type. Default: `application/octet-stream`.
    #[serde(default = "content_type")]
    content_type: String,
    /// Its size, at least 1: an empty file may pass a frozen system. Default: 1024.
    #[serde(default = "bytes")]
    #[schemars(range(min = 1, max = 16_777_216))]
    bytes: usize,
    /// More fields of the form.
    #[serde(default)]
    fields: BTreeMap<String, Text>,
}

/// An answer that proves the freeze.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The status.
    #[schemars(range(min = 100, max = 599))]
    status: u16,
    /// A text in the body. Default: any body will do.
    #[serde(default)]
    contains: Option<String>,
}

fn post() -> Method {
    Method::Post
}

fn file() -> String {
    "file".to_owned()
}

fn file_name() -> String {
    "freeze-probe.bin".to_owned()
}

fn content_type() -> String {
    "application/octet-stream".to_owned()
}

fn bytes() -> usize {
    1024
}

/// What a system answered to a probe.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// The `code` of a JSON answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The `message` or `error` of a JSON answer, at most 300 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Answered {
    fn words(&self) -> String {
        let said: Vec<&str> = [&self.code, &self.message].into_iter().flatten().map(String::as_str).collect();
        if said.is_empty() {
            self.status.to_string()
        } else {
            format!("{} ({})", self.status, said.join(": "))
        }
    }
}

/// What one answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The system is frozen.
    Frozen,
    /// The system took it: it is not frozen.
    Open,
    /// The probe had no right to be judged.
    Denied,
    /// It proves nothing; a moment later it may.
    Unclear,
    /// It proves nothing, and will not.
    Strange,
}

fn meaning(status: u16, body: &str, expect: &[Expected]) -> Meaning {
    let fits = |one: &Expected| {
        one.status == status && one.contains.as_ref().is_none_or(|text| body.contains(text.as_str()))
    };
    match status {
        _ if expect.iter().any(fits) => Meaning::Frozen,
        202 | 408 | 425 | 429 | 500.. => Meaning::Unclear,
        200..=299 => Meaning::Open,
        401 | 403 => Meaning::Denied,
        _ => Meaning::Strange,
    }
}

/// One request's end.
struct Sent {
    answered: Answered,
    meaning: Meaning,
    id: Option<String>,
}

/// What probes showed, and what they may have left in the system.
#[derive(Default)]
pub(super) struct Left {
    /// The system took a probe: it is not frozen.
    pub(super) taken: bool,
    /// A probe was not answered: nobody knows whether it created something.
    unanswered: bool,
    /// What a probe created could not be removed.
    known: bool,
}

/// The name under which the id of what a probe created is remembered.
fn created(name: &str) -> String {
    format!("created:{name}")
}

impl Probe {
    /// Sends probes until one proves the freeze, at most for `settle` while the answers prove nothing. An error of kind gate when
    /// the freeze is not proven; what probes created is removed by then. Other errors say nothing of the freeze.
    pub(super) async fn prove(
        &self,
        cx: &Context,
        settle: Duration,
        left: &mut Left,
    ) -> Result<Answered, StepError> {
        let name = self.unique_name(cx);
        let what = json!({ "probe": name });
        let intent = Intent { what, items: 1, charged_items: 0, charged_bytes: 0 };
        let batch = cx.ledger.intend(intent).await?.number;
        let result = self.poll(cx, &name, settle, left).await;
        if let Err(error) = &result
            && !matches!(error.kind, ErrorKind::Gate)
        {
            return result;
        }
        if left.known {
            // The batch stays open, so that the release or the next attempt removes it.
            return result;
        }
        let swept = if left.unanswered { self.sweep(cx, &name).await } else { Ok(0) };
        // What could not be looked for stays open, so that the release or the next attempt looks again.
        if let Ok(removed) = &swept {
            let outcome = match &result {
                Ok(answered) => json!({ "proven": answered.status }),
                Err(error) => json!({ "proven": false, "why": cx.redactor.text(&error.message) }),
            };
            cx.ledger.settle(batch, Settlement { outcome, done: *removed, ..Settlement::default() }).await?;
        }
        match (result, swept) {
            (result, Ok(_)) => result,
            (Ok(_), Err(error)) => Err(error),
            (Err(mut error), Err(sweep)) => {
                error.causes.push(sweep.message);
                Err(error)
            }
        }
    }

    /// Removes what probes of an earlier attempt, whose outcome nobody recorded, may have created.
    pub(super) async fn settle_earlier(&self, cx: &Context) -> Result<(), StepError> {
        for batch in cx.ledger.view().await?.unsettled {
            let Some(name) = batch.what.get("probe").and_then(Value::as_str) else { continue };
            let removed = self.sweep(cx, name).await?;
            let outcome = json!({ "proven": null });
            let settlement = Settlement { outcome, done: removed, ..Settlement::default() };
            cx.ledger.settle(batch.number, settlement).await?;
        }
        Ok(())
    }

    /// An error when the probe can not work, asked before anything is changed.
    pub(super) fn check(&self, cx: &Context) -> Result<(), StepError> {
        http_of(&cx.resources, &self.connection)?;
        for collection in self.undo.iter().flat_map(|undo| &undo.collections) {
            cx.resources.collection(collection)?;
        }
        let wrong = match (&self.multipart, &self.json) {
            (Some(_), Some(_)) => "the probe has both `multipart` and `json`",
            (Some(multipart), None) if multipart.bytes == 0 => "the probe's file must have at least 1 byte",
            _ if self.expect.is_empty() => "the probe expects nothing",
            _ => return Ok(()),
        };
        Err(StepError::invalid(wrong))
    }

    /// The file's name, with something in it that no other file's name has.
    fn unique_name(&self, cx: &Context) -> String {
        let name = self.multipart.as_ref().map_or_else(file_name, |multipart| multipart.file_name.clone());
        let (stem, extension) = name.rsplit_once('.').unwrap_or((&name, "bin"));
        let now = Timestamp::now().as_millisecond();
        format!("{stem}-{}-{}-{now:x}.{extension}", cx.run.id, cx.attempt)
    }

    async fn poll(
        &self,
        cx: &Context,
        name: &str,
        settle: Duration,
        left: &mut Left,
    ) -> Result<Answered, StepError> {
        let deadline = Instant::now() + settle.0;
        let mut pause = StdDuration::from_millis(250);
        let mut denied = false;
        loop {
            cx.checkpoint()?;
            let unclear = match self.send(cx, name).await {
                Ok(sent) => match sent.meaning {
                    Meaning::Frozen => return Ok(sent.answered),
                    Meaning::Open => {
                        left.taken = true;
                        return Err(self.not_frozen(cx, name, &sent, left).await);
                    }
                    Meaning::Denied if !denied => {
                        // A restarted system may have forgotten the session.
                        denied = true;
                        if let Some(session) = http_of(&cx.resources, &self.connection)?.session() {
                            session.forget().await;
                        }
                        continue;
                    }
                    Meaning::Denied | Meaning::Strange => {
                        return Err(self.unproven(format!("was answered with {}", sent.answered.words())));
                    }
                    Meaning::Unclear => {
                        left.unanswered = true;
                        format!("was answered with {}", sent.answered.words())
                    }
                },
                Err(error) if error.kind == ErrorKind::Transient => {
                    left.unanswered |= error.outcome == Outcome::Unknown;
                    format!("failed: {error}")
                }
                Err(error) if error.kind == ErrorKind::Refused => {
                    return Err(self.unproven(format!("could not be sent: {error}")));
                }
                Err(error) => return Err(error),
            };
            if Instant::now() + pause >= deadline {
                return Err(self.unproven(format!("{unclear}, and nothing else came within {settle}")));
            }
            cx.live.say(&format!("the probe {unclear}; trying again"));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cx.stop.cancelled() => {}
            }
            pause = (pause * 2).min(StdDuration::from_secs(5));
        }
    }

    fn line(&self) -> String {
        format!("{} {}", self.method.name(), self.path)
    }

    fn unproven(&self, how: String) -> StepError {
        StepError::gate(format!("the freeze is not proven: the probe `{}` {how}", self.line()))
    }

    async fn send(&self, cx: &Context, name: &str) -> Result<Sent, StepError> {
        let http = http_of(&cx.resources, &self.connection)?;
        let request = self.request(&http, name).await?;
        let what = format!("the probe {}", self.line());
        let response = crash::around("freeze: probe", request.send()).await;
        let response = response.map_err(|error| transport_error(&what, error))?;
        let status = response.status().as_u16();
        let body = head_of_body(response, ANSWER).await.map_err(|error| transport_error(&what, error))?.bytes;
        let text = String::from_utf8_lossy(&body);
        let json: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let member = |name: &str| {
            let text = cx.redactor.text(json.get(name)?.as_str()?);
            Some(shortened(&text, MESSAGE))
        };
        Ok(Sent {
            answered: Answered {
                status,
                code: member("code"),
                message: member("message").or_else(|| member("error")),
            },
            meaning: meaning(status, &text, &self.expect),
            id: self.undo.as_ref().and_then(|undo| undo.created(&json)),
        })
    }

    async fn request(&self, http: &Http, name: &str) -> Result<reqwest::RequestBuilder, StepError> {
        let request = http.request(self.method.into(), &self.path)?;
        let session = match http.session() {
            Some(session) => Some((session.field().to_owned(), session.get().await?.secret)),
            None => None,
        };
        let Some(multipart) = &self.multipart else {
            let request = match &self.json {
                Some(json) => request.json(json),
                None => request,
            };
            return Ok(match session {
                Some((field, secret)) => request.query(&[(field, secret)]),
                None => request,
            });
        };
        let content: Vec<u8> = b"freeze probe\n".iter().copied().cycle().take(multipart.bytes).collect();
        let part = Part::bytes(content)
            .file_name(name.to_owned())
            .mime_str(&multipart.content_type)
            .map_err(|error| StepError::invalid("the probe's content_type is none").with_source(&error))?;
        let mut form = Form::new();
        if let Some((field, secret)) = session {
            form = form.text(field, secret);
        }
        for (field, value) in &multipart.fields {
            form = form.text(field.clone(), value.0.clone());
        }
        Ok(request.multipart(form.part(multipart.field.clone(), part)))
    }

    /// The system took the probe: removes what it made of it, and says so.
    async fn not_frozen(&self, cx: &Context, name: &str, sent: &Sent, left: &mut Left) -> StepError {
        let message = format!(
            "the freeze is not effective: the probe `{}` was answered with {}",
            self.line(),
            sent.answered.words()
        );
        let mut error = StepError::gate(message);
        let removed = match (&self.undo, &sent.id) {
            (None, _) => Err(StepError::gate("the probe has no `undo`: remove what it created by hand")),
            (Some(undo), Some(id)) => {
                let removed = match cx.ledger.remember(&created(name), json!(id)).await {
                    Ok(_) => undo.remove(cx, id).await,
                    Err(error) => Err(error),
                };
                left.known = removed.is_err();
                removed.map(|()| format!("removed {id}"))
            }
            (Some(undo), None) if undo.find_by.is_some() => {
                let swept = self.sweep(cx, name).await;
                left.known = swept.is_err();
                swept.map(|count| format!("removed {count} items by name"))
            }
            (Some(undo), None) => {
                let message = format!("the answer has no id at `{}`: remove it by hand", undo.field);
                Err(StepError::gate(message))
            }
        };
        match removed {
            Ok(how) => cx.live.say(&format!("what the probe created is gone: {how}")),
            Err(why) => error.causes.push(format!("what the probe created is still there: {why}")),
        }
        error
    }

    /// Removes what the probe of this file name is known to have created, and what has this name; how many items that were.
    async fn sweep(&self, cx: &Context, name: &str) -> Result<u64, StepError> {
        let Some(undo) = &self.undo else { return Ok(0) };
        let known = cx.ledger.recall(&created(name)).await?;
        let known = known.as_ref().and_then(Value::as_str);
        if let Some(id) = known {
            undo.remove(cx, id).await?;
        }
        Ok(u64::from(known.is_some()) + undo.sweep(cx, name).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_expected_proves_a_freeze() {
        let expect: Vec<Expected> = serde_json::from_value(json!([
            {"status": 413},
            {"status": 400, "contains": "attachment_too_large"},
        ]))
        .unwrap();
        let of = |status, body| meaning(status, body, &expect);
        assert_eq!(of(413, ""), Meaning::Frozen);
        assert_eq!(of(400, "[attachment_too_large] too large"), Meaning::Frozen);
        assert_eq!(of(400, "malformed multipart payload"), Meaning::Strange);
        assert_eq!(of(201, "attachment_too_large"), Meaning::Open);
        assert_eq!(of(202, ""), Meaning::Unclear);
        for status in [401, 403] {
            assert_eq!(of(status, ""), Meaning::Denied);
        }
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(of(status, ""), Meaning::Unclear);
        }
        for status in [301, 404, 415] {
            assert_eq!(of(status, ""), Meaning::Strange);
        }
    }
}
