//! The report's facts, out of the plan, the events and the ledgers, in plan order.

use std::collections::BTreeMap;

use jiff::Timestamp;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::event::{Closed, Event, EventKind, ObligationChange};
use runbook_engine::kinds::Class;
use runbook_engine::plan::{OnFailure, Plan, PlannedStep, Reviewed};
use runbook_engine::state::{ObligationPhase, RunState, StepState, StepStatus};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Report, failures, shown};
use crate::facts::files_in_words;
use crate::kind::Context;

/// Everything the report says.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    pub(super) title: String,
    pub(super) verdict: &'static str,
    /// Why it is no PASS.
    pub(super) reasons: Vec<String>,
    pub(super) run: String,
    pub(super) runbook: String,
    pub(super) description: String,
    pub(super) definition: String,
    pub(super) by: String,
    /// The reviewed plan that it was started with.
    pub(super) plan: Option<Reviewed>,
    pub(super) created_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) reported_at: Timestamp,
    pub(super) took_ms: u64,
    pub(super) claims: u32,
    pub(super) counts: Counts,
    pub(super) steps: Vec<StepFacts>,
    pub(super) held: Vec<HeldFacts>,
    pub(super) answers: Vec<AnswerFacts>,
    pub(super) findings: Vec<String>,
    pub(super) inputs: Map<String, Value>,
    pub(super) notes: Map<String, Value>,
    /// What to type next, when something failed.
    pub(super) next: Vec<(String, String)>,
}

/// Sums.
#[derive(Debug, Default, Serialize)]
pub(super) struct Counts {
    pub(super) steps: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
    pub(super) not_run: u64,
    /// Items that destroying steps removed.
    pub(super) destroyed: u64,
    /// Items that were gone already.
    pub(super) already_gone: u64,
    /// Items that failed, in any step.
    pub(super) failed_items: u64,
}

/// One step.
#[derive(Debug, Serialize)]
pub(super) struct StepFacts {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) uses: String,
    pub(super) class: Class,
    pub(super) status: StepStatus,
    pub(super) attempts: u32,
    pub(super) reopened: u32,
    pub(super) first_started_at: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) took_ms: Option<u64>,
    pub(super) outputs: Vec<(String, Value)>,
    pub(super) done: u64,
    pub(super) already: u64,
    pub(super) failed: u64,
    pub(super) failures: BTreeMap<String, String>,
    pub(super) error: Option<StepError>,
    pub(super) skipped: Option<String>,
}

impl StepFacts {
    /// What people call it.
    pub(super) fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| self.id.clone(), |name| format!("{name} ({})", self.id))
    }
}

/// Something that was changed for a while.
#[derive(Debug, Serialize)]
pub(super) struct HeldFacts {
    pub(super) id: String,
    pub(super) step: String,
    pub(super) label: String,
    pub(super) original: Value,
    pub(super) replacement: Value,
    pub(super) opened_at: Timestamp,
    pub(super) closed_at: Option<Timestamp>,
    pub(super) held_ms: u64,
    /// How it ended, in words.
    pub(super) how: String,
    /// Whether the original is there.
    pub(super) back: bool,
    /// Why the run could not stand on it to its end, in words.
    pub(super) lost: Option<String>,
}

/// What a person answered.
#[derive(Debug, Serialize)]
pub(super) struct AnswerFacts {
    pub(super) step: String,
    pub(super) text: String,
    pub(super) by: String,
    pub(super) at: Timestamp,
}

impl Facts {
    /// Reads the run's record.
    pub(super) async fn gather(report: &Report, cx: &Context) -> Result<Self, StepError> {
        let (plan, state) = (&*cx.history.plan, cx.history.state().await?);
        let events = cx.history.store.events(&cx.history.run, 0).await.map_err(|error| error.for_step())?;
        let now = Timestamp::now();
        let mut steps = Vec::new();
        for step in plan.all_steps() {
            if let Some(known) = state.step(&step.id) {
                steps.push(step_facts(cx, step, known, &events).await?);
            }
        }
        let held = held(&state, &events, now);
        let reasons = reasons(plan, &state, &held, &cx.step);
        let verdict = if reasons.is_empty() { "PASS" } else { "FAIL" };
        let run = cx.run.id.clone();
        Ok(Self {
            title: report.title.clone().unwrap_or_else(|| plan.runbook.clone()),
            verdict,
            next: if reasons.is_empty() { Vec::new() } else { next(&run, &state) },
            reasons,
            run,
            runbook: plan.runbook.clone(),
            description: plan.description.clone(),
            definition: plan.definition.clone(),
            by: state.by.clone(),
            plan: plan.reviewed.clone(),
            created_at: state.created_at,
            started_at: state.started_at,
            reported_at: now,
            took_ms: shown::between(state.started_at.unwrap_or(state.created_at), now),
            claims: state.claims,
            counts: counts(&steps, &cx.step),
            findings: findings(&steps, &state, &held),
            steps,
            held,
            answers: answers(&events),
            inputs: plan.inputs.clone(),
            notes: files_in_words(&report.notes, &cx.artifacts),
        })
    }

