//! What an item names, and what is to be done when that is missing.

use std::collections::{BTreeMap, BTreeSet};

use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::collections::{Collection, Item, NamedBy, NewValue, Version};

/// A field that names an item of the other collection.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// What it is called in the outputs.
    pub name: String,
    /// The field.
    pub field: String,
    /// Whether the field holds a URL or the key itself. Default: `url`.
    #[serde(default)]
    pub holds: NamedBy,
    /// Only items of which this holds, by field: a value, a list of values, or null. Default: all.
    #[serde(default)]
    pub when: Map<String, Value>,
    /// By field, what it is to be set to when this is missing: a value, null, or `{ now: true }` for the time. Default: nothing is set.
    #[serde(default)]
    pub set: Map<String, Value>,
}

/// How a reference of an item stands before anything is looked up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stands {
    /// `when` does not hold.
    NotAsked,
    /// The field holds nothing.
    Empty,
    /// It leads elsewhere or nowhere, and why.
    Unresolvable(String),
    /// It names the item of this key.
    Open(String),
}

/// An item as it was read, in as few words as are needed later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) version: Option<Version>,
    /// What the fields hold that may be set.
    pub(super) prior: Map<String, Value>,
    /// In the order of the references.
    pub(super) stands: Vec<Stands>,
}

/// Whether the references fit together.
pub(super) fn check(references: &[Reference]) -> Result<(), StepError> {
    let mut names = BTreeSet::new();
    if let Some(twice) = references.iter().find(|one| !names.insert(&one.name)) {
        return Err(StepError::invalid(format!("two references are called `{}`", twice.name)));
    }
    references.iter().try_for_each(|one| new_values(&one.set).map(drop))
}

/// What fields are set to.
pub(super) fn new_values(set: &Map<String, Value>) -> Result<BTreeMap<String, NewValue>, StepError> {
    let value = |(name, value): (&String, &Value)| match value {
        value if is_now(value) => Ok((name.clone(), NewValue::Now)),
        Value::Object(_) | Value::Array(_) => Err(StepError::invalid(format!(
            "`set` has {value} for `{name}`: give a text, a number, true, false, null or `{{ now: true }}`"
        ))),
        value => Ok((name.clone(), NewValue::Value(value.clone()))),
    };
    set.iter().map(value).collect()
}

/// Whether a field is set to the time.
pub(super) fn is_now(value: &Value) -> bool {
    *value == json!({ "now": true })
}

/// What an item names.
pub(super) fn row(references: &[Reference], item: Item, against: &dyn Collection) -> Result<Row, StepError> {
    let record = &item.record;
    let field = |name: &str| {
        record.get(name).ok_or_else(|| {
            StepError::invalid(format!("the record of `{}` has no field `{name}`", item.key))
                .with_help("look at the names, and at the `columns` of the collection")
        })
    };
    let mut prior = Map::new();
    for name in references.iter().flat_map(|one| one.set.keys()) {
        prior.insert(name.clone(), field(name)?.clone());
    }
    let mut stands = Vec::with_capacity(references.len());
    for one in references {
        let mut asked = true;
        for (name, wanted) in &one.when {
            asked &= is_one_of(field(name)?, wanted);
        }
        stands.push(match field(&one.field)? {
            _ if !asked => Stands::NotAsked,
            Value::Null => Stands::Empty,
            named => match against.resolve(&text(named), one.holds) {
                Ok(key) => Stands::Open(key),
                Err(why) => Stands::Unresolvable(why),
            },
        });
    }
    Ok(Row { key: item.key, version: item.version, prior, stands })
}

fn is_one_of(held: &Value, wanted: &Value) -> bool {
    match wanted {
        Value::Array(values) => values.iter().any(|wanted| is_one_of(held, wanted)),
        Value::Null => held.is_null(),
        wanted => !held.is_null() && text(held) == text(wanted),
    }
}

/// A value as a text: databases give numbers as texts.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_compare_values_as_texts() {
        for (held, wanted, is) in [
            (json!("ready"), json!("ready"), true),
            (json!("ready"), json!(["queued", "ready"]), true),
            (json!("5"), json!(5), true),
            (json!(null), json!("null"), false),
            (json!(null), json!(null), true),
            (json!(null), json!(["a", null]), true),
            (json!("error"), json!("ready"), false),
            (json!("x"), json!([]), false),
        ] {
            assert_eq!(is_one_of(&held, &wanted), is, "{held} {wanted}");
        }
    }

    #[test]
    fn what_is_set_is_a_value_or_the_time() {
        let set = |value: Value| new_values(&Map::from_iter([("at".to_owned(), value)]));
        assert_eq!(set(json!({ "now": true })).unwrap()["at"], NewValue::Now);
        assert_eq!(set(json!(null)).unwrap()["at"], NewValue::Value(Value::Null));
        assert!(set(json!({ "now": false })).is_err() && set(json!([1])).is_err());
    }
}
