//! Expressions: `${{ … }}` in string leaves, evaluated by minijinja with strict undefined and native types.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// What expressions can see.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// `inputs.NAME`.
    pub inputs: Map<String, Value>,
    /// `steps.ID.outputs.NAME`, `.status`, `.started_at`, `.ended_at`.
    pub steps: Map<String, Value>,
    /// `run.id`, `run.runbook`, `run.created_at`, `run.by`.
    pub run: Map<String, Value>,
    /// `secrets.NAME`.
    pub secrets: BTreeMap<String, String>,
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    /// JSON pointer to the leaf, below the value that was resolved.
    pub pointer: String,
    /// What is wrong, as a lower-case fragment, with the expression quoted.
    pub message: String,
}

/// The value with every expression in its string leaves evaluated; a leaf that is one expression keeps its native type.
pub fn resolve(_value: &Value, _scope: &Scope) -> Result<Value, ExprError> {
    Err(ExprError { pointer: String::new(), message: "not built".to_owned() })
}

/// Whether a condition (an expression without `${{ }}`) holds; anything but true or false is an error.
pub fn condition(_text: &str, _scope: &Scope) -> Result<bool, ExprError> {
    Err(ExprError { pointer: String::new(), message: "not built".to_owned() })
}
