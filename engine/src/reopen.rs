//! What runs again when a run that had ended is taken up: a pure function of the plan and the state.

use std::collections::BTreeMap;

use crate::decide::{again_question, settle_question, standing_on};
use crate::event::{EventKind, Question};
use crate::kinds::Repeat;
use crate::plan::{Plan, PlannedStep};
use crate::state::{RunState, StepState, StepStatus};

/// What an explicit resume of a failed run reopens: every failed step, the final steps, whatever stood on a freeze that was
/// lost meanwhile, and every freeze that was put back and that a step still to run stands on.
pub fn reopen(plan: &Plan, state: &RunState) -> Vec<EventKind> {
    let mut reasons: BTreeMap<&str, String> = BTreeMap::new();
    let mut questions = Vec::new();
    for step in plan.all_steps() {
        let Some(one) = state.step(&step.id).filter(|one| one.status == StepStatus::Failed) else { continue };
        if step.effect.repeat == Repeat::Once && state.is_unsettled(&step.id) {
            questions.push((step.id.as_str(), settle_question(step, one)));
        } else {
            reasons.insert(&step.id, "resumed after its failure".to_owned());
        }
    }
    for lost in state.lost_ground() {
        let reason = format!("{} was not held all the time", lost.obligation.label);
        let taken_on_by = &lost.obligation.step;
        for step in plan.downstream(taken_on_by).into_iter().chain(plan.step(taken_on_by)) {
            reasons.insert(&step.id, reason.clone());
        }
    }
    refreeze(plan, state, &mut reasons);
    for step in &plan.finally {
        reasons.entry(&step.id).or_insert_with(|| "the run goes on".to_owned());
    }
    questions.extend(succeeded_once(plan, state, &reasons));
    // Whatever else runs again, an outcome that is not known is asked for first, and once: what was answered counts.
    reasons.retain(|id, _| questions.iter().all(|(asked, _)| asked != id) && !is_asked_about(state, id));
    let mut events = reopened(plan, state, reasons);
    events.extend(questions.into_iter().map(|(_, question)| question));
    events
}

/// Of what runs again although it succeeded, what may not be repeated is asked about. What takes on a freeze makes that anew, unasked; and the final
/// steps tell of each end.
fn succeeded_once<'a>(
    plan: &'a Plan,
    state: &RunState,
    reasons: &BTreeMap<&'a str, String>,
) -> Vec<(&'a str, EventKind)> {
    let freezes = |id: &str| state.obligations.values().any(|one| one.obligation.step == id);
    let once = |step: &&PlannedStep| step.effect.repeat == Repeat::Once && !freezes(&step.id);
    let succeeded = |id: &str| state.step(id).is_some_and(|one| one.status == StepStatus::Succeeded);
    let again = plan.steps.iter().filter(once).filter(|step| succeeded(&step.id));
    again
        .filter_map(|step| {
            let reason = reasons.get(step.id.as_str())?;
            Some((step.id.as_str(), again_question(step, reason)))
        })
        .collect()
}

/// Whether somebody is asked what became of the step, or has said it and was not heard yet.
fn is_asked_about(state: &RunState, id: &str) -> bool {
    state.step(id).is_some_and(|step| {
        matches!(step.status, StepStatus::Asking | StepStatus::Answered)
            && matches!(step.question, Some(Question::Settle { .. }))
    })
}

/// Whatever is to run and stood on a freeze that was lifted stands on a new one; so does all else that comes after it.
fn refreeze<'a>(plan: &'a Plan, state: &RunState, reasons: &mut BTreeMap<&'a str, String>) {
    loop {
        let over = |id: &str| state.step(id).is_some_and(StepState::is_over);
        let runs = |step: &&PlannedStep| reasons.contains_key(step.id.as_str()) || !over(&step.id);
        let missing = state.given_back().find_map(|one| {
            let by = plan.step(&one.obligation.step).filter(|by| !reasons.contains_key(by.id.as_str()))?;
            standing_on(plan, one).iter().any(runs).then_some((one, by))
        });
        let Some((one, by)) = missing else { return };
        let reason = format!("{} was put back, and is held again", one.obligation.label);
        for step in plan.downstream(&by.id).into_iter().chain([by]) {
            reasons.entry(&step.id).or_insert_with(|| reason.clone());
        }
    }
}

/// What the cancelling of a run that had failed reopens: the final steps, so that the report tells the end.
pub fn reopen_final(plan: &Plan, state: &RunState) -> Vec<EventKind> {
    let reasons =
        plan.finally.iter().map(|step| (step.id.as_str(), "the run is cancelled".to_owned())).collect();
    reopened(plan, state, reasons)
}

fn reopened(plan: &Plan, state: &RunState, mut reasons: BTreeMap<&str, String>) -> Vec<EventKind> {
    plan.all_steps()
        .filter_map(|step| {
            let reason = reasons.remove(step.id.as_str())?;
            let status = state.step(&step.id)?.status;
            let began = !matches!(status, StepStatus::Pending | StepStatus::Running);
            began.then(|| EventKind::StepReopened { step: step.id.clone(), reason })
        })
        .collect()
}
