//! Connection kind `directory`: a directory of this machine, with files that are whole or not there.

use async_trait::async_trait;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use runbook_engine::crash;
use runbook_engine::error::StepError;
use rustix::fs::{Advice, FileType, fadvise};
use schemars::JsonSchema;
use serde::Deserialize;

use super::below::{Folder, Unreached};
use super::part::{Part, sweep};
use crate::digest::digested;
use crate::kind::{ConnectionKind, OpenContext, SystemIs};
use crate::manifest::blocking;
use crate::unfinished;

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

    fn place(client: &Directory) -> String {
        client.root().display().to_string()
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
            // The number of a file that was removed is given to the next one; not every file system knows when a file was made.
            let made = found.created().ok().and_then(|made| jiff::Timestamp::try_from(made).ok());
            let made = made.map_or_else(String::new, |made| format!(", made {made}"));
            SystemIs::There(format!("{path} (device {device}, inode {inode}{made})"))
        }
        Err(_) => SystemIs::NotYet(format!("{} (not there)", root.display())),
    }
}

/// The files of a directory. Everything here blocks: call it off the async threads.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
    /// The folders in which nothing is left of killed processes, by their paths below the root.
    swept: Arc<Mutex<BTreeSet<String>>>,
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
        Ok(Self { root, swept: Arc::default() })
    }

    /// Its path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the file `name` is: a relative path of plain parts, below the directory. An error of kind invalid for anything else.
    pub fn path(&self, name: &str) -> Result<PathBuf, StepError> {
        if is_plain(name) {
            Ok(self.root.join(name))
        } else {
            Err(StepError::invalid(format!("{name:?} is no name of a file below {}", self.root.display())))
        }
    }

    /// The folder that the file `name` is in, and the file's own name there. `None` when there is no such folder; made when `make` says so.
    fn folder<'n>(&self, name: &'n str, make: bool) -> Result<Option<(Folder, &'n str)>, StepError> {
        self.path(name)?;
        let (above, own) = name.rsplit_once('/').unwrap_or(("", name));
        Ok(self.below(above.as_bytes(), make)?.map(|folder| (folder, own)))
    }

    /// The folder of this path.
    fn below(&self, path: &[u8], make: bool) -> Result<Option<Folder>, StepError> {
        let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
        match Folder::open(&self.root, parts, make) {
            Ok(folder) => Ok(Some(folder)),
            Err(Unreached::Absent) => Ok(None),
            Err(Unreached::Failed(error)) => {
                Err(self.failed("reaching", &String::from_utf8_lossy(path), &error))
            }
            Err(Unreached::Link) => {
                let message = format!(
                    "the way to {} below {} is by a symbolic link, which is not followed",
                    shown(path),
                    self.root.display()
                );
                Err(StepError::refused(message))
            }
        }
    }

    /// The same for a file that is to be made. What killed processes left unfinished in the folder is removed, when that was not done yet.
    fn made<'n>(&self, name: &'n str) -> Result<(Folder, &'n str), StepError> {
        let gone = || StepError::transient(format!("the folder of {name:?} was removed just now"));
        let (folder, own) = self.folder(name, true)?.ok_or_else(gone)?;
        let above = name.strip_suffix(own).unwrap_or_default().to_owned();
        if self.swept.lock().unwrap_or_else(PoisonError::into_inner).insert(above) {
            sweep(&folder);
        }
        Ok((folder, own))
    }

    /// Writes a file that is whole or not there: beside its place, forced to disk, then renamed. Folders are made.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, StepError> {
        self.write_from(name, &mut &*bytes)
    }

    /// The same with what is read from `source`, which may be of any size.
    pub fn write_from(&self, name: &str, source: &mut dyn io::Read) -> Result<PathBuf, StepError> {
        let path = self.path(name)?;
        let failed = |error: io::Error| self.failed("writing", name, &error);
        let (folder, own) = self.made(name)?;
        let mut write_through = || {
            let mut part = Part::begin(&folder, own, 0o666)?;
            io::copy(source, part.file())?;
            part.file().sync_all()?;
            crash::point("file: written");
            part.replace()
        };
        let written = write_through();
        crash::point("file: in its place");
        written.map_err(failed)?;
        folder.sync().map_err(failed)?;
        Ok(path)
    }

    /// Copies a file to a name that nothing has yet, whole or not at all, and returns the SHA-256 and the size of what was copied. `None`
    /// when something has the name: it stays as it is.
    pub fn copy_new(&self, name: &str, from: &Path) -> Result<Option<(String, u64)>, StepError> {
        let failed = |error: io::Error| self.failed("writing", name, &error);
        let (folder, own) = self.made(name)?;
        let copy = || {
            let mut source = File::open(from)?;
            let permissions = source.metadata()?.permissions();
            let mut part = Part::begin(&folder, own, 0o600)?;
            io::copy(&mut source, part.file())?;
            part.file().set_permissions(permissions)?;
            part.file().sync_all()?;
            crash::point("copy: written");
            part.file().rewind()?;
            let digest = digested(part.file())?;
            Ok(part.place()?.then_some(digest))
        };
        let copied = copy();
        crash::point("copy: in its place");
        let copied = copied.map_err(failed)?;
        folder.sync().map_err(failed)?;
        Ok(copied)
    }

    /// A file that is there, to be read.
    fn opened(&self, name: &str) -> Result<Option<File>, StepError> {
        let Some((folder, own)) = self.folder(name, false)? else { return Ok(None) };
        match folder.read(own) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("reading", name, &error)),
        }
    }

    /// The SHA-256 and the size of a file, read from the disk and not from the memory of the machine where the system allows it.
    /// `None` when there is no such file.
    pub fn digest(&self, name: &str) -> Result<Option<(String, u64)>, StepError> {
        let Some(mut file) = self.opened(name)? else { return Ok(None) };
        // A hint; file systems without it serve the same bytes.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        digested(&mut file).map(Some).map_err(|error| self.failed("reading", name, &error))
    }

    /// The bytes of a file; `None` when there is none.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StepError> {
        let Some(mut file) = self.opened(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| self.failed("reading", name, &error))?;
        Ok(Some(bytes))
    }

    /// What is under a name, without following a symbolic link there.
    pub fn look(&self, name: &str) -> Result<Found, StepError> {
        match self.folder(name, false)? {
            Some((folder, own)) => self.look_in(&folder, own, name),
            None => Ok(Found::Nothing),
        }
    }

    fn look_in(&self, folder: &Folder, own: &str, name: &str) -> Result<Found, StepError> {
        match folder.stat(own) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_file() => Ok(Found::File(Stamp {
                bytes: u64::try_from(stat.st_size).unwrap_or_default(),
                modified_at: modified_at(
                    stat.st_mtime,
                    i64::try_from(stat.st_mtime_nsec).unwrap_or_default(),
                ),
            })),
            Ok(_) => Ok(Found::Other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(error) => Err(self.failed("looking at", name, &error)),
        }
    }

    /// Removes a file; whether there was one.
    pub fn remove(&self, name: &str) -> Result<bool, StepError> {
        match self.folder(name, false)? {
            Some((folder, own)) => self.unlink(&folder, own, name),
            None => Ok(false),
        }
    }

    /// Removes a file if it is the one of this stamp; what was found in its place. There is no call that removes a file on a condition:
    /// it is looked at right before it is removed, in the same folder, and what is written in between, some microseconds, goes with it.
    pub fn remove_if(&self, name: &str, expected: &Stamp) -> Result<Found, StepError> {
        let Some((folder, own)) = self.folder(name, false)? else { return Ok(Found::Nothing) };
        let found = self.look_in(&folder, own, name)?;
        if matches!(&found, Found::File(stamp) if stamp == expected) && !self.unlink(&folder, own, name)? {
            return Ok(Found::Nothing);
        }
        Ok(found)
    }

    fn unlink(&self, folder: &Folder, own: &str, name: &str) -> Result<bool, StepError> {
        crash::point("file: to be removed");
        let removed = folder.unlink(own);
        crash::point("file: removed");
        match removed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed("removing", name, &error)),
        }
    }

    /// Every file below the directory that `keep` wants, told its path, in byte order. Symbolic links are left out, so that nothing outside is
    /// ever named; so are the files of ours that are not finished. A file that is wanted and has a path which no key can be is an error, and
    /// not left out: `keep` is told its bytes, and is asked again with what of them is no UTF-8 replaced.
    pub fn list(&self, keep: &dyn Fn(&[u8]) -> bool) -> Result<Vec<String>, StepError> {
        let mut names = Vec::new();
        let mut folders = vec![Vec::new()];
        while let Some(above) = folders.pop() {
            let failed = |error: io::Error| self.failed("listing", &String::from_utf8_lossy(&above), &error);
            let folder = self.below(&above, false)?;
            let folder = folder.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
            for (name, kind) in folder.entries().map_err(failed)? {
                let mut path = above.clone();
                path.extend((!above.is_empty()).then_some(b'/').into_iter().chain(name.iter().copied()));
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file()
                    && str::from_utf8(&name).map_or(true, |name| unfinished::of(name).is_none())
                {
                    match String::from_utf8(path) {
                        Ok(path) if !keep(path.as_bytes()) => {}
                        Ok(path) if is_plain(&path) => names.push(path),
                        Ok(path) => return Err(self.unnameable(path.as_bytes())),
                        Err(error) => {
                            let path = error.into_bytes();
                            if keep(&path) || keep(String::from_utf8_lossy(&path).as_bytes()) {
                                return Err(self.unnameable(&path));
                            }
                        }
                    }
                }
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// A file that belongs to what is listed and can not be named.
    fn unnameable(&self, path: &[u8]) -> StepError {
        let message = format!(
            "the file {} in {} can not be worked on: only names of UTF-8 without `\\` and control characters can",
            shown(path),
            self.root.display()
        );
        StepError::refused(message).with_help(
            "it is shown with its bytes escaped, as `$'…'` of a shell takes them: rename it, or give the collection a `pattern` that it does not match",
        )
    }

    fn failed(&self, doing: &str, name: &str, error: &io::Error) -> StepError {
        let path = self.root.join(name);
        StepError::refused(format!("{doing} {} failed", path.display())).with_source(error)
    }
}

/// Whether every part of a relative path can be named, and leads down.
fn is_plain(path: &str) -> bool {
    path.split('/').all(|part| {
        !part.is_empty() && part != "." && part != ".." && !part.chars().any(|c| c.is_control() || c == '\\')
    })
}

/// A path for people, in quotes: what is no plain text of it is escaped as in `$'…'` of a shell.
fn shown(path: &[u8]) -> String {
    let bytes =
        |text: &mut String, bytes: &[u8]| bytes.iter().for_each(|byte| *text += &format!("\\x{byte:02x}"));
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' | '\'' => text.extend(['\\', c]),
                c if c.is_control() => bytes(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => text.push(c),
            }
        }
        bytes(&mut text, chunk.invalid());
    }
    format!("'{text}'")
}

