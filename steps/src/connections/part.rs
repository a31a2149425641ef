//! A file that is being made in a folder. Where the file system can, it has no name before it is whole, so that nothing of it outlives the
//! process; elsewhere it has one that says what it is, and is locked as long as somebody writes it. Everything here blocks.

use std::fs::File;
use std::io;

use runbook_engine::crash;
use rustix::fs::{FileType, FlockOperation, flock, fstat};
use rustix::io::Errno;

use super::below::Folder;
use crate::digest::hex;
use crate::unfinished::{self, Of};

/// How many names are tried, should somebody take one away before it is locked.
const NAMES: u32 = 3;

/// A file that is being made. Dropped before it has its name, it is gone.
pub(super) struct Part<'f> {
    folder: &'f Folder,
    own: &'f str,
    file: File,
    /// Its name for the time being.
    beside: Option<String>,
}

impl<'f> Part<'f> {
    /// Begins what is to become the file `own`, with this mode but for what the process's mask takes away.
    pub(super) fn begin(folder: &'f Folder, own: &'f str, mode: u32) -> io::Result<Self> {
        match folder.unnamed(mode)? {
            Some(file) => Ok(Self { folder, own, file, beside: None }),
            None => Self::begin_named(folder, own, mode),
        }
    }

    /// The same where no file is without a name.
    fn begin_named(folder: &'f Folder, own: &'f str, mode: u32) -> io::Result<Self> {
        for _ in 0..NAMES {
            let name = beside(own)?;
            let file = folder.create(&name, mode)?;
            lock(&file)?;
            if is_still(folder, &name, &file) {
                return Ok(Self { folder, own, file, beside: Some(name) });
            }
        }
        Err(io::Error::other("somebody else takes away what is written"))
    }

    /// What is written.
    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives it its name, in place of what has it.
    pub(super) fn replace(mut self) -> io::Result<()> {
        if self.beside.is_none() {
            match self.folder.name(&self.file, self.own) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                named => return named,
            }
            // Only what has a name can take the place of something.
            let name = beside(self.own)?;
            lock(&self.file)?;
            self.folder.name(&self.file, &name)?;
            self.beside = Some(name);
        }
        crash::point("file: beside");
        if let Some(name) = &self.beside {
            self.folder.rename(name, self.own)?;
        }
        self.beside = None;
        Ok(())
    }

    /// Gives it its name, which nothing has yet. False when something has it, which stays as it is.
    pub(super) fn place(self) -> io::Result<bool> {
        // Unlike a renaming, a second name never takes the place of what is there.
        let placed = match &self.beside {
            None => self.folder.name(&self.file, self.own),
            Some(name) => self.folder.link(name, self.own),
        };
        match placed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.beside.take() {
            // Its name says what it is, should it stay.
            let _ = self.folder.unlink(&name);
        }
    }
}

/// Removes from a folder what processes left there that ended while they wrote: what has a name of ours and is locked by nobody.
pub(super) fn sweep(folder: &Folder) {
    // A folder that can not be listed can be written to all the same.
    for (name, kind) in folder.entries().unwrap_or_default() {
        let Ok(name) = String::from_utf8(name) else { continue };
        if kind != FileType::RegularFile || unfinished::of(&name) != Some(Of::Folder) {
            continue;
        }
        // Not every file system locks what is open for reading alone.
        let Ok(file) = folder.open_to_write(&name) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && is_still(folder, &name, &file) {
            let _ = folder.unlink(&name);
        }
    }
}

/// Locks a file until it is closed. Where there are no locks nobody finds it unlocked either.
fn lock(file: &File) -> io::Result<()> {
    match flock(file, FlockOperation::LockExclusive) {
        Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a name is that of this file.
fn is_still(folder: &Folder, name: &str, file: &File) -> bool {
    let named = folder.stat(name).map(|stat| (stat.st_dev, stat.st_ino));
    let open = fstat(file).map(|stat| (stat.st_dev, stat.st_ino));
    matches!((named, open), (Ok(named), Ok(open)) if named == open)
}

/// A name of its own for what is to become the file `own`.
fn beside(own: &str) -> io::Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(unfinished::name(own, &hex(&bytes), Of::Folder))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::path::Path;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(name).collect();
        all.sort_unstable();
        all
    }

    fn open(path: &Path) -> Folder {
        let Ok(folder) = Folder::open(path, std::iter::empty(), false) else { panic!("it is there") };
        folder
    }

    #[test]
    fn what_is_being_made_has_no_name_or_one_that_says_so() {
        let temp = tempfile::tempdir().unwrap();
        let folder = open(temp.path());
        for named in [false, true] {
            let begin = || {
                let begin = if named { Part::begin_named } else { Part::begin };
                let mut part = begin(&folder, "a", 0o600).unwrap();
                part.file().write_all(b"new").unwrap();
                part
            };
            let part = begin();
            let there = names(temp.path());
            assert_eq!(there.len(), usize::from(named), "{there:?}");
            assert!(there.iter().all(|name| unfinished::of(name) == Some(Of::Folder)));
            drop(part);
            assert_eq!(names(temp.path()), Vec::<String>::new());
            assert!(begin().place().unwrap());
            fs::write(temp.path().join("a"), "old").unwrap();
            assert!(!begin().place().unwrap());
            assert_eq!(fs::read(temp.path().join("a")).unwrap(), b"old");
            begin().replace().unwrap();
            assert_eq!(fs::read(temp.path().join("a")).unwrap(), b"new");
            assert_eq!(names(temp.path()), ["a"]);
            fs::remove_file(temp.path().join("a")).unwrap();
            begin().replace().unwrap();
            assert_eq!(names(temp.path()), ["a"]);
            fs::remove_file(temp.path().join("a")).unwrap();
        }
    }

    #[test]
    fn only_what_nobody_writes_any_more_is_swept_away() {
        let temp = tempfile::tempdir().unwrap();
        let folder = open(temp.path());
        let written = Part::begin_named(&folder, "a", 0o600).unwrap();
        let of_the_living = written.beside.clone().unwrap();
        let of_the_dead = beside("a").unwrap();
        let of_a_step = unfinished::name("a", "0123456789abcdef", Of::Step);
        let of_the_user = ".a.0123456789abcdef.part";
        let link = beside("link").unwrap();
        for name in [&*of_the_dead, &of_a_step, of_the_user, ".a.part"] {
            fs::write(temp.path().join(name), "x").unwrap();
        }
        std::os::unix::fs::symlink(of_the_user, temp.path().join(&link)).unwrap();
        sweep(&folder);
        let mut left = [&*of_the_living, &of_a_step, of_the_user, ".a.part", &link];
        left.sort_unstable();
        assert_eq!(names(temp.path()), left);
        assert_eq!(fs::read(temp.path().join(of_the_user)).unwrap(), b"x");
        drop(written);
        sweep(&folder);
        assert!(!names(temp.path()).contains(&of_the_living));
    }
}
