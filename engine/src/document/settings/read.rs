//! A deserializer over JSON that knows where it is, and gives stand-ins for holes.

use serde::de::{
    self, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde_json::Value;

use super::Holes;
use super::errors::Fault;
use crate::expr::escape;

/// A place in the settings: a value, or a hole.
pub(super) struct Reader<'a> {
    value: Option<&'a Value>,
    pointer: String,
    holes: &'a Holes,
    /// Which stand-in a hole gives.
    attempt: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn root(value: &'a Value, holes: &'a Holes) -> Self {
        Self::at(Some(value), String::new(), holes, 0)
    }

    fn at(value: Option<&'a Value>, pointer: String, holes: &'a Holes, attempt: usize) -> Self {
        match holes.at(&pointer) {
            Some(attempt) => Self { value: None, pointer, holes, attempt },
            None => Self { value, pointer, holes, attempt },
        }
    }

    fn below(&self, value: Option<&'a Value>, key: &str) -> Self {
        Self::at(value, format!("{}/{}", self.pointer, escape(key)), self.holes, self.attempt)
    }

    fn text(&self) -> &'static str {
        ["", "1s", "http://localhost/", "a", "/", "1", "2000-01-01T00:00:00Z", "a.b"][self.attempt % 8]
    }

    fn number(&self) -> u8 {
        [1, 0, 2, 10, 100, 60, 200, 255][self.attempt % 8]
    }

    fn any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        let pointer = self.pointer.clone();
        match self.value {
            None => match self.attempt {
                1 => visitor.visit_u64(u64::from(self.number())),
                2 => visitor.visit_bool(false),
                3 => visitor.visit_seq(Items::new(&self)),
                4 => visitor.visit_map(Entries::new(&self, &[])),
                5 => visitor.visit_unit(),
                _ => visitor.visit_str(self.text()),
            },
            Some(Value::Null) => visitor.visit_unit(),
            Some(Value::Bool(flag)) => visitor.visit_bool(*flag),
            Some(Value::String(text)) => visitor.visit_borrowed_str(text),
            Some(Value::Array(_)) => visitor.visit_seq(Items::new(&self)),
            Some(Value::Object(_)) => visitor.visit_map(Entries::new(&self, &[])),
            Some(Value::Number(number)) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (_, Some(number)) => visitor.visit_i64(number),
                _ => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
        }
        .map_err(|fault| fault.at(&pointer))
    }

    fn or_stand_in<V: Visitor<'a>>(
        self,
        visitor: V,
        stand_in: impl FnOnce(&Self, V) -> Result<V::Value, Fault>,
    ) -> Result<V::Value, Fault> {
        if self.value.is_some() {
            return self.any(visitor);
        }
        stand_in(&self, visitor).map_err(|fault| fault.at(&self.pointer))
    }
}

macro_rules! stand_ins {
    ($($method:ident => |$reader:ident, $visitor:ident| $body:expr;)+) => {
        $(fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.or_stand_in(visitor, |$reader, $visitor| $body)
        })+
    };
}

impl<'a> de::Deserializer<'a> for Reader<'a> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.any(visitor)
    }

    stand_ins! {
        deserialize_bool => |_reader, visitor| visitor.visit_bool(false);
        deserialize_i8 => |reader, visitor| visitor.visit_u8(reader.number());
        deserialize_i16 => |reader, visitor| visitor.visit_u8(reader.number());
        deserialize_i32 => |reader, visitor| visitor.visit_u8(reader.number());
        deserialize_i64 => |reader, visitor| visitor.visit_u8(reader.number());
        deserialize_u8 => |reader, visitor| visitor.visit_u8(reader.number());
        deserialize_u16 => |reader, visitor| visitor.visit_u8(reader.number());
        deserialize_u32 => |reader, visitor| visitor.visit_u8(reader.number());
        deserialize_u64 => |reader, visitor| visitor.visit_u8(reader.number());
        deserialize_f32 => |reader, visitor| visitor.visit_f64(f64::from(reader.number()));
        deserialize_f64 => |reader, visitor| visitor.visit_f64(f64::from(reader.number()));
        deserialize_char => |_reader, visitor| visitor.visit_char('a');
        deserialize_str => |reader, visitor| visitor.visit_str(reader.text());
        deserialize_string => |reader, visitor| visitor.visit_str(reader.text());
        deserialize_bytes => |reader, visitor| visitor.visit_str(reader.text());
        deserialize_byte_buf => |reader, visitor| visitor.visit_str(reader.text());
        deserialize_identifier => |reader, visitor| visitor.visit_str(reader.text());
        deserialize_unit => |_reader, visitor| visitor.visit_unit();
        deserialize_seq => |reader, visitor| visitor.visit_seq(Items::new(reader));
        deserialize_map => |reader, visitor| visitor.visit_map(Entries::new(reader, &[]));
        deserialize_ignored_any => |_reader, visitor| visitor.visit_unit();
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        let pointer = self.pointer.clone();
        match self.value {
            None | Some(Value::Null) => visitor.visit_none(),
            Some(_) => visitor.visit_some(self),
        }
        .map_err(|fault| fault.at(&pointer))
    }

    fn deserialize_unit_struct<V: Visitor<'a>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let pointer = self.pointer.clone();
        visitor.visit_newtype_struct(self).map_err(|fault| fault.at(&pointer))
    }

    fn deserialize_tuple<V: Visitor<'a>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        self.or_stand_in(visitor, |reader, visitor| {
            visitor.visit_seq(Items { left: len, ..Items::new(reader) })
        })
    }

    fn deserialize_tuple_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let is_list = matches!(self.value, Some(Value::Array(_)));
        if is_list {
            return Err(de::Error::invalid_type(de::Unexpected::Seq, &"a map"))
                .map_err(|fault: Fault| fault.at(&self.pointer));
        }
        self.or_stand_in(visitor, |reader, visitor| visitor.visit_map(Entries::new(reader, fields)))
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let pointer = self.pointer.clone();
        let result = match self.value {
            None => {
                let name = variants.get(self.attempt % variants.len().max(1)).copied().unwrap_or_default();
                let inner = Self::at(None, format!("{pointer}/{name}"), self.holes, self.attempt);
                visitor.visit_enum(Chosen { name: name.to_owned(), inner: Some(inner), unit: false })
            }
            Some(Value::String(name)) => {
                visitor.visit_enum(Chosen { name: name.clone(), inner: None, unit: true })
            }
            Some(Value::Object(map)) if map.len() == 1 => {
                let (name, value) = map.iter().next().expect("one entry");
                let inner = self.below(Some(value), name);
                visitor.visit_enum(Chosen { name: name.clone(), inner: Some(inner), unit: false })
            }
            Some(_) => Err(de::Error::invalid_type(de::Unexpected::Map, &"string or map")),
        };
        result.map_err(|fault| fault.at(&pointer))
    }
}

