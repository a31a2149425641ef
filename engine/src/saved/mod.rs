//! A plan that is saved to be looked at: what a run would do, found out by reads alone, and the sets of items it would touch. A run that
//! is started with it holds the world against it, and touches nothing that is not in it.

mod compare;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use compare::{Moved, What, definitions, foreseen, places, systems};

use crate::artifact::Artifact;
use crate::error::StepError;
use crate::event::Question;
use crate::kinds::{Class, Effect};
use crate::plan::{Plan, SettingsDigest, StepId};

/// The version of the file's form. A later one is refused.
pub const SAVED_PLAN_VERSION: u32 = 1;

/// A saved plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SavedPlan {
    /// [`SAVED_PLAN_VERSION`] of the program that made it.
    pub version: u32,
    /// SHA-256 of all the rest, 64 lower-case hex digits: a plan that was edited is none.
    pub id: String,
    /// The version of the program that made it.
    pub program: String,
    /// When the world was read.
    pub made_at: Timestamp,
    /// Who made it: user and host.
    pub made_by: String,
    /// From when on it can not be applied any more.
    pub expires_at: Timestamp,
    /// The file that the definition was read from.
    pub source_name: String,
    /// The definition's text.
    pub source: String,
    /// The definition with its inputs resolved; secrets by name only.
    pub plan: Plan,
    /// Which system each connection and each collection is, by its name.
    pub systems: BTreeMap<String, String>,
    /// What each step would do, in order, the final ones last.
    pub steps: Vec<Foreseen>,
}

/// What a step would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Foreseen {
    /// The step.
    pub step: StepId,
    /// What it does to the world.
    pub effect: Effect,
    /// How much is known of it.
    pub standing: Standing,
    /// What it would do, or what it found, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub does: String,
    /// What it would touch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub touches: Vec<TargetSet>,
    /// How many items it counts as against the limits beside those of `touches`: of what destroys, and names no items.
    #[serde(default, skip_serializing_if = "is_none")]
    pub items: u64,
    /// What it finds in the world and holds itself to when it begins, by name: of what destroys, and names no items.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub binds: BTreeMap<String, String>,
    /// What it would ask, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<Question>,
    /// What else is to be known of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Of a step that changes something, and not the items of a set: what its settings come to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingsDigest>,
    /// Of what a step that was done gave: what is another thing each time, by JSON pointer.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub fleeting: serde_json::Map<String, serde_json::Value>,
    /// What a step that was done gave, for whoever shows the plan; it is not saved.
    #[serde(skip)]
    #[schemars(skip)]
    pub outputs: Option<serde_json::Value>,
    /// How long it took in the last run of the runbook in which it succeeded, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_took_ms: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference over")]
fn is_none(items: &u64) -> bool {
    *items == 0
}

/// How much is known of a step before a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Standing {
    /// It only reads: it was done just now.
    Read,
    /// It would be done.
    Would,
    /// Its `if` is false.
    Skipped,
    /// It depends on what these steps do, and is known after them.
    After(Vec<StepId>),
    /// It would fail. Where that stops the run, nothing after it was looked at.
    Fails(StepError),
}

/// A set of items that a step would touch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetSet {
    /// What it is, with its system, in words.
    pub what: String,
    /// How many items.
    pub count: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// The first few keys.
    pub examples: Vec<String>,
    /// Every item: an artifact with one JSON object a line, `{"key", "version_in", "bytes"}`, in the order of the keys. Its hash is the
    /// digest of the set.
    pub items: Artifact,
}

/// What a step kind tells of a step without doing it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Foresight {
    /// What it would do, or what it found, in words. Nothing that is another thing each time.
    pub does: String,
    /// Whether all of it was done, since it only reads.
    pub done: bool,
    /// Its outputs, as far as they are known: an object.
    pub outputs: Option<serde_json::Value>,
    /// What it would touch.
    pub touches: Vec<TargetSet>,
    /// How many items it asks the limits for beside those of `touches`.
    pub items: u64,
    /// How many of `items` it needs at the least, where they are the most that it may come to: what no limit may forbid.
    pub at_least: Option<u64>,
    /// What it finds in the world and holds itself to when it begins, by name; without secrets.
    pub binds: BTreeMap<String, String>,
    /// What it destroys from, by a name that is the same in each step that destroys from it, and how many items of it there are, when a limit is a share of them.
    pub population: Option<(String, u64)>,
    /// What it would ask, in order.
    pub asks: Vec<Question>,
    /// The connections and collections that it would change. Absent: those that its settings name as the ones it works on.
    pub changes: Option<Vec<String>>,
}

