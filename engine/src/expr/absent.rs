//! What is said of a value that is not there.

use serde_json::Value;

use super::{Reference, Scope};
use crate::suggest::listed;

/// Whether a failed lookup is part of what a reference names.
pub(super) fn covers(reference: &Reference, path: &str) -> bool {
    let full = reference.text();
    if reference.dynamic {
        return path.starts_with(&full);
    }
    full == path || full.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
}

/// Which part of a reference is not there, and what is.
pub(super) fn explain(scope: &Scope, path: &str) -> String {
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut at: Option<Value> = None;
    for (depth, key) in parent.split('.').enumerate() {
        at = match (depth, key) {
            (0, "inputs") => Some(Value::Object(scope.inputs.clone())),
            (0, "steps") => Some(Value::Object(scope.steps.clone())),
            (0, "run") => Some(Value::Object(scope.run.clone())),
            (0, _) => None,
            _ => at.and_then(|value| value.get(key).cloned()),
        };
    }
    if let Some(why) = without_outputs(scope, path) {
        return why;
    }
    match at {
        Some(Value::Object(map)) if map.is_empty() => {
            format!("`{path}` has no value: `{parent}` is empty")
        }
        Some(Value::Object(map)) => {
            let names = map.keys().take(20).map(String::as_str);
            format!("`{path}` has no value: `{parent}` has {} and no `{name}`", listed(names))
        }
        _ => format!("`{path}` has no value"),
    }
}

/// Why a step has no outputs, when that is what is missing.
fn without_outputs(scope: &Scope, path: &str) -> Option<String> {
    let id = path.strip_prefix("steps.")?.strip_suffix(".outputs")?;
    let status = scope.steps.get(id)?.get("status")?.as_str()?;
    let stands = match status {
        "skipped" => "was skipped",
        "failed" => "failed",
        "pending" => "has not run",
        _ => "has not succeeded",
    };
    Some(format!(
        "`{path}` has no value: `{id}` {stands}; test `steps.{id}.status`, or write `… | default(…)`"
    ))
}
