//! The cleanup job: attachments older than their time to live are deleted, oldest first.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    Gateway,
    events::Event,
    records::{BLOBS, METADATA, Metadata},
};

#[derive(Default)]
struct Sweep {
    scanned: u64,
    deleted: u64,
    skipped: u64,
}

/// Sweeps at every interval, for ever.
pub(super) async fn run(gateway: Arc<Gateway>) {
    loop {
        tokio::time::sleep(gateway.config.cleanup_interval.max(Duration::from_millis(10))).await;
        let mut sweep = Sweep::default();
        let outcome = sweep.run(&gateway).await;
        Event::new("attachmentCleanup", if outcome.is_ok() { "info" } else { "error" })
            .with("scanned", sweep.scanned)
            .with("deleted", sweep.deleted)
            .with("skipped", sweep.skipped)
            .with("ttlSeconds", gateway.config.attachment_ttl.as_secs())
            .with_some("message", outcome.err().map(|error| format!("{error:#}")))
            .emit();
    }
}

impl Sweep {
    /// Stops at the first fresh attachment, or after a batch of which nothing could be deleted: records that
    /// cannot be read stall the job when they sort first, as in the real gateway.
    async fn run(&mut self, gateway: &Gateway) -> anyhow::Result<()> {
        let ttl = SignedDuration::try_from(gateway.config.attachment_ttl)?;
        let limit = Timestamp::now().checked_sub(ttl)?;
        loop {
            let deleted_before = self.deleted;
            for document in gateway.store.oldest(METADATA, gateway.config.cleanup_batch).await? {
                self.scanned += 1;
                let Some((id, stored_at)) = decode(document) else {
                    self.skipped += 1;
                    continue;
                };
                if stored_at > limit {
                    return Ok(());
                }
                gateway.store.delete(BLOBS, &id).await?;
                gateway.store.delete(METADATA, &id).await?;
                self.deleted += 1;
            }
            if self.deleted == deleted_before {
                return Ok(());
            }
        }
    }
}

fn decode(document: Value) -> Option<(String, Timestamp)> {
    let metadata: Metadata = serde_json::from_value(document).ok()?;
    let stored_at = metadata.stored_at.parse().ok()?;
    Some((metadata.attachment_id, stored_at))
}
