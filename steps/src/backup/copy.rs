//! The copy of a backup in a bucket: sent once, read back, and held to the file.

use std::path::Path;
use std::sync::Arc;

use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::step::{Intent, Settlement};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Outputs;
use crate::connections::s3::{S3, Sending};
use crate::had;
use crate::kind::Context;
use crate::process::quoted;

/// Where a copy of a backup is kept.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyTo {
    /// The name of a connection of type `s3`.
    pub connection: String,
    /// The key of the object. Nothing may be there: no backup is written over.
    #[schemars(length(min = 1, max = 1024))]
    pub key: String,
}

/// A copy of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Copied {
    /// Where it is, `s3://BUCKET/KEY`.
    pub url: String,
    /// What to type to have it as the file again, with the program `aws` and the keys of the bucket.
    pub fetch: String,
}

/// What is announced before a copy is sent. The member tells it from the backup itself.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Announced {
    copy: Copied,
    sha256: String,
    /// The upload of an object that is sent in parts.
    upload: Option<String>,
    /// What a person types to take its parts away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forget: Option<String>,
}

/// Whether a batch is that of a copy, and not of the backup itself.
pub(super) fn is_of_copy(what: &Value) -> bool {
    Announced::deserialize(what).is_ok()
}

/// An upload in parts that was begun.
pub(super) struct Begun {
    /// What the store calls it.
    pub(super) upload: String,
    /// Where the copy is to be, `s3://BUCKET/KEY`.
    pub(super) url: String,
    /// What a person types to take its parts away, as it was announced.
    pub(super) forget: Option<String>,
}

/// The upload in parts that a batch announced; nothing when it is none of a copy, or of one that is sent at once.
pub(super) fn begun(what: &Value) -> Option<Begun> {
    let Announced { copy, upload, forget, .. } = Announced::deserialize(what).ok()?;
    Some(Begun { upload: upload?, url: copy.url, forget })
}

/// The copy of one attempt.
pub(super) struct Copying<'a> {
    to: &'a CopyTo,
    cx: &'a Context,
    bucket: Arc<S3>,
}

impl<'a> Copying<'a> {
    pub(super) fn begin(to: &'a CopyTo, cx: &'a Context) -> Result<Self, StepError> {
        Ok(Self { to, cx, bucket: cx.resources.connection::<S3>(&to.connection)? })
    }

    /// Where it is to be.
    pub(super) fn url(&self) -> String {
        format!("s3://{}/{}", self.bucket.bucket(), self.to.key)
    }

    /// Refused when something is there.
    pub(super) async fn is_free(&self) -> Result<(), StepError> {
        match self.bucket.claimed(&self.to.key).await? {
            None => Ok(()),
            Some(_) => Err(self.bucket.taken(&self.to.key)),
        }
    }

    /// What to type to take the parts of an upload away, with the program `aws` and the keys of the bucket.
    pub(super) fn forgetting(&self, upload: &str) -> String {
        let (at, bucket, key) = (self.at(), quoted(self.bucket.bucket()), quoted(&self.to.key));
        format!(
            "aws s3api abort-multipart-upload{at} --bucket {bucket} --key {key} --upload-id {}",
            quoted(upload)
        )
    }

    /// The option by which `aws` reaches the store.
    fn at(&self) -> String {
        self.bucket.endpoint().map_or_else(String::new, |endpoint| {
            format!(" --endpoint-url={}", quoted(endpoint.as_str().trim_end_matches('/')))
        })
    }

    /// Takes the parts of an upload away that did not become an object.
    pub(super) async fn forget(&self, upload: &str) -> Result<(), StepError> {
        self.bucket.forget_parts(&self.to.key, upload).await
    }

    /// A copy of this file.
    pub(super) fn of(&self, file: &Path) -> Copied {
        let url = self.url();
        let at = self.at();
        let fetch = format!("aws s3 cp{at} {} {}", quoted(&url), quoted(&file.display().to_string()));
        Copied { url, fetch }
    }

    /// Holds a copy that has to be there to the file.
    pub(super) async fn check(&self, sha256: &str) -> Result<(), StepError> {
        let url = self.url();
        match self.bucket.digest(&self.to.key).await? {
            Some((found, _)) if found == sha256 => Ok(()),
            Some(_) => {
                Err(StepError::gate(format!("{url} is no copy of the backup: its SHA-256 is another"))
                    .with_help("take it away and copy the backup again, then resume"))
            }
            None => Err(StepError::gate(format!("there is no copy of the backup at {url}"))
                .with_help("copy the backup there, then resume")),
        }
    }

