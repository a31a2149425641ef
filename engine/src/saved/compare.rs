//! What moved since a plan was saved, told by name: an input, a part of the definition, a system, or what a step would do.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Foreseen, SavedPlan, Standing};
use crate::event::Question;
use crate::expr;
use crate::kinds::{Catalog, Class, Effect};
use crate::plan::{Place, Plan, PlannedStep, SettingsDigest};
use crate::scope::settings_words;

/// How many settings are told that differ, and how much of a value is shown, in characters.
const SETTINGS: usize = 4;
const SHOWN: usize = 80;

/// One thing that is not as the plan says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// What.
    pub what: What,
    /// Its name.
    pub name: String,
    /// How, in words.
    pub how: String,
}

/// What can move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The value of an input.
    Input,
    /// A part of the definition beside its steps.
    Definition,
    /// A step of the definition.
    Step,
    /// A system: the name leads to another one.
    System,
    /// What a step would do or touch.
    Target,
}

impl What {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Definition => "definition",
            Self::Step => "step",
            Self::System => "system",
            Self::Target => "target of",
        }
    }
}

impl Moved {
    fn new(what: What, name: impl Into<String>, how: impl Into<String>) -> Self {
        Self { what, name: name.into(), how: how.into() }
    }
}

/// What differs between two plans of one runbook, but for what changes nothing but the speed.
pub fn definitions(saved: &Plan, now: &Plan, catalog: &Catalog) -> Vec<Moved> {
    let mut moved = Vec::new();
    let parts = [
        ("runbook", saved.runbook == now.runbook),
        ("lock", saved.lock == now.lock),
        ("drift", saved.drift == now.drift),
        ("folder", saved.folder == now.folder),
    ];
    for (name, same) in parts {
        if !same {
            moved.push(Moved::new(What::Definition, name, format!("`{name}` is another one")));
        }
    }
    let members = [
        ("secrets", json!(saved.secrets), json!(now.secrets)),
        ("connections", json!(saved.connections), json!(now.connections)),
        ("collections", json!(saved.collections), json!(now.collections)),
        ("limits", json!(saved.limits), json!(now.limits)),
    ];
    for (name, before, after) in members.into_iter().filter(|(_, before, after)| before != after) {
        moved.push(Moved::new(What::Definition, name, leaves(&before, &after)));
    }
    steps(&saved.steps, &now.steps, catalog, &mut moved);
    steps(&saved.finally, &now.finally, catalog, &mut moved);
    let inputs = inputs(saved, now, catalog, !moved.is_empty());
    inputs.into_iter().chain(moved).collect()
}

fn steps(saved: &[PlannedStep], now: &[PlannedStep], catalog: &Catalog, moved: &mut Vec<Moved>) {
    let ids = |all: &[PlannedStep]| all.iter().map(|step| step.id.clone()).collect::<Vec<_>>();
    let mut order = true;
    for step in saved {
        match now.iter().find(|other| other.id == step.id) {
            None => moved.push(Moved::new(What::Step, &step.id, "it is not there any more")),
            Some(other) if essence(step, catalog) != essence(other, catalog) => {
                moved.push(Moved::new(What::Step, &step.id, changed(step, other)));
            }
            Some(_) => continue,
        }
        order = false;
    }
    for step in now.iter().filter(|step| !saved.iter().any(|other| other.id == step.id)) {
        moved.push(Moved::new(What::Step, &step.id, "it is new"));
        order = false;
    }
    if order && ids(saved) != ids(now) {
        moved.push(Moved::new(What::Definition, "steps", "their order is another one"));
    }
}

/// The settings that differ between two objects, by their names, each as it was and as it is.
fn leaves(before: &Value, after: &Value) -> String {
    let mut found = Vec::new();
    differing("", Some(before), Some(after), &mut found);
    let more = found.len().saturating_sub(SETTINGS);
    found.truncate(SETTINGS);
    let words = found.join(", ");
    if more == 0 { words } else { format!("{words}, and {more} more") }
}

fn differing(name: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<String>) {
    let brief = |value: Option<&Value>| {
        let Some(value) = value.filter(|value| !value.is_null()) else { return "not set".to_owned() };
        let text = value.to_string();
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    };
    match (before, after) {
        _ if before == after => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for member in names {
                let name = if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
                differing(&name, old.get(member), new.get(member), found);
            }
        }
        _ => found.push(format!("`{name}` was {} and is {}", brief(before), brief(after))),
    }
}

