//! The records the gateway keeps in the store.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

/// The corpus of everything the gateway stores.
pub(crate) const CORPUS: &str = "chatkit";
/// The collection of the contents.
pub(crate) const BLOBS: &str = "attachments";
/// The collection of the descriptions.
pub(crate) const METADATA: &str = "attachment-metadata";

/// The description of an attachment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) attachment_id: String,
    pub(super) session_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) thread_id: Option<String>,
    pub(super) file_name: String,
    pub(super) mime_type: String,
    pub(super) size_bytes: u64,
    pub(super) checksum: String,
    pub(super) stored_at: String,
}

/// The content of an attachment, with its description.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Blob {
    attachment_id: String,
    session_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    thread_id: Option<String>,
    file_name: String,
    mime_type: String,
    size_bytes: u64,
    checksum: String,
    stored_at: String,
    data_base64: String,
}

impl Blob {
    pub(super) fn new(metadata: &Metadata, bytes: &[u8]) -> Self {
        let metadata = metadata.clone();
        Self {
            attachment_id: metadata.attachment_id,
            session_id: metadata.session_id,
            thread_id: metadata.thread_id,
            file_name: metadata.file_name,
            mime_type: metadata.mime_type,
            size_bytes: metadata.size_bytes,
            checksum: metadata.checksum,
            stored_at: metadata.stored_at,
            data_base64: STANDARD.encode(bytes),
        }
    }

    pub(super) fn bytes(&self) -> Result<Vec<u8>, base64::DecodeError> {
        STANDARD.decode(&self.data_base64)
    }
}
