//! The state of a run: the fold of its events. It changes only in [`RunState::apply`], which refuses what is illegal.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{ErrorKind, Outcome, StepError};
use crate::event::{Answer, Event, EventKind, ObligationChange, Question, RunOutcome};
use crate::kinds::Repeat;
use crate::plan::{Plan, StepId};

pub use crate::obligation::{LetGo, ObligationPhase, ObligationState};

/// Where a run stands, as its events say. Whether a process is working on it is a matter of leases, not of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunStatus {
    /// It has not ended.
    #[default]
    Running,
    /// Nothing goes on until a person answers.
    Waiting,
    /// It failed; an explicit resume goes on.
    Failed,
    /// It was cancelled; this is final.
    Cancelled,
    /// All was done; this is final.
    Succeeded,
}

impl RunStatus {
    /// Whether nothing can happen to the run any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Cancelled | Self::Succeeded)
    }

    /// The kebab-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Succeeded => "succeeded",
        }
    }

    /// How it is said of a run, after its name.
    pub fn said(self) -> &'static str {
        match self {
            Self::Running => "is running",
            Self::Waiting => "waits for a person",
            Self::Failed => "has failed",
            Self::Cancelled => "was cancelled",
            Self::Succeeded => "has succeeded",
        }
    }
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepStatus {
    /// It has not started.
    #[default]
    Pending,
    /// An attempt is under way.
    Running,
    /// It waits for a person.
    Asking,
    /// The answer is there, and the step has not gone on yet.
    Answered,
    /// It stopped at a safe place, or its process ended; it goes on from its ledger.
    Interrupted,
    /// It is done.
    Succeeded,
    /// The last attempt failed.
    Failed,
    /// Its `if` was false.
    Skipped,
}

impl StepStatus {
    /// Every status, as expressions see it.
    pub const NAMES: &'static [&'static str] =
        &["succeeded", "failed", "skipped", "pending", "running", "asking", "answered", "interrupted"];
}

/// A step's part of the state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepState {
    /// Where it stands.
    pub status: StepStatus,
    /// How many attempts began.
    pub attempt: u32,
    /// How many attempts failed since it was last reopened: what `max_attempts` bounds.
    pub failures: u32,
    /// When the first attempt since the last reopening began.
    pub first_started_at: Option<Timestamp>,
    /// When the first attempt began since it last succeeded, resumes included: what the limit `max_duration` bounds.
    pub begun_at: Option<Timestamp>,
    /// When the last attempt began.
    pub started_at: Option<Timestamp>,
    /// When it last ended, in any way.
    pub ended_at: Option<Timestamp>,
    /// Its outputs of the last time it succeeded; they count only while its status says so, see [`StepState::outputs`].
    pub last_outputs: Option<Value>,
    /// Why the last attempt failed.
    pub error: Option<StepError>,
    /// What a person is asked.
    pub question: Option<Question>,
    /// What a person answered, oldest first.
    pub answers: Vec<Answer>,
    /// Whether it has had its effect, and a person was asked whether to do it again: no attempt began since.
    pub took_effect: bool,
    /// How often it was reopened.
    pub reopened: u32,
    /// Why it was skipped.
    pub skipped: Option<String>,
}

impl StepState {
    /// Its outputs, if it has succeeded and was not reopened since.
    pub fn outputs(&self) -> Option<&Value> {
        self.last_outputs.as_ref().filter(|_| self.status == StepStatus::Succeeded)
    }

    /// Whether it ended and nothing but a reopening starts it again.
    pub fn is_over(&self) -> bool {
        matches!(self.status, StepStatus::Succeeded | StepStatus::Skipped)
    }
}

/// The state of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunState {
    /// The number of the last event.
    pub seq: u64,
    /// The latest time that an event has.
    pub last_at: Timestamp,
    /// Where the run stands.
    pub status: RunStatus,
    /// Who asked for it.
    pub by: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When a process first took it up.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The fencing number of the last ownership.
    pub epoch: u64,
    /// How many processes took it up.
    pub claims: u32,
    /// Each step, by id.
    pub steps: BTreeMap<StepId, StepState>,
    /// Each obligation ever taken on, by id.
    pub obligations: BTreeMap<String, ObligationState>,
    /// Who asked for the run to be cancelled.
    pub cancel: Option<String>,
    /// Why the run failed, when no step says it.
    pub error: Option<StepError>,
}

