//! The frozen plan of a run: the definition with its inputs resolved. It never changes after the run is created.
//!
//! Values that hold `${{ }}` expressions on secrets or on outputs of steps are kept as they were written; they are evaluated
//! when their step starts, so that no secret is ever stored.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::artifact::Artifact;
use crate::duration::Duration;
use crate::error::ErrorKind;
use crate::kinds::Effect;
use crate::redact::Redactor;

/// The id of a step, `snake_case`, unique in its runbook.
pub type StepId = String;

/// The version of the plan's stored form. A plan of a later version is refused before anything is done.
pub const PLAN_VERSION: u32 = 1;

/// What a run executes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`PLAN_VERSION`] of the program that made it.
    pub version: u32,
    /// The runbook's name, kebab-case.
    pub runbook: String,
    /// Its one-line description.
    #[serde(default)]
    pub description: String,
    /// SHA-256 of the definition's source text, 64 lower-case hex digits.
    pub definition: String,
    /// The folder that the run was started in: relative paths mean the same in whatever process goes on with it.
    #[serde(default)]
    pub folder: Option<String>,
    /// Every input with its resolved value.
    pub inputs: serde_json::Map<String, Value>,
    /// Where each secret is read from, by name. Values are never here.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Connections as authored, by name: `type` and its settings.
    pub connections: serde_json::Map<String, Value>,
    /// Collections as authored, by name.
    pub collections: serde_json::Map<String, Value>,
    /// The runbook's limits.
    #[serde(default)]
    pub limits: Limits,
    /// The resolved lock key: one unfinished run at most per key.
    #[serde(default)]
    pub lock: Option<String>,
    /// How many steps may run at one time.
    pub max_parallel: usize,
    /// What a difference between a reviewed plan and the world means.
    #[serde(default)]
    pub drift: Drift,
    /// The reviewed plan that the run was started with, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reviewed: Option<Reviewed>,
    /// Where each connection led when the run was created, by its name. Settings that are secrets are read anew by every process.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub places: BTreeMap<String, Place>,
    /// The steps in topological order, file order among equals.
    pub steps: Vec<PlannedStep>,
    /// The steps that run when the others have ended, however they ended, in order.
    pub finally: Vec<PlannedStep>,
}

/// Where a connection leads, so that it can be compared and told, and no secret is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// In words, without secrets.
    pub words: String,
    /// SHA-256 of the place and of the run, 64 lower-case hex digits: what differs in what the words leave out differs in it.
    pub mark: String,
}

impl Place {
    /// The place of a connection in a run.
    pub fn new(run: &str, place: &str, redactor: &Redactor) -> Self {
        let digest = Sha256::new().chain_update(run).chain_update([0]).chain_update(place).finalize();
        let mark = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { words: redactor.text(place), mark }
    }
}

/// What it means when the world is not what a reviewed plan says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Drift {
    /// Nothing is done.
    #[default]
    Refuse,
    /// What has gone since is left out, and what has come or changed since is left alone; everything else that differs is refused.
    Subset,
}

/// A plan that somebody looked at before the run was started with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reviewed {
    /// The id of the saved plan, 64 lower-case hex digits.
    pub id: String,
    /// Who made it.
    pub made_by: String,
    /// When the world was read for it.
    pub made_at: Timestamp,
    /// Who started the run with it.
    pub seen_by: String,
    /// From when on no step that destroys begins with it.
    pub expires_at: Timestamp,
    /// Which system each connection and each collection was that was there when the run was started, by its name.
    pub systems: BTreeMap<String, String>,
    /// What each step that destroys may touch: an artifact with one JSON object a line, `{"key", "version_in", "bytes"}`, in the order of
    /// the keys.
    pub sets: BTreeMap<StepId, Artifact>,
    /// What the settings of each other step that changes something come to, as far as it is known beforehand. One that destroys, or of
    /// which nobody knows what it does, and that is neither here nor in `sets` may not run.
    #[serde(default)]
    pub settings: BTreeMap<StepId, SettingsDigest>,
    /// What each step that holds itself to what it found in the world found there, by name.
    #[serde(default)]
    pub binds: BTreeMap<StepId, BTreeMap<String, String>>,
    /// The steps that were to be skipped: those of them that change something may not run.
    #[serde(default)]
    pub skipped: BTreeSet<StepId>,
    /// The steps that were to run: when one of them is skipped, or is not as it was planned, nothing that destroys may run.
    #[serde(default)]
    pub promised: BTreeSet<StepId>,
    /// Those of them that were to ask a person: nothing that destroys may run without the answer.
    #[serde(default)]
    pub asks: BTreeSet<StepId>,
}

