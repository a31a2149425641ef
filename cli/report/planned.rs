//! A plan as people look at it.

use console::{Style, measure_text_width};
use runbook_engine::event::Question;
use runbook_engine::kinds::Class;
use runbook_engine::plan::{Drift, PlannedStep};
use runbook_engine::saved::{Foreseen, SavedPlan, Standing, TargetSet};

use runbook_steps::catalog::CATALOG;
use serde_json::Value;

use super::describe::{one_line, wrap};
use crate::format::{self, length};
use crate::graph::tree::Look;

/// How many further lines a value has at most.
const MOST: usize = 3;

/// How wide it is where there is no terminal.
const WIDTH: usize = 100;

/// What would be done, step by step.
pub fn lines(saved: &SavedPlan, look: Look) -> Vec<String> {
    let page = Page { look, width: look.width.unwrap_or(WIDTH) };
    let plan = &saved.plan;
    let mut lines = vec![page.bold(&format!("Plan of {}", plan.runbook))];
    if !plan.description.is_empty() {
        page.text(&mut lines, 2, &plan.description);
    }
    lines.push(String::new());
    let id = saved.id.get(..12).unwrap_or(&saved.id);
    page.fact(&mut lines, "plan", &format!("{id}, made {} by {}", format::utc(saved.made_at), saved.made_by));
    page.fact(&mut lines, "definition", plan.definition.get(..12).unwrap_or(&plan.definition));
    if saved.expires_at > saved.made_at {
        page.fact(&mut lines, "expires", &format::utc(saved.expires_at));
    }
    let drift = match plan.drift {
        Drift::Refuse => "refuse: anything that differs when it is applied stops it",
        Drift::Subset => "subset: what has gone is left out, what is new or changed is left alone",
    };
    page.fact(&mut lines, "drift", drift);
    let inputs = plan.inputs.iter().map(|(name, value)| (name.clone(), plain(value)));
    page.block(&mut lines, "inputs", &inputs.collect::<Vec<_>>());
    let systems = saved.systems.iter().map(|(name, system)| (name.clone(), system.clone()));
    page.block(&mut lines, "systems", &systems.collect::<Vec<_>>());
    lines.push(String::new());
    let first =
        |may: fn(&Foreseen) -> bool| saved.steps.iter().find(|step| may(step)).map(|step| &*step.step);
    let (no_return, maybe) = (first(Foreseen::destroys), first(Foreseen::may_destroy));
    for (at, step) in saved.steps.iter().enumerate() {
        if at == plan.steps.len() {
            lines.push(page.dim("  at the end, however it ends"));
        }
        if no_return == Some(&*step.step) {
            page.no_return(&mut lines, "from here on there is no way back");
        } else if maybe == Some(&*step.step) {
            page.no_return(&mut lines, "from here on there may be no way back");
        }
        page.step(&mut lines, saved, step);
    }
    lines.push(String::new());
    page.totals(&mut lines, saved);
    lines
}

struct Page {
    look: Look,
    width: usize,
}

impl Page {
    fn text(&self, lines: &mut Vec<String>, indent: usize, text: &str) {
        lines.extend(
            wrap(&one_line(text), self.room(indent)).into_iter().map(|line| format!("{:indent$}{line}", "")),
        );
    }

    /// How many columns there are to the right of so many.
    fn room(&self, indent: usize) -> usize {
        self.width.saturating_sub(indent + 1).max(16)
    }

    /// Names with what they stand for, aligned. What is long is cut: all of it is in the file.
    fn block(&self, lines: &mut Vec<String>, title: &str, facts: &[(String, String)]) {
        if facts.is_empty() {
            return;
        }
        lines.extend([String::new(), self.bold(title)]);
        let widest = facts.iter().map(|(name, _)| measure_text_width(name)).max().unwrap_or(0);
        facts.iter().for_each(|(name, value)| self.aligned(lines, widest, name, value));
    }

    fn fact(&self, lines: &mut Vec<String>, name: &str, value: &str) {
        self.aligned(lines, 10, name, value);
    }

