//! What the ledger says of each file: the fold of its batches.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runbook_engine::error::StepError;
use runbook_engine::step::{Batch, Intent, Settlement};
use runbook_engine::store::BatchRow;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::in_flight;
use crate::kind::Context;

/// A file about to be uploaded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Announced {
    /// How often the step had been reopened: what failed is tried again after that.
    pub(super) series: u32,
    pub(super) key: String,
    pub(super) name: String,
    pub(super) sha256: String,
    /// The session it is uploaded in; empty without sessions.
    pub(super) session: String,
    /// The id it had in a session that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replaces: Option<String>,
}

/// An announced file of which nobody recorded what became of it.
pub(super) struct Open {
    pub(super) batch: u64,
    pub(super) announced: Announced,
    /// As it stands in the ledger.
    pub(super) what: Value,
}

/// What became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Became {
    /// The server has it.
    Stored(Stored),
    /// It will not be stored; why.
    Failed(String),
    /// Nothing was stored, and it is to be tried again; why.
    Again(String),
}

/// A file that the server has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) id: String,
    pub(super) url: Option<String>,
    pub(super) mime_type: Option<String>,
    pub(super) session: String,
}

/// What is known of one file.
#[derive(Clone, Debug, Default)]
struct Known {
    stored: Option<Stored>,
    failed: Option<(u32, String)>,
}

/// What is known of all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    files: BTreeMap<String, Known>,
    /// How many uploads replaced one of an ended session.
    pub(super) replaced: u64,
}

impl Held {
    /// The fold of the ledger, with the batches that nobody settled.
    pub(super) async fn read(cx: &Context) -> Result<(Self, Vec<Open>), StepError> {
        let (mut held, mut open, mut after) = (Self::default(), Vec::new(), 0);
        loop {
            let rows = cx.ledger.batches(after, 500).await?;
            let Some(last) = rows.last() else { return Ok((held, open)) };
            after = last.batch;
            for row in rows {
                held.fold(row, &mut open)?;
            }
        }
    }

    fn fold(&mut self, row: BatchRow, open: &mut Vec<Open>) -> Result<(), StepError> {
        let unreadable =
            |error: serde_json::Error| StepError::refused("the ledger can not be read").with_source(&error);
        let announced = Announced::deserialize(&row.intent).map_err(unreadable)?;
        match row.settled {
            None => open.push(Open { batch: row.batch, announced, what: row.intent }),
            Some(settled) => {
                self.take(&announced, &serde_json::from_value(settled.outcome).map_err(unreadable)?);
            }
        }
        Ok(())
    }

    fn take(&mut self, announced: &Announced, became: &Became) {
        let known = self.files.entry(announced.key.clone()).or_default();
        match became {
            Became::Stored(stored) => {
                self.replaced += u64::from(announced.replaces.is_some());
                *known = Known { stored: Some(stored.clone()), failed: None };
            }
            Became::Failed(why) => known.failed = Some((announced.series, why.clone())),
            Became::Again(_) => {}
        }
    }

    /// Announces a file whose upload may take so long.
    pub(super) async fn intend(
        cx: &Context,
        announced: &Announced,
        takes: Duration,
    ) -> Result<Batch, StepError> {
        let what = in_flight::announced(json!(announced), takes);
        cx.ledger.intend(Intent { what, items: 1, charged_items: 0, charged_bytes: 0 }).await
    }

    /// Records what became of it.
    pub(super) async fn settle(
        &mut self,
        cx: &Context,
        batch: u64,
        announced: &Announced,
        became: Became,
    ) -> Result<(), StepError> {
        let failed = matches!(became, Became::Failed(_));
        let done = matches!(became, Became::Stored(_));
        let outcome = cx.redactor.value(&json!(became));
        let settlement = Settlement {
            cursor: Value::Null,
            outcome,
            done: u64::from(done),
            already: 0,
            failed: u64::from(failed),
        };
        self.take(announced, &became);
        cx.ledger.settle(batch, settlement).await
    }

    /// The file as the server has it, in whatever session.
    pub(super) fn stored(&self, key: &str) -> Option<&Stored> {
        self.files.get(key)?.stored.as_ref()
    }

    /// Why it failed since the step was last reopened.
    pub(super) fn failed(&self, key: &str, series: u32) -> Option<&str> {
        let (when, why) = self.files.get(key)?.failed.as_ref()?;
        (*when == series).then_some(why.as_str())
    }

    /// The ids of every file that the server has.
    pub(super) fn ids(&self) -> BTreeSet<String> {
        self.files.values().filter_map(|known| Some(known.stored.as_ref()?.id.clone())).collect()
    }

    /// A link with `{id}` for its id, learnt from one that holds its id.
    pub(super) fn link(&self) -> Option<String> {
        self.files.values().find_map(|known| {
            let stored = known.stored.as_ref()?;
            let url = stored.url.as_ref()?;
            url.contains(&stored.id).then(|| url.replace(&stored.id, "{id}"))
        })
    }
}
