//! Collections: typed sets of items in a system that can be counted, scanned, read, deleted in batches and put back. Step kinds
//! work on any of them.

pub mod files;
pub mod fountainstore_documents;
pub mod record_version;
pub mod redis_keys;
pub mod s3_objects;
pub mod sql_rows;

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use runbook_engine::error::StepError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One item of a collection.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its key, unique in the collection.
    pub key: String,
    /// The item as the system holds it, enough to put it back.
    pub record: Value,
    /// Its size in bytes, when the system says.
    pub bytes: Option<u64>,
    /// Which state of it this is; absent when the collection can not delete on the condition that it still is.
    pub version: Option<Version>,
}

/// Which state of an item was read, in the terms of the collection that read it: only that collection understands it, and finds by it
/// whether the item changed since.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub Value);

impl Version {
    /// That there is no item of the key: what a plan keeps of it in a collection that it is to be deleted from beside another.
    pub const ABSENT: Self = Self(Value::Null);

    /// Whether this says that there is no item.
    pub fn is_absent(&self) -> bool {
        *self == Self::ABSENT
    }
}

/// The version of an item in each collection that gave one, by the collection's name.
pub type Versions = BTreeMap<String, Version>;

/// A key to delete.
#[derive(Clone, Debug, PartialEq)]
pub struct Doomed {
    /// The key.
    pub key: String,
    /// What this collection must still find there; with none, whatever is there is deleted.
    pub expected: Option<Version>,
}

impl Doomed {
    /// The key, whatever is there.
    pub fn whatever(key: &str) -> Self {
        Self { key: key.to_owned(), expected: None }
    }
}

/// One page of a scan.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The items, in the collection's order.
    pub items: Vec<Item>,
    /// Where the next page begins; absent after the last one.
    pub next: Option<Value>,
    /// How many items the system says there are in all.
    pub total: Option<u64>,
    /// Whether the collection was seen to change since the scan began, so that items may be missing from it or stand in it twice:
    /// begin the scan again.
    pub moved: bool,
}

/// A key as a listing tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedKey {
    /// The key.
    pub key: String,
    /// The size of its item in bytes, when the system says.
    pub bytes: Option<u64>,
    /// When it was written, when the system says.
    pub modified_at: Option<Timestamp>,
}

/// One page of keys, without what their items hold.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyPage {
    /// The keys, in the collection's order.
    pub keys: Vec<ListedKey>,
    /// Where the next page begins; absent after the last one.
    pub next: Option<Value>,
    /// As [`Page::moved`].
    pub moved: bool,
}

/// How a text of another system names an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NamedBy {
    /// By a URL that leads to it.
    #[default]
    Url,
    /// By its key.
    Key,
}

/// What a field of an item is set to.
#[derive(Clone, Debug, PartialEq)]
pub enum NewValue {
    /// A value as an author writes it, or as a record of the collection holds it.
    Value(Value),
    /// The time at which it is set, by the clock of the system.
    Now,
}

/// A change of some fields of an item.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The item's key.
    pub key: String,
    /// What must still hold of it.
    pub expected: Expected,
    /// The fields that change.
    pub set: BTreeMap<String, NewValue>,
}

/// What must hold of an item that is to be changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// It is in the state that was read.
    Version(Version),
    /// These fields of it hold these values, as an author writes them.
    Fields(Map<String, Value>),
}

/// What became of one key of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyOutcome {
    /// It had the effect.
    Done,
    /// It needed none: the item was gone already.
    Already,
    /// It failed.
    Failed(StepError),
}

impl KeyOutcome {
    /// It was left alone because it is not what was expected: `how`, in words.
    pub fn changed(key: &str, how: &str) -> Self {
        Self::Failed(StepError::gate(format!(
            "`{key}` changed since the snapshot: {how}; it was not deleted"
        )))
    }

    /// It was not updated because it is not what was expected: `how`, in words. Of kind gate.
    pub fn not_updated(key: &str, how: &str) -> Self {
        Self::Failed(StepError::gate(format!(
            "`{key}` changed since it was looked at: {how}; it was left as it is"
        )))
    }
}

/// The bytes an item stands for, with what the item says of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The file name the item gives.
    pub name: Option<String>,
    /// The media type the item gives.
    pub mime_type: Option<String>,
    /// The SHA-256 the item gives, 64 lower-case hex digits.
    pub sha256: Option<String>,
    /// The size the item gives.
    pub size: Option<u64>,
}

/// How a collection makes sure that an item is still the version that was read when it deletes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// It looks right before it deletes, which costs nothing to speak of.
    Looks,
    /// It reads the item right before it deletes it: one more request for each. Done when a reviewed plan says which versions may go.
    Reads,
}