/// Which parts of a step differ.
fn changed(saved: &PlannedStep, now: &PlannedStep) -> String {
    let parts = [
        ("uses", saved.uses == now.uses),
        ("with", saved.with == now.with),
        ("needs", saved.needs == now.needs),
        ("if", saved.condition == now.condition),
        ("retry", saved.retry == now.retry),
        ("timeout", saved.timeout == now.timeout),
        ("on_failure", saved.on_failure == now.on_failure),
        ("limits", saved.limits == now.limits),
        ("waive", saved.waived == now.waived),
        ("name", saved.name == now.name),
    ];
    let names: Vec<String> =
        parts.iter().filter(|(_, same)| !same).map(|(name, _)| format!("`{name}`")).collect();
    match names.len() {
        1 if saved.limits != now.limits => {
            format!("of its limits, {}", leaves(&json!(saved.limits), &json!(now.limits)))
        }
        1 if saved.with != now.with => format!("of its settings, {}", leaves(&saved.with, &now.with)),
        1 => format!("{} is another one", names[0]),
        _ => format!("{} are other ones", names.join(", ")),
    }
}

/// A step without what changes nothing but its speed, and without what people call it.
fn essence(step: &PlannedStep, catalog: &Catalog) -> PlannedStep {
    let mut step = PlannedStep { name: None, ..step.clone() };
    for pointer in catalog.step(&step.uses).map_or(&[][..], |kind| kind.speed_fields) {
        if let Some(value) = step.with.pointer_mut(pointer) {
            *value = Value::Null;
        }
    }
    // A setting that is left out is the same as one that is there with whatever speed.
    if let Some(with) = step.with.as_object_mut() {
        with.retain(|_, value| !value.is_null());
    }
    step
}

/// The inputs with other values. One that only changes the speed is none, unless something else differs too and may come of it.
fn inputs(saved: &Plan, now: &Plan, catalog: &Catalog, anything: bool) -> Vec<Moved> {
    let names: BTreeSet<&String> = saved.inputs.keys().chain(now.inputs.keys()).collect();
    let open = still_open(now, catalog);
    let text = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
    names
        .into_iter()
        .filter(|name| saved.inputs.get(*name) != now.inputs.get(*name))
        .filter(|name| anything || open.contains(*name))
        .map(|name| {
            let (before, after) = (text(saved.inputs.get(name)), text(now.inputs.get(name)));
            Moved::new(What::Input, name.as_str(), format!("it was {before} and is {after}"))
        })
        .collect()
}

/// The inputs that are used when the run goes on, beside outputs of steps.
fn still_open(plan: &Plan, catalog: &Catalog) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for step in plan.all_steps() {
        let step = essence(step, catalog);
        let condition = step.condition.iter().map(|text| Value::from(format!("${{{{ {text} }}}}")));
        for value in condition.chain([step.with]) {
            referenced(&value, &mut found);
        }
    }
    for value in plan.connections.values().chain(plan.collections.values()) {
        referenced(value, &mut found);
    }
    found
}

fn referenced(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if expr::is_template(text) => {
            let inputs = expr::references(text).into_iter().filter(|reference| reference.root == "inputs");
            found.extend(inputs.filter_map(|one| Some(one.text().split('.').nth(1)?.to_owned())));
        }
        Value::Array(items) => items.iter().for_each(|item| referenced(item, found)),
        Value::Object(map) => map.values().for_each(|item| referenced(item, found)),
        _ => {}
    }
}

