//! A secret that is made and written into a file of its own, once, and never over what is there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::step::{Intent, Settlement};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::digest::sha256;
use crate::had;
use crate::kind::Context;
use crate::manifest::blocking;
use crate::process::quoted;
use crate::unfinished::{self, Of};

/// How much of a file is read, in bytes: more than any secret has.
const MOST: u64 = 64 * 1024;

/// Makes a secret and writes it to `path`, for its owner alone. `made` gives the content of the file, and `outputs` what may be said of such a content; nothing
/// when it is none. After a crash the file tells whether it was written.
pub(crate) async fn write_once<T>(
    cx: &Context,
    path: &Path,
    made: impl FnOnce() -> Result<String, StepError>,
    outputs: impl Fn(&str) -> Option<T>,
) -> Result<T, StepError>
where
    T: Serialize + DeserializeOwned + PartialEq + Clone,
{
    cx.checkpoint()?;
    let series = had::series(cx).await?;
    let view = cx.ledger.view().await?;
    let beside = beside(cx, path)?;
    remove(&beside).await?;
    let there = read(path).await?;
    let known = there.as_deref().and_then(|text| {
        learn(cx, text);
        outputs(text)
    });
    let before = had::outputs_of_any_series::<T>(&view);
    if let Some(had) = had::outputs::<T>(&view, series) {
        return if known.as_ref() == Some(&had) { Ok(had) } else { Err(lost(path)) };
    }
    for batch in view.unsettled {
        let announced = T::deserialize(&batch.what)
            .map_err(|error| StepError::new(ErrorKind::Bug, format!("the ledger is unreadable: {error}")))?;
        if known.as_ref() == Some(&announced) {
            let settlement = had::settlement(&announced, series, json!({ "written": true }))?;
            cx.ledger.settle(batch.number, Settlement { done: 1, ..settlement }).await?;
            return Ok(announced);
        }
        let outcome = json!({ "repeated": true });
        cx.ledger.settle(batch.number, Settlement { outcome, ..Settlement::default() }).await?;
    }
    if there.is_some() {
        // A step that made its secret and failed afterwards has it when it is reopened.
        return before.filter(|had| known.as_ref() == Some(had)).ok_or_else(|| taken(path));
    }
    let text = made()?;
    learn(cx, &text);
    let outputs =
        outputs(&text).ok_or_else(|| StepError::new(ErrorKind::Bug, "what was made is no such secret"))?;
    let intent = Intent { what: json!(outputs), items: 1, charged_items: 0, charged_bytes: 0 };
    let batch = cx.ledger.intend(intent).await?.number;
    let target = path.to_owned();
    let written = blocking(move || {
        write_new(&beside, &target, text.as_bytes(), 0o600).map_err(|error| unwritten(&target, &error))
    });
    if !written.await? {
        return Err(taken(path));
    }
    let settlement = had::settlement(&outputs, series, json!({ "written": true }))?;
    cx.ledger.settle(batch, Settlement { done: 1, ..settlement }).await?;
    Ok(outputs)
}

/// Fails when something is at a path where a secret is to be written, as the step would.
pub(crate) async fn is_free(path: &Path) -> Result<(), StepError> {
    if read(path).await?.is_some() { Err(taken(path)) } else { Ok(()) }
}

/// Tells the redactor a secret, and each line of one that has several.
pub(crate) fn learn(cx: &Context, text: &str) {
    cx.redactor.learn(text.trim_end());
    text.lines()
        .filter(|line| line.len() >= 16 && !line.starts_with("-----"))
        .for_each(|line| cx.redactor.learn(line));
}

/// Writes what belongs to a file that is made, such as the public half of a key, into a file of its own with these permissions. A file that holds just that
/// already is fine; anything else is left, and false.
pub(crate) async fn write_beside(
    cx: &Context,
    path: &Path,
    text: String,
    mode: u32,
) -> Result<bool, StepError> {
    let beside = beside(cx, path)?;
    remove(&beside).await?;
    if let Some(there) = read(path).await? {
        return Ok(there == text);
    }
    let target = path.to_owned();
    blocking(move || {
        write_new(&beside, &target, text.as_bytes(), mode).map_err(|error| unwritten(&target, &error))
    })
    .await
}

