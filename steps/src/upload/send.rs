//! One request, and what its answer means.

use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, Outcome, StepError};
use serde_json::Value;

use super::held::Stored;
use super::{ManifestEntry, Upload};
use crate::connections::http::{Http, check_status, read_json, transport_error};
use crate::connections::session::SessionValue;

/// What an answer, or its absence, means.
pub(super) enum Sent {
    /// The server has it.
    Stored(Stored),
    /// The server does not know the session.
    NoSession(String),
    /// The server will not have it.
    Refused(String),
    /// No answer that counts; it may work in a moment.
    Lost(Lost),
}

/// A request whose answer does not count.
pub(super) struct Lost {
    /// What happened.
    pub(super) error: StepError,
    /// Whether something may have been stored all the same.
    pub(super) maybe: bool,
    /// Whether the server answered at all.
    pub(super) answered: bool,
}

/// How long an answer may be, in bytes.
const ANSWER: usize = 1024 * 1024;

const WHAT: &str = "uploading";

/// The name that a file is sent under.
pub(super) fn file_name(entry: &ManifestEntry) -> String {
    let last = || entry.path.rsplit('/').next().unwrap_or_default().to_owned();
    entry.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(last)
}

/// Posts one file. An error means that no request could be made.
pub(super) async fn send(
    upload: &Upload,
    http: &Http,
    session: Option<&SessionValue>,
    entry: &ManifestEntry,
    bytes: Vec<u8>,
) -> Result<Sent, StepError> {
    let mime_type = entry.mime_type.as_deref().unwrap_or("application/octet-stream");
    let Ok(part) = Part::bytes(bytes).file_name(file_name(entry)).mime_str(mime_type) else {
        return Ok(Sent::Refused(format!("`{mime_type}` is no media type")));
    };
    let mut form = Form::new().percent_encode_noop();
    if let (Some(session), Some(field)) = (session, http.session().map(|session| session.field().to_owned()))
    {
        form = form.text(field, session.secret.clone());
    }
    for (name, value) in &upload.fields {
        form = form.text(name.clone(), value.0.clone());
    }
    let form = form.part(upload.file_field.clone(), part);
    let request = http.request(Method::POST, &upload.path)?.multipart(form);
    match crash::around("upload", request.send()).await {
        Ok(response) => Ok(answered(upload, session, response).await),
        Err(error) => {
            let error = transport_error(WHAT, error);
            if error.kind != ErrorKind::Transient {
                return Err(error);
            }
            let maybe = error.outcome == Outcome::Unknown;
            Ok(Sent::Lost(Lost { error, maybe, answered: false }))
        }
    }
}

async fn answered(upload: &Upload, session: Option<&SessionValue>, response: reqwest::Response) -> Sent {
    let status = response.status();
    if upload.expect.status.contains(&status.as_u16()) {
        return match read_json::<Value>(WHAT, response, ANSWER).await {
            Ok(answer) => stored(upload, session, &answer),
            Err(error) if error.outcome == Outcome::Unknown => {
                Sent::Lost(Lost { error, maybe: true, answered: false })
            }
            Err(error) => Sent::Refused(error.message),
        };
    }
    if status.is_success() {
        return Sent::Refused(format!("{WHAT}: status {status} is not a promise that it is stored"));
    }
    let error = match check_status(WHAT, response).await {
        Ok(_) => return Sent::Refused(format!("{WHAT}: status {status}")),
        Err(error) => error,
    };
    if status == StatusCode::UNAUTHORIZED && session.is_some() {
        Sent::NoSession(error.message)
    } else if error.kind != ErrorKind::Transient {
        Sent::Refused(error.message)
    } else {
        // A server may fail between the two records that it keeps of one upload.
        Sent::Lost(Lost { error, maybe: status.is_server_error(), answered: true })
    }
}

fn stored(upload: &Upload, session: Option<&SessionValue>, answer: &Value) -> Sent {
    let member = |name: &str| {
        let text = answer.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| format!("{WHAT}: the answer has no text under `{name}`"))
    };
    let fields = &upload.answer;
    let read = || {
        Ok(Stored {
            id: member(&fields.id)?,
            url: Some(member(&fields.url)?),
            mime_type: Some(member(&fields.mime_type)?),
            session: session.map(|session| session.id.clone()).unwrap_or_default(),
        })
    };
    read().map_or_else(Sent::Refused, Sent::Stored)
}