/// A time of a file, in seconds since 1970 and nanoseconds, as a timestamp; the numbers where no calendar reaches.
fn modified_at(seconds: i64, nanoseconds: i64) -> String {
    let within = i32::try_from(nanoseconds).ok().and_then(|nanos| jiff::Timestamp::new(seconds, nanos).ok());
    within.map_or_else(|| format!("{seconds}.{nanoseconds:09}"), |at| at.to_string())
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
    fn a_link_on_the_way_is_not_followed_even_to_a_place_below_the_directory() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path().to_str().unwrap()).unwrap();
        directory.write("a/x/1", b"planned").unwrap();
        directory.write("kept/1", b"planned").unwrap();
        let Found::File(stamp) = directory.look("kept/1").unwrap() else { panic!("it is a file") };
        fs::rename(directory.root().join("a/x"), directory.root().join("a/was")).unwrap();
        std::os::unix::fs::symlink("../kept", directory.root().join("a/x")).unwrap();
        let refused = |result: Result<(), StepError>| {
            let error = result.unwrap_err();
            assert!(error.message.contains("by a symbolic link"), "{error}");
        };
        refused(directory.look("a/x/1").map(drop));
        refused(directory.read("a/x/1").map(drop));
        refused(directory.digest("a/x/1").map(drop));
        refused(directory.remove("a/x/1").map(drop));
        refused(directory.remove_if("a/x/1", &stamp).map(drop));
        refused(directory.write("a/x/2", b"").map(drop));
        refused(directory.copy_new("a/x/3", &directory.root().join("kept/1")).map(drop));
        assert_eq!(directory.list(&|_| true).unwrap(), ["a/was/1", "kept/1"]);
        // A link in the place of the file itself is not read either, and a file in the place of a folder holds nothing.
        std::os::unix::fs::symlink("1", directory.root().join("kept/link")).unwrap();
        assert_eq!(directory.look("kept/link").unwrap(), Found::Other);
        assert!(directory.read("kept/link").is_err());
        assert_eq!(directory.look("kept/1/below").unwrap(), Found::Nothing);
        assert!(directory.write("kept/1/below", b"").is_err());
    }

    #[test]
    fn files_are_written_whole_and_listed_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path().join("new").to_str().unwrap()).unwrap();
        for name in ["b.txt", "a/z.bin", "a.txt"] {
            directory.write(name, name.as_bytes()).unwrap();
        }
        let unfinished = unfinished::name("b.txt", "0123456789abcdef", unfinished::Of::Folder);
        for name in [&*unfinished, ".b.txt.0123456789abcdef.part"] {
            fs::write(directory.root().join(name), "unfinished").unwrap();
        }
        // A user's own file is an item, however its name looks.
        let all = [".b.txt.0123456789abcdef.part", "a.txt", "a/z.bin", "b.txt"];
        assert_eq!(directory.list(&|_| true).unwrap(), all);
        // What a killed process left is gone with the next file that is written by another one.
        directory.write("c.txt", b"c").unwrap();
        assert!(directory.root().join(&unfinished).exists());
        Directory::new(directory.root().to_str().unwrap()).unwrap().write("c.txt", b"c").unwrap();
        assert!(!directory.root().join(&unfinished).exists());
        assert!(directory.root().join(".b.txt.0123456789abcdef.part").exists());
        let (sha, bytes) = directory.digest("a/z.bin").unwrap().unwrap();
        assert_eq!((sha, bytes), (crate::digest::sha256(b"a/z.bin"), 7));
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
