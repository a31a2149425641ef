//! Large outputs of steps, kept by their content in the state directory.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A finished artifact, as outputs name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// SHA-256 of its bytes, 64 lower-case hex digits: its identity.
    pub sha256: String,
    /// What people call it: a file name without a folder.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// How many lines it has, when it is one record a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u64>,
}

/// The folder of artifacts.
#[derive(Clone, Debug)]
pub struct Artifacts {
    folder: PathBuf,
}

impl Artifacts {
    /// The artifacts in this folder, which is made when the first one is written.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where an artifact's bytes are.
    pub fn path(&self, artifact: &Artifact) -> PathBuf {
        self.folder.join(&artifact.sha256[..2]).join(&artifact.sha256)
    }
}
