//! One attempt of `delete-batch`: settle what is open, go on from the cursor, then try again what failed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runbook_engine::artifact::Artifact;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::plan::Drift;
use runbook_engine::step::{Intent, Progress, Settlement};
use serde::Serialize;

use super::bound::{Bound, bind, followers};
use super::record::{At, Became, Cursor, Intended, Tally, decode, encode};
use super::{DeleteBatch, Outputs};
use crate::backoff::{exponential, pause};
use crate::collections::{Collection, Doomed, KeyOutcome, Version};
use crate::kind::Context;
use crate::manifest::{Entry, Keys, count_keys};
use crate::retry::asked;

/// How many batches of the ledger are looked through at once.
const ROWS: usize = 50;

/// The wait before the first pass over what failed; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait between passes.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// The name under which the ledger remembers the population.
const POPULATION: &str = "population";

/// A line of the manifest of failures.
#[derive(Serialize)]
struct Failure<'a> {
    key: &'a str,
    collection: &'a str,
    kind: &'static str,
    error: String,
}

/// One attempt.
pub(super) struct Work<'a> {
    step: &'a DeleteBatch,
    cx: &'a Context,
    collections: Vec<Arc<dyn Collection>>,
    bound: Bound,
    total: u64,
    population: u64,
    tally: Tally,
    at: At,
    manifests: String,
    since: u64,
    last_pass: u32,
    /// The longest wait that the system asked for since the last pass began.
    asked: Duration,
    /// Whether anything that failed since then may work when it is tried again.
    hopeful: bool,
    /// Up to this pass somebody may have mended what was refused before, so all that failed is tried again.
    mended_up_to: u32,
}

impl<'a> Work<'a> {
    /// Checks the manifests, measures the collections before the first delete, and reads the ledger.
    pub async fn begin(step: &'a DeleteBatch, cx: &'a Context) -> Result<Self, StepError> {
        let collections = collections(step, cx)?;
        let bound = bind(step, cx).await?;
        if !bound.by_plan {
            for (of, what) in followers(step, cx).await? {
                cx.live.say(&format!("with {of} go or change, beside the limits: {what}"));
            }
        }
        let total = Self::check_manifests(&bound.manifests, &collections, cx).await?;
        let population = measure(step, cx, &collections, total).await?;
        let (tally, at) = (Tally::new(collections.len()), At::Manifest { index: 0, offset: 0 });
        let last_pass = step.retry_failed;
        let hashes: Vec<&str> = bound.manifests.iter().map(|manifest| manifest.sha256.as_str()).collect();
        let manifests = hashes.join(" ");
        let since = 0;
        let (asked, hopeful) = (Duration::ZERO, false);
        Ok(Self {
            step,
            cx,
            collections,
            bound,
            total,
            population,
            tally,
            at,
            manifests,
            since,
            last_pass,
            asked,
            hopeful,
            mended_up_to: 0,
        })
    }

    async fn check_manifests(
        manifests: &[Artifact],
        collections: &[Arc<dyn Collection>],
        cx: &Context,
    ) -> Result<u64, StepError> {
        let empty_too = collections.iter().all(|collection| collection.may_be_empty());
        let mut total = 0;
        for (at, manifest) in manifests.iter().enumerate() {
            if manifests[..at].iter().any(|other| other.sha256 == manifest.sha256) && manifest.bytes > 0 {
                return Err(StepError::invalid(format!("`keys` names {} twice", manifest.name)));
            }
            total += count_keys(&cx.artifacts, manifest, empty_too).await?;
        }
        Ok(total)
    }

    /// All of it.
    pub async fn run(mut self) -> Result<Outputs, StepError> {
        let view = self.cx.ledger.view().await?;
        let mut manifests = self.manifests.clone();
        if let Some(cursor) = &view.cursor {
            let cursor: Cursor = decode(cursor)?;
            (self.tally, self.at, self.since, manifests) =
                (cursor.tally, cursor.at, cursor.since, cursor.manifests);
        }
        for batch in view.unsettled {
            let (number, count) = (batch.number, batch.items);
            let again = format!("doing batch {number} of {count} keys again: its outcome was not recorded");
            self.cx.live.say(&again);
            let intended: Intended = decode(&batch.what)?;
            manifests.clone_from(&intended.manifests);
            self.act(number, intended, true).await?;
        }
        if manifests == self.manifests {
            self.enter_again();
        } else {
            // The snapshot was taken anew since: its manifests are gone through from their first line.
            (self.tally, self.since) = (Tally::new(self.collections.len()), view.last);
            self.at = At::Manifest { index: 0, offset: 0 };
        }
        self.first_pass().await?;
        self.later_passes().await?;
        self.end().await
    }

