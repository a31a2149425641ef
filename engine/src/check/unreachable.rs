//! A step can run: its condition holds for some inputs.

use serde_json::{Map, Value};

use super::{Context, Finding, codes};
use crate::diagnostic::Diagnostic;
use crate::expr::{self, Scope, analyse_expression};
use crate::runbook::{Input, InputKind};

/// How many combinations of inputs are tried at most.
const COMBINATIONS: usize = 64;

pub(super) fn check(cx: &Context<'_>, found: &mut Vec<Finding>) {
    for (at, step) in cx.graph.steps.iter().enumerate() {
        let (Some(condition), Some(text)) = (&step.condition, step.condition_text()) else { continue };
        if !never(cx, &text) {
            continue;
        }
        let message = format!("`{}` never runs: its `if` is false whatever the inputs are", step.id.value);
        let problem = Diagnostic::warning(codes::UNREACHABLE, condition.node.span.clone(), message)
            .help("take the step away, or mend the condition");
        found.push(Finding { step: at, problem });
    }
}

/// Whether a condition is false for every combination of the inputs it uses, as far as all of them can be tried.
fn never(cx: &Context<'_>, condition: &str) -> bool {
    let analysis = analyse_expression(condition);
    if !analysis.problems.is_empty() {
        return false;
    }
    let mut scopes = vec![Map::new()];
    for reference in &analysis.references {
        let name = reference.name(0).filter(|_| reference.root == "inputs");
        let input = name.and_then(|name| cx.runbook.inputs.iter().find(|input| input.name.value == name));
        let Some(input) = input else { return false };
        if scopes[0].contains_key(&input.name.value) {
            continue;
        }
        let values = values(input);
        if values.is_empty() || values.len() * scopes.len() > COMBINATIONS {
            return false;
        }
        let with = |scope: &Map<String, Value>, value: &Value| {
            let mut scope = scope.clone();
            scope.insert(input.name.value.clone(), value.clone());
            scope
        };
        scopes = scopes.iter().flat_map(|scope| values.iter().map(move |value| with(scope, value))).collect();
    }
    scopes.into_iter().all(|inputs| {
        let scope = Scope { inputs, ..Scope::default() };
        expr::condition(condition, &scope) == Ok(false)
    })
}

/// Every value that an input can have, when they can be counted.
fn values(input: &Input) -> Vec<Value> {
    let mut values = match input.kind {
        InputKind::Boolean if input.choices.is_empty() => vec![Value::Bool(false), Value::Bool(true)],
        InputKind::List => Vec::new(),
        _ => input.choices.clone(),
    };
    if !values.is_empty() && !input.required && input.default.is_null() {
        values.push(Value::Null);
    }
    values
}
