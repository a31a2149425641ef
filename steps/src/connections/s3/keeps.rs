//! What a bucket keeps of what is deleted or expires.

use aws_sdk_s3::types::BucketVersioningStatus;
use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{S3, code_of, failed};

/// What a bucket keeps of what is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Keeps {
    /// Nothing.
    Nothing,
    /// Every version.
    Versions,
    /// The versions of a time when it kept them.
    OlderVersions,
    /// The connection may not ask, or the answer says nothing.
    NotTold,
}

impl Keeps {
    /// What each `act`, such as a delete, leaves, in words; nothing when that is nothing.
    pub fn words(self, act: &str) -> Option<String> {
        Some(match self {
            Self::Nothing => return None,
            Self::Versions => format!(
                "the bucket keeps versions: each {act} leaves a delete marker, and what was there stays as an older version"
            ),
            Self::OlderVersions => format!(
                "the bucket kept versions before: each {act} leaves a delete marker, in the place of what was written while it kept none; versions with an id stay"
            ),
            Self::NotTold => {
                "whether the bucket keeps versions, and with them what is deleted, can not be told".to_owned()
            }
        })
    }
}

impl S3 {
    /// Whether the bucket keeps versions.
    pub async fn keeps(&self) -> Result<Keeps, StepError> {
        let client = self.client().await;
        match client.get_bucket_versioning().bucket(self.bucket()).send().await {
            Ok(found) => Ok(match found.status() {
                None => Keeps::Nothing,
                Some(BucketVersioningStatus::Suspended) => Keeps::OlderVersions,
                Some(_) => Keeps::Versions,
            }),
            Err(error) => match code_of(&error) {
                // Some stores know no versions.
                Some("NotImplemented" | "MethodNotAllowed") => Ok(Keeps::Nothing),
                Some("AccessDenied") => Ok(Keeps::NotTold),
                _ => {
                    let what = format!("asking whether {} keeps versions", self.describe());
                    Err(failed(&what, &error))
                }
            },
        }
    }
}
