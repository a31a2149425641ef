//! What the loop does: starts and stops steps, releases obligations, and records what became of them.

use tokio_util::sync::CancellationToken;

use super::obligations::{Released, Request, Standing};
use super::run::{Loop, Running, Task, TaskEnd, Waiter};
use super::{DriveError, GRACE, Halt};
use crate::decide::Action;
use crate::error::{ErrorKind, StepError};
use crate::event::{Closed, EventKind, Obligation, ObligationChange};
use crate::expr;
use crate::kinds::Repeat;
use crate::plan::{PlannedStep, StepId};
use crate::scope;
use crate::state::ObligationPhase;
use crate::step::{History, Ledger, Obligations, Release, StepCall, StepContext, StepEnd};
use crate::store::{StoreError, Write};

/// How often a release that fails is tried by one process.
const RELEASE_ATTEMPTS: u32 = 4;

impl Loop {
    /// Does what was decided; whether the state changed, so that the rest must be decided anew.
    pub(super) async fn act(&mut self, actions: Vec<Action>) -> Result<bool, DriveError> {
        let mut changed = false;
        for action in actions {
            match action {
                Action::Record(event) => {
                    self.owner.record(event, Vec::new()).await?;
                    changed = true;
                }
                Action::RecordAll(events) => {
                    self.owner.record_all(events, Vec::new()).await?;
                    changed = true;
                }
                Action::Start { step, attempt } => {
                    let event = EventKind::StepStarted { step: step.clone(), attempt };
                    if self.owner.record(event, Vec::new()).await? {
                        self.start(&step, attempt).await?;
                    }
                    changed = true;
                }
                Action::Stop { step, error } => self.stop(&step, error),
                Action::Release { obligation } => {
                    changed |= self.release(&obligation, true).await?;
                }
            }
        }
        Ok(changed)
    }

    async fn start(&mut self, id: &str, attempt: u32) -> Result<(), DriveError> {
        let Some(step) = self.owner.plan.step(id).cloned() else { return Ok(()) };
        let scope = scope::of_step(&self.owner.plan, &self.owner.state, &self.info, &self.secrets);
        let call = match self.call(&step, &scope) {
            Ok(call) => call,
            Err(error) => return self.fail(step.id, error).await,
        };
        let stop = CancellationToken::new();
        let cx = self.context(&step, attempt, stop.clone());
        let executor = std::sync::Arc::clone(&self.executor);
        let name = step.id.clone();
        let abort = self.tasks.spawn(async move { TaskEnd::Step(name, executor.run(call, cx).await) });
        self.task_of.insert(abort.id(), Task::Step(step.id.clone()));
        self.running.insert(step.id, Running { stop, abort, stopping: None });
        Ok(())
    }

    fn call(&self, step: &PlannedStep, scope: &expr::Scope) -> Result<StepCall, StepError> {
        let with = expr::resolve_learning(&step.with, scope, &|secret| self.redactor.learn(secret));
        let with = with.map_err(|error| {
            StepError::invalid(format!("with{}: {}", error.pointer.replace('/', "."), error.message))
        })?;
        Ok(StepCall { id: step.id.clone(), uses: step.uses.clone(), with })
    }

    fn context(&self, step: &PlannedStep, attempt: u32, stop: CancellationToken) -> StepContext {
        let owner = &self.owner;
        let answers = owner.state.step(&step.id).map(|state| state.answers.clone()).unwrap_or_default();
        StepContext {
            run: self.info.clone(),
            step: step.id.clone(),
            attempt,
            answers,
            ledger: Ledger::new(
                owner.store.clone(),
                &owner.run,
                &step.id,
                owner.epoch,
                owner.plan.limits.clone(),
                step.limits.clone(),
            ),
            obligations: Obligations::new(&step.id, self.to_loop.clone()),
            artifacts: self.artifacts.clone(),
            scratch: self.scratch.clone(),
            live: self.live.step(&step.id),
            stop,
            redactor: self.redactor.clone(),
            history: History { plan: owner.plan.clone(), store: owner.store.clone(), run: owner.run.clone() },
        }
    }

