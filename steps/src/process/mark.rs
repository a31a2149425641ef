//! The mark of a child process: a file that is there from before the start of the child until this program has seen its end. A
//! mark that is found later belongs to a child that this program did not see the end of, because it was killed itself.
//!
//! The file holds the names of the pipes that the child writes to, and is locked, and the child inherits the lock, so that between the child's start and the record of its number
//! there is no moment at which it could not be found. Its name says the rest: `PATIENCE.GRACE.NONCE`, and once the child is known
//! `.PID.START.BOOT`; times in milliseconds. It is in a folder with the name of the step.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runbook_engine::crash;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use tokio::process::{Child, Command};

use super::outlet::Outlet;
use super::{IfOrphaned, Process, table};

/// The lowest number under which a child gets the lock: scripts use the small ones for themselves.
const LOWEST: i32 = 64;

/// Held while a child starts, so that no other child inherits its lock.
static STARTING: Mutex<()> = Mutex::new(());

/// The marks whose children this program still sees to: they are no orphans.
static IN_HAND: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn in_hand() -> MutexGuard<'static, BTreeSet<String>> {
    IN_HAND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the name of a mark says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    /// How long the child is waited for, counted from the making of the mark, before it is ended.
    pub patience: Duration,
    /// How long it and its children have between TERM and KILL.
    pub grace: Duration,
    /// Which process it is, once that is known.
    pub child: Option<Identity>,
    nonce: String,
}

/// One process and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Its number.
    pub pid: i32,
    /// When it started, as the table of processes says.
    pub start: u64,
    /// Since which start of the machine.
    pub boot: String,
}

impl Label {
    fn new(patience: Duration, grace: Duration) -> io::Result<Self> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
        let nonce = format!("{:016x}", u64::from_ne_bytes(nonce));
        Ok(Self { patience, grace, child: None, nonce })
    }

    /// Whether this program still sees to the child.
    pub fn is_in_hand(&self) -> bool {
        in_hand().contains(&self.nonce)
    }

    fn name(&self) -> String {
        let known = self.child.as_ref().map(|child| format!(".{}.{}.{}", child.pid, child.start, child.boot));
        let (patience, grace) = (self.patience.as_millis(), self.grace.as_millis());
        format!("{patience}.{grace}.{}{}", self.nonce, known.unwrap_or_default())
    }

    /// Reads a name; absent when it is no mark's.
    pub fn read(name: &str) -> Option<Self> {
        let mut parts = name.split('.');
        let patience = Duration::from_millis(parts.next()?.parse().ok()?);
        let grace = Duration::from_millis(parts.next()?.parse().ok()?);
        let nonce = parts.next()?.to_owned();
        let child = match parts.next() {
            None => None,
            Some(pid) => Some(Identity {
                pid: pid.parse().ok()?,
                start: parts.next()?.parse().ok()?,
                boot: parts.next()?.to_owned(),
            }),
        };
        parts.next().is_none().then_some(Self { patience, grace, child, nonce })
    }
}

/// The mark of a child that this program starts. When it is dropped without having been removed, the child is an orphan.
pub(super) struct Mark {
    folder: PathBuf,
    label: Label,
    lock: Option<File>,
}

impl Mark {
    /// Makes the mark of a process that is to be started, in this folder.
    pub fn new(folder: &Path, process: &Process) -> io::Result<Self> {
        let patience = match process.if_orphaned {
            IfOrphaned::End => Duration::ZERO,
            IfOrphaned::Await => process.timeout.unwrap_or_default(),
        };
        let mut mark =
            Self { folder: folder.to_owned(), label: Label::new(patience, process.grace)?, lock: None };
        in_hand().insert(mark.label.nonce.clone());
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(mark.path())?;
        // Opened again, because the child gets it for reading only.
        let lock = File::open(mark.path())?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::from(io::ErrorKind::WouldBlock),
            TryLockError::Error(error) => error,
        })?;
        mark.lock = Some(lock);
        Ok(mark)
    }

    fn path(&self) -> PathBuf {
        self.folder.join(self.label.name())
    }

    /// Starts the child, which inherits the lock and the reading ends of these pipes, and lets go of the lock.
    pub fn start(&mut self, command: &mut Command, outlets: &[Outlet]) -> io::Result<Child> {
        let names = outlets.iter().map(Outlet::name).collect::<io::Result<Vec<_>>>()?;
        fs::write(self.path(), names.join(" "))?;
        let started = {
            let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
            let lock = self.lock.take().ok_or(io::ErrorKind::InvalidInput)?;
            let ends = outlets.iter().map(Outlet::reader).chain([lock.as_fd()]);
            let inherited = ends.map(inherited).collect::<io::Result<Vec<_>>>()?;
            let started = command.spawn();
            drop(inherited);
            started
        };
        let child = started?;
        crash::point("process: not marked yet");
        self.record(&child);
        Ok(child)
    }

    /// The file, by which those that hold its lock are found.
    pub fn file(&self) -> Option<Metadata> {
        fs::metadata(self.path()).ok()
    }

    /// Writes down which process it is. Where that is not known, the lock has to do.
    fn record(&mut self, child: &Child) {
        let Some(seen) = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(table::process) else {
            return;
        };
        let child = Identity { pid: seen.pid, start: seen.start, boot: table::boot() };
        let known = Label { child: Some(child), ..self.label.clone() };
        if fs::rename(self.path(), self.folder.join(known.name())).is_ok() {
            self.label = known;
        }
    }

    /// Removes it: the child has ended, or was never started.
    pub fn remove(self) {
        // One that stays is removed when the step is entered again.
        let _ = fs::remove_file(self.path());
    }
}

/// A copy that children of this program get.
fn inherited(end: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let copy = fcntl_dupfd_cloexec(end, LOWEST)?;
    fcntl_setfd(&copy, FdFlags::empty())?;
    Ok(copy)
}

impl Drop for Mark {
    fn drop(&mut self) {
        in_hand().remove(&self.label.nonce);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_is_known() {
        let mut label = Label::new(Duration::from_secs(300), Duration::from_millis(1500)).unwrap();
        assert!(label.name().starts_with("300000.1500."), "{}", label.name());
        assert_eq!(Label::read(&label.name()).unwrap(), label);
        label.child = Some(Identity { pid: 4242, start: 8812, boot: "3f-9a".to_owned() });
        assert!(label.name().ends_with(".4242.8812.3f-9a"), "{}", label.name());
        assert_eq!(Label::read(&label.name()).unwrap(), label);
        for other in ["", "1.2", "x.2.n", "1.2.n.3", "1.2.n.3.4.b.5"] {
            assert_eq!(Label::read(other), None, "{other}");
        }
    }
}
