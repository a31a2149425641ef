//! One run in one process: the turn of the loop.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio_util::sync::CancellationToken;

use super::ground::Grounded;
use super::obligations::{Released, Request};
use super::owner::Owner;
use super::{DriveError, Driver, Finish, Halt, LiveHub, People, Purpose};
use crate::artifact::Artifacts;
use crate::decide::{Action, View, decide};
use crate::error::{ErrorKind, StepError};
use crate::event::{Answer, EventKind, Question, RunOutcome};
use crate::plan::StepId;
use crate::redact::Redactor;
use crate::reopen::{reopen, reopen_final};
use crate::state::{RunStatus, StepStatus};
use crate::step::{Executor, Found, Release, RunInfo, StepEnd};
use crate::store::StoreError;
use crate::store::decode_plan;

/// How many requests of steps may wait for the loop.
const REQUESTS: usize = 64;

/// What a task of the loop comes to.
pub(super) enum TaskEnd {
    Step(StepId, Result<StepEnd, StepError>),
    /// What a step stands on was looked at before it began: it may begin, or what was found instead.
    Ground(StepId, Result<Grounded, StepError>),
    Release(String, bool, Result<Release, StepError>),
    Inspected(String, Result<Found, StepError>),
    Asked(StepId, Question, Option<String>),
}

/// What a task of the loop is about, for when it panics or is dropped.
pub(super) enum Task {
    Step(StepId),
    Release(String),
    Inspect(String),
    Ask,
}

/// A step that runs in this process.
pub(super) struct Running {
    pub stop: CancellationToken,
    pub abandon: CancellationToken,
    pub abort: AbortHandle,
    /// Whether the step itself was called, and not only what it stands on looked at.
    pub begun: bool,
    /// Set once it has been told to stop.
    pub stopping: Stopping,
}

/// With what a step that was told to stop then failed, if it did, and since when it is told.
pub(super) type Stopping = Option<(Option<StepError>, tokio::time::Instant)>;

/// Somebody who waits until these obligations are closed.
pub(super) struct Waiter {
    pub ids: Vec<String>,
    pub reply: oneshot::Sender<Result<Vec<Released>, StepError>>,
}

pub(super) struct Loop {
    pub owner: Owner,
    pub executor: Arc<dyn Executor>,
    pub people: Arc<dyn People>,
    pub live: LiveHub,
    pub artifacts: Artifacts,
    pub scratch: PathBuf,
    pub redactor: Redactor,
    pub secrets: BTreeMap<String, String>,
    pub halt: watch::Receiver<Halt>,
    /// The targets that runs may hold of which the store does not know.
    pub elsewhere: BTreeMap<String, String>,
    pub info: RunInfo,
    pub tasks: JoinSet<TaskEnd>,
    pub task_of: BTreeMap<Id, Task>,
    pub running: BTreeMap<StepId, Running>,
    pub releasing: BTreeMap<String, u32>,
    pub unreleased: BTreeMap<String, StepError>,
    pub inspected: BTreeMap<String, Timestamp>,
    pub inspecting: BTreeSet<String>,
    pub waiters: Vec<Waiter>,
    pub prompting: Option<StepId>,
    pub nobody: bool,
    /// Nothing but overdue obligations is dealt with.
    pub only_release: bool,
    pub requests: mpsc::Receiver<Request>,
    pub to_loop: mpsc::Sender<Request>,
}

