//! Replaces every form of every secret before anything is stored or shown.

mod forms;
mod stream;
mod wrapped;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use serde_json::{Map, Value};

use self::forms::Forms;
use self::wrapped::Wrapped;

pub use stream::StreamRedactor;

/// What stands in the place of a secret.
pub const MASK: &str = "[REDACTED]";

/// Secrets of fewer characters are replaced only where they are the whole text: as a part, they are found in anything, and a
/// text with every `1` or `on` masked says nothing but what the secret is.
const SHORTEST: usize = 4;

/// Replaces secrets. Clones share their set of secrets: one that is learnt later (a session's) counts for all of them.
///
/// It knows a secret as it is, in base64 (standard and URL-safe, at any place in what was encoded, also wrapped into lines), in
/// hexadecimal, percent- and form-encoded (also twice), escaped as in JSON (also twice), and each longer line of a secret that has
/// several.
#[derive(Clone, Default)]
pub struct Redactor {
    shared: Arc<RwLock<Shared>>,
}

#[derive(Default)]
struct Shared {
    secrets: BTreeSet<String>,
    /// Absent when a secret was learnt since it was made.
    finder: Option<Arc<Finder>>,
}

/// Finds the forms of a set of secrets.
struct Finder {
    /// Absent when there is nothing to find.
    automaton: Option<AhoCorasick>,
    /// Finds what is encoded across the ends of lines.
    wrapped: Wrapped,
    /// The length of the longest form in bytes.
    longest: usize,
    /// What is replaced only as a whole text.
    short: BTreeSet<String>,
    /// All secrets, as they are.
    exact: BTreeSet<String>,
}

impl Redactor {
    /// A redactor that knows these secrets. Empty ones are ignored.
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let secrets = secrets.into_iter().filter(|secret| !secret.is_empty()).collect();
        Self { shared: Arc::new(RwLock::new(Shared { secrets, finder: None })) }
    }

    /// Adds a secret that must not appear from now on. An empty one is ignored.
    pub fn learn(&self, secret: &str) {
        if secret.is_empty() {
            return;
        }
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        if shared.secrets.insert(secret.to_owned()) {
            shared.finder = None;
        }
    }

    /// The text without secrets.
    pub fn text(&self, text: &str) -> String {
        let finder = self.finder();
        if finder.is_short(text.as_bytes()) {
            return MASK.to_owned();
        }
        let found = finder.find(text.as_bytes(), 0);
        if found.is_empty() {
            return text.to_owned();
        }
        let mut clean = String::with_capacity(text.len());
        let mut from = 0;
        for place in found {
            // A form is whole characters, so these are boundaries of characters.
            clean.push_str(text.get(from..place.start).unwrap_or_default());
            clean.push_str(MASK);
            from = place.end;
        }
        clean.push_str(text.get(from..).unwrap_or_default());
        clean
    }

    /// The value without secrets, in keys and strings alike; a number that reads exactly as a secret becomes [`MASK`].
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => {
                let mut clean = Map::with_capacity(fields.len());
                for (key, value) in fields {
                    clean.insert(unused(&clean, self.text(key)), self.value(value));
                }
                Value::Object(clean)
            }
            Value::Number(number) if self.finder().is_exactly(&number.to_string()) => {
                Value::String(MASK.to_owned())
            }
            other => other.clone(),
        }
    }

    /// Whether any form of any secret is in `text`.
    pub fn finds(&self, text: &[u8]) -> bool {
        let finder = self.finder();
        finder.is_short(text) || !finder.find(text, 0).is_empty()
    }

    /// A redactor for bytes that come in pieces; a secret is found across their edges too.
    pub fn stream(&self) -> StreamRedactor {
        StreamRedactor::new(self.clone())
    }

    /// The mask, when the whole text is a secret that is too short to be looked for inside of texts.
    pub(crate) fn whole<'a>(&self, text: &'a str) -> &'a str {
        if self.finder().is_short(text.as_bytes()) { MASK } else { text }
    }

    fn finder(&self) -> Arc<Finder> {
        let ready = self.shared.read().unwrap_or_else(PoisonError::into_inner).finder.clone();
        if let Some(finder) = ready {
            return finder;
        }
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        let Shared { secrets, finder } = &mut *shared;
        Arc::clone(finder.get_or_insert_with(|| Arc::new(Finder::new(secrets))))
    }
}

/// Says how many secrets there are and not what they are.
impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.shared.read().unwrap_or_else(PoisonError::into_inner).secrets.len();
        f.debug_struct("Redactor").field("secrets", &count).finish()
    }
}

impl Finder {
    fn new(secrets: &BTreeSet<String>) -> Self {
        let long = |secret: &&String| secret.chars().count() >= SHORTEST;
        let mut forms = Forms::default();
        for secret in secrets.iter().filter(long) {
            forms::add(secret, &mut forms);
        }
        let Forms { all, wrapped } = forms;
        let wrapped = Wrapped::new(&wrapped);
        let longest = all.iter().map(Vec::len).max().unwrap_or(0).max(wrapped.longest());
        let automaton = automaton(&all);
        let short = secrets.iter().filter(|secret| !long(secret)).cloned().collect();
        Self { automaton, wrapped, longest, short, exact: secrets.iter().filter(long).cloned().collect() }
    }

    fn is_short(&self, text: &[u8]) -> bool {
        !self.short.is_empty()
            && std::str::from_utf8(text)
                .is_ok_and(|text| self.short.contains(text) || self.short.contains(text.trim()))
    }

    fn is_exactly(&self, text: &str) -> bool {
        self.exact.contains(text)
    }

    /// The places to mask, in order and apart. What is before `masked` counts as a part of a place already.
    fn find(&self, bytes: &[u8], masked: usize) -> Vec<Range<usize>> {
        let mut places: Vec<Range<usize>> = Vec::new();
        if masked > 0 {
            places.push(0..masked);
        }
        let Some(automaton) = &self.automaton else { return places };
        // All of them overlapping, and not only the leftmost: where the end of one is the beginning of another, both go.
        let mut found: Vec<Range<usize>> =
            automaton.find_overlapping_iter(bytes).map(|found| found.range()).collect();
        let across = self.wrapped.find(bytes);
        if !across.is_empty() {
            found.extend(across);
            found.sort_by_key(|place| place.end);
        }
        // They come by their ends.
        for mut place in found {
            while let Some(last) = places.pop_if(|last| last.end > place.start) {
                place.start = place.start.min(last.start);
                place.end = place.end.max(last.end);
            }
            places.push(place);
        }
        places
    }
}

/// Finds all of these. A full table would be faster, and megabytes for a single secret.
fn automaton(forms: &BTreeSet<Vec<u8>>) -> Option<AhoCorasick> {
    let kind = Some(AhoCorasickKind::ContiguousNFA);
    let automaton = if forms.is_empty() { None } else { AhoCorasick::builder().kind(kind).build(forms).ok() };
    assert!(
        automaton.is_some() || forms.is_empty(),
        "the secrets' forms are too large to be looked for; nothing may be shown or stored"
    );
    automaton
}

/// Two keys that only differ in their secrets stay two.
fn unused(fields: &Map<String, Value>, key: String) -> String {
    if !fields.contains_key(&key) {
        return key;
    }
    let numbered = (2_usize..).map(|n| format!("{key}-{n}"));
    numbered.into_iter().find(|key| !fields.contains_key(key)).unwrap_or(key)
}
