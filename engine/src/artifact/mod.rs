//! Large outputs of steps, kept by their content in the state directory.

mod reader;
mod writer;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use reader::{ArtifactLines, Line};
pub use writer::ArtifactWriter;

use crate::error::{ErrorKind, StepError};
use crate::redact::Redactor;

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

/// The folder of artifacts. Each is a file that is named by the hash of its content, so that what is read is what was written,
/// and the same content is there once.
#[derive(Clone, Debug)]
pub struct Artifacts {
    folder: PathBuf,
    unfinished: PathBuf,
    redactor: Redactor,
}

impl Artifacts {
    /// The artifacts in this folder, which is made (0700) when the first one is written. What is written passes `redactor`.
    pub fn new(folder: impl Into<PathBuf>, redactor: Redactor) -> Self {
        let folder = folder.into();
        Self { unfinished: folder.clone(), folder, redactor }
    }

    /// The same artifacts, of which those that are not complete are written in this folder. It is made when the first one is, and is on
    /// the same disk. Whoever gives it clears it of what a crash left there.
    #[must_use]
    pub fn written_in(self, unfinished: impl Into<PathBuf>) -> Self {
        Self { unfinished: unfinished.into(), ..self }
    }

    /// A path on the disk of the artifacts at which nothing is yet, for something large and short-lived. Whoever makes a folder there
    /// removes it; what a crash leaves begins with `.new-`, and nobody reads it.
    pub async fn scratch(&self) -> Result<PathBuf, StepError> {
        writer::scratch(&self.unfinished).await
    }

    /// Where an artifact's bytes are. An error of kind gate when what it says of itself is no SHA-256: a path is made of it.
    pub fn path(&self, artifact: &Artifact) -> Result<PathBuf, StepError> {
        let hash = &artifact.sha256;
        let digits = hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match hash.get(..2) {
            Some(start) if digits && hash.len() == 64 => Ok(self.folder.join(start).join(hash)),
            _ => Err(StepError::gate(format!(
                "the artifact `{}` is not named by 64 lower-case hex digits",
                artifact.name
            ))),
        }
    }

    /// Begins an artifact that people call `name`, a file name without a folder. Secrets in what is written are masked.
    pub async fn create(&self, name: &str) -> Result<ArtifactWriter, StepError> {
        ArtifactWriter::create(self, name, false).await
    }

    /// Begins an artifact whose bytes are kept exactly, because they are to be put back some day. Writing fails (refused) when
    /// there is a secret in them.
    pub async fn create_raw(&self, name: &str) -> Result<ArtifactWriter, StepError> {
        ArtifactWriter::create(self, name, true).await
    }

    /// Takes in an artifact of another folder, byte by byte. An error of kind gate when it is missing there or altered.
    pub async fn adopt(&self, from: &Self, artifact: &Artifact) -> Result<(), StepError> {
        use tokio::io::AsyncReadExt as _;
        let mut file = from.open(artifact).await?;
        let mut writer =
            Self { redactor: Redactor::default(), ..self.clone() }.create_raw(&artifact.name).await?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read =
                file.read(&mut buffer).await.map_err(|error| failed("read", &artifact.name, &error))?;
            if read == 0 {
                break;
            }
            writer.write(&buffer[..read]).await?;
        }
        let copied = writer.finish().await?;
        if copied.sha256 == artifact.sha256 {
            return Ok(());
        }
        Err(StepError::gate(format!("the artifact `{}` changed while it was read", artifact.name)))
    }

    /// Takes away every artifact but these. Nothing is touched that is not named like one.
    pub async fn keep_only(&self, kept: &[&Artifact]) -> std::io::Result<()> {
        let mut starts = match tokio::fs::read_dir(&self.folder).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            starts => starts?,
        };
        while let Some(start) = starts.next_entry().await? {
            if start.file_name().len() != 2 || !start.file_type().await?.is_dir() {
                continue;
            }
            let mut entries = tokio::fs::read_dir(start.path()).await?;
            while let Some(entry) = entries.next_entry().await? {
                let name = entry.file_name().to_string_lossy().into_owned();
                let one = Artifact { sha256: name, name: String::new(), bytes: 0, lines: None };
                let named = self.path(&one).is_ok_and(|path| path == entry.path());
                if named && !kept.iter().any(|kept| kept.sha256 == one.sha256) {
                    tokio::fs::remove_file(entry.path()).await?;
                }
            }
            // One that still holds something stays.
            let _ = tokio::fs::remove_dir(start.path()).await;
        }
        let _ = tokio::fs::remove_dir(&self.folder).await;
        Ok(())
    }

    /// The artifact's bytes, after all of them were read and found to be what they were. An error of kind gate, naming the
    /// artifact, when they are missing or altered.
    pub async fn open(&self, artifact: &Artifact) -> Result<tokio::fs::File, StepError> {
        reader::open(self.path(artifact)?, artifact).await
    }

    /// The artifact's lines, from the first one.
    pub async fn lines(&self, artifact: &Artifact) -> Result<ArtifactLines, StepError> {
        self.lines_from(artifact, 0).await
    }

    /// The artifact's lines from byte `offset`, which is 0 or the [`Line::end`] of a line read before. The artifact is
    /// verified as by [`Artifacts::open`].
    pub async fn lines_from(&self, artifact: &Artifact, offset: u64) -> Result<ArtifactLines, StepError> {
        ArtifactLines::start(self.open(artifact).await?, artifact, offset).await
    }
}

/// The folder can not be written or read: nothing may act any more.
fn failed(what: &str, name: &str, error: &std::io::Error) -> StepError {
    StepError::new(ErrorKind::Store, format!("the artifact `{name}` can not be {what}")).with_source(error)
}

/// The hash as text.
fn hex(digest: impl AsRef<[u8]>) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    digest.as_ref().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