    pub(super) fn stop(&mut self, id: &str, error: Option<StepError>) {
        if let Some(running) = self.running.get_mut(id)
            && running.stopping.is_none()
        {
            running.stop.cancel();
            running.stopping = Some((error, tokio::time::Instant::now()));
        }
    }

    /// Tells every step to stop; at once, when there is no time for the batch in flight.
    pub(super) fn stop_all(&mut self, halt: Halt) {
        let ids: Vec<StepId> = self.running.keys().cloned().collect();
        for id in ids {
            self.stop(&id, None);
        }
        if halt == Halt::Now {
            for running in self.running.values() {
                running.abort.abort();
            }
        }
    }

    /// Drops the steps that were told to stop and do not. A batch in flight is waited for when somebody asked gently.
    pub(super) fn drop_the_slow(&mut self) {
        if *self.halt.borrow() == Halt::Gently {
            return;
        }
        for running in self.running.values() {
            if running.stopping.as_ref().is_some_and(|(_, since)| since.elapsed() >= GRACE.0) {
                running.abort.abort();
            }
        }
    }

    pub(super) async fn step_ended(
        &mut self,
        step: StepId,
        result: Result<StepEnd, StepError>,
    ) -> Result<(), DriveError> {
        let stopped_for = self.running.remove(&step).and_then(|running| running.stopping);
        let event = match result {
            Ok(StepEnd::Done(outputs)) => {
                EventKind::StepSucceeded { step, outputs: self.redactor.value(&outputs) }
            }
            Ok(StepEnd::Ask(question)) => EventKind::Asked { step, question },
            Err(error) if error.kind == ErrorKind::Store => {
                // The store refused a write of the step: the loop's own next write tells why.
                self.owner.renew_now().await?;
                return self.fail(step, error).await;
            }
            Err(error) if error.kind == ErrorKind::Interrupted && error.rewind.is_none() => match stopped_for
            {
                Some((Some(reason), _)) => return self.fail(step, reason).await,
                _ => self.interrupted(step, error),
            },
            Err(error) => return self.fail(step, error).await,
        };
        self.owner.record(event, Vec::new()).await?;
        Ok(())
    }

    /// A step that stopped in the middle: one that may not be repeated has an unknown outcome then.
    fn interrupted(&self, step: StepId, error: StepError) -> EventKind {
        let repeat = self.owner.plan.step(&step).map(|step| step.effect.repeat);
        if repeat == Some(Repeat::Once) {
            EventKind::StepFailed { step, error: error.unknown() }
        } else {
            EventKind::StepInterrupted { step }
        }
    }

    pub(super) async fn step_crashed(
        &mut self,
        step: StepId,
        error: &tokio::task::JoinError,
    ) -> Result<(), DriveError> {
        let stopped_for = self.running.remove(&step).and_then(|running| running.stopping);
        if error.is_cancelled() {
            if let Some((Some(reason), _)) = stopped_for {
                return self.fail(step, reason).await;
            }
            let event = self.interrupted(step, StepError::interrupted());
            self.owner.record(event, Vec::new()).await?;
            return Ok(());
        }
        let error = StepError::new(ErrorKind::Bug, "the step panicked").with_source(error).unknown();
        self.fail(step, error).await
    }

    fn masked(&self, mut error: StepError) -> StepError {
        error.message = self.redactor.text(&error.message);
        error.help = error.help.map(|help| self.redactor.text(&help));
        error.causes = error.causes.iter().map(|cause| self.redactor.text(cause)).collect();
        error
    }

    async fn fail(&mut self, step: StepId, error: StepError) -> Result<(), DriveError> {
        let error = self.masked(error);
        self.owner.record(EventKind::StepFailed { step, error }, Vec::new()).await?;
        Ok(())
    }

