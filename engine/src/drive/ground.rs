//! What a destroying step stands on: every freeze that holds is looked at before the step begins, and while it runs. Somebody may
//! have put the original back while the run waited for a person, or while no process worked on it.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::DriveError;
use super::run::{Loop, Task, TaskEnd};
use crate::decide::needs_ground;
use crate::error::{ErrorKind, Outcome, StepError};
use crate::event::{EventKind, Obligation, ObligationChange};
use crate::plan::{PlannedStep, StepId};
use crate::scope;
use crate::step::{Executor, Found, Look, StepCall, StepContext};

/// How often a look that fails is tried before a step that needs it is not begun.
const LOOKS: u32 = 3;

/// What was found before a step that destroys.
pub(super) enum Grounded {
    /// Everything holds.
    Holds,
    /// This obligation does not; what was found, in words.
    Lost(String, String),
}

/// An obligation that is to be looked at, with what its step needs for that.
pub(super) struct Looked {
    id: String,
    obligation: Obligation,
    call: StepCall,
    cx: StepContext,
}

impl Looked {
    async fn look(&self, executor: &dyn Executor, look: Look) -> Result<Found, StepError> {
        executor.inspect(self.call.clone(), &self.obligation, look, self.cx.clone()).await
    }
}

/// What was found, in words; none when it is as it should be.
fn words(found: &Found, obligation: &Obligation) -> Option<String> {
    match found {
        Found::InForce => None,
        Found::Ineffective(how) => Some(how.clone()),
        Found::Original => Some(format!("somebody put the original value of {} back", obligation.label)),
        Found::Foreign(present) => Some(format!("somebody else changed {} to {present}", obligation.label)),
    }
}

/// Looks at each, thoroughly; the first that does not hold.
pub(super) async fn prove(
    executor: &dyn Executor,
    all: &[Looked],
    stop: &CancellationToken,
) -> Result<Grounded, StepError> {
    for one in all {
        let mut tries = 1;
        let found = loop {
            if stop.is_cancelled() {
                return Err(StepError::interrupted());
            }
            match one.look(executor, Look::Proof).await {
                Err(error) if error.kind.retryable() && tries < LOOKS => {
                    one.cx.live.say(&format!("{error}; looking again"));
                    tokio::time::sleep(Duration::from_secs(u64::from(tries))).await;
                    tries += 1;
                }
                Err(error) => return Err(unclear(&one.obligation, error)),
                Ok(found) => break found,
            }
        };
        if let Some(found) = words(&found, &one.obligation) {
            return Ok(Grounded::Lost(one.id.clone(), found));
        }
    }
    Ok(Grounded::Holds)
}

fn unclear(obligation: &Obligation, error: StepError) -> StepError {
    let message = format!(
        "not begun: it can not be told whether {} is still held: {}",
        obligation.label, error.message
    );
    StepError { message, ..error }
}

impl Loop {
    /// What has to be looked at before this step begins.
    pub(super) fn ground_of(&self, step: &PlannedStep) -> Result<Vec<Looked>, StepError> {
        if !needs_ground(&self.owner.plan, step) {
            return Ok(Vec::new());
        }
        let ids: Vec<String> = self.owner.state.ground().map(|(id, _)| id.to_owned()).collect();
        ids.iter().filter_map(|id| self.looked(id).transpose()).collect()
    }

    fn looked(&self, id: &str) -> Result<Option<Looked>, StepError> {
        let Some(one) = self.owner.state.obligations.get(id) else { return Ok(None) };
        let Some(step) = self.owner.plan.step(&one.obligation.step) else { return Ok(None) };
        let scope = scope::of_release(&self.owner.plan, &self.owner.state, &self.info, &self.secrets);
        Ok(Some(Looked {
            id: id.to_owned(),
            obligation: one.obligation.clone(),
            call: self.call(step, &scope)?,
            cx: self.context(step, 0, CancellationToken::new()),
        }))
    }

    /// What a step stands on was looked at: it begins, or ends without having done anything.
    pub(super) async fn grounded(
        &mut self,
        step: StepId,
        result: Result<Grounded, StepError>,
    ) -> Result<(), DriveError> {
        let (_, stopped_for) = self.ended(&step);
        let now = self.owner.clock.now();
        let events = match (result, stopped_for) {
            (_, Some((Some(error), _))) => vec![self.not_begun(step, error)],
            (Ok(Grounded::Holds), None) => {
                let held: Vec<String> = self.owner.state.ground().map(|(id, _)| id.to_owned()).collect();
                self.inspected.extend(held.into_iter().map(|id| (id, now)));
                return self.begin(&step).await;
            }
            (Ok(Grounded::Lost(id, found)), _) => {
                let lost = self.lost(&id, &found);
                let failed = self.not_begun(step, StepError::gate(format!("not begun: {found}")));
                // Released meanwhile, it is not lost but over.
                let held = self.owner.state.ground().any(|(one, _)| one == id);
                held.then_some(lost).into_iter().chain([failed]).collect()
            }
            (Err(error), None) if error.kind != ErrorKind::Interrupted => vec![self.not_begun(step, error)],
            _ => vec![EventKind::StepInterrupted { step }],
        };
        self.owner.record_all(events, Vec::new()).await?;
        Ok(())
    }

