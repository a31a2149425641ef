//! What a JSON Schema says of the types of values, as far as it can be told for sure.

use std::ops::BitOr;

use schemars::schema_for;
use serde_json::Value;

use crate::duration::Duration;
use crate::expr::unescape;

/// Some of the types that a value can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Types(u8);

const NAMES: &[(u8, &str, &str)] = &[
    (1, "null", "nothing"),
    (2, "boolean", "true or false"),
    (4, "integer", "a whole number"),
    (8, "number", "a number"),
    (16, "string", "a text"),
    (32, "array", "a list"),
    (64, "object", "a map"),
];

/// So many alternatives are looked at.
const MOST: usize = 64;

impl BitOr for Types {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Types {
    pub(super) const BOOLEAN: Self = Self(2);
    pub(super) const INTEGER: Self = Self(4);
    /// A number may be a whole one.
    pub(super) const NUMBER: Self = Self(4 | 8);
    pub(super) const STRING: Self = Self(16);
    pub(super) const ARRAY: Self = Self(32);
    pub(super) const MAP: Self = Self(64);

    fn named(name: &str) -> Option<Self> {
        let (bit, ..) = NAMES.iter().find(|(_, known, _)| *known == name)?;
        Some(if name == "number" { Self::NUMBER } else { Self(*bit) })
    }

    /// Whether a value that is there can be of both.
    pub(super) fn fits(self, other: Self) -> bool {
        self.0 & other.0 & !1 != 0
    }

    /// Whether a value that is there is surely neither a list nor a map.
    pub(super) fn is_scalar(self) -> bool {
        self.0 & (32 | 64) == 0
    }

    /// What people call them.
    pub(super) fn describe(self) -> String {
        let number = self.0 & 8 != 0;
        let named = NAMES.iter().filter(|(bit, ..)| self.0 & bit != 0 && *bit != 1 && !(*bit == 4 && number));
        let words: Vec<&str> = named.map(|(.., words)| *words).collect();
        match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => words.concat(),
        }
    }
}

/// A schema with the whole that its references are looked up in.
#[derive(Clone, Copy)]
pub(super) struct Shape<'s> {
    root: &'s Value,
    schema: &'s Value,
}

impl<'s> Shape<'s> {
    pub(super) fn new(root: &'s Value) -> Self {
        Self { root, schema: root }
    }

    /// Behind references.
    fn plain(self) -> Option<Self> {
        let mut schema = self.schema;
        // Bounded, though a reference to itself alone would mean nothing.
        for _ in 0..16 {
            let Some(target) = schema.get("$ref").and_then(Value::as_str) else {
                return Some(Self { schema, ..self });
            };
            schema = self.root.pointer(target.strip_prefix('#')?)?;
        }
        None
    }

    /// Its alternatives, with theirs in their place; itself when it has none.
    fn alternatives(self) -> Option<Vec<Self>> {
        let (mut found, mut open) = (Vec::new(), vec![self]);
        // Bounded: one may be an alternative of itself.
        for _ in 0..MOST {
            let Some(next) = open.pop() else { return Some(found) };
            let plain = next.plain()?;
            let all = ["anyOf", "oneOf"].into_iter().find_map(|key| plain.schema.get(key)?.as_array());
            match all.filter(|_| plain.schema.get("type").is_none()) {
                Some(all) => open.extend(all.iter().rev().map(|schema| Self { schema, ..self })),
                None => found.push(plain),
            }
        }
        None
    }

    /// The types it allows; nothing when it allows all, or it can not be told.
    pub(super) fn types(self) -> Option<Types> {
        let mut types = Types(0);
        for one in self.alternatives()? {
            types = types | one.own_types()?;
        }
        Some(types)
    }

    fn own_types(self) -> Option<Types> {
        if let Some(value) = self.schema.get("const") {
            return Types::named(kind(value));
        }
        match self.schema.get("type") {
            Some(Value::String(name)) => Types::named(name),
            Some(Value::Array(names)) => {
                names.iter().try_fold(Types(0), |types, name| Some(types | Types::named(name.as_str()?)?))
            }
            _ => {
                let all = self.schema.get("enum")?.as_array()?;
                all.iter().try_fold(Types(0), |types, value| Some(types | Types::named(kind(value))?))
            }
        }
    }

