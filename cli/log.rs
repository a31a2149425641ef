//! The log of a run: every event and everything its steps said, redacted, one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;
use runbook_engine::drive::live::Line;
use runbook_engine::event::{Event, EventKind};
use runbook_engine::redact::Redactor;
use serde::{Deserialize, Serialize};

/// One line of a log: either an event, or what a step said.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When.
    pub at: Timestamp,
    /// The event's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<EventKind>,
    /// The step that spoke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// What it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The number of the last event that the database had when an older copy of it was put back: the events after it are numbered anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put_back_to: Option<u64>,
}

impl Record {
    /// The record of an event.
    pub fn event(event: &Event) -> Self {
        Self { seq: Some(event.seq), what: Some(event.what.clone()), ..Self::empty(event.at) }
    }

    fn line(line: &Line) -> Self {
        Self { step: Some(line.step.clone()), text: Some(line.text.clone()), ..Self::empty(line.at) }
    }

    fn empty(at: Timestamp) -> Self {
        Self { at, seq: None, what: None, step: None, text: None, put_back_to: None }
    }
}

/// A log that is being written.
pub struct RunLog {
    /// Absent when it can not be opened and the run goes on without one.
    file: Option<File>,
    redactor: Redactor,
    last_seq: u64,
}

impl RunLog {
    /// Opens the log at `path` for its owner alone, and makes it when it is not there.
    pub fn open(path: &Path, redactor: Redactor) -> io::Result<Self> {
        let last_seq = last_of(&read(path)?).unwrap_or(0);
        let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
        if torn(&mut file)? {
            file.write_all(b"\n")?;
        }
        Ok(Self { file: Some(file), redactor, last_seq })
    }

    /// One that keeps nothing, for what must be done although there is no log.
    pub fn nowhere() -> Self {
        Self { file: None, redactor: Redactor::default(), last_seq: 0 }
    }

    /// Adds an event, unless it is there already.
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        if event.seq <= self.last_seq {
            return Ok(());
        }
        self.last_seq = event.seq;
        self.write(&Record::event(event))
    }

    /// Takes the events after number `seq` once more: the database was put back to it.
    pub fn put_back(&mut self, seq: u64, text: &str) -> io::Result<()> {
        self.last_seq = seq;
        let text = Some(text.to_owned());
        self.write(&Record { text, put_back_to: Some(seq), ..Record::empty(Timestamp::now()) })
    }

    /// Adds what a step said.
    pub fn line(&mut self, line: &Line) -> io::Result<()> {
        self.write(&Record::line(line))
    }

    /// Adds what this program has to say of the run as a whole, and waits until it is on the disk.
    pub fn note(&mut self, text: &str) -> io::Result<()> {
        self.write(&Record { text: Some(text.to_owned()), ..Record::empty(Timestamp::now()) })?;
        self.file.as_ref().map_or(Ok(()), File::sync_data)
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let plain = serde_json::to_value(record)?;
        let mut value = self.redactor.value(&plain);
        // What a record is told apart by holds no secret, whatever short secret it may look like.
        for place in ["/at", "/what/type"] {
            if let (Some(masked), Some(own)) = (value.pointer_mut(place), plain.pointer(place)) {
                masked.clone_from(own);
            }
        }
        // One write a line, so that a crash leaves whole lines and at most one torn one.
        file.write_all(format!("{value}\n").as_bytes())
    }
}

