//! The local files, which must still be what the manifest says.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use runbook_engine::error::StepError;

use crate::connections::directory::Directory;
use crate::digest::{sha256, sha256_file};
use crate::kind::Context;

/// Where the paths of a manifest are.
#[derive(Clone)]
pub(crate) enum Files {
    /// Below a directory.
    Below(Arc<Directory>),
    /// Anywhere, absolute.
    Absolute,
}

impl Files {
    /// The files below the directory connection `name`, or anywhere.
    pub(crate) fn of(cx: &Context, name: Option<&str>) -> Result<Self, StepError> {
        match name {
            Some(name) => Ok(Self::Below(cx.resources.connection::<Directory>(name)?)),
            None => Ok(Self::Absolute),
        }
    }

    /// The bytes of a file; `None` when there is none.
    pub(crate) async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, StepError> {
        self.off_thread(path, |files, path| match files {
            Self::Below(directory) => directory.read(path),
            Self::Absolute => absent(path, fs::read(absolute(path)?)),
        })
        .await
    }

    /// The SHA-256 and the size of a file as it is now; `None` when there is none.
    pub(crate) async fn digest(&self, path: &str) -> Result<Option<(String, u64)>, StepError> {
        self.off_thread(path, |files, path| match files {
            Self::Below(directory) => directory.digest(path),
            Self::Absolute => absent(path, sha256_file(absolute(path)?)),
        })
        .await
    }

    async fn off_thread<T: Send + 'static>(
        &self,
        path: &str,
        work: impl FnOnce(&Self, &str) -> Result<T, StepError> + Send + 'static,
    ) -> Result<T, StepError> {
        let (files, path) = (self.clone(), path.to_owned());
        tokio::task::spawn_blocking(move || work(&files, &path))
            .await
            .unwrap_or_else(|error| Err(StepError::transient("reading a file stopped").with_source(&error)))
    }
}

fn absolute(path: &str) -> Result<&Path, StepError> {
    let path = Path::new(path);
    if path.is_absolute() {
        return Ok(path);
    }
    let message = format!("the manifest has the relative path {}", path.display());
    Err(StepError::invalid(message).with_help("name the connection it is below with `directory`"))
}

fn absent<T>(path: &str, result: io::Result<T>) -> Result<Option<T>, StepError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StepError::refused(format!("reading {path} failed")).with_source(&error)),
    }
}

/// What is wrong with these bytes as the file of this entry.
pub(super) fn wrong(entry: &super::ManifestEntry, bytes: &[u8]) -> Option<String> {
    let size = bytes.len() as u64;
    if size != entry.bytes {
        return Some(format!("{} has {size} bytes, and the manifest says {}", entry.path, entry.bytes));
    }
    let found = sha256(bytes);
    let differs = !found.eq_ignore_ascii_case(&entry.sha256);
    differs.then(|| format!("{} has the SHA-256 {found}, and the manifest says {}", entry.path, entry.sha256))
}
