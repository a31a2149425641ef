//! Expressions: `${{ … }}` in string leaves, evaluated by minijinja with strict undefined and native types.

mod analyse;
mod concat;
mod filters;
mod foreign;
mod template;
mod tracked;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use minijinja::value::Value as Native;
use serde_json::{Map, Value};

pub use analyse::{
    Analysis, Problem, ProblemKind, ROOTS, Reference, Segment, analyse, analyse_expression, references,
};
pub use filters::{FILTERS, FUNCTIONS, TESTS};
pub use template::{CLOSE, OPEN, Part, Unclosed, is_template, split, whole};

use tracked::{Missing, pairs, to_json, to_text, track_map};

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
    Evaluator { learn: Some(learn), ..Evaluator::new(scope) }.value(value, &mut String::new())
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
}

impl<'a> Evaluator<'a> {
    fn new(scope: &'a Scope) -> Self {
        Self { scope, missing: Missing::default(), context: None, learn: None }
    }

    fn value(&mut self, value: &Value, pointer: &mut String) -> Result<Value, ExprError> {
        match value {
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
        let text = concat::with_text_operands(source, &tree);
        let context = self.context();
        self.missing.take();
        let result =
            filters::ENVIRONMENT.compile_expression(&text).and_then(|expression| expression.eval(context));
        if let Some(absent) = self.absent(&analysis.references) {
            return Err(quoted(source, &self.explain(&absent)).absent());
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

    /// The first reference that was looked up, was not there, and is nowhere allowed to be absent.
    fn absent(&self, references: &[Reference]) -> Option<String> {
        self.missing.take().into_iter().find(|path| {
            let mut named = references.iter().filter(|reference| covers(reference, path)).peekable();
            named.peek().is_some() && !named.any(|reference| reference.guarded)
        })
    }

    /// Which part of a reference is not there, and what is.
    fn explain(&self, path: &str) -> String {
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        let mut at: Option<Value> = None;
        for (depth, key) in parent.split('.').enumerate() {
            at = match (depth, key) {
                (0, "inputs") => Some(Value::Object(self.scope.inputs.clone())),
                (0, "steps") => Some(Value::Object(self.scope.steps.clone())),
                (0, "run") => Some(Value::Object(self.scope.run.clone())),
                (0, _) => None,
                _ => at.and_then(|value| value.get(key).cloned()),
            };
        }
        match at {
            Some(Value::Object(map)) if map.is_empty() => {
                format!("`{path}` has no value: `{parent}` is empty")
            }
            Some(Value::Object(map)) => {
                let names = map.keys().take(20).map(String::as_str);
                format!(
                    "`{path}` has no value: `{parent}` has {} and no `{name}`",
                    crate::suggest::listed(names)
                )
            }
            _ => format!("`{path}` has no value"),
        }
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

/// Whether a failed lookup is part of what a reference names.
fn covers(reference: &Reference, path: &str) -> bool {
    let full = reference.text();
    if reference.dynamic {
        return path.starts_with(&full);
    }
    full == path || full.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
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