    /// Nothing was done yet, so nothing about it is unknown.
    fn not_begun(&self, step: StepId, error: StepError) -> EventKind {
        EventKind::StepFailed { step, error: StepError { outcome: Outcome::Failed, ..self.masked(error) } }
    }

    fn lost(&self, id: &str, found: &str) -> EventKind {
        let change = ObligationChange::Lost { found: self.redactor.text(found) };
        EventKind::Obligation { id: id.to_owned(), change }
    }

    /// Looks at an obligation beside the steps that stand on it.
    pub(super) fn inspect(&mut self, id: &str) {
        if self.inspecting.contains(id) {
            return;
        }
        let Ok(Some(looked)) = self.looked(id) else { return };
        self.inspecting.insert(id.to_owned());
        let executor = Arc::clone(&self.executor);
        let task = self.tasks.spawn(async move {
            let found = looked.look(&*executor, Look::Value).await;
            TaskEnd::Inspected(looked.id, found)
        });
        self.task_of.insert(task.id(), Task::Inspect(id.to_owned()));
    }

    /// One that can not be read this time is looked at again the next time; it was proven when the step began.
    pub(super) async fn inspected(
        &mut self,
        id: String,
        result: Result<Found, StepError>,
    ) -> Result<(), DriveError> {
        self.inspecting.remove(&id);
        self.inspected.insert(id.clone(), self.owner.clock.now());
        let held = self.owner.state.ground().find(|(one, _)| *one == id);
        let Some(obligation) = held.map(|(_, one)| one.obligation.clone()) else { return Ok(()) };
        match result {
            Ok(found) => {
                if let Some(found) = words(&found, &obligation) {
                    let event = self.lost(&id, &found);
                    self.owner.record(event, Vec::new()).await?;
                }
            }
            Err(error) => {
                let live = self.live.step(&obligation.step);
                live.say(&format!("{} could not be looked at: {error}", obligation.label));
            }
        }
        Ok(())
    }

    /// Takes note that a person put back what an obligation changed, when the original is there; or that a person gives the hold up,
    /// when the run's own value is not plainly there.
    pub(super) async fn by_hand(&mut self, id: &str, by: String, abandon: bool) -> Result<(), DriveError> {
        let refused = |why: String| Err(DriveError::Refused(why));
        let open = self.owner.state.obligations.get(id).filter(|one| one.is_open()).cloned();
        let Some(open) = open else { return refused(format!("{id} is not held any more")) };
        let label = &open.obligation.label;
        let found = match self.looked(id) {
            Ok(Some(looked)) => looked.look(&*self.executor, Look::Back).await,
            Ok(None) => return refused(format!("{label} belongs to no step of the run")),
            Err(error) => Err(error),
        };
        let other = match found {
            Ok(Found::Original) => None,
            Ok(Found::Foreign(present)) => Some(self.redactor.text(&present)),
            Ok(Found::InForce | Found::Ineffective(_)) => {
                let run = &self.info.id;
                return refused(format!(
                    "{label} still has the value of the run; nothing was recorded. Put the original value back first, or let the run \
                     do that: `runbook resume {run}` does when it comes to it, and `runbook cancel {run}` ends the run"
                ));
            }
            Err(error) => Some(format!("it can not be told: {}", self.masked(error).message)),
        };
        if let Some(other) = other.as_ref().filter(|_| !abandon) {
            return refused(format!(
                "{label} is not seen to be back ({other}); nothing was recorded. Put it back, or answer `abandon` to give it up \
                 as it is"
            ));
        }
        self.close(id.to_owned(), crate::event::Closed::ByHand { by: by.clone(), other }).await?;
        // A run that was to be cancelled is, now that nothing is in the way.
        if self.owner.state.cancel.is_some() {
            let mut events = vec![EventKind::CancelRequested { by }];
            events.extend(crate::reopen::reopen_final(&self.owner.plan, &self.owner.state));
            self.owner.record_all(events, Vec::new()).await?;
        }
        Ok(())
    }
}
