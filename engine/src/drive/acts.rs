//! What the loop does: starts and stops steps, and records what became of them.

use tokio_util::sync::CancellationToken;

use super::ground;
use super::obligations::{Request, Standing};
use super::run::{Loop, Running, Stopping, Task, TaskEnd, Waiter};
use super::{DriveError, GRACE, Halt, lazy};
use crate::decide::Action;
use crate::error::{ErrorKind, Outcome, StepError};
use crate::event::{EventKind, Obligation, ObligationChange, RunOutcome};
use crate::expr;
use crate::kinds::{Class, Repeat};
use crate::plan::{PlannedStep, StepId};
use crate::redact::Redactor;
use crate::scope;
use crate::step::{History, Ledger, Obligations, StepCall, StepContext, StepEnd};
use crate::store::{StoreError, Write};

impl Loop {
    /// Does what was decided; whether the state changed, so that the rest must be decided anew.
    pub(super) async fn act(&mut self, actions: Vec<Action>) -> Result<bool, DriveError> {
        let mut changed = false;
        for action in actions {
            match action {
                Action::Record(EventKind::RunEnded { outcome: RunOutcome::Cancelled, error }) => {
                    if let Some(tidied) = self.tidied().await? {
                        self.owner.record(tidied.ended(error), Vec::new()).await?;
                    }
                    changed = true;
                }
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
                        self.start(&step).await?;
                    }
                    changed = true;
                }
                Action::Stop { step, error } => {
                    self.stop(&step, error);
                    if let Some(running) = self.running.get(&step) {
                        running.abandon.cancel();
                    }
                }
                Action::Release { obligation } => {
                    changed |= self.release(&obligation, None).await?;
                }
                Action::Inspect { obligation } => self.inspect(&obligation),
            }
        }
        Ok(changed)
    }

    /// Starts a step: at once, or when what it stands on has been looked at.
    async fn start(&mut self, id: &str) -> Result<(), DriveError> {
        let Some(step) = self.owner.plan.step(id) else { return Ok(()) };
        let ground = match self.ground_of(step) {
            Ok(ground) => ground,
            Err(error) => return self.fail(id.to_owned(), error).await,
        };
        let systems = self.systems_of(step);
        if ground.is_empty() && systems.is_none() {
            return self.begin(id).await;
        }
        let (stop, name) = (CancellationToken::new(), id.to_owned());
        let (executor, stopped) = (std::sync::Arc::clone(&self.executor), stop.clone());
        let task = async move {
            let proven = match systems {
                Some(systems) => systems.same(&*executor).await,
                None => Ok(()),
            };
            let ground = match proven {
                Ok(()) => ground::prove(&*executor, &ground, &stopped).await,
                Err(error) => Err(error),
            };
            TaskEnd::Ground(name, ground)
        };
        self.spawn(id, stop, CancellationToken::new(), false, task);
        Ok(())
    }

    fn spawn(
        &mut self,
        id: &str,
        stop: CancellationToken,
        abandon: CancellationToken,
        begun: bool,
        task: impl Future<Output = TaskEnd> + Send + 'static,
    ) {
        let abort = self.tasks.spawn(task);
        self.task_of.insert(abort.id(), Task::Step(id.to_owned()));
        self.running.insert(id.to_owned(), Running { stop, abandon, abort, begun, stopping: None });
    }

    /// Runs the attempt that is recorded as started.
    pub(super) async fn begin(&mut self, id: &str) -> Result<(), DriveError> {
        let Some(step) = self.owner.plan.step(id).cloned() else { return Ok(()) };
        let attempt = self.owner.state.step(id).map_or(1, |state| state.attempt);
        let scope = scope::of_step(&self.owner.plan, &self.owner.state, &self.info, &self.secrets);
        let call = match self.call(&step, &scope) {
            Ok(call) => call,
            Err(error) => return self.fail(step.id, error).await,
        };
        if let Some(error) = self.unplanned(&step, &scope).await? {
            return self.fail(step.id, error).await;
        }
        let stop = CancellationToken::new();
        let cx = self.context(&step, attempt, stop.clone());
        let abandon = cx.abandon.clone();
        let executor = std::sync::Arc::clone(&self.executor);
        let name = step.id.clone();
        self.spawn(id, stop, abandon, true, async move { TaskEnd::Step(name, executor.run(call, cx).await) });
        Ok(())
    }

    pub(super) fn call(&self, step: &PlannedStep, scope: &expr::Scope) -> Result<StepCall, StepError> {
        lazy::call(step, self.executor.lazy_fields(&step.uses), scope, &self.redactor).map_err(|error| {
            StepError::invalid(format!("with{}: {}", error.pointer.replace('/', "."), error.message))
        })
    }

    pub(super) fn context(&self, step: &PlannedStep, attempt: u32, stop: CancellationToken) -> StepContext {
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
            abandon: CancellationToken::new(),
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

    /// A step does not run in this process any more: whether it was called, and what it was stopped for.
    pub(super) fn ended(&mut self, step: &str) -> (bool, Stopping) {
        self.running.remove(step).map_or((false, None), |running| (running.begun, running.stopping))
    }

    pub(super) async fn step_ended(
        &mut self,
        step: StepId,
        result: Result<StepEnd, StepError>,
    ) -> Result<(), DriveError> {
        let (_, stopped_for) = self.ended(&step);
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
                _ => self.interrupted(step, true, error),
            },
            Err(error) => return self.fail(step, error).await,
        };
        self.owner.record(event, Vec::new()).await?;
        Ok(())
    }

    /// A step that stopped in the middle: one that may not be repeated has an unknown outcome then.
    fn interrupted(&self, step: StepId, begun: bool, error: StepError) -> EventKind {
        let repeat = self.owner.plan.step(&step).map(|step| step.effect.repeat);
        if begun && repeat == Some(Repeat::Once) {
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
        let (begun, stopped_for) = self.ended(&step);
        if error.is_cancelled() {
            if let Some((Some(reason), _)) = stopped_for {
                return self.fail(step, reason).await;
            }
            let event = self.interrupted(step, begun, StepError::interrupted());
            self.owner.record(event, Vec::new()).await?;
            return Ok(());
        }
        let error = StepError::new(ErrorKind::Bug, "the step panicked").with_source(error).unknown();
        self.fail(step, error).await
    }

    pub(super) fn masked(&self, error: StepError) -> StepError {
        masked(&self.redactor, error)
    }

    async fn fail(&mut self, step: StepId, error: StepError) -> Result<(), DriveError> {
        let mut error = self.masked(error);
        // What only reads has no effect that could be there without anybody knowing.
        if self.owner.plan.step(&step).is_some_and(|step| step.effect.class == Class::Read) {
            error.outcome = Outcome::Failed;
        }
        self.owner.record(EventKind::StepFailed { step, error }, Vec::new()).await?;
        Ok(())
    }

    /// Answers what a step asked of the loop.
    pub(super) async fn requested(&mut self, request: Request) -> Result<(), DriveError> {
        match request {
            Request::Open(obligation, reply) => {
                let _ = reply.send(self.open(*obligation).await?);
            }
            Request::Change(id, change, reply) => {
                self.owner.record(EventKind::Obligation { id, change }, Vec::new()).await?;
                let _ = reply.send(Ok(()));
            }
            Request::Find(step, reply) => {
                let _ = reply.send(Ok(self.standing(&step)));
            }
            Request::Release { of: step, by, reply } => {
                let ids: Vec<String> = self
                    .owner
                    .state
                    .open_obligations()
                    .filter(|(_, one)| one.obligation.step == step)
                    .map(|(id, _)| id.to_owned())
                    .collect();
                for id in &ids {
                    self.unreleased.remove(id);
                    self.release(id, Some(by.clone())).await?;
                }
                self.waiters.push(Waiter { ids, reply });
                self.answer_waiters();
            }
        }
        Ok(())
    }

    fn standing(&self, step: &str) -> Option<Standing> {
        let (id, one) = self.owner.state.open_obligations().find(|(_, one)| one.obligation.step == step)?;
        Some(Standing { id: id.to_owned(), obligation: one.obligation.clone(), hold: one.hold() })
    }

    async fn open(&mut self, obligation: Obligation) -> Result<Result<String, StepError>, DriveError> {
        if self.redactor.value(&obligation.original) != obligation.original {
            let message =
                format!("the original value of {} holds a secret and can not be recorded", obligation.label);
            return Ok(Err(StepError::refused(message)));
        }
        if let Some(run) = self.elsewhere.get(&obligation.target) {
            let message = format!(
                "{} may still be held by run {run}, of which only its log knows: what is there now may not be its original value",
                obligation.label
            );
            return Ok(Err(StepError::refused(message).with_help(
                "put the newest copy of the state database back; or put the original back by hand, and end that run or move its folder away",
            )));
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

/// An error as it may be recorded and shown.
pub(super) fn masked(redactor: &Redactor, mut error: StepError) -> StepError {
    error.message = redactor.text(&error.message);
    error.help = error.help.map(|help| redactor.text(&help));
    error.causes = error.causes.iter().map(|cause| redactor.text(cause)).collect();
    error
}
