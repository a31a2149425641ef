//! Step kind `snapshot`: writes every item of a collection into an artifact, and its contents into a directory.

mod export;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use runbook_engine::artifact::{Artifact, ArtifactWriter};
use runbook_engine::error::StepError;
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use runbook_engine::step::Progress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::export::{Export, Exporter};
use crate::collections::{Collection, Item, Versions};
use crate::key_difference::difference;
use crate::kind::{Context, End, Step, read_now};

/// Writes every item of a collection, in its order, into an artifact with one JSON object a line: `{"key", "bytes", "version_in",
/// "record"}`; `version_in`, in collections that have it, is what `delete-batch` must find there still. The
/// collection is read a page at a time, so it may be of any size. When it changes meanwhile, reading begins again, three times in all.
/// A snapshot that is not complete is no snapshot: the step fails. So it does when a record holds a secret of the runbook, because it
/// could be kept neither exactly nor safely.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The collection.
    pub collection: String,
    /// The most items read at once, 1 to 1000. Fewer are read while items are large. Default 200.
    #[serde(default = "default_page_size")]
    #[schemars(range(min = 1, max = 1000))]
    pub page_size: u64,
    /// Only the items with these keys, in this order. A key that is missing fails the step, naming all that are missing. Default: all
    /// items.
    #[serde(default)]
    pub only: Option<Vec<String>>,
    /// The manifest of another snapshot: which keys stand in one of the two only is written into `only_here` and `only_there`.
    #[serde(default)]
    pub compare_with: Option<Artifact>,
    /// Also writes the content of each item into a directory, as a file named by its key, and reads it back from the disk to prove it.
    #[serde(default)]
    pub export: Option<Export>,
    /// How many items there must be. Default: any number, zero included.
    #[serde(default)]
    pub expect_count: Option<u64>,
}

fn default_page_size() -> u64 {
    200
}

/// What a snapshot found.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Outputs {
    /// The collection in words.
    pub collection: String,
    /// How many items there are.
    pub count: u64,
    /// Their size in bytes: as the system gives it, and the size of the record as JSON where it gives none.
    pub bytes: u64,
    /// The items, one a line.
    pub manifest: Artifact,
    /// How many contents were written into the directory.
    pub exported: u64,
    /// What was written there, one line a file: `{"key", "name", "mime_type", "path", "bytes", "sha256"}`. Null without `export`.
    pub export_manifest: Option<Artifact>,
    /// The keys that `compare_with` does not have. Null without `compare_with`.
    pub only_here: Option<KeySet>,
    /// The keys that only `compare_with` has. Null without `compare_with`.
    pub only_there: Option<KeySet>,
    /// When reading began, RFC 3339.
    pub taken_at: String,
}

/// A set of keys.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct KeySet {
    /// How many.
    pub count: u64,
    /// The keys, one line `{"key", "version_in"}` each.
    pub manifest: Artifact,
}

impl From<Artifact> for KeySet {
    fn from(manifest: Artifact) -> Self {
        Self { count: manifest.lines.unwrap_or(0), manifest }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Versions::is_empty")]
    version_in: Versions,
    record: &'a Value,
}

/// The version of an item, by the name of its collection.
fn version_in(collection: &str, item: &Item) -> Versions {
    item.version.iter().map(|version| (collection.to_owned(), version.clone())).collect()
}

/// How often a scan begins when the collection changes under it.
const SCANS: u32 = 3;

/// How many items the first page asks for, when nothing is known of their size.
const FIRST_PAGE: u64 = 20;

/// About how many bytes of records a page is to hold.
const PAGE_BYTES: u64 = 8 * 1024 * 1024;

/// How many keys of `only` are read at once.
const READS: usize = 4;

/// How many keys an error names.
const NAMED: usize = 50;

#[async_trait]
impl Step for Snapshot {
    const NAME: &'static str = "snapshot";
    const SPEED_FIELDS: &'static [&'static str] = &["/page_size"];
    const FLEETING_OUTPUTS: &'static [&'static str] = &["/taken_at"];
    const SUMMARY: &'static str =
        "Writes every item of a collection into an artifact, and its contents into a directory";
    const EXAMPLE: &'static str = "\
id: snapshot_metadata
uses: snapshot
with:
  collection: metadata
