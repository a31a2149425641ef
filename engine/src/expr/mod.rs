//! Expressions: `${{ … }}` in string leaves, evaluated by minijinja with strict undefined and native types.

mod absent;
mod analyse;
mod assume;
mod compared;
mod filters;
mod foreign;
mod outcome;
mod rewrite;
mod template;
mod tracked;
mod unknown;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use minijinja::value::Value as Native;
use serde_json::{Map, Value};

pub(crate) use analyse::only_inputs;
pub use analyse::{
    Analysis, Problem, ProblemKind, ROOTS, Reference, Segment, analyse, analyse_expression, references,
};
pub use assume::{Facts, Standings};
pub use compared::{Comparison, comparisons};
pub use filters::{FILTERS, FUNCTIONS, TESTS};
pub use outcome::{Outcome, outcomes};
pub use template::{CLOSE, OPEN, Part, Unclosed, is_template, split, whole};

use crate::kinds::matches;
use absent::{covers, explain};
use tracked::{Missing, pairs, to_json, to_text, track_map};

/// What expressions can see.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// `inputs.NAME`.
    pub inputs: Map<String, Value>,
    /// `steps.ID.outputs.NAME`, `.status`, `.started_at`, `.ended_at`.
    pub steps: Map<String, Value>,
    /// `run.id`, `run.runbook`, `run.definition`, `run.created_at`, `run.by`, `run.cancelled`.
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
    /// What kind of reason it is.
    pub reason: Reason,
    /// What is wrong, as a lower-case fragment, with the expression quoted.
    pub message: String,
}

/// What kind of reason an expression has for having no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Something that it uses is not there.
    Absent,
    /// It can not be read, or what it does can not be done with the values there are.
    Wrong,
}

/// The same before it is known where it stands.
struct Refused {
    reason: Reason,
    message: String,
}

impl Refused {
    fn at(self, pointer: &str) -> ExprError {
        ExprError { pointer: pointer.to_owned(), reason: self.reason, message: self.message }
    }

    fn absent(self) -> Self {
        Self { reason: Reason::Absent, ..self }
    }
}

/// The value with every expression in its string leaves evaluated; a leaf that is one expression keeps its native type.
/// The first leaf that has no value is the error.
pub fn resolve(value: &Value, scope: &Scope) -> Result<Value, ExprError> {
    Evaluator::new(scope).value(value, &mut String::new())
}

/// Like [`resolve`], and tells `learn` every text that comes of a secret: in upper case, or a part of it, it is a secret still.
pub fn resolve_learning(value: &Value, scope: &Scope, learn: &dyn Fn(&str)) -> Result<Value, ExprError> {
    resolve_except(value, &[], scope, learn).map(|(resolved, _)| resolved)
}

/// Like [`resolve_learning`], but texts with expressions at the pointers `lazy` (`*` for any one key or index) stay as they are written; they
/// come by their pointers beside the value.
pub(crate) fn resolve_except(
    value: &Value,
    lazy: &[&str],
    scope: &Scope,
    learn: &dyn Fn(&str),
) -> Result<(Value, BTreeMap<String, String>), ExprError> {
    let mut evaluator = Evaluator { learn: Some(learn), lazy, ..Evaluator::new(scope) };
    let resolved = evaluator.value(value, &mut String::new())?;
    Ok((resolved, evaluator.left))
}

/// Whether a condition (an expression without `${{ }}`) holds; anything but true or false is an error.
pub fn condition(text: &str, scope: &Scope) -> Result<bool, ExprError> {
    let source = whole(text).map_or(text, |(source, _)| source);
    let failed = |refused: Refused| refused.at("");
    let value = Evaluator::new(scope).evaluate(source).map_err(failed)?;
    match to_json(&value).map_err(|why| failed(quoted(source, &why)))? {
        Value::Bool(holds) => Ok(holds),
        other => Err(failed(quoted(
            source,
            &format!("a condition must be true or false, and this is {}", describe(&other)),
        ))),
    }
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

fn quoted(source: &str, why: &str) -> Refused {
    Refused { reason: Reason::Wrong, message: format!("`{}`: {why}", source.trim()) }
}

struct Evaluator<'a> {
    scope: &'a Scope,
    missing: Missing,
    /// Made when the first expression is met.
    context: Option<Native>,
    /// Told what comes of secrets.
    learn: Option<&'a dyn Fn(&str)>,
    /// Pointers to what stays as it is written.
    lazy: &'a [&'a str],
    /// What stayed as it is written, by pointer.
    left: BTreeMap<String, String>,
}

impl<'a> Evaluator<'a> {
    fn new(scope: &'a Scope) -> Self {
        let (missing, left) = (Missing::default(), BTreeMap::new());
        Self { scope, missing, context: None, learn: None, lazy: &[], left }
    }

