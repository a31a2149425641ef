//! The authored model of a runbook: what its text says, each part with its place.

mod fields;
mod inputs;
mod lower;
mod steps;

pub(crate) use steps::{EACH, settings};

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use regex::Regex;
use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::document::Node;
use crate::expr::unescape;
use crate::kinds::{Fault, SettingProblem};
use crate::plan::SecretSource;

/// A value with the bytes where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Its bytes in the source.
    pub span: Range<usize>,
}

/// A value as authored, expressions not evaluated, with its tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The value.
    pub value: Value,
    /// The same with places.
    pub node: Arc<Node>,
    /// The bytes of its key, or of what stands for it when it is not written.
    pub key: Range<usize>,
}

impl Setting {
    fn new(node: &Arc<Node>, key: &Range<usize>) -> Self {
        Self { value: node.to_json(), node: node.clone(), key: key.clone() }
    }

    /// What is wrong with it, at the token that is at fault. `what` says what it is, as it follows "`delay` of".
    pub(crate) fn problem(&self, code: &'static str, what: &str, problem: SettingProblem) -> Diagnostic {
        let SettingProblem { pointer, fault, message, help } = problem;
        let parent = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
        let subject = if fault == Fault::Key { parent } else { &pointer };
        let name = subject.rsplit('/').find(|name| !name.is_empty() && name.parse::<usize>().is_err());
        let message = match name {
            Some(name) => format!("`{}` of {what}: {message}", unescape(name)),
            None => format!("{what}: {message}"),
        };
        let span = match fault {
            Fault::Missing if pointer.is_empty() => self.key.clone(),
            Fault::Missing => self.node.locate_head(&pointer),
            Fault::Value => self.node.locate(&pointer, false),
            Fault::Key => self.node.locate(&pointer, true),
        };
        Diagnostic { help, ..Diagnostic::error(code, span, message) }
    }
}

/// A runbook as authored.
#[derive(Clone, Debug)]
pub struct Runbook {
    /// Its text.
    pub source: Arc<str>,
    /// Its name, kebab-case.
    pub name: Spanned<String>,
    /// What it is for, in one line; empty when it is not said.
    pub description: String,
    /// What a run must be told, in the order of the text.
    pub inputs: Vec<Input>,
    /// Where credentials are read from.
    pub secrets: Vec<Secret>,
    /// How systems are reached.
    pub connections: Vec<Resource>,
    /// Sets of items in those systems.
    pub collections: Vec<Resource>,
    /// The blast radius of the run.
    pub limits: Option<Setting>,
    /// The lock key.
    pub lock: Option<Setting>,
    /// How many steps may run at one time.
    pub max_parallel: Option<Setting>,
    /// What a difference between a reviewed plan and the world means.
    pub drift: Option<Setting>,
    /// The steps in the order of the text.
    pub steps: Vec<Step>,
    /// The steps that run when the others have ended.
    pub finally: Vec<Step>,
    /// The names of what is declared in a way that can not be read: what refers to them is not at fault.
    pub unread: BTreeSet<String>,
}

/// The type of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// A text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// An absolute URL.
    Url,
    /// A path, as given.
    Path,
    /// A duration with a unit.
    Duration,
    /// A list of one of the others.
    List,
}

impl InputKind {
    /// Every type, as `type` names them.
    pub const NAMES: &'static [&'static str] =
        &["string", "integer", "number", "boolean", "url", "path", "duration", "list"];
    const ALL: &'static [Self] = &[
        Self::String,
        Self::Integer,
        Self::Number,
        Self::Boolean,
        Self::Url,
        Self::Path,
        Self::Duration,
        Self::List,
    ];

    /// The type of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().position(|other| *other == name).map(|at| Self::ALL[at])
    }

    /// Its name with its article.
    pub fn with_article(self) -> String {
        let article = if self == Self::Integer { "an" } else { "a" };
        format!("{article} {}", self.name())
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().position(|other| *other == self).map_or("string", |at| Self::NAMES[at])
    }
}

