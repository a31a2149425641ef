//! Step kind `s3-inventory`: how many objects there are and how large they are, by prefix, and how that grew.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use runbook_engine::artifact::Artifact;
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use runbook_engine::kinds::{Class, Effect};
use runbook_engine::saved::Foresight;
use runbook_engine::step::Progress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::collections::ListedKey;
use crate::connections::directory::Directory;
use crate::kind::{Context, End, Step, read_now};
use crate::manifest::blocking;
use crate::one_or_many::OneOrMany;
use crate::retry::patiently;

/// Counts the objects of collections and their bytes, by listing them to the last page and reading none. With an earlier inventory it tells how
/// each part grew or shrank. Thresholds hold for each part by itself: those of `warn` are told, those of `fail` stop the run.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct S3Inventory {
    /// The collections, or one; of type `s3-objects`, or of another one whose items have a size.
    pub collections: OneOrMany<String>,
    /// How many parts of a key, from its beginning to a `/`, tell the objects of a collection apart, 0 to 8. Default 0: they are counted together.
    #[serde(default)]
    #[schemars(range(max = 8))]
    pub depth: usize,
    /// The `inventory` of an earlier step to compare with.
    #[serde(default)]
    pub compare_with: Option<Artifact>,
    /// A file with the inventory of the last run: compared with when it is there, and written anew when nothing of `fail` is crossed.
    #[serde(default)]
    pub last: Option<LastInventory>,
    /// Counts those apart that were written longer ago than this: what a lifecycle of as many days takes away at once. Default: none are.
    #[serde(default)]
    pub older_than: Option<Duration>,
    /// What is told when it is crossed.
    #[serde(default)]
    pub warn: Thresholds,
    /// What fails the step when it is crossed.
    #[serde(default)]
    pub fail: Thresholds,
}

/// A file of a directory.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LastInventory {
    /// The name of a connection of type `directory`.
    pub connection: String,
    /// The file, a relative path in it.
    pub file: String,
}

/// What a part may hold, and by how much it may change. Nothing that is not given is asked for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// The most objects.
    #[serde(default)]
    pub max_objects: Option<u64>,
    /// The most bytes.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    /// The most bytes more than before.
    #[serde(default)]
    pub max_growth_bytes: Option<u64>,
    /// The most percent of bytes more than before. Of a part that held none before nothing is said.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub max_growth_percent: Option<f64>,
    /// The most percent of objects fewer than before: what is lost shows here.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub max_shrink_percent: Option<f64>,
}

/// A part of a collection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The collection, by its name in the runbook.
    pub collection: String,
    /// What the keys of the part begin with; empty when all are counted together.
    pub prefix: String,
    /// How many objects it holds.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many it held before; null without an earlier inventory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects_before: Option<u64>,
    /// How many bytes it held before; null without an earlier inventory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_before: Option<u64>,
}

/// What is older than the time of `older_than`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Older {
    /// How many objects there are.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many objects more there are of which the system does not say when they were written.
    pub undated: u64,
}

/// What was counted.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Outputs {
    /// How many objects there are in all.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether there was an earlier inventory.
    pub compared: bool,
    /// How many bytes more there are than in the earlier inventory; less than 0 when there are fewer. Null without one.
    pub growth_bytes: Option<i64>,
    /// What was written longer ago than `older_than`; absent without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older: Option<Older>,
    /// The largest parts by their bytes, at most a hundred.
    pub parts: Vec<Part>,
    /// Every part, one a line, by collection and prefix: what a later step or run compares with.
    pub inventory: Artifact,
    /// The thresholds of `warn` that are crossed, in words.
    pub warnings: Vec<String>,
}

/// The most parts of an inventory.
const PARTS: usize = 100_000;
/// How many parts are shown.
const SHOWN: usize = 100;
/// How many keys one page asks for.
const PAGE: usize = 1000;
/// The name under which the ledger remembers the inventory of the last run.
const BEFORE: &str = "before";
/// The largest file that is taken for an inventory, in bytes.
const LARGEST: usize = 64 * 1024 * 1024;

/// A part is told by its collection and prefix.
type Parts = BTreeMap<(String, String), Part>;

