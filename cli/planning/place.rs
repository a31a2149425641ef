//! The folder of what is read for a plan: it is gone with the command that made it, or with the next one when that was killed.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use runbook_engine::drive::live::LiveHub;
use runbook_engine::redact::Redactor;
use runbook_steps::process::end_orphans;

use crate::exit::{Exit, Failure, Outcome};
use crate::state::Location;

/// What the name of a mark ends with. The name before it is the folder's.
const MARK: &str = ".lock";

/// A folder for what is read, with its mark beside it: a file that this process has locked for as long as it lives.
pub struct Place {
    folder: PathBuf,
    mark: PathBuf,
    _held: fs::File,
}

impl Place {
    /// A new one, which is made when something is written in it.
    pub async fn make(location: &Location) -> Outcome<Self> {
        let failed = |error: io::Error| {
            Failure::new(Exit::Store, format!("the folder {}: {error}", location.folder().display()))
        };
        sweep(location).await;
        let all = location.planning().map_err(failed)?;
        loop {
            let lot = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
            let folder = all.join(format!("{lot:016x}"));
            let mark = all.join(format!("{lot:016x}{MARK}"));
            if let Some(held) = held(&mark).map_err(failed)? {
                return Ok(Self { folder, mark, _held: held });
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays is swept by a later command.
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_file(&self.mark);
    }
}

/// The mark, made and locked; none when somebody who sweeps was faster and has taken it away.
fn held(mark: &Path) -> io::Result<Option<fs::File>> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(mark)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    let (ours, there) = (file.metadata()?, fs::metadata(mark));
    Ok(there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())).then_some(file))
}

/// Takes away what processes left that were killed, and ends the programs that they had started. What can not be taken away is left to a later
/// command.
pub async fn sweep(location: &Location) {
    let Ok(entries) = fs::read_dir(location.planning_folder()) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Some(name) = name.to_str() else { continue };
        match name.strip_suffix(MARK) {
            Some(folder) => {
                let dead = fs::File::open(&path).ok().filter(|mark| mark.try_lock().is_ok());
                if dead.is_some() {
                    let folder = path.with_file_name(folder);
                    // The record of programs that may still run is kept until they have ended.
                    if end_orphans(&folder, &LiveHub::new(Redactor::default())).await.is_ok() {
                        let _ = fs::remove_dir_all(folder);
                        let _ = fs::remove_file(&path);
                    }
                }
            }
            // The mark is there before the folder, and as long.
            None if !path.with_file_name(format!("{name}{MARK}")).exists() => {
                let _ = fs::remove_dir_all(&path);
            }
            None => {}
        }
    }
}
