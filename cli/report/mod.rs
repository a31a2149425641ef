//! How a run is shown while it goes on: on a terminal, in plain lines, or as data. All draw from the same events and states.

pub mod describe;
mod json;
mod plain;
pub mod planned;
pub mod summary;
mod terminal;

pub use self::json::{print as print_event, print_refused};
pub use self::plain::line as plain_line;

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runbook_engine::drive::live::{Line, LiveHub};
use runbook_engine::event::Event;
use runbook_engine::plan::Plan;
use runbook_engine::state::RunState;

/// How often a view may draw anew.
pub const TICK: Duration = Duration::from_millis(100);

/// What a view knows of the run from the start.
#[derive(Clone)]
pub struct Subject {
    /// The run's id.
    pub run: String,
    /// Its plan.
    pub plan: Arc<Plan>,
    /// Its seed.
    pub seed: u64,
    /// What running steps show.
    pub live: LiveHub,
}

/// Shows a run.
pub trait View: Send {
    /// The run stands like this when it is taken up.
    fn begin(&mut self, state: &RunState);

    /// Something happened, and is durable.
    fn event(&mut self, state: &RunState, event: &Event);

    /// A step says something.
    fn line(&mut self, line: &Line);

    /// This program says something about the run.
    fn say(&mut self, text: &str);

    /// The run was asked to stop.
    fn stopping(&mut self) {}

    /// Time has passed.
    fn tick(&mut self) {}

    /// A person is about to be asked: leave the terminal alone until `resume`.
    fn pause(&mut self) {}

    /// The terminal is free again.
    fn resume(&mut self) {}

    /// Nothing more happens here.
    fn end(&mut self) {}
}

/// The views of a run, shared by everything that has something to show.
#[derive(Clone)]
pub struct Views {
    views: Arc<Mutex<Vec<Box<dyn View>>>>,
}

impl Views {
    /// The views that fit where stdout and stderr go.
    pub fn new(subject: &Subject, json: bool) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        let mut views: Vec<Box<dyn View>> = Vec::new();
        if json {
            views.push(Box::new(json::Json::new(subject)));
        }
        // Events on the same terminal as the live view would only garble each other.
        if on_terminal && !(json && std::io::stdout().is_terminal()) {
            views.push(Box::new(terminal::Terminal::new(subject)));
        } else if !json {
            views.push(Box::new(plain::Plain::new(subject)));
        }
        Self { views: Arc::new(Mutex::new(views)) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Box<dyn View>>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the same on every view.
    pub fn each(&self, mut act: impl FnMut(&mut dyn View)) {
        for view in self.lock().iter_mut() {
            act(&mut **view);
        }
    }
}
