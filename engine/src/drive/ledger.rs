//! A step's write-ahead record: each batch is announced (durable), done, and settled (durable). On re-entry the step sees the
//! last settled cursor and the batches whose outcome nobody recorded.

use std::sync::Arc;

use serde_json::Value;

use crate::error::{ErrorKind, StepError};
use crate::plan::Limits;
use crate::store::{BatchRow, Charge, Fence, Store, StoreError, Write};

/// A batch about to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// What is about to be done, in the step's own form: enough to settle it after a crash. No secrets.
    pub what: Value,
    /// How many items it touches.
    pub items: u64,
    /// How many items count against the limits: those destroyed for the first time. 0 for batches that destroy nothing.
    pub charged_items: u64,
    /// How many bytes count against the limits.
    pub charged_bytes: u64,
}

/// A batch in the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Its number in the step, from 1.
    pub number: u64,
    /// What was about to be done.
    pub what: Value,
    /// How many items it touches.
    pub items: u64,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settlement {
    /// Where the step goes on after this batch.
    pub cursor: Value,
    /// What became of each key, in the step's own form. No secrets.
    pub outcome: Value,
    /// How many items had the effect.
    pub done: u64,
    /// How many needed none: already so.
    pub already: u64,
    /// How many failed.
    pub failed: u64,
}

/// Sums over a step's settled batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Items that had the effect.
    pub done: u64,
    /// Items that needed none.
    pub already: u64,
    /// Items that failed.
    pub failed: u64,
}

/// What a step finds when it is entered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LedgerView {
    /// Where to go on; absent when nothing was settled.
    pub cursor: Option<Value>,
    /// Batches announced whose outcome is unknown, by number. Settle them by reading the world before anything else.
    pub unsettled: Vec<Batch>,
    /// Sums so far.
    pub totals: Totals,
    /// The number of the last batch announced; 0 when there is none.
    pub last: u64,
}

/// The ledger of one step of one run. Clones share the numbering.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    run: String,
    step: String,
    epoch: u64,
    run_limits: Limits,
    step_limits: Limits,
    next: tokio::sync::Mutex<Option<u64>>,
}

/// The name under which the population is remembered.
const POPULATION: &str = "population";

/// The name under which it is remembered of what that is the population.
const POPULATION_OF: &str = "population of what";

/// What the run remembers is remembered under the id of no step.
const RUN: &str = "";

impl Ledger {
    /// The ledger of `step`, written under the ownership `epoch`.
    pub fn new(
        store: Arc<dyn Store>,
        run: &str,
        step: &str,
        epoch: u64,
        run_limits: Limits,
        step_limits: Limits,
    ) -> Self {
        let (run, step) = (run.to_owned(), step.to_owned());
        let next = tokio::sync::Mutex::new(None);
        Self { inner: Arc::new(Inner { store, run, step, epoch, run_limits, step_limits, next }) }
    }

    /// What is recorded so far.
    pub async fn view(&self) -> Result<LedgerView, StepError> {
        let i = &*self.inner;
        let row = i.store.ledger(&i.run, &i.step).await.map_err(|error| error.for_step())?;
        let last = row.last_batch;
        let unsettled = row.unsettled.into_iter().map(Batch::from_row).collect();
        let totals = Totals { done: row.done, already: row.already, failed: row.failed };
        Ok(LedgerView { cursor: row.cursor, unsettled, totals, last })
    }

    /// Announces a batch; when this returns, the announcement is durable and the limits allow it.
    pub async fn intend(&self, intent: Intent) -> Result<Batch, StepError> {
        let i = &*self.inner;
        let mut next = i.next.lock().await;
        let number = match *next {
            Some(number) => number,
            None => i.store.ledger(&i.run, &i.step).await.map_err(|error| error.for_step())?.last_batch + 1,
        };
        let row = BatchRow {
            step: i.step.clone(),
            batch: number,
            intent: intent.what.clone(),
            items: intent.items,
            settled: None,
        };
        if intent.charged_items > 0 || intent.charged_bytes > 0 {
            // A process that went on after too many had failed, or one beside it, must not destroy more. What failed may be tried again.
            self.check_errors().await?;
        }
        let charges = self.charges(&intent).await?;
        self.commit(Write::Intend { batch: row, charges }).await?;
        *next = Some(number + 1);
        Ok(Batch { number, what: intent.what, items: intent.items })
    }