    fn aligned(&self, lines: &mut Vec<String>, widest: usize, name: &str, value: &str) {
        let label = widest.min(self.width / 3);
        let mut below = wrap(&one_line(value), self.room(label + 4)).into_iter();
        // Of what a person is to look at nothing is cut.
        let long = measure_text_width(name) > label;
        if long {
            lines.extend(wrap(name, self.room(2)).into_iter().map(|line| format!("  {}", self.dim(&line))));
        }
        let name = console::pad_str(if long { "" } else { name }, label, console::Alignment::Left, None);
        lines.push(format!("  {}  {}", self.dim(&name), below.next().unwrap_or_default()));
        let rest: Vec<String> = below.collect();
        let shown = if rest.len() > MOST { &rest[..MOST - 1] } else { &rest };
        lines.extend(shown.iter().map(|line| format!("  {:label$}  {line}", "")));
        if rest.len() > shown.len() {
            lines.push(format!("  {:label$}  {}", "", self.dim("and more, in full in the file")));
        }
    }

    fn step(&self, lines: &mut Vec<String>, saved: &SavedPlan, step: &Foreseen) {
        let planned = saved.plan.step(&step.step);
        let uses = planned.map_or("", |step| &*step.uses);
        let took = step.last_took_ms.map(std::time::Duration::from_millis);
        let took = took.map_or_else(String::new, |took| format!(", {} last time", length(took)));
        let head = format!("  {} {}", self.mark(step), self.bold(&step.step));
        let name = planned
            .and_then(|step| step.name.as_deref())
            .map_or_else(String::new, |name| format!("{}, ", one_line(name)));
        let kind = format!("{name}{uses}{took}");
        if measure_text_width(&head) + 2 + measure_text_width(&kind) < self.width {
            lines.push(format!("{head}  {}", self.dim(&kind)));
        } else {
            lines.push(head);
            let below = wrap(&kind, self.room(6));
            lines.extend(below.iter().map(|line| format!("      {}", self.dim(line))));
        }
        let mut say = |text: &str| self.text(lines, 6, text);
        match &step.standing {
            Standing::Read if step.does.is_empty() => {}
            Standing::Would | Standing::Read => say(&step.does),
            Standing::Skipped => say("skipped: its `if` is false"),
            Standing::After(steps) => say(&format!("known after {}", steps.join(", "))),
            Standing::Fails(error) => {
                say(&format!("would fail: {error}"));
                if let Some(help) = &error.help {
                    say(help);
                }
                if !saved.plan.fails_with(&step.step) {
                    say("the run goes on all the same: on_failure is continue");
                }
            }
        }
        for set in &step.touches {
            say(&set_words(set));
        }
        if step.items > 0 {
            let why = match planned {
                _ if !step.binds.is_empty() || planned.is_some_and(counted) => "as counted now",
                Some(planned) if declares(planned, step.items) => "as declared",
                _ => "because nobody says how many",
            };
            say(&format!("counts as {}, {why}", items(step.items)));
        }
        for question in &step.asks {
            say(question.message());
            for (name, value) in question.facts() {
                say(&format!("{name}: {value}"));
            }
            match question {
                Question::Phrase { phrase, terminal: true, .. } => {
                    say(&format!("asks a person at a terminal for the phrase: {phrase}"));
                }
                Question::Phrase { phrase, .. } => say(&format!("asks for the phrase: {phrase}")),
                other => {
                    if let Some(whom) = other.asks_whom() {
                        say(&format!("waits for the approval of: {whom}"));
                    }
                }
            }
        }
        for note in &step.notes {
            say(&format!("note: {note}"));
        }
        for (code, reason) in planned.into_iter().flat_map(|step| &step.waived) {
            say(&format!("{code} is waived: {reason}"));
        }
    }

