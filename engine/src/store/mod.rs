//! Where runs are kept. The memory store is the reference; the SQLite store must behave the same (one suite runs on both).

pub mod holder;
pub mod memory;
mod rules;
pub mod sqlite;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use crate::error::{ErrorKind, StepError};
use crate::event::{Event, Obligation};
use crate::plan::{PLAN_VERSION, Plan};
use crate::state::{Illegal, RunState, RunStatus};

/// A run's row.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// The run's id.
    pub id: String,
    /// The runbook's name.
    pub runbook: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// The plan, as JSON text.
    pub plan: String,
    /// The definition's source text, as it was when the run was created.
    pub definition: String,
    /// The name of the file it came from.
    pub source_name: String,
    /// A number drawn at creation.
    pub seed: u64,
    /// The lock key.
    pub lock: Option<String>,
    /// The status after the last event.
    pub status: RunStatus,
    /// The last event's number.
    pub last_seq: u64,
    /// The fencing number of the last ownership; 0 when never owned.
    pub epoch: u64,
    /// The present owner, while there is one.
    pub owner: Option<String>,
    /// Until when the owner holds the run; it is extended while the owner lives.
    pub lease_until: Option<Timestamp>,
}

impl RunRow {
    /// The owner and the end of its lease, if somebody holds the run at `now`.
    pub fn live_owner(&self, now: Timestamp) -> Option<(&str, Timestamp)> {
        let until = self.lease_until.filter(|until| *until > now)?;
        Some((self.owner.as_deref()?, until))
    }
}

/// A run to be created, with its first event.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRun {
    /// The run's id.
    pub id: String,
    /// The runbook's name.
    pub runbook: String,
    /// The plan, as JSON text.
    pub plan: String,
    /// The definition's source text.
    pub definition: String,
    /// The name of the file it came from.
    pub source_name: String,
    /// A number drawn at creation.
    pub seed: u64,
    /// The lock key: taken with the creation, or nothing is created.
    pub lock: Option<String>,
    /// The id of the saved plan that it applies; each is applied once.
    pub applies: Option<String>,
    /// The first event, number 1; its time is the creation's.
    pub first: Event,
}

/// Whose writes these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// The owner with this epoch; refused when the run has been claimed by another since.
    Owner(u64),
    /// Another process that adds one event (an answer, a cancel request).
    Foreign,
}

/// One change of a run; the changes of one commit happen together or not at all.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Adds events after number `after`; refused with [`StoreError::Conflict`] when there are later ones already.
    Append {
        /// The number of the last event the writer knows.
        after: u64,
        /// The events, numbered from `after + 1`.
        events: Vec<Event>,
        /// The status that results.
        status: RunStatus,
    },
    /// Records an open obligation; refused with [`StoreError::Held`] when its target is under an open one of any run.
    OpenObligation {
        /// Its id, unique in the run.
        id: String,
        /// What it is.
        obligation: Obligation,
        /// When it is released at the latest.
        hold_until: Timestamp,
    },
    /// Takes an obligation off the open ones.
    CloseObligation {
        /// Its id.
        id: String,
    },
    /// Announces a batch. Refused with [`StoreError::Limit`] when a charge would cross its limit.
    Intend {
        /// The batch.
        batch: BatchRow,
        /// What it costs.
        charges: Vec<Charge>,
    },
    /// Records what became of a batch.
    Settle {
        /// The step.
        step: String,
        /// The number of the batch.
        batch: u64,
        /// Where the step goes on after it.
        cursor: Value,
        /// What became of each key, in the step's own form.
        outcome: Value,
        /// How many items had the effect.
        done: u64,
        /// How many needed none (already gone).
        already: u64,
        /// How many failed.
        failed: u64,
        /// What it costs.
        charges: Vec<Charge>,
    },
    /// Records a fact of a step under a name, once: a later value for the same name is ignored.
    Remember {
        /// The step.
        step: String,
        /// The name.
        name: String,
        /// The fact.
        value: Value,
    },
    /// Extends the lease.
    Renew {
        /// Its new end.
        until: Timestamp,
    },
    /// Ends the ownership.
    Leave,
    /// Gives the lock key back.
    Unlock,
    /// Ends a run whose record can not be read, in its row alone: it is cancelled, and its open obligations, its lock key and its
    /// ownership are given up.
    Abandon,
}

/// An amount on a counter of the run, with the most it may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The counter, such as `run:items` or `step:purge:errors`.
    pub counter: String,
    /// How much is added.
    pub amount: u64,
    /// The most it may be afterwards.
    pub max: Option<u64>,
}