    /// After a retry or a resume, what still fails is tried again.
    fn enter_again(&mut self) {
        let begun = match self.at {
            At::Manifest { .. } => 0,
            At::Pass { pass, .. } => pass,
        };
        self.last_pass += begun;
        if self.tally.failed > 0 {
            // The pass that was cut off may have gone by what was mended since.
            self.mended_up_to = begun + 1;
            self.last_pass = self.last_pass.max(self.mended_up_to);
            self.hopeful = true;
        }
    }

    async fn first_pass(&mut self) -> Result<(), StepError> {
        while let At::Manifest { index, offset } = self.at {
            let Some(manifest) = self.bound.manifests.get(index) else { return Ok(()) };
            let mut keys = Keys::open(&self.cx.artifacts, manifest, offset).await?;
            loop {
                let (batch, bytes) = self.read(index, &mut keys).await?;
                if batch.keys.is_empty() {
                    break;
                }
                let charged = (batch.keys.len() as u64, bytes);
                self.announce(batch, charged).await?;
            }
            self.at = At::Manifest { index: index + 1, offset: 0 };
        }
        Ok(())
    }

    /// The next batch out of the manifest of this number, and its bytes in all. Without keys at the end.
    async fn read(&self, index: usize, lines: &mut Keys) -> Result<(Intended, u64), StepError> {
        let (mut keys, mut versions, mut sum) = (BTreeMap::new(), BTreeMap::new(), 0_u64);
        while (keys.len() as u64) < self.step.batch_size {
            let Some(Entry { key, bytes, version_in }) = lines.next_entry().await? else { break };
            sum = sum.saturating_add(bytes);
            if !version_in.is_empty() {
                versions.insert(key.clone(), version_in);
            }
            keys.insert(key, String::new());
        }
        let next = At::Manifest { index, offset: lines.offset() };
        let (manifests, lasting) = (self.manifests.clone(), BTreeMap::new());
        Ok((Intended { next, manifests, keys, versions, lasting }, sum))
    }

    /// Tries again what failed, pass by pass, each over the failures of the pass before.
    async fn later_passes(&mut self) -> Result<(), StepError> {
        let last = self.last_pass;
        if let At::Manifest { .. } = self.at {
            if self.tally.failed == 0 || last == 0 || !self.hopeful {
                return Ok(());
            }
            self.begin_pass(1, self.since).await?;
        }
        while let At::Pass { pass, after } = self.at {
            match self.next_failed(pass, after).await? {
                Some(batch) => self.announce(batch, (0, 0)).await?,
                None if self.tally.failed == 0 || pass >= last || !self.hopeful => return Ok(()),
                None => self.begin_pass(pass + 1, after).await?,
            }
        }
        Ok(())
    }

    async fn begin_pass(&mut self, pass: u32, after: u64) -> Result<(), StepError> {
        self.show();
        // As long as the system asked for, however long that is: a stop is heard all the while.
        let wait = exponential(FIRST_WAIT, pass, LONGEST_WAIT).max(std::mem::take(&mut self.asked));
        pause(self.cx, wait).await?;
        self.at = At::Pass { pass, after };
        (self.tally.failed, self.hopeful) = (0, false);
        Ok(())
    }

    /// What failed of the next batch of the pass before `pass` with failures, to be tried again.
    async fn next_failed(&self, pass: u32, after: u64) -> Result<Option<Intended>, StepError> {
        let mut after = after;
        loop {
            // The batches of the first pass are many, and those of later passes do not count their failures again.
            let rows = match pass {
                1 => self.cx.ledger.failures(after, ROWS).await?,
                _ => self.cx.ledger.batches(after, ROWS).await?,
            };
            let Some(last) = rows.last() else { return Ok(None) };
            after = last.batch;
            for row in rows {
                let intended: Intended = decode(&row.intent)?;
                if intended.pass() >= pass {
                    return Ok(None);
                }
                let Some(settled) = row.settled.filter(|_| intended.pass() + 1 == pass) else { continue };
                let became: Became = decode(&settled.outcome)?;
                let failed = became.failed();
                if !failed.is_empty() {
                    let mended = pass <= self.mended_up_to;
                    let lasting = if mended { BTreeMap::new() } else { became.lasting() };
                    return Ok(Some(intended.again(At::Pass { pass, after: row.batch }, failed, lasting)));
                }
            }
        }
    }

    /// Announces a batch that is charged with so many items and bytes, and does it.
    async fn announce(&mut self, intended: Intended, charged: (u64, u64)) -> Result<(), StepError> {
        self.cx.checkpoint()?;
        let intent = Intent {
            what: encode(&intended)?,
            items: intended.keys.len() as u64,
            charged_items: charged.0,
            charged_bytes: charged.1,
        };
        let batch = self.cx.ledger.intend(intent).await?;
        self.act(batch.number, intended, false).await
    }