    fn value(&mut self, value: &Value, pointer: &mut String) -> Result<Value, ExprError> {
        match value {
            Value::String(text) if is_template(text) && matches(pointer, self.lazy) => {
                self.left.insert(pointer.clone(), text.clone());
                Ok(value.clone())
            }
            Value::String(text) if is_template(text) => {
                self.leaf(text).map_err(|refused| refused.at(pointer))
            }
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(at, item)| self.below(item, &at.to_string(), pointer))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            Value::Object(map) => map
                .iter()
                .map(|(key, item)| Ok((key.clone(), self.below(item, key, pointer)?)))
                .collect::<Result<_, _>>()
                .map(Value::Object),
            plain => Ok(plain.clone()),
        }
    }

    fn below(&mut self, item: &Value, key: &str, pointer: &mut String) -> Result<Value, ExprError> {
        let length = pointer.len();
        pointer.push('/');
        pointer.push_str(&escape(key));
        let result = self.value(item, pointer);
        pointer.truncate(length);
        result
    }

    fn leaf(&mut self, text: &str) -> Result<Value, Refused> {
        let parts = split(text).map_err(|_| quoted(text, "`${{` is not closed"))?;
        if let [Part::Expr(source, _)] = parts.as_slice() {
            return to_json(&self.evaluate(source)?).map_err(|why| quoted(source, &why));
        }
        let mut whole = String::new();
        for part in parts {
            match part {
                Part::Plain(plain) => whole.push_str(plain),
                Part::Expr(source, _) => {
                    whole.push_str(&to_text(&self.evaluate(source)?).map_err(|why| quoted(source, &why))?);
                }
            }
        }
        Ok(Value::String(whole))
    }

    fn evaluate(&mut self, source: &str) -> Result<Native, Refused> {
        let tree = analyse::parse(source).map_err(|(_, message)| quoted(source, &message))?;
        let analysis = analyse_expression(source);
        if let Some(problem) = analysis.problems.first() {
            return Err(quoted(source, &problem.message));
        }
        let text = rewrite::rewritten(source, &tree);
        let context = self.context();
        self.missing.take();
        let result =
            filters::ENVIRONMENT.compile_expression(&text).and_then(|expression| expression.eval(context));
        if let Some(absent) = self.absent(&analysis.references) {
            return Err(quoted(source, &explain(self.scope, &absent)).absent());
        }
        match result {
            Ok(value) if value.is_undefined() => Err(quoted(source, "the value is undefined").absent()),
            Ok(value) => {
                if let Some(learn) = self.learn
                    && analysis.references.iter().any(|reference| reference.root == "secrets")
                    && let Ok(value) = to_json(&value)
                {
                    each_text(&value, learn);
                }
                Ok(value)
            }
            Err(error) if error.kind() == minijinja::ErrorKind::UndefinedError => {
                Err(quoted(source, &why(&error)).absent())
            }
            Err(error) => Err(quoted(source, &why(&error))),
        }
    }

    fn context(&mut self) -> Native {
        let (scope, missing) = (self.scope, &self.missing);
        self.context
            .get_or_insert_with(|| {
                let secrets =
                    scope.secrets.iter().map(|(name, value)| (name.as_str(), Native::from(value.as_str())));
                let roots = [
                    ("inputs", track_map(&scope.inputs, "inputs", missing)),
                    ("steps", track_map(&scope.steps, "steps", missing)),
                    ("run", track_map(&scope.run, "run", missing)),
                    ("secrets", pairs(secrets, "secrets", missing)),
                ];
                Native::from_pairs(roots)
            })
            .clone()
    }

    /// The first lookup that found nothing and is part of a reference; one that may be absent was not looked up in this way.
    fn absent(&self, references: &[Reference]) -> Option<String> {
        let unguarded = |path: &String| references.iter().any(|one| !one.guarded && covers(one, path));
        self.missing.take().into_iter().find(unguarded)
    }
}

fn each_text(value: &Value, take: &dyn Fn(&str)) {
    match value {
        Value::String(text) => take(text),
        Value::Array(items) => items.iter().for_each(|item| each_text(item, take)),
        Value::Object(map) => map.values().for_each(|item| each_text(item, take)),
        _ => {}
    }
}

/// minijinja's message without its prefix for the kind where it has a detail.
fn why(error: &minijinja::Error) -> String {
    match (error.kind(), error.detail()) {
        (minijinja::ErrorKind::OutOfFuel, _) => "the expression does too much work".to_owned(),
        (_, Some(detail)) => detail.to_owned(),
        (kind, None) => kind.to_string(),
    }
}

/// The key that a part of a JSON pointer names.
pub fn unescape(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// One key as a part of a JSON pointer.
pub fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