/// An event that can not have happened in this state; the words say why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Illegal(pub String);

type Applied = Result<(), Illegal>;

impl RunState {
    /// The state before the first event.
    pub fn new(plan: &Plan) -> Self {
        let steps = plan.all_steps().map(|step| (step.id.clone(), StepState::default())).collect();
        Self { steps, ..Self::default() }
    }

    /// The state of a step that the plan has.
    pub fn step(&self, id: &str) -> Option<&StepState> {
        self.steps.get(id)
    }

    /// Whether an answer to the step can still count: in a run that is being cancelled only its final steps go on.
    pub fn takes_answers(&self, plan: &Plan, step: &str) -> bool {
        self.cancel.is_none() || plan.finally.iter().any(|one| one.id == step)
    }

    /// The obligations that are not over, by id.
    pub fn open_obligations(&self) -> impl Iterator<Item = (&str, &ObligationState)> {
        self.obligations.iter().filter(|(_, state)| state.is_open()).map(|(id, state)| (id.as_str(), state))
    }

    /// The obligations that were lost while the step that took them on counts as done: what comes after that step has lost its
    /// ground. One that was taken on anew since does not count.
    pub fn lost_ground(&self) -> impl Iterator<Item = &ObligationState> {
        self.stood_on().filter(|one| one.lost.is_some())
    }

    /// The obligations that were put back, or are being, while the step that took them on counts as done: what stood on them does not,
    /// should it run once more.
    pub fn given_back(&self) -> impl Iterator<Item = &ObligationState> {
        self.stood_on().filter(|one| one.let_go.is_some())
    }

    /// What the steps after those that took it on rely on, in force or not.
    fn stood_on(&self) -> impl Iterator<Item = &ObligationState> {
        let newest = |one: &ObligationState| {
            self.obligations
                .values()
                .filter(|other| other.obligation.step == one.obligation.step)
                .all(|other| other.opened_at <= one.opened_at)
        };
        let done = |one: &ObligationState| {
            self.step(&one.obligation.step).is_some_and(|step| step.status == StepStatus::Succeeded)
        };
        self.obligations.values().filter(move |one| newest(one) && done(one))
    }

    /// The obligations that hold and that a destroying step stands on: the change was made, and the step that made it is done.
    pub fn ground(&self) -> impl Iterator<Item = (&str, &ObligationState)> {
        self.open_obligations().filter(|(_, one)| {
            one.phase == ObligationPhase::Applied
                && self.step(&one.obligation.step).is_some_and(|step| step.status == StepStatus::Succeeded)
        })
    }

    /// Takes the next event in, or says why it is illegal; an illegal event changes nothing.
    pub fn apply(&mut self, plan: &Plan, event: &Event) -> Applied {
        if event.seq != self.seq + 1 {
            return Err(Illegal(format!("event {} follows event {}", event.seq, self.seq)));
        }
        if (event.seq == 1) != matches!(event.what, EventKind::RunCreated { .. }) {
            return Err(Illegal("a run begins with its creation, and only there".to_owned()));
        }
        if self.status.is_final() {
            return Err(Illegal(format!("the run {}", self.status.said())));
        }
        self.apply_kind(plan, event)?;
        (self.seq, self.last_at) = (event.seq, self.last_at.max(event.at));
        Ok(())
    }

