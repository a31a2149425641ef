//! Putting back what was changed for the time of the run.

use tokio_util::sync::CancellationToken;

use super::DriveError;
use super::obligations::Released;
use super::run::{Loop, Task, TaskEnd};
use crate::error::StepError;
use crate::event::{Closed, EventKind, Obligation, ObligationChange};
use crate::plan::StepId;
use crate::scope;
use crate::state::ObligationPhase;
use crate::step::{Executor, Hold, Release, StepCall, StepContext};
use crate::store::Write;

/// How often a release that fails is tried by one process.
const RELEASE_ATTEMPTS: u32 = 4;

impl Loop {
    /// Begins to put back what an obligation changed, for a step that asks for it or because it is over; whether the state changed.
    pub(super) async fn release(&mut self, id: &str, by: Option<StepId>) -> Result<bool, DriveError> {
        let known = self.owner.state.obligations.get(id).filter(|one| one.is_open()).cloned();
        let Some(open) = known.filter(|_| !self.releasing.contains_key(id)) else { return Ok(false) };
        let Some(step) = self.owner.plan.step(&open.obligation.step).cloned() else { return Ok(false) };
        let hold = open.hold();
        let on_time = by.is_none();
        let change = ObligationChange::Releasing { by };
        self.owner.record(EventKind::Obligation { id: id.to_owned(), change }, Vec::new()).await?;
        let expired = on_time && self.owner.clock.now() >= open.hold_until();
        let scope = scope::of_release(&self.owner.plan, &self.owner.state, &self.info, &self.secrets);
        let call = self.call(&step, &scope);
        let cx = self.context(&step, 0, CancellationToken::new());
        let executor = std::sync::Arc::clone(&self.executor);
        let (name, obligation) = (id.to_owned(), open.obligation);
        self.releasing.insert(name.clone(), 1);
        let task = self.tasks.spawn(async move {
            let result = match call {
                Ok(call) => keep_releasing(&*executor, call, &obligation, hold, &cx).await,
                Err(error) => Err(error),
            };
            TaskEnd::Release(name, expired, result)
        });
        self.task_of.insert(task.id(), Task::Release(id.to_owned()));
        Ok(true)
    }

    pub(super) async fn release_ended(
        &mut self,
        id: String,
        expired: bool,
        result: Result<Release, StepError>,
    ) -> Result<(), DriveError> {
        self.releasing.remove(&id);
        match result {
            Ok(release) => {
                let how = match release {
                    Release::Restored if expired => Closed::Expired,
                    Release::Restored => Closed::Restored,
                    Release::Untouched => Closed::Untouched,
                    Release::Undone => Closed::Undone,
                    Release::Foreign(present) => Closed::Foreign { present: self.redactor.text(&present) },
                };
                self.close(id, how).await?;
            }
            Err(error) => {
                let error = self.masked(error);
                let change = ObligationChange::Stuck { error: error.clone() };
                self.owner.record(EventKind::Obligation { id: id.clone(), change }, Vec::new()).await?;
                self.unreleased.insert(id, error);
            }
        }
        self.answer_waiters();
        Ok(())
    }

    /// Records that an obligation is over, and lets its target go.
    pub(super) async fn close(&mut self, id: String, how: Closed) -> Result<(), DriveError> {
        let change = ObligationChange::Closed { how };
        let close = Write::CloseObligation { id: id.clone() };
        self.owner.record(EventKind::Obligation { id, change }, vec![close]).await?;
        Ok(())
    }

    pub(super) fn answer_waiters(&mut self) {
        let waiters = std::mem::take(&mut self.waiters);
        for waiter in waiters {
            let failed = waiter.ids.iter().find_map(|id| self.unreleased.get(id));
            let closed: Vec<Released> = waiter.ids.iter().filter_map(|id| self.released(id)).collect();
            if let Some(error) = failed {
                let _ = waiter.reply.send(Err(error.clone()));
            } else if closed.len() == waiter.ids.len() {
                let _ = waiter.reply.send(Ok(closed));
            } else {
                self.waiters.push(waiter);
            }
        }
    }

    fn released(&self, id: &str) -> Option<Released> {
        let one = self.owner.state.obligations.get(id)?;
        match &one.phase {
            ObligationPhase::Closed(how) => {
                Some(Released { obligation: one.obligation.clone(), how: how.clone() })
            }
            _ => None,
        }
    }
}

/// Tries a release until it works or has failed often enough; a freeze that stays is worse than a moment's wait.
async fn keep_releasing(
    executor: &dyn Executor,
    call: StepCall,
    obligation: &Obligation,
    hold: Hold,
    cx: &StepContext,
) -> Result<Release, StepError> {
    let mut attempt = 1;
    loop {
        // An attempt that failed may have put the original back already: that was not somebody else then.
        let hold = if attempt > 1 && hold == Hold::Applied { Hold::Releasing } else { hold };
        let result = executor.release(call.clone(), obligation, hold, cx.clone()).await;
        match result {
            Err(error) if error.kind.retryable() && attempt < RELEASE_ATTEMPTS => {
                cx.live.say(&format!("{error}; trying again"));
                tokio::time::sleep(std::time::Duration::from_secs(u64::from(attempt))).await;
                attempt += 1;
            }
            other => return other,
        }
    }
}
