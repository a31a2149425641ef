//! Connection kind `directory`: a directory of this machine, with files that are whole or not there.

use async_trait::async_trait;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use runbook_engine::crash;
use runbook_engine::error::StepError;
use rustix::fs::{Advice, fadvise};
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::digest::{hex, sha256_file};
use crate::kind::{ConnectionKind, OpenContext, SystemIs};
use crate::manifest::blocking;

/// A directory of this machine.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DirectoryConnection {
    /// The directory, an absolute path. It is made when a file is first written.
    pub path: String,
}

#[async_trait]
impl ConnectionKind for DirectoryConnection {
    const NAME: &'static str = "directory";
    const SUMMARY: &'static str = "A directory of this machine";
    type Client = Directory;

    fn open(self, _: &OpenContext<'_>) -> Result<Directory, StepError> {
        Directory::new(&self.path)
    }

    async fn identity(client: &Directory) -> Result<SystemIs, StepError> {
        let root = client.root().to_owned();
        blocking(move || Ok(whereabouts(&root))).await
    }
}

/// A path with what tells one directory from another that has taken its place.
pub(super) fn whereabouts(root: &Path) -> SystemIs {
    match fs::metadata(root) {
        Ok(found) => {
            let (path, device, inode) = (root.display(), found.dev(), found.ino());
            SystemIs::There(format!("{path} (device {device}, inode {inode})"))
        }
        Err(_) => SystemIs::NotYet(format!("{} (not there)", root.display())),
    }
}

/// The files of a directory. Everything here blocks: call it off the async threads.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
}

/// What a file is told apart by without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was last modified, to the nanosecond where the file system keeps it so, RFC 3339.
    pub modified_at: String,
}

/// What is under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A file.
    File(Stamp),
    /// Something else: a folder, a symbolic link.
    Other,
}

impl Directory {
    /// The directory at this absolute path.
    pub fn new(path: &str) -> Result<Self, StepError> {
        let root = PathBuf::from(path);
        if !root.is_absolute() || root.components().any(|part| part == Component::ParentDir) {
            return Err(StepError::invalid(format!("`path` is {path:?}, not an absolute path without `..`")));
        }
        Ok(Self { root })
    }

