//! Checks settings against a Rust type: every mistake rather than the first, each with its JSON pointer.
//!
//! Serde stops at the first mistake. So a mistake is written down, its value is made a *hole* that gives whatever the type asks
//! for, and the type is read again. A text with an expression is a hole from the beginning, since it fits any type.

mod errors;
mod read;
mod rules;
mod shape;

use std::any::TypeId;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use schemars::{JsonSchema, schema_for};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::expr::{escape, is_template, unescape};
use crate::kinds::{Fault as At, SettingProblem};
use crate::suggest::{closest, listed};

use errors::{Fault, What};

pub use rules::check_rules;

/// How often the type is read at most.
const ROUNDS: usize = 200;

/// Every mistake in the settings of a type that refuses unknown fields, by the type and by the rules of its schema. A text that
/// holds `${{` fits anything.
pub fn check_kind<T: DeserializeOwned + JsonSchema + 'static>(value: &Value) -> Vec<SettingProblem> {
    let mut problems = check_settings::<T>(value);
    let schema = schema_of::<T>();
    let more = check_rules(&schema, value);
    for problem in problems.iter_mut().filter(|problem| problem.help.is_none() && problem.fault == At::Value)
    {
        let got = value.pointer(&problem.pointer).filter(|got| !got.is_null());
        problem.help = got.and_then(|got| shape::meant(&schema, &problem.pointer, got));
    }
    let told: HashSet<String> = problems.iter().map(|problem| problem.pointer.clone()).collect();
    problems.extend(more.into_iter().filter(|problem| !told.contains(&problem.pointer)));
    without_misspelled(problems)
}

/// The schema of a type. Making one costs more than all else that is done for a step, and a runbook may have ten thousand of them.
pub fn schema_of<T: JsonSchema + 'static>() -> Arc<Value> {
    static MADE: LazyLock<Mutex<HashMap<TypeId, Arc<Value>>>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(schema_for!(T).to_value())).clone()
}

/// Without what is missing only because it is misspelled: of that it is asked already whether it was meant.
fn without_misspelled(mut problems: Vec<SettingProblem>) -> Vec<SettingProblem> {
    let meant: Vec<(String, String)> = problems
        .iter()
        .filter(|problem| problem.fault == At::Key)
        .filter_map(|problem| {
            let (parent, _) = problem.pointer.rsplit_once('/')?;
            let name = problem.help.as_deref()?.strip_prefix("did you mean ")?.strip_suffix('?')?;
            Some((parent.to_owned(), format!("the setting {name} is missing")))
        })
        .collect();
    problems.retain(|problem| {
        problem.fault != At::Missing
            || !meant.iter().any(|(at, message)| *at == problem.pointer && *message == problem.message)
    });
    problems
}

/// Every mistake in the settings of a type that refuses unknown fields. A text that holds `${{` fits anything.
pub fn check_settings<T: DeserializeOwned>(value: &Value) -> Vec<SettingProblem> {
    let mut patched = value.clone();
    let mut holes = Holes::default();
    find_templates(value, &mut String::new(), &mut holes);
    let mut problems = Vec::new();
    for _ in 0..ROUNDS {
        let Err(fault) = T::deserialize(read::Reader::root(&patched, &holes)) else { break };
        let pointer = fault.pointer.clone().unwrap_or_default();
        if let Some(hole) = holes.covering(&pointer) {
            // Nothing is known of what will stand here; another stand-in may get further.
            if !holes.next_try(&hole) && !give_up(&mut patched, &mut holes, &hole) {
                break;
            }
            continue;
        }
        if matches!(fault.what, What::Type { .. } | What::Custom(_)) && holes.buffered_below(&pointer) {
            // The type took a copy of the whole value, and an expression in it does not say what it will be.
            holes.dig(pointer);
            continue;
        }
        if let What::MissingField(field) = fault.what
            && holes.given_up.contains(&format!("{pointer}/{}", escape(field)))
        {
            break;
        }
        let repaired = repair(&fault, &pointer, &mut patched, &mut holes);
        problems.push(describe(&fault, pointer, value));
        if !repaired {
            break;
        }
    }
    problems
}

/// Which values stand for anything, and which stand-in is tried for each.
#[derive(Debug, Default)]
struct Holes {
    tries: HashMap<String, usize>,
    /// Fields to add to maps, by the pointer of the map.
    added: HashMap<String, Vec<&'static str>>,
    /// The holes for which no stand-in was good.
    given_up: HashSet<String>,
}

/// How many stand-ins there are.
const STAND_INS: usize = 8;

impl Holes {
    fn dig(&mut self, pointer: String) {
        self.tries.entry(pointer).or_insert(0);
    }

    fn at(&self, pointer: &str) -> Option<usize> {
        self.tries.get(pointer).copied()
    }

    /// The innermost hole that is this place or above it.
    fn covering(&self, pointer: &str) -> Option<String> {
        let mut at = pointer;
        loop {
            if self.tries.contains_key(at) {
                return Some(at.to_owned());
            }
            at = &at[..at.rfind('/')?];
        }
    }

    fn next_try(&mut self, pointer: &str) -> bool {
        self.tries.get_mut(pointer).is_some_and(|tries| {
            *tries += 1;
            *tries < STAND_INS
        })
    }

    fn buffered_below(&self, pointer: &str) -> bool {
        let below = format!("{pointer}/");
        self.tries.keys().any(|hole| hole.starts_with(&below))
    }
}