    /// Begins to put back what an obligation changed; whether the state changed.
    async fn release(&mut self, id: &str, on_time: bool) -> Result<bool, DriveError> {
        let known = self.owner.state.obligations.get(id).filter(|one| one.is_open()).cloned();
        let Some(open) = known.filter(|_| !self.releasing.contains_key(id)) else { return Ok(false) };
        let Some(step) = self.owner.plan.step(&open.obligation.step).cloned() else { return Ok(false) };
        let applied = open.phase != ObligationPhase::Opened;
        let change = ObligationChange::Releasing;
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
                Ok(call) => keep_releasing(&*executor, call, &obligation, applied, &cx).await,
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
                    Release::Foreign(present) => Closed::Foreign { present: self.redactor.text(&present) },
                };
                let change = ObligationChange::Closed { how };
                let close = Write::CloseObligation { id: id.clone() };
                self.owner.record(EventKind::Obligation { id, change }, vec![close]).await?;
            }
            Err(error) => {
                self.unreleased.insert(id, self.masked(error));
            }
        }
        self.answer_waiters();
        Ok(())
    }

    fn answer_waiters(&mut self) {
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

    /// Answers what a step asked of the loop.
    pub(super) async fn requested(&mut self, request: Request) -> Result<(), DriveError> {
        match request {
            Request::Open(obligation, reply) => {
                let _ = reply.send(self.open(*obligation).await?);
            }
            Request::Applied(id, reply) => {
                let change = ObligationChange::Applied;
                self.owner.record(EventKind::Obligation { id, change }, Vec::new()).await?;
                let _ = reply.send(Ok(()));
            }
            Request::Find(step, reply) => {
                let _ = reply.send(Ok(self.standing(&step)));
            }
            Request::Release(step, reply) => {
                let ids: Vec<String> = self
                    .owner
                    .state
                    .open_obligations()
                    .filter(|(_, one)| one.obligation.step == step)
                    .map(|(id, _)| id.to_owned())
                    .collect();
                for id in &ids {
                    self.unreleased.remove(id);
                    self.release(id, false).await?;
                }
                self.waiters.push(Waiter { ids, reply });
                self.answer_waiters();
            }
        }
        Ok(())
    }

    fn standing(&self, step: &str) -> Option<Standing> {
        let (id, one) = self.owner.state.open_obligations().find(|(_, one)| one.obligation.step == step)?;
        Some(Standing {
            id: id.to_owned(),
            obligation: one.obligation.clone(),
            applied: one.phase != ObligationPhase::Opened,
        })
    }

    async fn open(&mut self, obligation: Obligation) -> Result<Result<String, StepError>, DriveError> {
        if self.redactor.value(&obligation.original) != obligation.original {
            let message =
                format!("the original value of {} holds a secret and can not be recorded", obligation.label);
            return Ok(Err(StepError::refused(message)));
        }
        let id = format!("{}-{}", obligation.step, self.owner.state.obligations.len() + 1);
        let hold_until = obligation.max_hold.after(self.owner.clock.now());
        let write = Write::OpenObligation { id: id.clone(), obligation: obligation.clone(), hold_until };
        let change = ObligationChange::Opened(Box::new(obligation));
        match self.owner.record(EventKind::Obligation { id: id.clone(), change }, vec![write]).await {
            Ok(_) => Ok(Ok(id)),
            Err(DriveError::Store(held @ StoreError::Held { .. })) => {
                let help = "resume or cancel that run first: it knows the original value";
                Ok(Err(held.for_step().with_help(help)))
            }
            Err(error) => Err(error),
        }
    }
}

/// Tries a release until it works or has failed often enough; a freeze that stays is worse than a moment's wait.
async fn keep_releasing(
    executor: &dyn crate::step::Executor,
    call: StepCall,
    obligation: &Obligation,
    applied: bool,
    cx: &StepContext,
) -> Result<Release, StepError> {
    let mut attempt = 1;
    loop {
        // An attempt that failed may have put the original back already: from then on it counts as begun.
        let begun = applied || attempt > 1;
        let result = executor.release(call.clone(), obligation, begun, cx.clone()).await;
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