    /// Does an announced batch and records what became of it.
    async fn act(&mut self, number: u64, intended: Intended, again: bool) -> Result<(), StepError> {
        let mut became = Became::of(&intended);
        for (at, collection) in self.collections.iter().enumerate() {
            let open = became.open(at);
            let name = &self.step.collections.0[at];
            let doomed = if self.bound.guards(&**collection) {
                intended.doomed(&open, name)
            } else {
                open.iter().map(|key| Doomed::whatever(key)).collect()
            };
            let outcomes = delete(&**collection, doomed).await?;
            became.add(at, &open, outcomes, again);
        }
        for error in became.errors.values_mut() {
            error.message = self.cx.redactor.text(&error.message);
            error.causes.iter_mut().for_each(|cause| *cause = self.cx.redactor.text(cause));
            self.asked = self.asked.max(asked(error));
            self.hopeful |= error.kind.retryable();
        }
        self.tally.add(&intended, &became);
        self.at = intended.next;
        let (done, already, failed) = became.sums();
        let (manifests, tally) = (intended.manifests.clone(), self.tally.clone());
        let cursor = Cursor { at: self.at, manifests, since: self.since, tally };
        let settlement = Settlement {
            cursor: encode(&cursor)?,
            outcome: encode(&became)?,
            done,
            already,
            // A key that fails again is not one more failed key: it counted when it failed first.
            failed: if intended.pass() == 0 { failed } else { 0 },
        };
        self.cx.ledger.settle(number, settlement).await?;
        self.show();
        Ok(())
    }

    fn show(&self) {
        let note = match self.at {
            At::Manifest { .. } => String::new(),
            At::Pass { pass, .. } => format!("trying again what failed, pass {pass}"),
        };
        let (done, failed) = (self.tally.ids - self.tally.failed.min(self.tally.ids), self.tally.failed);
        let unit = "items".to_owned();
        self.cx.live.progress(Progress { done, total: Some(self.total), unit, failed, note });
    }

    async fn end(self) -> Result<Outputs, StepError> {
        if self.tally.failed > 0 {
            return Err(self.failures().await?);
        }
        let names = || self.step.collections.0.iter().cloned();
        Ok(Outputs {
            ids: self.tally.ids,
            deleted: names().zip(self.tally.deleted).collect(),
            already_gone: names().zip(self.tally.already).collect(),
            gone_after_crash: names().zip(self.tally.gone).collect(),
            failed: 0,
            batches: self.tally.batches,
            population: self.population,
            not_in_plan: self.bound.left_alone,
            guard: self.bound.guard,
        })
    }

    /// Writes down what still fails after the last pass; the error that says so.
    async fn failures(&self) -> Result<StepError, StepError> {
        let pass = match self.at {
            At::Manifest { .. } => 0,
            At::Pass { pass, .. } => pass,
        };
        let mut writer = self.cx.artifacts.create("failures.jsonl").await?;
        let (mut after, mut count, mut first, mut lasting, mut changed) = (self.since, 0, None, false, false);
        loop {
            let rows = self.cx.ledger.batches(after, ROWS).await?;
            let Some(last) = rows.last() else { break };
            after = last.batch;
            for row in rows {
                let intended: Intended = decode(&row.intent)?;
                let Some(settled) = row.settled.filter(|_| intended.pass() == pass) else { continue };
                let became: Became = decode(&settled.outcome)?;
                for (key, before) in became.failed() {
                    let Some(error) = became.errors.get(&key) else { continue };
                    let collection = self.step.collections.0.get(before.len()).map_or("", String::as_str);
                    let text = error.to_string();
                    lasting |= error.kind != ErrorKind::Transient;
                    changed |= error.kind == ErrorKind::Gate;
                    let kind = error.kind.name();
                    let error = text.clone();
                    writer.write_json(&Failure { key: &key, collection, kind, error }).await?;
                    count += 1;
                    first.get_or_insert(text);
                }
            }
        }
        let manifest = writer.finish().await?;
        let path = self.cx.artifacts.path(&manifest)?;
        let passes = if pass == 0 { "one pass".to_owned() } else { format!("{} passes", pass + 1) };
        let message = format!(
            "{count} of {} keys could not be deleted in {passes}; the first: {}",
            self.total,
            first.unwrap_or_default()
        );
        let all = format!("all of them are in {}", path.display());
        let again = "; to delete what changed too, cancel the run and start one that takes a new snapshot";
        Ok(if changed && self.cx.history.plan.reviewed.is_some() {
            // No other attempt makes them what was reviewed.
            let help = format!(
                "{all}; what is left needs a new plan: cancel the run, plan again, and have it reviewed"
            );
            StepError::new(ErrorKind::Drift, message).with_help(help)
        } else if changed {
            StepError::gate(message).with_help(format!("{all}{again}"))
        } else if lasting {
            StepError::gate(message).with_help(all)
        } else {
            StepError::transient(message).with_help(all)
        })
    }
}