/// Whether somebody else than its owner may read a file.
pub(crate) async fn others_may_read(path: &Path) -> Result<bool, StepError> {
    let path = path.to_owned();
    blocking(move || match fs::metadata(&path) {
        Ok(found) => Ok(found.permissions().mode() & 0o077 != 0),
        Err(error) => {
            Err(StepError::refused(format!("{} can not be looked at", path.display())).with_source(&error))
        }
    })
    .await
}

fn taken(path: &Path) -> StepError {
    StepError::refused(format!(
        "{} is there already: nothing was written over, and no secret was made",
        path.display()
    ))
    .with_help("move it away, or name another path, then resume")
}

fn lost(path: &Path) -> StepError {
    StepError::gate(format!("{} does not hold what this step wrote there", path.display()))
        .with_help("put it back, then resume; a new one is made by a new run")
}

fn unwritten(path: &Path, error: &io::Error) -> StepError {
    StepError::refused(format!("{} can not be written", path.display())).with_source(error)
}

/// What is in the file; nothing when there is none. What is no text of a secret's size comes as an empty one.
pub(crate) async fn read(path: &Path) -> Result<Option<String>, StepError> {
    if !path.is_absolute() {
        return Err(StepError::invalid(format!("{} is not an absolute path", path.display())));
    }
    let path: PathBuf = path.to_owned();
    blocking(move || match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(StepError::refused(format!("{} can not be looked at", path.display())).with_source(&error))
        }
        Ok(found) if !found.is_file() || found.len() > MOST => Ok(Some(String::new())),
        Ok(_) => {
            let mut text = String::new();
            // Somebody else's file may not be readable, and is left all the same.
            let read = File::open(&path).and_then(|file| file.take(MOST).read_to_string(&mut text));
            Ok(Some(if read.is_ok() { text } else { String::new() }))
        }
    })
    .await
}

/// Where a secret is written before it gets its name: the same in every attempt, so that what a killed one left is found and removed.
fn beside(cx: &Context, path: &Path) -> Result<PathBuf, StepError> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(StepError::invalid(format!("{} is no name of a file", path.display())));
    };
    let mark = sha256(format!("{}:{}:{}", cx.run.id, cx.step, path.display()).as_bytes());
    Ok(folder.join(unfinished::name(&name.to_string_lossy(), &mark, Of::Step)))
}

/// Removes what killed attempts left beside a file that was to be written.
pub(crate) async fn tidy(cx: &Context, path: &Path) -> Result<(), StepError> {
    let beside = beside(cx, path)?;
    remove(&beside)
        .await
        .map_err(|error| error.with_help(format!("rm {}", quoted(&beside.display().to_string()))))
}

/// Removes what a killed attempt left, a secret that nobody knows of.
async fn remove(beside: &Path) -> Result<(), StepError> {
    match tokio::fs::remove_file(beside).await {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            let message = format!("{}, which an earlier attempt left, can not be removed", beside.display());
            Err(StepError::refused(message).with_source(&error))
        }
        _ => Ok(()),
    }
}

/// Writes a new file, whole or not at all, by way of a name beside it. False when something is there: it stays as it is.
fn write_new(beside: &Path, path: &Path, bytes: &[u8], mode: u32) -> io::Result<bool> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(beside)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| {
        crash::point("secret: written");
        // Unlike a renaming, a second name never takes the place of what is there.
        match fs::hard_link(beside, path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    });
    crash::point("secret: in its place");
    fs::remove_file(beside)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()?;
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_for_its_owner_and_takes_nobodys_place() {
        let folder = tempfile::tempdir().unwrap();
        let (path, beside) = (folder.path().join("secret"), folder.path().join("beside"));
        let write_new = |path: &Path, bytes: &[u8]| write_new(&beside, path, bytes, 0o600);
        assert!(write_new(&path, b"one").unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!write_new(&path, b"two").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
        assert!(!write_new(&folder.path().join("link"), b"two").unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        assert!(write_new(&folder.path().join("no/such/folder"), b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
