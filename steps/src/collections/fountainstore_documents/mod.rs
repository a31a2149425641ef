//! Collection kind `fountainstore-documents`: the documents of one collection of a corpus in a FountainStore.

mod batch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, StepError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::batch::{Failure, batch};
use super::record_version::record_version;
use super::{Collection, Content, Doomed, Guard, Item, KeyOutcome, Page};
use crate::connections::fountainstore::FountainStore;
use crate::connections::http::{check_status, read_json, segment, transport_error};
use crate::kind::CollectionKind;
use crate::resources::Resources;
use crate::retry::patiently;

/// The documents of one collection of a corpus in a FountainStore.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FountainStoreDocuments {
    /// The name of a connection of type `fountainstore`.
    pub connection: String,
    /// The corpus.
    pub corpus: String,
    /// The collection in the corpus.
    pub collection: String,
    /// The field that holds a document's id.
    pub key: String,
    /// The field whose text orders the documents, ascending. Default: `key`.
    #[serde(default)]
    pub order_by: Option<String>,
    /// Only documents whose fields equal these texts. Default: all documents. With it, a delete still takes any key it is given.
    #[serde(default)]
    pub filters: BTreeMap<String, String>,
    /// Where a document holds the bytes it stands for, and what it says of them. Without it, the documents have no content.
    #[serde(default)]
    pub content: Option<ContentFields>,
}

/// Which fields of a document hold its bytes and what is said of them.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContentFields {
    /// The field that holds the bytes.
    pub field: String,
    /// How the field holds them. Default `base64`.
    #[serde(default)]
    pub encoding: Encoding,
    /// The field that holds the SHA-256 of the bytes, hexadecimal.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The field that holds their number.
    #[serde(default)]
    pub size: Option<String>,
    /// The field that holds the file name.
    #[serde(default)]
    pub name: Option<String>,
    /// The field that holds the media type.
    #[serde(default)]
    pub mime_type: Option<String>,
}

/// How a text field holds bytes.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Base64 with padding.
    #[default]
    Base64,
    /// The text itself, as UTF-8.
    Text,
}

impl CollectionKind for FountainStoreDocuments {
    const NAME: &'static str = "fountainstore-documents";
    const SUMMARY: &'static str = "The documents of one collection of a corpus in a FountainStore";
    const MAX_BATCH: usize = MAX_BATCH;

    fn open(self, _: &str, resources: &Resources) -> Result<Arc<dyn Collection>, StepError> {
        let store = resources.connection::<FountainStore>(&self.connection)?;
        for (what, text) in [("corpus", &self.corpus), ("collection", &self.collection), ("key", &self.key)] {
            if text.is_empty() || matches!(text.as_str(), "." | "..") {
                return Err(StepError::invalid(format!("`{what}` is {text:?}")));
            }
        }
        let place = format!("/corpora/{}/collections/{}", segment(&self.corpus), segment(&self.collection));
        Ok(Arc::new(Documents { settings: self, store, place }))
    }
}

struct Documents {
    settings: FountainStoreDocuments,
    store: Arc<FountainStore>,
    place: String,
}

/// The most keys of one batch; what the store's own clean-up takes at once.
const MAX_BATCH: usize = 100;

/// The longest answer to a query that is held in memory, in bytes.
const LONGEST_ANSWER: usize = 512 * 1024 * 1024;

/// The longest answer to a change, in bytes.
const SHORT_ANSWER: usize = 1024 * 1024;

/// Where a scan goes on.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    /// How many documents came before.
    offset: u64,
    /// The key of the last of them.
    last: String,
    /// How many there were in all when the scan began.
    total: u64,
}

#[derive(Deserialize)]
struct Found {
    total: u64,
    documents: Vec<Value>,
}

#[derive(Deserialize)]
struct Deleted {
    deleted: bool,
}

impl Documents {
    fn name(&self) -> String {
        format!("{}/{}", self.settings.corpus, self.settings.collection)
    }

    fn doc(&self, key: &str) -> Result<String, StepError> {
        if key.is_empty() {
            return Err(StepError::invalid("a key is empty"));
        }
        Ok(format!("{}/docs/{}", self.place, segment(key)))
    }

    fn item(&self, record: Value) -> Result<Item, StepError> {
        let field = &self.settings.key;
        let key = match record.get(field) {
            Some(Value::String(key)) if !key.is_empty() => key.clone(),
            _ => {
                return Err(StepError::gate(format!(
                    "{} holds a document without a text under `{field}`",
                    self.name()
                ))
                .with_help(
                    "look at the document: nothing can be known of a set with a record that has no key",
                ));
            }
        };
        let size = self.settings.content.as_ref().and_then(|content| content.size.as_ref());
        let bytes = size.and_then(|field| record.get(field)).and_then(Value::as_u64);
        let version = Some(record_version(&record));
        Ok(Item { key, record, bytes, version })
    }

