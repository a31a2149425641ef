//! What happens next: a pure function of the plan, the state and the time. It is asked again after every event, so nothing it
//! says is remembered and nothing can be forgotten.

mod ground;

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::duration::Duration;
use crate::error::{ErrorKind, Outcome, StepError};
use crate::event::{EventKind, Question, RunOutcome};
use crate::expr;
use crate::kinds::Repeat;
use crate::plan::{OnFailure, Plan, PlannedStep, StepId};
use crate::question::{ABORT, DONE, RETRY};
use crate::retry;
use crate::state::{ObligationState, RunState, RunStatus, StepState, StepStatus};
use crate::step::RunInfo;

pub use self::ground::WATCH;
use self::ground::{foreign, given_back, holds, lost_error, outlived, overdue, watch};
pub(crate) use self::ground::{needs_ground, standing_on};

/// How often a later step may send an earlier one back because its outputs were lost.
pub const MAX_REWINDS: u32 = 3;

/// What the decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The state.
    pub state: &'a RunState,
    /// The run.
    pub run: &'a RunInfo,
    /// The time.
    pub now: Timestamp,
    /// The obligations that this process tried to release and could not, with the reason.
    pub unreleased: &'a BTreeMap<String, StepError>,
    /// When this process last looked whether an obligation is still in force.
    pub inspected: &'a BTreeMap<String, Timestamp>,
}

/// Something to do now.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Record that this happened; nothing else is needed.
    Record(EventKind),
    /// Record that all of this happened, together or not at all.
    RecordAll(Vec<EventKind>),
    /// Record the start of this attempt, then run it.
    Start {
        /// The step.
        step: StepId,
        /// The number of the attempt.
        attempt: u32,
    },
    /// Make a running step stop; it ended with this error, or was interrupted when there is none.
    Stop {
        /// The step.
        step: StepId,
        /// Why.
        error: Option<StepError>,
    },
    /// Put back what an obligation changed.
    Release {
        /// Its id.
        obligation: String,
    },
    /// Look whether an obligation is still in force.
    Inspect {
        /// Its id.
        obligation: String,
    },
}

/// What to do, and what to wait for after that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// What to do now, in order.
    pub actions: Vec<Action>,
    /// The next moment at which time alone changes the decision.
    pub wake_at: Option<Timestamp>,
    /// Nothing goes on until a person answers one of the asking steps.
    pub waiting: bool,
    /// The run has ended.
    pub ended: bool,
}

impl Decision {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |present| present.min(at)));
    }

    fn record(&mut self, event: EventKind) {
        self.actions.push(Action::Record(event));
    }
}

/// What happens next.
pub fn decide(view: View<'_>) -> Decision {
    let mut decision = Decision::default();
    if view.state.status.is_final() {
        decision.ended = true;
        return decision;
    }
    holds(view, &mut decision);
    watch(view, &mut decision);
    if view.state.status == RunStatus::Failed {
        decision.ended = decision.actions.is_empty();
        return decision;
    }
    let halt = halted(view, &mut decision);
    if main_phase(view, halt.as_ref(), &mut decision) {
        end_phase(view, halt, &mut decision);
    }
    decision
}

/// Why no further step of the main phase starts.
enum Halt {
    /// Somebody cancelled the run.
    Cancel,
    /// What every step stands on is gone: the time, or the freeze.
    Ground(StepError),
    /// A step failed for good; those that run are let finish.
    Step,
}

impl Halt {
    fn stops_running_steps(&self) -> bool {
        !matches!(self, Self::Step)
    }
}

fn halted(view: View<'_>, decision: &mut Decision) -> Option<Halt> {
    let View { plan, state, now, .. } = view;
    if state.cancel.is_some() {
        return Some(Halt::Cancel);
    }
    if let (Some(limit), Some(started)) = (plan.limits.max_duration, state.started_at) {
        let deadline = limit.after(started);
        if now < deadline {
            decision.wake(deadline);
        } else if !all_over(view) {
            let message = format!("the run took longer than max_duration, {limit}");
            return Some(Halt::Ground(StepError::new(ErrorKind::Limit, message)));
        }
    }
    // A freeze that was lifted because it had been held too long leaves the rest of the run without its ground, and what was not done by then.
    let rest = !all_done(view);
    let mut lost = overdue(view, rest).into_iter().chain(state.lost_ground());
    if let Some(lost) = lost.find(|lost| rest || outlived(view, lost)) {
        return Some(Halt::Ground(lost_error(lost)));
    }
    let failed = plan.steps.iter().any(|step| {
        step.on_failure == OnFailure::Stop
            && state.step(&step.id).is_some_and(|state| failed_for_good(view, step, state))
    });
    if failed {
        return Some(Halt::Step);
    }
    given_back(view).map(Halt::Ground)
}