    /// Whether the limits would let a step destroy so much, in a run of which nothing is done: it is charged like a batch, or with as much
    /// as there is room for. An error of kind limit that says which one it would cross.
    pub async fn foresee(&self, items: u64, bytes: u64) -> Result<(), StepError> {
        let intent = Intent { what: Value::Null, items, charged_items: items, charged_bytes: bytes };
        let charges = self.charges(&intent).await?;
        let crossed = match self.imagine(items, charges.clone()).await {
            Ok(()) => return Ok(()),
            Err(error @ StoreError::Limit { .. }) => error,
            Err(error) => return Err(error.for_step()),
        };
        let error = foreseen_error(&crossed, self.share(&crossed).await);
        let mut room = charges;
        for charge in &mut room {
            let i = &*self.inner;
            let present = i.store.counter(&i.run, &charge.counter).await.map_err(|error| error.for_step())?;
            charge.amount = charge.amount.min(charge.max.map_or(u64::MAX, |max| max.saturating_sub(present)));
        }
        // A run stops at the first limit, so that no counter goes on where another one is full.
        for kind in [":items", ":bytes"] {
            let least =
                room.iter().filter(|charge| charge.counter.ends_with(kind)).map(|charge| charge.amount).min();
            for charge in room.iter_mut().filter(|charge| charge.counter.ends_with(kind)) {
                charge.amount = least.unwrap_or_default();
            }
        }
        self.imagine(items, room).await.map_err(|error| error.for_step())?;
        Err(error)
    }

    async fn imagine(&self, items: u64, charges: Vec<Charge>) -> Result<(), StoreError> {
        let i = &*self.inner;
        let number = i.store.ledger(&i.run, &i.step).await?.last_batch + 1;
        let (step, intent) = (i.step.clone(), Value::Null);
        let batch = BatchRow { step, batch: number, intent, items, settled: None };
        i.store.commit(&i.run, Fence::Owner(i.epoch), vec![Write::Intend { batch, charges }]).await
    }

    /// Records what became of a batch; an error of kind limit when more items failed than may.
    pub async fn settle(&self, batch: u64, settlement: Settlement) -> Result<(), StepError> {
        let i = &*self.inner;
        let failed = settlement.failed;
        let charge = |counter: String| Charge { counter, amount: failed, max: None };
        let charges = if failed == 0 {
            Vec::new()
        } else {
            vec![charge("run:errors".to_owned()), charge(format!("step:{}:errors", i.step))]
        };
        self.commit(Write::Settle {
            step: i.step.clone(),
            batch,
            cursor: settlement.cursor,
            outcome: settlement.outcome,
            done: settlement.done,
            already: settlement.already,
            failed,
            charges,
        })
        .await?;
        if failed == 0 { Ok(()) } else { self.check_errors().await }
    }

    /// Records how many items there are before any is destroyed; the first figure recorded stands, and is returned. `of` names what was counted, the same in
    /// each step that destroys from it: a share that the run may destroy is one of what its first such step found.
    pub async fn measure(&self, population: u64, of: &str) -> Result<u64, StepError> {
        if self.inner.run_limits.max_percent.is_some() {
            let first =
                Write::Remember { step: RUN.to_owned(), name: population_of(of), value: population.into() };
            self.commit(first).await?;
        }
        self.destroys_from(of).await?;
        let stands = self.remember(POPULATION, Value::from(population)).await?;
        Ok(stands.as_u64().unwrap_or(population))
    }

    /// Records what the step destroys from, by a name that is the same in each step: what the run may destroy of that is a share of what its first step found.
    pub async fn destroys_from(&self, of: &str) -> Result<(), StepError> {
        if self.inner.run_limits.max_percent.is_some() {
            self.remember(POPULATION_OF, of.into()).await?;
        }
        Ok(())
    }

