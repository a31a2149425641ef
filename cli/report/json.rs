//! Events as data: one JSON object a line on stdout.

use std::io::Write;

use jiff::Timestamp;
use runbook_engine::drive::live::Line;
use runbook_engine::event::{Event, EventKind};
use runbook_engine::state::RunState;
use serde::Serialize;
use serde_json::Value;

use super::{Subject, View};
use crate::exit::Failure;
use crate::reviewed;

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

/// What is printed instead of events when a reviewed plan is not followed.
#[derive(Serialize)]
struct Refused<'a> {
    refused: Refusal<'a>,
}

#[derive(Serialize)]
struct Refusal<'a> {
    exit: i32,
    message: &'a str,
    moved: Vec<Value>,
    help: &'a [String],
}

/// Prints why nothing was done, with each difference.
pub fn print_refused(failure: &Failure) {
    let moved = failure.moved.iter().map(reviewed::data).collect();
    let refusal =
        Refusal { exit: failure.exit.code(), message: &failure.message, moved, help: &failure.help };
    print_line(&Refused { refused: refusal });
}

fn print_line(record: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(record) {
        // Whoever read our lines may have gone; the run does not stop for that.
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }
}

/// Prints one event.
pub fn print(run: &str, event: &Event) {
    print_line(&Record { run, seq: event.seq, at: event.at, what: &event.what });
}
