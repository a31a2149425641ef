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
}

impl Record {
    /// The record of an event.
    pub fn event(event: &Event) -> Self {
        Self { at: event.at, seq: Some(event.seq), what: Some(event.what.clone()), step: None, text: None }
    }

    fn line(line: &Line) -> Self {
        Self {
            at: line.at,
            seq: None,
            what: None,
            step: Some(line.step.clone()),
            text: Some(line.text.clone()),
        }
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
        let last_seq = read(path)?.into_iter().filter_map(|record| record.seq).max().unwrap_or(0);
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

    /// Adds what a step said.
    pub fn line(&mut self, line: &Line) -> io::Result<()> {
        self.write(&Record::line(line))
    }

    /// Adds what this program has to say of the run as a whole, and waits until it is on the disk.
    pub fn note(&mut self, text: &str) -> io::Result<()> {
        let (at, text) = (Timestamp::now(), Some(text.to_owned()));
        self.write(&Record { at, seq: None, what: None, step: None, text })?;
        self.file.as_ref().map_or(Ok(()), File::sync_data)
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let value = self.redactor.value(&serde_json::to_value(record)?);
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
        let by = "me@here".to_owned();
        Event { seq, at: "2026-11-21T02:26:03Z".parse().unwrap(), what: EventKind::RunCreated { by } }
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
