//! Building blocks of the tests.

use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use runbook_engine::duration::Duration;
use runbook_engine::event::{Event, EventKind, Obligation, ObligationChange};
use runbook_engine::state::RunStatus;
use runbook_engine::store::memory::MemoryStore;
use runbook_engine::store::sqlite::SqliteStore;
use runbook_engine::store::{BatchRow, Charge, Fence, NewRun, Store, StoreError, Write};
use serde_json::{Value, json};

pub enum Kind {
    Memory,
    Sqlite,
}

/// A fresh store; the folder lives as long as the test.
pub struct Fresh {
    pub store: Arc<dyn Store>,
    _folder: tempfile::TempDir,
}

pub async fn fresh(kind: &Kind) -> Fresh {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = match kind {
        Kind::Memory => Arc::new(MemoryStore::new()),
        Kind::Sqlite => Arc::new(open(&folder.path().join("state.db")).await),
    };
    Fresh { store, _folder: folder }
}

pub async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path).await.unwrap()
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_secs(second)
}

pub fn event(seq: u64) -> Event {
    let what = match seq {
        1 => EventKind::created("ada"),
        _ => EventKind::StepInterrupted { step: format!("step_{seq}") },
    };
    Event { seq, at: at(i64::try_from(seq).unwrap()), what }
}

pub fn new_run(id: &str, lock: Option<&str>) -> NewRun {
    NewRun {
        id: id.to_owned(),
        runbook: "reset".to_owned(),
        plan: "not even JSON: nobody decodes it here".to_owned(),
        definition: "runbook: reset\n".to_owned(),
        source_name: "reset.yaml".to_owned(),
        applies: None,
        seed: u64::MAX - 7,
        lock: lock.map(str::to_owned),
        first: event(1),
    }
}

pub async fn create(store: &dyn Store, id: &str) {
    store.create(new_run(id, None)).await.unwrap();
}

/// Creates a run and claims it for a long time.
pub async fn owned(store: &dyn Store, id: &str) -> Fence {
    create(store, id).await;
    Fence::Owner(store.claim(id, "me", at(0), at(1_000_000)).await.unwrap())
}

pub fn append(after: u64, status: RunStatus) -> Write {
    Write::Append { after, events: vec![event(after + 1)], status }
}

pub fn charge(counter: &str, amount: u64, max: Option<u64>) -> Charge {
    Charge { counter: counter.to_owned(), amount, max }
}

pub fn intend(step: &str, batch: u64, charges: Vec<Charge>) -> Write {
    let intent = json!({ "keys": [format!("{step}-{batch}"), "ü\u{0}\"\\"] });
    Write::Intend {
        batch: BatchRow { step: step.to_owned(), batch, intent, items: 2, settled: None },
        charges,
    }
}

pub fn settle(step: &str, batch: u64, cursor: Value, failed: u64) -> Write {
    Write::Settle {
        step: step.to_owned(),
        batch,
        cursor,
        outcome: json!({ "batch": batch }),
        done: 3,
        already: 2,
        failed,
        charges: Vec::new(),
    }
}

pub fn obligation(target: &str) -> Obligation {
    Obligation {
        step: "freeze".to_owned(),
        target: target.to_owned(),
        label: format!("the variable {target}"),
        original: json!({ "value": null }),
        replacement: json!("1"),
        max_hold: Duration::from_secs(60),
    }
}

pub fn open_obligation(id: &str, target: &str) -> Write {
    Write::OpenObligation { id: id.to_owned(), obligation: obligation(target), hold_until: at(100) }
}

/// The event that goes with an obligation.
pub fn opened(seq: u64, id: &str, target: &str) -> Write {
    let change = ObligationChange::Opened(Box::new(obligation(target)));
    let what = EventKind::Obligation { id: id.to_owned(), change };
    Write::Append {
        after: seq - 1,
        events: vec![Event { seq, at: at(41), what }],
        status: RunStatus::Running,
    }
}

pub async fn commit(
    store: &dyn Store,
    run: &str,
    fence: Fence,
    writes: Vec<Write>,
) -> Result<(), StoreError> {
    store.commit(run, fence, writes).await
}

/// A generator for seeded races: SplitMix64.
pub struct Lot(pub u64);

impl Lot {
    pub fn draw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}