    /// Its path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the file `name` is: a relative path of plain parts, below the directory. An error of kind invalid for anything else.
    pub fn path(&self, name: &str) -> Result<PathBuf, StepError> {
        let plain = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && !part.chars().any(|c| c.is_control() || c == '\\')
        };
        if name.split('/').all(plain) {
            Ok(self.root.join(name))
        } else {
            Err(StepError::invalid(format!("{name:?} is no name of a file below {}", self.root.display())))
        }
    }

    /// Writes a file that is whole or not there: beside its place, forced to disk, then renamed. Folders are made.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, StepError> {
        self.write_from(name, &mut &*bytes)
    }

    /// The same with what is read from `source`, which may be of any size.
    pub fn write_from(&self, name: &str, source: &mut dyn io::Read) -> Result<PathBuf, StepError> {
        let path = self.path(name)?;
        let failed = |error: io::Error| self.failed("writing", name, &error);
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        fs::create_dir_all(&folder).map_err(failed)?;
        self.inside(&folder, name)?;
        let beside = folder.join(format!(".{}.{}.part", file_name(&path), random().map_err(failed)?));
        let written = write_through(&beside, source).and_then(|()| {
            crash::point("file: written");
            fs::rename(&beside, &path)
        });
        crash::point("file: in its place");
        if let Err(error) = written {
            // Its name says what it is, should it stay.
            let _ = fs::remove_file(&beside);
            return Err(failed(error));
        }
        File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(path)
    }

    /// Copies a file to a name that nothing has yet, whole or not at all, and returns the SHA-256 and the size of what was copied. `None`
    /// when something has the name: it stays as it is.
    pub fn copy_new(&self, name: &str, from: &Path) -> Result<Option<(String, u64)>, StepError> {
        let path = self.path(name)?;
        let failed = |error: io::Error| self.failed("writing", name, &error);
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        fs::create_dir_all(&folder).map_err(failed)?;
        self.inside(&folder, name)?;
        let beside = folder.join(format!(".{}.{}.part", file_name(&path), random().map_err(failed)?));
        let copied = fs::copy(from, &beside).and_then(|_| {
            File::open(&beside)?.sync_all()?;
            crash::point("copy: written");
            let digest = sha256_file(&beside)?;
            // Unlike a renaming, a second name never takes the place of what is there.
            match fs::hard_link(&beside, &path) {
                Ok(()) => Ok(Some(digest)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
                Err(error) => Err(error),
            }
        });
        crash::point("copy: in its place");
        // Its name says what it is, should it stay.
        let _ = fs::remove_file(&beside);
        let copied = copied.map_err(failed)?;
        File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(copied)
    }

    /// The SHA-256 and the size of a file, read from the disk and not from the memory of the machine where the system allows it.
    /// `None` when there is no such file.
    pub fn digest(&self, name: &str) -> Result<Option<(String, u64)>, StepError> {
        let failed = |error: io::Error| self.failed("reading", name, &error);
        let mut file = match File::open(self.path(name)?) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        // A hint; file systems without it serve the same bytes.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        let (mut digest, mut total, mut buffer) = (Sha256::new(), 0u64, vec![0; 256 * 1024]);
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => break,
                n => {
                    digest.update(&buffer[..n]);
                    total += n as u64;
                }
            }
        }
        Ok(Some((hex(&digest.finalize()), total)))
    }

    /// The bytes of a file; `None` when there is none.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StepError> {
        match fs::read(self.path(name)?) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("reading", name, &error)),
        }
    }

    /// What is under a name, without following a symbolic link there.
    pub fn look(&self, name: &str) -> Result<Found, StepError> {
        match fs::symlink_metadata(self.path(name)?) {
            Ok(meta) if meta.is_file() => Ok(Found::File(Stamp {
                bytes: meta.len(),
                modified_at: modified_at(meta.mtime(), meta.mtime_nsec()),
            })),
            Ok(_) => Ok(Found::Other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(error) => Err(self.failed("looking at", name, &error)),
        }
    }

    /// Removes a file; whether there was one.
    pub fn remove(&self, name: &str) -> Result<bool, StepError> {
        let path = self.removable(name)?;
        self.unlink(&path, name)
    }

    /// Removes a file if it is the one of this stamp; what was found in its place. There is no call that removes a file on a condition:
    /// it is looked at right before it is removed, and what is written in between, some microseconds, goes with it.
    pub fn remove_if(&self, name: &str, expected: &Stamp) -> Result<Found, StepError> {
        let path = self.removable(name)?;
        let found = self.look(name)?;
        if matches!(&found, Found::File(stamp) if stamp == expected) && !self.unlink(&path, name)? {
            return Ok(Found::Nothing);
        }
        Ok(found)
    }

    /// The path of a file to remove, after a check that no symbolic link leads out on the way.
    fn removable(&self, name: &str) -> Result<PathBuf, StepError> {
        let path = self.path(name)?;
        let folder = path.parent().unwrap_or(&self.root);
        if folder.exists() {
            self.inside(folder, name)?;
        }
        Ok(path)
    }

    fn unlink(&self, path: &Path, name: &str) -> Result<bool, StepError> {
        crash::point("file: to be removed");
        let removed = fs::remove_file(path);
        crash::point("file: removed");
        match removed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed("removing", name, &error)),
        }
    }

    /// Every file below the directory that `keep` wants, by relative path, in byte order. Symbolic links are left out, so that
    /// nothing outside is ever named; so are unfinished files of [`Directory::write`].
    pub fn list(&self, keep: &dyn Fn(&str) -> bool) -> Result<Vec<String>, StepError> {
        let mut names = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let failed = |error: io::Error| self.failed("listing", &folder, &error);
            for entry in fs::read_dir(self.root.join(&folder)).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let Ok(name) = entry.file_name().into_string() else {
                    return Err(StepError::refused(format!(
                        "a file in {} has a name that is not UTF-8: {:?}",
                        self.root.join(&folder).display(),
                        entry.file_name()
                    )));
                };
                let kind = entry.file_type().map_err(failed)?;
                let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
                let unfinished = name.starts_with('.')
                    && Path::new(&name).extension().is_some_and(|extension| extension == "part");
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() && !unfinished && keep(&path) {
                    names.push(path);
                }
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn inside(&self, folder: &Path, name: &str) -> Result<(), StepError> {
        let failed = |error: io::Error| self.failed("reaching", name, &error);
        let (root, folder) =
            (self.root.canonicalize().map_err(failed)?, folder.canonicalize().map_err(failed)?);
        if folder.starts_with(&root) {
            return Ok(());
        }
        Err(StepError::refused(format!("{name:?} leads out of {} by a symbolic link", self.root.display())))
    }

    fn failed(&self, doing: &str, name: &str, error: &io::Error) -> StepError {
        let path = self.root.join(name);
        StepError::refused(format!("{doing} {} failed", path.display())).with_source(error)
    }
}