/// What differs between what was foreseen and what is foreseen now. When it need not be `exact`, sets of items may differ, and what is asked
/// because of them; which items differ is looked at elsewhere.
pub fn foreseen(
    saved: &SavedPlan,
    systems: &BTreeMap<String, String>,
    now: &[Foreseen],
    exact: bool,
) -> Vec<Moved> {
    let mut moved = self::systems(&saved.systems, systems);
    for after in now {
        let Some(before) = saved.step(&after.step) else {
            // A step that is new is told of as a part of the definition.
            if saved.plan.step(&after.step).is_some() {
                moved.push(Moved::new(What::Target, &after.step, "the plan says nothing of it"));
            }
            continue;
        };
        // Why it fails may be told in other words each time.
        let still = matches!((&before.standing, &after.standing),
            (Standing::Fails(old), Standing::Fails(new)) if old.kind == new.kind);
        if let Standing::Fails(error) = &after.standing
            && !still
        {
            moved.push(Moved::new(What::Target, &after.step, format!("it would fail: {error}")));
            // Of what comes after one that stops the run nothing is known.
            if saved.plan.fails_with(&after.step) {
                break;
            }
            continue;
        }
        // What failed then, and was to be looked at again after another step, may be so already: the reviewer saw no more than that.
        let sooner = after.effect.class == Class::Read
            && matches!((&before.standing, &after.standing), (Standing::After(_), Standing::Read));
        let mut say = |how: String| moved.push(Moved::new(What::Target, &after.step, how));
        if !still && !sooner && before.standing != after.standing {
            say(format!("{} then, and {} now", stands(&before.standing), stands(&after.standing)));
        } else if before.effect != after.effect {
            let word = |effect: Effect| json!(effect.class).as_str().unwrap_or_default().to_owned();
            let words = (word(before.effect), word(after.effect));
            say(format!("its effect was {} then, and is {} now", words.0, words.1));
        } else if before.touches.len() != after.touches.len() {
            say(format!("it touched {} sets then, and {} now", before.touches.len(), after.touches.len()));
        } else if exact
            && let Some((old, new)) = before
                .touches
                .iter()
                .zip(&after.touches)
                .find(|(old, new)| old.items.sha256 != new.items.sha256 || old.count != new.count)
        {
            let items = if old.count == 1 { "item" } else { "items" };
            say(format!("{} {items} then, and {} now", old.count, new.count));
        } else if exact && before.asks != after.asks {
            say(asked(&before.asks, &after.asks));
        } else if let Some(words) = settings(before.settings.as_ref(), after.settings.as_ref())
            // What is asked about items may be another thing when they may be fewer.
            && (exact || before.effect.class != Class::Read)
        {
            say(words);
        } else if before.effect.class != Class::Read && before.does != after.does {
            say(format!("it would {} then, and would {} now", before.does, after.does));
        }
    }
    moved
}

/// What is asked otherwise: the first text that differs, as it was and as it is.
fn asked(before: &[Question], after: &[Question]) -> String {
    if before.len() != after.len() {
        return format!("it asked {} times then, and asks {} times now", before.len(), after.len());
    }
    let texts = |question: &Question| {
        let facts = question.facts().iter().map(|(name, value)| format!("{name}: {value}"));
        let facts: Vec<String> = facts.collect();
        let wanted = match question {
            Question::Phrase { phrase, .. } => phrase.clone(),
            other => other.asks_whom().unwrap_or_default(),
        };
        [question.message().to_owned(), facts.join(", "), wanted]
    };
    let pairs = before.iter().zip(after).flat_map(|(old, new)| texts(old).into_iter().zip(texts(new)));
    let different: Vec<String> = pairs
        .filter(|(old, new)| old != new)
        .map(|(old, new)| format!("it asked `{old}` then, and asks `{new}` now"))
        .collect();
    different.join("; ")
}

/// The systems that are other ones, of those that are known then and now.
pub fn systems(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<Moved> {
    let both = before.iter().filter_map(|(name, then)| Some((name, then, after.get(name)?)));
    let other = both.filter(|(_, then, now)| then != now);
    other
        .map(|(name, then, now)| Moved::new(What::System, name, format!("it was {then} and is {now}")))
        .collect()
}

/// Which connections lead to other places than when the run was created.
pub fn places(before: &BTreeMap<String, Place>, after: &BTreeMap<String, Place>) -> Vec<Moved> {
    let both = before.iter().filter_map(|(name, then)| Some((name, then, after.get(name)?)));
    let other = both.filter(|(_, then, now)| then.mark != now.mark);
    let told = |then: &Place, now: &Place| {
        if then.words == now.words {
            "it leads elsewhere, which a secret tells".to_owned()
        } else {
            format!("it led to {} and leads to {}", then.words, now.words)
        }
    };
    other.map(|(name, then, now)| Moved::new(What::System, name, told(then, now))).collect()
}

fn settings(before: Option<&SettingsDigest>, after: Option<&SettingsDigest>) -> Option<String> {
    match (before, after) {
        (Some(before), Some(after)) => settings_words(before, after),
        (None, None) => None,
        _ => Some("its settings come to something else".to_owned()),
    }
}

fn stands(standing: &Standing) -> String {
    match standing {
        Standing::Read => "it could be read".to_owned(),
        Standing::Would => "it would be done".to_owned(),
        Standing::Skipped => "it was to be skipped".to_owned(),
        Standing::After(steps) => format!("it was to be known after {}", steps.join(", ")),
        Standing::Fails(error) => format!("it fails ({error})"),
    }
}
