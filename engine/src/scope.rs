//! What the expressions of a run can see, from its plan and its state.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::expr::{self, Scope};
use crate::plan::{Plan, PlannedStep};
use crate::state::{RunState, StepState};
use crate::step::RunInfo;

/// The scope without secrets: for conditions.
pub fn of_run(plan: &Plan, state: &RunState, run: &RunInfo) -> Scope {
    build(plan, state, run, StepState::outputs)
}

/// The scope for running a step.
pub fn of_step(plan: &Plan, state: &RunState, run: &RunInfo, secrets: &BTreeMap<String, String>) -> Scope {
    Scope { secrets: secrets.clone(), ..of_run(plan, state, run) }
}

/// The scope for putting back what a step changed: what an earlier step had produced counts even if it runs again.
pub fn of_release(plan: &Plan, state: &RunState, run: &RunInfo, secrets: &BTreeMap<String, String>) -> Scope {
    let scope = build(plan, state, run, |step| step.last_outputs.as_ref());
    Scope { secrets: secrets.clone(), ..scope }
}

/// What a step's settings come to: SHA-256 of their JSON, 64 lower-case hex digits, with names in place of secrets and of what is another
/// thing in each run, so that the same step of a plan and of a run started with it come to the same. None when an expression has no value.
pub fn settings_digest(step: &PlannedStep, scope: &Scope) -> Option<String> {
    let named = |what: &str, name: &String| Value::from(format!("{what}.{name}"));
    let run = scope.run.keys().map(|name| (name.clone(), named("run", name))).collect();
    let secrets = scope.secrets.keys().map(|name| (name.clone(), format!("secrets.{name}"))).collect();
    let neutral = Scope { run, secrets, ..scope.clone() };
    let with = expr::resolve(&step.with, &neutral).ok()?;
    let digest = Sha256::digest(with.to_string().as_bytes());
    Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The scope of a step that is only foreseen: of the steps before it, what is known of them.
pub fn of_foresight(
    plan: &Plan,
    known: &Map<String, Value>,
    run: &RunInfo,
    secrets: &BTreeMap<String, String>,
) -> Scope {
    let scope = of_step(plan, &RunState::new(plan), run, secrets);
    Scope { steps: known.clone(), ..scope }
}

fn build(
    plan: &Plan,
    state: &RunState,
    run: &RunInfo,
    outputs: impl Fn(&StepState) -> Option<&Value>,
) -> Scope {
    let mut steps = Map::new();
    for (id, step) in &state.steps {
        let mut facts = Map::new();
        facts.insert("status".to_owned(), json!(step.status));
        facts.insert("attempts".to_owned(), json!(step.attempt));
        for (name, time) in [("started_at", step.started_at), ("ended_at", step.ended_at)] {
            if let Some(time) = time {
                facts.insert(name.to_owned(), json!(time.to_string()));
            }
        }
        if let Some(outputs) = outputs(step) {
            facts.insert("outputs".to_owned(), outputs.clone());
        }
        steps.insert(id.clone(), Value::Object(facts));
    }
    let facts = json!({
        "id": run.id,
        "runbook": run.runbook,
        "created_at": run.created_at.to_string(),
        "started_at": state.started_at.map(|at| at.to_string()),
        "by": run.by,
        "seed": run.seed,
    });
    let run = facts.as_object().cloned().unwrap_or_default();
    Scope { inputs: plan.inputs.clone(), steps, run, secrets: BTreeMap::new() }
}
