//! Whether a run that was started with a reviewed plan may still go on with it.

use jiff::Timestamp;
use runbook_engine::plan::Plan;
use runbook_engine::saved;
use runbook_engine::state::{RunState, StepState};
use runbook_engine::store::RunRow;
use runbook_steps::resources::{Named, in_words};
use serde_json::Value;

use super::{Needs, Systems, complain};
use crate::exit::{Exit, Failure, Outcome};
use crate::format;
use crate::reviewed;

/// Refuses to work elsewhere than where the run began: what a person has confirmed was about that. What leads elsewhere is an environment variable or
/// a file, out of which a secret is read. To put things back is not refused, but it does without these connections: elsewhere nothing is to be put
/// back, and what is not there would be taken for put back already.
pub(super) fn same_places(run: &str, systems: &mut Systems, needs: Needs) -> Outcome<()> {
    let moved = saved::places(&systems.plan.places, &systems.places(run));
    if moved.is_empty() {
        return Ok(());
    }
    let message = format!("run {run} would work elsewhere than where it began");
    if needs == Needs::WhatThereIs {
        let mut lines: Vec<String> = moved.iter().map(reviewed::line).collect();
        lines.push(
            "what was changed there stays as it is until the secrets of these connections are as they were"
                .to_owned(),
        );
        let elsewhere: Vec<&str> = moved.iter().map(|one| one.name.as_str()).collect();
        let of = |settings: &Value| {
            settings.get("connection").and_then(Value::as_str).is_some_and(|name| elsewhere.contains(&name))
        };
        let why = "it leads elsewhere than where the run began";
        for name in &elsewhere {
            systems.resources.leave_out(Named::Connection, name, why);
        }
        for (name, _) in systems.plan.collections.iter().filter(|(_, settings)| of(settings)) {
            systems.resources.leave_out(Named::Collection, name, why);
        }
        return complain(needs, Exit::Drift, &message, lines);
    }
    Err(Failure::new(Exit::Drift, message)
        .moved(moved)
        .help(
            "nothing was done; set the secrets of these connections as they were and type the same again, or",
        )
        .help(format!("runbook cancel {run}   to end the run, with the secrets as they were")))
}

/// Refuses to work on other systems than those that were looked at. To put things back is not refused: each finds out by itself whether what
/// it changed is there.
pub(super) async fn same_systems(run: &str, systems: &Systems, needs: Needs) -> Outcome<()> {
    let Some(reviewed) = &systems.plan.reviewed else { return Ok(()) };
    let now = match systems.resources.identities().await {
        Ok(now) => in_words(&now),
        Err(error) if needs == Needs::WhatThereIs => {
            format::warn(&format!("it can not be told whether the systems are those of the plan: {error}"));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let moved = saved::systems(&reviewed.systems, &now);
    if moved.is_empty() {
        return Ok(());
    }
    let message =
        format!("run {run} would work on other systems than its reviewed plan {}", reviewed.short_id());
    if needs == Needs::WhatThereIs {
        let lines = moved.iter().map(reviewed::line).collect();
        return complain(needs, Exit::Drift, &message, lines);
    }
    Err(Failure::new(Exit::Drift, message)
        .moved(moved)
        .help("nothing was done; put them back as they were and type the same again, or")
        .help(format!("runbook cancel {run}   to end the run, and make a new plan")))
}

/// Refuses to go on with a run whose plan has expired before anything was destroyed that is still to be: what comes before it would be done
/// for nothing.
pub fn in_time(row: &RunRow, plan: &Plan, stands: &RunState) -> Outcome<()> {
    let now = Timestamp::now();
    let Some(reviewed) = plan.reviewed.as_ref().filter(|reviewed| reviewed.expires_at <= now) else {
        return Ok(());
    };
    let of = |id: &str| stands.step(id);
    let destroying = || plan.all_steps().filter(|step| step.effect.class.may_destroy());
    let begun = destroying().any(|step| of(&step.id).is_some_and(|state| state.attempt > 0));
    let to_come = destroying().any(|step| !of(&step.id).is_some_and(StepState::is_over));
    if begun || !to_come {
        return Ok(());
    }
    let (id, ago) = (reviewed.short_id(), format::ago(reviewed.expires_at, now));
    let message =
        format!("the reviewed plan {id} of run {} expired {ago}, before anything was destroyed", row.id);
    Err(Failure::new(Exit::Drift, message)
        .help("nothing was done; what was reviewed can not be done any more with this run")
        .help(format!("runbook cancel {}   to end it, then", row.id))
        .help(reviewed::anew(&row.source_name, plan, "plan.json")))
}