fn all_over(view: View<'_>) -> bool {
    view.plan
        .steps
        .iter()
        .all(|step| view.state.step(&step.id).is_some_and(|state| settled(view, step, state)))
}

fn settled(view: View<'_>, step: &PlannedStep, state: &StepState) -> bool {
    state.is_over() || failed_for_good(view, step, state)
}

/// Whether nothing stands on a freeze any more.
fn all_done(view: View<'_>) -> bool {
    view.plan.steps.iter().all(|step| need_met(view, &step.id))
}

/// A failure that nothing but an explicit resume follows.
fn failed_for_good(view: View<'_>, step: &PlannedStep, state: &StepState) -> bool {
    state.status == StepStatus::Failed && matches!(after_failure(view, step, state), AfterFailure::Nothing)
}

enum AfterFailure {
    Nothing,
    RetryAt(Timestamp),
    AskAPerson,
    Rewind(StepId),
}

fn after_failure(view: View<'_>, step: &PlannedStep, state: &StepState) -> AfterFailure {
    let Some(error) = &state.error else { return AfterFailure::Nothing };
    if error.outcome == Outcome::Unknown && step.effect.repeat == Repeat::Once {
        // A person who said to stop is asked again only by an explicit resume.
        let aborted = state.answers.last().is_some_and(|answer| answer.text == ABORT);
        return if aborted { AfterFailure::Nothing } else { AfterFailure::AskAPerson };
    }
    if let Some(earlier) = &error.rewind
        && rewindable(view, earlier)
    {
        return AfterFailure::Rewind(earlier.clone());
    }
    match retry::next_attempt(&step.retry, state, view.run.seed) {
        Some(at) => AfterFailure::RetryAt(at),
        None => AfterFailure::Nothing,
    }
}

/// Only steps that may be repeated are sent back, and not for ever.
fn rewindable(view: View<'_>, earlier: &str) -> bool {
    let repeatable = |step: &PlannedStep| {
        let untouched = view.state.step(&step.id).is_some_and(|state| state.attempt == 0);
        untouched || step.effect.repeat == Repeat::Repeatable
    };
    let Some((step, state)) = view.plan.step(earlier).zip(view.state.step(earlier)) else { return false };
    state.status == StepStatus::Succeeded
        && state.reopened < MAX_REWINDS
        && repeatable(step)
        && view.plan.downstream(earlier).into_iter().all(repeatable)
}

/// Drives the steps before `finally`; true when none of them runs nor will run.
fn main_phase(view: View<'_>, halt: Option<&Halt>, decision: &mut Decision) -> bool {
    let halted = halt.is_some();
    let running = view.plan.steps.iter().filter(|step| status(view, step) == StepStatus::Running).count();
    let mut free = view.plan.max_parallel.saturating_sub(running);
    for step in &view.plan.steps {
        let Some(state) = view.state.step(&step.id) else { continue };
        if state.status == StepStatus::Running {
            let stop = halt.is_some_and(Halt::stops_running_steps);
            running_step(view, step, state, stop, decision);
        } else if !halted {
            let ready = step.needs.iter().all(|need| need_met(view, need));
            idle_step(view, step, state, ready, &mut free, decision);
        }
    }
    if running > 0 {
        return false;
    }
    if halted || all_over(view) {
        return true;
    }
    let asking = view.plan.steps.iter().any(|step| status(view, step) == StepStatus::Asking);
    let timed = view.plan.steps.iter().any(|step| {
        view.state.step(&step.id).is_some_and(|state| {
            state.status == StepStatus::Failed
                && matches!(after_failure(view, step, state), AfterFailure::RetryAt(at) if at > view.now)
        })
    });
    decision.waiting = asking && !timed && decision.actions.is_empty();
    false
}

fn status(view: View<'_>, step: &PlannedStep) -> StepStatus {
    view.state.step(&step.id).map_or(StepStatus::Pending, |state| state.status)
}

fn need_met(view: View<'_>, need: &str) -> bool {
    let Some((step, state)) = view.plan.step(need).zip(view.state.step(need)) else { return false };
    state.is_over() || (step.on_failure == OnFailure::Continue && failed_for_good(view, step, state))
}

