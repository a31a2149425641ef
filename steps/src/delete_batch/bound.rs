//! A reviewed plan binds what is deleted.

use std::collections::{BTreeMap, BTreeSet};

use runbook_engine::artifact::Artifact;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::plan::Drift;

use super::DeleteBatch;
use crate::collections::{Collection, Guard};
use crate::keyset::{Against, Few, hold_against, target_set};
use crate::kind::Context;
use crate::manifest::Keys;

/// What may be deleted.
pub(super) struct Bound {
    /// The manifests that are gone through.
    pub(super) manifests: Vec<Artifact>,
    /// How many keys of those that were given are left alone.
    pub(super) left_alone: u64,
    /// The collections whose items are deleted only in the state that was read, and how that is made sure.
    pub(super) guard: BTreeMap<String, Guard>,
    /// Whether a plan binds them.
    pub(super) by_plan: bool,
}

impl Bound {
    /// Whether an item of this collection whose version is known is deleted only in that state.
    pub(super) fn guards(&self, collection: &dyn Collection) -> bool {
        self.by_plan || collection.guard() == Guard::Looks
    }
}

/// The collections in words.
pub(super) fn describe(step: &DeleteBatch, cx: &Context) -> Result<String, StepError> {
    let names = step.collections.0.iter().map(|name| Ok(cx.resources.collection(name)?.describe()));
    Ok(names.collect::<Result<Vec<_>, StepError>>()?.join(" and "))
}

/// What of the manifests may be deleted: all of it without a plan; with one, what is in the plan. Of kind drift when the plan is to be
/// followed to the letter and something differs.
pub(super) async fn bind(step: &DeleteBatch, cx: &Context) -> Result<Bound, StepError> {
    let plan = &cx.history.plan;
    let Some(reviewed) = &plan.reviewed else {
        let guard = told(step, cx, first_versions(cx, &step.keys.0).await?, false)?;
        return Ok(Bound { manifests: step.keys.0.clone(), left_alone: 0, guard, by_plan: false });
    };
    let Some(planned) = reviewed.sets.get(&cx.step) else {
        let message = "the reviewed plan says nothing of what this step would delete";
        return Err(StepError::new(ErrorKind::Drift, message).with_help("make a new plan"));
    };
    let found = target_set(&cx.artifacts, &step.keys.0, String::new()).await?;
    let against = hold_against(&cx.artifacts, &found.items, planned).await?;
    let left_alone = against.new.count + against.changed.count;
    // What this run deleted before it was sent back to its snapshot is gone for that reason.
    let begun = cx.ledger.view().await?.last > 0;
    let gone = if begun { Few::default() } else { against.gone.clone() };
    if let Some(words) = (Against { gone, ..against.clone() }).words() {
        if plan.drift == Drift::Refuse {
            return Err(drifted(&words, &reviewed.id));
        }
        cx.live.say(&format!("not as in the reviewed plan: {words}; only what is in the plan is deleted"));
    }
    let guard = told(step, cx, against.versions, true)?;
    Ok(Bound { manifests: vec![against.kept], left_alone, guard, by_plan: true })
}

/// The collections of whose items the manifests have versions. All of a manifest are out of the same.
async fn first_versions(cx: &Context, manifests: &[Artifact]) -> Result<BTreeSet<String>, StepError> {
    let mut names = BTreeSet::new();
    for manifest in manifests {
        let first = Keys::open(&cx.artifacts, manifest, 0).await?.next_entry().await?;
        names.extend(first.into_iter().flat_map(|entry| entry.version_in.into_keys()));
    }
    Ok(names)
}

/// How those of the step's collections guard their items of which there are versions.
fn told(
    step: &DeleteBatch,
    cx: &Context,
    versions: BTreeSet<String>,
    by_plan: bool,
) -> Result<BTreeMap<String, Guard>, StepError> {
    let mut guards = BTreeMap::new();
    for name in versions.into_iter().filter(|name| step.collections.0.contains(name)) {
        let guard = cx.resources.collection(&name)?.guard();
        if by_plan || guard == Guard::Looks {
            guards.insert(name, guard);
        }
    }
    Ok(guards)
}

fn drifted(words: &str, plan: &str) -> StepError {
    let plan = plan.get(..12).unwrap_or(plan);
    StepError::new(ErrorKind::Drift, format!("the items are not those of the reviewed plan {plan}: {words}"))
        .with_help("nothing was deleted; cancel the run, make a new plan and have it reviewed")
}
