//! How a run is shown while it goes on: on a terminal, in plain lines, or as data. All draw from the same events and states.

pub mod describe;
mod json;
mod plain;
pub mod planned;
pub mod summary;
mod terminal;
mod views;

pub use self::json::{print as print_event, print_refused};
pub use self::plain::line as plain_line;
pub use self::views::{STUCK, Views};

use std::sync::Arc;
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
