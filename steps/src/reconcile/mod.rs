//! Step kind `reconcile`: items of one collection name items of another one; those that name what is not there are told, marked, or put back.

mod change;
mod changing;
mod conclude;
mod cut_off;
mod listing;
mod look;
mod record;
mod reference;
mod saved;
mod scan;

use std::collections::BTreeMap;

use async_trait::async_trait;
use runbook_engine::artifact::Artifact;
use runbook_engine::error::StepError;
use runbook_engine::kinds::{Class, Effect};
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::changing::Changing;
use self::reference::Reference;
use self::saved::SaveTo;
use self::scan::Scan;
use crate::keyset::target_set;
use crate::kind::{Context, End, Step, read_now};

/// Finds the items of a collection that name what is not there: rows with the URL of an object that is gone.
///
/// `report` reads both sides to their last page and changes nothing. Each reference comes to one verdict: `found`; `missing`, only when the
/// system says of that very item that there is none (status 404); `unknown`, when it says anything else (403, 500, no answer), after three tries;
/// `unresolvable`, when the reference leads to another system or to nothing that can be named; `empty`, when the field holds nothing; and
/// `not-asked`, when `when` does not hold. More unknown ones than `max_unknown` fail the step. An item is `missing` by the first of its
/// references that is; when an earlier one is unknown, so is the item, and nothing is done to it.
///
/// For few references each is looked up (a HEAD request with S3). For many, all keys of the other collection are listed and merged with the
/// references, sorted on the disk, and only what the listing does not have is looked up. Which one is fewer requests is found out by counting.
///
/// `mark` sets fields of the items of `findings`, the output of a `report` before it, as the reference says that is missing. Right before, each is
/// looked up again, and left alone when it is there now; an item that is not in the state that was read is left alone too. `undo`
/// puts the prior values back, of items that still hold what `mark` set. To delete instead, give `findings` to `delete-batch` as its `keys`.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reconcile {
    /// The collection whose items name others.
    pub collection: String,
    /// The collection that should have what is named. Not for `undo`.
    #[serde(default)]
    pub against: Option<String>,
    /// What is done. There is no default.
    pub action: Action,
    /// What an item names, in order: of several that are missing the first one counts. For `report` only.
    #[serde(default)]
    pub references: Vec<Reference>,
    /// For `mark` and `undo`: the findings of a `report`, each with the prior values of what is set.
    #[serde(default)]
    pub findings: Option<Artifact>,
    /// For `undo`, in place of `findings`: the file into which a `mark` saved them.
    #[serde(default)]
    pub saved_in: Option<SaveTo>,
    /// For `mark` and `undo`: only these keys. One that the findings do not have fails the step before anything is changed. Default: all.
    #[serde(default)]
    pub only: Option<Vec<String>>,
    /// For `mark`: the file into which the findings are copied before the first change. One that is there must hold the same.
    #[serde(default)]
    pub save_to: Option<SaveTo>,
    /// How the two are compared. Default: `auto`.
    #[serde(default)]
    pub compare: Compare,
    /// How many items are looked up or changed in one batch, 1 to 1000. Default 500.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 1000))]
    pub batch_size: u64,
    /// How many are looked up at the same time, 1 to 64. Default 8.
    #[serde(default = "default_concurrency")]
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: u64,
    /// How many references may stay unknown. Default 0.
    #[serde(default)]
    pub max_unknown: u64,
}

fn default_batch_size() -> u64 {
    500
}

fn default_concurrency() -> u64 {
    8
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Tells what is missing.
    Report,
    /// Sets fields of the items that name it.
    Mark,
    /// Puts back what those fields held.
    Undo,
}

/// How the two collections are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compare {
    /// As takes fewer requests, one of a listing being worth ten that look up.
    #[default]
    Auto,
    /// Each reference is looked up.
    Lookup,
    /// Everything is listed, and what is not in the listing is looked up.
    Listing,
}

/// How many references came to which verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// What they name is there.
    pub found: u64,
    /// It is not.
    pub missing: u64,
    /// Nobody knows.
    pub unknown: u64,
    /// They lead elsewhere, or nowhere.
    pub unresolvable: u64,
    /// The field holds nothing.
    pub empty: u64,
    /// `when` does not hold.
    pub not_asked: u64,
}

/// An item that names what is missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Example {
    /// Its key.
    pub key: String,
    /// The reference that counts.
    pub reference: String,
    /// What is missing.
    pub target: String,
    /// What its fields held.
    pub prior: Map<String, Value>,
    /// What they are to be set to.
    pub set: Map<String, Value>,
}

