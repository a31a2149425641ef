//! The reference store: plain data behind one mutex, gone with the process. What it does is what a store must do.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    BatchRow, Charge, Fence, LedgerRow, NewRun, OpenObligation, RunRow, SettledRow, Store, StoreError, Write,
    rules,
};
use crate::event::Event;

/// Keeps runs in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    data: Mutex<Data>,
}

#[derive(Debug, Default)]
struct Data {
    runs: BTreeMap<String, Run>,
    /// The run that holds each lock key.
    locks: BTreeMap<String, String>,
    /// In the order they were opened.
    obligations: Vec<OpenObligation>,
}

#[derive(Debug)]
struct Run {
    row: RunRow,
    applies: Option<String>,
    /// Its place in the order of creation.
    number: usize,
    events: Vec<Event>,
    batches: BTreeMap<(String, u64), BatchRow>,
    facts: BTreeMap<(String, String), Value>,
    counters: BTreeMap<String, u64>,
}

/// Takes one change back.
type Undo = Box<dyn FnOnce(&mut Data) + Send>;

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Data {
    fn run(&mut self, run: &str) -> Result<&mut Run, StoreError> {
        self.runs.get_mut(run).ok_or_else(|| StoreError::NoSuchRun(run.to_owned()))
    }

    /// Takes the lock key for `run`, unless another unfinished run holds it.
    fn lock(&mut self, key: Option<String>, run: &str) -> Result<(), StoreError> {
        let Some(key) = key else { return Ok(()) };
        if let Some(holder) = self.locks.get(&key)
            && holder != run
            && self.runs.get(holder).is_some_and(|holder| !holder.row.status.is_final())
        {
            return Err(StoreError::Locked { key, run: holder.clone() });
        }
        self.locks.insert(key, run.to_owned());
        Ok(())
    }

    fn create(&mut self, new: NewRun) -> Result<(), StoreError> {
        if self.runs.contains_key(&new.id) {
            return Err(StoreError::Conflict);
        }
        let last_seq = rules::check_append(0, 0, std::slice::from_ref(&new.first))?;
        let applied = |run: &&Run| new.applies.is_some() && run.applies == new.applies;
        if let Some(run) = self.runs.values().find(applied) {
            return Err(StoreError::Applied { run: run.row.id.clone() });
        }
        self.lock(new.lock.clone(), &new.id)?;
        let row = RunRow {
            id: new.id.clone(),
            runbook: new.runbook,
            created_at: new.first.at,
            plan: new.plan,
            definition: new.definition,
            source_name: new.source_name,
            seed: new.seed,
            lock: new.lock,
            status: crate::state::RunStatus::Running,
            last_seq,
            epoch: 0,
            owner: None,
            lease_until: None,
        };
        let run = Run {
            row,
            applies: new.applies,
            number: self.runs.len(),
            events: vec![new.first],
            batches: BTreeMap::new(),
            facts: BTreeMap::new(),
            counters: BTreeMap::new(),
        };
        self.runs.insert(new.id, run);
        Ok(())
    }

    fn claim(&mut self, run: &str, owner: &str, now: Timestamp, until: Timestamp) -> Result<u64, StoreError> {
        let row = &self.run(run)?.row;
        if let Some((owner, until)) = row.live_owner(now) {
            return Err(StoreError::Busy { owner: owner.to_owned(), until });
        }
        let key = row.lock.clone();
        self.lock(key, run)?;
        let row = &mut self.run(run)?.row;
        row.epoch += 1;
        row.owner = Some(owner.to_owned());
        row.lease_until = Some(until);
        Ok(row.epoch)
    }

    fn commit(&mut self, run: &str, fence: Fence, writes: &[Write]) -> Result<(), StoreError> {
        rules::check_fence(fence, self.run(run)?.row.epoch, writes)?;
        let mut undo = Vec::new();
        for write in writes {
            if let Err(refusal) = self.apply(run, write, writes, &mut undo) {
                undo.into_iter().rev().for_each(|undo: Undo| undo(self));
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        id: &str,
        write: &Write,
        all: &[Write],
        undo: &mut Vec<Undo>,
    ) -> Result<(), StoreError> {
        let run = self.run(id)?;
        match write {
            Write::Append { after, events, status } => {
                let last = rules::check_append(run.row.last_seq, *after, events)?;
                undo.push(restore_row(&run.row));
                run.row.last_seq = last;
                run.row.status = *status;
                run.events.extend(events.iter().cloned());
                let (id, kept) = (id.to_owned(), run.events.len() - events.len());
                undo.push(Box::new(move |data| {
                    if let Some(run) = data.runs.get_mut(&id) {
                        run.events.truncate(kept);
                    }
                }));
            }
            Write::OpenObligation { id: name, obligation, hold_until } => {
                let opened_at = rules::opened_at(all, name, obligation, *hold_until);
                let new = OpenObligation {
                    run: id.to_owned(),
                    id: name.clone(),
                    obligation: obligation.clone(),
                    opened_at,
                    hold_until: *hold_until,
                };
                return self.open_obligation(new, undo);
            }
            Write::CloseObligation { id: name } => {
                if let Some(place) = self.obligations.iter().position(|one| one.run == id && one.id == *name)
                {
                    let closed = self.obligations.remove(place);
                    undo.push(Box::new(move |data| data.obligations.insert(place, closed)));
                }
            }
            Write::Intend { batch, charges } => return intend(id, run, batch, charges, undo),
            Write::Settle { .. } => return settle(id, run, write, undo),
            Write::Remember { step, name, value } => {
                let key = (step.clone(), name.clone());
                if let Entry::Vacant(place) = run.facts.entry(key.clone()) {
                    place.insert(value.clone());
                    undo.push(in_run(id, move |run| drop(run.facts.remove(&key))));
                }
            }
            Write::Renew { until } => {
                undo.push(restore_row(&run.row));
                if run.row.owner.is_some() {
                    run.row.lease_until = Some(*until);
                }
            }
            Write::Leave => {
                undo.push(restore_row(&run.row));
                run.row.owner = None;
                run.row.lease_until = None;
            }
            Write::Abandon => {
                undo.push(restore_row(&run.row));
                run.row.status = crate::state::RunStatus::Cancelled;
                (run.row.owner, run.row.lease_until) = (None, None);
                let (locks, held) = (self.locks.clone(), self.obligations.clone());
                self.locks.retain(|_, holder| holder != id);
                self.obligations.retain(|one| one.run != id);
                undo.push(Box::new(|data| (data.locks, data.obligations) = (locks, held)));
            }
            Write::Unlock => {
                let Some(key) = run.row.lock.clone() else { return Ok(()) };
                if self.locks.get(&key).is_some_and(|holder| holder == id) {
                    self.locks.remove(&key);
                    let id = id.to_owned();
                    undo.push(Box::new(move |data| drop(data.locks.insert(key, id))));
                }
            }
        }
        Ok(())
    }

    fn open_obligation(&mut self, new: OpenObligation, undo: &mut Vec<Undo>) -> Result<(), StoreError> {
        let in_the_way = |one: &&OpenObligation| {
            one.obligation.target == new.obligation.target || (one.run == new.run && one.id == new.id)
        };
        if let Some(held) = self.obligations.iter().find(in_the_way) {
            return Err(StoreError::Held { label: held.obligation.label.clone(), run: held.run.clone() });
        }
        self.obligations.push(new);
        undo.push(Box::new(|data| drop(data.obligations.pop())));
        Ok(())
    }
}

fn intend(
    id: &str,
    run: &mut Run,
    batch: &BatchRow,
    charges: &[Charge],
    undo: &mut Vec<Undo>,
) -> Result<(), StoreError> {
    let key = (batch.step.clone(), batch.batch);
    let Entry::Vacant(place) = run.batches.entry(key.clone()) else { return Err(StoreError::Conflict) };
    place.insert(BatchRow { settled: None, ..batch.clone() });
    undo.push(in_run(id, move |run| drop(run.batches.remove(&key))));
    charge(id, run, charges, undo)
}

/// Takes a [`Write::Settle`]; any other write settles nothing.
fn settle(id: &str, run: &mut Run, write: &Write, undo: &mut Vec<Undo>) -> Result<(), StoreError> {
    let Write::Settle { step, batch, cursor, outcome, done, already, failed, charges } = write else {
        return Ok(());
    };
    let key = (step.clone(), *batch);
    let row = run.batches.get_mut(&key).filter(|row| row.settled.is_none());
    let Some(row) = row else { return Err(StoreError::Conflict) };
    row.settled = Some(SettledRow {
        cursor: cursor.clone(),
        outcome: outcome.clone(),
        done: *done,
        already: *already,
        failed: *failed,
    });
    undo.push(in_run(id, move |run| {
        if let Some(row) = run.batches.get_mut(&key) {
            row.settled = None;
        }
    }));
    charge(id, run, charges, undo)
}

fn charge(id: &str, run: &mut Run, charges: &[Charge], undo: &mut Vec<Undo>) -> Result<(), StoreError> {
    for charge in charges {
        let before = run.counters.get(&charge.counter).copied();
        let total = rules::check_charge(before.unwrap_or(0), charge)?;
        run.counters.insert(charge.counter.clone(), total);
        let counter = charge.counter.clone();
        undo.push(in_run(id, move |run| match before {
            Some(before) => drop(run.counters.insert(counter, before)),
            None => drop(run.counters.remove(&counter)),
        }));
    }
    Ok(())
}

fn in_run(id: &str, change: impl FnOnce(&mut Run) + Send + 'static) -> Undo {
    let id = id.to_owned();
    Box::new(move |data| {
        if let Some(run) = data.runs.get_mut(&id) {
            change(run);
        }
    })
}

fn restore_row(row: &RunRow) -> Undo {
    let (status, last_seq, owner, lease_until) =
        (row.status, row.last_seq, row.owner.clone(), row.lease_until);
    in_run(&row.id, move |run| {
        run.row.status = status;
        run.row.last_seq = last_seq;
        run.row.owner = owner;
        run.row.lease_until = lease_until;
    })
}

/// The rows of one step's batches after number `after`, in order.
fn of_step<'a>(run: &'a Run, step: &str, after: u64) -> impl Iterator<Item = &'a BatchRow> {
    let step = step.to_owned();
    let first = (step.clone(), after.saturating_add(1));
    run.batches.range(first..).map(|(_, row)| row).take_while(move |row| row.step == step)
}

