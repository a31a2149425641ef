//! The values an expression sees, remembering which of them were asked for and not there.
//!
//! minijinja lets an absent value pass wherever it is only compared (`steps.a.outputs.cout == 0` is false), so every failed
//! lookup is written down and judged after the evaluation.

use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Enumerator, Object, ObjectRepr, Value, ValueKind};
use serde_json::{Map, Value as Json};

/// The most values one expression may yield.
const MAX_NODES: usize = 1_000_000;

/// The lookups that found nothing, as dotted references.
#[derive(Clone, Debug, Default)]
pub(super) struct Missing(Arc<Mutex<Vec<String>>>);

impl Missing {
    fn note(&self, path: String) {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if paths.len() < 64 && !paths.contains(&path) {
            paths.push(path);
        }
    }

    /// What `look` comes to, without what it notes.
    fn unnoted<T>(&self, look: impl FnOnce() -> T) -> T {
        let paths = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = paths().len();
        let found = look();
        paths().truncate(before);
        found
    }

    /// What was noted, oldest first; the list is empty afterwards.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
struct TrackedMap {
    path: String,
    values: Vec<(Arc<str>, Value)>,
    index: std::collections::HashMap<Arc<str>, usize>,
    missing: Missing,
}

impl Object for TrackedMap {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        let found = self.index.get(name).map(|at| self.values[*at].1.clone());
        if found.is_none() {
            self.missing.note(join(&self.path, name));
        }
        found
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.values.iter().map(|(key, _)| Value::from(key.clone())).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.values.len())
    }
}

#[derive(Debug)]
struct TrackedList {
    path: String,
    values: Vec<Value>,
    missing: Missing,
}

impl Object for TrackedList {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let found = key.as_usize().and_then(|at| self.values.get(at)).cloned();
        if found.is_none() {
            self.missing.note(join(&self.path, &key.to_string()));
        }
        found
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.values.len())
    }
}

/// What a chain of lookups has come to so far, which may be nothing without being a mistake.
#[derive(Debug)]
struct Maybe {
    value: Option<Value>,
    /// How many lookups follow, at least one. After the last the value stands for itself.
    lookups: usize,
    missing: Missing,
}

impl Object for Maybe {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let look = |value: &Value| self.missing.unnoted(|| value.get_item(key)).ok();
        let found = self.value.as_ref().and_then(look).filter(|found| !found.is_undefined());
        if self.lookups <= 1 {
            return found;
        }
        let (lookups, missing) = (self.lookups - 1, self.missing.clone());
        Some(Value::from_object(Self { value: found, lookups, missing }))
    }
}

/// A root of which so many lookups may come to nothing; anything else as it is.
pub(super) fn maybe(root: &Value, lookups: usize) -> Value {
    let Some(map) = root.downcast_object_ref::<TrackedMap>() else { return root.clone() };
    Value::from_object(Maybe { value: Some(root.clone()), lookups, missing: map.missing.clone() })
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A JSON value as an expression sees it, at this dotted path.
pub(super) fn track(value: &Json, path: &str, missing: &Missing) -> Value {
    match value {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => number
            .as_u64()
            .map(Value::from)
            .or_else(|| number.as_i64().map(Value::from))
            .unwrap_or_else(|| Value::from(number.as_f64().unwrap_or(f64::NAN))),
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => {
            let values = items
                .iter()
                .enumerate()
                .map(|(at, item)| track(item, &join(path, &at.to_string()), missing))
                .collect();
            Value::from_object(TrackedList { path: path.to_owned(), values, missing: missing.clone() })
        }
        Json::Object(map) => track_map(map, path, missing),
    }
}

/// A map as an expression sees it, at this dotted path.
pub(super) fn track_map(map: &Map<String, Json>, path: &str, missing: &Missing) -> Value {
    pairs(
        map.iter().map(|(key, value)| (key.as_str(), track(value, &join(path, key), missing))),
        path,
        missing,
    )
}

/// A map of these values, at this dotted path.
pub(super) fn pairs<'a>(
    entries: impl Iterator<Item = (&'a str, Value)>,
    path: &str,
    missing: &Missing,
) -> Value {
    let values: Vec<(Arc<str>, Value)> = entries.map(|(key, value)| (Arc::from(key), value)).collect();
    let index = values.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect();
    Value::from_object(TrackedMap { path: path.to_owned(), values, index, missing: missing.clone() })
}

/// What an expression yielded as JSON; otherwise why it cannot be that.
pub(super) fn to_json(value: &Value) -> Result<Json, String> {
    convert(value, &mut MAX_NODES.clone(), 0)
}

fn convert(value: &Value, budget: &mut usize, depth: usize) -> Result<Json, String> {
    *budget = budget.checked_sub(1).ok_or("the value is too large")?;
    if depth > 64 {
        return Err("the value is nested too deep".to_owned());
    }
    Ok(match value.kind() {
        ValueKind::Undefined => return Err("the value is undefined".to_owned()),
        ValueKind::None => Json::Null,
        ValueKind::Bool => Json::Bool(value.is_true()),
        ValueKind::Number => number(value)?,
        ValueKind::String => Json::String(value.as_str().unwrap_or_default().to_owned()),
        ValueKind::Seq | ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter().map_err(|error| error.to_string())? {
                items.push(convert(&item, budget, depth + 1)?);
            }
            Json::Array(items)
        }
        ValueKind::Map => {
            let mut map = Map::new();
            for key in value.try_iter().map_err(|error| error.to_string())? {
                let inner = value.get_item(&key).map_err(|error| error.to_string())?;
                let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                map.insert(name, convert(&inner, budget, depth + 1)?);
            }
            Json::Object(map)
        }
        kind => return Err(format!("the value is a {kind}, which is no data")),
    })
}

fn number(value: &Value) -> Result<Json, String> {
    if value.is_integer() {
        if let Some(small) = value.as_i64() {
            return Ok(Json::from(small));
        }
        return u64::try_from(value.clone())
            .map(Json::from)
            .map_err(|_| format!("the number {value} is too large"));
    }
    f64::try_from(value.clone())
        .ok()
        .and_then(serde_json::Number::from_f64)
        .map(Json::Number)
        .ok_or_else(|| format!("the number {value} is not finite"))
}

/// A value as a part of a longer text: texts, numbers, `true` and `false`; otherwise why not.
pub(super) fn to_text(value: &Value) -> Result<String, String> {
    match value.kind() {
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_owned()),
        ValueKind::Number => Ok(value.to_string()),
        ValueKind::Bool => Ok(if value.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Undefined => Err("the value is undefined".to_owned()),
        ValueKind::None => {
            Err("null cannot be part of a longer text; say what to write instead with `default('…', true)`"
                .to_owned())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            Err("a list cannot be part of a longer text; use `join(', ')` or `to_json`".to_owned())
        }
        ValueKind::Map => Err("a map cannot be part of a longer text; use `to_json`".to_owned()),
        kind => Err(format!("a {kind} cannot be part of a text")),
    }
}
