//! Step kind `delete-batch`: deletes the keys of manifests from collections, batch by batch, each written ahead.

mod bound;
mod cut_off;
mod record;
mod versions;
mod work;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use async_trait::async_trait;
use runbook_engine::artifact::Artifact;
use runbook_engine::error::StepError;
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::work::Work;
use crate::collections::Guard;
use crate::kind::{Context, End, Step};
use crate::one_or_many::OneOrMany;

/// Deletes every key of one or more manifests from every named collection. Each batch is written into the ledger before it is done and
/// after, with what became of each key, so that a crash costs one batch at most: that one is done again, since deleting what is gone
/// changes nothing. No key that is not in a manifest is ever deleted, and no item that is not what the snapshot of its collection holds, in
/// collections that can tell (`version_in` in the manifest): a key whose item changed since fails, and the item is left.
///
/// A run that was started with a reviewed plan touches only what is in that plan, in the state that it has there in every one of the
/// collections: anything else fails the step before the first delete, or is left alone where the runbook says `drift: subset`. For that,
/// each item is read in those collections of which its manifest says nothing.
///
/// One key is one item of `max_items`, however many collections it is deleted from; `max_percent` is of the largest collection, counted
/// before the first delete, rounded down, but at least 1: 10 percent of 5 are 1, 0 percent are none; `max_bytes` counts the bytes that the manifest gives for a key, and those of its line there where it gives
/// none; `max_errors` counts keys that fail, once each.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteBatch {
    /// The collections, or one. Each key is deleted from them in this order, and from the next only when it is gone from the one before:
    /// name what can be found by nothing else first.
    pub collections: OneOrMany<String>,
    /// The manifests that hold the keys (`steps.ID.outputs.manifest` of a `snapshot`), or one. A key must not stand in two of them.
    pub keys: OneOrMany<Artifact>,
    /// How many keys are deleted in one batch, 1 to 1000, and no more than each of the collections takes at once: 100 of
    /// `fountainstore-documents`, 1000 of the others; S3 is asked for all of them in one request. Default 100.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 1000))]
    pub batch_size: u64,
    /// How many further passes try again what failed, 0 to 10; none when nothing of it can get better by itself. Default 3.
    #[serde(default = "default_retry_failed")]
    #[schemars(range(max = 10))]
    pub retry_failed: u32,
}

fn default_batch_size() -> u64 {
    100
}

fn default_retry_failed() -> u32 {
    3
}

/// What was deleted.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Outputs {
    /// How many keys the manifests have.
    pub ids: u64,
    /// How many items were deleted, by collection.
    pub deleted: BTreeMap<String, u64>,
    /// How many items were gone already, by collection.
    pub already_gone: BTreeMap<String, u64>,
    /// How many items were gone when a batch that a crash had cut off was done again, by collection: deleted by its first try, or gone
    /// before it.
    pub gone_after_crash: BTreeMap<String, u64>,
    /// How many keys could not be deleted; 0, since the step fails otherwise.
    pub failed: u64,
    /// How many batches there were, later passes included.
    pub batches: u64,
    /// The most items any of the collections held before the first delete.
    pub population: u64,
    /// How many keys of the manifests were left alone because the reviewed plan does not have them, or has them in another state.
    pub not_in_plan: u64,
    /// How it was made sure that each item was still the version that was read; absent for collections where it was not.
    pub guard: BTreeMap<String, Guard>,
}

#[async_trait]
impl Step for DeleteBatch {
    const NAME: &'static str = "delete-batch";
    const SPEED_FIELDS: &'static [&'static str] = &["/batch_size"];
    const TIDIES: bool = true;
    const SUMMARY: &'static str =
        "Deletes the keys of manifests from collections, batch by batch, each written ahead";
    const EXAMPLE: &'static str = "\
id: purge
uses: delete-batch
with:
  collections: [blobs, metadata]
  keys: ${{ steps.snapshot_metadata.outputs.manifest }}
";
    type Outputs = Outputs;

    fn effect(_: &Value) -> Effect {
        Effect::DESTROY
    }

    async fn foresee(self, _: Effect, cx: &Context) -> Result<Foresight, StepError> {
        work::collections(&self, cx)?;
        let what = bound::describe(&self, cx)?;
        let set = versions::complete_set(&self, cx, what.clone()).await?;
        // How many is said of the set: the policy of drift may let it be another number.
        let mut does = format!("delete from {what}");
        let binds = bound::followers(&self, cx).await?;
        for (of, what) in &binds {
            let _ = write!(does, "; {of} go or change, unbound and beside the limits: {what}");
        }
        let population = work::population(&self, cx).await?;
        Ok(Foresight { does, touches: vec![set], binds, population, ..Foresight::default() })
    }

    async fn run(self, cx: &Context) -> Result<End<Outputs>, StepError> {
        Work::begin(&self, cx).await?.run().await.map(End::Done)
    }

    async fn tidy(self, cx: &Context) -> Result<(), StepError> {
        cut_off::settle(&self, cx).await
    }
}
