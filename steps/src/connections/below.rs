//! Folders below a root, reached part by part, each by the one before it and never by a symbolic link: what is looked at and what is removed is
//! in the same folder, whatever becomes of the names above it meanwhile. Everything here blocks.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// An open folder.
pub(super) struct Folder(OwnedFd);

/// Why a folder is not reached.
pub(super) enum Unreached {
    /// It is not there.
    Absent,
    /// A symbolic link stands in the way.
    Link,
    /// Something else.
    Failed(io::Error),
}

impl From<io::Error> for Unreached {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound { Self::Absent } else { Self::Failed(error) }
    }
}

impl From<Errno> for Unreached {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// The open files of this process by their numbers.
const OPEN_FILES: &str = "/proc/self/fd";

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

impl Folder {
    /// The folder below `root` of these parts; those that are not there are made when `make` says so. The root itself may be reached by links:
    /// which one it is, is what its identity says.
    pub(super) fn open<'p>(
        root: &Path,
        parts: impl Iterator<Item = &'p [u8]>,
        make: bool,
    ) -> Result<Self, Unreached> {
        if make {
            std::fs::create_dir_all(root)?;
        }
        let mut folder = rustix::fs::open(root, FOLDER, Mode::empty())?;
        for part in parts {
            if make {
                match rustix::fs::mkdirat(&folder, part, Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            folder = match rustix::fs::openat(&folder, part, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(below) => below,
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    let stat = rustix::fs::statat(&folder, part, AtFlags::SYMLINK_NOFOLLOW)?;
                    return Err(match FileType::from_raw_mode(stat.st_mode) {
                        FileType::Symlink => Unreached::Link,
                        // A file stands there: nothing is below it.
                        _ if !make => Unreached::Absent,
                        _ => Unreached::Failed(Errno::NOTDIR.into()),
                    });
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(Self(folder))
    }

    /// What is under a name, itself and not what it leads to.
    pub(super) fn stat(&self, name: &str) -> io::Result<Stat> {
        Ok(rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// A file to be read.
    pub(super) fn read(&self, name: &str) -> io::Result<File> {
        // What is no file (a pipe that nobody writes to) is not waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.0, name, flags, Mode::empty())?))
    }

    /// The same, to be written as well.
    pub(super) fn open_to_write(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.0, name, flags, Mode::empty())?))
    }

    /// A new file without a name, which is gone when nobody has it open any more; `None` where there are no such files, or none that could be
    /// given a name.
    pub(super) fn unnamed(&self, mode: u32) -> io::Result<Option<File>> {
        if !Path::new(OPEN_FILES).exists() {
            return Ok(None);
        }
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.0, ".", flags, Mode::from_raw_mode(mode)) {
            Ok(file) => Ok(Some(File::from(file))),
            // What file systems and kernels say that do not know of it.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a file without a name one, which nothing has yet.
    pub(super) fn name(&self, file: &File, to: &str) -> io::Result<()> {
        let from = format!("{OPEN_FILES}/{}", file.as_raw_fd());
        Ok(rustix::fs::linkat(CWD, from, &self.0, to, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// A new file, with this mode but for what the process's mask takes away.
    pub(super) fn create(&self, name: &str, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.0, name, flags, Mode::from_raw_mode(mode))?))
    }

    /// Gives a file another name, in place of what has it.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, from, &self.0, to)?)
    }

    /// Gives a file a second name, which nothing has yet.
    pub(super) fn link(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::linkat(&self.0, from, &self.0, to, AtFlags::empty())?)
    }

    /// Removes a name.
    pub(super) fn unlink(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Forces its names to disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }

    /// What is in it, each with what it is.
    pub(super) fn entries(&self) -> io::Result<Vec<(Vec<u8>, FileType)>> {
        let mut all = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let stat = rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode)
                }
                known => known,
            };
            all.push((name.to_bytes().to_vec(), kind));
        }
        Ok(all)
    }
}