    /// Sees to it that the backup has its copy, and that the ledger says so.
    pub(super) async fn make(&self, outputs: Outputs, series: u32) -> Result<Outputs, StepError> {
        let sending =
            Sending { key: &self.to.key, file: &outputs.file, bytes: outputs.bytes, sha256: &outputs.sha256 };
        if outputs.copy.is_some() {
            let claimed = self.bucket.claimed(&self.to.key).await?;
            if claimed == Some((Some(outputs.sha256.clone()), outputs.bytes)) {
                return Ok(outputs);
            }
            return Err(StepError::gate(format!("{} is not the copy that this step made", self.url()))
                .with_help("put it back, then resume"));
        }
        let copied = Outputs { copy: Some(self.of(&outputs.file)), ..outputs.clone() };
        let found = self.bucket.digest(&self.to.key).await?;
        let is_there = found.as_ref().is_some_and(|(sha256, _)| *sha256 == outputs.sha256);
        for batch in self.cx.ledger.view().await?.unsettled {
            let Ok(announced) = Announced::deserialize(&batch.what) else { continue };
            if is_there && announced.sha256 == outputs.sha256 {
                self.settle(batch.number, 1, &copied, series, json!({ "copied": true })).await?;
                return Ok(copied);
            }
            if let Some(upload) = &announced.upload {
                self.bucket.forget_parts(&self.to.key, upload).await?;
            }
            self.settle(batch.number, 0, &outputs, series, json!({ "repeated": true })).await?;
        }
        match found {
            // By an attempt whose answer was lost, or by somebody.
            Some(_) if is_there => return Ok(copied),
            Some(_) => return Err(self.bucket.taken(&self.to.key)),
            None => {}
        }
        self.send(&sending, &outputs, &copied, series).await?;
        Ok(copied)
    }

    /// Settles the batch of a copy. What the step had before it stays known, whatever became of the copy.
    async fn settle(
        &self,
        batch: u64,
        done: u64,
        had: &Outputs,
        series: u32,
        outcome: Value,
    ) -> Result<(), StepError> {
        let settlement = had::settlement(had, series, outcome)?;
        self.cx.ledger.settle(batch, Settlement { done, ..settlement }).await?;
        Ok(())
    }

    async fn send(
        &self,
        sending: &Sending<'_>,
        outputs: &Outputs,
        copied: &Outputs,
        series: u32,
    ) -> Result<(), StepError> {
        self.cx.checkpoint()?;
        let upload = self.bucket.begin_parts(sending).await?;
        let announced = Announced {
            copy: self.of(sending.file),
            sha256: sending.sha256.to_owned(),
            forget: upload.as_deref().map(|upload| self.forgetting(upload)),
            upload: upload.clone(),
        };
        let what = serde_json::to_value(announced)
            .map_err(|error| StepError::new(ErrorKind::Bug, error.to_string()))?;
        let intent = Intent { what, items: 1, charged_items: 0, charged_bytes: 0 };
        let batch = self.cx.ledger.intend(intent).await?.number;
        let sent = self.bucket.send_file(sending, upload.as_deref(), || self.cx.checkpoint());
        let ended = match crash::around("backup: copy", sent).await {
            Ok(()) => self.check(sending.sha256).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            // Parts that belong to no object are not listed as one, and are paid for.
            let forgotten = match &upload {
                Some(upload) => self.bucket.forget_parts(&self.to.key, upload).await,
                None => Ok(()),
            };
            if forgotten.is_ok() {
                self.settle(batch, 0, outputs, series, json!({ "failed": error.message })).await?;
            }
            return Err(self.told(error, sending.file));
        }
        self.settle(batch, 1, copied, series, json!({ "copied": true })).await
    }

    /// The error, with what there is all the same.
    fn told(&self, error: StepError, file: &Path) -> StepError {
        let message = format!(
            "the backup is in {} and has no copy at {}: {}",
            file.display(),
            self.url(),
            error.message
        );
        StepError { message, ..error }
    }
}
