//! A log file read from its start and followed across rotation, as whole lines.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::lines::Lines;

/// How many bytes one poll reads at most, so that the step can be stopped between polls.
const AT_ONCE: usize = 8 * 1024 * 1024;

/// A log file being followed. Everything here blocks.
pub(super) struct Follower {
    path: PathBuf,
    file: Option<File>,
    offset: u64,
    lines: Lines,
    /// Whether the file was there at any time.
    pub(super) found: bool,
}

impl Follower {
    /// Nothing is opened yet; the file may come to be later.
    pub(super) fn new(path: &str) -> Self {
        Self { path: path.into(), file: None, offset: 0, lines: Lines::default(), found: false }
    }

    /// Gives every line that is complete by now, without its end, and whether there may be more at once. The last line of a file
    /// that was rotated away counts as complete.
    pub(super) fn poll(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<bool> {
        if self.file.is_none() && !self.open()? {
            return Ok(false);
        }
        let Some(present) = self.file.as_ref().map(File::metadata).transpose()? else { return Ok(false) };
        if present.len() < self.offset {
            self.rewind()?;
        }
        if !self.read(&mut take)? {
            return Ok(true);
        }
        if !self.is_rotated(&present)? {
            return Ok(false);
        }
        // Written between the last read and the rotation.
        while !self.read(&mut take)? {}
        self.lines.end(&mut take);
        self.file = None;
        self.offset = 0;
        Ok(true)
    }

    fn open(&mut self) -> io::Result<bool> {
        match File::open(&self.path) {
            Ok(file) => {
                self.file = Some(file);
                self.found = true;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The file was emptied in place: what was half read of a line is void.
    fn rewind(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::Start(0))?;
        }
        self.offset = 0;
        self.lines.clear();
        Ok(())
    }

    /// Whether another file, not none, is at the path now.
    fn is_rotated(&self, present: &Metadata) -> io::Result<bool> {
        match fs::metadata(&self.path) {
            Ok(there) => Ok((there.dev(), there.ino()) != (present.dev(), present.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads on; whether the end was reached.
    fn read(&mut self, take: &mut impl FnMut(&[u8])) -> io::Result<bool> {
        let (mut buffer, mut total) = (vec![0; 64 * 1024], 0);
        while total < AT_ONCE {
            let Some(file) = &mut self.file else { return Ok(true) };
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Ok(true);
            }
            self.offset += count as u64;
            total += count;
            self.lines.push(&buffer[..count], take);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::lines::LONGEST;
    use super::*;

    fn lines(follower: &mut Follower) -> Vec<String> {
        let mut lines = Vec::new();
        while follower.poll(|line| lines.push(String::from_utf8_lossy(line).into_owned())).unwrap() {}
        lines
    }

    #[test]
    fn follows_growth_rotation_and_truncation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let mut follower = Follower::new(path.to_str().unwrap());
        assert!(lines(&mut follower).is_empty() && !follower.found);
        fs::write(&path, "one\r\ntwo\nthr").unwrap();
        assert_eq!(lines(&mut follower), ["one\r", "two"]);
        let mut old = fs::OpenOptions::new().append(true).open(&path).unwrap();
        old.write_all(b"ee\n\nfour").unwrap();
        assert_eq!(lines(&mut follower), ["three"]);
        // Renamed, nothing in its place yet, and still written to.
        fs::rename(&path, folder.path().join("a.log.1")).unwrap();
        old.write_all(b"teen").unwrap();
        assert!(lines(&mut follower).is_empty());
        fs::write(&path, "five\n").unwrap();
        old.write_all(b"s").unwrap();
        assert_eq!(lines(&mut follower), ["fourteens", "five"]);
        fs::write(&path, "6\n").unwrap();
        assert_eq!(lines(&mut follower), ["6"]);
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let mut text = vec![b'x'; 3 * LONGEST];
        text.extend_from_slice(b"\nnext\n");
        fs::write(&path, text).unwrap();
        let mut follower = Follower::new(path.to_str().unwrap());
        assert_eq!(lines(&mut follower), ["(a line that is too long)", "next"]);
    }
}
