//! The seam between the engine and what a step does: one call in, outputs or a question out, and a context for everything a
//! step may use of the engine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub use crate::drive::lazy::Lazy;
pub use crate::drive::ledger::{Batch, Intent, Ledger, LedgerView, Settlement, Totals};
pub use crate::drive::live::{Live, Progress};
pub use crate::drive::obligations::Obligations;

use crate::artifact::Artifacts;
use crate::error::StepError;
use crate::event::{Answer, Obligation, Question};
use crate::kinds::StepKindInfo;
use crate::plan::{Plan, StepId};
use crate::redact::Redactor;
use crate::saved::Foresight;
use crate::state::RunState;
use crate::store::Store;

/// What an attempt of a step comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum StepEnd {
    /// It is done: its outputs, an object.
    Done(Value),
    /// A person must be asked before it can go on; it is entered again with the answer in [`StepContext::answers`].
    Ask(Question),
}

/// What became of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// The original is back, proven by reading it.
    Restored,
    /// The original was there all along and the change had never been made.
    Untouched,
    /// Somebody else's value is there; it was left alone. What it is, for people.
    Foreign(String),
    /// The original is there although the change had been made and no release had begun: somebody else put it back.
    Undone,
}

/// How far an obligation is, as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It is announced; nothing was changed.
    Opened,
    /// The change may or may not have been made.
    Changing,
    /// The change was made.
    Applied,
    /// A release has begun.
    Releasing,
}

/// What is found where an obligation holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The change is there, and in force as far as that can be told.
    InForce,
    /// The change is there, but the system does not heed it. How that shows, for people.
    Ineffective(String),
    /// The original is there.
    Original,
    /// Somebody else's value is there. What it is, for people.
    Foreign(String),
}

/// How closely an obligation is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The value is read.
    Value,
    /// The value is read, and the system's behaviour is proven where the step says how.
    Proof,
    /// The value is read; that it is the original one counts only where no change that was asked for can come about any more.
    Back,
}

/// One step with its configuration, expressions and secrets resolved. Never stored, never logged.
#[derive(Clone, Debug)]
pub struct StepCall {
    /// The step's id.
    pub id: StepId,
    /// Its kind.
    pub uses: String,
    /// Its configuration, resolved but for what is evaluated late.
    pub with: Value,
    /// What is evaluated late.
    pub lazy: Lazy,
}

/// What runs steps. The `steps` crate has the one for production.
#[async_trait]
pub trait Executor: Send + Sync {
    /// JSON pointers in the configuration of a kind to texts that are evaluated only when the step asks for them, in [`StepCall::lazy`].
    fn lazy_fields(&self, uses: &str) -> &'static [&'static str] {
        let _ = uses;
        &[]
    }

    /// Runs one attempt to its end. It watches [`StepContext::stop`] and returns [`StepError::interrupted`] at the next safe
    /// place when that fires; it may be dropped at any await point.
    async fn run(&self, call: StepCall, cx: StepContext) -> Result<StepEnd, StepError>;

    /// Finds out by reads alone what an attempt would do. Changes nothing, neither in the world nor in the ledger.
    async fn foresee(&self, call: StepCall, cx: StepContext) -> Result<Foresight, StepError> {
        let _ = (call, cx);
        Ok(Foresight::default())
    }

    /// What there is to know of a step kind; none when it is not known.
    fn kind(&self, uses: &str) -> Option<&'static StepKindInfo> {
        let _ = uses;
        None
    }

    /// Which system each connection and each collection is, by its name, in words. Changes nothing.
    async fn systems(&self) -> Result<BTreeMap<String, String>, StepError> {
        Ok(BTreeMap::new())
    }

    /// Puts back what the obligation changed. Idempotent: it is entered again after a crash.
    async fn release(
        &self,
        call: StepCall,
        obligation: &Obligation,
        hold: Hold,
        cx: StepContext,
    ) -> Result<Release, StepError>;

    /// Whether an attempt of this kind that was cut off may leave something behind that only [`Self::tidy`] takes away.
    fn tidies(&self, uses: &str) -> bool {
        let _ = uses;
        false
    }

    /// Takes away what the attempts of a step that was cut off left behind, when its run is cancelled. Idempotent. The error says what is left, and
    /// what to type to take it away. With one of a kind that may be retried the run stays open, so that it can be cancelled again.
    async fn tidy(&self, call: StepCall, cx: StepContext) -> Result<(), StepError> {
        let _ = (call, cx);
        Ok(())
    }

    /// Looks whether what the obligation changed is still so. Changes nothing that lasts.
    async fn inspect(
        &self,
        call: StepCall,
        obligation: &Obligation,
        look: Look,
        cx: StepContext,
    ) -> Result<Found, StepError>;
}

/// Facts about the run that a step may use.
#[derive(Clone, Debug)]
pub struct RunInfo {
    /// The run's id.
    pub id: String,
    /// The runbook's name.
    pub runbook: String,
    /// When the run was created.
    pub created_at: Timestamp,
    /// Who asked for it.
    pub by: String,
    /// A number drawn when the run was created, the same on every resume: for sampling.
    pub seed: u64,
}

/// Everything of the engine that a step may use.
#[derive(Clone)]
pub struct StepContext {
    /// The run.
    pub run: RunInfo,
    /// The step.
    pub step: StepId,
    /// The number of this attempt, from 1. Attempts after a crash count too.
    pub attempt: u32,
    /// Every answer given to this step so far, oldest first.
    pub answers: Vec<Answer>,
    /// The write-ahead record of what this step did, batch by batch.
    pub ledger: Ledger,
    /// What must be put back.
    pub obligations: Obligations,
    /// Large outputs, by content.
    pub artifacts: Artifacts,
    /// The run's folder on this machine, for what means nothing on another one.
    pub scratch: PathBuf,
    /// Progress and talk, which may be lost.
    pub live: Live,
    /// Fires when the step should stop at the next safe place.
    pub stop: CancellationToken,
    /// Fires when what is in flight is not waited for any more: a time-out or a cancel, and not somebody who asked to stop gently.
    pub abandon: CancellationToken,
    /// Replaces every form of every secret.
    pub redactor: Redactor,
    /// The run so far, for steps that report on it.
    pub history: History,
}

impl StepContext {
    /// An error when the run has been asked to stop; call it between batches.
    pub fn checkpoint(&self) -> Result<(), StepError> {
        if self.stop.is_cancelled() { Err(StepError::interrupted()) } else { Ok(()) }
    }

    /// Waits for something in flight, as long as it is waited for; dropped, nobody knows what became of it. Not for what is recorded when
    /// it is complete.
    pub async fn unless_abandoned<T>(
        &self,
        flight: impl Future<Output = Result<T, StepError>>,
    ) -> Result<T, StepError> {
        tokio::select! {
            landed = flight => landed,
            () = self.abandon.cancelled() => Err(StepError::interrupted().unknown()),
        }
    }
}

/// Reads the run's own record.
#[derive(Clone)]
pub struct History {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The run's id.
    pub run: String,
}

impl History {
    /// The state as recorded up to now.
    pub async fn state(&self) -> Result<RunState, StepError> {
        crate::store::load_state(&*self.store, &self.run, &self.plan).await.map_err(|error| error.for_step())
    }
}
