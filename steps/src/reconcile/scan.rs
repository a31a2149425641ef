//! `report`: both sides are read, batch by batch, each into an artifact of its own, so that a crash costs one batch.

use std::sync::Arc;

use runbook_engine::artifact::Artifact;
use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::step::{Intent, Progress, Settlement};
use serde_json::Value;

use super::look::{self, Looked};
use super::record::{At, Came, decode, encode};
use super::reference::{Stands, row};
use super::{Compare, Outputs, Reconcile};
use crate::collections::Collection;
use crate::kind::Context;
use crate::retry::patiently;

/// How many items of a collection one page asks for.
const PAGE: usize = 1000;
/// How many items one batch reads, for each that a batch looks up: reading is so much faster.
const ROWS: u64 = 40;
/// How many keys one batch lists, likewise.
const KEYS: u64 = 100;
/// How many requests that look up are worth one of a listing.
const WORTH: u64 = 10;
/// So few references are looked up without counting anything.
const FEW: u64 = 200;
/// How many batches of the ledger are looked through at once.
pub(super) const BATCHES: usize = 50;
/// The name under which the ledger remembers how the two are compared.
const COMPARE: &str = "compare";
/// The name under which it remembers what is to be looked up.
const CANDIDATES: &str = "candidates";

/// One attempt of a `report`.
pub(super) struct Scan<'a> {
    pub(super) step: &'a Reconcile,
    pub(super) cx: &'a Context,
    pub(super) items: Arc<dyn Collection>,
    pub(super) against: Arc<dyn Collection>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(step: &'a Reconcile, cx: &'a Context) -> Result<Self, StepError> {
        let items = cx.resources.collection(&step.collection)?;
        let against = cx.resources.collection(step.against.as_deref().unwrap_or_default())?;
        Ok(Self { step, cx, items, against })
    }

    /// All of it.
    pub(super) async fn run(&self) -> Result<Outputs, StepError> {
        let view = self.cx.ledger.view().await?;
        let mut at = match &view.cursor {
            Some(cursor) => decode(cursor)?,
            None => At::Rows { after: None, rows: 0, open: 0 },
        };
        for batch in view.unsettled {
            at = self.act(batch.number, decode(&batch.what)?).await?;
        }
        loop {
            self.cx.checkpoint()?;
            at = match at {
                At::Read { open, .. } => match self.compare(open).await? {
                    Compare::Listing => At::Keys { after: None, keys: 0 },
                    _ => At::Look { offset: 0, looked: 0, unknown: 0 },
                },
                At::Listed { .. } => At::Look { offset: 0, looked: 0, unknown: 0 },
                At::Look { offset, looked, .. } if offset == self.candidates().await?.bytes => {
                    look::is_there(&*self.against, looked).await?;
                    return self.conclude().await;
                }
                at => {
                    let (what, items) = (encode(&at)?, self.step.batch_size);
                    let intent = Intent { what, items, charged_items: 0, charged_bytes: 0 };
                    let batch = self.cx.ledger.intend(intent).await?;
                    self.act(batch.number, at).await?
                }
            };
        }
    }

    /// Does an announced batch and records what came of it. It only reads, so doing it again is the same.
    async fn act(&self, number: u64, at: At) -> Result<At, StepError> {
        let (next, came, done) = match at {
            At::Rows { after, rows, open } => self.rows(after, rows, open).await?,
            At::Keys { after, keys } => self.keys(after, keys).await?,
            At::Look { offset, looked, unknown } => self.look(offset, looked, unknown).await?,
            other => {
                return Err(StepError::new(ErrorKind::Store, format!("the ledger has a batch at {other:?}")));
            }
        };
        crash::point("reconcile: read");
        let settlement =
            Settlement { cursor: encode(&next)?, outcome: encode(&came)?, done, already: 0, failed: 0 };
        self.cx.ledger.settle(number, settlement).await?;
        Ok(next)
    }

    async fn rows(
        &self,
        mut after: Option<Value>,
        before: u64,
        mut open: u64,
    ) -> Result<(At, Came, u64), StepError> {
        let mut writer = self.cx.artifacts.create_raw("rows.jsonl").await?;
        let mut count = 0;
        loop {
            self.cx.checkpoint()?;
            let page = self.cx.unless_abandoned(patiently(|| self.items.scan(after.as_ref(), PAGE))).await?;
            if page.moved {
                return Err(moved(&*self.items));
            }
            for item in page.items {
                let row = row(&self.step.references, item, &*self.against)?;
                open += row.stands.iter().filter(|stands| matches!(stands, Stands::Open(_))).count() as u64;
                writer.write_json(&row).await?;
                count += 1;
            }
            self.show("reading", before + count);
            after = page.next;
            if after.is_none() || count >= ROWS * self.step.batch_size {
                break;
            }
        }
        let (came, rows) = (Came::Rows(writer.finish().await?), before + count);
        let next = match after {
            Some(after) => At::Rows { after: Some(after), rows, open },
            None => At::Read { rows, open },
        };
        Ok((next, came, count))
    }

    async fn keys(&self, mut after: Option<Value>, before: u64) -> Result<(At, Came, u64), StepError> {
        let mut writer = self.cx.artifacts.create_raw("keys.jsonl").await?;
        let mut count = 0;
        loop {
            self.cx.checkpoint()?;
            let page =
                self.cx.unless_abandoned(patiently(|| self.against.keys(after.as_ref(), PAGE))).await?;
            if page.moved {
                return Err(moved(&*self.against));
            }
            for one in &page.keys {
                writer.write_json(&one.key).await?;
                count += 1;
            }
            self.show("listing", before + count);
            after = page.next;
            if after.is_none() || count >= KEYS * self.step.batch_size {
                break;
            }
        }
        let (came, keys) = (Came::Keys(writer.finish().await?), before + count);
        let next = match after {
            Some(after) => At::Keys { after: Some(after), keys },
            None => At::Listed { keys },
        };
        Ok((next, came, count))
    }

    async fn look(&self, offset: u64, before: u64, unknown: u64) -> Result<(At, Came, u64), StepError> {
        let candidates = self.candidates().await?;
        let Looked { targets, end, missing, unknown: unknowns } =
            look::batch(self.step, self.cx, &self.against, &candidates, offset).await?;
        let (count, unknown) = (targets, unknown + unknowns.len() as u64);
        if !missing.is_empty() {
            look::is_there(&*self.against, 1).await?;
        }
        look::not_too_many(self.step.max_unknown, unknown, unknowns.values())?;
        self.show("looking up", before + count);
        let unknown_texts =
            unknowns.into_iter().map(|(at, error)| (at, self.cx.redactor.text(&error.message)));
        let came = Came::Looked { count, missing, unknown: unknown_texts.collect() };
        Ok((At::Look { offset: end, looked: before + count, unknown }, came, count))
    }

    fn show(&self, note: &str, done: u64) {
        let (unit, note) = ("items".to_owned(), note.to_owned());
        self.cx.live.progress(Progress { done, total: None, unit, failed: 0, note });
    }

    /// How the two are compared, decided once.
    pub(super) async fn compare(&self, open: u64) -> Result<Compare, StepError> {
        if let Some(decided) = self.cx.ledger.recall(COMPARE).await? {
            return decode(&decided);
        }
        let decided = match self.step.compare {
            Compare::Auto if open <= FEW => Compare::Lookup,
            Compare::Auto => self.cheaper(open).await?,
            chosen => chosen,
        };
        decode(&self.cx.ledger.remember(COMPARE, encode(&decided)?).await?)
    }

    /// Counts the pages of the listing, as far as they may be fewer requests.
    async fn cheaper(&self, open: u64) -> Result<Compare, StepError> {
        let mut after = None;
        for _ in 0..open / WORTH {
            self.cx.checkpoint()?;
            let page =
                self.cx.unless_abandoned(patiently(|| self.against.keys(after.as_ref(), PAGE))).await?;
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(Compare::Listing),
            }
        }
        Ok(Compare::Lookup)
    }

    /// What is to be looked up, made once.
    pub(super) async fn candidates(&self) -> Result<Artifact, StepError> {
        if let Some(made) = self.cx.ledger.recall(CANDIDATES).await? {
            return decode(&made);
        }
        let made = match self.cx.ledger.recall(COMPARE).await? {
            Some(decided) if decode::<Compare>(&decided)? == Compare::Listing => self.not_listed().await?,
            _ => self.all_open().await?,
        };
        decode(&self.cx.ledger.remember(CANDIDATES, encode(&made)?).await?)
    }
}

fn moved(collection: &dyn Collection) -> StepError {
    StepError::transient(format!("{} changed while it was listed", collection.describe()))
}
