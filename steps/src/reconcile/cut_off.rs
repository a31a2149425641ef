//! What became of a batch of changes that a cancel cut off. Nothing more is changed then: the collection is asked what has happened.

use runbook_engine::error::StepError;
use runbook_engine::step::Settlement;

use super::Reconcile;
use super::change::{change, only_told};
use super::changing::{batch, earlier};
use super::record::{At, Came, decode, encode};
use crate::collections::KeyOutcome;
use crate::had;
use crate::kind::Context;

/// Records what became of the batches of which it is not known.
pub(super) async fn settle(step: &Reconcile, cx: &Context) -> Result<(), StepError> {
    let view = cx.ledger.view().await?;
    for open in view.unsettled {
        // The others only read.
        let At::Change { findings, offset, .. } = decode(&open.what)? else { continue };
        let unknown = |error| had::not_looked("its last batch", error);
        let items = cx.resources.collection(&step.collection).map_err(unknown)?;
        let (some, _) = batch(step, cx, &earlier(cx, &findings).await?, offset).await?;
        let told = |finding| change(step.action, &step.collection, finding).map(only_told);
        let changes = some.iter().map(told).collect::<Result<Vec<_>, _>>()?;
        let changed = match changes.is_empty() {
            true => Vec::new(),
            false => items.update(&changes).await.map_err(unknown)?,
        };
        let changed: Vec<bool> = changed.iter().map(|one| !matches!(one, KeyOutcome::Failed(_))).collect();
        let done = changed.iter().filter(|one| **one).count() as u64;
        cx.live.say(&format!(
            "batch {} was cut off: {done} of its {} items are changed",
            open.number,
            some.len()
        ));
        let (cursor, outcome) = (view.cursor.clone().unwrap_or_default(), encode(&Came::CutOff(changed))?);
        // What is left was not tried and failed: it counts for no limit.
        cx.ledger.settle(open.number, Settlement { cursor, outcome, done, ..Settlement::default() }).await?;
    }
    Ok(())
}