/// A set of items. Errors say whether they are transient; nothing here retries by itself.
#[async_trait]
pub trait Collection: Send + Sync {
    /// The collection in words, with its system, for people and for evidence. No secrets.
    fn describe(&self) -> String;

    /// What else goes or changes when an item is deleted, in words, in order.
    async fn follows(&self) -> Result<Vec<String>, StepError> {
        Ok(Vec::new())
    }

    /// The most keys one `delete` or `put` takes.
    fn max_batch(&self) -> usize;

    /// How it makes sure of the version.
    fn guard(&self) -> Guard;

    /// Whether an item may have the empty key. Where it may not, one would be the place of all items to some systems.
    fn may_be_empty(&self) -> bool {
        false
    }

    /// How many items there are now.
    async fn count(&self) -> Result<u64, StepError>;

    /// The page at `cursor` (the first one without), at most `limit` items, in the collection's order.
    async fn scan(&self, cursor: Option<&Value>, limit: usize) -> Result<Page, StepError>;

    /// The page of keys at `cursor`, like [`Collection::scan`], without reading what the items hold.
    async fn keys(&self, cursor: Option<&Value>, limit: usize) -> Result<KeyPage, StepError> {
        let Page { items, next, moved, .. } = self.scan(cursor, limit).await?;
        let listed = |Item { key, bytes, .. }| ListedKey { key, bytes, modified_at: None };
        Ok(KeyPage { keys: items.into_iter().map(listed).collect(), next, moved })
    }

    /// Whether there is an item of this key, without reading what it holds. False only when the system says that there is none.
    async fn exists(&self, key: &str) -> Result<bool, StepError> {
        Ok(self.read(key).await?.is_some())
    }

    /// The key of the item that a text of another system names, whether there is such an item or not; why it names none of this
    /// collection otherwise, as a lower-case fragment without what may be secret in a URL.
    fn resolve(&self, text: &str, by: NamedBy) -> Result<String, String> {
        match by {
            NamedBy::Key if text.is_empty() => Err("it is empty".to_owned()),
            NamedBy::Key => Ok(text.to_owned()),
            NamedBy::Url => Err(format!("no URL leads to {}", self.describe())),
        }
    }

    /// The item of this key, if there is one.
    async fn read(&self, key: &str) -> Result<Option<Item>, StepError>;

    /// The items whose fields equal these, in any order, at most `limit`.
    async fn find(&self, fields: &[(&str, &str)], limit: usize) -> Result<Vec<Item>, StepError>;

    /// The bytes the item stands for; an error when the collection has none.
    fn content(&self, item: &Item) -> Result<Content, StepError>;

    /// Deletes these keys; one outcome per key, in their order. An error as a whole means that none of them is known to have had
    /// the effect. An item that is not the expected version is left, as [`KeyOutcome::changed`]: asked in the same request where the
    /// system can be asked so, and right before it otherwise. A collection whose items have no version is never given one.
    async fn delete(&self, keys: &[Doomed]) -> Result<Vec<KeyOutcome>, StepError>;

    /// Sets fields of items; one outcome per change, in their order. [`KeyOutcome::Already`] when all of the fields hold what they would be
    /// set to, whatever the rest of the item is; otherwise an item that is not as expected is left, as [`KeyOutcome::not_updated`].
    async fn update(&self, changes: &[Change]) -> Result<Vec<KeyOutcome>, StepError> {
        let _ = changes;
        Err(StepError::invalid(format!("{} can not be updated", self.describe())))
    }

    /// Puts these items back; one outcome per item, in their order.
    async fn put(&self, items: &[Item]) -> Result<Vec<KeyOutcome>, StepError>;
}

/// The items whose fields equal these, found by looking at all of them; for collections whose system can not be asked.
async fn find_by_scan(
    collection: &dyn Collection,
    fields: &[(&str, &str)],
    limit: usize,
) -> Result<Vec<Item>, StepError> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = collection.scan(cursor.as_ref(), collection.max_batch()).await?;
        let equal = |item: &Item| {
            fields.iter().all(|(name, text)| match item.record.get(name) {
                Some(Value::String(held)) => held == text,
                Some(held) => serde_json::from_str(text).is_ok_and(|value: Value| value == *held),
                None => false,
            })
        };
        found.extend(page.items.into_iter().filter(equal));
        match page.next {
            Some(next) if found.len() < limit => cursor = Some(next),
            _ => break,
        }
    }
    found.truncate(limit);
    Ok(found)
}
