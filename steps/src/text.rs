//! A text that an author may also write as a number or a boolean.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::Value;

/// A text; a number or a boolean stands for the way it is written, so that `argv: [sleep, 5]` needs no quotes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(pub String);

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The most of a text that is shown of it in a line, in characters.
const BRIEF: usize = 80;

/// A text in one line, for people: of several lines the first, with how many there are; no more of it than a line holds.
pub fn in_brief(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let mut brief: String = first.chars().take(BRIEF).collect();
    if brief.len() < first.len() {
        brief.push('…');
    }
    match lines.count() {
        0 => brief,
        more => format!("{brief} … ({} lines)", more + 1),
    }
}

/// A value for people: a text as it is, and anything else as JSON.
pub fn of_value(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number or a boolean")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Text, E> {
        Ok(Text(value.to_owned()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Text, E> {
        // `Display` of f64 never uses an exponent: 0.0000001 stays as it was written.
        Ok(Text(value.to_string()))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_script_is_shown_by_its_first_line() {
        assert_eq!(in_brief("set -e\n\n  echo a\n echo b\n"), "set -e … (3 lines)");
        assert_eq!(in_brief("one line"), "one line");
        assert_eq!(in_brief(&"ü".repeat(100)), format!("{}…", "ü".repeat(80)));
        assert_eq!(in_brief(""), "");
    }

    #[test]
    fn numbers_stay_as_they_were_written() {
        for (value, text) in [
            (json!("x y"), "x y"),
            (json!(25), "25"),
            (json!(-3), "-3"),
            (json!(true), "true"),
            (json!(0.0000001), "0.0000001"),
        ] {
            assert_eq!(serde_json::from_value::<Text>(value).unwrap().as_str(), text);
        }
        assert!(serde_json::from_value::<Text>(json!([1])).is_err());
        assert!(serde_json::from_value::<Text>(json!(null)).is_err());
    }
}