/// One outcome per key, in their order. What was not there when its plan was made is not asked for: what is there now is not in the plan.
async fn delete(collection: &dyn Collection, keys: Vec<Doomed>) -> Result<Vec<KeyOutcome>, StepError> {
    let absent: Vec<bool> =
        keys.iter().map(|key| key.expected.as_ref().is_some_and(Version::is_absent)).collect();
    let wanted: Vec<Doomed> =
        keys.into_iter().zip(&absent).filter(|(_, absent)| !**absent).map(|(key, _)| key).collect();
    let outcomes = if wanted.is_empty() { Vec::new() } else { collection.delete(&wanted).await? };
    if outcomes.len() != wanted.len() {
        let message = format!("{} outcomes for {} keys", outcomes.len(), wanted.len());
        return Err(StepError::new(ErrorKind::Bug, message).unknown());
    }
    let mut outcomes = outcomes.into_iter();
    let of_each = |absent| if absent { Some(KeyOutcome::Already) } else { outcomes.next() };
    Ok(absent.into_iter().filter_map(of_each).collect())
}

/// The collections of a step, in its order, each of which takes batches of this size.
pub(super) fn collections(step: &DeleteBatch, cx: &Context) -> Result<Vec<Arc<dyn Collection>>, StepError> {
    let mut collections = Vec::new();
    for (at, name) in step.collections.0.iter().enumerate() {
        if step.collections.0[..at].contains(name) {
            return Err(StepError::invalid(format!("`collections` names `{name}` twice")));
        }
        let collection = cx.resources.collection(name)?;
        if step.batch_size > collection.max_batch() as u64 {
            let (most, size) = (collection.max_batch(), step.batch_size);
            return Err(StepError::invalid(format!(
                "`batch_size` is {size}, and `{name}` takes at most {most}"
            )));
        }
        collections.push(collection);
    }
    if collections.is_empty() || step.keys.0.is_empty() {
        return Err(StepError::invalid("`collections` or `keys` is empty"));
    }
    Ok(collections)
}

/// The population: counted before the first delete, and remembered.
async fn measure(
    step: &DeleteBatch,
    cx: &Context,
    collections: &[Arc<dyn Collection>],
    total: u64,
) -> Result<u64, StepError> {
    if let Some(known) = cx.ledger.recall(POPULATION).await?.and_then(|value| value.as_u64()) {
        return Ok(known);
    }
    let population = counted(step, collections).await?;
    let plan = &cx.history.plan;
    // Nothing of what was reviewed is left, which the plan allows.
    let may_be_gone = plan.reviewed.is_some() && plan.drift == Drift::Subset;
    if population == 0 && total > 0 && !may_be_gone {
        return Err(StepError::gate(format!(
            "the manifests have {total} keys, and the collections are empty"
        ))
        .with_help(
            "an empty listing is not taken as a truth to act on: check the connection and the names",
        ));
    }
    cx.ledger.measure(population, &named(step)).await
}

/// The collections by their names, the same in every order.
fn named(step: &DeleteBatch) -> String {
    let mut names: Vec<&str> = step.collections.0.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.join(",")
}

/// How many items there are now. The largest collection counts, and not the sum: an item of the budget is a key, and a key stands in each.
async fn counted(step: &DeleteBatch, collections: &[Arc<dyn Collection>]) -> Result<u64, StepError> {
    let mut population = 0;
    for (name, collection) in step.collections.0.iter().zip(collections) {
        let count = collection.count().await.map_err(|mut error| {
            error.message = format!("`{name}` can not be counted before the first delete: {}", error.message);
            error
        })?;
        population = population.max(count);
    }
    Ok(population)
}

/// How many items there are now, when a limit of the step or of the run is a share of them.
pub(super) async fn population(step: &DeleteBatch, cx: &Context) -> Result<Option<(String, u64)>, StepError> {
    let plan = &cx.history.plan;
    let limits = [Some(&plan.limits), plan.step(&cx.step).map(|step| &step.limits)];
    if limits.into_iter().flatten().all(|limits| limits.max_percent.is_none()) {
        return Ok(None);
    }
    let names = step.collections.0.iter().map(|name| cx.resources.collection(name));
    let collections: Vec<_> = names.collect::<Result<_, _>>()?;
    counted(step, &collections).await.map(|count| Some((named(step), count)))
}
