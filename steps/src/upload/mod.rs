//! Step kind `upload`: sends files of a manifest, one by one, so that all of them end in one live session.

pub(crate) mod files;
mod held;
mod send;
mod work;
mod world;

use std::collections::BTreeMap;

use async_trait::async_trait;
use runbook_engine::artifact::Artifact;
use runbook_engine::error::StepError;
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::had;
use crate::kind::{Context, End, Step, would};
use crate::text::Text;
use work::Work;

/// Uploads the files of a manifest as multipart forms, each written ahead in the ledger.
///
/// Before it is sent, a file is hashed again and compared with the manifest. A crash or a broken connection between sending and
/// recording is settled with `recorded_in`: the server's own records are searched for the file's checksum, name and session; a
/// whole record is adopted, a partial one is deleted and the file sent again. Without `recorded_in` a person is asked.
///
/// Servers that let only the uploading session download lose everything uploaded when that session ends. So when the session in
/// hand is not the one that earlier files were uploaded in, those files are deleted (through `recorded_in`) and uploaded again:
/// at the end all are in one live session. A refreshed session is the same session.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upload {
    /// A connection of type `http`. Its session, if it has one, is sent as a form field.
    pub connection: String,
    /// Where to post, below the connection's URL.
    pub path: String,
    /// The files: an artifact of JSON lines `{key, name, mime_type, path, bytes, sha256}`, as `snapshot` exports.
    pub manifest: Artifact,
    /// A connection of type `directory` that the paths of the manifest are below. Without it they are absolute.
    #[serde(default)]
    pub directory: Option<String>,
    /// Only these keys of the manifest, each of which it must have. Default: all.
    #[serde(default)]
    pub only: Option<Vec<String>>,
    /// The form field of the file. Default `file`.
    #[serde(default = "default_file_field")]
    pub file_field: String,
    /// Further form fields, by name.
    #[serde(default)]
    pub fields: BTreeMap<String, Text>,
    /// Where the answer holds what is recorded.
    #[serde(default)]
    pub answer: Answer,
    /// Where the server keeps its records, so that an upload without an answer can be settled.
    #[serde(default)]
    pub recorded_in: Option<RecordedIn>,
    /// What it means that a file is missing, differs from the manifest or is refused. Every file is tried in either case.
    #[serde(default)]
    pub on_missing: OnMissing,
    /// What answer counts as stored.
    #[serde(default)]
    pub expect: Expect,
}

fn default_file_field() -> String {
    "file".to_owned()
}

/// The members of the answer, a JSON object, that are recorded; all must be there.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Answer {
    /// The new id. Default `attachment_id`.
    pub id: String,
    /// The new link. Default `upload_url`.
    pub url: String,
    /// The media type that the server recorded. Default `mime_type`.
    pub mime_type: String,
}

impl Default for Answer {
    fn default() -> Self {
        let [id, url, mime_type] = ["attachment_id", "upload_url", "mime_type"].map(str::to_owned);
        Self { id, url, mime_type }
    }
}

/// The collections that hold one record per upload.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordedIn {
    /// The collections. An upload is whole when all of them have its record, under the same key: the new id.
    #[schemars(length(min = 1))]
    pub collections: Vec<String>,
    /// The fields of a record by which it is found.
    #[serde(default, rename = "match")]
    pub fields: MatchFields,
    /// The field of a record that holds the media type. Default `mimeType`.
    #[serde(default = "default_mime_field")]
    pub mime_type: String,
    /// The link of a record found there, `{id}` for its key. Default: taken from the answers to other uploads.
    #[serde(default)]
    pub url: Option<String>,
}

fn default_mime_field() -> String {
    "mimeType".to_owned()
}

/// The fields of a record by which an upload is found.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MatchFields {
    /// The file name. Default `fileName`.
    pub name: String,
    /// The SHA-256 as lower-case hex. Default `checksum`.
    pub sha256: String,
    /// The id of the session. Default `sessionId`.
    pub session: String,
}

impl Default for MatchFields {
    fn default() -> Self {
        let [name, sha256, session] = ["fileName", "checksum", "sessionId"].map(str::to_owned);
        Self { name, sha256, session }
    }
}

/// What failed files mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMissing {
    /// The step fails and names them.
    #[default]
    Stop,
    /// The step goes on; they are in `discrepancies`.
    Continue,
}

/// What answer counts as stored.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The statuses. Default `[201]`: a 202 has promised nothing.
    pub status: Vec<u16>,
}

impl Default for Expect {
    fn default() -> Self {
        Self { status: vec![201] }
    }
}

/// What a step of kind `upload` leaves.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Uploaded {
    /// How many files are stored in the session `session_id`.
    pub uploaded: u64,
    /// How many files could not be stored.
    pub failed: u64,
    /// How often a file was uploaded again because its session had ended.
    pub replaced: u64,
    /// One record a line for every file stored, in the order of the manifest: `{key, attachment_id, upload_url, mime_type, name,
    /// asset_mime_type, path, bytes, sha256, session_id}`.
    pub descriptors: Artifact,
    /// The session that all of them were uploaded in; absent without sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// What a person should know, such as a recorded media type that is not the file's. At most 50.
    pub discrepancies: Vec<String>,
}

/// A line of the manifest.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ManifestEntry {
    pub(crate) key: String,
    #[serde(default)]
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) mime_type: Option<String>,
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// A line of `descriptors.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Descriptor {
    pub(crate) key: String,
    pub(crate) attachment_id: String,
    pub(crate) upload_url: Option<String>,
    pub(crate) mime_type: Option<String>,
    pub(crate) name: String,
    pub(crate) asset_mime_type: Option<String>,
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) session_id: Option<String>,
}

#[async_trait]
impl Step for Upload {
    const NAME: &'static str = "upload";
    const SUMMARY: &'static str =
        "Upload the files of a manifest, resumable one by one, all in one live session";
    const EXAMPLE: &'static str = r#"id: restore
uses: upload
with:
  connection: gateway
  path: /chatkit/upload
  manifest: "${{ steps.export.outputs.export_manifest }}"
  directory: archive
  recorded_in: { collections: [metadata, blobs] }
"#;
    const TIDIES: bool = true;
    type Outputs = Uploaded;

    fn effect(with: &Value) -> Effect {
        match with.get("recorded_in") {
            None | Some(Value::Null) => Effect::WRITE_ONCE,
            Some(_) => Effect::WRITE,
        }
    }

    async fn foresee(self, _: Effect, _: &Context) -> Result<Foresight, StepError> {
        Ok(would(format!("upload files to {} of `{}`", self.path, self.connection)))
    }

    async fn run(self, cx: &Context) -> Result<End<Uploaded>, StepError> {
        let mut work = Work::enter(&self, cx).await?;
        work.settle_open().await?;
        work.upload_all().await?;
        work.outputs().await.map(End::Done)
    }

    async fn tidy(self, cx: &Context) -> Result<(), StepError> {
        // Where nothing records the uploads nobody can look.
        if self.recorded_in.is_none() || cx.ledger.view().await?.unsettled.is_empty() {
            return Ok(());
        }
        let work = Work::enter(&self, cx).await;
        let work = work.map_err(|error| had::not_looked(LAST_FILE, error))?;
        work.conclude().await.map_err(|error| had::not_looked(LAST_FILE, error))
    }
}

/// What a cancel finds out about.
const LAST_FILE: &str = "its last upload";
