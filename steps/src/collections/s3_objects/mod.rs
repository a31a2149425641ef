//! Collection kind `s3-objects`: the objects of a bucket below a prefix.

mod delete;
mod list;
mod names;
mod object;
mod urls;

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{
    Collection, Content, Doomed, Guard, Item, KeyOutcome, KeyPage, ListedKey, NamedBy, Page, find_by_scan,
};
use crate::connections::s3::{Keeps, S3};
use crate::kind::CollectionKind;
use crate::resources::Resources;

use list::Listed;
use object::Name;
use urls::Places;

/// The objects of a bucket below a prefix. The key of an object is its key in the bucket. An object of a snapshot is deleted only while
/// it has the ETag that it had: the store is asked to make sure where it can, and it is looked at right before where it can not.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct S3ObjectsCollection {
    /// The name of a connection of type `s3`.
    pub connection: String,
    /// Only objects whose key begins so, and a delete takes no others. End it with `/` when it names a folder: `a/prod` holds `a/production/x` too.
    /// Default: every object of the bucket.
    #[serde(default)]
    pub prefix: String,
    /// Every version of every object and every delete marker, rather than what is current. A key is the object's, `@` and the id of the
    /// version then. Default: false, and a delete in a bucket with versions leaves a delete marker.
    #[serde(default)]
    pub versions: bool,
    /// Whether a snapshot holds what is in the objects. Without it the objects of a snapshot can be deleted, and not be put back.
    #[serde(default = "yes")]
    pub contents: bool,
    /// Further addresses at which the bucket's store is known, `http` or `https`: a URL that leads to the bucket there names an object of it.
    /// What the application tells its users, when that is not the `endpoint` of the connection. Default: none.
    #[serde(default)]
    pub public_endpoints: Vec<String>,
}

fn yes() -> bool {
    true
}

impl CollectionKind for S3ObjectsCollection {
    const NAME: &'static str = "s3-objects";
    const SUMMARY: &'static str = "The objects of an S3 bucket below a prefix";
    const MAX_BATCH: usize = MAX_BATCH;

    fn open(self, _: &str, resources: &Resources) -> Result<Arc<dyn Collection>, StepError> {
        let bucket = resources.connection::<S3>(&self.connection)?;
        let places = Places::new(&bucket, &self.public_endpoints)?;
        Ok(Arc::new(S3Objects { bucket, settings: self, places, conditional: OnceCell::new() }))
    }
}

struct S3Objects {
    bucket: Arc<S3>,
    settings: S3ObjectsCollection,
    places: Places,
    /// Whether the store refuses to delete what has another ETag, once that was tried.
    conditional: OnceCell<bool>,
}

/// The most keys of one request of S3: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html>.
const MAX_BATCH: usize = 1000;

/// How many requests for single objects are under way at a time.
const AT_A_TIME: usize = 16;

/// The largest object that a record can hold, in bytes.
const LARGEST: u64 = 256 * 1024 * 1024;

/// How many bytes of objects one page holds before it ends early.
const PAGE_BYTES: u64 = 64 * 1024 * 1024;

impl S3Objects {
    /// What the key of an item names; refused when it is not in this collection.
    fn name(&self, key: &str) -> Result<Name, StepError> {
        let name = Name::parse(key, self.settings.versions)?;
        if name.key.starts_with(&self.settings.prefix) {
            return Ok(name);
        }
        Err(StepError::refused(format!("`{key}` does not begin with `{}`", self.settings.prefix)))
    }

    /// The items of what was listed, in order; none of one that is gone or changed since.
    async fn items(&self, listed: Vec<Listed>) -> Result<Vec<Option<Item>>, StepError> {
        let items = stream::iter(listed).map(|one| async move {
            if !self.settings.contents || one.marker {
                return Ok(Some(one.item()));
            }
            let item = self.load(&one.name).await?;
            Ok::<_, StepError>(item.filter(|item| item.version == one.item().version))
        });
        items.buffered(AT_A_TIME).try_collect().await
    }

    async fn page(&self, cursor: Option<&Value>, limit: usize) -> Result<Page, StepError> {
        let limit = limit.clamp(1, MAX_BATCH);
        let mut listing = self.list(cursor, limit).await?;
        if self.settings.contents {
            let mut bytes = 0;
            let fits = listing.objects.iter().take_while(|one| {
                bytes += one.bytes;
                bytes <= PAGE_BYTES
            });
            let fits = fits.count().max(1);
            if fits < listing.objects.len() {
                // The store says where to go on only after what it listed.
                listing = self.list(cursor, fits).await?;
            }
        }
        let items = self.items(listing.objects).await?;
        let moved = items.iter().any(Option::is_none);
        Ok(Page { items: items.into_iter().flatten().collect(), next: listing.next, total: None, moved })
    }
}

