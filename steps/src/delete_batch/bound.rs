//! A reviewed plan binds what is deleted.

use std::collections::{BTreeMap, BTreeSet};

use runbook_engine::artifact::Artifact;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::plan::Drift;
use runbook_engine::step::LedgerView;
use serde::{Deserialize, Serialize};

use super::DeleteBatch;
use super::record::{Cursor, Intended, decode, encode};
use super::versions::complete_set;
use crate::bound::{Facts, as_reviewed};
use crate::collections::{Collection, Guard};
use crate::keyset::{Against, Few, hold_against, refuses};
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

/// What goes or changes with what is deleted, by collection; nothing for one with which nothing else does.
pub(super) async fn followers(step: &DeleteBatch, cx: &Context) -> Result<Facts, StepError> {
    let mut all = Facts::new();
    for name in &step.collections.0 {
        let follows = cx.resources.collection(name)?.follows().await?;
        if !follows.is_empty() {
            all.insert(format!("with `{name}`"), cx.redactor.text(&follows.join("; ")));
        }
    }
    Ok(all)
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
    let follow = reviewed.binds.get(&cx.step).cloned().unwrap_or_default();
    as_reviewed(reviewed, &follow, &followers(step, cx).await?, "deleted")?;
    let view = cx.ledger.view().await?;
    if let Some(bound) = bound_before(step, cx, &view).await? {
        return Ok(bound);
    }
    let found = complete_set(step, cx, String::new()).await?;
    let (kept, against) = hold_against(&cx.artifacts, &found.items, planned).await?;
    let left_alone = against.new.count + against.changed.count;
    // What this run deleted before it was sent back to its snapshot is gone for that reason.
    let begun = view.last > 0;
    let mine = |few: &Few| if begun { Few::default() } else { few.clone() };
    let (gone, gone_in_part) = (mine(&against.gone), mine(&against.gone_in_part));
    if let Some(words) = (Against { gone, gone_in_part, ..against.clone() }).words() {
        if plan.drift == Drift::Refuse {
            return Err(refuses(&words, &reviewed.id, "deleted"));
        }
        cx.live.say(&format!("not as in the reviewed plan: {words}; only what is in the plan is deleted"));
    }
    let guard = told(step, cx, against.versions, true)?;
    let kept = Kept { given: given(step), kept, left_alone, guard };
    cx.ledger.remember(&Kept::name(&kept.kept.sha256), encode(&kept)?).await?;
    Ok(kept.bound())
}

/// What of the given manifests was found to be in the plan, as the ledger remembers it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    given: Vec<String>,
    kept: Artifact,
    left_alone: u64,
    guard: BTreeMap<String, Guard>,
}

impl Kept {
    /// Under which name it is remembered, by the hash of what was kept.
    fn name(sha256: &str) -> String {
        format!("bound {sha256}")
    }

    fn bound(self) -> Bound {
        let Self { kept, left_alone, guard, .. } = self;
        Bound { manifests: vec![kept], left_alone, guard, by_plan: true }
    }
}

fn given(step: &DeleteBatch) -> Vec<String> {
    step.keys.0.iter().map(|manifest| manifest.sha256.clone()).collect()
}

/// What the manifests came to when the deleting began, as long as they are the same ones: compared again, what was deleted since would be
/// missing. Each item that is left is held to its version all the same.
async fn bound_before(
    step: &DeleteBatch,
    cx: &Context,
    view: &LedgerView,
) -> Result<Option<Bound>, StepError> {
    let begun = match (view.unsettled.last(), &view.cursor) {
        (Some(batch), _) => decode::<Intended>(&batch.what)?.manifests,
        (None, Some(cursor)) => decode::<Cursor>(cursor)?.manifests,
        (None, None) => return Ok(None),
    };
    let Some(kept) = cx.ledger.recall(&Kept::name(&begun)).await? else { return Ok(None) };
    let kept: Kept = decode(&kept)?;
    Ok((kept.given == given(step)).then(|| kept.bound()))
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
