//! The values of a run's inputs: given, or their defaults, all checked against what the runbook declares.

use serde_json::{Map, Number, Value};

use crate::document;
use crate::duration::Duration;
use crate::runbook::{Input, InputKind, Runbook};
use crate::suggest::{did_you_mean, listed};

/// What was given for an input.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// Text from a command line, read by the declared type.
    Text(String),
    /// A typed value from a file.
    Value(Value),
}

/// A mistake in what was given. `Display` is a lower-case fragment that names the input, what was got and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InputError {
    /// The input's name as given.
    pub input: String,
    /// What is wrong.
    pub message: String,
    /// What to do instead.
    pub help: Option<String>,
}

/// Every input with its value, in the order of the runbook; otherwise every mistake.
pub fn resolve_inputs(
    runbook: &Runbook,
    given: &[(String, Given)],
) -> Result<Map<String, Value>, Vec<InputError>> {
    let mut errors = Vec::new();
    for (at, (name, _)) in given.iter().enumerate() {
        let names = || runbook.inputs.iter().map(|input| input.name.value.as_str());
        if !names().any(|known| known == name) {
            let help = did_you_mean(name, names()).unwrap_or_else(|| match runbook.inputs.len() {
                0 => "this runbook has no inputs".to_owned(),
                _ => format!("the inputs are {}", listed(names())),
            });
            errors.push(InputError {
                input: name.clone(),
                message: format!("there is no input `{name}`"),
                help: Some(help),
            });
        } else if given[..at].iter().any(|(other, _)| other == name) {
            let message = format!("the input `{name}` is given twice");
            errors.push(InputError { input: name.clone(), message, help: None });
        }
    }
    let mut values = Map::new();
    for input in &runbook.inputs {
        let name = &input.name.value;
        let got = given.iter().find(|(other, _)| other == name).map(|(_, got)| got);
        match input.value(got) {
            Ok(value) => {
                values.insert(name.clone(), value);
            }
            Err(message) => {
                let help = (!input.description.is_empty()).then(|| input.description.clone());
                errors.push(InputError {
                    input: name.clone(),
                    message: format!("the input `{name}` {message}"),
                    help,
                });
            }
        }
    }
    if errors.is_empty() { Ok(values) } else { Err(errors) }
}

impl Input {
    /// The value for what was given, or the default.
    fn value(&self, given: Option<&Given>) -> Result<Value, String> {
        match given {
            None if self.required => Err(format!("is not given: it must be {}", self.allowed())),
            None => Ok(self.default.clone()),
            Some(Given::Value(Value::Null)) if !self.required => Ok(self.default.clone()),
            Some(Given::Value(value)) => self.accept(value).map_err(|why| format!("is wrong: {why}")),
            Some(Given::Text(text)) => self
                .read(text)
                .and_then(|value| self.accept(&value))
                .map_err(|why| format!("is wrong: {why}")),
        }
    }

    /// A typed value checked against type and bounds; otherwise what was got and what is allowed.
    pub fn accept(&self, value: &Value) -> Result<Value, String> {
        let value = if self.kind == InputKind::List {
            let items = value.as_array().ok_or_else(|| self.refused(value))?;
            Value::Array(items.iter().map(|item| self.accept_item(item)).collect::<Result<_, _>>()?)
        } else {
            self.scalar(self.kind, value)?
        };
        let size = self.size(&value);
        let below = self.minimum.as_ref().is_some_and(|minimum| size < self.size_of_bound(minimum));
        let above = self.maximum.as_ref().is_some_and(|maximum| size > self.size_of_bound(maximum));
        if below || above || (self.kind != InputKind::List && !self.is_choice(&value)) {
            return Err(self.refused(&value));
        }
        Ok(value)
    }

    /// One item of a list, checked.
    pub(crate) fn accept_item(&self, item: &Value) -> Result<Value, String> {
        let value = self.scalar(self.items, item)?;
        if self.is_choice(&value) { Ok(value) } else { Err(self.refused(&value)) }
    }

    fn is_choice(&self, value: &Value) -> bool {
        self.choices.is_empty() || self.choices.contains(value)
    }

    fn scalar(&self, kind: InputKind, value: &Value) -> Result<Value, String> {
        let fits = match (kind, value) {
            (InputKind::String, Value::String(_)) | (InputKind::Boolean, Value::Bool(_)) => true,
            (InputKind::Number, Value::Number(_)) => true,
            (InputKind::Integer, Value::Number(number)) => number.is_i64() || number.is_u64(),
            (InputKind::Path, Value::String(text)) => !text.is_empty(),
            (InputKind::Duration, Value::String(text)) => text.parse::<Duration>().is_ok(),
            (InputKind::Url, Value::String(text)) => url::Url::parse(text).is_ok_and(|url| url.has_host()),
            _ => false,
        };
        let matches = match (&self.pattern, value) {
            (Some(pattern), Value::String(text)) => pattern.regex.is_match(text),
            _ => true,
        };
        if fits && matches { Ok(value.clone()) } else { Err(self.refused(value)) }
    }

