//! The backups that a run has, once it has begun to destroy: whoever stops it, or finds it stopped, is told how what was there comes back.

use std::collections::BTreeSet;

use runbook_engine::kinds::Class;
use runbook_engine::state::{RunStatus, StepState, StepStatus};
use runbook_steps::catalog;
use serde_json::Value;

use super::{Facts, row};

/// One row for each; none when nothing is destroyed, or all went well.
pub(super) fn rows(facts: &Facts<'_>, lines: &mut Vec<String>) {
    let succeeded =
        |id: &str| facts.state.step(id).is_some_and(|state| state.status == StepStatus::Succeeded);
    let begun = |id: &str| succeeded(id) || facts.ledgers.announced.contains(id);
    let destroys = facts.plan.all_steps().any(|step| step.effect.class == Class::Destroy && begun(&step.id));
    if !destroys || facts.state.status == RunStatus::Succeeded {
        return;
    }
    let mut told = BTreeSet::new();
    for step in facts.plan.all_steps() {
        let names = catalog::step(&step.uses).and_then(|kind| kind.backup_outputs);
        let outputs = facts.state.step(&step.id).and_then(StepState::outputs);
        let text = |pointer: &str| outputs?.pointer(pointer).and_then(Value::as_str);
        let Some((file, restore)) = names.and_then(|(file, restore)| text(file).zip(text(restore))) else {
            continue;
        };
        if told.insert(restore) {
            let text = format!(
                "{file}; where it was not brought back yet, stop whatever uses the database, and type `{restore}`"
            );
            row(facts, lines, "Backup", &text);
        }
    }
}