    /// Records a fact under a name, once; the fact that stands is returned.
    pub async fn remember(&self, name: &str, value: Value) -> Result<Value, StepError> {
        let i = &*self.inner;
        let write = Write::Remember { step: i.step.clone(), name: name.to_owned(), value: value.clone() };
        self.commit(write).await?;
        Ok(self.recall(name).await?.unwrap_or(value))
    }

    /// A fact recorded before, by this attempt or an earlier one.
    pub async fn recall(&self, name: &str) -> Result<Option<Value>, StepError> {
        let i = &*self.inner;
        i.store.recall(&i.run, &i.step, name).await.map_err(|error| error.for_step())
    }

    /// How many items this step was charged with so far, in all its attempts.
    pub async fn charged_items(&self) -> Result<u64, StepError> {
        let i = &*self.inner;
        let counter = format!("step:{}:items", i.step);
        i.store.counter(&i.run, &counter).await.map_err(|error| error.for_step())
    }

    /// The settled batches after number `after` that have failed items, at most `limit`, with their outcomes.
    pub async fn failures(&self, after: u64, limit: usize) -> Result<Vec<BatchRow>, StepError> {
        let i = &*self.inner;
        i.store.batches(&i.run, &i.step, after, limit, true).await.map_err(|error| error.for_step())
    }

    /// All batches after number `after`, at most `limit`, with their outcomes.
    pub async fn batches(&self, after: u64, limit: usize) -> Result<Vec<BatchRow>, StepError> {
        let i = &*self.inner;
        i.store.batches(&i.run, &i.step, after, limit, false).await.map_err(|error| error.for_step())
    }

    async fn commit(&self, write: Write) -> Result<(), StepError> {
        let i = &*self.inner;
        match i.store.commit(&i.run, Fence::Owner(i.epoch), vec![write]).await {
            Ok(()) => Ok(()),
            Err(error) => Err(limit_error(&error, self.share(&error).await)),
        }
    }

    /// Where the limit that was met is a share of what was counted, how it came about; none when that can not be read.
    async fn share(&self, error: &StoreError) -> Option<String> {
        let i = &*self.inner;
        let StoreError::Limit { counter, max, .. } = error else { return None };
        if let Some((of, population)) = self.of_run().await.ok()?
            && *counter == run_counter(&of)
        {
            return Some(format!(
                "max_percent {} of the {population} that there were first",
                i.run_limits.max_percent?
            ));
        }
        if *counter != format!("step:{}:items", i.step) || i.step_limits.max_items == Some(*max) {
            return None;
        }
        let population = self.recall(POPULATION).await.ok()??.as_u64()?;
        let mut scopes = [&i.step_limits, &i.run_limits].into_iter();
        let cause = scopes.find(|limits| percent(limits, Some(population)) == Some(*max))?;
        Some(format!("max_percent {} of {population}", cause.max_percent?))
    }

    async fn charges(&self, intent: &Intent) -> Result<Vec<Charge>, StepError> {
        let i = &*self.inner;
        let mut charges = Vec::new();
        if intent.charged_items > 0 {
            let population = self.recall(POPULATION).await?.and_then(|value| value.as_u64());
            let step_max = [most(&i.step_limits, population), percent(&i.run_limits, population)];
            charges.push(Charge {
                counter: "run:items".to_owned(),
                amount: intent.charged_items,
                max: i.run_limits.max_items,
            });
            charges.push(Charge {
                counter: format!("step:{}:items", i.step),
                amount: intent.charged_items,
                max: step_max.into_iter().flatten().min(),
            });
            if let Some((of, first)) = self.of_run().await? {
                charges.push(Charge {
                    counter: run_counter(&of),
                    amount: intent.charged_items,
                    max: percent(&i.run_limits, Some(first)),
                });
            }
        }
        if intent.charged_bytes > 0 {
            let charge = |counter: String, max| Charge { counter, amount: intent.charged_bytes, max };
            charges.push(charge("run:bytes".to_owned(), i.run_limits.max_bytes));
            charges.push(charge(format!("step:{}:bytes", i.step), i.step_limits.max_bytes));
        }
        Ok(charges)
    }

