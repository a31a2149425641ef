//! Looking up: only "there is none" is missing, and everything else that is no item is unknown.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use runbook_engine::artifact::Artifact;
use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, StepError};

use super::Reconcile;
use super::record::Candidate;
use crate::collections::Collection;
use crate::kind::Context;
use crate::retry::patiently;

/// What a batch of candidates came to.
pub(super) struct Looked {
    /// How many there are.
    pub(super) targets: u64,
    /// Where the next one stands.
    pub(super) end: u64,
    /// Those that are missing, by their place in the batch.
    pub(super) missing: Vec<u64>,
    /// Those of which nobody knows.
    pub(super) unknown: BTreeMap<u64, StepError>,
}

/// Looks up the candidates from byte `offset` on.
pub(super) async fn batch(
    step: &Reconcile,
    cx: &Context,
    against: &Arc<dyn Collection>,
    candidates: &Artifact,
    offset: u64,
) -> Result<Looked, StepError> {
    let mut lines = cx.artifacts.lines_from(candidates, offset).await?;
    let (mut targets, mut end) = (Vec::new(), offset);
    while (targets.len() as u64) < step.batch_size {
        let Some((candidate, after)) = lines.next_json::<Candidate>().await? else { break };
        targets.push(candidate.target);
        end = after;
    }
    let mut looked =
        Looked { targets: targets.len() as u64, end, missing: Vec::new(), unknown: BTreeMap::new() };
    for (at, there) in (0..).zip(there(step, cx, against, targets).await?) {
        match there {
            Ok(true) => {}
            Ok(false) => looked.missing.push(at),
            Err(error) => {
                looked.unknown.insert(at, error);
            }
        }
    }
    Ok(looked)
}

/// Whether there is an item of each of these keys, in their order.
pub(super) async fn there(
    step: &Reconcile,
    cx: &Context,
    against: &Arc<dyn Collection>,
    targets: Vec<String>,
) -> Result<Vec<Result<bool, StepError>>, StepError> {
    let looks = stream::iter(targets).map(|target| {
        let against = Arc::clone(against);
        async move { patiently(|| against.exists(&target)).await }
    });
    let looks = looks.buffered(usize::try_from(step.concurrency.max(1)).unwrap_or(1)).collect::<Vec<_>>();
    let found = crash::around(
        "reconcile: looking up",
        cx.unless_abandoned(async { Ok::<_, StepError>(looks.await) }),
    )
    .await?;
    match found.iter().find_map(|one| one.as_ref().err().filter(|error| !is_of_the_item(error))) {
        Some(error) => Err(error.clone()),
        None => Ok(found),
    }
}

/// Whether an error is about what was looked up, and not about this program or its settings.
fn is_of_the_item(error: &StepError) -> bool {
    matches!(error.kind, ErrorKind::Refused | ErrorKind::Transient | ErrorKind::Timeout | ErrorKind::Gate)
}

/// A store that has lost its bucket says of each object that there is none: before that is believed, the collection is listed. Of kind gate
/// when nothing is in it, although `named` items of it are named.
pub(super) async fn is_there(against: &dyn Collection, named: u64) -> Result<(), StepError> {
    if named == 0 {
        return Ok(());
    }
    let mut after = None;
    loop {
        let page = patiently(|| against.keys(after.as_ref(), 1)).await?;
        match page.next {
            _ if !page.keys.is_empty() => return Ok(()),
            Some(next) => after = Some(next),
            None => break,
        }
    }
    Err(StepError::gate(format!("there is nothing in {}, and items of it are named", against.describe()))
        .with_help("an empty listing is not taken as a truth to act on: look at the bucket, the endpoint and the prefix"))
}

/// Of kind transient or gate when more stayed unknown than may.
pub(super) fn not_too_many<'e>(
    most: u64,
    unknown: u64,
    mut errors: impl Iterator<Item = &'e StepError>,
) -> Result<(), StepError> {
    let Some(first) = errors.next().filter(|_| unknown > most) else { return Ok(()) };
    let message = format!(
        "of {unknown} references it can not be told whether what they name is there, and max_unknown is {most}; one of them: {first}"
    );
    let lasting = std::iter::once(first).chain(errors).any(|error| !error.kind.retryable());
    let error = if lasting { StepError::gate(message) } else { StepError::transient(message) };
    Err(error.with_help("nothing was taken for missing because of it; look at the store and the rights of the key, then resume"))
}
