//! Which process keeps the others from writing to a database file, as Linux tells it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The byte of the file beside the database (`-shm`) that whoever writes has locked.
const WRITES: u64 = 120;

/// A process that has the database for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: i32,
    /// Whether a signal keeps it from going on.
    pub stopped: bool,
}

/// The other process that writes to the database at `path` at this moment; none when nobody does, or where that can not be seen.
pub fn writing(path: &Path) -> Option<Holder> {
    let mut shared = path.as_os_str().to_owned();
    shared.push("-shm");
    let inode = std::fs::metadata(shared).ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| holds(line, inode))?;
    let own = u32::try_from(pid).is_ok_and(|pid| pid == std::process::id());
    (!own).then(|| Holder { pid, stopped: is_stopped(pid) })
}

/// Who holds the lock of a line such as `7: POSIX  ADVISORY  WRITE 4242 fe:00:131090 120 120`, if it is that of the writer.
fn holds(line: &str, inode: u64) -> Option<i32> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "POSIX", _, "WRITE", pid, file, first, last] = words.as_slice() else { return None };
    let same = file.rsplit(':').next()?.parse() == Ok(inode);
    let within = first.parse::<u64>().ok()? <= WRITES && last.parse().unwrap_or(u64::MAX) >= WRITES;
    if same && within { pid.parse().ok() } else { None }
}

/// Whether a signal keeps the process from going on; false where that can not be seen.
pub fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name of the program is in brackets and may hold brackets and spaces itself.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('T' | 't'))
}

#[cfg(test)]
mod tests {
    use super::holds;

    #[test]
    fn only_the_lock_of_a_writer_counts() {
        let line = |kind: &str, file: &str, range: &str| format!("7: {kind} ADVISORY  {file} {range}");
        assert_eq!(holds(&line("POSIX ", "WRITE 42 fe:00:131090", "120 120"), 131_090), Some(42));
        assert_eq!(holds(&line("POSIX ", "WRITE 42 fe:00:131090", "0 EOF"), 131_090), Some(42));
        for (kind, file, range) in [
            ("FLOCK ", "WRITE 42 fe:00:131090", "120 120"),
            ("-> POSIX ", "WRITE 42 fe:00:131090", "120 120"),
            ("POSIX ", "READ 42 fe:00:131090", "120 120"),
            ("POSIX ", "WRITE 42 fe:00:1310901", "120 120"),
            ("POSIX ", "WRITE 42 fe:00:131090", "121 127"),
        ] {
            assert_eq!(holds(&line(kind, file, range), 131_090), None, "{kind} {file} {range}");
        }
    }
}