";
    type Outputs = Outputs;

    fn effect(with: &Value) -> Effect {
        match with.get("export") {
            None | Some(Value::Null) => Effect::READ,
            Some(_) => Effect::WRITE,
        }
    }

    async fn foresee(self, _: Effect, cx: &Context) -> Result<Foresight, StepError> {
        let exports_to = self.export.as_ref().map(|export| export.connection.clone());
        let folder = self.export.as_ref().and_then(|export| export.folder.clone());
        let mut seen = read_now(Self { export: None, ..self }, cx).await?;
        if let (Some(directory), Some(Value::Object(outputs))) = (exports_to, &mut seen.outputs) {
            seen.changes = Some(vec![directory.clone()]);
            outputs.remove("export_manifest");
            outputs.remove("exported");
            let folder = folder.map_or_else(String::new, |folder| format!(" below {folder}"));
            let does = format!("export the contents of the items{folder} to `{directory}`");
            (seen.done, seen.does) = (false, does);
        }
        Ok(seen)
    }

    async fn run(self, cx: &Context) -> Result<End<Outputs>, StepError> {
        let collection = cx.resources.collection(&self.collection)?;
        let taken = self.take(cx, &collection).await?;
        if let Some(expected) = self.expect_count.filter(|expected| *expected != taken.count) {
            return Err(StepError::gate(format!(
                "{} has {} items, and {expected} were expected",
                collection.describe(),
                taken.count
            )));
        }
        let (manifest, export_manifest) = (taken.manifest, taken.export_manifest);
        let (only_here, only_there) = self.compare(cx, &manifest).await?;
        Ok(End::Done(Outputs {
            collection: collection.describe(),
            count: taken.count,
            bytes: taken.bytes,
            manifest,
            exported: export_manifest.as_ref().and_then(|manifest| manifest.lines).unwrap_or(0),
            export_manifest,
            only_here,
            only_there,
            taken_at: taken.at.to_string(),
        }))
    }
}

/// A finished reading.
struct Taken {
    at: Timestamp,
    count: u64,
    bytes: u64,
    manifest: Artifact,
    export_manifest: Option<Artifact>,
}

impl Snapshot {
    async fn take(&self, cx: &Context, collection: &Arc<dyn Collection>) -> Result<Taken, StepError> {
        if let Some(keys) = &self.only {
            return self.named(cx, collection, keys).await;
        }
        for scan in 1..=SCANS {
            if let Some(taken) = self.scan(cx, collection).await? {
                return Ok(taken);
            }
            cx.live.say(&format!("{} changed while it was read ({scan} of {SCANS})", collection.describe()));
        }
        Err(StepError::gate(format!("{} changed while it was read, {SCANS} times", collection.describe()))
            .with_help("stop what writes to it, then resume"))
    }

    /// One reading of the whole; `None` when the collection changed under it.
    async fn scan(&self, cx: &Context, collection: &Arc<dyn Collection>) -> Result<Option<Taken>, StepError> {
        let mut writing = Writing::begin(self, cx, collection).await?;
        let (mut cursor, mut limit) = (None, FIRST_PAGE.min(self.page_size));
        loop {
            cx.checkpoint()?;
            let page = collection.scan(cursor.as_ref(), usize::try_from(limit).unwrap_or(1));
            let page = cx.unless_abandoned(page).await?;
            if page.moved {
                return Ok(None);
            }
            let before = writing.written;
            let items = page.items.len() as u64;
            writing.add(page.items).await?;
            writing.show(page.total);
            match page.next {
                Some(next) => cursor = Some(next),
                None if page.total.is_some_and(|total| total != writing.count) => {
                    return Err(StepError::gate(format!(
                        "{} says that it has {} items and gave {}",
                        collection.describe(),
                        page.total.unwrap_or(0),
                        writing.count
                    )));
                }
                None => return writing.finish().await.map(Some),
            }
            // Large records make smaller pages, so that a page never holds much more than PAGE_BYTES.
            let size = ((writing.written - before) / items.max(1)).max(1);
            limit = (PAGE_BYTES / size).clamp(1, (limit * 4).min(self.page_size));
        }
    }