fn running_step(view: View<'_>, step: &PlannedStep, state: &StepState, stop: bool, decision: &mut Decision) {
    let id = step.id.clone();
    if stop {
        decision.actions.push(Action::Stop { step: id, error: None });
        return;
    }
    let unknown = |error: StepError| if step.effect.repeat == Repeat::Once { error.unknown() } else { error };
    let bounds = [
        (step.timeout, state.started_at, ErrorKind::Timeout, "its timeout"),
        (step.limits.max_duration, state.begun_at, ErrorKind::Limit, "its max_duration"),
    ];
    for (bound, since, kind, name) in bounds {
        let (Some(bound), Some(since)) = (bound, since) else { continue };
        if view.now >= bound.after(since) {
            let error = unknown(too_long(kind, name, bound));
            decision.actions.push(Action::Stop { step: id, error: Some(error) });
            return;
        }
        decision.wake(bound.after(since));
    }
}

/// The error of what took longer than it may.
pub(crate) fn too_long(kind: ErrorKind, name: &str, bound: Duration) -> StepError {
    StepError::new(kind, format!("it took longer than {name}, {bound}"))
}

/// Why a step that is to go on, or was reopened, does not: it has used up its `max_duration` before.
fn out_of_time(view: View<'_>, step: &PlannedStep, state: &StepState) -> Option<StepError> {
    let (bound, since) = step.limits.max_duration.zip(state.begun_at)?;
    let waits = matches!(state.status, StepStatus::Pending | StepStatus::Interrupted);
    (waits && view.now >= bound.after(since)).then(|| too_long(ErrorKind::Limit, "its max_duration", bound))
}

fn idle_step(
    view: View<'_>,
    step: &PlannedStep,
    state: &StepState,
    ready: bool,
    free: &mut usize,
    decision: &mut Decision,
) {
    if let Some(error) = out_of_time(view, step, state).filter(|_| ready) {
        decision.record(EventKind::StepFailed { step: step.id.clone(), error });
        return;
    }
    let mut start = |decision: &mut Decision| {
        if *free > 0 {
            *free -= 1;
            decision.actions.push(Action::Start { step: step.id.clone(), attempt: state.attempt + 1 });
        }
    };
    match state.status {
        StepStatus::Pending if ready => match should_run(view, step) {
            Ok(true) => start(decision),
            Ok(false) => {
                let reason = format!("not met: {}", step.condition.as_deref().unwrap_or_default());
                decision.record(EventKind::StepSkipped { step: step.id.clone(), reason });
            }
            Err(error) => decision.record(EventKind::StepFailed { step: step.id.clone(), error }),
        },
        StepStatus::Interrupted if ready => start(decision),
        StepStatus::Answered if ready => answered(step, state, start, decision),
        StepStatus::Failed => match after_failure(view, step, state) {
            AfterFailure::Nothing => {}
            AfterFailure::RetryAt(at) if view.now < at => decision.wake(at),
            AfterFailure::RetryAt(_) if ready => start(decision),
            AfterFailure::RetryAt(_) => {}
            AfterFailure::AskAPerson => decision.record(settle_question(step, state)),
            AfterFailure::Rewind(earlier) => rewind(view, step, &earlier, decision),
        },
        _ => {}
    }
}

fn should_run(view: View<'_>, step: &PlannedStep) -> Result<bool, StepError> {
    let Some(condition) = &step.condition else { return Ok(true) };
    let scope = crate::scope::of_run(view.plan, view.state, view.run);
    expr::condition(condition, &scope).map_err(|error| StepError::invalid(format!("its `if`: {error}")))
}

/// What is asked of a step of which it is not known whether it took effect, or which did and nobody has said whether to do it again.
pub(crate) fn settle_question(step: &PlannedStep, state: &StepState) -> EventKind {
    if state.took_effect {
        return again_question(step, &state.error.as_ref().map_or_else(String::new, ToString::to_string));
    }
    let cause = state.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
    let message = format!("it is not known whether `{}` took effect{cause}", step.id);
    EventKind::Asked { step: step.id.clone(), question: Question::Settle { message, succeeded: false } }
}

/// What is asked of a step that succeeded, may not be repeated, and is to run again for this reason.
pub(crate) fn again_question(step: &PlannedStep, reason: &str) -> EventKind {
    let message = format!("`{}` succeeded, and runs once unless a person says otherwise: {reason}", step.id);
    EventKind::Asked { step: step.id.clone(), question: Question::Settle { message, succeeded: true } }
}

