//! Step kind `smoke-upload`: a file that is uploaded ends in the store, and can be had from there.

mod work;

use async_trait::async_trait;
use runbook_engine::error::StepError;
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::work::Work;
use crate::kind::{Context, End, Step, would};

/// Uploads a small file that it makes for that, and fetches it again by the link of the answer, as a user of the application would. The link
/// has to lead on to the store by a redirect: an application that hands the file out itself keeps it somewhere else, and fails the step.
///
/// What the link leads to has to be an object of the collection, with one of the `keys`; all of them have to be there, and the bytes have to
/// be those that were sent. Links are signed, so nothing of their queries is kept or shown, and the redirect is followed without any credential.
///
/// Each attempt leaves a file of its own: see to it that such files go away by themselves.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmokeUpload {
    /// The connection to the application, of a type that speaks HTTP, with the headers that let it upload.
    pub connection: String,
    /// Where to post the form, below the connection's URL.
    pub path: String,
    /// The form field of the file. Default `file`.
    #[serde(default = "default_field")]
    pub field: String,
    /// The file.
    pub file: File,
    /// Where the answer, JSON, holds what is needed of it.
    #[serde(default)]
    pub answer: Answer,
    /// The status of the answer that leads on to the store. Default: 307.
    #[serde(default = "default_redirect")]
    #[schemars(range(min = 300, max = 399))]
    pub redirect: u16,
    /// The collection that the file ends in, of type `s3-objects`.
    pub stored_in: String,
    /// The keys that there have to be then, `{id}` for the id of the answer. The redirect leads to the first.
    #[schemars(length(min = 1))]
    pub keys: Vec<String>,
}

fn default_field() -> String {
    "file".to_owned()
}

fn default_redirect() -> u16 {
    307
}

/// The file that is made.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name.
    pub name: String,
    /// Its media type.
    pub mime_type: String,
    /// What it begins with. The run and the time follow, so that no two are the same.
    #[serde(default)]
    pub begins: String,
}

/// JSON pointers into the answer of the upload.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Answer {
    /// The id. Default `/attachment_id`.
    pub id: String,
    /// The link: a path below the connection's URL, or a URL of the same server. Default `/url`.
    pub url: String,
}

impl Default for Answer {
    fn default() -> Self {
        Self { id: "/attachment_id".to_owned(), url: "/url".to_owned() }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Outputs {
    /// The id that the application gave the file.
    pub id: String,
    /// How large it is, in bytes.
    pub bytes: u64,
    /// Its SHA-256, 64 hex digits: of what was sent, and of what came back.
    pub sha256: String,
    /// The status with which it was taken.
    pub upload_status: u16,
    /// The status that led on to the store.
    pub redirect_status: u16,
    /// The status with which the store handed it out.
    pub download_status: u16,
    /// The keys that are there, the one of the file first.
    pub keys: Vec<String>,
    /// How long all of it took, in milliseconds.
    pub took_ms: u64,
}

#[async_trait]
impl Step for SmokeUpload {
    const NAME: &'static str = "smoke-upload";
    const SUMMARY: &'static str =
        "Upload a file, and see that it ends in the store and comes back byte by byte";
    const EXAMPLE: &'static str = r#"id: smoke
uses: smoke-upload
with:
  connection: api
  path: /v1/chat/attachments/upload
  file: { name: smoke.png, mime_type: image/png, begins: PNGDATA-S3-SMOKE- }
  stored_in: attachments
  keys: ["chat-attachments/staging/{id}.bin", "chat-attachments/staging/{id}.json"]
"#;
    const FLEETING_OUTPUTS: &'static [&'static str] = &["/took_ms"];
    type Outputs = Outputs;

    fn effect(_: &Value) -> Effect {
        // A second file does no harm: it goes away as the first one does.
        Effect::WRITE
    }

    async fn foresee(self, _: Effect, _: &Context) -> Result<Foresight, StepError> {
        let (path, connection, store) = (&self.path, &self.connection, &self.stored_in);
        Ok(would(format!("upload one small file to {path} of `{connection}`, and fetch it from `{store}`")))
    }

    async fn run(self, cx: &Context) -> Result<End<Outputs>, StepError> {
        cx.checkpoint()?;
        let work = Work::begin(&self, cx)?;
        cx.unless_abandoned(work.all()).await.map(End::Done)
    }
}