    /// The shape of what is below a key or an index; nothing when it can not be told.
    pub(super) fn below(self, name: &str) -> Option<Self> {
        let mut found = self.alternatives()?.into_iter().filter_map(|one| one.own_below(name));
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    fn own_below(self, name: &str) -> Option<Self> {
        let inner = if name.parse::<usize>().is_ok() && self.schema.get("items").is_some() {
            self.schema.get("items")
        } else {
            let own = self.schema.get("properties").and_then(|properties| properties.get(name));
            own.or_else(|| self.schema.get("additionalProperties").filter(|more| more.is_object()))
        };
        inner.map(|schema| Self { schema, ..self })
    }

    /// Whether it is a duration.
    pub(super) fn is_duration(self) -> bool {
        let schema = schema_for!(Duration);
        let pattern = schema.get("pattern");
        self.alternatives().is_some_and(|all| all.iter().any(|one| one.schema.get("pattern") == pattern))
    }

    /// The names below it, when there are no others.
    pub(super) fn names(self) -> Option<Vec<&'s str>> {
        let all = self.alternatives()?;
        let mut maps = all.iter().filter(|one| one.own_types().is_none_or(|types| !types.is_scalar()));
        let (one, None) = (maps.next()?, maps.next()) else { return None };
        let properties = one.schema.get("properties")?.as_object()?;
        let open = one.schema.get("additionalProperties").is_some_and(|more| *more != Value::Bool(false));
        (!open).then(|| properties.keys().map(String::as_str).collect())
    }

    /// The shape at a JSON pointer.
    pub(super) fn at(self, pointer: &str) -> Option<Self> {
        pointer.split('/').skip(1).try_fold(self, |shape, segment| shape.below(&unescape(segment)))
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_are_told_only_when_they_are_sure() {
        let schema = json!({
            "properties": {
                "count": { "type": "integer" },
                "text": { "type": ["string", "null"] },
                "any": {},
                "keys": { "anyOf": [{ "$ref": "#/$defs/Part" }, { "type": "array", "items": { "$ref": "#/$defs/Part" } }] },
                "named": { "type": "object", "additionalProperties": { "type": "number" } },
                "nested": { "anyOf": [{ "$ref": "#/$defs/Either" }, { "type": "null" }] },
                "circle": { "$ref": "#/$defs/Circle" },
                "mode": { "oneOf": [{ "const": "a" }, { "enum": ["b", "c"] }] },
            },
            "$defs": { "Either": { "anyOf": [{ "type": "boolean" }, { "type": "array" }] }, "Circle": { "anyOf": [{ "$ref": "#/$defs/Circle" }, { "$ref": "#/$defs/Circle" }] }, "Part": { "type": "object", "properties": { "name": { "type": "string" } } } },
        });
        let shape = |pointer: &str| Shape::new(&schema).at(pointer);
        let told = |pointer: &str| shape(pointer).and_then(Shape::types).map(Types::describe);
        assert_eq!(told("/count").as_deref(), Some("a whole number"));
        assert_eq!(told("/text").as_deref(), Some("a text"));
        assert_eq!(told("/any"), None);
        assert_eq!(told("/nested").as_deref(), Some("true or false or a list"));
        assert_eq!(told("/circle"), None);
        assert_eq!(told("/keys").as_deref(), Some("a list or a map"));
        assert_eq!(told("/keys/0/name").as_deref(), Some("a text"));
        assert_eq!(told("/named/x").as_deref(), Some("a number"));
        assert_eq!(told("/mode").as_deref(), Some("a text"));
        assert!(shape("/none").is_none() && shape("/count/x").is_none());
        assert_eq!(shape("/keys/0").unwrap().names(), Some(vec!["name"]));
        assert_eq!(shape("/named").unwrap().names(), None);
        assert!(Types::INTEGER.fits(Types::NUMBER) && !Types::INTEGER.fits(Types::STRING));
    }
}
