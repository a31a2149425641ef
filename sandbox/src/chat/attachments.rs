//! Uploading an attachment, and having it again.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Multipart, Path, Query, State, multipart::MultipartRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Chat,
    failure::Failure,
    link,
    storage::{Content, LINK_SECONDS, Record},
};
use crate::crypto;

/// The largest attachment, in bytes.
const LARGEST: usize = 20 * 1024 * 1024;

type Shared = State<Arc<Chat>>;

/// A file of a form.
struct File {
    name: String,
    mime_type: String,
    bytes: Bytes,
}

/// Keeps the first file of the form, and gives out a link to it.
pub(super) async fn upload(
    State(chat): Shared,
    headers: HeaderMap,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Json<Value>, Failure> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|given| given.strip_prefix("Bearer ")).unwrap_or_default();
    let uploaded_by = link::bearer(&chat.secret, token).ok_or(Failure::Unauthorized)?;
    let malformed = || Failure::Validation("malformed multipart payload".to_owned());
    let file = first_file(form.map_err(|_| malformed())?).await?;
    if file.bytes.len() > LARGEST {
        return Err(Failure::Validation(format!("attachment exceeds {LARGEST} bytes")));
    }
    let media_type = file.mime_type.split('/').next().unwrap_or_default().to_owned();
    if !["image", "video", "audio"].contains(&media_type.as_str()) {
        return Err(Failure::Validation(format!("unsupported mime type {}", file.mime_type)));
    }
    let record = Record {
        attachment_id: id(),
        file_name: file.name.replace(|c: char| !c.is_ascii_alphanumeric() && !".-_".contains(c), "_"),
        mime_type: file.mime_type,
        size_bytes: file.bytes.len(),
        media_type,
        uploaded_by,
        created_at_ms: jiff::Timestamp::now().as_millisecond(),
    };
    let (url, expires_at_ms) = link::link(&chat.secret, &record.attachment_id);
    let answer = json!({
        "attachment_id": record.attachment_id,
        "file_name": record.file_name,
        "mime_type": record.mime_type,
        "size_bytes": record.size_bytes,
        "media_type": record.media_type,
        "url": url,
        "expires_at_ms": expires_at_ms,
    });
    chat.storage.keep(record, file.bytes).await.map_err(Failure::Internal)?;
    Ok(Json(answer))
}

/// The first part that has a name of a file and is not empty.
async fn first_file(mut form: Multipart) -> Result<File, Failure> {
    let unread = |error: axum::extract::multipart::MultipartError| Failure::Validation(error.body_text());
    while let Some(part) = form.next_field().await.map_err(unread)? {
        let Some(name) = part.file_name().map(str::to_owned) else { continue };
        let mime_type = part.content_type().map(str::to_owned);
        let bytes = part.bytes().await.map_err(unread)?;
        if !bytes.is_empty() {
            let mime_type =
                mime_type.ok_or_else(|| Failure::Validation("the file has no content type".to_owned()))?;
            return Ok(File { name, mime_type, bytes });
        }
    }
    Err(Failure::Validation("no file".to_owned()))
}

/// A fresh id: a UUID of version 7 without dashes.
fn id() -> String {
    let mut bytes = crypto::random::<16>();
    let millis = jiff::Timestamp::now().as_millisecond().to_be_bytes();
    bytes[..6].copy_from_slice(&millis[2..]);
    bytes[6] = (bytes[6] & 0x0f) | 0x70;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    crypto::hex(&bytes)
}

/// The query of a link.
#[derive(Deserialize)]
pub(super) struct Link {
    exp: i64,
    sig: String,
}

/// Leads to the store where an attachment is kept in one, and hands it out where it is not.
pub(super) async fn download(
    State(chat): Shared,
    Path(id): Path<String>,
    link: Result<Query<Link>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Failure> {
    let Query(link) = link.map_err(|_| Failure::Forbidden)?;
    if !link::holds(&chat.secret, &id, link.exp, &link.sig) {
        return Err(Failure::Forbidden);
    }
    let (record, content) =
        chat.storage.find(&id).await.map_err(Failure::Internal)?.ok_or(Failure::NotFound)?;
    Ok(match content {
        Content::Here(bytes) => ([(header::CONTENT_TYPE, record.mime_type)], bytes).into_response(),
        Content::At(url) => {
            let cache = format!("private,max-age={LINK_SECONDS}");
            let headers = [(header::LOCATION, url.to_string()), (header::CACHE_CONTROL, cache)];
            (StatusCode::TEMPORARY_REDIRECT, headers).into_response()
        }
    })
}
