//! `GET /chatkit/attachments/{attachment_id}?client_secret=…`.

use axum::{
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{
    Gateway, Shared,
    config::Profile,
    events::Event,
    failure::Failure,
    records::{BLOBS, Blob, METADATA, Metadata},
};
use crate::crypto;

/// What the wire transport collects of an answer, in bytes; above it the body is lost.
const WIRE_BODY_LIMIT: usize = 2 * 1024 * 1024;

#[derive(Default, Deserialize)]
pub(super) struct Secret {
    client_secret: Option<String>,
}

/// Answers the content, to the session that uploaded it.
pub(super) async fn download(
    State(gateway): Shared,
    Path(id): Path<String>,
    query: Result<Query<Secret>, QueryRejection>,
) -> Response {
    let secret = query.ok().and_then(|Query(query)| query.client_secret).unwrap_or_default();
    match fetch(&gateway, &id, &secret).await {
        Ok((metadata, bytes)) => answer(&gateway, &metadata, bytes),
        Err(failure) => {
            gateway.log_failure("attachmentDownloadFailed", &failure, |event| {
                event.with("attachmentId", id).with_some("sessionId", gateway.sessions.id_of(&secret))
            });
            failure.answer(gateway.config.profile)
        }
    }
}

async fn fetch(gateway: &Gateway, id: &str, secret: &str) -> Result<(Metadata, Vec<u8>), Failure> {
    if secret.is_empty() {
        return Err(Failure::invalid_request("missing client_secret"));
    }
    let session_id = gateway.sessions.id_of(secret).ok_or_else(Failure::invalid_secret)?;
    let missing = || Failure::new(StatusCode::NOT_FOUND, "not_found", "attachment not found");
    let metadata: Metadata =
        gateway.store.get(METADATA, id).await.map_err(Failure::storage)?.ok_or_else(missing)?;
    if metadata.session_id != session_id {
        let message = "attachment not associated with session";
        return Err(Failure::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    let blob: Blob = gateway.store.get(BLOBS, id).await.map_err(Failure::storage)?.ok_or_else(missing)?;
    let bytes = blob.bytes().map_err(Failure::storage)?;
    let mismatch = |what: &str| {
        Failure::new(StatusCode::CONFLICT, "metadata_mismatch", format!("attachment {what} mismatch"))
    };
    if bytes.len() as u64 != metadata.size_bytes {
        return Err(mismatch("size metadata"));
    }
    if crypto::sha256_hex(&bytes) != metadata.checksum {
        return Err(mismatch("checksum"));
    }
    Ok((metadata, bytes))
}

fn answer(gateway: &Gateway, metadata: &Metadata, bytes: Vec<u8>) -> Response {
    Event::of_request("attachmentDownloadSucceeded", "info")
        .with("attachmentId", metadata.attachment_id.clone())
        .with("sessionId", metadata.session_id.clone())
        .with_some("threadId", metadata.thread_id.clone())
        .with("fileName", metadata.file_name.clone())
        .with("mimeType", metadata.mime_type.clone())
        .with("bytes", bytes.len())
        .with("status", 200)
        .emit();
    let lost = gateway.config.profile == Profile::Wire && bytes.len() > WIRE_BODY_LIMIT;
    let body = if lost { Body::empty() } else { Body::from(bytes) };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_DISPOSITION, disposition(&metadata.file_name));
    for (name, value) in [(header::ETAG, &metadata.checksum), (header::CONTENT_TYPE, &metadata.mime_type)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    response
}

/// The file name travels as raw UTF-8, without what would end the quotes or the header.
fn disposition(file_name: &str) -> HeaderValue {
    let name: String = file_name.chars().filter(|c| !c.is_control() && *c != '"' && *c != '\\').collect();
    HeaderValue::from_bytes(format!("attachment; filename=\"{name}\"").as_bytes())
        .unwrap_or(HeaderValue::from_static("attachment"))
}
