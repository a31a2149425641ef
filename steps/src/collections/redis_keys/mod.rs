//! Collection kind `redis-keys`: the keys of a Redis database whose names fit a pattern.

mod glob;
mod keys;
mod list;
mod name;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Collection, Content, Doomed, Guard, Item, KeyOutcome, Page, find_by_scan};
use crate::connections::redis::Redis;
use crate::kind::CollectionKind;
use crate::resources::Resources;

use glob::Glob;
use list::Listing;

/// The keys of a Redis database whose names fit a pattern. A key of a snapshot is deleted only while it is of the type, has the value and expires at the
/// time that it had, which the server looks at and acts on at once; when a single field of a hash expires is not looked at. A record holds the key
/// as the server dumps it, and puts it back with its expiry, where no key is. A name that is no UTF-8 is written with `\xff` for such a byte and `\\` for a backslash.
///
/// Redis lists keys in no order, some of them twice, and an unfinished listing is worth nothing after a restart of the server. So a scan lists the names first, which
/// are held in memory, and reads the keys in the order of their names: each once, from any place on. A key that went before it was read, and not because it
/// expired, may have been renamed; the scan is begun again then.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisKeysCollection {
    /// The name of a connection of type `redis`.
    pub connection: String,
    /// Which keys: a pattern of Redis (`*`, `?`, `[abc]`, `[^a-z]`, `\` before what is meant as it stands), and a delete takes no others. Default: `*`, every key of the database.
    #[serde(default = "every_key")]
    #[schemars(length(min = 1))]
    pub pattern: String,
}

fn every_key() -> String {
    "*".to_owned()
}

impl CollectionKind for RedisKeysCollection {
    const NAME: &'static str = "redis-keys";
    const SUMMARY: &'static str = "The keys of a Redis database whose names fit a pattern";
    const MAX_BATCH: usize = MAX_BATCH;

    fn open(self, _: &str, resources: &Resources) -> Result<Arc<dyn Collection>, StepError> {
        let redis = resources.connection::<Redis>(&self.connection)?;
        let glob = Glob::parse(&self.pattern);
        Ok(Arc::new(RedisKeys { redis, pattern: self.pattern, glob, listing: Mutex::new(None) }))
    }
}

struct RedisKeys {
    redis: Arc<Redis>,
    pattern: String,
    glob: Glob,
    /// What the scan under way has listed.
    listing: Mutex<Option<Arc<Listing>>>,
}

/// The most keys that one call deletes or puts back: a server does nothing else meanwhile.
const MAX_BATCH: usize = 1000;

impl RedisKeys {
    /// The name that the key of an item stands for; refused when it is not in this collection.
    fn name(&self, key: &str) -> Result<Vec<u8>, StepError> {
        let name = name::read(key)?;
        if self.glob.matches(&name) {
            return Ok(name);
        }
        Err(StepError::refused(format!("`{key}` does not fit the pattern `{}`", self.pattern)))
    }
}

#[async_trait]
impl Collection for RedisKeys {
    fn describe(&self) -> String {
        format!("keys {} of {}", self.pattern, self.redis.describe())
    }

    fn guard(&self) -> Guard {
        Guard::Looks
    }

    fn may_be_empty(&self) -> bool {
        true
    }

    fn max_batch(&self) -> usize {
        MAX_BATCH
    }

    async fn count(&self) -> Result<u64, StepError> {
        self.count_names().await
    }

    async fn scan(&self, cursor: Option<&Value>, limit: usize) -> Result<Page, StepError> {
        self.page(cursor, limit.max(1)).await
    }

    async fn read(&self, key: &str) -> Result<Option<Item>, StepError> {
        let name = self.name(key)?;
        let mut read = self.read_all(&[name]).await?;
        Ok(read.pop().flatten())
    }

    async fn find(&self, fields: &[(&str, &str)], limit: usize) -> Result<Vec<Item>, StepError> {
        find_by_scan(self, fields, limit).await
    }

    fn content(&self, item: &Item) -> Result<Content, StepError> {
        Err(StepError::refused(format!(
            "the key `{}` stands for no file: it has no content to export",
            item.key
        )))
    }

    async fn delete(&self, keys: &[Doomed]) -> Result<Vec<KeyOutcome>, StepError> {
        self.delete_all(keys).await
    }

    async fn put(&self, items: &[Item]) -> Result<Vec<KeyOutcome>, StepError> {
        self.put_all(items).await
    }
}
