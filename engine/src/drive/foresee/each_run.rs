//! What is another thing in each run: facts of the run, times, and what steps say of how long they took.

use serde_json::{Map, Value, json};

use super::Walk;
use crate::event::Question;
use crate::expr;
use crate::plan::PlannedStep;
use crate::saved::SavedPlan;
use crate::step::RunInfo;

/// The run as the plan saw it that this is held against.
pub(super) fn as_planned(run: &RunInfo, against: Option<&SavedPlan>) -> RunInfo {
    let Some(saved) = against else { return run.clone() };
    RunInfo { created_at: saved.made_at, by: saved.made_by.clone(), ..run.clone() }
}

impl Walk {
    /// What settings see of the steps: what the plan saw that this is held against, where it is another thing in each run.
    pub(super) fn known_as_planned(&self) -> Map<String, Value> {
        let mut known = self.known.clone();
        let Some(saved) = &self.with.against else { return known };
        for (id, facts) in &mut known {
            for time in ["started_at", "ended_at"] {
                if let Some(at) = facts.get_mut(time) {
                    *at = json!(saved.made_at.to_string());
                }
            }
            let fleeting = saved.step(id).into_iter().flat_map(|step| &step.fleeting);
            for (pointer, value) in fleeting {
                if let Some(present) =
                    facts.get_mut("outputs").and_then(|outputs| outputs.pointer_mut(pointer))
                {
                    present.clone_from(value);
                }
            }
        }
        known
    }

    /// The outputs of a step that are another thing each time, by JSON pointer.
    pub(super) fn fleeting(&self, step: &PlannedStep, outputs: &Value) -> Map<String, Value> {
        let pointers = self.with.executor.kind(&step.uses).map_or(&[][..], |kind| kind.fleeting_outputs);
        pointers.iter().filter_map(|at| Some(((*at).to_owned(), outputs.pointer(at)?.clone()))).collect()
    }

    /// Says of each phrase that is another one in each run where it stands: nobody can give it beforehand.
    pub(super) fn unforeseeable(&self, step: &PlannedStep, with: &Value, asks: &[Question]) -> Vec<String> {
        let mut leaves = Vec::new();
        texts(&step.with, &mut String::new(), &mut leaves);
        let asked = |text: &str| {
            asks.iter().any(|ask| matches!(ask, Question::Phrase { phrase, .. } if phrase == text))
        };
        let shown = leaves
            .into_iter()
            .filter(|(pointer, _)| with.pointer(pointer).and_then(Value::as_str).is_some_and(asked));
        shown
            .filter_map(|(pointer, text)| {
                let mut named = expr::references(text).into_iter().map(|reference| reference.text());
                let name = named.find(|name| self.differs(name))?;
                let place = pointer.replace('/', ".");
                Some(format!(
                    "the phrase at `with{place}` holds `{name}`, which is another one in each run: `--confirm` can not give it"
                ))
            })
            .collect()
    }

    /// Whether what this name stands for is another thing in each run.
    fn differs(&self, name: &str) -> bool {
        let parts: Vec<&str> = name.split('.').collect();
        match parts[..] {
            ["run", fact, ..] => fact != "runbook",
            ["steps", _, "started_at" | "ended_at", ..] => true,
            ["steps", id, "outputs", ref below @ ..] => {
                let kind = self.with.plan.step(id).and_then(|step| self.with.executor.kind(&step.uses));
                // The whole of which it is a part differs with it.
                let named = format!("/{}/", below.join("/"));
                let fleeting = kind.map_or(&[][..], |kind| kind.fleeting_outputs);
                fleeting.iter().any(|pointer| format!("{pointer}/").starts_with(&named))
            }
            _ => false,
        }
    }
}

/// The texts with expressions in them, each with its JSON pointer.
fn texts<'v>(value: &'v Value, pointer: &mut String, found: &mut Vec<(String, &'v str)>) {
    let mut below = |key: &str, value: &'v Value| {
        let length = pointer.len();
        pointer.push('/');
        pointer.push_str(&expr::escape(key));
        texts(value, pointer, found);
        pointer.truncate(length);
    };
    match value {
        Value::Array(items) => items.iter().enumerate().for_each(|(at, item)| below(&at.to_string(), item)),
        Value::Object(map) => map.iter().for_each(|(key, item)| below(key, item)),
        Value::String(text) if expr::is_template(text) => found.push((pointer.clone(), text)),
        _ => {}
    }
}
