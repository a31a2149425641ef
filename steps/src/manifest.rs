//! Manifests: artifacts with one JSON object a line, each with a `key`.

use runbook_engine::artifact::{Artifact, ArtifactLines, Artifacts};
use runbook_engine::error::{ErrorKind, StepError};
use serde::Deserialize;

use crate::collections::Versions;

/// The part of a line that every manifest has; the rest of the line is passed over.
#[derive(Deserialize)]
struct Keyed {
    key: String,
    /// The item's size, when the system said it.
    #[serde(default)]
    bytes: Option<u64>,
    /// Which state of the item it was, when its collection said.
    #[serde(default)]
    version_in: Versions,
}

/// What a line says of its item.
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its size in bytes: as the system gave it, and that of the line where it gave none.
    pub bytes: u64,
    /// Its version in the collection it was read from, when that one gave it.
    pub version_in: Versions,
}

/// Runs work that blocks off the async threads.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StepError::new(ErrorKind::Bug, format!("a task ended early: {error}")))?
}

/// Reads the keys of a manifest, in order, one line in memory at a time.
pub struct Keys {
    lines: ArtifactLines,
    offset: u64,
}

impl Keys {
    /// The keys from the line that begins at byte `offset`, of a manifest that is verified to be what was written.
    pub async fn open(artifacts: &Artifacts, manifest: &Artifact, offset: u64) -> Result<Self, StepError> {
        let lines = artifacts.lines_from(manifest, offset).await?;
        Ok(Self { lines, offset })
    }

    /// The next key; nothing at the end. A line without a key is an error of kind gate.
    pub async fn next(&mut self) -> Result<Option<String>, StepError> {
        Ok(self.next_entry().await?.map(|entry| entry.key))
    }

    /// The next key with what its line says of the item; nothing at the end. A line without a key is an error of kind gate.
    pub async fn next_entry(&mut self) -> Result<Option<Entry>, StepError> {
        let Some((line, end)) = self.lines.next_json().await? else { return Ok(None) };
        let Keyed { key, bytes, version_in } = line;
        let bytes = bytes.unwrap_or(end - self.offset);
        self.offset = end;
        Ok(Some(Entry { key, bytes, version_in }))
    }

    /// Where the next line begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// How many keys a manifest has, after a check of every line. An empty key is an error of kind gate, unless there may be such items.
pub async fn count_keys(
    artifacts: &Artifacts,
    manifest: &Artifact,
    empty_too: bool,
) -> Result<u64, StepError> {
    let (mut keys, mut count, mut at) = (Keys::open(artifacts, manifest, 0).await?, 0, 0);
    while let Some(key) = keys.next().await? {
        if key.is_empty() && !empty_too {
            let message = format!("the key in the line at byte {at} of {} is empty", manifest.name);
            return Err(StepError::gate(message));
        }
        (count, at) = (count + 1, keys.offset());
    }
    Ok(count)
}
