//! Where a child writes its output: a pipe that somebody can still read when this program is gone.
//!
//! The child inherits the reading end too. So a write of a child that outlives this program is no broken pipe, which would end it half-way:
//! it goes into the pipe, and when that is full (64 KiB) the child waits until whoever comes next takes it out.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::process::Stdio;

use rustix::fs::OFlags;
use tokio::net::unix::pipe::Receiver;

use super::table::Seen;

/// How much is taken out of one pipe at a time, in pieces of 64 KiB: whoever writes without an end must not keep it busy.
const PIECES: usize = 16;

/// One stream of a child.
pub(super) struct Outlet {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Outlet {
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader, writer })
    }

    /// The reading end.
    pub fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// The end for the child.
    pub fn writer(&self) -> io::Result<Stdio> {
        Ok(self.writer.try_clone()?.into())
    }

    /// The reading end, once the child has the other one.
    pub fn into_receiver(self) -> io::Result<Receiver> {
        drop(self.writer);
        Receiver::from_owned_fd(OwnedFd::from(self.reader))
    }

    /// What tells this pipe from all others.
    pub fn name(&self) -> io::Result<String> {
        Ok(name(&File::from(self.reader.as_fd().try_clone_to_owned()?).metadata()?))
    }
}

fn name(about: &Metadata) -> String {
    format!("{}:{}", about.dev(), about.ino())
}

/// The pipes of these names that one of these processes has open.
pub(super) fn of(processes: &[Seen], names: &str) -> Vec<File> {
    let mut wanted: Vec<&str> = names.split_whitespace().collect();
    let mut found = Vec::new();
    for process in processes {
        let open = fs::read_dir(format!("/proc/{}/fd", process.pid)).into_iter().flatten().flatten();
        for path in open.map(|entry| entry.path()) {
            let about = fs::metadata(&path).ok().filter(|about| about.file_type().is_fifo());
            let Some(this) = about.map(|about| name(&about)) else { continue };
            let Some(at) = wanted.iter().position(|name| *name == this) else { continue };
            let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
            if let Ok(pipe) = OpenOptions::new().read(true).custom_flags(flags).open(&path) {
                wanted.swap_remove(at);
                found.push(pipe);
            }
        }
    }
    found
}

/// Takes out what is in them. Nobody keeps it.
pub(super) fn drain(pipes: &[File]) {
    let mut buffer = vec![0; 64 * 1024];
    for mut pipe in pipes {
        for _ in 0..PIECES {
            if !matches!(pipe.read(&mut buffer), Ok(1..)) {
                break;
            }
        }
    }
}
