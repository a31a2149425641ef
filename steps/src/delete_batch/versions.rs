//! What there is of each item in every collection that it is deleted from. The manifests say it of the collection that they were read
//! from; of the others it is read.

use futures_util::{TryStreamExt as _, stream};
use runbook_engine::error::StepError;
use runbook_engine::saved::TargetSet;
use runbook_engine::step::Progress;

use super::DeleteBatch;
use crate::collections::Version;
use crate::keyset::{Member, Set, target_set};
use crate::kind::Context;

/// How many items are read at once: any of them may be large.
const READS: usize = 4;

/// The items of the step's manifests as one set, each with its version in every collection of the step: [`Version::ABSENT`] where there is
/// none of it, and no version in a collection whose items have none.
pub(super) async fn complete_set(
    step: &DeleteBatch,
    cx: &Context,
    what: String,
) -> Result<TargetSet, StepError> {
    let (set, known) = target_set(&cx.artifacts, &step.keys.0, &step.collections.0, what).await?;
    if known {
        return Ok(set);
    }
    let all = stream::try_unfold(Set::open(&cx.artifacts, &set.items).await?, async |mut set| {
        Ok::<_, StepError>(set.next().await?.map(|member| (member, set)))
    });
    let mut read = std::pin::pin!(all.map_ok(|member| complete(member, step, cx)).try_buffered(READS));
    let mut writer = cx.artifacts.create_raw("targets.jsonl").await?;
    let (mut done, total, unit) = (0, Some(set.count), "items read".to_owned());
    while let Some(member) = read.try_next().await? {
        cx.checkpoint()?;
        writer.write_json(&member).await?;
        done += 1;
        cx.live.progress(Progress { done, total, unit: unit.clone(), ..Progress::default() });
    }
    Ok(TargetSet { items: writer.finish().await?, ..set })
}

async fn complete(mut member: Member, step: &DeleteBatch, cx: &Context) -> Result<Member, StepError> {
    for name in &step.collections.0 {
        if member.version_in.contains_key(name) {
            continue;
        }
        let collection = cx.resources.collection(name)?;
        let version = match cx.unless_abandoned(collection.read(&member.key)).await? {
            Some(item) => item.version,
            None => Some(Version::ABSENT),
        };
        member.version_in.extend(version.map(|version| (name.clone(), version)));
    }
    Ok(member)
}