    fn apply_kind(&mut self, plan: &Plan, event: &Event) -> Applied {
        let at = event.at;
        match &event.what {
            EventKind::RunCreated { by, .. } => {
                self.by.clone_from(by);
                self.created_at = at;
                Ok(())
            }
            EventKind::RunClaimed { epoch, .. } => self.claimed(plan, *epoch, at),
            EventKind::StepStarted { step, attempt } => self.started(step, *attempt, at),
            EventKind::StepSucceeded { step, outputs } => self.succeeded(step, outputs, at),
            EventKind::StepFailed { step, error } => self.failed(step, error, at),
            EventKind::StepInterrupted { step } => {
                let state = self.expect(step, &[StepStatus::Running])?;
                state.status = StepStatus::Interrupted;
                state.ended_at = Some(at);
                Ok(())
            }
            EventKind::StepSkipped { step, reason } => {
                let state = self.expect(step, &[StepStatus::Pending])?;
                state.status = StepStatus::Skipped;
                state.skipped = Some(reason.clone());
                state.ended_at = Some(at);
                Ok(())
            }
            EventKind::StepReopened { step, .. } => self.reopened(step),
            EventKind::Asked { step, question } => self.asked(step, question),
            EventKind::Answered { step, answer } => {
                let state = self.expect(step, &[StepStatus::Asking])?;
                state.status = StepStatus::Answered;
                state.answers.push(answer.clone());
                self.wake();
                Ok(())
            }
            EventKind::Obligation { id, change } => self.obligation(id, change, at),
            EventKind::CancelRequested { by } => {
                self.cancel.get_or_insert_with(|| by.clone());
                self.wake();
                Ok(())
            }
            EventKind::RunEnded { outcome, error } => self.ended(*outcome, error.as_ref(), at),
        }
    }

    /// A run that failed or waits is under way again.
    fn wake(&mut self) {
        self.status = RunStatus::Running;
        self.ended_at = None;
    }

    fn expect(&mut self, id: &str, allowed: &[StepStatus]) -> Result<&mut StepState, Illegal> {
        let state = self.steps.get_mut(id).ok_or_else(|| Illegal(format!("there is no step `{id}`")))?;
        if allowed.contains(&state.status) {
            Ok(state)
        } else {
            Err(Illegal(format!("step `{id}` is {:?}", state.status).to_lowercase()))
        }
    }

    /// The rows "running, lease over" of the resume table: the process behind every running step is gone.
    fn claimed(&mut self, plan: &Plan, epoch: u64, at: Timestamp) -> Applied {
        if epoch <= self.epoch {
            return Err(Illegal(format!("epoch {epoch} does not follow {}", self.epoch)));
        }
        for (id, state) in &mut self.steps {
            if state.status != StepStatus::Running {
                continue;
            }
            state.ended_at = Some(at);
            let repeat = plan.step(id).map_or(Repeat::Once, |step| step.effect.repeat);
            match repeat {
                Repeat::Repeatable => state.status = StepStatus::Interrupted,
                Repeat::Once => {
                    state.status = StepStatus::Failed;
                    state.failures += 1;
                    state.error = Some(
                        StepError::new(ErrorKind::Interrupted, "its process ended before it did").unknown(),
                    );
                }
            }
        }
        self.epoch = epoch;
        self.claims += 1;
        self.started_at.get_or_insert(at);
        if self.status == RunStatus::Waiting {
            self.wake();
        }
        Ok(())
    }

    fn started(&mut self, id: &str, attempt: u32, at: Timestamp) -> Applied {
        let state = self.expect(
            id,
            &[StepStatus::Pending, StepStatus::Interrupted, StepStatus::Failed, StepStatus::Answered],
        )?;
        if attempt != state.attempt + 1 {
            return Err(Illegal(format!("attempt {attempt} of step `{id}` follows {}", state.attempt)));
        }
        state.attempt = attempt;
        state.status = StepStatus::Running;
        state.started_at = Some(at);
        state.first_started_at.get_or_insert(at);
        state.begun_at.get_or_insert(at);
        state.ended_at = None;
        state.error = None;
        state.question = None;
        state.took_effect = false;
        Ok(())
    }

    fn succeeded(&mut self, id: &str, outputs: &Value, at: Timestamp) -> Applied {
        // A person may say of a step whose outcome is unknown that it is done.
        let state = self.expect(id, &[StepStatus::Running, StepStatus::Answered])?;
        state.status = StepStatus::Succeeded;
        state.ended_at = Some(at);
        state.last_outputs = Some(outputs.clone());
        state.error = None;
        state.question = None;
        Ok(())
    }

