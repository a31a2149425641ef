//! A plan as people look at it.

use console::{Style, measure_text_width};
use runbook_engine::event::Question;
use runbook_engine::kinds::Class;
use runbook_engine::plan::Drift;
use runbook_engine::saved::{Foreseen, SavedPlan, Standing, TargetSet};

use serde_json::Value;

use super::describe::{one_line, wrap};
use crate::format::{self, count, length};
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
    page.text(&mut lines, 2, &plan.description);
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
    let no_return = saved.point_of_no_return();
    for (at, step) in saved.steps.iter().enumerate() {
        if at == plan.steps.len() {
            lines.push(page.dim("  at the end, however it ends"));
        }
        if no_return == Some(&*step.step) {
            lines.push(page.red(page.no_return()));
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
        let room = self.width.saturating_sub(indent + 1).max(16);
        lines.extend(wrap(&one_line(text), room).into_iter().map(|line| format!("{:indent$}{line}", "")));
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
        let room = self.width.saturating_sub(label + 5).max(16);
        let mut below = wrap(&one_line(value), room).into_iter();
        let name = console::pad_str(name, label, console::Alignment::Left, Some("."));
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
        lines.push(format!("{head}  {}", self.dim(&format!("{name}{uses}{took}"))));
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
            }
        }
        for set in &step.touches {
            say(&set_words(set));
        }
        for question in &step.asks {
            let Question::Phrase { message, phrase, facts } = question else { continue };
            say(message);
            for (name, value) in facts {
                say(&format!("{name}: {value}"));
            }
            say(&format!("asks for the phrase: {phrase}"));
        }
        for (code, reason) in planned.into_iter().flat_map(|step| &step.waived) {
            say(&format!("{code} is waived: {reason}"));
        }
    }

    fn totals(&self, lines: &mut Vec<String>, saved: &SavedPlan) {
        let sets = || saved.steps.iter().filter(|step| step.destroys()).flat_map(|step| &step.touches);
        let items: u64 = sets().map(|set| set.count).sum();
        let bytes: u64 = sets().map(|set| set.bytes).sum();
        let unknown =
            saved.steps.iter().any(|step| step.destroys() && matches!(step.standing, Standing::After(_)));
        let more = if unknown { ", and what is known later" } else { "" };
        let asks: usize = saved.steps.iter().map(|step| step.asks.len()).sum();
        let questions = if asks == 1 { "1 question".to_owned() } else { format!("{asks} questions") };
        let text = format!("destroys {} items ({}){more}; asks {questions}", count(items), size(bytes));
        lines.push(self.bold(&text));
        self.text(lines, 0, "Everything above was read just now; nothing was changed.");
    }

    fn no_return(&self) -> &'static str {
        if self.look.unicode {
            "  ── from here on there is no way back ──"
        } else {
            "  -- from here on there is no way back --"
        }
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
    let examples = one_line(&set.examples.join(", "));
    format!(
        "{} items, {} by their manifests, digest {digest}: {examples}{more}",
        count(set.count),
        size(set.bytes)
    )
}

/// A number of bytes.
fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