    /// The steps that destroy.
    pub(super) fn destroying(&self) -> impl Iterator<Item = &StepFacts> {
        self.steps.iter().filter(|step| step.class == Class::Destroy && step.attempts > 0)
    }
}

async fn step_facts(
    cx: &Context,
    step: &PlannedStep,
    known: &StepState,
    events: &[Event],
) -> Result<StepFacts, StepError> {
    let ledger =
        cx.history.store.ledger(&cx.history.run, &step.id).await.map_err(|error| error.for_step())?;
    let first_started_at = events.iter().find_map(|event| match &event.what {
        EventKind::StepStarted { step: id, .. } if *id == step.id => Some(event.at),
        _ => None,
    });
    Ok(StepFacts {
        id: step.id.clone(),
        name: step.name.clone(),
        uses: step.uses.clone(),
        class: step.effect.class,
        status: known.status,
        attempts: known.attempt,
        reopened: known.reopened,
        first_started_at,
        ended_at: known.ended_at,
        took_ms: first_started_at.zip(known.ended_at).map(|(from, to)| shown::between(from, to)),
        outputs: known.outputs().map(shown::outputs).unwrap_or_default(),
        done: ledger.done,
        already: ledger.already,
        failed: ledger.failed,
        failures: if ledger.failed > 0 { failures::of_step(cx, &step.id).await? } else { BTreeMap::new() },
        error: known.error.clone(),
        skipped: known.skipped.clone(),
    })
}

fn held(state: &RunState, events: &[Event], now: Timestamp) -> Vec<HeldFacts> {
    let closed_at = |wanted: &str| {
        events.iter().find_map(|event| match &event.what {
            EventKind::Obligation { id, change: ObligationChange::Closed { .. } } if id == wanted => {
                Some(event.at)
            }
            _ => None,
        })
    };
    let mut held: Vec<HeldFacts> = state
        .obligations
        .iter()
        .map(|(id, one)| {
            let closed_at = closed_at(id);
            let undone = one.phase == ObligationPhase::Closed(Closed::Undone);
            let lost = one.lost.clone().or_else(|| undone.then(|| "not held to the end".to_owned()));
            let (how, back) = match &one.phase {
                ObligationPhase::Closed(Closed::Restored) => ("the original is back".to_owned(), true),
                ObligationPhase::Closed(Closed::Untouched) => ("it had never been changed".to_owned(), true),
                ObligationPhase::Closed(Closed::Expired) => {
                    ("the original is back, because the longest hold had passed".to_owned(), true)
                }
                ObligationPhase::Closed(Closed::Undone) => (
                    "the original is back, but somebody else had put it back before the run did: what ran in the meantime may have \
                     run without it"
                        .to_owned(),
                    true,
                ),
                ObligationPhase::Closed(Closed::ByHand { by, other: None }) => {
                    (format!("the original is back: {by} did it by hand"), true)
                }
                ObligationPhase::Closed(Closed::ByHand { by, other: Some(other) }) => {
                    (format!("{by} says to have put it back by hand; what is there: {other}"), false)
                }
                ObligationPhase::Closed(Closed::Foreign { present }) => {
                    (format!("left alone: somebody else's value is there, {present}"), false)
                }
                _ => ("still held; it is put back when the run ends".to_owned(), false),
            };
            HeldFacts {
                id: id.clone(),
                step: one.obligation.step.clone(),
                label: one.obligation.label.clone(),
                original: crate::freeze::original_text(&one.obligation).into(),
                replacement: one.obligation.replacement.clone(),
                opened_at: one.opened_at,
                closed_at,
                held_ms: shown::between(one.opened_at, closed_at.unwrap_or(now)),
                how,
                back,
                lost,
            }
        })
        .collect();
    held.sort_by(|a, b| a.opened_at.cmp(&b.opened_at).then_with(|| a.id.cmp(&b.id)));
    held
}

fn answers(events: &[Event]) -> Vec<AnswerFacts> {
    let answers = events.iter().filter_map(|event| match &event.what {
        EventKind::Answered { step, answer } => Some(AnswerFacts {
            step: step.clone(),
            text: answer.text.clone(),
            by: answer.by.clone(),
            at: answer.at,
        }),
        _ => None,
    });
    answers.collect()
}

/// Why the run is no PASS so far. Steps that can not have ended before this one are not held against it.
fn reasons(plan: &Plan, state: &RunState, held: &[HeldFacts], this: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(by) = &state.cancel {
        reasons.push(format!("{by} cancelled it"));
    }
    if let Some(error) = &state.error {
        reasons.push(error.message.clone());
    }
    let is_last = plan.finally.iter().any(|step| step.id == this);
    for step in plan.all_steps().filter(|step| step.id != this) {
        let status = state.step(&step.id).map(|known| known.status).unwrap_or_default();
        let in_order = is_last && plan.steps.iter().any(|one| one.id == step.id);
        match status {
            StepStatus::Failed if step.on_failure == OnFailure::Stop => {
                reasons.push(format!("{} failed", step.id));
            }
            StepStatus::Pending if in_order => reasons.push(format!("{} did not run", step.id)),
            StepStatus::Running | StepStatus::Interrupted | StepStatus::Asking | StepStatus::Answered
                if in_order =>
            {
                reasons.push(format!("{} did not end", step.id));
            }
            _ => {}
        }
    }
    let foreign = held.iter().filter(|one| !one.back && one.closed_at.is_some());
    reasons.extend(foreign.map(|one| format!("{} is not back", one.label)));
    reasons
}

