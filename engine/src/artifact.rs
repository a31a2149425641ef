//! Large outputs of steps, kept by their content in the state directory.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

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
        self.folder.join(artifact.sha256.get(..2).unwrap_or("__")).join(&artifact.sha256)
    }

    /// Opens an artifact for reading. It is an error when its size is not what it was.
    pub fn open(&self, artifact: &Artifact) -> io::Result<File> {
        let file = File::open(self.path(artifact))?;
        let bytes = file.metadata()?.len();
        if bytes != artifact.bytes {
            let what = format!("it has {bytes} bytes and had {}", artifact.bytes);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(file)
    }

    /// Begins an artifact called `name`. It does not exist before [`ArtifactWriter::finish`]; a dropped writer leaves nothing.
    pub fn create(&self, name: &str) -> io::Result<ArtifactWriter> {
        let scratch = self.scratch()?;
        Ok(ArtifactWriter {
            folder: self.folder.clone(),
            name: name.to_owned(),
            file: BufWriter::with_capacity(256 * 1024, File::create_new(&scratch)?),
            scratch: Some(scratch),
            digest: Sha256::new(),
            bytes: 0,
            lines: 0,
        })
    }

    /// A path, on the disk of the artifacts, at which nothing is yet. Whoever makes something there removes it; what a killed
    /// process left behind is removed some days later.
    pub fn scratch(&self) -> io::Result<PathBuf> {
        let folder = self.folder.join("unfinished");
        make_private(&folder)?;
        sweep(&folder);
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(folder.join(hex(&random)))
    }
}

/// How old something unfinished is when nobody can be writing it any more.
const ABANDONED: Duration = Duration::from_secs(3 * 86_400);

/// Removes what killed processes left behind. What can not be removed now is removed another time.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        let age = meta.modified().ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > ABANDONED) {
            let _ =
                if meta.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        }
    }
}

fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// An artifact being written.
#[derive(Debug)]
pub struct ArtifactWriter {
    folder: PathBuf,
    name: String,
    file: BufWriter<File>,
    scratch: Option<PathBuf>,
    digest: Sha256,
    bytes: u64,
    lines: u64,
}

impl Write for ArtifactWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        let bytes = &bytes[..written];
        self.digest.update(bytes);
        self.bytes += written as u64;
        self.lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl ArtifactWriter {
    /// How many lines are written so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Makes it durable under its content. Blocks until the disk has it.
    pub fn finish(mut self) -> io::Result<Artifact> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        let sha256 = hex(&std::mem::take(&mut self.digest).finalize());
        let lines = Some(self.lines);
        let artifact = Artifact { sha256, name: std::mem::take(&mut self.name), bytes: self.bytes, lines };
        let path = Artifacts::new(&self.folder).path(&artifact);
        let folder = path.parent().unwrap_or(&self.folder);
        make_private(folder)?;
        if let Some(scratch) = &self.scratch {
            fs::rename(scratch, &path)?;
            self.scratch = None;
        }
        for folder in [folder, &self.folder] {
            File::open(folder)?.sync_all()?;
        }
        Ok(artifact)
    }
}

impl Drop for ArtifactWriter {
    fn drop(&mut self) {
        if let Some(scratch) = &self.scratch {
            // It is in nobody's way, and swept later, should this fail.
            let _ = fs::remove_file(scratch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_finished_is_found_by_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::new(folder.path().join("artifacts"));
        let mut writer = artifacts.create("list.jsonl").unwrap();
        writer.write_all(b"a\nb\n").unwrap();
        let artifact = writer.finish().unwrap();
        assert_eq!((artifact.bytes, artifact.lines), (4, Some(2)));
        assert_eq!(artifact.sha256, "911169ddaaf146aff539f58c26c489af3b892dff0fe283c1c264c65ae5aa59a2");
        assert_eq!(fs::read(artifacts.path(&artifact)).unwrap(), b"a\nb\n");
        fs::write(artifacts.path(&artifact), "cut").unwrap();
        assert!(artifacts.open(&artifact).is_err());
    }

    #[test]
    fn what_is_dropped_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::new(folder.path());
        let mut writer = artifacts.create("list.jsonl").unwrap();
        writer.write_all(b"a").unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(folder.path().join("unfinished")).unwrap().count(), 0);
    }
}