    async fn query(
        &self,
        filters: &BTreeMap<&str, &str>,
        offset: u64,
        limit: u64,
    ) -> Result<Found, StepError> {
        self.store
            .need(if filters.is_empty() { &["query.sort"] } else { &["query.sort", "query.filters"] })
            .await?;
        let sort = self.settings.order_by.as_ref().unwrap_or(&self.settings.key);
        let body = json!({
            "filters": filters,
            "sort": [{ "field": sort, "ascending": true }],
            "limit": limit,
            "offset": offset,
        });
        let what = format!("querying {}", self.name());
        let request = self.store.http().request(Method::POST, &format!("{}/query", self.place))?.json(&body);
        let response = self.store.send(&what, request).await?;
        read_json(&what, response, LONGEST_ANSWER).await
    }

    fn filters(&self) -> BTreeMap<&str, &str> {
        self.settings.filters.iter().map(|(field, text)| (field.as_str(), text.as_str())).collect()
    }

    async fn page(&self, at: Option<&Cursor>, limit: u64) -> Result<Page, StepError> {
        let limit = limit.max(1);
        // Offsets shift when a document before them goes away. So each page begins with the last document of the page before: when
        // it is another one now, the pages do not fit together.
        let (offset, overlap) = at.map_or((0, 0), |at| (at.offset.saturating_sub(1), 1));
        let found = self.query(&self.filters(), offset, limit + overlap).await?;
        let asked = found.documents.len() as u64;
        if asked > limit + overlap {
            return Err(StepError::refused(format!(
                "{} gave more documents than were asked for",
                self.name()
            )));
        }
        let mut items =
            found.documents.into_iter().map(|record| self.item(record)).collect::<Result<Vec<_>, _>>()?;
        let mut moved = false;
        if let Some(at) = at {
            moved = found.total != at.total || items.first().is_none_or(|first| first.key != at.last);
            if !items.is_empty() {
                items.remove(0);
            }
        }
        let end = offset + asked;
        // An offset past the end is taken back to the last document, so an empty page is no end; and a page that brings nothing
        // although there should be more means that documents went away.
        moved |= items.is_empty() && end < found.total;
        let next = match items.last() {
            Some(last) if end < found.total && !moved => {
                let cursor = Cursor { offset: end, last: last.key.clone(), total: found.total };
                Some(serde_json::to_value(cursor).map_err(|error| StepError::invalid(error.to_string()))?)
            }
            _ => None,
        };
        Ok(Page { items, next, total: Some(found.total), moved })
    }

    /// Sends one request of a batch. Repeated when it fails transiently: both requests, DELETE and PUT, may be.
    async fn change(
        &self,
        what: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let reached = AtomicBool::new(false);
        let lasting = AtomicBool::new(false);
        let end = patiently(async || {
            let mut request = self.store.http().request(method.clone(), path)?;
            if let Some(body) = body {
                request = request.json(body);
            }
            let response = crash::around("document", request.send()).await;
            let response = response.map_err(|error| transport_error(what, error))?;
            reached.store(true, Ordering::Relaxed);
            let general = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::NOT_IMPLEMENTED];
            lasting.store(general.contains(&response.status()), Ordering::Relaxed);
            let response = check_status(what, response).await?;
            read_json(what, response, SHORT_ANSWER).await
        });
        end.await.map_err(|error| {
            if lasting.load(Ordering::Relaxed) {
                Failure::Batch(error)
            } else if !reached.load(Ordering::Relaxed) && error.kind == ErrorKind::Transient {
                Failure::Unreachable(error)
            } else {
                Failure::Key(error)
            }
        })
    }

    /// The store has no delete that is bound to a condition, so that what is expected is read right before.
    async fn delete_one(&self, Doomed { key, expected }: &Doomed) -> Result<KeyOutcome, Failure> {
        if let Some(expected) = expected {
            match self.read(key).await.map_err(Failure::Key)? {
                None => return Ok(KeyOutcome::Already),
                Some(item) if item.version.as_ref() != Some(expected) => {
                    return Ok(KeyOutcome::changed(key, "the document is another one"));
                }
                Some(_) => {}
            }
        }
        let path = self.doc(key).map_err(Failure::Key)?;
        let what = format!("deleting `{key}` from {}", self.name());
        let answer = self.change(&what, Method::DELETE, &path, None).await?;
        let Deleted { deleted } = serde_json::from_value(answer).map_err(|_| {
            Failure::Key(
                StepError::refused(format!("{what}: the answer does not say whether it was deleted"))
                    .unknown(),
            )
        })?;
        Ok(if deleted { KeyOutcome::Done } else { KeyOutcome::Already })
    }

    async fn put_one(&self, item: &Item) -> Result<KeyOutcome, Failure> {
        let path = self.doc(&item.key).map_err(Failure::Key)?;
        let what = format!("putting `{}` into {}", item.key, self.name());
        self.change(&what, Method::PUT, &path, Some(&item.record)).await?;
        Ok(KeyOutcome::Done)
    }
}