#[async_trait]
impl Step for S3Inventory {
    const NAME: &'static str = "s3-inventory";
    const SUMMARY: &'static str =
        "Counts objects and their bytes by prefix, and how they grew since the last time";
    const EXAMPLE: &'static str = "\
id: inventory
uses: s3-inventory
with:
  collections: attachments
  depth: 2
  compare_with: ${{ steps.before.outputs.inventory }}
  warn: { max_growth_percent: 20 }
  fail: { max_shrink_percent: 5 }
";
    type Outputs = Outputs;

    fn effect(with: &Value) -> Effect {
        match with.get("last") {
            None | Some(Value::Null) => Effect::READ,
            Some(_) => Effect::WRITE,
        }
    }

    async fn foresee(self, effect: Effect, cx: &Context) -> Result<Foresight, StepError> {
        let Some(last) = self.last.clone().filter(|_| effect.class != Class::Read) else {
            return read_now(self, cx).await;
        };
        let before = read_last(&last, cx).await?;
        let (counted, _) = self.count(cx, before).await?;
        self.judge(&counted)?;
        let does = format!("write the inventory into {}", last.file);
        Ok(Foresight { does, changes: Some(vec![last.connection]), ..Foresight::default() })
    }

    async fn run(self, cx: &Context) -> Result<End<Outputs>, StepError> {
        if self.compare_with.is_some() && self.last.is_some() {
            return Err(StepError::invalid("`compare_with` and `last` both say what to compare with"));
        }
        let before = self.before(cx).await?;
        let compared = before.is_some();
        let (parts, older) = self.count(cx, before).await?;
        let warnings = self.judge(&parts)?;
        for warning in &warnings {
            cx.live.say(warning);
        }
        let mut writer = cx.artifacts.create_raw("inventory.jsonl").await?;
        let mut text = String::new();
        for part in parts.values().filter(|part| part.objects > 0) {
            let now = Part { objects_before: None, bytes_before: None, ..part.clone() };
            let line = serde_json::to_string(&now).map_err(|error| StepError::invalid(error.to_string()))?;
            writer.write_line(&line).await?;
            text.push_str(&line);
            text.push('\n');
        }
        let inventory = writer.finish().await?;
        if let Some(last) = &self.last {
            let directory = cx.resources.connection::<Directory>(&last.connection)?;
            let file = last.file.clone();
            blocking(move || directory.write(&file, text.as_bytes())).await?;
        }
        Ok(End::Done(Outputs { older, ..outputs(parts, compared, inventory, warnings) }))
    }
}

impl S3Inventory {
    /// The earlier inventory. That of the last run is remembered, because this one takes its place.
    async fn before(&self, cx: &Context) -> Result<Option<Parts>, StepError> {
        let Some(last) = &self.last else {
            let Some(earlier) = &self.compare_with else { return Ok(None) };
            let (mut lines, mut parts) = (cx.artifacts.lines(earlier).await?, Vec::new());
            while let Some((part, _)) = lines.next_json::<Part>().await? {
                parts.push(part);
            }
            return Ok(Some(by_name(parts)));
        };
        if let Some(known) = cx.ledger.recall(BEFORE).await? {
            let known: Option<Artifact> = serde_json::from_value(known)
                .map_err(|error| StepError::gate(format!("the ledger is unreadable: {error}")))?;
            let Some(known) = known else { return Ok(None) };
            let earlier = Self { compare_with: Some(known), last: None, ..self.clone() };
            return Box::pin(earlier.before(cx)).await;
        }
        let found = read_last(last, cx).await?;
        let kept = match &found {
            Some(parts) => {
                let mut writer = cx.artifacts.create_raw("inventory_before.jsonl").await?;
                for part in parts.values() {
                    writer.write_json(part).await?;
                }
                Some(writer.finish().await?)
            }
            None => None,
        };
        cx.ledger.remember(BEFORE, serde_json::json!(kept)).await?;
        Ok(found)
    }

