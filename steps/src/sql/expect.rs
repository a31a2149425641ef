//! What a statement is expected to come to.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::connections::sql::Answer;

/// What must hold of a statement; when it does not, the step fails and its transaction is rolled back.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// How many rows it gives: a number, or `min` and `max`.
    #[serde(default)]
    pub rows: Option<Amount>,
    /// How many rows it changes: a number, or `min` and `max`.
    #[serde(default)]
    pub affected: Option<Amount>,
    /// The values that every row must have, by column; there must be a row. Only the rows that are kept (`max_rows`) are looked at.
    #[serde(default)]
    pub values: Map<String, Value>,
    /// What is said when any of it does not hold, before what is wrong. Default: that it is not as expected.
    #[serde(default)]
    pub message: Option<String>,
}

/// A number, or a range of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    min: Option<u64>,
    max: Option<u64>,
}

/// A range of numbers, both ends in it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Range {
    /// The least.
    #[serde(default)]
    min: Option<u64>,
    /// The most.
    #[serde(default)]
    max: Option<u64>,
}

impl Amount {
    /// Whether a number is in it.
    pub fn holds(self, number: u64) -> bool {
        self.min.is_none_or(|min| number >= min) && self.max.is_none_or(|max| number <= max)
    }

    /// The most that is in it.
    pub(super) fn most(self) -> Option<u64> {
        self.max
    }

    /// The least that is in it.
    pub(super) fn least(self) -> u64 {
        self.min.unwrap_or(0)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (Some(min), Some(max)) if min == max => write!(f, "{min}"),
            (Some(min), Some(max)) => write!(f, "{min} to {max}"),
            (Some(min), None) => write!(f, "at least {min}"),
            (None, Some(max)) => write!(f, "at most {max}"),
            (None, None) => f.write_str("any number"),
        }
    }
}

struct AmountVisitor;

impl<'de> Visitor<'de> for AmountVisitor {
    type Value = Amount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or a mapping with `min` and `max`")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Amount, E> {
        Ok(Amount { min: Some(number), max: Some(number) })
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Amount, E> {
        u64::try_from(number)
            .map_err(|_| E::custom("a number of rows is not negative"))
            .and_then(|n| self.visit_u64(n))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Amount, A::Error> {
        let Range { min, max } = Range::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Amount { min, max })
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AmountVisitor)
    }
}

impl JsonSchema for Amount {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let range = generator.subschema_for::<Range>();
        json_schema!({ "anyOf": [{ "type": "integer", "minimum": 0 }, range] })
    }
}

impl Expect {
    /// So many rows or more.
    pub(super) fn rows_at_least(rows: u64) -> Self {
        Self { rows: Some(Amount { min: Some(rows), max: None }), ..Self::default() }
    }

    /// Why an answer is not as expected; nothing when it is.
    pub fn wrong(&self, answer: &Answer) -> Option<String> {
        let mut wrong = Vec::new();
        if let Some(rows) = self.rows.filter(|rows| !rows.holds(answer.total)) {
            wrong.push(format!("it gave {} rows where {rows} were expected", answer.total));
        }
        if let Some(affected) = self.affected.filter(|affected| !affected.holds(answer.affected)) {
            wrong.push(format!("it changed {} rows where {affected} were expected", answer.affected));
        }
        if !self.values.is_empty() && answer.rows.is_empty() {
            wrong.push("it gave no row to hold the expected values against".to_owned());
        }
        wrong.extend(self.values.iter().filter_map(|(column, wanted)| differs(answer, column, wanted)));
        (!wrong.is_empty()).then(|| wrong.join("; "))
    }
}

fn differs(answer: &Answer, column: &str, wanted: &Value) -> Option<String> {
    let Some(at) = answer.columns.iter().position(|name| name == column) else {
        return Some(format!("it gave no column `{column}` (it gave {})", answer.columns.join(", ")));
    };
    let other = answer.rows.iter().filter_map(|row| row.get(at)).find(|value| !equal(value, wanted))?;
    Some(format!("`{column}` is {other} where {wanted} was expected"))
}

/// Whether a value is the expected one. A number that a database gives as a text, because it has more digits than others can hold, equals
/// the number it stands for.
fn equal(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::String(text), Value::Number(number)) | (Value::Number(number), Value::String(text)) => {
            decimal(text).is_some_and(|one| decimal(&number.to_string()) == Some(one))
        }
        (Value::Number(one), Value::Number(other)) => {
            decimal(&one.to_string()) == decimal(&other.to_string())
        }
        _ => found == wanted,
    }
}

/// The sign, the digits before the point and those after it, without zeros that say nothing; nothing for what is no plain number.
fn decimal(text: &str) -> Option<(bool, &str, &str)> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(part) {
        return None;
    }
    let (whole, part) = (whole.trim_start_matches('0'), part.trim_end_matches('0'));
    Some((negative && !(whole.is_empty() && part.is_empty()), whole, part))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> Answer {
        let rows = vec![vec![json!("12.3400"), json!(9_007_199_254_740_993_i64)]];
        Answer { columns: vec!["sum".to_owned(), "big".to_owned()], rows, total: 1, affected: 3 }
    }

    #[test]
    fn numbers_are_compared_by_what_they_stand_for() {
        let wrong = |expect: Value| serde_json::from_value::<Expect>(expect).unwrap().wrong(&answer());
        assert_eq!(wrong(json!({ "rows": 1, "affected": { "min": 2 }, "values": { "sum": 12.34 } })), None);
        assert_eq!(wrong(json!({ "values": { "big": "9007199254740993" } })), None);
        assert!(wrong(json!({ "values": { "big": 9_007_199_254_740_992_i64 } })).is_some());
        let said = wrong(json!({ "rows": { "max": 0 }, "affected": 0, "values": { "none": 1 } })).unwrap();
        assert!(
            said.contains("at most 0") && said.contains("changed 3 rows where 0") && said.contains("`none`"),
            "{said}"
        );
    }

    #[test]
    fn an_amount_is_a_number_or_a_range() {
        let of = |value: Value| serde_json::from_value::<Amount>(value);
        assert_eq!(of(json!(3)).unwrap().to_string(), "3");
        assert_eq!(of(json!({ "min": 1, "max": 2 })).unwrap().to_string(), "1 to 2");
        assert!(of(json!(-1)).is_err() && of(json!({ "least": 1 })).is_err());
    }
}
