//! What can happen to a run: a closed set. A run is the list of these; nothing else about it is stored as truth.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::duration::Duration;
use crate::error::StepError;
use crate::plan::StepId;

pub use crate::question::Question;

/// One thing that happened, durable before anything acts on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Its place in the run's list, from 1, without gaps.
    pub seq: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// What happened.
    pub what: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum EventKind {
    /// The run came to be. Always the first event, and only the first.
    RunCreated {
        /// Who asked for it.
        by: String,
        /// The key of the lock that it took.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lock: Option<String>,
        /// The saved plan that it applies.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        applies: Option<String>,
    },
    /// A process took the run over. Whatever was running before has no process any more.
    RunClaimed {
        /// The fencing number of this ownership, greater than any before.
        epoch: u64,
        /// Which process: user, host and process id.
        owner: String,
    },
    /// An attempt of a step begins.
    StepStarted {
        /// The step.
        step: StepId,
        /// The number of the attempt, from 1.
        attempt: u32,
    },
    /// The step ended well.
    StepSucceeded {
        /// The step.
        step: StepId,
        /// Its outputs: an object.
        outputs: Value,
    },
    /// The attempt ended badly.
    StepFailed {
        /// The step.
        step: StepId,
        /// Why.
        error: StepError,
    },
    /// The attempt stopped at a safe place before its end, because the run was asked to stop.
    StepInterrupted {
        /// The step.
        step: StepId,
    },
    /// The step's `if` was false.
    StepSkipped {
        /// The step.
        step: StepId,
        /// Why, for people.
        reason: String,
    },
    /// A step that had ended is to run again: an explicit resume, or a later step found its outputs lost.
    StepReopened {
        /// The step.
        step: StepId,
        /// Why, for people.
        reason: String,
    },
    /// A person is asked.
    Asked {
        /// The step that asks.
        step: StepId,
        /// What.
        question: Question,
    },
    /// A person answered.
    Answered {
        /// The step that asked.
        step: StepId,
        /// What was answered.
        answer: Answer,
    },
    /// Something that must be put back changed its standing.
    Obligation {
        /// The obligation, unique in its run.
        id: String,
        /// What became of it.
        change: ObligationChange,
    },
    /// Somebody wants the run to end without going on.
    CancelRequested {
        /// Who.
        by: String,
    },
    /// The run ended. After `failed` an explicit resume may reopen it.
    RunEnded {
        /// How.
        outcome: RunOutcome,
        /// Why, when no step says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<StepError>,
    },
}

impl EventKind {
    /// The creation of a run that has no lock and applies no saved plan.
    pub fn created(by: impl Into<String>) -> Self {
        Self::RunCreated { by: by.into(), lock: None, applies: None }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunOutcome {
    /// All of it was done.
    Succeeded,
    /// A step failed for good, or a limit was reached.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

/// What a person answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The phrase as typed, or `done`, `retry` or `abort`.
    pub text: String,
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// What became of an obligation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ObligationChange {
    /// It is about to be taken on; nothing has been changed yet.
    Opened(Box<Obligation>),
    /// The change is about to be made: from here on it may have been.
    Changing,
    /// The change that was about to be made was not: something else stood there.
    Unchanged,
    /// The change was made.
    Applied,
    /// It was looked at while it was held, and is not in force.
    Lost {
        /// What was found, for people.
        found: String,
    },
    /// It is about to be put back.
    Releasing {
        /// The step that asks for it; none when it is over because the run is, or its time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<StepId>,
    },
    /// It could not be put back. It is tried again by whoever comes next; a person may do it by hand and say so.
    Stuck {
        /// Why.
        error: StepError,
    },
    /// It is over.
    Closed {
        /// How.
        how: Closed,
    },
}

/// How an obligation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Closed {
    /// The original is back.
    Restored,
    /// The original had never been changed.
    Untouched,
    /// The present value is neither ours nor the original: somebody else's, left alone.
    Foreign {
        /// What was found, for people.
        present: String,
    },
    /// The original is back because the longest hold had passed.
    Expired,
    /// Somebody else had put the original back while it was held: what was done in the meantime may have been done without it.
    Undone,
    /// It could not be put back here; a person says to have done it.
    ByHand {
        /// Who.
        by: String,
        /// What is there when it is not the original, or why that could not be read; for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        other: Option<String>,
    },
}

/// What must be put back, as known before it is changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Obligation {
    /// The step that takes it on.
    pub step: StepId,
    /// What is changed: unique among the open obligations of every run.
    pub target: String,
    /// The target in words.
    pub label: String,
    /// What was there, in the form its kind needs to put it back exactly.
    pub original: Value,
    /// What is put there instead.
    pub replacement: Value,
    /// The longest it may be held, counted from when it was opened.
    pub max_hold: Duration,
}