    /// Lists all of it.
    async fn count(&self, cx: &Context, before: Option<Parts>) -> Result<(Parts, Option<Older>), StepError> {
        let mut parts = Parts::new();
        let mut aged = self.aged()?;
        if let Some(before) = &before {
            for (name, part) in before.iter().filter(|((name, _), _)| self.collections.0.contains(name)) {
                parts.insert(name.clone(), Part { objects: 0, bytes: 0, ..part.clone() });
            }
        }
        let mut count = 0_u64;
        for name in &self.collections.0 {
            let collection = cx.resources.collection(name)?;
            parts.entry((name.clone(), String::new())).or_default();
            let mut after = None;
            loop {
                cx.checkpoint()?;
                let page = cx.unless_abandoned(patiently(|| collection.keys(after.as_ref(), PAGE))).await?;
                if page.moved {
                    return Err(StepError::transient(format!(
                        "{} changed while it was listed",
                        collection.describe()
                    )));
                }
                for one in page.keys {
                    if let Some((since, older)) = &mut aged {
                        older.add(&one, *since);
                    }
                    let part =
                        parts.entry((name.clone(), prefix(&one.key, self.depth).to_owned())).or_default();
                    part.objects += 1;
                    part.bytes += one.bytes.unwrap_or(0);
                    count += 1;
                }
                if parts.len() > PARTS {
                    let message = format!("at `depth` {} there are more than {PARTS} prefixes", self.depth);
                    return Err(StepError::invalid(message));
                }
                let unit = "objects".to_owned();
                cx.live.progress(Progress { done: count, total: None, unit, ..Progress::default() });
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        for ((collection, prefix), part) in &mut parts {
            (part.collection, part.prefix) = (collection.clone(), prefix.clone());
            let earlier = |of: fn(&Part) -> u64| {
                let before = before.as_ref()?;
                Some(before.get(&(collection.clone(), prefix.clone())).map_or(0, of))
            };
            (part.objects_before, part.bytes_before) =
                (earlier(|part| part.objects), earlier(|part| part.bytes));
        }
        // The whole of a collection that is told apart is no part of it, unless something stands at its root.
        parts.retain(|_, part| part.objects > 0 || part.objects_before.unwrap_or(0) > 0 || self.depth == 0);
        Ok((parts, aged.map(|(_, older)| older)))
    }

    /// The time before which something counts as older, with none of it counted yet.
    fn aged(&self) -> Result<Option<(Timestamp, Older)>, StepError> {
        let Some(age) = self.older_than else { return Ok(None) };
        let since = Timestamp::now().checked_sub(age.0).map_err(|error| {
            StepError::invalid(format!("`older_than` is {age}, which is no age")).with_source(&error)
        })?;
        Ok(Some((since, Older::default())))
    }

    /// What is to be warned of. Of kind gate when something is worse than that.
    fn judge(&self, parts: &Parts) -> Result<Vec<String>, StepError> {
        let crossed: Vec<String> = parts.values().flat_map(|part| self.fail.crossed(part)).collect();
        if crossed.is_empty() {
            return Ok(parts.values().flat_map(|part| self.warn.crossed(part)).take(SHOWN).collect());
        }
        let shown: Vec<&str> = crossed.iter().take(10).map(String::as_str).collect();
        let more = crossed.len() - shown.len();
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        Err(StepError::gate(format!("{}{more}", shown.join("; ")))
            .with_help("look at what is there, or change the thresholds of `fail`"))
    }
}

impl Older {
    fn add(&mut self, one: &ListedKey, since: Timestamp) {
        match one.modified_at {
            None => self.undated += 1,
            Some(at) if at < since => {
                self.objects += 1;
                self.bytes += one.bytes.unwrap_or(0);
            }
            Some(_) => {}
        }
    }
}

impl Thresholds {
    /// Which of them a part crosses, in words.
    fn crossed(&self, part: &Part) -> Vec<String> {
        let name = format!("`{}`", part.collection);
        let name = if part.prefix.is_empty() { name } else { format!("{name} below {}", part.prefix) };
        let mut told = Vec::new();
        let mut most = |what: &str, held: u64, most: Option<u64>| {
            if let Some(most) = most.filter(|most| held > *most) {
                told.push(format!("{name} holds {held} {what}, and at most {most} are expected"));
            }
        };
        most("objects", part.objects, self.max_objects);
        most("bytes", part.bytes, self.max_bytes);
        let (Some(objects), Some(bytes)) = (part.objects_before, part.bytes_before) else { return told };
        let grown = part.bytes.saturating_sub(bytes);
        if let Some(most) = self.max_growth_bytes.filter(|most| grown > *most) {
            told.push(format!("{name} grew by {grown} bytes, and at most {most} are expected"));
        }
        let percent = share(grown, bytes);
        if let Some(most) = self.max_growth_percent.filter(|most| percent > *most) {
            told.push(format!(
                "{name} grew by {percent:.1} percent of its bytes, and at most {most} are expected"
            ));
        }
        let lost = share(objects.saturating_sub(part.objects), objects);
        if let Some(most) = self.max_shrink_percent.filter(|most| lost > *most) {
            told.push(format!(
                "{name} lost {lost:.1} percent of its objects, and at most {most} are expected"
            ));
        }
        told
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share of what is counted, for thresholds")]
fn share(some: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { some as f64 * 100.0 / all as f64 }
}

/// The first `depth` parts of a key, each with its `/`; what stands in no such folder belongs to the one above.
fn prefix(key: &str, depth: usize) -> &str {
    let end = key.match_indices('/').take(depth).last().map_or(0, |(at, _)| at + 1);
    &key[..end]
}

fn by_name(parts: Vec<Part>) -> Parts {
    parts.into_iter().map(|part| ((part.collection.clone(), part.prefix.clone()), part)).collect()
}

/// The inventory of the last run; nothing when there is none.
async fn read_last(last: &LastInventory, cx: &Context) -> Result<Option<Parts>, StepError> {
    let directory = cx.resources.connection::<Directory>(&last.connection)?;
    let (file, path) = (last.file.clone(), directory.path(&last.file)?);
    let Some(bytes) = blocking(move || directory.read(&file)).await? else { return Ok(None) };
    let broken = || {
        StepError::gate(format!("{} is no inventory", path.display()))
            .with_help("name another file, or take it away")
    };
    let text = String::from_utf8(bytes).ok().filter(|text| text.len() <= LARGEST).ok_or_else(broken)?;
    let parts =
        text.lines().map(serde_json::from_str).collect::<Result<Vec<Part>, _>>().map_err(|_| broken())?;
    Ok(Some(by_name(parts)))
}

fn outputs(parts: Parts, compared: bool, inventory: Artifact, warnings: Vec<String>) -> Outputs {
    let sum = |of: fn(&Part) -> u64| parts.values().map(of).sum::<u64>();
    let (objects, bytes) = (sum(|part| part.objects), sum(|part| part.bytes));
    let before = sum(|part| part.bytes_before.unwrap_or(0));
    let growth_bytes = compared.then(|| bytes.cast_signed().wrapping_sub(before.cast_signed()));
    let mut parts: Vec<Part> = parts.into_values().collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    parts.truncate(SHOWN);
    Outputs { objects, bytes, compared, growth_bytes, older: None, parts, inventory, warnings }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_with_its_last_stroke() {
        let of = |depth| prefix("a/b/c/d.jpg", depth);
        assert_eq!((of(0), of(1), of(2), of(9)), ("", "a/", "a/b/", "a/b/c/"));
        assert_eq!((prefix("d.jpg", 2), prefix("/d", 1), prefix("", 3)), ("", "/", ""));
    }

    #[test]
    fn growth_and_loss_are_told_apart() {
        let part = |objects, bytes| Part {
            collection: "c".to_owned(),
            prefix: "a/".to_owned(),
            objects,
            bytes,
            objects_before: Some(100),
            bytes_before: Some(1000),
        };
        let growth = Thresholds { max_growth_percent: Some(20.0), ..Thresholds::default() };
        assert!(growth.crossed(&part(100, 1200)).is_empty());
        assert_eq!(
            growth.crossed(&part(100, 1201)),
            ["`c` below a/ grew by 20.1 percent of its bytes, and at most 20 are expected"]
        );
        let loss = Thresholds { max_shrink_percent: Some(0.0), ..Thresholds::default() };
        assert!(loss.crossed(&part(100, 0)).is_empty());
        assert_eq!(loss.crossed(&part(99, 1000)).len(), 1);
        let size = Thresholds {
            max_objects: Some(99),
            max_bytes: Some(999),
            max_growth_bytes: Some(0),
            ..Thresholds::default()
        };
        assert_eq!(size.crossed(&part(100, 1000)).len(), 2);
        let alone = Part { objects_before: None, bytes_before: None, ..part(0, 5) };
        assert!(growth.crossed(&alone).is_empty() && loss.crossed(&alone).is_empty());
    }
}
