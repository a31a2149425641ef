//! The processes of this machine, as `/proc` shows them.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};

/// A process as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its number, which another process may get once it is gone.
    pub pid: i32,
    /// When it started, in ticks since the machine did. With the number it means one process and no other.
    pub start: u64,
    /// The name of its program, at most 15 bytes.
    pub name: String,
    /// Whether it ran. One that has ended and that nobody has waited for does not.
    pub runs: bool,
    parent: i32,
    group: i32,
    session: i32,
}

/// What comes from a child: its group, and the strays, which left the group (`setsid` does that) and are found because they descend from it or
/// hold its mark.
pub(super) struct Family {
    head: i32,
    mark: Option<Metadata>,
    strays: Vec<Seen>,
}

impl Family {
    /// The family of a child that leads its group, and its mark.
    pub fn of(head: i32, mark: Option<Metadata>) -> Self {
        Self { head, mark, strays: Vec::new() }
    }

    /// Sends a signal to all of it. A stray that was found stays known, because it is no descendant any more when its parent has ended.
    pub fn signal(&mut self, signal: Signal) {
        let new: Vec<Seen> = self.found().into_iter().filter(|one| !self.strays.contains(one)).collect();
        self.strays.extend(new);
        // Nobody left is as good as done.
        if let Some(group) = signalled(self.head) {
            let _ = kill_process_group(group, signal);
        }
        for stray in self.strays.iter().filter(|stray| stray.still_runs()) {
            if let Some(pid) = signalled(stray.pid) {
                let _ = kill_process(pid, signal);
            }
        }
    }

    /// Whether no stray that is known runs any more.
    pub fn strays_are_gone(&self) -> bool {
        !self.strays.iter().any(Seen::still_runs)
    }

    /// Everything of it that runs now.
    pub fn members(&self) -> Vec<Seen> {
        let all = all().unwrap_or_default();
        let mut members: BTreeSet<i32> =
            all.iter().filter(|one| one.group == self.head || self.marked(one)).map(|one| one.pid).collect();
        members.insert(self.head);
        loop {
            let known = members.len();
            members.extend(
                all.iter().filter(|one| members.contains(&one.parent)).map(|one| one.pid).collect::<Vec<_>>(),
            );
            if members.len() == known {
                break;
            }
        }
        let ours = |one: &Seen| one.runs && members.contains(&one.pid) && signalled(one.pid).is_some();
        all.into_iter().filter(ours).collect()
    }

    fn marked(&self, one: &Seen) -> bool {
        signalled(one.pid).is_some() && self.mark.as_ref().is_some_and(|mark| one.has_open(mark))
    }

    fn found(&self) -> Vec<Seen> {
        self.members().into_iter().filter(|one| one.group != self.head).collect()
    }
}

impl Seen {
    /// Whether it is a child as this program starts them: at the head of a process group, in the session of its parent.
    pub fn leads(&self) -> bool {
        self.group == self.pid && self.session != self.pid
    }

    /// Whether it still runs.
    pub fn still_runs(&self) -> bool {
        process(self.pid).is_some_and(|now| now.start == self.start && now.runs)
    }

    /// How many processes of its group still run.
    pub fn group_size(&self) -> usize {
        // Once the group is empty, another process may get its number.
        if process(self.pid).is_some_and(|now| now.start != self.start) {
            return 0;
        }
        all().unwrap_or_default().iter().filter(|one| one.group == self.pid && one.runs).count()
    }

    /// Whether it has this file open; false where that may not be looked at.
    pub fn has_open(&self, file: &Metadata) -> bool {
        let Ok(open) = fs::read_dir(format!("/proc/{}/fd", self.pid)) else { return false };
        open.flatten()
            .filter_map(|entry| fs::metadata(entry.path()).ok())
            .any(|about| (about.dev(), about.ino()) == (file.dev(), file.ino()))
    }
}

/// The number as one that may be signalled: 0 and 1 stand for many processes, and this one is never meant.
fn signalled(pid: i32) -> Option<Pid> {
    if pid > 1 && u32::try_from(pid) != Ok(std::process::id()) { Pid::from_raw(pid) } else { None }
}

/// A process; absent when it is not there or can not be seen.
pub(super) fn process(pid: i32) -> Option<Seen> {
    parse(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
}

/// Whether there is a process with this number, even one that can not be seen.
pub(super) fn exists(pid: i32) -> bool {
    signalled(pid).is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// Every process that can be seen; absent on a machine without `/proc`.
pub(super) fn all() -> Option<Vec<Seen>> {
    let entries = fs::read_dir("/proc").ok()?;
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all: Vec<Seen> = numbers.filter_map(process).collect();
    (!all.is_empty()).then_some(all)
}

/// Which start of the machine this is; empty where that is not known.
pub(super) fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Reads `/proc/PID/stat`. The name stands in brackets and may hold brackets and spaces itself.
fn parse(stat: &str) -> Option<Seen> {
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse().ok();
    let (ended, threads) = (matches!(*fields.first()?, "Z" | "X" | "x"), number(17)?);
    Some(Seen {
        pid: pid.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
        name: name.to_owned(),
        // The first thread may have ended before the others.
        runs: !ended || threads > 1,
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_read_whatever_the_name() {
        let rest = "S 1 40 39 0 -1 4194560 109 0 0 0 0 0 0 0 20 0 1 0 8812 2625536 200";
        let seen = parse(&format!("41 (a) S (b) {rest}\n")).unwrap();
        assert_eq!((seen.pid, seen.name.as_str(), seen.start, seen.runs), (41, "a) S (b", 8812, true));
        assert_eq!((seen.group, seen.session), (40, 39));
        assert!(!parse(&format!("41 (x) {}", rest.replacen('S', "Z", 1))).unwrap().runs);
        let threads = rest.replacen('S', "Z", 1).replacen(" 20 0 1 ", " 20 0 2 ", 1);
        assert!(parse(&format!("41 (x) {threads}")).unwrap().runs);
        assert_eq!(parse("41 (x) S 1 40"), None);
    }

    #[test]
    fn nothing_but_a_child_is_ever_signalled() {
        for pid in [i32::MIN, -1, 0, 1, i32::try_from(std::process::id()).unwrap()] {
            assert_eq!(signalled(pid), None, "{pid}");
        }
        assert!(signalled(2).is_some());
    }
}
