//! Sorting more than fits into memory: sorted files on the disk of the artifacts, merged when they are read.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::io;
use std::path::PathBuf;

use runbook_engine::artifact::Artifacts;
use runbook_engine::error::StepError;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter};

use crate::scratch::{Scratch, failed};

/// How many bytes of entries are sorted in memory at one time.
const CHUNK: usize = 3 * 1024 * 1024;
/// How many sorted files are merged at one time.
const FAN_IN: usize = 64;
/// How much of a sorted file is read at one time, in bytes.
const BUFFER: usize = 32 * 1024;

/// What is sorted: by its key, byte by byte; the line goes along.
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: String,
}

/// Takes entries in any order.
pub(crate) struct Sorter {
    scratch: Scratch,
    made: usize,
    runs: Vec<PathBuf>,
    chunk: Vec<Entry>,
    size: usize,
}

/// Gives entries in the order of their keys; of the same key, in the order in which they came.
pub(crate) struct Sorted {
    merge: Merge,
    _scratch: Scratch,
}

impl Sorter {
    /// Nothing yet.
    pub(crate) async fn new(artifacts: &Artifacts) -> Result<Self, StepError> {
        let scratch = Scratch::make(artifacts).await?;
        Ok(Self { scratch, made: 0, runs: Vec::new(), chunk: Vec::new(), size: 0 })
    }

    /// Adds an entry.
    pub(crate) async fn push(&mut self, key: String, line: String) -> Result<(), StepError> {
        self.size += key.len() + line.len() + size_of::<Entry>();
        self.chunk.push(Entry { key, line });
        if self.size >= CHUNK {
            self.spill().await?;
        }
        Ok(())
    }

    /// All of it, sorted.
    pub(crate) async fn finish(mut self) -> Result<Sorted, StepError> {
        self.spill().await?;
        while self.runs.len() > FAN_IN {
            let some: Vec<PathBuf> = self.runs.drain(..FAN_IN).collect();
            let (path, mut file) = self.create().await?;
            let mut merge = Merge::open(&some).await?;
            while let Some(entry) = merge.next().await? {
                write(&mut file, &entry).await?;
            }
            file.flush().await.map_err(|error| failed(&error))?;
            for merged in some {
                tokio::fs::remove_file(merged).await.map_err(|error| failed(&error))?;
            }
            self.runs.push(path);
        }
        Ok(Sorted { merge: Merge::open(&self.runs).await?, _scratch: self.scratch })
    }

    async fn create(&mut self) -> Result<(PathBuf, BufWriter<File>), StepError> {
        self.made += 1;
        let path = self.scratch.path().join(self.made.to_string());
        let file = File::create_new(&path).await.map_err(|error| failed(&error))?;
        Ok((path, BufWriter::new(file)))
    }

    async fn spill(&mut self) -> Result<(), StepError> {
        let mut chunk = std::mem::take(&mut self.chunk);
        self.size = 0;
        chunk.sort_by(|one, other| one.key.cmp(&other.key));
        let (path, mut file) = self.create().await?;
        for entry in &chunk {
            write(&mut file, entry).await?;
        }
        file.flush().await.map_err(|error| failed(&error))?;
        self.runs.push(path);
        Ok(())
    }
}

impl Sorted {
    /// The next entry; nothing at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Entry>, StepError> {
        self.merge.next().await
    }
}

/// Both texts behind their lengths, because a key may hold a line break.
async fn write(file: &mut BufWriter<File>, entry: &Entry) -> Result<(), StepError> {
    for text in [&entry.key, &entry.line] {
        let length = u32::try_from(text.len()).map_err(|_| StepError::gate("a key is longer than 4 GiB"))?;
        file.write_all(&length.to_le_bytes()).await.map_err(|error| failed(&error))?;
        file.write_all(text.as_bytes()).await.map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// One text; nothing at the end of the file.
async fn read(file: &mut BufReader<File>) -> Result<Option<String>, StepError> {
    if file.fill_buf().await.map_err(|error| failed(&error))?.is_empty() {
        return Ok(None);
    }
    let length = file.read_u32_le().await.map_err(|error| failed(&error))?;
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text).await.map_err(|error| failed(&error))?;
    let text = String::from_utf8(text).map_err(|error| failed(&io::Error::other(error)))?;
    Ok(Some(text))
}

/// The next entry of one sorted file; the least first.
struct Next(Entry, usize);

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Next {}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.0.key, self.1).cmp(&(&other.0.key, other.1))
    }
}

/// Sorted files as one.
struct Merge {
    files: Vec<BufReader<File>>,
    heap: BinaryHeap<Reverse<Next>>,
}

impl Merge {
    async fn open(paths: &[PathBuf]) -> Result<Self, StepError> {
        let mut merge = Self { files: Vec::new(), heap: BinaryHeap::new() };
        for (at, path) in paths.iter().enumerate() {
            let file = File::open(path).await.map_err(|error| failed(&error))?;
            merge.files.push(BufReader::with_capacity(BUFFER, file));
            merge.fill(at).await?;
        }
        Ok(merge)
    }

    async fn fill(&mut self, at: usize) -> Result<(), StepError> {
        let file = &mut self.files[at];
        if let Some(key) = read(file).await? {
            let line = read(file).await?.ok_or_else(|| failed(&io::ErrorKind::UnexpectedEof.into()))?;
            self.heap.push(Reverse(Next(Entry { key, line }, at)));
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Entry>, StepError> {
        let Some(Reverse(Next(entry, at))) = self.heap.pop() else { return Ok(None) };
        self.fill(at).await?;
        Ok(Some(entry))
    }
}