#[async_trait]
impl Collection for Documents {
    fn describe(&self) -> String {
        let filters: Vec<_> =
            self.settings.filters.iter().map(|(field, text)| format!("{field}={text}")).collect();
        let filters =
            if filters.is_empty() { String::new() } else { format!(" where {}", filters.join(", ")) };
        format!("documents of {} at {}{filters}", self.name(), self.store.describe())
    }

    fn guard(&self) -> Guard {
        Guard::Reads
    }

    fn max_batch(&self) -> usize {
        MAX_BATCH
    }

    async fn count(&self) -> Result<u64, StepError> {
        // One document is asked for, because a store may understand a limit of 0 as none.
        Ok(patiently(|| async { self.query(&self.filters(), 0, 1).await }).await?.total)
    }

    async fn scan(&self, cursor: Option<&Value>, limit: usize) -> Result<Page, StepError> {
        let at: Option<Cursor> =
            cursor.map(|cursor| serde_json::from_value(cursor.clone())).transpose().map_err(|error| {
                StepError::invalid(format!("the place in {} is unreadable: {error}", self.name()))
            })?;
        patiently(|| self.page(at.as_ref(), limit as u64)).await
    }

    async fn read(&self, key: &str) -> Result<Option<Item>, StepError> {
        self.store.need(&["documents.get"]).await?;
        let path = self.doc(key)?;
        let what = format!("reading `{key}` from {}", self.name());
        let record: Option<Value> = patiently(async || {
            let request = self.store.http().request(Method::GET, &path)?;
            let response = request.send().await.map_err(|error| transport_error(&what, error))?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let response = check_status(&what, response).await?;
            read_json(&what, response, LONGEST_ANSWER).await.map(Some)
        })
        .await?;
        let Some(record) = record else { return Ok(None) };
        let item = self.item(record)?;
        if item.key == key {
            return Ok(Some(item));
        }
        Err(StepError::gate(format!("{} has `{}` where `{key}` was asked for", self.name(), item.key)))
    }

    async fn find(&self, fields: &[(&str, &str)], limit: usize) -> Result<Vec<Item>, StepError> {
        let mut filters = self.filters();
        for (field, text) in fields {
            if filters.insert(field, text).is_some_and(|other| other != *text) {
                return Ok(Vec::new());
            }
        }
        let found = patiently(|| self.query(&filters, 0, limit as u64)).await?;
        found.documents.into_iter().take(limit).map(|record| self.item(record)).collect()
    }

    fn content(&self, item: &Item) -> Result<Content, StepError> {
        let Some(fields) = &self.settings.content else {
            return Err(StepError::invalid(format!("{} has no `content` setting", self.name())));
        };
        let text = |field: &Option<String>| {
            field.as_ref().and_then(|field| item.record.get(field)).and_then(Value::as_str).map(str::to_owned)
        };
        let broken = |why: &str| StepError::gate(format!("`{}` of {} {why}", item.key, self.name()));
        let held = item
            .record
            .get(&fields.field)
            .and_then(Value::as_str)
            .ok_or_else(|| broken(&format!("has no text under `{}`", fields.field)))?;
        let bytes = match fields.encoding {
            Encoding::Base64 => STANDARD
                .decode(held)
                .map_err(|_| broken(&format!("holds no valid base64 under `{}`", fields.field)))?,
            Encoding::Text => held.as_bytes().to_vec(),
        };
        Ok(Content {
            bytes,
            name: text(&fields.name),
            mime_type: text(&fields.mime_type),
            sha256: text(&fields.sha256).map(|text| text.to_ascii_lowercase()),
            size: fields.size.as_ref().and_then(|field| item.record.get(field)).and_then(Value::as_u64),
        })
    }

    async fn delete(&self, keys: &[Doomed]) -> Result<Vec<KeyOutcome>, StepError> {
        self.store.need(&["documents.delete"]).await?;
        batch(keys, |at| self.delete_one(&keys[at])).await
    }

    async fn put(&self, items: &[Item]) -> Result<Vec<KeyOutcome>, StepError> {
        self.store.need(&["documents.upsert"]).await?;
        batch(items, |at| self.put_one(&items[at])).await
    }
}
