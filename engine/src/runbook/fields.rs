//! Taking a map apart: known keys, unknown keys with what was meant, names and texts.

use std::sync::Arc;

use super::{Setting, Spanned};
use crate::check::codes;
use crate::diagnostic::Diagnostic;
use crate::document::{Entry, Kind, Node};
use crate::suggest::{closest, listed};

/// The keys of one kind of map.
pub(super) struct Keys {
    /// What the map is, with its article: "a step".
    pub(super) what: &'static str,
    /// Its keys.
    pub(super) known: &'static [&'static str],
    /// Those that must be there, with an example.
    pub(super) needed: &'static [(&'static str, &'static str)],
    /// What other engines call them, and what to say instead.
    pub(super) others: &'static [(&'static str, &'static str)],
}

/// A map whose keys are all looked at.
pub(super) struct Fields<'a> {
    keys: &'static Keys,
    node: &'a Node,
}

impl<'a> Fields<'a> {
    /// The fields of a map; a mistake for each unknown key. Nothing when it is no map.
    pub(super) fn of(node: &'a Node, keys: &'static Keys, problems: &mut Vec<Diagnostic>) -> Option<Self> {
        let Some(entries) = node.entries() else {
            problems.push(wrong(node, keys.what, "a map"));
            return None;
        };
        for entry in entries.iter().filter(|entry| !keys.known.contains(&entry.key.as_str())) {
            problems.push(unknown(entry, keys));
        }
        Some(Self { keys, node })
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Entry> {
        debug_assert!(self.keys.known.contains(&key), "{key} is listed");
        self.node.entry(key)
    }

    pub(super) fn setting(&self, key: &str) -> Option<Setting> {
        self.get(key).map(|entry| Setting::new(&entry.value, &entry.key_span))
    }

    /// An entry that must be there.
    pub(super) fn needed(&self, key: &str, problems: &mut Vec<Diagnostic>) -> Option<&'a Entry> {
        let entry = self.get(key);
        if entry.is_none() {
            let span = self
                .node
                .entries()
                .and_then(|all| all.first())
                .map_or(self.node.span.clone(), |first| first.key_span.clone());
            let mut problem =
                Diagnostic::error(codes::MISSING_KEY, span, format!("{} has no `{key}`", self.keys.what))
                    .label(format!("`{key}` is missing here"));
            let example = self.keys.needed.iter().find(|(needed, _)| *needed == key);
            problem.help = example.map(|(_, example)| format!("write `{example}`"));
            problems.push(problem);
        }
        entry
    }

    /// The text of an entry, without expressions.
    pub(super) fn text(&self, key: &str, problems: &mut Vec<Diagnostic>) -> Option<Spanned<String>> {
        plain_text(&self.get(key)?.value, key, problems)
    }

    /// The text of an entry that must be there, without expressions.
    pub(super) fn needed_text(&self, key: &str, problems: &mut Vec<Diagnostic>) -> Option<Spanned<String>> {
        plain_text(&self.needed(key, problems)?.value, key, problems)
    }
}

pub(super) fn plain_text(
    node: &Arc<Node>,
    what: &str,
    problems: &mut Vec<Diagnostic>,
) -> Option<Spanned<String>> {
    let Some(text) = node.as_str() else {
        problems.push(wrong(node, &format!("`{what}`"), "a text"));
        return None;
    };
    if node.is_template() {
        problems.push(written_out(node, what));
        return None;
    }
    Some(Spanned { value: text.to_owned(), span: node.span.clone() })
}

/// An expression where none is evaluated.
pub(super) fn written_out(node: &Node, what: &str) -> Diagnostic {
    Diagnostic::error(codes::REFERENCE, node.span.clone(), format!("`{what}` can hold no expression"))
        .help("write it out: it is read before any input, step or secret has a value")
}

/// A value of the wrong type.
pub(super) fn wrong(node: &Node, what: &str, expected: &str) -> Diagnostic {
    let got = match &node.kind {
        Kind::Number(number) => number.to_string(),
        Kind::Bool(flag) => flag.to_string(),
        _ => node.describe().to_owned(),
    };
    let message = format!("{what} must be {expected}, and this is {got}");
    let problem =
        Diagnostic::error(codes::VALUE, node.span.clone(), message).label(format!("expected {expected}"));
    match node.kind {
        // Quoted it would be a text, and still no name.
        Kind::Number(_) if matches!(what, "`id`" | "`runbook`") => {
            problem.help("it is a name: lower-case letters and digits, a letter first")
        }
        Kind::Number(_) | Kind::Bool(_) if expected == "a text" => problem.help(format!("write \"{got}\"")),
        _ => problem,
    }
}

fn unknown(entry: &Entry, keys: &Keys) -> Diagnostic {
    let key = entry.key.as_str();
    let help = if let Some((_, ours)) = keys.others.iter().find(|(other, _)| *other == key) {
        (*ours).to_owned()
    } else if let Some(close) = closest(key, keys.known.iter().copied()) {
        format!("did you mean `{close}`?")
    } else {
        format!("its keys are {}", listed(keys.known.iter().copied()))
    };
    Diagnostic::error(codes::UNKNOWN_KEY, entry.key_span.clone(), format!("{} has no key `{key}`", keys.what))
        .label("unknown key")
        .help(help)
}

/// Whether a name is snake_case; otherwise the mistake is written down.
pub(super) fn snake_case(name: &Spanned<String>, what: &str, problems: &mut Vec<Diagnostic>) {
    let fits = name.value.starts_with(|first: char| first.is_ascii_lowercase())
        && name.value.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if fits {
        return;
    }
    let better = respell(&name.value, '_');
    let message = format!("`{}` is no name for {what}: it is written in snake_case", name.value);
    problems.push(named(name, message, &better, '_'));
}

/// Whether a name is kebab-case; otherwise the mistake is written down.
pub(super) fn kebab_case(name: &Spanned<String>, what: &str, problems: &mut Vec<Diagnostic>) {
    let word =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if name.value.starts_with(|first: char| first.is_ascii_lowercase()) && name.value.split('-').all(word) {
        return;
    }
    let better = respell(&name.value, '-');
    let message = format!("`{}` is no name for {what}: it is written in kebab-case", name.value);
    problems.push(named(name, message, &better, '-'));
}

fn named(name: &Spanned<String>, message: String, better: &str, between: char) -> Diagnostic {
    let help = if better.is_empty() {
        format!("lower-case letters and digits, with `{between}` between words, a letter first")
    } else {
        format!("write `{better}`")
    };
    Diagnostic::error(codes::NAME, name.span.clone(), message).help(help)
}

/// The same name as it should be spelled; empty when it can not be spelled without losing a part of it.
fn respell(name: &str, between: char) -> String {
    let mut better = String::new();
    let first = name.chars().find(|c| c.is_alphanumeric());
    if name.chars().any(|c| c.is_alphanumeric() && !c.is_ascii()) || first.is_some_and(|c| c.is_ascii_digit())
    {
        return better;
    }
    let mut previous_lower = false;
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            if c.is_ascii_uppercase() && previous_lower {
                better.push(between);
            }
            better.push(c.to_ascii_lowercase());
        } else if !better.is_empty() && !better.ends_with(between) {
            better.push(between);
        }
        previous_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
    }
    better.trim_start_matches(|c: char| !c.is_ascii_lowercase()).trim_end_matches(between).to_owned()
}