/// An input as declared.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name.
    pub name: Spanned<String>,
    /// Its type.
    pub kind: InputKind,
    /// The type of a list's items.
    pub items: InputKind,
    /// What it is for; empty when it is not said.
    pub description: String,
    /// Whether a run must give it.
    pub required: bool,
    /// Its value when a run does not give it; null when it is neither required nor has a default.
    pub default: Value,
    /// The only values allowed; any when empty.
    pub choices: Vec<Value>,
    /// The least value, duration or length of a list.
    pub minimum: Option<Value>,
    /// The greatest value, duration or length of a list.
    pub maximum: Option<Value>,
    /// What the whole text must match, and each text of a list.
    pub pattern: Option<Pattern>,
}

/// A regular expression that a whole text must match.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// As authored.
    pub text: String,
    /// The same, anchored.
    pub regex: Regex,
}

/// A secret as declared.
#[derive(Clone, Debug)]
pub struct Secret {
    /// Its name.
    pub name: Spanned<String>,
    /// Where it is read from.
    pub source: SecretSource,
}

/// A connection or a collection.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Its name.
    pub name: Spanned<String>,
    /// Its kind.
    pub kind: Spanned<String>,
    /// Its settings without `type`.
    pub settings: Setting,
}

/// A step as authored.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its id, snake_case.
    pub id: Spanned<String>,
    /// What people call it.
    pub name: Option<Setting>,
    /// Its kind.
    pub uses: Spanned<String>,
    /// The settings of its kind; an empty map when there are none.
    pub with: Setting,
    /// The steps it needs when it says so.
    pub needs: Option<Vec<Spanned<String>>>,
    /// When it is not skipped.
    pub condition: Option<Setting>,
    /// When a failed attempt is followed by another.
    pub retry: Option<Setting>,
    /// The longest one attempt may take.
    pub timeout: Option<Setting>,
    /// What its failure means for the run.
    pub on_failure: Option<Setting>,
    /// Limits of this step alone.
    pub limits: Option<Setting>,
    /// Safety rules that need not hold for it.
    pub waive: Vec<Waiver>,
}

/// A safety rule that need not hold for a step.
#[derive(Clone, Debug)]
pub struct Waiver {
    /// The code of the rule.
    pub code: Spanned<String>,
    /// Why it need not hold.
    pub reason: String,
}

impl Step {
    /// Whether it waives the rule of this code.
    pub fn waives(&self, code: &str) -> bool {
        self.waive.iter().any(|waiver| waiver.code.value == code)
    }

    /// The condition without its `${{ }}`.
    pub fn condition_text(&self) -> Option<String> {
        self.condition.as_ref().map(|condition| match &condition.value {
            Value::String(text) => {
                crate::expr::whole(text).map_or(text.as_str(), |(inner, _)| inner).trim().to_owned()
            }
            other => other.to_string(),
        })
    }

    /// Whether it runs whenever another step does.
    pub fn runs_with(&self, other: &Self) -> bool {
        let condition = self.condition_text();
        condition.as_deref().is_none_or(|text| text == "true") || condition == other.condition_text()
    }

    /// Whether the run may go on when it fails.
    pub fn goes_on(&self) -> bool {
        self.on_failure.as_ref().is_some_and(|setting| setting.value != "stop")
    }

    /// Whether it has ended well whenever another step runs, given that it comes before that: it is skipped only together with it, and
    /// its failure stops the run.
    pub fn always_ran(&self, other: &Self) -> bool {
        self.runs_with(other) && !self.goes_on()
    }
}

/// Reads the authored model off a tree: the model as far as it can be made out, and every mistake of form.
pub fn lower(root: &Node, source: &Arc<str>) -> (Option<Runbook>, Vec<Diagnostic>) {
    lower::lower(root, source)
}

impl Runbook {
    /// Every step, the final ones last.
    pub fn all_steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().chain(&self.finally)
    }

    /// The ids a step needs: those it names, or the step just above it in its list.
    pub fn needs(list: &[Step], at: usize) -> Vec<&str> {
        match (&list[at].needs, at) {
            (Some(needs), _) => needs.iter().map(|need| need.value.as_str()).collect(),
            (None, 0) => Vec::new(),
            (None, at) => vec![list[at - 1].id.value.as_str()],
        }
    }
}