/// A time of a file, in seconds since 1970 and nanoseconds, as a timestamp; the numbers where no calendar reaches.
fn modified_at(seconds: i64, nanoseconds: i64) -> String {
    let within = i32::try_from(nanoseconds).ok().and_then(|nanos| jiff::Timestamp::new(seconds, nanos).ok());
    within.map_or_else(|| format!("{seconds}.{nanoseconds:09}"), |at| at.to_string())
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // The longest name most file systems take is 255 bytes.
    name.chars().take(50).collect()
}

fn random() -> io::Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(hex(&bytes))
}

fn write_through(path: &Path, source: &mut dyn io::Read) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    io::copy(source, &mut file)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_directory() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path().to_str().unwrap()).unwrap();
        for name in ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a\\b", "a\0b", "a/"] {
            assert!(directory.path(name).is_err(), "{name:?}");
        }
        assert!(Directory::new("relative").is_err());
        assert!(Directory::new("/a/../b").is_err());
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("way-out")).unwrap();
        fs::write(outside.path().join("x"), "kept").unwrap();
        assert!(directory.write("way-out/y", b"").is_err());
        assert!(directory.remove("way-out/x").is_err());
        assert_eq!(fs::read(outside.path().join("x")).unwrap(), b"kept");
        assert_eq!(directory.list(&|_| true).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn files_are_written_whole_and_listed_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path().join("new").to_str().unwrap()).unwrap();
        for name in ["b.txt", "a/z.bin", "a.txt"] {
            directory.write(name, name.as_bytes()).unwrap();
        }
        fs::write(directory.root().join(".x.0.part"), "unfinished").unwrap();
        assert_eq!(directory.list(&|_| true).unwrap(), ["a.txt", "a/z.bin", "b.txt"]);
        let (sha, bytes) = directory.digest("a/z.bin").unwrap().unwrap();
        assert_eq!((sha, bytes), (hex(&Sha256::digest(b"a/z.bin")), 7));
        assert!(directory.remove("b.txt").unwrap());
        assert!(!directory.remove("b.txt").unwrap());
        assert_eq!(directory.digest("b.txt").unwrap(), None);
    }

    #[test]
    fn a_file_is_removed_while_it_is_the_one_of_its_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path().to_str().unwrap()).unwrap();
        directory.write("a", b"one").unwrap();
        let Found::File(stamp) = directory.look("a").unwrap() else { panic!("it is a file") };
        directory.write("a", b"another").unwrap();
        let found = directory.remove_if("a", &stamp).unwrap();
        let Found::File(now) = &found else { panic!("it is a file: {found:?}") };
        assert_eq!((now.bytes, directory.look("a").unwrap()), (7, found.clone()));
        assert_eq!(directory.remove_if("a", now).unwrap(), found);
        assert_eq!(directory.remove_if("a", now).unwrap(), Found::Nothing);
        assert_eq!(modified_at(-1, 5), "1969-12-31T23:59:59.000000005Z");
        assert_eq!(modified_at(i64::MAX, 0), format!("{}.000000000", i64::MAX));
    }
}
