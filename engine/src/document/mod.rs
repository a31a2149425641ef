//! YAML text as a tree in which every value and key knows its bytes.

mod build;
mod characters;
mod events;
mod scalar;
pub mod settings;
mod syntax;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Number, Value};

use crate::diagnostic::Diagnostic;
use crate::expr::{self, escape};

pub use build::MAX_BYTES;
pub use settings::{check_kind, check_rules, check_settings, schema_of};

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its bytes in the text.
    pub span: Range<usize>,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A finite number.
    Number(Number),
    /// A text.
    String(String),
    /// A list. Aliases share their node.
    List(Vec<Arc<Node>>),
    /// A map in the order of the text, merged keys last.
    Map(Vec<Entry>),
}

/// A key of a map with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key, always a text.
    pub key: String,
    /// Its bytes in the text.
    pub key_span: Range<usize>,
    /// The value.
    pub value: Arc<Node>,
}

/// Reads a text: its tree when it has one, and every mistake found. It has no tree when an error makes it unreadable.
pub fn parse(text: &str) -> (Option<Arc<Node>>, Vec<Diagnostic>) {
    build::build(text)
}

impl Node {
    /// The same without places.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(flag) => Value::Bool(*flag),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::String(text) => Value::String(text.clone()),
            Kind::List(items) => Value::Array(items.iter().map(|item| item.to_json()).collect()),
            Kind::Map(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// What people call this kind of value.
    pub fn describe(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Number(_) => "a number",
            Kind::String(_) => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    /// The text, when it is one.
    pub fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::String(text) => Some(text),
            _ => None,
        }
    }

    /// The entries, when it is a map.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The entry of this key, when it is a map that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| entry.key == key)
    }

    /// The bytes of the value at a JSON pointer, or of its key; of the nearest value above when there is none.
    pub fn locate(&self, pointer: &str, at_key: bool) -> Range<usize> {
        let mut node = self;
        let mut span = self.span.clone();
        let mut segments = pointer.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let name = expr::unescape(segment);
            match &node.kind {
                Kind::Map(_) => {
                    let Some(entry) = node.entry(&name) else { return span };
                    node = &entry.value;
                    let key_wanted = at_key && segments.peek().is_none();
                    span = if key_wanted || node.span.is_empty() {
                        entry.key_span.clone()
                    } else {
                        node.span.clone()
                    };
                }
                Kind::List(items) => {
                    let Some(item) = name.parse::<usize>().ok().and_then(|at| items.get(at)) else {
                        return span;
                    };
                    node = item;
                    span = node.span.clone();
                }
                _ => return span,
            }
        }
        span
    }

    /// Where the value at a JSON pointer begins: its key, or in a list its first key or its whole.
    pub fn locate_head(&self, pointer: &str) -> Range<usize> {
        let span = self.locate(pointer, true);
        let in_list = pointer.rsplit('/').next().is_some_and(|last| last.parse::<usize>().is_ok());
        match self.at(pointer).and_then(Self::entries).and_then(<[Entry]>::first) {
            Some(first) if in_list => first.key_span.clone(),
            _ => span,
        }
    }

    /// The value at a JSON pointer.
    pub(crate) fn at(&self, pointer: &str) -> Option<&Self> {
        pointer.split('/').skip(1).try_fold(self, |node, segment| match &node.kind {
            Kind::List(items) => segment.parse::<usize>().ok().and_then(|at| items.get(at)).map(Arc::as_ref),
            _ => node.entry(&expr::unescape(segment)).map(|entry| &*entry.value),
        })
    }

    /// Calls `visit` with every text below, and its JSON pointer.
    pub fn texts<'a>(&'a self, visit: &mut dyn FnMut(&str, &'a Node, &'a str)) {
        self.texts_below(&mut String::new(), visit);
    }

    fn texts_below<'a>(&'a self, pointer: &mut String, visit: &mut dyn FnMut(&str, &'a Node, &'a str)) {
        let length = pointer.len();
        match &self.kind {
            Kind::String(text) => visit(pointer, self, text),
            Kind::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    pointer.push_str(&format!("/{at}"));
                    item.texts_below(pointer, visit);
                    pointer.truncate(length);
                }
            }
            Kind::Map(entries) => {
                for entry in entries {
                    pointer.push('/');
                    pointer.push_str(&escape(&entry.key));
                    entry.value.texts_below(pointer, visit);
                    pointer.truncate(length);
                }
            }
            _ => {}
        }
    }

    /// Calls `visit` with every entry of every map below.
    pub fn each_entry(&self, visit: &mut dyn FnMut(&Entry)) {
        match &self.kind {
            Kind::List(items) => items.iter().for_each(|item| item.each_entry(visit)),
            Kind::Map(entries) => {
                for entry in entries {
                    visit(entry);
                    entry.value.each_entry(visit);
                }
            }
            _ => {}
        }
    }

    /// The bytes in the source of a part of this text, as near as quoting and line breaks allow.
    pub fn place(&self, source: &str, part: Range<usize>) -> Range<usize> {
        let Some(text) = self.as_str() else { return self.span.clone() };
        let (Some(raw), Some(wanted)) = (source.get(self.span.clone()), text.get(part.clone())) else {
            return self.span.clone();
        };
        let quote = usize::from(raw.starts_with(['"', '\'']));
        if raw.get(quote..raw.len().saturating_sub(quote)) == Some(text) {
            return self.span.start + quote + part.start..self.span.start + quote + part.end;
        }
        // A part of several lines is shown where it begins: the source indents the others.
        let wanted = if raw.contains(wanted) { wanted } else { wanted.lines().next().unwrap_or_default() };
        if wanted.is_empty() {
            return self.span.clone();
        }
        let before = text.get(..part.start).map_or(0, |head| head.matches(wanted).count());
        raw.match_indices(wanted).nth(before).map_or_else(
            || self.span.clone(),
            |(at, _)| self.span.start + at..self.span.start + at + wanted.len(),
        )
    }

    /// Whether it is a text that holds an expression.
    pub fn is_template(&self) -> bool {
        self.as_str().is_some_and(expr::is_template)
    }
}