#[async_trait]
impl Store for MemoryStore {
    async fn create(&self, run: NewRun) -> Result<(), StoreError> {
        self.data().create(run)
    }

    async fn claim(
        &self,
        run: &str,
        owner: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<u64, StoreError> {
        self.data().claim(run, owner, now, until)
    }

    async fn commit(&self, run: &str, fence: Fence, writes: Vec<Write>) -> Result<(), StoreError> {
        self.data().commit(run, fence, &writes)
    }

    async fn run(&self, run: &str) -> Result<Option<RunRow>, StoreError> {
        Ok(self.data().runs.get(run).map(|run| run.row.clone()))
    }

    async fn runs(&self, limit: usize) -> Result<Vec<RunRow>, StoreError> {
        let data = self.data();
        let mut runs: Vec<&Run> = data.runs.values().collect();
        runs.sort_by_key(|run| std::cmp::Reverse((run.row.created_at, run.number)));
        let short = |run: &Run| RunRow { plan: String::new(), definition: String::new(), ..run.row.clone() };
        Ok(runs.into_iter().take(limit).map(short).collect())
    }

    async fn applied(&self, plan: &str) -> Result<Option<String>, StoreError> {
        let data = self.data();
        Ok(data.runs.values().find(|run| run.applies.as_deref() == Some(plan)).map(|run| run.row.id.clone()))
    }

    async fn events(&self, run: &str, after: u64) -> Result<Vec<Event>, StoreError> {
        let data = self.data();
        let Some(run) = data.runs.get(run) else { return Ok(Vec::new()) };
        Ok(run.events.iter().filter(|event| event.seq > after).cloned().collect())
    }

    async fn ledger(&self, run: &str, step: &str) -> Result<LedgerRow, StoreError> {
        let data = self.data();
        let mut ledger = LedgerRow::default();
        let Some(run) = data.runs.get(run) else { return Ok(ledger) };
        for row in of_step(run, step, 0) {
            ledger.last_batch = row.batch;
            match &row.settled {
                None => ledger.unsettled.push(row.clone()),
                Some(settled) => {
                    if ledger.unsettled.is_empty() {
                        ledger.cursor = Some(settled.cursor.clone());
                    }
                    ledger.done += settled.done;
                    ledger.already += settled.already;
                    ledger.failed += settled.failed;
                }
            }
        }
        Ok(ledger)
    }

    async fn batches(
        &self,
        run: &str,
        step: &str,
        after: u64,
        limit: usize,
        failed_only: bool,
    ) -> Result<Vec<BatchRow>, StoreError> {
        let data = self.data();
        let Some(run) = data.runs.get(run) else { return Ok(Vec::new()) };
        let failed = |row: &BatchRow| row.settled.as_ref().is_some_and(|settled| settled.failed > 0);
        let rows = of_step(run, step, after).filter(|row| !failed_only || failed(row));
        Ok(rows.take(limit).cloned().collect())
    }

    async fn recall(&self, run: &str, step: &str, name: &str) -> Result<Option<Value>, StoreError> {
        let key = (step.to_owned(), name.to_owned());
        Ok(self.data().runs.get(run).and_then(|run| run.facts.get(&key)).cloned())
    }

    async fn counter(&self, run: &str, counter: &str) -> Result<u64, StoreError> {
        Ok(self.data().runs.get(run).and_then(|run| run.counters.get(counter)).copied().unwrap_or(0))
    }

    async fn obligations(&self) -> Result<Vec<OpenObligation>, StoreError> {
        let mut open = self.data().obligations.clone();
        open.sort_by_key(|one| one.opened_at);
        Ok(open)
    }

    async fn close(&self) {}
}
