//! Whether a JSON value is kept exactly, from the text in which a server gave it to the text in which it is put back.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Number, Value};

/// What of the value at `pointer` in this text would be lost, in words; none when it is kept, or is not there.
pub(super) fn lost(text: &str, pointer: &str) -> Option<String> {
    let mut raw: &RawValue = serde_json::from_str(text).ok()?;
    for part in pointer.split('/').skip(1) {
        let name = part.replace("~1", "/").replace("~0", "~");
        raw = match first(raw) {
            b'{' => members(raw)?.into_iter().rev().find(|(member, _)| *member == name)?.1,
            b'[' => items(raw)?.get(name.parse::<usize>().ok()?).copied()?,
            _ => return None,
        };
    }
    lost_of(raw)
}

fn lost_of(raw: &RawValue) -> Option<String> {
    match first(raw) {
        b'{' => {
            let (members, mut names) = (members(raw)?, BTreeSet::new());
            if let Some((name, _)) = members.iter().find(|(name, _)| !names.insert(name.clone())) {
                return Some(format!("two members `{name}`"));
            }
            members.into_iter().find_map(|(_, value)| lost_of(value))
        }
        b'[' => items(raw)?.into_iter().find_map(lost_of),
        b'-' | b'0'..=b'9' => {
            let text = raw.get();
            let kept = serde_json::from_str::<Number>(text)
                .is_ok_and(|number| digits(&number.to_string()) == digits(text));
            (!kept).then(|| format!("the number {text}"))
        }
        _ => None,
    }
}

/// Whether two JSON values are the same, however their numbers are written.
pub(super) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            digits(&left.to_string()) == digits(&right.to_string())
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, left)| right.get(name).is_some_and(|right| same(left, right)))
        }
        _ => left == right,
    }
}

/// A number as its sign, its digits without zeros at either end, and the power of ten of the last of them.
fn digits(text: &str) -> (bool, String, i64) {
    let (sign, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_end_matches('0');
    if digits.is_empty() {
        return (false, String::new(), 0);
    }
    let zeros = i64::try_from(all.len() - digits.len()).unwrap_or_default();
    let behind = i64::try_from(fraction.len()).unwrap_or_default();
    let power = exponent.trim_start_matches('+').parse::<i64>().unwrap_or(i64::MAX);
    (sign, digits.trim_start_matches('0').to_owned(), power.saturating_sub(behind).saturating_add(zeros))
}

fn first(raw: &RawValue) -> u8 {
    raw.get().bytes().next().unwrap_or_default()
}

fn items(raw: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(raw.get()).ok()
}

fn members(raw: &RawValue) -> Option<Vec<(String, &RawValue)>> {
    serde_json::from_str::<Members<'_>>(raw.get()).ok().map(|members| members.0)
}

/// Every member of an object, also of two with one name.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_number_would_lose_is_found_wherever_it_stands() {
        for kept in [
            "25",
            "25.0",
            "-0",
            "1e3",
            "0.1",
            "18446744073709551615",
            "-9223372036854775808",
            "\"1e400\"",
            "null",
        ] {
            assert_eq!(lost(&format!("{{\"a\": {kept}}}"), "/a"), None, "{kept}");
        }
        for number in ["18446744073709551616", "9007199254740993.5", "0.1000000000000000055511151231257827"] {
            let told = Some(format!("the number {number}"));
            assert_eq!(lost(&format!("{{\"a\": [1, {{\"b\": {number}}}]}}"), "/a"), told);
            assert_eq!(
                lost(&format!("{{\"a\": [{number}], \"b\": 1}}"), "/b"),
                None,
                "it is beside the value"
            );
            assert_eq!(lost(number, ""), told);
        }
        assert_eq!(lost("{\"a/b\": {\"x\": 1, \"x\": 1}}", "/a~1b"), Some("two members `x`".to_owned()));
        assert_eq!(lost("{\"a\": 1}", "/b"), None);
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        assert!(same(&json!({"a": [25, 1.5]}), &json!({"a": [25.0, 1.5]})));
        assert!(same(&json!(100), &json!(1e2)));
        assert!(!same(&json!(9_007_199_254_740_993_u64), &json!(9_007_199_254_740_992_u64)));
        assert!(!same(&json!("25"), &json!(25)));
        assert!(!same(&json!(-1), &json!(1)));
        assert!(!same(&json!({"a": 1}), &json!({"a": 1, "b": 2})));
    }
}
