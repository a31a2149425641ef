//! A step's settings as it is called with them, and what of them it asks for only when it needs it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::StepError;
use crate::expr::{self, ExprError, Scope};
use crate::plan::PlannedStep;
use crate::redact::Redactor;
use crate::step::StepCall;

/// Texts of a step's settings that are evaluated when they are asked for.
#[derive(Clone, Debug, Default)]
pub struct Lazy {
    /// As authored, by JSON pointer. What an expression came to is never here, so that it is not taken for an expression itself.
    texts: BTreeMap<String, String>,
    /// What their expressions see: no secrets.
    scope: Scope,
}

impl Lazy {
    /// What the text at a pointer comes to; none when it is not one that is evaluated late: it stands in the settings then.
    pub fn text(&self, pointer: &str) -> Option<Result<String, StepError>> {
        let text = self.texts.get(pointer)?;
        Some(match expr::resolve(&Value::from(text.as_str()), &self.scope) {
            Ok(Value::String(text)) => Ok(text),
            Ok(other) => Ok(other.to_string()),
            Err(error) => Err(StepError::invalid(error.message)),
        })
    }
}

/// The call of a step with its settings as they are now; `lazy` are the pointers to what is evaluated late.
pub(super) fn call(
    step: &PlannedStep,
    lazy: &[&str],
    scope: &Scope,
    redactor: &Redactor,
) -> Result<StepCall, ExprError> {
    let (with, texts) = expr::resolve_except(&step.with, lazy, scope, &|secret| redactor.learn(secret))?;
    let mut seen = Scope::default();
    if !texts.is_empty() {
        seen = Scope { secrets: BTreeMap::new(), ..scope.clone() };
    }
    Ok(StepCall { id: step.id.clone(), uses: step.uses.clone(), with, lazy: Lazy { texts, scope: seen } })
}