    /// What is compared with the bounds.
    pub(crate) fn size(&self, value: &Value) -> Option<f64> {
        match (self.kind, value) {
            #[expect(clippy::cast_precision_loss, reason = "no list is that long")]
            (InputKind::List, Value::Array(items)) => Some(items.len() as f64),
            #[expect(clippy::cast_precision_loss, reason = "durations below 2^53 milliseconds")]
            (InputKind::Duration, Value::String(text)) => {
                text.parse::<Duration>().ok().map(|duration| duration.as_millis() as f64)
            }
            (InputKind::Duration, _) => None,
            (_, value) => value.as_f64(),
        }
    }

    fn size_of_bound(&self, bound: &Value) -> Option<f64> {
        if self.kind == InputKind::List { bound.as_f64() } else { self.size(bound) }
    }

    fn refused(&self, got: &Value) -> String {
        let got = got.to_string();
        let got = if got.chars().count() > 80 { got.chars().take(79).chain(['…']).collect() } else { got };
        format!("got {got}, and it must be {}", self.allowed())
    }

    /// What is allowed, in words.
    pub fn allowed(&self) -> String {
        let scalar = |kind| match kind {
            InputKind::String => "a text",
            InputKind::Integer => "a whole number",
            InputKind::Number => "a number",
            InputKind::Boolean => "true or false",
            InputKind::Url => "a URL such as http://host:8080",
            InputKind::Path => "a path",
            InputKind::Duration => "a duration such as 30s, 5m or 1h30m",
            InputKind::List => "a list",
        };
        let mut words = if self.kind == InputKind::List {
            format!("a list in which each item is {}", scalar(self.items))
        } else {
            scalar(self.kind).to_owned()
        };
        if !self.choices.is_empty() {
            let choices: Vec<String> = self.choices.iter().map(bare).collect();
            words = format!(
                "{}one of {}",
                if self.kind == InputKind::List { "a list in which each item is " } else { "" },
                choices.join(", ")
            );
        }
        let items = if self.kind == InputKind::List { " items" } else { "" };
        match (&self.minimum, &self.maximum) {
            (Some(minimum), Some(maximum)) => {
                words += &format!(", {} to {}{items}", bare(minimum), bare(maximum));
            }
            (Some(minimum), None) => words += &format!(", at least {}{items}", bare(minimum)),
            (None, Some(maximum)) => words += &format!(", at most {}{items}", bare(maximum)),
            (None, None) => {}
        }
        if let Some(pattern) = &self.pattern {
            words += &format!(", matching `{}`", pattern.text);
        }
        words
    }

    /// Text of a command line as a value of the declared type.
    fn read(&self, text: &str) -> Result<Value, String> {
        if self.kind != InputKind::List {
            return Ok(scalar_of_text(self.kind, text));
        }
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Ok(Value::Array(Vec::new()));
        }
        if trimmed.starts_with('[') {
            let (node, problems) = document::parse(trimmed);
            let value = node.filter(|_| problems.is_empty()).map(|node| node.to_json());
            let Some(Value::Array(items)) = value else {
                return Err(self.refused(&Value::String(text.to_owned())));
            };
            return Ok(Value::Array(items.into_iter().map(|item| self.as_item(item)).collect()));
        }
        Ok(Value::Array(trimmed.split(',').map(|item| scalar_of_text(self.items, item.trim())).collect()))
    }

    /// `[1, true]` for a list of texts means the texts.
    fn as_item(&self, item: Value) -> Value {
        let textual = !matches!(self.items, InputKind::Integer | InputKind::Number | InputKind::Boolean);
        match item {
            Value::Number(number) if textual => Value::String(number.to_string()),
            Value::Bool(flag) if textual => Value::String(flag.to_string()),
            other => other,
        }
    }
}

/// The value when the text is one of this type; the text itself otherwise, to be refused with what it should be.
fn scalar_of_text(kind: InputKind, text: &str) -> Value {
    let as_text = || Value::String(text.to_owned());
    match kind {
        InputKind::Integer => text
            .parse::<i64>()
            .map(Value::from)
            .or_else(|_| text.parse::<u64>().map(Value::from))
            .unwrap_or_else(|_| as_text()),
        InputKind::Number => match text.parse::<i64>() {
            Ok(number) => Value::from(number),
            Err(_) => text.parse::<f64>().ok().and_then(Number::from_f64).map_or_else(as_text, Value::Number),
        },
        InputKind::Boolean => match text {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => as_text(),
        },
        _ => as_text(),
    }
}

fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