/// A batch of a step's ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchRow {
    /// The step.
    pub step: String,
    /// Its number in the step, from 1.
    pub batch: u64,
    /// What is about to be done, in the step's own form.
    pub intent: Value,
    /// How many items it touches.
    pub items: u64,
    /// What became of it; absent while that is unknown.
    pub settled: Option<SettledRow>,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct SettledRow {
    /// Where the step goes on after it.
    pub cursor: Value,
    /// What became of each key, in the step's own form.
    pub outcome: Value,
    /// How many items had the effect.
    pub done: u64,
    /// How many needed none.
    pub already: u64,
    /// How many failed.
    pub failed: u64,
}

/// A step's ledger in short: bounded, however many batches there are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LedgerRow {
    /// The cursor of the settled batch with the highest number below every unsettled one.
    pub cursor: Option<Value>,
    /// The number of the last batch; 0 when there is none.
    pub last_batch: u64,
    /// The batches without a result, by number.
    pub unsettled: Vec<BatchRow>,
    /// Sums over the settled batches.
    pub done: u64,
    /// Sum over the settled batches.
    pub already: u64,
    /// Sum over the settled batches.
    pub failed: u64,
}

/// An open obligation, as other runs and commands see it.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenObligation {
    /// The run that holds it.
    pub run: String,
    /// Its id in that run.
    pub id: String,
    /// What it is.
    pub obligation: Obligation,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it is released at the latest.
    pub hold_until: Timestamp,
}

/// Why the store refused or failed.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum StoreError {
    /// There are later events than the writer knows.
    #[error("the run has moved on")]
    Conflict,
    /// The run was claimed by another process; this one must stop.
    #[error("another process has taken the run over")]
    Fenced,
    /// Somebody holds the run.
    #[error("the run is owned by {owner} until {until}")]
    Busy {
        /// Who.
        owner: String,
        /// Until when, unless extended.
        until: Timestamp,
    },
    /// Another unfinished run holds the lock key.
    #[error("run {run} holds the lock `{key}`")]
    Locked {
        /// The key.
        key: String,
        /// The run.
        run: String,
    },
    /// A run was started with this saved plan already.
    #[error("the plan was applied already, by run {run}")]
    Applied {
        /// The run.
        run: String,
    },
    /// The target is under an open obligation.
    #[error("{label} is already held by run {run}")]
    Held {
        /// The target in words.
        label: String,
        /// The run that holds it.
        run: String,
    },
    /// A limit would be crossed.
    #[error("the limit of {max} on {counter} would be crossed: {present} so far, {amount} more")]
    Limit {
        /// The counter.
        counter: String,
        /// Its limit.
        max: u64,
        /// Where it stands.
        present: u64,
        /// What was asked for.
        amount: u64,
    },
    /// There is no such run.
    #[error("there is no run {0}")]
    NoSuchRun(String),
    /// What is stored can not be understood.
    #[error("what is stored of run {run} can not be read: {reason}")]
    Corrupt {
        /// The run.
        run: String,
        /// What is wrong.
        reason: String,
    },
    /// A later program made the run's plan.
    #[error(
        "the plan of run {run} has version {version}, made by a later program; this one knows {PLAN_VERSION}"
    )]
    Later {
        /// The run.
        run: String,
        /// The version of its plan.
        version: u32,
    },
    /// The store's address names no store there is.
    #[error("`{0}` is no state store: give `sqlite:PATH` or `memory:`")]
    Address(String),
    /// The database or the disk failed.
    #[error("the state store failed: {0}")]
    Io(String),
}

impl StoreError {
    /// The same as the error of the step that wanted to write.
    pub fn for_step(&self) -> StepError {
        let kind = match self {
            Self::Limit { .. } => ErrorKind::Limit,
            Self::Held { .. } => ErrorKind::Busy,
            _ => ErrorKind::Store,
        };
        StepError::new(kind, self.to_string())
    }
}

/// Keeps runs. Every method that changes something returns when the change is durable.
#[async_trait]
pub trait Store: Send + Sync {
    /// Creates a run with its first event and takes its lock key. [`StoreError::Applied`] when another run applied its plan.
    async fn create(&self, run: NewRun) -> Result<(), StoreError>;