/// The items of a list; a hole has none unless a tuple asks for them.
struct Items<'a> {
    reader: Reader<'a>,
    next: usize,
    left: usize,
}

impl<'a> Items<'a> {
    fn new(reader: &Reader<'a>) -> Self {
        let left = reader.value.and_then(Value::as_array).map_or(0, Vec::len);
        let reader = Reader { pointer: reader.pointer.clone(), ..*reader };
        Self { reader, next: 0, left }
    }
}

impl<'a> SeqAccess<'a> for Items<'a> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        if self.left == 0 {
            return Ok(None);
        }
        let (at, value) = (self.next, self.reader.value.and_then(|value| value.get(self.next)));
        self.next += 1;
        self.left -= 1;
        let item = self.reader.below(value, &at.to_string());
        let pointer = item.pointer.clone();
        seed.deserialize(item).map(Some).map_err(|fault| fault.at(&pointer))
    }
}

/// The entries of a map, then the fields that were missing; of a hole, all fields of the type that is asked for.
struct Entries<'a> {
    reader: Reader<'a>,
    keys: std::vec::IntoIter<(String, Option<&'a Value>)>,
    current: Option<(String, Option<&'a Value>)>,
}

impl<'a> Entries<'a> {
    fn new(reader: &Reader<'a>, fields: &'static [&'static str]) -> Self {
        let mut keys: Vec<(String, Option<&'a Value>)> = match reader.value.and_then(Value::as_object) {
            Some(map) => map.iter().map(|(key, value)| (key.clone(), Some(value))).collect(),
            None => fields.iter().map(|field| ((*field).to_owned(), None)).collect(),
        };
        for field in reader.holes.added.get(&reader.pointer).into_iter().flatten() {
            keys.push(((*field).to_owned(), None));
        }
        let reader = Reader { pointer: reader.pointer.clone(), ..*reader };
        Self { reader, keys: keys.into_iter(), current: None }
    }
}

impl<'a> MapAccess<'a> for Entries<'a> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some(entry) = self.keys.next() else { return Ok(None) };
        let key = seed.deserialize(entry.0.clone().into_deserializer())?;
        self.current = Some(entry);
        Ok(Some(key))
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (key, value) = self.current.take().unwrap_or_default();
        let inner = self.reader.below(value, &key);
        let pointer = inner.pointer.clone();
        seed.deserialize(inner).map_err(|fault| fault.at(&pointer))
    }
}

/// A variant of an enum.
struct Chosen<'a> {
    name: String,
    inner: Option<Reader<'a>>,
    /// Whether it was written as a text, so that it can hold nothing.
    unit: bool,
}

impl<'a> EnumAccess<'a> for Chosen<'a> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'a>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name = seed.deserialize(self.name.clone().into_deserializer())?;
        Ok((name, self))
    }
}

impl<'a> Chosen<'a> {
    fn content(self, expected: &str) -> Result<Reader<'a>, Fault> {
        self.inner.ok_or_else(|| de::Error::invalid_type(de::Unexpected::UnitVariant, &expected))
    }
}

impl<'a> VariantAccess<'a> for Chosen<'a> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match &self.inner {
            Some(reader) if !self.unit && reader.value.is_some_and(|value| !value.is_null()) => {
                Err(de::Error::custom(format!("`{}` holds nothing: write it alone", self.name)))
            }
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'a>>(self, seed: T) -> Result<T::Value, Fault> {
        let expected = format!("`{}:` with a value", self.name);
        seed.deserialize(self.content(&expected)?)
    }

    fn tuple_variant<V: Visitor<'a>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        let expected = format!("`{}:` with a list", self.name);
        de::Deserializer::deserialize_tuple(self.content(&expected)?, len, visitor)
    }

    fn struct_variant<V: Visitor<'a>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let expected = format!("`{}:` with a map", self.name);
        de::Deserializer::deserialize_struct(self.content(&expected)?, "", fields, visitor)
    }
}