    async fn named(
        &self,
        cx: &Context,
        collection: &Arc<dyn Collection>,
        keys: &[String],
    ) -> Result<Taken, StepError> {
        let mut seen = BTreeSet::new();
        if let Some(twice) = keys.iter().find(|key| !seen.insert(key.as_str())) {
            return Err(StepError::invalid(format!("`only` names `{twice}` twice")));
        }
        let mut writing = Writing::begin(self, cx, collection).await?;
        let mut missing = Vec::new();
        let mut found = stream::iter(keys.iter().cloned())
            .map(|key| async move {
                let item = collection.read(&key).await?;
                Ok::<_, StepError>((key, item))
            })
            .buffered(READS);
        while let Some((key, item)) = found.try_next().await? {
            cx.checkpoint()?;
            match item {
                Some(item) if missing.is_empty() => writing.add(vec![item]).await?,
                Some(_) => {}
                None => missing.push(key),
            }
            writing.show(Some(keys.len() as u64));
        }
        if missing.is_empty() {
            return writing.finish().await;
        }
        let (count, names) = (missing.len(), names(&missing));
        Err(StepError::gate(format!(
            "{count} of {} keys are not in {}: {names}",
            keys.len(),
            collection.describe()
        )))
    }

    async fn compare(
        &self,
        cx: &Context,
        manifest: &Artifact,
    ) -> Result<(Option<KeySet>, Option<KeySet>), StepError> {
        let Some(other) = &self.compare_with else { return Ok((None, None)) };
        let (here, there) = ((manifest, self.collection.as_str()), (other, stem(&other.name)));
        let found = difference(&cx.artifacts, here, there).await?;
        Ok((Some(found.only_here.into()), Some(found.only_there.into())))
    }
}

fn stem(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// The first keys of a list, for a message.
fn names(keys: &[String]) -> String {
    let shown: Vec<_> = keys.iter().take(NAMED).map(|key| format!("`{key}`")).collect();
    let more = keys.len().saturating_sub(NAMED);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// A snapshot being written.
struct Writing<'a> {
    cx: &'a Context,
    name: &'a str,
    at: Timestamp,
    writer: ArtifactWriter,
    exporter: Option<Exporter>,
    count: u64,
    bytes: u64,
    written: u64,
}

impl<'a> Writing<'a> {
    async fn begin(
        step: &'a Snapshot,
        cx: &'a Context,
        collection: &Arc<dyn Collection>,
    ) -> Result<Self, StepError> {
        let name = format!("{}.snapshot.jsonl", step.collection);
        let writer = cx.artifacts.create_raw(&name).await?;
        let exporter = match &step.export {
            Some(export) => Some(Exporter::begin(export, cx, collection, &step.collection).await?),
            None => None,
        };
        let name = step.collection.as_str();
        Ok(Self { cx, name, at: Timestamp::now(), writer, exporter, count: 0, bytes: 0, written: 0 })
    }

    async fn add(&mut self, items: Vec<Item>) -> Result<(), StepError> {
        for item in items {
            let size = self.line(&item).await?;
            self.count += 1;
            self.written += size;
            self.bytes += item.bytes.unwrap_or(size);
            if let Some(exporter) = &mut self.exporter {
                exporter.add(item).await?;
            }
        }
        Ok(())
    }

    async fn line(&mut self, item: &Item) -> Result<u64, StepError> {
        let version_in = version_in(self.name, item);
        let line = Line { key: &item.key, bytes: item.bytes, version_in, record: &item.record };
        let text = serde_json::to_string(&line).map_err(|error| StepError::invalid(error.to_string()))?;
        self.writer.write_line(&text).await?;
        Ok(text.len() as u64)
    }

    fn show(&self, total: Option<u64>) {
        let unit = "items".to_owned();
        self.cx.live.progress(Progress { done: self.count, total, unit, ..Progress::default() });
    }

    async fn finish(self) -> Result<Taken, StepError> {
        let export_manifest = match self.exporter {
            Some(exporter) => Some(exporter.finish().await?),
            None => None,
        };
        let manifest = self.writer.finish().await?;
        let (at, count, bytes) = (self.at, self.count, self.bytes);
        Ok(Taken { at, count, bytes, manifest, export_manifest })
    }
}