/// An answer to the engine's own question is dealt with here; any other goes to the step.
fn answered(
    step: &PlannedStep,
    state: &StepState,
    start: impl FnOnce(&mut Decision),
    decision: &mut Decision,
) {
    let answer = state.answers.last().map(|answer| answer.text.as_str());
    match (&state.question, answer) {
        (Some(Question::Settle { succeeded, .. }), Some(DONE)) => {
            let kept = state.last_outputs.clone().filter(|_| *succeeded);
            let outputs = kept.unwrap_or_else(|| serde_json::json!({}));
            decision.record(EventKind::StepSucceeded { step: step.id.clone(), outputs });
        }
        (Some(Question::Settle { succeeded, .. }), Some(ABORT)) => {
            let why =
                if *succeeded { "rather than to do it again" } else { "because its outcome is not known" };
            let error = StepError::refused(format!("a person said to stop here, {why}")).unknown();
            decision.record(EventKind::StepFailed { step: step.id.clone(), error });
        }
        (Some(Question::Settle { .. }), Some(text)) if text != RETRY => {
            decision.record(EventKind::StepFailed {
                step: step.id.clone(),
                error: StepError::refused(format!("`{text}` is none of {DONE}, {RETRY} and {ABORT}"))
                    .unknown(),
            });
        }
        _ => start(decision),
    }
}

/// The earlier step runs again, and everything after it that had begun.
fn rewind(view: View<'_>, step: &PlannedStep, earlier: &str, decision: &mut Decision) {
    let later = view.plan.downstream(earlier);
    if later.iter().any(|one| status(view, one) == StepStatus::Running) {
        return;
    }
    let why = format!("`{}` found its outputs lost", step.id);
    let reopen =
        |id: &str, reason: &str| EventKind::StepReopened { step: id.to_owned(), reason: reason.to_owned() };
    let mut events = vec![reopen(earlier, &why)];
    for later in later {
        if status(view, later) != StepStatus::Pending {
            events.push(reopen(&later.id, &format!("`{earlier}` runs again")));
        }
    }
    decision.actions.push(Action::RecordAll(events));
}

/// Everything after the main phase: what must be put back, then `finally`, then the end.
fn end_phase(view: View<'_>, halt: Option<Halt>, decision: &mut Decision) {
    let grounded = matches!(halt, Some(Halt::Ground(_)));
    let (mut outcome, mut error) = match halt {
        None => (RunOutcome::Succeeded, None),
        Some(Halt::Cancel) => (RunOutcome::Cancelled, None),
        Some(Halt::Ground(error)) => (RunOutcome::Failed, Some(error)),
        Some(Halt::Step) => (RunOutcome::Failed, None),
    };
    // A run without its ground can not be resumed to any use, so it holds nothing any more.
    if outcome != RunOutcome::Failed || grounded {
        // Never beside the step that takes it on.
        let taken_on = |(_, one): &(&str, &ObligationState)| {
            let owner = view.plan.step(&one.obligation.step);
            owner.is_none_or(|owner| status(view, owner) != StepStatus::Running)
        };
        let open: Vec<&str> = view.state.open_obligations().filter(taken_on).map(|(id, _)| id).collect();
        let waiting: Vec<&str> =
            open.iter().copied().filter(|id| !view.unreleased.contains_key(*id)).collect();
        if !waiting.is_empty() {
            for id in waiting {
                let release = Action::Release { obligation: id.to_owned() };
                if !decision.actions.contains(&release) {
                    decision.actions.push(release);
                }
            }
            return;
        }
        if let Some(first) = open.first().and_then(|id| view.unreleased.get(*id)) {
            outcome = RunOutcome::Failed;
            error = Some(first.clone());
        } else if let Some(foreign) = foreign(view) {
            error = Some(foreign);
            if outcome == RunOutcome::Succeeded {
                outcome = RunOutcome::Failed;
            }
        }
    }
    if !final_steps(view, decision) {
        return;
    }
    let failed_final = view.plan.finally.iter().any(|step| status(view, step) == StepStatus::Failed);
    if outcome == RunOutcome::Succeeded && failed_final {
        outcome = RunOutcome::Failed;
    }
    decision.record(EventKind::RunEnded { outcome, error });
}

/// Runs `finally`, each step when the one before it has ended in any way; true when all have.
fn final_steps(view: View<'_>, decision: &mut Decision) -> bool {
    for step in &view.plan.finally {
        let Some(state) = view.state.step(&step.id) else { continue };
        match state.status {
            StepStatus::Running => {
                running_step(view, step, state, false, decision);
                return false;
            }
            StepStatus::Asking => {
                decision.waiting = true;
                return false;
            }
            _ if settled(view, step, state) => {}
            _ => {
                idle_step(view, step, state, true, &mut 1, decision);
                return false;
            }
        }
    }
    true
}