fn counts(steps: &[StepFacts], this: &str) -> Counts {
    let mut counts = Counts { steps: steps.len() as u64, ..Counts::default() };
    for step in steps {
        match step.status {
            StepStatus::Succeeded => counts.succeeded += 1,
            StepStatus::Failed => counts.failed += 1,
            StepStatus::Skipped => counts.skipped += 1,
            _ if step.id == this => {}
            _ => counts.not_run += 1,
        }
        if step.class == Class::Destroy {
            counts.destroyed += step.done;
            counts.already_gone += step.already;
        }
        counts.failed_items += step.failed;
    }
    counts
}

/// How many lines of one output a finding repeats.
const MOST: usize = 20;

/// What failed, and what is not as one would think.
fn findings(steps: &[StepFacts], state: &RunState, held: &[HeldFacts]) -> Vec<String> {
    let mut findings = Vec::new();
    for step in steps {
        let label = step.label();
        if let Some(error) = &step.error {
            findings.push(format!("{label} failed: {} ({})", error.message, error.kind.name()));
        }
        let all = step.failures.len();
        for (key, why) in step.failures.iter().take(MOST) {
            findings.push(format!("{label}: {key} failed: {why}"));
        }
        if all > MOST {
            findings.push(format!("{label}: {} more items failed", all - MOST));
        }
        if all > 0 && step.status == StepStatus::Succeeded {
            findings
                .push(format!("{label} ended well all the same: what failed at first was dealt with later"));
        }
        if step.reopened > 0 {
            findings.push(format!("{label} was reopened {} times", step.reopened));
        }
        let answers = state.step(&step.id).map_or(0, |state| state.answers.len());
        if step.attempts as usize > step.reopened as usize + answers + 1 {
            findings.push(format!("{label} took {} attempts", step.attempts));
        }
        differences(step, state, &mut findings);
    }
    let skipped: Vec<&str> =
        steps.iter().filter(|step| step.skipped.is_some()).map(|step| step.id.as_str()).collect();
    if !skipped.is_empty() {
        findings.push(format!("skipped, since their conditions did not hold: {}", skipped.join(", ")));
    }
    let not_back = held.iter().filter(|one| !one.back || one.lost.is_some());
    findings.extend(not_back.map(|one| {
        let lost = one.lost.as_ref().map_or_else(String::new, |lost| format!(" ({lost})"));
        format!("{}: {}{lost}", one.label, one.how)
    }));
    findings
}

/// What a step's own outputs call a discrepancy: a list of that name, and counts of what is only on one side.
fn differences(step: &StepFacts, state: &RunState, findings: &mut Vec<String>) {
    let Some(outputs) = state.step(&step.id).and_then(StepState::outputs) else { return };
    let label = step.label();
    let listed =
        outputs.get("discrepancies").and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
    findings.extend(listed.iter().take(MOST).map(|one| format!("{label}: {}", shown::line(one))));
    if listed.len() > MOST {
        findings.push(format!("{label}: {} more discrepancies", listed.len() - MOST));
    }
    for (name, value) in &step.outputs {
        let one_sided = name.ends_with("only_here.count")
            || name.ends_with("only_there.count")
            || name.contains("orphan");
        if one_sided && value.as_u64().is_some_and(|count| count > 0) {
            findings.push(format!("{label}: {name} is {value}"));
        }
    }
}

/// What a person may type when not all is well.
fn next(run: &str, state: &RunState) -> Vec<(String, String)> {
    let mut next = Vec::new();
    if state.cancel.is_none() && state.steps.values().any(|step| step.status == StepStatus::Asking) {
        next.push((format!("runbook answer {run}"), "answer what is asked".to_owned()));
    }
    // What is not as the reviewed plan says is mended by a new plan, and not by going on.
    let failed = state.steps.values().filter(|step| step.status == StepStatus::Failed);
    let drifted = failed.filter_map(|step| step.error.as_ref()).any(|error| error.kind == ErrorKind::Drift);
    let about = if drifted {
        "go on, once what differs from the plan is as it was"
    } else {
        "go on with what failed and what is left"
    };
    let resume = state.cancel.is_none().then(|| (format!("runbook resume {run}"), about.to_owned()));
    let end = if drifted {
        "put back what is held, and end; then make a new plan"
    } else {
        "put back what is held, and end"
    };
    let cancel = (state.cancel.is_none() || state.open_obligations().next().is_some())
        .then(|| (format!("runbook cancel {run}"), end.to_owned()));
    next.extend(if drifted { [cancel, resume] } else { [resume, cancel] }.into_iter().flatten());
    next.push((format!("runbook show {run}"), "look at every step and batch".to_owned()));
    next
}