    fn failed(&mut self, id: &str, error: &StepError, at: Timestamp) -> Applied {
        let unended =
            [StepStatus::Running, StepStatus::Pending, StepStatus::Interrupted, StepStatus::Answered];
        let state = self.expect(id, &unended)?;
        state.status = StepStatus::Failed;
        state.failures += 1;
        state.ended_at = Some(at);
        state.error = Some(error.clone());
        state.question = None;
        Ok(())
    }

    fn asked(&mut self, id: &str, question: &Question) -> Applied {
        let mut from = vec![StepStatus::Running, StepStatus::Failed];
        let again = matches!(question, Question::Settle { succeeded: true, .. });
        if again {
            from.push(StepStatus::Succeeded);
        }
        let state = self.expect(id, &from)?;
        if state.status == StepStatus::Succeeded {
            state.begun_at = None;
            state.failures = 0;
            state.first_started_at = None;
            state.took_effect = true;
        }
        state.status = StepStatus::Asking;
        state.question = Some(question.clone());
        self.wake();
        Ok(())
    }

    fn reopened(&mut self, id: &str) -> Applied {
        let ended = [
            StepStatus::Failed,
            StepStatus::Succeeded,
            StepStatus::Skipped,
            StepStatus::Interrupted,
            StepStatus::Asking,
            StepStatus::Answered,
        ];
        let state = self.expect(id, &ended)?;
        if state.status == StepStatus::Succeeded {
            state.begun_at = None;
        }
        state.status = StepStatus::Pending;
        state.failures = 0;
        state.first_started_at = None;
        state.error = None;
        state.skipped = None;
        state.answers.clear();
        state.question = None;
        state.reopened += 1;
        self.error = None;
        self.wake();
        Ok(())
    }

    fn obligation(&mut self, id: &str, change: &ObligationChange, at: Timestamp) -> Applied {
        if let ObligationChange::Opened(obligation) = change {
            if self.obligations.contains_key(id) {
                return Err(Illegal(format!("obligation {id} exists")));
            }
            self.expect(&obligation.step, &[StepStatus::Running])?;
            let state = ObligationState {
                obligation: (**obligation).clone(),
                phase: ObligationPhase::Opened,
                opened_at: at,
                lost: None,
                lost_since: None,
                let_go: None,
                stuck: None,
            };
            self.obligations.insert(id.to_owned(), state);
            return Ok(());
        }
        let state =
            self.obligations.get_mut(id).ok_or_else(|| Illegal(format!("there is no obligation {id}")))?;
        state
            .change(change, at)
            .map_err(|phase| Illegal(format!("obligation {id} is {phase:?}").to_lowercase()))
    }

    fn ended(&mut self, outcome: RunOutcome, error: Option<&StepError>, at: Timestamp) -> Applied {
        if let Some((id, _)) = self.steps.iter().find(|(_, state)| state.status == StepStatus::Running) {
            return Err(Illegal(format!("step `{id}` is running")));
        }
        if outcome != RunOutcome::Failed
            && let Some((_, open)) = self.open_obligations().next()
        {
            return Err(Illegal(format!("{} is still held", open.obligation.label)));
        }
        self.status = match outcome {
            RunOutcome::Succeeded => RunStatus::Succeeded,
            RunOutcome::Failed => RunStatus::Failed,
            RunOutcome::Cancelled => RunStatus::Cancelled,
        };
        self.error = error.cloned();
        self.ended_at = Some(at);
        Ok(())
    }

    /// Whether it was cancelled and stays open all the same, because what its steps left behind could not be taken away.
    pub fn is_untidy(&self) -> bool {
        self.cancel.is_some()
            && self.status == RunStatus::Failed
            && self.error.is_some()
            && self.open_obligations().next().is_none()
    }

    /// Whether the outcome of a step that may not be repeated is not known.
    pub fn is_unsettled(&self, id: &str) -> bool {
        self.step(id)
            .and_then(|state| state.error.as_ref())
            .is_some_and(|error| error.outcome == Outcome::Unknown)
    }
}
