//! Artifacts of one JSON record a line, written without secrets and read back.

use std::io;

use runbook_engine::artifact::Artifact;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::step::StepContext;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes an artifact of one record a line, each without secrets.
pub async fn write_records<T: Serialize>(
    cx: &StepContext,
    name: &str,
    records: &[T],
) -> Result<Artifact, StepError> {
    let mut writer = cx.artifacts.create(name).await?;
    for record in records {
        writer.write_json(record).await?;
    }
    writer.finish().await
}

/// Writes an artifact with this text, without secrets.
pub async fn write_text(cx: &StepContext, name: &str, text: &str) -> Result<Artifact, StepError> {
    let mut writer = cx.artifacts.create(name).await?;
    writer.write(cx.redactor.text(text).as_bytes()).await?;
    writer.finish().await
}

/// Reads an artifact of one record a line.
pub async fn read_records<T: DeserializeOwned + Send + 'static>(
    cx: &StepContext,
    artifact: &Artifact,
) -> Result<Vec<T>, StepError> {
    let mut lines = cx.artifacts.lines(artifact).await?;
    let mut records = Vec::new();
    while let Some((record, _)) = lines.next_json().await? {
        records.push(record);
    }
    Ok(records)
}

/// Runs disk work where it holds nothing up. Not found and invalid data are refused, everything else may work in a moment.
pub async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StepError> {
    let failed = |error: &io::Error| {
        let lasting = [io::ErrorKind::NotFound, io::ErrorKind::InvalidData, io::ErrorKind::PermissionDenied];
        let kind = if lasting.contains(&error.kind()) { ErrorKind::Refused } else { ErrorKind::Transient };
        StepError::new(kind, format!("{what} failed")).with_source(error)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| failed(&error)),
        Err(error) => Err(StepError::new(ErrorKind::Bug, format!("{what} stopped")).with_source(&error)),
    }
}