/// Whether the last line was cut off by a crash: what follows must not be glued to it.
fn torn(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// Every record of a log; torn lines are left out, and a missing log is empty.
pub fn read(path: &Path) -> io::Result<Vec<Record>> {
    match File::open(path) {
        Ok(file) => records(&mut BufReader::new(file), &mut 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The number of the last event of these that counts; none when there is none. A process that was stopped may add an event after later ones.
fn last_of(records: &[Record]) -> Option<u64> {
    records.iter().fold(None, |last, record| record.put_back_to.or(last.max(record.seq)))
}

/// The number of a record, whatever else is in it.
#[derive(Deserialize)]
struct Numbered {
    #[serde(default)]
    seq: Option<u64>,
}

/// How many bytes at the end of a log are looked at first for its last event.
const TAIL: u64 = 4096;

/// The highest number of an event near the end of a log; none when it has no event, or is missing.
pub fn last_event(path: &Path) -> io::Result<Option<u64>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let mut tail = TAIL;
    loop {
        let begin = length.saturating_sub(tail);
        file.seek(SeekFrom::Start(begin))?;
        // The first line may be cut off, and is no record then.
        let (mut last, mut reader, mut line) = (None, BufReader::new(&file), Vec::new());
        while reader.read_until(b'\n', &mut line)? > 0 {
            let numbered = serde_json::from_slice::<Numbered>(&line).ok();
            last = last.max(numbered.and_then(|record| record.seq));
            line.clear();
        }
        if last.is_some() || begin == 0 {
            return Ok(last);
        }
        tail *= 4;
    }
}

/// The records whose lines hold one of `words`, for a log that may be long; torn lines are left out.
pub fn with(path: &Path, words: &[&str]) -> io::Result<Vec<Record>> {
    let (mut found, mut reader, mut line) = (Vec::new(), BufReader::new(File::open(path)?), Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        if words.iter().any(|word| text.contains(word)) {
            found.extend(serde_json::from_str::<Record>(&text));
        }
        line.clear();
    }
    Ok(found)
}

/// The whole lines from where `reader` stands; `position` grows by their bytes, so that a line that is being written is read later.
pub fn records(reader: &mut impl BufRead, position: &mut u64) -> io::Result<Vec<Record>> {
    let (mut records, mut line) = (Vec::new(), Vec::new());
    loop {
        let bytes = reader.read_until(b'\n', &mut line)?;
        if bytes == 0 || !line.ends_with(b"\n") {
            return Ok(records);
        }
        records.extend(serde_json::from_slice::<Record>(&line));
        *position += bytes as u64;
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn event(seq: u64) -> Event {
        Event { seq, at: "2026-11-21T02:26:03Z".parse().unwrap(), what: EventKind::created("me@here") }
    }

    #[test]
    fn the_last_event_is_found_at_the_end_of_a_long_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        assert_eq!(last_event(&path).unwrap(), None);
        let mut log = RunLog::open(&path, Redactor::default()).unwrap();
        assert_eq!(last_event(&path).unwrap(), None);
        (1..=7).for_each(|seq| log.event(&event(seq)).unwrap());
        let said = Line { at: event(1).at, step: "purge".to_owned(), text: "x".repeat(100) };
        (0..1000).for_each(|_| log.line(&said).unwrap());
        assert_eq!(last_event(&path).unwrap(), Some(7));
        // One that was stopped before it could write it.
        log.write(&Record::event(&event(3))).unwrap();
        assert_eq!(RunLog::open(&path, Redactor::default()).unwrap().last_seq, 7);
        assert_eq!(last_event(&path).unwrap(), Some(3));
        (0..50).for_each(|_| log.line(&said).unwrap());
        log.put_back(4, "put back").unwrap();
        log.event(&event(5)).unwrap();
        assert_eq!(last_event(&path).unwrap(), Some(5));
        assert_eq!(RunLog::open(&path, Redactor::default()).unwrap().last_seq, 5);
    }

    #[test]
    fn each_event_is_there_once_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        for _ in 0..2 {
            let mut log = RunLog::open(&path, Redactor::default()).unwrap();
            log.event(&event(1)).unwrap();
            log.event(&event(2)).unwrap();
            log.event(&event(2)).unwrap();
        }
        let said = Line { at: event(1).at, step: "purge".to_owned(), text: "hello".to_owned() };
        RunLog::open(&path, Redactor::default()).unwrap().line(&said).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"at\":\"torn").unwrap();
        RunLog::open(&path, Redactor::default()).unwrap().event(&event(3)).unwrap();
        let records = read(&path).unwrap();
        assert_eq!(records.iter().map(|one| one.seq).collect::<Vec<_>>(), [Some(1), Some(2), None, Some(3)]);
        assert_eq!(records[2].text.as_deref(), Some("hello"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