    /// What is destroyed in all, each part with who says so.
    fn totals(&self, lines: &mut Vec<String>, saved: &SavedPlan) {
        let destroying = || saved.steps.iter().filter(|step| step.destroys());
        let count: u64 = destroying().flat_map(|step| &step.touches).map(|set| set.count).sum();
        let bytes: u64 = destroying().flat_map(|step| &step.touches).map(|set| set.bytes).sum();
        let declared: u64 = destroying().map(|step| step.items).sum();
        let listed = format!("{} by their manifests", size(bytes));
        let sets = destroying().any(|step| !step.touches.is_empty());
        let mut text = match (sets, declared) {
            (true, 0) => format!("destroys {}, {listed}", items(count)),
            (true, _) => format!(
                "destroys {}: {} of sets, {listed}, and {} as its steps count",
                items(count + declared),
                format::count(count),
                format::count(declared)
            ),
            (false, 0) => "destroys nothing".to_owned(),
            (false, _) => format!("destroys {} as its steps count", items(declared)),
        };
        if destroying().any(|step| matches!(step.standing, Standing::After(_))) {
            if !sets && declared == 0 {
                text = "destroys what is known later".to_owned();
            } else {
                text.push_str(", and what is known later");
            }
        }
        let unknown: Vec<&str> = saved
            .steps
            .iter()
            .filter(|step| step.may_destroy() && !step.destroys())
            .map(|step| step.step.as_str())
            .collect();
        if !unknown.is_empty() {
            text.push_str(&format!("; nobody says what {} does", unknown.join(", ")));
        }
        let asks: usize = saved.steps.iter().map(|step| step.asks.len()).sum();
        let questions = if asks == 1 { "1 question".to_owned() } else { format!("{asks} questions") };
        let lines_of = wrap(&format!("{text}; asks {questions}"), self.room(0));
        lines.extend(lines_of.iter().map(|line| self.bold(line)));
        let changes = saved.steps.iter().any(|step| step.effect.class != Class::Read);
        let read = if changes {
            "What is marked as read was read just now, as it is before a run; nothing was changed."
        } else {
            "Everything above was read just now; nothing was changed."
        };
        self.text(lines, 0, read);
    }

    fn no_return(&self, lines: &mut Vec<String>, text: &str) {
        let line = if self.look.unicode { "──" } else { "--" };
        lines.push(self.red(&format!("  {line} {text} {line}")));
    }

    fn mark(&self, step: &Foreseen) -> String {
        let symbol =
            |unicode: &'static str, plain: &'static str| if self.look.unicode { unicode } else { plain };
        match (&step.standing, step.effect.class) {
            (Standing::Fails(_), _) => self.red(symbol("✗", "x")),
            (Standing::Skipped, _) => self.dim("-"),
            (Standing::Read, _) => self.paint(Style::new().green(), symbol("✓", "+")),
            (_, Class::Destroy) => self.red("!"),
            (_, Class::Undetermined) => self.paint(Style::new().yellow(), "?"),
            (_, Class::Write) => self.paint(Style::new().yellow(), "~"),
            (_, Class::Read) => self.dim(symbol("·", ".")),
        }
    }

    fn paint(&self, style: Style, text: &str) -> String {
        style.force_styling(self.look.colours).apply_to(text).to_string()
    }

    fn bold(&self, text: &str) -> String {
        self.paint(Style::new().bold(), text)
    }

    fn dim(&self, text: &str) -> String {
        self.paint(Style::new().dim(), text)
    }

    fn red(&self, text: &str) -> String {
        self.paint(Style::new().red().bold(), text)
    }
}

/// A value as a person writes it; a list with commas, so that it can go on in the next line.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn set_words(set: &TargetSet) -> String {
    let more = if set.count > set.examples.len() as u64 { ", …" } else { "" };
    let digest = set.items.sha256.get(..12).unwrap_or_default();
    let examples: Vec<String> = set.examples.iter().map(|key| example(key)).collect();
    let examples = examples.join(", ");
    let (count, bytes) = (items(set.count), size(set.bytes));
    format!("{count}, {bytes} by their manifests, digest {digest}: {examples}{more}")
}

/// A key among others: in quotes when it could be taken for something else.
fn example(key: &str) -> String {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !matches!(c, ',' | '"' | '…');
    if !key.is_empty() && key.chars().all(plain) { key.to_owned() } else { format!("{key:?}") }
}

/// Whether a step counts in the world what it would destroy: its settings can not say how many.
fn counted(step: &PlannedStep) -> bool {
    CATALOG.step(&step.uses).is_some_and(|kind| (kind.counts)(&step.with))
        && step.with.get("effect").is_none()
}

/// Whether a step says how many items it destroys.
fn declares(step: &PlannedStep, items: u64) -> bool {
    let counts = CATALOG.step(&step.uses).is_some_and(|kind| (kind.counts)(&step.with));
    // What is counted when it is done is one item until then.
    counts && (items > 1 || step.with.pointer("/effect/items").is_some_and(|items| !items.is_null()))
}

/// A number of items.
fn items(count: u64) -> String {
    if count == 1 { "1 item".to_owned() } else { format!("{} items", format::count(count)) }
}

/// A number of bytes.
fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
