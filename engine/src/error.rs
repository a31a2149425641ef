//! The world's refusal of a step: stored in the run's events, shown to people, and the basis of every retry.

use serde::{Deserialize, Serialize};

/// What kind of failure it was. The name (kebab-case) is what `retry.on` and `retry.except` list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The system said no and will say no again: a wrong credential, a missing capability, a malformed request.
    Refused,
    /// It may well work in a moment: a time-out of one call, a reset connection, 429, 5xx.
    Transient,
    /// A check that guards the rest of the run did not hold.
    Gate,
    /// Another run holds what the step needs.
    Busy,
    /// A limit of the runbook would be, or was, crossed.
    Limit,
    /// The world is not what the reviewed plan says.
    Drift,
    /// The step's own `timeout` passed.
    Timeout,
    /// The step's configuration turned out to be unusable once its expressions had values.
    Invalid,
    /// The owner of the run stopped before the step had ended; the step goes on where its ledger says.
    Interrupted,
    /// Somebody cancelled the run.
    Cancelled,
    /// The state store failed: nothing may act any more.
    Store,
    /// A bug in this program.
    Bug,
}

impl ErrorKind {
    /// Whether a retry makes sense when the runbook does not say otherwise.
    pub fn retryable(self) -> bool {
        matches!(self, Self::Transient | Self::Timeout)
    }

    /// The kebab-case name, as `retry.on` lists it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Transient => "transient",
            Self::Gate => "gate",
            Self::Busy => "busy",
            Self::Limit => "limit",
            Self::Drift => "drift",
            Self::Timeout => "timeout",
            Self::Invalid => "invalid",
            Self::Interrupted => "interrupted",
            Self::Cancelled => "cancelled",
            Self::Store => "store",
            Self::Bug => "bug",
        }
    }
}

/// Whether the effect is known not to have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It failed, and what was done before it failed is recorded.
    #[default]
    Failed,
    /// It may or may not have happened: no answer came.
    Unknown,
}

/// Why a step did not succeed. `Display` is a lower-case fragment without the causes, which are in [`StepError::causes`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema, thiserror::Error)]
#[error("{message}")]
#[serde(deny_unknown_fields)]
pub struct StepError {
    /// What kind of failure.
    pub kind: ErrorKind,
    /// What failed, as a lower-case fragment.
    pub message: String,
    /// The chain of causes below it, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// Whether the effect may have happened.
    #[serde(default)]
    pub outcome: Outcome,
    /// What to do about it, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// How long the system asked to be left alone, in milliseconds (`Retry-After`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The id of an earlier step whose outputs turned out to be lost, so that it has to run again before this one can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewind: Option<String>,
}

impl StepError {
    /// An error of this kind, outcome failed.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            causes: Vec::new(),
            outcome: Outcome::Failed,
            help: None,
            retry_after_ms: None,
            rewind: None,
        }
    }

    /// The system said no for good.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, message)
    }

    /// It may work in a moment.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Transient, message)
    }

    /// A check did not hold.
    pub fn gate(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Gate, message)
    }

    /// The configuration is unusable.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The step stopped at a safe place because the run was asked to stop.
    pub fn interrupted() -> Self {
        Self::new(ErrorKind::Interrupted, "stopped before its end")
    }

    /// The same error, with `help`.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same error, with the chain below `source` (its own text first) as causes.
    #[must_use]
    pub fn with_source(mut self, source: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(source);
        while let Some(error) = next {
            self.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// The same error, with an unknown outcome.
    #[must_use]
    pub fn unknown(mut self) -> Self {
        self.outcome = Outcome::Unknown;
        self
    }

    /// The same error, asking that `step` runs again first because what it produced is lost.
    #[must_use]
    pub fn rewinding(mut self, step: impl Into<String>) -> Self {
        self.rewind = Some(step.into());
        self
    }
}
