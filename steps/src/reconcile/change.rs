//! What a finding has done to its item.

use std::collections::BTreeMap;

use runbook_engine::error::StepError;
use serde_json::{Map, Value};

use super::Action;
use super::record::Finding;
use super::reference::{is_now, new_values};
use super::saved::version;
use crate::collections::{Change, Expected, NewValue, Version};

/// The change of an item. `mark` sets what the finding says, of an item in the state that was read; `undo` sets what its fields held before, of
/// an item that holds what `mark` set, and what `mark` set to the time is set to the time again.
pub(super) fn change(action: Action, collection: &str, finding: &Finding) -> Result<Change, StepError> {
    let key = finding.key.clone();
    if finding.set.is_empty() {
        let first = finding.missing.first().map_or("", |one| one.name.as_str());
        return Err(StepError::invalid(format!(
            "the reference `{first}` that `{key}` lacks says nothing to `set`"
        )));
    }
    if action != Action::Undo {
        let expected = Expected::Version(version(&finding.version_in, collection)?.clone());
        return Ok(Change { key, expected, set: new_values(&finding.set)? });
    }
    let mut back = Map::new();
    let mut held = Map::new();
    for (name, value) in &finding.set {
        let prior = finding.prior.get(name).ok_or_else(|| {
            StepError::gate(format!("the findings do not tell what `{name}` of `{key}` was"))
        })?;
        if is_now(value) {
            back.insert(name.clone(), value.clone());
        } else {
            back.insert(name.clone(), prior.clone());
            held.insert(name.clone(), value.clone());
        }
    }
    Ok(Change { key, expected: Expected::Fields(held), set: recorded(&back) })
}

/// A change that never happens, and tells whether it has happened.
pub(super) fn only_told(change: Change) -> Change {
    Change { expected: Expected::Version(Version::ABSENT), ..change }
}

/// Values of a record, which may be mappings of the collection's own, and the time.
fn recorded(set: &Map<String, Value>) -> BTreeMap<String, NewValue> {
    let value = |(name, value): (&String, &Value)| {
        let new = if is_now(value) { NewValue::Now } else { NewValue::Value(value.clone()) };
        (name.clone(), new)
    };
    set.iter().map(value).collect()
}
