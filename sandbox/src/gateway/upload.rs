//! `POST /chatkit/upload`.

use axum::{
    Json,
    body::Bytes,
    extract::{Multipart, State, multipart::MultipartRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{
    Gateway, Shared,
    config::Profile,
    events::Event,
    failure::Failure,
    records::{BLOBS, Blob, METADATA, Metadata},
};
use crate::{crypto, time};

const OCTET_STREAM: &str = "application/octet-stream";

/// The parts of an upload.
struct Upload {
    secret: String,
    thread_id: Option<String>,
    file_name: String,
    mime_type: String,
    bytes: Bytes,
}

/// Stores an attachment. The order of the checks is part of the contract: form, session, size, media type, store.
pub(super) async fn upload(
    State(gateway): Shared,
    multipart: Result<Multipart, MultipartRejection>,
) -> Response {
    let upload = match multipart {
        Ok(multipart) => read(multipart).await,
        Err(_) => None,
    };
    let Some(mut upload) = upload else {
        let failure = Failure::invalid_request("malformed multipart payload");
        gateway.log_failure("attachmentUploadFailed", &failure, |event| event);
        return failure.answer(gateway.config.profile);
    };
    if gateway.config.profile == Profile::Wire {
        upload.mime_type = OCTET_STREAM.into();
    }
    match store(&gateway, &upload).await {
        Ok(metadata) => accepted(&metadata),
        Err(failure) => {
            gateway.log_failure("attachmentUploadFailed", &failure, |event| {
                event
                    .with("fileName", upload.file_name.clone())
                    .with("mimeType", upload.mime_type.clone())
                    .with("sizeBytes", upload.bytes.len())
                    .with_some("sessionId", gateway.sessions.id_of(&upload.secret))
                    .with_some("threadId", upload.thread_id.clone())
            });
            failure.answer(gateway.config.profile)
        }
    }
}

/// The parts, or nothing when the form is malformed or lacks one that is required.
async fn read(mut multipart: Multipart) -> Option<Upload> {
    let (mut secret, mut thread_id, mut file) = (None, None, None);
    while let Some(field) = multipart.next_field().await.ok()? {
        match field.name() {
            Some("client_secret") => secret = Some(field.text().await.ok()?),
            Some("thread_id") => thread_id = Some(field.text().await.ok()?).filter(|id| !id.is_empty()),
            Some("file") => {
                let file_name = field.file_name()?.to_owned();
                let mime_type = field.content_type().unwrap_or(OCTET_STREAM).to_lowercase();
                file = Some((file_name, mime_type, field.bytes().await.ok()?));
            }
            _ => {}
        }
    }
    let (file_name, mime_type, bytes) = file?;
    Some(Upload { secret: secret?, thread_id, file_name, mime_type, bytes })
}

async fn store(gateway: &Gateway, upload: &Upload) -> Result<Metadata, Failure> {
    let session_id = gateway.sessions.id_of(&upload.secret).ok_or_else(Failure::invalid_secret)?;
    let size_bytes = upload.bytes.len() as u64;
    if size_bytes > gateway.config.max_bytes {
        let message = format!("attachments cannot exceed {}", size_text(gateway.config.max_bytes));
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "attachment_too_large", message));
    }
    if !gateway.config.allowed_mime_types.contains(&upload.mime_type) {
        let message = format!("unsupported media type {}", upload.mime_type);
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
    }
    let metadata = Metadata {
        attachment_id: crypto::uuid(),
        session_id,
        thread_id: upload.thread_id.clone(),
        file_name: upload.file_name.clone(),
        mime_type: upload.mime_type.clone(),
        size_bytes,
        checksum: crypto::sha256_hex(&upload.bytes),
        stored_at: time::now(),
    };
    // The content first: a crash in between leaves content without a description, never the reverse.
    let id = &metadata.attachment_id;
    gateway.store.put(BLOBS, id, &Blob::new(&metadata, &upload.bytes)).await.map_err(Failure::storage)?;
    gateway.store.put(METADATA, id, &metadata).await.map_err(Failure::storage)?;
    Ok(metadata)
}

fn accepted(metadata: &Metadata) -> Response {
    Event::of_request("attachmentUploadSucceeded", "info")
        .with("attachmentId", metadata.attachment_id.clone())
        .with("sessionId", metadata.session_id.clone())
        .with_some("threadId", metadata.thread_id.clone())
        .with("fileName", metadata.file_name.clone())
        .with("mimeType", metadata.mime_type.clone())
        .with("sizeBytes", metadata.size_bytes)
        .with("status", 201)
        .emit();
    let answer = json!({
        "attachment_id": metadata.attachment_id,
        "mime_type": metadata.mime_type,
        "upload_url": format!("fountain://chatkit/attachments/{}", metadata.attachment_id),
    });
    (StatusCode::CREATED, Json(answer)).into_response()
}

#[expect(clippy::cast_precision_loss, reason = "a text for people, one digit after the point")]
fn size_text(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes >= 1_048_576.0 {
        format!("{:.1} MB", bytes / 1_048_576.0)
    } else {
        format!("{:.0} KB", bytes / 1024.0)
    }
}
