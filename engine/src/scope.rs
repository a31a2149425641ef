//! What the expressions of a run can see, from its plan and its state.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::expr::{self, Scope};
use crate::kinds::StepKindInfo;
use crate::plan::{Plan, PlannedStep, SettingsDigest};
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

/// A time that is the same in each run: a time all the same, because expressions may reckon with it.
const SOME_TIME: &str = "1970-01-01T00:00:00Z";

/// A fact that is another one each time, as one of its type that never is.
fn fleeting(fact: &mut Value) {
    match fact {
        Value::String(text) => SOME_TIME.clone_into(text),
        Value::Number(number) => *number = 1.into(),
        _ => {}
    }
}

/// What a step's settings come to, so that the same step of a plan and of a run started with it come to the same: secrets and facts of the
/// run by their names, whenever other steps were done and however long that took, and without what only changes the speed. None when an
/// expression has no value.
pub fn settings_digest(
    plan: &Plan,
    step: &PlannedStep,
    kind: &dyn Fn(&str) -> Option<&'static StepKindInfo>,
    scope: &Scope,
) -> Option<SettingsDigest> {
    let named = |name: &String| match name.as_str() {
        "created_at" | "started_at" => Value::from(SOME_TIME),
        "cancelled" => Value::Bool(false),
        _ => Value::from(format!("run.{name}")),
    };
    let run = scope.run.keys().map(|name| (name.clone(), named(name))).collect();
    let secrets = scope.secrets.keys().map(|name| (name.clone(), format!("secrets.{name}"))).collect();
    let mut steps = scope.steps.clone();
    for (id, facts) in &mut steps {
        for name in ["started_at", "ended_at", "attempts"] {
            facts.get_mut(name).map(fleeting);
        }
        let kind = plan.step(id).and_then(|other| kind(&other.uses));
        for pointer in kind.map_or(&[][..], |kind| kind.fleeting_outputs) {
            facts.get_mut("outputs").and_then(|outputs| outputs.pointer_mut(pointer)).map(fleeting);
        }
    }
    let neutral = Scope { inputs: scope.inputs.clone(), steps, run, secrets };
    let mut with = step.with.clone();
    for pointer in kind(&step.uses).map_or(&[][..], |kind| kind.speed_fields) {
        if let Some(value) = with.pointer_mut(pointer) {
            *value = Value::Null;
        }
    }
    let with = expr::resolve(&with, &neutral).ok()?;
    let digest = |value: &Value| -> String {
        Sha256::digest(value.to_string().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let settings = with.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    Some(settings.map(|(name, value)| (name.clone(), digest(value))).collect())
}

/// That the settings of a step come to something else, and which; nothing when they come to the same.
pub fn settings_words(before: &SettingsDigest, after: &SettingsDigest) -> Option<String> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differ = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    let differ: Vec<String> = differ.map(|name| format!("`{name}`")).collect();
    (!differ.is_empty()).then(|| format!("its settings come to something else ({})", differ.join(", ")))
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
        "definition": plan.definition,
        "created_at": run.created_at.to_string(),
        "started_at": state.started_at.map(|at| at.to_string()),
        "by": run.by,
        "seed": run.seed,
        "cancelled": state.cancel.is_some(),
    });
    let run = facts.as_object().cloned().unwrap_or_default();
    Scope { inputs: plan.inputs.clone(), steps, run, secrets: BTreeMap::new() }
}