    /// What the step destroys from, and how much of it there was when the first step of the run counted it; nothing when no limit of the run is a share of that.
    async fn of_run(&self) -> Result<Option<(String, u64)>, StepError> {
        let i = &*self.inner;
        if i.run_limits.max_percent.is_none() {
            return Ok(None);
        }
        let Some(Value::String(of)) = self.recall(POPULATION_OF).await? else { return Ok(None) };
        let first =
            i.store.recall(&i.run, RUN, &population_of(&of)).await.map_err(|error| error.for_step())?;
        Ok(first.and_then(|first| first.as_u64()).map(|first| (of, first)))
    }

    async fn check_errors(&self) -> Result<(), StepError> {
        let i = &*self.inner;
        let step_counter = format!("step:{}:errors", i.step);
        let scopes = [("run:errors", &i.run_limits), (step_counter.as_str(), &i.step_limits)];
        for (counter, limits) in scopes {
            let Some(max) = limits.max_errors else { continue };
            let present = i.store.counter(&i.run, counter).await.map_err(|error| error.for_step())?;
            if present > max {
                let message = format!("{present} items failed, and max_errors is {max}");
                return Err(StepError::new(ErrorKind::Limit, message)
                    .with_help("no further batch is begun; what was done is recorded"));
            }
        }
        Ok(())
    }
}

impl Batch {
    fn from_row(row: BatchRow) -> Self {
        Self { number: row.batch, what: row.intent, items: row.items }
    }
}

/// Small sets are not rounded down to nothing: `max(1, floor(n · f))`; 0 percent means none at all.
fn percent(limits: &Limits, population: Option<u64>) -> Option<u64> {
    // All of it is no bound: keys may stand in one collection and not in another, so that they are more than either holds.
    let (percent, population) = (limits.max_percent.filter(|percent| *percent < 100.0)?, population?);
    if percent <= 0.0 {
        return Some(0);
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a population beyond 2^53 is beyond any run, and the product is neither negative nor above it"
    )]
    let share = (population as f64 * percent / 100.0).floor() as u64;
    Some(share.max(1))
}

fn most(limits: &Limits, population: Option<u64>) -> Option<u64> {
    [limits.max_items, percent(limits, population)].into_iter().flatten().min()
}

/// The name under which the run remembers how much there was of this first.
fn population_of(of: &str) -> String {
    format!("population of {of}")
}

/// The counter of what the run destroyed of this.
fn run_counter(of: &str) -> String {
    format!("run:{of}:items")
}

/// What a counter counts, and for what.
fn counted(counter: &str) -> (&'static str, &'static str) {
    let name = if counter.ends_with(":bytes") { "bytes" } else { "items" };
    (name, if counter.starts_with("run:") { "the run" } else { "the step" })
}

/// The limit that a step would cross of which nothing is done.
fn foreseen_error(error: &StoreError, share: Option<String>) -> StepError {
    let StoreError::Limit { counter, max, present, amount } = error else { return error.for_step() };
    let (name, scope) = counted(counter);
    let before =
        if *present == 0 { String::new() } else { format!(", after {present} of the steps before it") };
    let limit =
        share.map_or_else(|| format!("max_{name} of {scope}"), |share| format!("{share}, rounded down,"));
    let name = if *amount == 1 { name.trim_end_matches('s') } else { name };
    let message = format!("it would destroy {amount} {name}{before}, and {limit} is {max}");
    StepError::new(ErrorKind::Limit, message)
}

/// `share` says which share of what the limit is, when it is one.
fn limit_error(error: &StoreError, share: Option<String>) -> StepError {
    let StoreError::Limit { counter, max, present, amount } = error else { return error.for_step() };
    let (name, scope) = counted(counter);
    let share = share.map_or_else(String::new, |share| format!(" ({share})"));
    StepError::new(
        ErrorKind::Limit,
        format!(
            "{amount} more {name} would cross the limit of {max}{share} for {scope}; {present} are destroyed"
        ),
    )
    .with_help("the batch was not begun; what was done before it is recorded")
}