/// What was found, and what was done about it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Outputs {
    /// How many items were checked; with `findings`, how many those are.
    pub checked: u64,
    /// How they were compared, `lookup` or `listing`; null without a comparison.
    pub compared_by: Option<Compare>,
    /// By the name of each reference, how many came to what. Empty without a comparison.
    pub references: BTreeMap<String, Counts>,
    /// How many items name something that is missing.
    pub missing: u64,
    /// How many of 100 items those are.
    pub missing_percent: f64,
    /// Of how many items it is not known.
    pub unknown: u64,
    /// How many items name something elsewhere, and nothing that is missing.
    pub unresolvable: u64,
    /// Every item, one a line: `{"key", "verdict", "references"}`. Null without a comparison.
    pub verdicts: Option<Artifact>,
    /// The items that name something missing, one a line, each with its version, what is missing, what its fields hold and what they are to be
    /// set to: a manifest.
    pub findings: Option<Artifact>,
    /// The first ten of them.
    pub examples: Vec<Example>,
    /// How many items were changed; 0 for `report`.
    pub updated: u64,
    /// How many were so already.
    pub already: u64,
    /// How many were left alone because they are not what they were.
    pub changed_since: u64,
    /// How many were left alone because what was missing is there now.
    pub found_since: u64,
    /// How many were left alone because it can not be told whether it is there now.
    pub unknown_since: u64,
    /// What became of each, one a line: `{"key", "outcome", "why"}`. Null for `report`.
    pub results: Option<Artifact>,
    /// The findings of which the items were changed: what an `undo` takes. Null for `report`.
    pub changed: Option<Artifact>,
}

#[async_trait]
impl Step for Reconcile {
    const NAME: &'static str = "reconcile";
    const SUMMARY: &'static str =
        "Finds items that name what is not there, such as rows with the URL of a lost object, and marks them";
    const SPEED_FIELDS: &'static [&'static str] = &["/batch_size", "/concurrency", "/compare"];
    const EXAMPLE: &'static str = "\
id: dry_run
uses: reconcile
with:
  collection: images
  against: objects
  action: report
  references:
    - name: original
      field: original_url
      set: { status: error, error: original missing in storage, updated_at: { now: true } }
    - name: staged
      field: staged_url
      when: { status: ready }
      set: { status: error, error: staged missing in storage, updated_at: { now: true } }
";
    type Outputs = Outputs;
    const TIDIES: bool = true;

    fn effect(with: &Value) -> Effect {
        match with.get("action").and_then(Value::as_str) {
            Some("report") => Effect::READ,
            _ => Effect::WRITE,
        }
    }

    fn updates(with: &Value) -> bool {
        matches!(with.get("action").and_then(Value::as_str), Some("mark" | "undo"))
    }

    async fn foresee(self, effect: Effect, cx: &Context) -> Result<Foresight, StepError> {
        self.check()?;
        if effect.class == Class::Read {
            return read_now(self, cx).await;
        }
        let what = cx.resources.collection(&self.collection)?.describe();
        let findings = saved::given(&self, cx).await?;
        let collections = std::slice::from_ref(&self.collection);
        let (set, _) = target_set(&cx.artifacts, &[findings], collections, what.clone()).await?;
        let does = match self.action {
            Action::Undo => format!("put back what fields held of {what}"),
            _ => format!("mark {what}"),
        };
        let mut changes = vec![self.collection.clone()];
        changes.extend(self.save_to.iter().map(|save| save.connection.clone()));
        Ok(Foresight { does, touches: vec![set], changes: Some(changes), ..Foresight::default() })
    }

    async fn run(self, cx: &Context) -> Result<End<Outputs>, StepError> {
        self.check()?;
        match self.action {
            Action::Report => Scan::new(&self, cx)?.run().await,
            Action::Mark | Action::Undo => Changing::begin(&self, cx).await?.run().await,
        }
        .map(End::Done)
    }

    async fn tidy(self, cx: &Context) -> Result<(), StepError> {
        cut_off::settle(&self, cx).await
    }
}

impl Reconcile {
    /// Whether the settings fit together.
    fn check(&self) -> Result<(), StepError> {
        let invalid = |message: &str| Err(StepError::invalid(message));
        match self.action {
            Action::Report if self.references.is_empty() => invalid("`report` takes `references`"),
            Action::Report if self.findings.is_some() || self.saved_in.is_some() => {
                invalid("`findings` are what `report` gives; it takes none")
            }
            Action::Report if self.only.is_some() || self.save_to.is_some() => {
                invalid("`only` and `save_to` are for what changes something")
            }
            Action::Mark | Action::Undo if !self.references.is_empty() => {
                invalid("`references` are for `report`; the findings say what is set")
            }
            Action::Mark if self.findings.is_none() || self.saved_in.is_some() => {
                invalid("`mark` takes the `findings` of a `report` of this run")
            }
            Action::Undo if self.findings.is_some() == self.saved_in.is_some() => {
                invalid("`undo` takes either `findings` or `saved_in`")
            }
            Action::Undo if self.save_to.is_some() || self.against.is_some() => {
                invalid("`undo` takes neither `save_to` nor `against`")
            }
            Action::Report | Action::Mark if self.against.is_none() => {
                invalid("`against` names the collection that should have what is named")
            }
            _ => reference::check(&self.references),
        }
    }
}
