//! Which keys stand in one manifest only: a join in constant memory, over partitions on disk.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use runbook_engine::artifact::{Artifact, Artifacts};
use runbook_engine::error::StepError;
use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, BufWriter, Lines};

use crate::collections::Versions;
use crate::manifest::{Entry, Keys};
use crate::scratch::{Scratch, failed};

/// Into how many parts each side is split: one part of one side is held in memory at a time.
const PARTS: usize = 64;

/// The keys that stand on one side only, as manifests with lines `{"key", "version_in"}`: the version of the snapshot that has the key.
pub struct Difference {
    /// Keys of the first manifest that the second does not have.
    pub only_here: Artifact,
    /// Keys of the second manifest that the first does not have.
    pub only_there: Artifact,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    #[serde(default, skip_serializing_if = "Versions::is_empty")]
    version_in: Versions,
}

/// Compares `here` with `there`, each with a name for its artifact: `only_in_NAME.jsonl`.
pub async fn difference(
    artifacts: &Artifacts,
    here: (&Artifact, &str),
    there: (&Artifact, &str),
) -> Result<Difference, StepError> {
    let scratch = Scratch::make(artifacts).await?;
    split(artifacts, here.0, scratch.path(), "here").await?;
    split(artifacts, there.0, scratch.path(), "there").await?;
    let only_here = only(artifacts, scratch.path(), "here", "there", here.1).await?;
    let only_there = only(artifacts, scratch.path(), "there", "here", there.1).await?;
    Ok(Difference { only_here, only_there })
}

/// The same part for the same key in every process, unlike the hash of the standard library.
fn part_of(key: &str) -> usize {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    usize::try_from((hash ^ (hash >> 32)) % PARTS as u64).unwrap_or(0)
}

fn part_path(folder: &Path, side: &str, part: usize) -> PathBuf {
    folder.join(format!("{side}-{part}"))
}

async fn split(
    artifacts: &Artifacts,
    manifest: &Artifact,
    folder: &Path,
    side: &str,
) -> Result<(), StepError> {
    let mut parts = Vec::with_capacity(PARTS);
    for part in 0..PARTS {
        parts.push(BufWriter::new(
            File::create_new(part_path(folder, side, part)).await.map_err(|error| failed(&error))?,
        ));
    }
    let mut keys = Keys::open(artifacts, manifest, 0).await?;
    while let Some(Entry { key, version_in, .. }) = keys.next_entry().await? {
        let part = part_of(&key);
        // As JSON, because a key may hold a line break.
        let line = serde_json::to_string(&Line { key, version_in }).map_err(|error| failed(&error.into()))?;
        parts[part].write_all((line + "\n").as_bytes()).await.map_err(|error| failed(&error))?;
    }
    for part in &mut parts {
        part.flush().await.map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// The keys of one part of one side.
struct Part(Lines<BufReader<File>>);

impl Part {
    async fn open(folder: &Path, side: &str, part: usize) -> Result<Self, StepError> {
        let file = File::open(part_path(folder, side, part)).await.map_err(|error| failed(&error))?;
        Ok(Self(BufReader::new(file).lines()))
    }

    async fn next(&mut self) -> Result<Option<Line>, StepError> {
        let Some(line) = self.0.next_line().await.map_err(|error| failed(&error))? else { return Ok(None) };
        serde_json::from_str(&line).map(Some).map_err(|error| failed(&error.into()))
    }
}

async fn only(
    artifacts: &Artifacts,
    folder: &Path,
    side: &str,
    other: &str,
    name: &str,
) -> Result<Artifact, StepError> {
    let mut writer = artifacts.create_raw(&format!("only_in_{name}.jsonl")).await?;
    for part in 0..PARTS {
        let (mut known, mut keys) = (HashSet::new(), Part::open(folder, other, part).await?);
        while let Some(Line { key, .. }) = keys.next().await? {
            known.insert(key);
        }
        let mut keys = Part::open(folder, side, part).await?;
        while let Some(line) = keys.next().await? {
            if !known.contains(&line.key) {
                writer.write_json(&line).await?;
            }
        }
    }
    writer.finish().await
}

#[cfg(test)]
mod tests {
    use std::fs;

    use runbook_engine::redact::Redactor;

    use super::*;

    async fn manifest(artifacts: &Artifacts, keys: impl Iterator<Item = String>) -> Artifact {
        let mut writer = artifacts.create("m.jsonl").await.unwrap();
        for key in keys {
            writer.write_json(&Line { key, version_in: Versions::new() }).await.unwrap();
        }
        writer.finish().await.unwrap()
    }

    async fn keys(artifacts: &Artifacts, artifact: &Artifact) -> HashSet<String> {
        let (mut keys, mut found) = (Keys::open(artifacts, artifact, 0).await.unwrap(), HashSet::new());
        while let Some(key) = keys.next().await.unwrap() {
            assert!(found.insert(key));
        }
        found
    }

    #[tokio::test]
    async fn keys_of_one_side_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::new(folder.path(), Redactor::default());
        let name = |at: u32| format!("k\n{at}");
        let here = manifest(&artifacts, (0..1000).map(name)).await;
        let there = manifest(&artifacts, (10..1005).map(name)).await;
        let found = difference(&artifacts, (&here, "a"), (&there, "b")).await.unwrap();
        assert_eq!(keys(&artifacts, &found.only_here).await, (0..10).map(name).collect());
        assert_eq!(keys(&artifacts, &found.only_there).await, (1000..1005).map(name).collect());
        assert_eq!((found.only_here.lines, found.only_there.lines), (Some(10), Some(5)));
        let left = fs::read_dir(folder.path()).unwrap().flatten();
        assert_eq!(left.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).count(), 0);
    }
}
