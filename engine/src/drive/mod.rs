//! The loop: append, apply, act, await. The only async part of the engine's core.
//!
//! One task owns the run's events. Steps run as tasks of their own and reach it through a bounded queue; their ledgers go straight
//! to the store, under the same fence. Nothing acts before its event is durable, and a failed append stops everything.

mod acts;
mod foresee;
mod ground;
pub mod lazy;
pub mod ledger;
pub mod live;
pub mod obligations;
mod owner;
mod planned;
mod release;
mod run;
mod steady;
mod tidy;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::artifact::Artifacts;
use crate::duration::Duration;
use crate::event::{Event, Question};
use crate::redact::Redactor;
use crate::state::{Illegal, RunState};
use crate::step::Executor;
use crate::store::{Store, StoreError};

pub use foresee::Foreseer;
pub use live::LiveHub;

/// How long an ownership lasts without being extended.
pub const LEASE: Duration = Duration::from_secs(15);

/// How often a run looks for events of other processes and extends its lease.
pub const POLL: Duration = Duration::from_millis(400);

/// How long a step may take to stop once it has been told to, before it is dropped.
pub const GRACE: Duration = Duration::from_secs(15);

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// The present time.
    fn now(&self) -> Timestamp;
}

/// The clock of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The people at the terminal.
#[async_trait]
pub trait People: Send + Sync {
    /// Asks; the answer as typed. None when there is nobody to ask, or they left without an answer: the run waits then.
    async fn ask(&self, step: &str, question: &Question) -> Option<String>;

    /// Who they are, for the record.
    fn name(&self) -> String;
}

/// Sees every event right after it became durable.
pub trait Observer: Send {
    /// The run changed.
    fn changed(&mut self, state: &RunState, event: &Event);
}

/// How urgently a run is to stop; it is resumable in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Halt {
    /// Go on.
    #[default]
    No,
    /// Finish the batches in flight, record them, and stop.
    Gently,
    /// Stop now.
    Now,
}

/// What [`Driver::drive`] works with.
pub struct Driver {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What runs steps.
    pub executor: Arc<dyn Executor>,
    /// The people.
    pub people: Arc<dyn People>,
    /// The display.
    pub observer: Box<dyn Observer>,
    /// Progress and talk.
    pub live: LiveHub,
    /// Large outputs.
    pub artifacts: Artifacts,
    /// The run's folder on this machine, for what means nothing on another one.
    pub scratch: PathBuf,
    /// Replaces secrets.
    pub redactor: Redactor,
    /// The secrets, by name.
    pub secrets: BTreeMap<String, String>,
    /// Which process this is: user, host, process id.
    pub owner: String,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Whether to stop.
    pub halt: watch::Receiver<Halt>,
    /// The targets that runs may hold of which the store does not know, with those runs: they are not taken for a system in its original state.
    pub elsewhere: BTreeMap<String, String>,
}

/// What the run is entered for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To go on with what is left, from where it stands.
    GoOn,
    /// To go on although it failed: what failed is reopened.
    Resume,
    /// To end it without going on; who wants that.
    Cancel(String),
    /// To end a run that was cancelled and could not tidy up, and to leave what its steps left behind as it is; who wants that.
    Abandon(String),
    /// Only to put back what has been held too long.
    Reconcile,
    /// To take note that a person put back by hand what this obligation changed, and to go on.
    ByHand {
        /// The obligation's id.
        obligation: String,
        /// Who.
        by: String,
        /// Whether the hold is given up although the original value is not seen to be back.
        abandon: bool,
    },
}

/// How the loop left the run.
#[derive(Clone, Debug, PartialEq)]
pub enum Finish {
    /// It has ended, see the state.
    Ended(RunState),
    /// It waits for a person; these steps ask.
    Waiting(RunState, Vec<String>),
    /// It was stopped and can be resumed.
    Halted(RunState),
}

/// Why the loop had to stop.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum DriveError {
    /// The store failed or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run cannot be entered for this purpose.
    #[error("{0}")]
    Refused(String),
    /// This program proposed an event that its own rules forbid.
    #[error("bug: {0}")]
    Bug(Illegal),
}

impl Driver {
    /// Takes the run over and works on it until it ends, waits for a person, or is stopped.
    pub async fn drive(self, run: &str, purpose: Purpose) -> Result<Finish, DriveError> {
        run::Loop::enter(self, run, purpose).await?.turn().await
    }
}
