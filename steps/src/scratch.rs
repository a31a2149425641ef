//! A folder for unfinished files on the disk of the artifacts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use runbook_engine::artifact::Artifacts;
use runbook_engine::error::{ErrorKind, StepError};

/// A folder of unfinished files, removed when it is done with.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new, empty folder.
    pub async fn make(artifacts: &Artifacts) -> Result<Self, StepError> {
        let scratch = Self(artifacts.scratch().await?);
        tokio::fs::create_dir(&scratch.0).await.map_err(|error| failed(&error))?;
        Ok(scratch)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Swept with the other unfinished things should this fail.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What went wrong with an unfinished file.
pub fn failed(error: &io::Error) -> StepError {
    StepError::new(ErrorKind::Store, "an unfinished file can not be written or read").with_source(error)
}