#[async_trait]
impl Collection for S3Objects {
    fn describe(&self) -> String {
        let what = if self.settings.versions { "versions" } else { "objects" };
        match self.settings.prefix.as_str() {
            "" => format!("{what} of {}", self.bucket.describe()),
            prefix => format!("{what} below {prefix} of {}", self.bucket.describe()),
        }
    }

    async fn follows(&self) -> Result<Vec<String>, StepError> {
        let keeps = if self.settings.versions { Keeps::Nothing } else { self.bucket.keeps().await? };
        Ok(keeps.words("delete").into_iter().collect())
    }

    fn guard(&self) -> Guard {
        Guard::Looks
    }

    fn max_batch(&self) -> usize {
        MAX_BATCH
    }

    async fn count(&self) -> Result<u64, StepError> {
        let (mut count, mut cursor) = (0, None);
        loop {
            let listing = self.list(cursor.as_ref(), MAX_BATCH).await?;
            count += listing.objects.len() as u64;
            match listing.next {
                Some(next) => cursor = Some(next),
                None => return Ok(count),
            }
        }
    }

    async fn scan(&self, cursor: Option<&Value>, limit: usize) -> Result<Page, StepError> {
        self.page(cursor, limit).await
    }

    async fn keys(&self, cursor: Option<&Value>, limit: usize) -> Result<KeyPage, StepError> {
        let listing = self.list(cursor, limit.clamp(1, MAX_BATCH)).await?;
        let listed = |one: Listed| ListedKey {
            key: one.name.to_string(),
            bytes: Some(one.bytes),
            modified_at: one.modified_at.and_then(|at| at.parse().ok()),
        };
        let keys = listing.objects.into_iter().map(listed).collect();
        Ok(KeyPage { keys, next: listing.next, moved: false })
    }

    async fn exists(&self, key: &str) -> Result<bool, StepError> {
        Ok(self.look(&self.name(key)?).await?.is_some())
    }

    fn resolve(&self, text: &str, by: NamedBy) -> Result<String, String> {
        let key = match by {
            NamedBy::Url => self.places.key(text)?,
            NamedBy::Key if text.is_empty() => return Err("it is empty".to_owned()),
            NamedBy::Key => text.to_owned(),
        };
        match self.settings.prefix.as_str() {
            _ if self.settings.versions => {
                Err("it names an object, and the collection is of versions".to_owned())
            }
            prefix if key.starts_with(prefix) => Ok(key),
            prefix => Err(format!("it is not below {prefix}")),
        }
    }

    async fn read(&self, key: &str) -> Result<Option<Item>, StepError> {
        let name = self.name(key)?;
        if self.settings.contents { self.load(&name).await } else { self.look(&name).await }
    }

    async fn find(&self, fields: &[(&str, &str)], limit: usize) -> Result<Vec<Item>, StepError> {
        find_by_scan(self, fields, limit).await
    }

    fn content(&self, item: &Item) -> Result<Content, StepError> {
        let bytes = item
            .record
            .get("content")
            .and_then(Value::as_str)
            .and_then(|text| STANDARD.decode(text).ok())
            .ok_or_else(|| {
                StepError::gate(format!("the record of `{}` holds no content", item.key))
                    .with_help("set `contents: true` on the collection, and take the snapshot again")
            })?;
        let text = |name: &str| item.record.get(name).and_then(Value::as_str).map(str::to_owned);
        let name = text("key").and_then(|key| key.rsplit('/').next().map(str::to_owned));
        let size = item.record.get("bytes").and_then(Value::as_u64);
        Ok(Content { bytes, name, mime_type: text("content_type"), sha256: None, size })
    }

    async fn delete(&self, keys: &[Doomed]) -> Result<Vec<KeyOutcome>, StepError> {
        self.delete_all(keys).await
    }

    async fn put(&self, items: &[Item]) -> Result<Vec<KeyOutcome>, StepError> {
        let outcomes = stream::iter(items.to_vec())
            .map(|item| async move { self.restore(&item).await.unwrap_or_else(KeyOutcome::Failed) });
        Ok(outcomes.buffered(AT_A_TIME).collect().await)
    }
}

/// The part of a record that a listing tells as well.
fn record_of(name: &Name, bytes: u64, etag: &str, modified_at: Option<&str>) -> Value {
    let mut record = json!({ "key": name.key, "bytes": bytes, "etag": etag, "modified_at": modified_at });
    if let Some(version) = &name.version {
        record["version_id"] = json!(version);
    }
    record
}