    /// Takes ownership at `now` until `until`, and the lock key when the run has one and does not hold it; the new epoch.
    /// Refused with [`StoreError::Busy`] while another owner's lease lasts.
    async fn claim(
        &self,
        run: &str,
        owner: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<u64, StoreError>;

    /// Makes the changes durable, all or none.
    async fn commit(&self, run: &str, fence: Fence, writes: Vec<Write>) -> Result<(), StoreError>;

    /// The run's row.
    async fn run(&self, run: &str) -> Result<Option<RunRow>, StoreError>;

    /// Every run's row, newest first, at most `limit`. `plan` and `definition` are left empty.
    async fn runs(&self, limit: usize) -> Result<Vec<RunRow>, StoreError>;

    /// The events after number `after`, in order.
    async fn events(&self, run: &str, after: u64) -> Result<Vec<Event>, StoreError>;

    /// A step's ledger in short.
    async fn ledger(&self, run: &str, step: &str) -> Result<LedgerRow, StoreError>;

    /// Batches of a step after number `after`, in order, at most `limit`; only those with failed items when `failed_only`.
    async fn batches(
        &self,
        run: &str,
        step: &str,
        after: u64,
        limit: usize,
        failed_only: bool,
    ) -> Result<Vec<BatchRow>, StoreError>;

    /// The run that applies the saved plan of this id.
    async fn applied(&self, plan: &str) -> Result<Option<String>, StoreError>;

    /// A fact recorded by [`Write::Remember`].
    async fn recall(&self, run: &str, step: &str, name: &str) -> Result<Option<Value>, StoreError>;

    /// Where a counter of the run stands; 0 when it was never charged.
    async fn counter(&self, run: &str, counter: &str) -> Result<u64, StoreError>;

    /// The open obligations of every run, oldest first.
    async fn obligations(&self) -> Result<Vec<OpenObligation>, StoreError>;

    /// What the store finds damaged in itself, in words; none when it is whole.
    async fn damage(&self) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    /// Waits for the write that is under way. While what is returned lives nothing is written here, so that this process can be stopped
    /// without keeping others from writing. None when nobody else writes to the store.
    async fn still(&self) -> Option<OwnedMutexGuard<()>> {
        None
    }

    /// Waits for what is under way and closes the store.
    async fn close(&self);
}

/// Opens the store at `url`: `sqlite:PATH` (also `sqlite://PATH`), a file that is made when it is missing, or `memory:`, which
/// is gone with the process. [`StoreError::Address`] for anything else.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    // What follows the scheme may hold a password.
    let unknown = || StoreError::Address(url.split_once(':').map_or(url, |(scheme, _)| scheme).to_owned());
    match url.split_once(':') {
        Some(("memory", "")) => Ok(Arc::new(memory::MemoryStore::new())),
        Some(("sqlite", path)) => {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.starts_with(':') {
                return Err(unknown());
            }
            Ok(Arc::new(sqlite::SqliteStore::open(Path::new(path)).await?))
        }
        _ => Err(unknown()),
    }
}

/// Opens the SQLite store in the file at `path` only to read it, also where nothing can be written, with what to keep in mind about what
/// is read. An empty store when there is no file: nothing is made. [`StoreError::Io`] when what is there can not be read.
pub async fn open_to_read(path: &Path) -> Result<(Arc<dyn Store>, Option<String>), StoreError> {
    Ok(match sqlite::SqliteStore::open_to_read(path).await? {
        Some((store, caveat)) => (Arc::new(store), caveat),
        None => (Arc::new(memory::MemoryStore::new()), None),
    })
}

/// The fold of a run's events.
pub async fn load_state(store: &dyn Store, run: &str, plan: &Plan) -> Result<RunState, StoreError> {
    let mut state = RunState::new(plan);
    for event in store.events(run, 0).await? {
        state
            .apply(plan, &event)
            .map_err(|Illegal(reason)| StoreError::Corrupt { run: run.to_owned(), reason })?;
    }
    Ok(state)
}

/// The one key of a plan that every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The run's plan, out of its row. [`StoreError::Later`] when a later program made it.
pub fn decode_plan(row: &RunRow) -> Result<Plan, StoreError> {
    let corrupt = |reason: String| StoreError::Corrupt { run: row.id.clone(), reason };
    let read = |error: serde_json::Error| corrupt(error.to_string());
    // A later plan may have keys that are unknown here, so that its version is looked at first.
    let Versioned { version } = serde_json::from_str(&row.plan).map_err(read)?;
    if version > PLAN_VERSION {
        return Err(StoreError::Later { run: row.id.clone(), version });
    }
    serde_json::from_str(&row.plan).map_err(read)
}
