//! What is held for the time of the run: when it is released, when it is looked at, and what it means when it is lost.

use super::{Action, Decision, View};
use crate::duration::Duration;
use crate::error::StepError;
use crate::event::{Closed, Obligation};
use crate::kinds::Class;
use crate::plan::{Plan, PlannedStep};
use crate::state::{ObligationPhase, ObligationState, StepStatus};

/// How often what a destroying step stands on is looked at while it runs.
pub const WATCH: Duration = Duration::from_secs(30);

const FREEZES_AGAIN: &str =
    "`runbook resume` freezes again and does everything after that again; `runbook cancel` ends the run";

pub(super) fn lost_error(lost: &ObligationState) -> StepError {
    let Obligation { label, max_hold, .. } = &lost.obligation;
    let message = match &lost.lost {
        Some(how) => format!("{label} was not held until the run was done with it: {how}"),
        None => {
            format!("{label} has been held for {max_hold}, its max_hold, and the run is not done with it")
        }
    };
    StepError::gate(message).with_help(FREEZES_AGAIN)
}

/// Obligations that were held too long are released, whatever else goes on; but never beside the step that takes them on, nor beside one that destroys
/// on them, which are made to stop first.
pub(super) fn holds(view: View<'_>, decision: &mut Decision) {
    for (id, open) in view.state.open_obligations() {
        if view.now < open.hold_until() {
            decision.wake(open.hold_until());
            continue;
        }
        let owner = view.plan.step(&open.obligation.step).into_iter();
        let after = standing_on(view.plan, open).into_iter().filter(|step| needs_ground(view.plan, step));
        let running = |step: &&PlannedStep| super::status(view, step) == StepStatus::Running;
        let busy: Vec<&PlannedStep> = owner.chain(after).filter(running).collect();
        if !busy.is_empty() {
            let stop = |step: &PlannedStep| Action::Stop { step: step.id.clone(), error: None };
            decision.actions.extend(busy.into_iter().map(stop));
        } else if !view.unreleased.contains_key(id) {
            decision.actions.push(Action::Release { obligation: id.to_owned() });
        }
    }
}

/// An obligation that is to be released, or that could not be, although its time is over. One that was let go of in time is not, unless that
/// was at an end of the run and there is `rest` to do since.
pub(super) fn overdue(view: View<'_>, rest: bool) -> Option<&ObligationState> {
    let late = |one: &&ObligationState| one.is_open() && view.now >= one.hold_until();
    let wanted = |one: &&ObligationState| {
        let at_end = one.let_go.as_ref().is_some_and(|let_go| let_go.by.is_none());
        !one.let_go_in_time() || (at_end && rest)
    };
    view.state.obligations.values().filter(late).find(wanted)
}

/// A step that would run without what it stands on: that was put back.
pub(super) fn given_back(view: View<'_>) -> Option<StepError> {
    view.state.given_back().find_map(|one| {
        let left = standing_on(view.plan, one).into_iter().find(|step| !super::need_met(view, &step.id))?;
        let label = &one.obligation.label;
        let message = format!("{label} was put back before `{}` was done, which stands on it", left.id);
        Some(StepError::gate(message).with_help(FREEZES_AGAIN))
    })
}

/// The steps that stand on an obligation, in the order of the plan: all that come after the step that took it on, until a step puts it back. What is
/// neither before nor after that one stands on it only where it destroys.
pub(crate) fn standing_on<'a>(plan: &'a Plan, one: &ObligationState) -> Vec<&'a PlannedStep> {
    let after = plan.downstream(&one.obligation.step);
    let by = one.let_go.as_ref().and_then(|let_go| let_go.by.as_deref());
    // What puts it back in `finally` comes after all of them.
    let Some(by) = by.filter(|by| plan.steps.iter().any(|step| step.id == *by)) else { return after };
    let free = plan.downstream(by);
    let comes_after = |step: &PlannedStep| step.id == by || free.iter().any(|one| one.id == step.id);
    let comes_before = |step: &PlannedStep| plan.downstream(&step.id).iter().any(|one| one.id == by);
    let stands = |step: &&PlannedStep| !comes_after(step) && (needs_ground(plan, step) || comes_before(step));
    after.into_iter().filter(stands).collect()
}

/// Whether a step was not done with an obligation when that was lost: what such a step came to is not proven, although it ended by itself before
/// it could be made to stop. What the run let go of in time, it was done with.
pub(super) fn outlived(view: View<'_>, lost: &ObligationState) -> bool {
    let since = lost.lost_since.unwrap_or_else(|| lost.hold_until());
    if lost.let_go.as_ref().is_some_and(|let_go| let_go.at < since) {
        return false;
    }
    let after = view.plan.downstream(&lost.obligation.step);
    after.into_iter().filter_map(|step| view.state.step(&step.id)).any(|step| {
        matches!(step.status, StepStatus::Succeeded | StepStatus::Failed)
            && step.ended_at.is_some_and(|ended| ended > since)
    })
}

/// Whether a step may only run while every freeze that came before it is in force: one that destroys, or of which nobody knows. What
/// is undetermined among the final steps tells of the end, however that came about.
pub(crate) fn needs_ground(plan: &Plan, step: &PlannedStep) -> bool {
    match step.effect.class {
        Class::Destroy => true,
        Class::Undetermined => plan.steps.iter().any(|one| one.id == step.id),
        Class::Read | Class::Write => false,
    }
}

/// What destroying steps stand on is looked at from time to time while they run; it was proven when they started.
pub(super) fn watch(view: View<'_>, decision: &mut Decision) {
    let begun = view.plan.all_steps().filter(|step| needs_ground(view.plan, step)).filter_map(|step| {
        let state = view.state.step(&step.id)?;
        (state.status == StepStatus::Running).then_some(state.started_at?)
    });
    let Some(begun) = begun.min() else { return };
    for (id, _) in view.state.ground() {
        let due = WATCH.after(view.inspected.get(id).copied().unwrap_or(begun).max(begun));
        if view.now >= due {
            decision.actions.push(Action::Inspect { obligation: id.to_owned() });
        } else {
            decision.wake(due);
        }
    }
}

/// Somebody else's value that was left where it is; what was frozen anew since does not count.
pub(super) fn foreign(view: View<'_>) -> Option<StepError> {
    let newest = |one: &&ObligationState| {
        // One that changed nothing says nothing about what is there.
        let all = view.state.obligations.values();
        all.filter(|other| other.phase != ObligationPhase::Closed(Closed::Untouched))
            .filter(|other| other.obligation.target == one.obligation.target)
            .all(|other| other.opened_at <= one.opened_at)
    };
    view.state.obligations.values().filter(newest).find_map(|one| match &one.phase {
        ObligationPhase::Closed(Closed::Foreign { present }) => Some(StepError::gate(format!(
            "{} was changed by somebody else to {present}; it was left alone and is NOT back at its original value",
            one.obligation.label
        ))),
        ObligationPhase::Closed(Closed::ByHand { by, other: Some(other) }) => Some(StepError::gate(format!(
            "{} was given up by {by} as it was ({other}); it is NOT seen to be back at its original value",
            one.obligation.label
        ))),
        _ => None,
    })
}