impl Loop {
    /// Claims the run and records what it is entered for.
    pub async fn enter(driver: Driver, run: &str, purpose: Purpose) -> Result<Self, DriveError> {
        let row = driver.store.run(run).await?.ok_or_else(|| StoreError::NoSuchRun(run.to_owned()))?;
        let plan = Arc::new(decode_plan(&row)?);
        if row.status.is_final() {
            return Err(DriveError::Refused(format!("run {run} {} and can not go on", row.status.said())));
        }
        let mut owner =
            Owner::claim(driver.store, driver.clock, run, Arc::clone(&plan), &driver.owner, driver.observer)
                .await?;
        let failed = owner.state.status == RunStatus::Failed;
        // Who asked for the end of it does not go on; what could not be put back then may be now.
        let purpose = match owner.state.cancel.clone().filter(|_| failed && purpose == Purpose::Resume) {
            Some(by) => Purpose::Cancel(by),
            None => purpose,
        };
        let events = match &purpose {
            Purpose::GoOn | Purpose::Reconcile | Purpose::ByHand { .. } => Vec::new(),
            Purpose::Resume if failed => reopen(&plan, &owner.state),
            Purpose::Resume => Vec::new(),
            Purpose::Cancel(by) => {
                let mut events = vec![EventKind::CancelRequested { by: by.clone() }];
                events.extend(reopen_final(&plan, &owner.state));
                events
            }
            Purpose::Abandon(by) => {
                let error = owner.state.error.clone();
                let ended = EventKind::RunEnded { outcome: RunOutcome::Cancelled, error };
                vec![EventKind::CancelRequested { by: by.clone() }, ended]
            }
        };
        if !events.is_empty() {
            owner.record_all(events, Vec::new()).await?;
        }
        let (to_loop, requests) = mpsc::channel(REQUESTS);
        let info = RunInfo {
            id: row.id,
            runbook: row.runbook,
            created_at: row.created_at,
            by: owner.state.by.clone(),
            seed: row.seed,
        };
        let mut this = Self {
            owner,
            executor: driver.executor,
            people: driver.people,
            live: driver.live,
            artifacts: driver.artifacts,
            scratch: driver.scratch,
            redactor: driver.redactor,
            secrets: driver.secrets,
            halt: driver.halt,
            elsewhere: driver.elsewhere,
            info,
            tasks: JoinSet::new(),
            task_of: BTreeMap::new(),
            running: BTreeMap::new(),
            releasing: BTreeMap::new(),
            unreleased: BTreeMap::new(),
            inspected: BTreeMap::new(),
            inspecting: BTreeSet::new(),
            waiters: Vec::new(),
            prompting: None,
            nobody: false,
            only_release: purpose == Purpose::Reconcile,
            requests,
            to_loop,
        };
        if let Purpose::ByHand { obligation, by, abandon } = purpose
            && let Err(error) = this.by_hand(&obligation, by, abandon).await
        {
            this.owner.leave(false).await?;
            return Err(error);
        }
        Ok(this)
    }

    /// Decides, acts and waits until there is nothing left to do here.
    pub async fn turn(mut self) -> Result<Finish, DriveError> {
        let finish = self.work().await;
        if finish.is_err() {
            // Nothing may act on a run whose record can not be kept.
            self.tasks.abort_all();
        }
        finish
    }

    async fn work(&mut self) -> Result<Finish, DriveError> {
        loop {
            self.owner.renew().await?;
            let halt = *self.halt.borrow();
            let decision = decide(View {
                plan: &self.owner.plan,
                state: &self.owner.state,
                run: &self.info,
                now: self.owner.clock.now(),
                unreleased: &self.unreleased,
                inspected: &self.inspected,
            });
            if decision.ended {
                return self.finish(false).await;
            }
            if self.only_release {
                let releases =
                    decision.actions.into_iter().filter(|one| matches!(one, Action::Release { .. }));
                self.act(releases.collect()).await?;
                if self.releasing.is_empty() {
                    return self.finish(false).await;
                }
                self.wait(None).await?;
                continue;
            }
            if halt > Halt::No {
                self.stop_all(halt);
                // What is being put back is put back by whoever comes next, when there is no time for it now.
                if self.running.is_empty() && (self.releasing.is_empty() || halt == Halt::Now) {
                    return self.finish(false).await;
                }
            } else if self.act(decision.actions).await? {
                continue;
            } else if decision.waiting && self.running.is_empty() && self.releasing.is_empty() {
                self.prompt();
                if self.prompting.is_none() {
                    return self.finish(true).await;
                }
            } else {
                self.prompt();
            }
            self.wait(decision.wake_at).await?;
        }
    }

    async fn finish(&mut self, waiting: bool) -> Result<Finish, DriveError> {
        self.owner.leave(waiting).await?;
        let state = self.owner.state.clone();
        if matches!(state.status, RunStatus::Failed | RunStatus::Cancelled | RunStatus::Succeeded) {
            return Ok(Finish::Ended(state));
        }
        if waiting {
            let asking = state.steps.iter().filter(|(_, step)| step.status == StepStatus::Asking);
            let steps = asking.map(|(id, _)| id.clone()).collect();
            return Ok(Finish::Waiting(state, steps));
        }
        Ok(Finish::Halted(state))
    }

