//! Writing an artifact: under another name until it is complete and on the disk.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt as _, BufWriter};

use super::{Artifact, Artifacts, failed, hex};
use crate::crash;
use crate::error::{ErrorKind, StepError};
use crate::redact::{Redactor, StreamRedactor};

/// How much is gathered before it goes to the file, in bytes.
const BUFFER: usize = 256 * 1024;

/// An artifact that is being written. Dropped before [`ArtifactWriter::finish`], it leaves nothing behind; after a crash a
/// file that begins with `.new-` stays, which nobody reads.
#[derive(Debug)]
pub struct ArtifactWriter {
    folder: PathBuf,
    name: String,
    file: BufWriter<File>,
    unfinished: Unfinished,
    hash: Sha256,
    bytes: u64,
    /// Absent once something was written that is no whole line.
    lines: Option<u64>,
    redactor: Redactor,
    stream: StreamRedactor,
    raw: bool,
    /// Whether a write was begun and not completed: the file does not hold what the hash is of.
    torn: bool,
}

/// Takes the file away when it is dropped.
#[derive(Debug)]
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // Best effort: a file that stays is ignored.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl ArtifactWriter {
    pub(super) async fn create(all: &Artifacts, name: &str, raw: bool) -> Result<Self, StepError> {
        let redactor = all.redactor.clone();
        if name.is_empty() || name.contains(['/', '\\', '\0']) || matches!(name, "." | "..") {
            return Err(StepError::invalid(format!("`{name}` is no file name")));
        }
        let name = redactor.text(name);
        let could_not = |error: &io::Error| failed("written", &name, error);
        let path = scratch(&all.unfinished).await?;
        let unfinished = Unfinished(Some(path.clone()));
        let mut open = tokio::fs::OpenOptions::new();
        open.write(true).create_new(true).mode(0o600);
        let file = open.open(&path).await.map_err(|error| could_not(&error))?;
        Ok(Self {
            folder: all.folder.clone(),
            file: BufWriter::with_capacity(BUFFER, file),
            unfinished,
            hash: Sha256::new(),
            bytes: 0,
            lines: Some(0),
            stream: redactor.stream(),
            redactor,
            name,
            raw,
            torn: false,
        })
    }

    /// Adds bytes. They may be cut anywhere, in the middle of a secret too.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StepError> {
        if !bytes.is_empty() {
            self.lines = None;
        }
        self.take(bytes).await
    }

    /// Adds a line; its line break is added to it. Line breaks inside of it make several lines. JSON goes through
    /// [`ArtifactWriter::write_json`], whose masking never breaks an escape sequence.
    pub async fn write_line(&mut self, line: &str) -> Result<(), StepError> {
        let line = if self.raw { line } else { self.redactor.whole(line) };
        self.count_lines(1 + line.bytes().filter(|byte| *byte == b'\n').count());
        self.take(line.as_bytes()).await?;
        self.take(b"\n").await
    }

    /// Adds a line of JSON.
    pub async fn write_json(&mut self, value: &impl Serialize) -> Result<(), StepError> {
        let broken = |error: serde_json::Error| {
            StepError::new(ErrorKind::Bug, format!("a record of `{}` is no JSON", self.name))
                .with_source(&error)
        };
        if self.raw {
            let mut line = serde_json::to_vec(value).map_err(broken)?;
            line.push(b'\n');
            self.count_lines(1);
            return self.take(&line).await;
        }
        let value = self.redactor.value(&serde_json::to_value(value).map_err(broken)?);
        let mut line = serde_json::to_vec(&value).map_err(broken)?;
        line.push(b'\n');
        self.count_lines(1);
        // It is clean: it does not pass the stream, which still has to give out what came before.
        let before = self.stream.finish();
        self.put(&before).await?;
        self.put(&line).await
    }

    /// Ends it. When this returns, it is on the disk.
    pub async fn finish(mut self) -> Result<Artifact, StepError> {
        let rest = self.stream.finish();
        self.check_raw()?;
        self.check_torn()?;
        self.put(&rest).await?;
        let name = self.name;
        let could_not = |error: &io::Error| failed("written", &name, error);
        self.file.flush().await.map_err(|error| could_not(&error))?;
        self.file.get_ref().sync_all().await.map_err(|error| could_not(&error))?;
        crash::point("artifact: written");
        let sha256 = hex(self.hash.finalize());
        let place = self.folder.join(&sha256[..2]);
        let from = self.unfinished.0.as_deref().unwrap_or(Path::new(""));
        // What is there already has the same content, or had it: then it is good again.
        let moved = async {
            make_folder(&self.folder).await?;
            make_folder(&place).await?;
            tokio::fs::rename(from, place.join(&sha256)).await?;
            crash::point("artifact: in its place");
            File::open(&place).await?.sync_all().await?;
            File::open(&self.folder).await?.sync_all().await
        };
        moved.await.map_err(|error| could_not(&error))?;
        self.unfinished.0 = None;
        Ok(Artifact { sha256, name, bytes: self.bytes, lines: self.lines })
    }

    fn count_lines(&mut self, more: usize) {
        self.lines = self.lines.map(|lines| lines + more as u64);
    }

    /// Only what was looked through reaches the disk; when nothing was found, it is what came in, byte by byte.
    async fn take(&mut self, bytes: &[u8]) -> Result<(), StepError> {
        let clean = self.stream.push(bytes);
        self.check_raw()?;
        self.put(&clean).await
    }

    fn check_raw(&self) -> Result<(), StepError> {
        if !self.raw || !self.stream.found() {
            return Ok(());
        }
        let message = format!("the data for `{}` hold a secret and can not be kept exactly", self.name);
        let help = "take the secret out of the data, or change the secret if its value is an ordinary word";
        Err(StepError::refused(message).with_help(help))
    }

    fn check_torn(&self) -> Result<(), StepError> {
        let message = format!("an earlier write to the artifact `{}` was not completed", self.name);
        if self.torn { Err(StepError::new(ErrorKind::Store, message)) } else { Ok(()) }
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<(), StepError> {
        self.check_torn()?;
        self.torn = true;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).await.map_err(|error| failed("written", &self.name, &error))?;
        self.torn = false;
        Ok(())
    }
}

/// A path at which nothing is yet, in the folder, which is made.
pub(super) async fn scratch(folder: &Path) -> Result<PathBuf, StepError> {
    let could_not = |error: io::Error| failed("written", "scratch", &error);
    make_folder(folder).await.map_err(could_not)?;
    let mut drawn = [0; 12];
    getrandom::fill(&mut drawn).map_err(|error| could_not(io::Error::other(error.to_string())))?;
    Ok(folder.join(format!(".new-{}", hex(drawn))))
}

/// Makes the folder and those above it that are missing (0700), and has the one above remember it.
async fn make_folder(folder: &Path) -> io::Result<()> {
    if tokio::fs::try_exists(folder).await? {
        return Ok(());
    }
    tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).await?;
    match folder.parent().filter(|above| !above.as_os_str().is_empty()) {
        Some(above) => File::open(above).await?.sync_all().await,
        None => Ok(()),
    }
}
