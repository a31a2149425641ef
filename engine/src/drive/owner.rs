//! The ownership of a run's events: the one place that appends.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::steady::Steady;
use super::{DriveError, Observer, POLL};
use crate::drive::{Clock, LEASE};
use crate::event::{Event, EventKind};
use crate::plan::Plan;
use crate::state::{RunState, RunStatus};
use crate::store::{Fence, Store, StoreError, Write};

/// A run that this process owns.
pub(super) struct Owner {
    pub store: Arc<dyn Store>,
    pub clock: Steady,
    pub run: String,
    pub plan: Arc<Plan>,
    pub state: RunState,
    pub epoch: u64,
    pub observer: Box<dyn Observer>,
    renewed_at: Instant,
    renew_by: Timestamp,
}

impl Owner {
    /// Claims the run and records the claim.
    pub async fn claim(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        run: &str,
        plan: Arc<Plan>,
        owner: &str,
        observer: Box<dyn Observer>,
    ) -> Result<Self, DriveError> {
        let (clock, renewed_at) = (Steady::new(clock), Instant::now());
        let now = clock.wall();
        let epoch = store.claim(run, owner, now, LEASE.after(now)).await?;
        let state = RunState::new(&plan);
        let run = run.to_owned();
        let mut this =
            Self { store, clock, run, plan, state, epoch, observer, renewed_at, renew_by: renew_by(now) };
        this.catch_up(false).await?;
        if this.state.epoch == epoch {
            let reason = "its row has an earlier epoch than its events".to_owned();
            return Err(StoreError::Corrupt { run: this.run, reason }.into());
        }
        this.clock.not_before(this.state.last_at);
        this.record(EventKind::RunClaimed { epoch, owner: owner.to_owned() }, Vec::new()).await?;
        Ok(this)
    }

    /// Takes in the events of other processes; whether there were any. Fenced when one of them has taken the run over.
    pub async fn catch_up(&mut self, show: bool) -> Result<bool, DriveError> {
        let events = self.store.events(&self.run, self.state.seq).await?;
        for event in &events {
            self.state.apply(&self.plan, event).map_err(|illegal| {
                DriveError::Store(StoreError::Corrupt { run: self.run.clone(), reason: illegal.0 })
            })?;
            if show {
                self.observer.changed(&self.state, event);
            }
        }
        // Another process may have claimed it before this one could say that it has.
        if self.state.epoch > self.epoch {
            return Err(StoreError::Fenced.into());
        }
        Ok(!events.is_empty())
    }

    /// Makes one event durable together with `writes`, then takes it in. False when events of others made it illegal: then
    /// nothing was written and the decision must be made anew.
    pub async fn record(&mut self, what: EventKind, writes: Vec<Write>) -> Result<bool, DriveError> {
        self.record_all(vec![what], writes).await
    }

    /// The same for several events, together or not at all.
    pub async fn record_all(&mut self, all: Vec<EventKind>, writes: Vec<Write>) -> Result<bool, DriveError> {
        let first_seen = self.state.seq;
        loop {
            let after = self.state.seq;
            let mut states = Vec::with_capacity(all.len());
            let mut events = Vec::with_capacity(all.len());
            let mut next = self.state.clone();
            for what in &all {
                let event = Event { seq: next.seq + 1, at: self.clock.now(), what: what.clone() };
                if let Err(illegal) = next.apply(&self.plan, &event) {
                    return if after == first_seen { Err(DriveError::Bug(illegal)) } else { Ok(false) };
                }
                events.push(event);
                states.push(next.clone());
            }
            let append = Write::Append { after, events: events.clone(), status: next.status };
            let together = std::iter::once(append).chain(writes.iter().cloned()).collect();
            match self.store.commit(&self.run, Fence::Owner(self.epoch), together).await {
                Ok(()) => {
                    for (state, event) in states.into_iter().zip(&events) {
                        tracing::debug!(run = self.run, seq = event.seq, epoch = self.epoch, "recorded");
                        self.state = state;
                        self.observer.changed(&self.state, event);
                    }
                    return Ok(true);
                }
                Err(StoreError::Conflict) => {
                    // What does not fit and is not because of others never will.
                    if !self.catch_up(true).await? {
                        let reason = "its row has another number of events".to_owned();
                        return Err(StoreError::Corrupt { run: self.run.clone(), reason }.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Extends the lease when a good part of it has passed.
    pub async fn renew(&mut self) -> Result<(), DriveError> {
        // A lease is written and judged by the clocks of processes, and extended whatever becomes of this one's clock.
        let set_forward = self.clock.wall() >= self.renew_by;
        if set_forward || self.renewed_at.elapsed() >= LEASE.0 / 3 { self.renew_now().await } else { Ok(()) }
    }

    /// Extends the lease, and finds out whether the store still takes this process for the owner.
    pub async fn renew_now(&mut self) -> Result<(), DriveError> {
        let (now, renewed_at) = (self.clock.wall(), Instant::now());
        let until = LEASE.after(now);
        self.store.commit(&self.run, Fence::Owner(self.epoch), vec![Write::Renew { until }]).await?;
        (self.renewed_at, self.renew_by) = (renewed_at, renew_by(now));
        tracing::debug!(run = self.run, epoch = self.epoch, %until, "lease extended");
        Ok(())
    }

    /// Gives the run up: whoever comes next need not wait for the lease. A waiting run says so in its row.
    pub async fn leave(&mut self, waiting: bool) -> Result<(), DriveError> {
        let mut writes = Vec::new();
        if waiting {
            let status = RunStatus::Waiting;
            writes.push(Write::Append { after: self.state.seq, events: Vec::new(), status });
        }
        let open = self.state.open_obligations().next().is_some();
        if self.state.status.is_final() || (self.state.status == RunStatus::Failed && !open) {
            writes.push(Write::Unlock);
        }
        writes.push(Write::Leave);
        match self.store.commit(&self.run, Fence::Owner(self.epoch), writes).await {
            // Somebody has just answered or cancelled: they, or the next resume, go on from there.
            Err(StoreError::Conflict) => {
                self.store.commit(&self.run, Fence::Owner(self.epoch), vec![Write::Leave]).await?;
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// How long to wait before looking for events of others again.
    pub fn poll() -> std::time::Duration {
        POLL.0
    }
}

/// When a lease written at `now` is extended, by the clock.
fn renew_by(now: Timestamp) -> Timestamp {
    crate::duration::Duration(LEASE.0 / 3).after(now)
}