impl SavedPlan {
    /// The same with the id that fits.
    #[must_use]
    pub fn sealed(self) -> Self {
        let id = self.digest();
        Self { id, ..self }
    }

    /// Whether it is as it was made.
    pub fn is_intact(&self) -> bool {
        self.id == self.digest()
    }

    fn digest(&self) -> String {
        let open = Self { id: String::new(), ..self.clone() };
        let text = serde_json::to_string(&open).unwrap_or_default();
        Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What is foreseen of a step.
    pub fn step(&self, id: &str) -> Option<&Foreseen> {
        self.steps.iter().find(|step| step.step == id)
    }

    /// The sets that each step may touch.
    pub fn sets(&self) -> BTreeMap<StepId, Artifact> {
        let first = |step: &Foreseen| Some((step.step.clone(), step.touches.first()?.items.clone()));
        self.steps.iter().filter_map(first).collect()
    }

    /// The steps that destroy items which are known only later, so that the plan does not say which: a run that is started with it stops
    /// there.
    pub fn unbound(&self) -> Vec<&str> {
        let unbound = |step: &&Foreseen| match step.standing {
            Standing::After(_) => step.effect.class.may_destroy(),
            Standing::Would => {
                step.effect.class.may_destroy() && step.touches.is_empty() && step.settings.is_none()
            }
            _ => false,
        };
        self.steps.iter().filter(unbound).map(|step| &*step.step).collect()
    }

    /// The steps that change something of which nothing is known before the run, so that the plan does not bind them.
    pub fn unbound_writes(&self) -> Vec<&str> {
        let unbound = self
            .steps
            .iter()
            .filter(|step| matches!(step.standing, Standing::After(_)) && step.effect.class == Class::Write);
        unbound.map(|step| &*step.step).collect()
    }

    /// The step with which a run would fail.
    pub fn fails_at(&self) -> Option<&Foreseen> {
        self.steps
            .iter()
            .find(|step| matches!(step.standing, Standing::Fails(_)) && self.plan.fails_with(&step.step))
    }

    /// What the settings of each step come to that is bound by them.
    pub fn settings(&self) -> BTreeMap<StepId, SettingsDigest> {
        let known = |step: &Foreseen| Some((step.step.clone(), step.settings.clone()?));
        self.steps.iter().filter_map(known).collect()
    }

    /// What each step found in the world that holds itself to it.
    pub fn binds(&self) -> BTreeMap<StepId, BTreeMap<String, String>> {
        let bound = self.steps.iter().filter(|step| !step.binds.is_empty());
        bound.map(|step| (step.step.clone(), step.binds.clone())).collect()
    }

    /// The steps that are to run, and those that are to ask a person.
    pub fn promised(&self) -> (BTreeSet<StepId>, BTreeSet<StepId>) {
        let known = |step: &&Foreseen| matches!(step.standing, Standing::Would | Standing::Read);
        let promised = || self.steps.iter().filter(known);
        let ids = |steps: &mut dyn Iterator<Item = &Foreseen>| steps.map(|step| step.step.clone()).collect();
        (ids(&mut promised()), ids(&mut promised().filter(|step| !step.asks.is_empty())))
    }

    /// The steps that are to be skipped.
    pub fn skipped(&self) -> BTreeSet<StepId> {
        let skipped = self.steps.iter().filter(|step| step.standing == Standing::Skipped);
        skipped.map(|step| step.step.clone()).collect()
    }
}

impl Foreseen {
    /// Whether it destroys, or may, as far as that is known.
    pub fn may_destroy(&self) -> bool {
        let may = !matches!(self.standing, Standing::Skipped | Standing::Read);
        may && self.effect.class.may_destroy()
    }

    /// Whether it destroys for sure when it is done.
    pub fn destroys(&self) -> bool {
        self.may_destroy() && self.effect.class == Class::Destroy
    }
}
