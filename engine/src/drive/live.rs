//! What a running step shows while it runs: progress and talk. It may be lost; nothing decides by it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::redact::Redactor;

/// How far a step is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many items are dealt with.
    pub done: u64,
    /// How many there are, when that is known.
    pub total: Option<u64>,
    /// What an item is, plural: `documents`, `files`.
    pub unit: String,
    /// How many items failed.
    pub failed: u64,
    /// What it is doing right now.
    pub note: String,
}

/// A line a step says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// Which step.
    pub step: String,
    /// The text, redacted, without a line break.
    pub text: String,
}

/// How many lines a slow listener may be behind before it loses the oldest.
const BACKLOG: usize = 1024;

/// The live side of a whole run: one per process, shared by its steps and its display.
#[derive(Clone, Debug)]
pub struct LiveHub {
    progress: Arc<Mutex<BTreeMap<String, Progress>>>,
    lines: broadcast::Sender<Line>,
    redactor: Redactor,
}

impl LiveHub {
    /// A hub whose lines pass `redactor`.
    pub fn new(redactor: Redactor) -> Self {
        Self { progress: Arc::default(), lines: broadcast::channel(BACKLOG).0, redactor }
    }

    /// The progress of a step, if it has shown any.
    pub fn progress(&self, step: &str) -> Option<Progress> {
        self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(step).cloned()
    }

    /// Every line from now on.
    pub fn lines(&self) -> broadcast::Receiver<Line> {
        self.lines.subscribe()
    }

    /// The handle of one step.
    pub fn step(&self, step: &str) -> Live {
        Live { hub: self.clone(), step: step.to_owned() }
    }
}

/// One step's handle on the live side.
#[derive(Clone, Debug)]
pub struct Live {
    hub: LiveHub,
    step: String,
}

impl Live {
    /// Shows how far the step is.
    pub fn progress(&self, progress: Progress) {
        let mut all = self.hub.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.insert(self.step.clone(), progress);
    }

    /// Says something; line breaks make several lines.
    pub fn say(&self, text: &str) {
        for text in self.hub.redactor.text(text).lines() {
            let line = Line { at: Timestamp::now(), step: self.step.clone(), text: text.to_owned() };
            // Nobody listening is fine.
            let _ = self.hub.lines.send(line);
        }
    }
}
