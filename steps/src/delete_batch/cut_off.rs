//! What became of a batch that a cancel cut off. Nothing more is deleted then: the collections are asked what is there.

use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::step::Settlement;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::record::{Became, Intended, decode, encode};
use super::{DeleteBatch, work};
use crate::collections::{Collection, KeyOutcome};
use crate::kind::Context;

/// How many keys are asked for at a time.
const AT_A_TIME: usize = 16;

/// Records what became of the batches of which it is not known. What is there still was not deleted when it was looked at.
pub(super) async fn settle(step: &DeleteBatch, cx: &Context) -> Result<(), StepError> {
    let open = cx.ledger.view().await?;
    for batch in open.unsettled {
        let unknown = |error: StepError| StepError {
            message: format!(
                "whether its last batch, of {} keys, was deleted is not known: {}",
                batch.items, error.message
            ),
            kind: ErrorKind::Transient,
            ..error
        };
        let collections = work::collections(step, cx).map_err(unknown)?;
        let intended: Intended = decode(&batch.what)?;
        let mut became = Became::of(&intended);
        for (at, collection) in collections.iter().enumerate() {
            let keys = became.open(at);
            let outcomes = looked(&**collection, &keys).await.map_err(unknown)?;
            became.add(at, &keys, outcomes, true);
        }
        let (done, already, failed) = became.sums();
        cx.live.say(&format!(
            "batch {} was cut off: of its {} keys {failed} are there still",
            batch.number, batch.items
        ));
        let cursor = open.cursor.clone().unwrap_or_default();
        let settlement = Settlement { cursor, outcome: encode(&became)?, done, already, failed };
        cx.ledger.settle(batch.number, settlement).await?;
    }
    Ok(())
}

async fn looked(collection: &dyn Collection, keys: &[String]) -> Result<Vec<KeyOutcome>, StepError> {
    let look = |key: String| async move {
        let is_there = collection.exists(&key).await?;
        let stays = || StepError::refused(format!("`{key}` is there still: the run was cancelled"));
        Ok(if is_there { KeyOutcome::Failed(stays()) } else { KeyOutcome::Already })
    };
    stream::iter(keys.to_vec()).map(look).buffered(AT_A_TIME).try_collect().await
}
