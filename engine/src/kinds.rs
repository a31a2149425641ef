//! What the engine may know of a step, connection or collection kind without naming one: the catalog the `steps` crate fills.

use schemars::Schema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a step does to the world, from its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Effect {
    /// How deep it cuts.
    pub class: Class,
    /// Whether doing it twice is the same as doing it once.
    pub repeat: Repeat,
}

impl Effect {
    /// It only looks.
    pub const READ: Self = Self { class: Class::Read, repeat: Repeat::Repeatable };
    /// It changes things, and knows how to go on after a crash.
    pub const WRITE: Self = Self { class: Class::Write, repeat: Repeat::Repeatable };
    /// It changes things, and only a person can tell whether it happened.
    pub const WRITE_ONCE: Self = Self { class: Class::Write, repeat: Repeat::Once };
    /// It destroys, batch by batch in its ledger.
    pub const DESTROY: Self = Self { class: Class::Destroy, repeat: Repeat::Repeatable };
    /// Nobody declared what it does.
    pub const UNDETERMINED: Self = Self { class: Class::Undetermined, repeat: Repeat::Once };
}

/// How deep a step cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// It changes nothing.
    Read,
    /// It changes things that can be changed back.
    Write,
    /// It removes things.
    Destroy,
    /// Nobody declared it.
    Undetermined,
}

impl Class {
    /// Whether it destroys, or nobody knows that it does not.
    pub fn may_destroy(self) -> bool {
        matches!(self, Self::Destroy | Self::Undetermined)
    }
}

/// Whether an interrupted step may be entered again without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Repeat {
    /// Yes: it is idempotent, or it settles what it left open by reading the world.
    Repeatable,
    /// No: a person decides.
    Once,
}

/// What is at fault at the pointer of a [`SettingProblem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The value.
    Value,
    /// Its key, which should not be there, or not beside others.
    Key,
    /// That something is not in it.
    Missing,
}

/// One mistake in a kind's settings, at a JSON pointer below them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingProblem {
    /// JSON pointer to the value at fault; empty for the settings as a whole.
    pub pointer: String,
    /// What is at fault there.
    pub fault: Fault,
    /// What is wrong, as a lower-case fragment.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// A step kind, as the language and its documentation need it.
#[derive(Clone, Copy, Debug)]
pub struct StepKindInfo {
    /// Its name, kebab-case.
    pub name: &'static str,
    /// One line on what it is for.
    pub summary: &'static str,
    /// The schema of `with`.
    pub config: fn() -> Schema,
    /// The schema of its outputs: an object whose properties are what `steps.ID.outputs.` may name.
    pub outputs: fn() -> Schema,
    /// JSON pointers in `with`, `*` for any one key or index, where a secret may be used.
    pub secret_fields: &'static [&'static str],
    /// JSON pointers in `with` whose text is code of another language, so that no expression may be pasted into it.
    pub code_fields: &'static [&'static str],
    /// JSON pointers in `with` that change how fast it works and not what it does: a reviewed plan does not bind them.
    pub speed_fields: &'static [&'static str],
    /// JSON pointers in `with` to settings that a plan shows as they are, with everything below them.
    pub shown_fields: &'static [&'static str],
    /// JSON pointers in `with` to texts whose expressions are evaluated when the step asks for them, and not before: they may speak of
    /// what is not always there. No secrets.
    pub lazy_fields: &'static [&'static str],
    /// JSON pointers to outputs that say when something was done or how long it took: other ones each time, and a reviewed plan does not bind them.
    pub fleeting_outputs: &'static [&'static str],
    /// Whether it looks at the world; with false, what it comes to follows from its settings alone, whatever other steps have changed.
    pub looks: bool,
    /// What it does to the world, from `with` as authored (expressions not evaluated).
    pub effect: fn(&Value) -> Effect,
    /// Whether it tells the limits how many items it destroys; with false, what it destroys counts as one. From `with` as authored.
    pub counts: fn(&Value) -> bool,
    /// Whether it sets fields of the items of its collection. From `with` as authored.
    pub updates: fn(&Value) -> bool,
    /// Checks `with` as authored; a string that holds an expression fits any type. All mistakes, not only the first.
    pub check: fn(&Value) -> Vec<SettingProblem>,
    /// A small example of the step, YAML.
    pub example: &'static str,
}

/// A connection or collection kind, as the language and its documentation need it.
#[derive(Clone, Copy, Debug)]
pub struct ResourceKindInfo {
    /// Its name, kebab-case: the value of `type`.
    pub name: &'static str,
    /// One line on what it is for.
    pub summary: &'static str,
    /// The schema of its settings, without `type`.
    pub config: fn() -> Schema,
    /// JSON pointers in its settings where a secret may be used.
    pub secret_fields: &'static [&'static str],
    /// JSON pointers in its settings whose text is code of another language, so that no expression may be pasted into it.
    pub code_fields: &'static [&'static str],
    /// Of a collection whose items can not be deleted: what to write where that is wanted. From its settings as authored.
    pub only_read: fn(&Value) -> Option<&'static str>,
    /// Of a collection of whose items no field can be set: what to write where that is wanted. From its settings as authored.
    pub not_updated: fn(&Value) -> Option<&'static str>,
    /// Of a collection, the most keys that it deletes or changes at once.
    pub max_batch: usize,
    /// Checks its settings (without `type`) as authored.
    pub check: fn(&Value) -> Vec<SettingProblem>,
}

/// Every kind there is: an explicit list, so that an error message can name them all.
#[derive(Clone, Copy, Debug)]
pub struct Catalog {
    /// The step kinds.
    pub steps: &'static [StepKindInfo],
    /// The connection kinds.
    pub connections: &'static [ResourceKindInfo],
    /// The collection kinds.
    pub collections: &'static [ResourceKindInfo],
}

impl Catalog {
    /// The step kind of this name.
    pub fn step(&self, name: &str) -> Option<&'static StepKindInfo> {
        self.steps.iter().find(|kind| kind.name == name)
    }
}

/// Whether a JSON pointer is one of these, in which `*` stands for any one key or index.
pub fn matches(pointer: &str, patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| {
        let (mut given, mut wanted) = (pointer.split('/'), pattern.split('/'));
        loop {
            match (given.next(), wanted.next()) {
                (None, None) => return true,
                (Some(got), Some(want)) if want == "*" || want == got => {}
                _ => return false,
            }
        }
    })
}
