//! The promises about any text. The tests of the engine use this file too.

use std::ops::Range;

use runbook_engine::compile::compile;
use runbook_engine::diagnostic::Severity;
use runbook_engine::expr::{self, Scope};
use runbook_engine::inputs::resolve_inputs;
use runbook_engine::kinds::Catalog;
use serde_json::{Value, json};

/// The most mistakes that are told, and one line that says how many are not.
const MOST_PROBLEMS: usize = 1001;

/// Reads, checks and plans any text as a runbook.
pub fn document(text: &str, catalog: &Catalog) {
    let (runbook, problems) = compile(text, catalog);
    let refused = problems.iter().any(|problem| problem.severity == Severity::Error);
    assert_eq!(runbook.is_none(), refused, "it is refused if and only if an error is told");
    assert!(problems.len() <= MOST_PROBLEMS);
    for problem in &problems {
        within(text, &problem.span);
        problem.labels.iter().for_each(|label| within(text, &label.span));
        assert!(!problem.message.is_empty());
    }
    let Some(runbook) = runbook else { return };
    let Ok(inputs) = resolve_inputs(&runbook, &[]) else { return };
    match runbook.plan(inputs, catalog) {
        Ok(plan) => assert_eq!(plan.all_steps().count(), runbook.all_steps().count()),
        Err(problems) => problems.iter().for_each(|problem| within(text, &problem.span)),
    }
}

/// Analyses and evaluates any text as one with expressions, and as a condition.
pub fn expression(text: &str) {
    for analysis in [expr::analyse(text), expr::analyse_expression(text)] {
        analysis.problems.iter().for_each(|problem| within(text, &problem.span));
        analysis.references.iter().for_each(|reference| {
            within(text, &reference.span);
            reference.path.iter().for_each(|segment| within(text, &segment.span));
        });
    }
    let Value::Object(steps) = json!({ "a": { "outputs": { "n": 3, "list": [1, "x", null] } } }) else {
        return;
    };
    let Value::Object(inputs) = json!({ "x": "text", "n": 7, "flag": true, "none": null }) else { return };
    let scope = Scope { inputs, steps, ..Scope::default() };
    for outcome in
        [expr::resolve(&Value::from(text), &scope).map(drop), expr::condition(text, &scope).map(drop)]
    {
        if let Err(error) = outcome {
            assert!(!error.message.is_empty());
        }
    }
}

/// The bytes are bytes of the text, on the boundaries of characters.
fn within(text: &str, span: &Range<usize>) {
    assert!(text.get(span.clone()).is_some(), "{span:?} of {} bytes", text.len());
}
