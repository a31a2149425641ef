//! Events as data: one JSON object a line on stdout.

use std::io::Write;

use jiff::Timestamp;
use runbook_engine::drive::live::Line;
use runbook_engine::event::{Event, EventKind};
use runbook_engine::state::RunState;
use serde::Serialize;

use super::{Subject, View};

/// An event with the run it belongs to.
#[derive(Serialize)]
struct Record<'a> {
    run: &'a str,
    seq: u64,
    at: Timestamp,
    what: &'a EventKind,
}

pub(super) struct Json {
    run: String,
}

impl Json {
    pub(super) fn new(subject: &Subject) -> Self {
        Self { run: subject.run.clone() }
    }
}

impl View for Json {
    fn begin(&mut self, _: &RunState) {}

    fn event(&mut self, _: &RunState, event: &Event) {
        print(&self.run, event);
    }

    fn line(&mut self, _: &Line) {}

    fn say(&mut self, text: &str) {
        eprintln!("{text}");
    }
}

/// Prints one event.
pub fn print(run: &str, event: &Event) {
    if let Ok(text) = serde_json::to_string(&Record { run, seq: event.seq, at: event.at, what: &event.what })
    {
        // Whoever read our lines may have gone; the run does not stop for that.
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }
}
