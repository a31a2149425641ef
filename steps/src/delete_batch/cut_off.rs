//! What became of a batch that a cancel cut off. Nothing more is deleted then: the collections are asked what is there.

use runbook_engine::error::StepError;
use runbook_engine::step::Settlement;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::record::{Became, Intended, decode, encode};
use super::{DeleteBatch, work};
use crate::collections::{Collection, Doomed, KeyOutcome, Version};
use crate::had;
use crate::kind::Context;

/// How many keys are asked for at a time.
const AT_A_TIME: usize = 16;

/// Records what became of the batches of which it is not known. What is there still was not deleted when it was looked at.
pub(super) async fn settle(step: &DeleteBatch, cx: &Context) -> Result<(), StepError> {
    let open = cx.ledger.view().await?;
    for batch in open.unsettled {
        let items = batch.items;
        let unknown = |error| had::not_looked(&format!("its last batch, of {items} keys,"), error);
        let collections = work::collections(step, cx).map_err(unknown)?;
        let intended: Intended = decode(&batch.what)?;
        let mut became = Became::of(&intended);
        for (at, collection) in collections.iter().enumerate() {
            let keys = became.open(at);
            let doomed = intended.doomed(&keys, &step.collections.0[at]);
            let outcomes = looked(&**collection, doomed).await.map_err(unknown)?;
            became.add(at, &keys, outcomes, true);
        }
        let (done, already, failed) = became.sums();
        cx.live.say(&format!(
            "batch {} was cut off: of its {} keys {failed} are there still",
            batch.number, batch.items
        ));
        let cursor = open.cursor.clone().unwrap_or_default();
        // What is left was not tried and failed: it counts for no limit.
        let settlement = Settlement { cursor, outcome: encode(&became)?, done, already, failed: 0 };
        cx.ledger.settle(batch.number, settlement).await?;
    }
    Ok(())
}

/// What is there of each key. One of which that can not be said for good, such as one that may not be read, has its own outcome.
async fn looked(collection: &dyn Collection, keys: Vec<Doomed>) -> Result<Vec<KeyOutcome>, StepError> {
    let look = |Doomed { key, expected }: Doomed| async move {
        // Such a key is not deleted, whatever is there now.
        if expected.as_ref().is_some_and(Version::is_absent) {
            return Ok(KeyOutcome::Already);
        }
        match collection.exists(&key).await {
            Ok(false) => Ok(KeyOutcome::Already),
            Ok(true) => Ok(KeyOutcome::Failed(StepError::refused(format!(
                "`{key}` was there still when it was looked at after the cancel"
            )))),
            Err(error) if error.kind.retryable() => Err(error),
            Err(mut error) => {
                error.message = format!("whether `{key}` was deleted is not known: {}", error.message);
                Ok(KeyOutcome::Failed(error))
            }
        }
    };
    stream::iter(keys).map(look).buffered(AT_A_TIME).try_collect().await
}