impl Reviewed {
    /// The beginning of its id, as people know it.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

impl Plan {
    /// Of a run whose plan lets items vanish: a name for the plan, and how many items each step may touch at the most. What is asked in it
    /// may count others.
    pub fn bounds(&self) -> Option<(String, String)> {
        let reviewed = self.reviewed.as_ref().filter(|_| self.drift == Drift::Subset)?;
        let bounds = reviewed.sets.iter().filter_map(|(step, set)| {
            let items = if set.lines? == 1 { "item" } else { "items" };
            Some(format!("{step} touches no more than the {} {items} that it names", set.lines?))
        });
        let bounds: Vec<String> = bounds.collect();
        (!bounds.is_empty()).then(|| (format!("plan {}", reviewed.short_id()), bounds.join("; ")))
    }
}

/// What the settings of a step come to: by the name of each setting the SHA-256 of its JSON, 64 lower-case hex digits, with names in place of
/// secrets and of what is another thing in each run, and without what only changes the speed.
pub type SettingsDigest = BTreeMap<String, String>;

/// Where a secret is read from when a process needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file; one trailing line break is dropped.
    File(String),
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlannedStep {
    /// Its id.
    pub id: StepId,
    /// What people call it.
    #[serde(default)]
    pub name: Option<String>,
    /// The step kind.
    pub uses: String,
    /// Its configuration as authored.
    pub with: Value,
    /// The steps that must have ended well before it starts (the default is filled in).
    pub needs: Vec<StepId>,
    /// An expression without its `${{ }}`; when it is false the step is skipped.
    #[serde(default)]
    pub condition: Option<String>,
    /// What it does to the world.
    pub effect: Effect,
    /// When and how to try again.
    #[serde(default)]
    pub retry: Retry,
    /// The longest one attempt may take.
    #[serde(default)]
    pub timeout: Option<Duration>,
    /// What its failure means for the run.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Limits of this step alone.
    #[serde(default)]
    pub limits: Limits,
    /// The safety rules that do not hold for it: code and reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waived: BTreeMap<String, String>,
}

/// What a step's failure means for the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Nothing new is started and the run fails.
    #[default]
    Stop,
    /// Steps that need it run all the same.
    Continue,
}

/// When a failed attempt is followed by another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// How many attempts there are at most, the first one counted.
    #[schemars(range(min = 1))]
    pub max_attempts: u32,
    /// How long to wait before the second attempt.
    pub delay: Duration,
    /// Whether the wait grows.
    pub backoff: Backoff,
    /// By what it grows, for exponential backoff.
    #[schemars(range(min = 1.0))]
    pub factor: f64,
    /// The longest wait.
    pub max_delay: Duration,
    /// No attempt starts later than this after the first one did.
    pub max_duration: Option<Duration>,
    /// The share of the wait, 0 to 1, that is drawn by lot so that many runs do not retry in step.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub jitter: f64,
    /// The error kinds that are retried. Empty: those that are transient by nature.
    pub on: Vec<ErrorKind>,
    /// The error kinds that are not retried.
    pub except: Vec<ErrorKind>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_attempts: 1,
            delay: Duration::from_secs(1),
            backoff: Backoff::Exponential,
            factor: 2.0,
            max_delay: Duration::from_secs(60),
            max_duration: None,
            jitter: 0.0,
            on: Vec::new(),
            except: Vec::new(),
        }
    }
}

/// How the wait between attempts grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Backoff {
    /// It does not.
    Constant,
    /// It is multiplied by `factor` each time.
    Exponential,
}

/// The blast radius: asked before each destroying batch, kept across resumes. An absent limit does not bind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The most items that may be destroyed.
    pub max_items: Option<u64>,
    /// The most items that may be destroyed, in percent (0 to 100) of the population measured first, rounded down, but at least 1; 0
    /// percent is none.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub max_percent: Option<f64>,
    /// The most bytes that may be destroyed.
    pub max_bytes: Option<u64>,
    /// The most items that may fail.
    pub max_errors: Option<u64>,
    /// The longest it may take, pauses and resumes included.
    pub max_duration: Option<Duration>,
}

impl Plan {
    /// The step with this id, wherever it stands.
    pub fn step(&self, id: &str) -> Option<&PlannedStep> {
        self.all_steps().find(|step| step.id == id)
    }

    /// Every step, the final ones last.
    pub fn all_steps(&self) -> impl Iterator<Item = &PlannedStep> {
        self.steps.iter().chain(&self.finally)
    }

    /// Whether a run fails when this step does: not where the others go on.
    pub fn fails_with(&self, id: &str) -> bool {
        let goes_on = |step: &PlannedStep| step.id == id && step.on_failure == OnFailure::Continue;
        !self.steps.iter().any(goes_on)
    }

    /// The steps that come after `id` by `needs`, near or far, in plan order; `id` itself is not among them.
    pub fn downstream(&self, id: &str) -> Vec<&PlannedStep> {
        let mut reached: Vec<&str> = vec![id];
        let mut found = Vec::new();
        for step in &self.steps {
            if step.id != id && step.needs.iter().any(|need| reached.contains(&need.as_str())) {
                reached.push(&step.id);
                found.push(step);
            }
        }
        found
    }
}
