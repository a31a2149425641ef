//! What `reconcile` writes into its ledger, and the lines of its artifacts.

use std::collections::BTreeMap;

use runbook_engine::artifact::Artifact;
use runbook_engine::error::{ErrorKind, StepError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::collections::Versions;

/// Where the step goes on: what a batch is about, and what comes after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum At {
    /// Reading the items.
    Rows {
        /// The place in the collection; absent at its beginning.
        after: Option<Value>,
        /// How many items were read before.
        rows: u64,
        /// How many references are open among them.
        open: u64,
    },
    /// All items are read.
    Read { rows: u64, open: u64 },
    /// Listing the keys of the other collection.
    Keys { after: Option<Value>, keys: u64 },
    /// All of them are listed.
    Listed { keys: u64 },
    /// Looking up candidates.
    Look {
        /// The byte at which the next candidate stands.
        offset: u64,
        /// How many were looked up before.
        looked: u64,
        /// How many of those stayed unknown.
        unknown: u64,
    },
    /// Changing the items of the findings.
    Change {
        /// Which findings, by their hash.
        findings: String,
        /// The byte at which the next one stands.
        offset: u64,
        /// How many stayed unknown before.
        unknown: u64,
    },
}

/// What came of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Came {
    /// Items that were read, as lines of [`super::reference::Row`].
    Rows(Artifact),
    /// Keys that were listed, one a line.
    Keys(Artifact),
    /// Candidates that were looked up: by their place in the batch those that are missing, and those that are unknown, with why.
    Looked { count: u64, missing: Vec<u64>, unknown: BTreeMap<u64, String> },
    /// Items of the findings, in their order.
    Changed(Vec<Became>),
    /// The same, of a batch that a cancel cut off: whether each was changed.
    CutOff(Vec<bool>),
}

/// What became of an item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Became {
    /// It was changed.
    Updated,
    /// It was so already.
    Already,
    /// It is not what it was, and how.
    ChangedSince(String),
    /// What was missing is there now.
    FoundSince,
    /// Nobody can tell whether it is there now, and why.
    UnknownSince(String),
    /// It could not be changed, and why.
    Failed(String),
}

/// A reference to be looked up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Candidate {
    /// The number of its item, from 0.
    pub(super) row: u64,
    /// The number of the reference, from 0.
    pub(super) reference: usize,
    /// The key that it names.
    pub(super) target: String,
}

/// Something missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Missing {
    /// The reference.
    pub(super) name: String,
    /// The key that it names.
    pub(super) target: String,
}

/// A line of the findings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Finding {
    pub(super) key: String,
    pub(super) version_in: Versions,
    /// All that is missing; the first one counts.
    pub(super) missing: Vec<Missing>,
    /// What the fields held.
    pub(super) prior: Map<String, Value>,
    /// What they are to be set to.
    pub(super) set: Map<String, Value>,
}

/// A record out of the ledger.
pub(super) fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, StepError> {
    T::deserialize(value)
        .map_err(|error| StepError::new(ErrorKind::Store, format!("the ledger is unreadable: {error}")))
}

/// A record for the ledger.
pub(super) fn encode(value: &impl Serialize) -> Result<Value, StepError> {
    serde_json::to_value(value).map_err(|error| StepError::new(ErrorKind::Bug, error.to_string()))
}
