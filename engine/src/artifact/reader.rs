//! Reading an artifact, which is verified first.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncSeekExt as _, BufReader};

use super::{Artifact, failed, hex};
use crate::error::{ErrorKind, StepError};

/// How much is read at one time, in bytes.
const BUFFER: usize = 256 * 1024;

/// Opens and reads all of it once; the file that is handed out is the very one that was read, from its beginning.
pub async fn open(path: PathBuf, artifact: &Artifact) -> Result<File, StepError> {
    let verified = tokio::task::spawn_blocking(move || verify(&path)).await;
    let verified = verified.map_err(|error| {
        StepError::new(ErrorKind::Bug, format!("reading `{}` ended early", artifact.name)).with_source(&error)
    })?;
    let (file, bytes, sha256) = match verified {
        Ok(verified) => verified,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(gate(artifact, "is missing")),
        Err(error) => return Err(failed("read", &artifact.name, &error)),
    };
    if bytes != artifact.bytes {
        let what = format!("was altered: it has {bytes} bytes and had {}", artifact.bytes);
        return Err(gate(artifact, &what));
    }
    if sha256 != artifact.sha256 {
        return Err(gate(artifact, "was altered: its bytes are not those that were written"));
    }
    Ok(File::from_std(file))
}

fn verify(path: &Path) -> io::Result<(std::fs::File, u64, String)> {
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                hash.update(&buffer[..read]);
                bytes += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok((file, bytes, hex(hash.finalize())))
}

fn gate(artifact: &Artifact, what: &str) -> StepError {
    StepError::gate(format!("the artifact `{}` (SHA-256 {}) {what}", artifact.name, artifact.sha256))
        .with_help(
            "put the file back from a copy of the state directory, or run the step that wrote it again",
        )
}

/// A line of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The line without its line break.
    pub text: String,
    /// The byte after its line break: where [`super::Artifacts::lines_from`] goes on after it.
    pub end: u64,
}

/// Reads an artifact line by line; there is one line in memory at a time.
#[derive(Debug)]
pub struct ArtifactLines {
    file: BufReader<File>,
    name: String,
    offset: u64,
}

impl ArtifactLines {
    pub(super) async fn start(mut file: File, artifact: &Artifact, offset: u64) -> Result<Self, StepError> {
        let could_not = |error: io::Error| failed("read", &artifact.name, &error);
        let name = artifact.name.clone();
        if offset > artifact.bytes {
            let message = format!("byte {offset} is beyond the end of the artifact `{name}`");
            return Err(StepError::invalid(message));
        }
        if offset > 0 {
            file.seek(SeekFrom::Start(offset - 1)).await.map_err(could_not)?;
            let before = file.read_u8().await.map_err(could_not)?;
            if before != b'\n' && offset < artifact.bytes {
                let message = format!("byte {offset} is in the middle of a line of the artifact `{name}`");
                return Err(StepError::invalid(message));
            }
        }
        Ok(Self { file: BufReader::with_capacity(BUFFER, file), name, offset })
    }

    /// The next line, or nothing at the end.
    pub async fn next(&mut self) -> Result<Option<Line>, StepError> {
        let mut bytes = Vec::new();
        let read = self
            .file
            .read_until(b'\n', &mut bytes)
            .await
            .map_err(|error| failed("read", &self.name, &error))?;
        if read == 0 {
            return Ok(None);
        }
        self.offset += read as u64;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            StepError::gate(format!("the artifact `{}` is no text", self.name)).with_source(&error)
        })?;
        Ok(Some(Line { text, end: self.offset }))
    }

    /// The next line as JSON, with the byte after it; an error of kind gate when it is something else.
    pub async fn next_json<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<(T, u64)>, StepError> {
        let Some(Line { text, end }) = self.next().await? else { return Ok(None) };
        match serde_json::from_str(&text) {
            Ok(value) => Ok(Some((value, end))),
            Err(error) => {
                let message = format!(
                    "the line of the artifact `{}` that ends at byte {end} is not as expected",
                    self.name
                );
                Err(StepError::gate(message).with_source(&error))
            }
        }
    }
}