    /// Puts the first open question to the people, if nobody is asked yet and there is somebody.
    fn prompt(&mut self) {
        if self.prompting.is_some() || self.nobody {
            return;
        }
        let (plan, state) = (&self.owner.plan, &self.owner.state);
        let asking = state
            .steps
            .iter()
            .find(|(id, step)| step.status == StepStatus::Asking && state.takes_answers(plan, id));
        let Some((id, question)) = asking.and_then(|(id, step)| Some((id.clone(), step.question.clone()?)))
        else {
            return;
        };
        self.prompting = Some(id.clone());
        let people = Arc::clone(&self.people);
        let task = self.tasks.spawn(async move {
            let answer = people.ask(&id, &question).await;
            TaskEnd::Asked(id, question, answer)
        });
        self.task_of.insert(task.id(), Task::Ask);
    }

    /// Waits until something happens that may change the decision.
    async fn wait(&mut self, wake_at: Option<Timestamp>) -> Result<(), DriveError> {
        let now = self.owner.clock.now();
        let until_wake = wake_at
            .and_then(|at| std::time::Duration::try_from(at.duration_since(now)).ok())
            .unwrap_or(Owner::poll());
        tokio::select! {
            Some(ended) = self.tasks.join_next_with_id() => self.task_ended(ended).await?,
            Some(request) = self.requests.recv() => self.requested(request).await?,
            changed = self.halt.changed() => if changed.is_err() {
                // Nobody can ask for a stop any more; go on.
                tokio::time::sleep(Owner::poll()).await;
            },
            () = tokio::time::sleep(until_wake.min(Owner::poll())) => {
                self.owner.renew().await?;
                self.owner.catch_up(true).await?;
                self.drop_the_slow();
            }
        }
        Ok(())
    }

    async fn task_ended(
        &mut self,
        ended: Result<(Id, TaskEnd), tokio::task::JoinError>,
    ) -> Result<(), DriveError> {
        match ended {
            Ok((id, end)) => {
                self.task_of.remove(&id);
                match end {
                    TaskEnd::Step(step, result) => self.step_ended(step, result).await,
                    TaskEnd::Ground(step, result) => self.grounded(step, result).await,
                    TaskEnd::Release(id, expired, result) => self.release_ended(id, expired, result).await,
                    TaskEnd::Inspected(id, result) => self.inspected(id, result).await,
                    TaskEnd::Asked(step, question, answer) => self.answered(step, &question, answer).await,
                }
            }
            Err(error) => match self.task_of.remove(&error.id()) {
                Some(Task::Step(step)) => self.step_crashed(step, &error).await,
                Some(Task::Release(id)) => {
                    let bug = StepError::new(ErrorKind::Bug, "the release panicked").with_source(&error);
                    self.release_ended(id, false, Err(bug)).await
                }
                Some(Task::Inspect(id)) => {
                    let bug = StepError::new(ErrorKind::Bug, "the look at it panicked").with_source(&error);
                    self.inspected(id, Err(bug)).await
                }
                Some(Task::Ask) => {
                    (self.prompting, self.nobody) = (None, true);
                    Ok(())
                }
                None => Ok(()),
            },
        }
    }

    async fn answered(
        &mut self,
        step: StepId,
        question: &Question,
        answer: Option<String>,
    ) -> Result<(), DriveError> {
        self.prompting = None;
        let Some(text) = answer else {
            self.nobody = true;
            return Ok(());
        };
        // The question may have been answered elsewhere, or the run cancelled, while the prompt was open.
        self.owner.catch_up(true).await?;
        let open = self.owner.state.step(&step).filter(|state| state.status == StepStatus::Asking);
        if !self.owner.state.takes_answers(&self.owner.plan, &step) {
            return Ok(());
        }
        // An answer counts for the question that was shown; a prompt that was taken back has none.
        if text.is_empty() || open.is_none_or(|state| state.question.as_ref() != Some(question)) {
            return Ok(());
        }
        let text = self.redactor.text(&text);
        let answer = Answer { text, by: self.people.name(), at: self.owner.clock.now() };
        self.owner.record(EventKind::Answered { step, answer }, Vec::new()).await?;
        Ok(())
    }
}