fn find_templates(value: &Value, pointer: &mut String, holes: &mut Holes) {
    let length = pointer.len();
    let mut below = |key: &str, inner: &Value, pointer: &mut String| {
        pointer.push('/');
        pointer.push_str(&escape(key));
        find_templates(inner, pointer, holes);
        pointer.truncate(length);
    };
    match value {
        Value::String(text) if is_template(text) => holes.dig(pointer.clone()),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| below(&at.to_string(), item, pointer));
        }
        Value::Object(map) => map.iter().for_each(|(key, item)| below(key, item, pointer)),
        _ => {}
    }
}

/// Takes a value for which no stand-in is good out of its map; false when it stands in no map.
fn give_up(patched: &mut Value, holes: &mut Holes, pointer: &str) -> bool {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return false };
    holes.tries.remove(pointer);
    holes.given_up.insert(pointer.to_owned());
    remove(patched, parent, key)
}

fn remove(patched: &mut Value, parent: &str, key: &str) -> bool {
    let name = unescape(key);
    patched
        .pointer_mut(parent)
        .and_then(Value::as_object_mut)
        .is_some_and(|map| map.shift_remove(&name).is_some())
}

/// Makes the value pass next time; false when that cannot be done.
fn repair(fault: &Fault, pointer: &str, patched: &mut Value, holes: &mut Holes) -> bool {
    match &fault.what {
        What::UnknownField { field, .. } => remove(patched, pointer, &escape(field)),
        What::MissingField(field) => {
            let fields = holes.added.entry(pointer.to_owned()).or_default();
            if fields.contains(field) {
                return false;
            }
            fields.push(field);
            holes.dig(format!("{pointer}/{}", escape(field)));
            true
        }
        What::Type { .. } | What::Value { .. } | What::Variant { .. } | What::Custom(_) => {
            if pointer.is_empty() {
                return false;
            }
            holes.dig(pointer.to_owned());
            true
        }
    }
}

fn describe(fault: &Fault, pointer: String, value: &Value) -> SettingProblem {
    let (at, pointer, message, help) = match &fault.what {
        What::UnknownField { field, expected } => {
            let help = match (closest(field, expected.iter().copied()), expected.is_empty()) {
                (Some(close), _) => format!("did you mean `{close}`?"),
                (None, true) => "nothing can be set here".to_owned(),
                (None, false) => format!("what can be set: {}", listed(expected.iter().copied())),
            };
            let message = format!("there is no setting `{field}`");
            (At::Key, format!("{pointer}/{}", escape(field)), message, Some(help))
        }
        What::MissingField(field) => {
            (At::Missing, pointer, format!("the setting `{field}` is missing"), None)
        }
        What::Variant { variant, expected } => {
            let close = elsewhere(variant, expected).map(|ours| format!("write `{ours}`")).or_else(|| {
                closest(variant, expected.iter().copied()).map(|close| format!("did you mean `{close}`?"))
            });
            let message = format!("`{variant}` is not one of {}", listed(expected.iter().copied()));
            (At::Value, pointer, message, close)
        }
        What::Type { expected } | What::Value { expected } => {
            let got = value.pointer(&pointer).map_or("something else".to_owned(), errors::shown);
            let help = quoting(expected, value.pointer(&pointer), &pointer);
            (At::Value, pointer, format!("expected {expected}, got {got}"), help)
        }
        What::Custom(message) => (At::Value, pointer, message.clone(), None),
    };
    SettingProblem { pointer, fault: at, message, help }
}

/// A number or a flag where a text is wanted, or the other way round.
fn quoting(expected: &str, got: Option<&Value>, pointer: &str) -> Option<String> {
    match got? {
        Value::Number(number) if expected == "a text" => Some(format!("write \"{number}\"")),
        Value::Number(number) if expected.starts_with("a duration") => {
            Some(format!("write the unit too: {number}s, {number}m or {number}h"))
        }
        Value::Bool(flag) if expected == "a text" => Some(format!("write \"{flag}\"")),
        Value::String(text) if expected == "a list" && pointer.ends_with("/argv") => {
            Some(format!("write [{}]", text.split_whitespace().collect::<Vec<_>>().join(", ")))
        }
        Value::Bool(flag) if expected.starts_with("a text or a map") => {
            elsewhere(&flag.to_string(), &["repeatable", "once"])
                .filter(|_| pointer.ends_with("/repeat"))
                .map(|ours| format!("write `{ours}`"))
        }
        Value::String(text) if expected == "a list" && range(text).is_some() => {
            let (first, last) = range(text)?;
            Some(format!("name each of them, as in [{first}, {last}]"))
        }
        Value::String(_) | Value::Number(_) | Value::Bool(_) if expected == "a list" => {
            Some(format!("write [{}]", errors::plainly(got?)))
        }
        Value::String(text) if expected.contains("number") && text.parse::<f64>().is_ok() => {
            Some(format!("write {text} without quotes"))
        }
        _ => None,
    }
}

/// What others write for one of these values.
fn elsewhere(written: &str, expected: &[&'static str]) -> Option<&'static str> {
    const WORDS: &[(&str, &str)] = &[
        ("yes", "repeatable"),
        ("true", "repeatable"),
        ("idempotent", "repeatable"),
        ("always", "repeatable"),
        ("no", "once"),
        ("false", "once"),
        ("never", "once"),
        ("delete", "destroy"),
        ("none", "read"),
        ("ignore", "continue"),
        ("fail", "stop"),
        ("abort", "stop"),
        ("linear", "constant"),
        ("fixed", "constant"),
    ];
    let word = written.to_ascii_lowercase();
    let mut ours = WORDS.iter().filter(|(other, _)| *other == word).map(|(_, ours)| *ours);
    ours.find(|ours| expected.contains(ours))
}

/// The ends of a range such as `200 - 299` or `200..299`.
fn range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = ["..", "-", "–", " to "].iter().find_map(|between| text.split_once(between))?;
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

#[cfg(test)]
mod tests;
