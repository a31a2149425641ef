//! What a person reads at the end: the verdict, what was done, what was not, what is still held, and what to type next.

mod backups;
mod holds;
mod next;

use std::collections::{BTreeMap, BTreeSet};

use console::{Style, measure_text_width};
use jiff::Timestamp;
use runbook_engine::error::Outcome;
use runbook_engine::event::Question;
use runbook_engine::kinds::Class;
use runbook_engine::plan::{Plan, PlannedStep};
use runbook_engine::state::{RunState, RunStatus, StepState, StepStatus};

use runbook_engine::store::{LedgerRow, Store, StoreError};

use super::describe;
use crate::format;
use crate::session::Stalled;
use crate::state::Location;

/// What is summed up.
pub struct Facts<'a> {
    /// The run's id.
    pub run: &'a str,
    /// Its plan.
    pub plan: &'a Plan,
    /// Its state.
    pub state: &'a RunState,
    /// The file that its definition was read from.
    pub source: &'a str,
    /// Where reports are.
    pub location: &'a Location,
    /// Whether a process works on it.
    pub owned: bool,
    /// The process that holds it and does not go on.
    pub stalled: Option<Stalled>,
    /// The time.
    pub now: Timestamp,
    /// What the ledgers of the steps say that have not ended well.
    pub ledgers: Ledgers,
    /// The columns there are; none when lines may be as long as they like.
    pub width: Option<usize>,
}

/// Columns before the text of a row.
const INDENT: usize = 12;

/// What the ledgers of steps that have not ended well say of what they did.
#[derive(Default)]
pub struct Ledgers {
    /// How many items became what, in words, by step.
    partly: BTreeMap<String, String>,
    /// The steps that announced an effect.
    announced: BTreeSet<String>,
    /// Those of them of which it is known by now what became of all that.
    known: BTreeSet<String>,
}

/// What the ledgers of steps that have not ended well say of what they did.
pub async fn ledgers(store: &dyn Store, run: &str, state: &RunState) -> Result<Ledgers, StoreError> {
    let mut all = Ledgers::default();
    for (id, step) in &state.steps {
        if step.is_over() || step.attempt == 0 {
            continue;
        }
        let ledger = store.ledger(run, id).await?;
        if ledger.last_batch > 0 {
            all.announced.insert(id.clone());
            if ledger.unsettled.is_empty() {
                all.known.insert(id.clone());
            }
        }
        let text = came_to(&ledger);
        if !text.is_empty() {
            all.partly.insert(id.clone(), text);
        }
    }
    Ok(all)
}

/// What a step did so far, in words; empty when it did nothing.
fn came_to(ledger: &LedgerRow) -> String {
    // Whoever has what it came to has all of it.
    let has = |member| ledger.cursor.as_ref().is_some_and(|cursor| cursor.get(member).is_some());
    if ledger.unsettled.is_empty() && has("series") && has("outputs") {
        return "took effect".to_owned();
    }
    let unknown: u64 = ledger.unsettled.iter().map(|batch| batch.items).sum();
    let counts = [
        (ledger.done, "done"),
        (ledger.already, "already so"),
        (ledger.failed, "failed"),
        (unknown, "of unknown outcome"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let mut texts: Vec<String> =
        counts.map(|(count, what)| format!("{} {what}", format::count(count))).collect();
    // A transaction is announced with what the step comes to by it, and many count no items. Other batches without items only read.
    if ledger.unsettled.iter().any(|batch| batch.items == 0 && batch.intent.get("outputs").is_some()) {
        texts.push("of unknown outcome".to_owned());
    }
    texts.join(", ")
}

/// The lines.
pub fn lines(facts: &Facts<'_>) -> Vec<String> {
    let mut lines = vec![String::new()];
    lines.extend(verdict(facts));
    failures(facts, &mut lines);
    lines.push(String::new());
    done(facts, &mut lines);
    not_done(facts, &mut lines);
    holds::rows(facts, &mut lines);
    backups::rows(facts, &mut lines);
    if let Some(path) = report(facts) {
        row(facts, &mut lines, "Report", &path);
    }
    next::rows(facts, &mut lines);
    lines
}

fn verdict(facts: &Facts<'_>) -> Vec<String> {
    let state = facts.state;
    let (word, style) = match state.status {
        RunStatus::Succeeded => ("Succeeded", Style::new().green().bold()),
        RunStatus::Failed => ("Failed", Style::new().red().bold()),
        RunStatus::Cancelled if state.error.is_some() => {
            let lost = state.obligations.values().any(|one| one.lost.is_some() || one.stuck.is_some());
            let text = match lost {
                true => "Cancelled, and not everything is back",
                false => "Cancelled, and not everything is settled",
            };
            (text, Style::new().red().bold())
        }
        RunStatus::Cancelled => ("Cancelled", Style::new().yellow().bold()),
        RunStatus::Running if facts.stalled.is_some() => {
            ("Held by a process that does not go on", Style::new().red().bold())
        }
        RunStatus::Running if facts.owned => ("Running", Style::new().cyan().bold()),
        RunStatus::Running if asking(facts).next().is_none() => {
            ("Stopped before its end", Style::new().yellow().bold())
        }
        RunStatus::Running | RunStatus::Waiting => ("Waits for a person", Style::new().yellow().bold()),
    };
    let took = state.started_at.map(|start| format::between(start, state.ended_at.unwrap_or(facts.now)));
    let took = took.map_or_else(String::new, |took| format!(" after {}", format::length(took)));
    vec![format!("{}{took}", format::paint(style, word)), format!("  run {}", facts.run)]
}

/// The text in lines that fit, the first one less indented than the others.
fn fit(facts: &Facts<'_>, first: &str, below: &str, text: &str) -> Vec<String> {
    let room = facts.width.map_or(usize::MAX, |width| {
        width.saturating_sub(measure_text_width(below).max(measure_text_width(first)) + 1)
    });
    let lines = describe::wrap(text, room.max(16)).into_iter().enumerate();
    lines.map(|(at, line)| format!("{}{line}", if at == 0 { first } else { below })).collect()
}

fn failures(facts: &Facts<'_>, lines: &mut Vec<String>) {
    let steps = facts.plan.all_steps().filter_map(|step| Some((step, facts.state.step(&step.id)?)));
    let failed = steps.filter(|(_, state)| state.status == StepStatus::Failed);
    let errors = failed.filter_map(|(step, state)| Some((step.id.as_str(), state.error.as_ref()?)));
    for (who, error) in errors.chain(facts.state.error.as_ref().map(|error| ("run", error))) {
        let head = format!("  {} ", format::paint(Style::new().red(), &format!("{who}:")));
        lines.extend(fit(facts, &head, "    ", &describe::one_line(&error.message)));
        for cause in &error.causes {
            lines.extend(fit(facts, "    caused by: ", "      ", &describe::one_line(cause)));
        }
        if error.outcome == Outcome::Unknown {
            let known = facts.ledgers.known.contains(who);
            let text = if known {
                "what became of it was found out since: its log says it"
            } else {
                "it is not known whether it took effect"
            };
            lines.push(format!("    {text}"));
        }
        if let Some(help) = &error.help {
            lines.extend(fit(facts, "    ", "    ", &describe::one_line(help)));
        }
    }
}

/// A label in its column, then text.
fn row(facts: &Facts<'_>, lines: &mut Vec<String>, label: &str, text: &str) {
    let first = format!("  {} ", format::paint(Style::new().bold(), &format!("{label:<9}")));
    lines.extend(fit(facts, &first, &" ".repeat(INDENT), text));
}

fn with(facts: &Facts<'_>, fits: impl Fn(&PlannedStep, &StepState) -> bool) -> Vec<String> {
    let steps = facts.plan.all_steps();
    steps
        .filter(|step| facts.state.step(&step.id).is_some_and(|state| fits(step, state)))
        .map(|step| step.id.clone())
        .collect()
}

/// Steps that changed something get a line with their counts; the others are only named.
fn done(facts: &Facts<'_>, lines: &mut Vec<String>) {
    let over = |_: &PlannedStep, state: &StepState| state.status == StepStatus::Succeeded;
    let ids = with(facts, over);
    if ids.is_empty() {
        row(facts, lines, "Done", "nothing");
        return;
    }
    let counts = |id: &str| {
        let outputs = facts.state.step(id).and_then(StepState::outputs)?;
        let text = describe::facts(outputs);
        let counted = text.contains(", ") || facts.plan.step(id)?.effect.class == Class::Destroy;
        (counted && !text.is_empty()).then_some(text)
    };
    let width =
        ids.iter().filter(|id| counts(id).is_some()).map(|id| measure_text_width(id)).max().unwrap_or(0);
    let counted = ids.iter().filter_map(|id| Some((id, counts(id)?)));
    for (at, (id, text)) in counted.enumerate() {
        let label = if at == 0 { "Done" } else { "" };
        let first =
            format!("  {} {id:<width$}  ", format::paint(Style::new().bold(), &format!("{label:<9}")));
        lines.extend(fit(facts, &first, &" ".repeat(INDENT + 2), &text));
    }
    let silent: Vec<&str> = ids.iter().filter(|id| counts(id).is_none()).map(String::as_str).collect();
    if !silent.is_empty() {
        let label = if silent.len() == ids.len() { "Done" } else { "" };
        row(facts, lines, label, &silent.join(", "));
    }
    let skipped = with(facts, |_, state| state.status == StepStatus::Skipped);
    if !skipped.is_empty() {
        row(facts, lines, "Skipped", &skipped.join(", "));
    }
}

fn not_done(facts: &Facts<'_>, lines: &mut Vec<String>) {
    let begun = with(facts, |_, state| !state.is_over() && state.attempt > 0);
    let untouched = with(facts, |_, state| !state.is_over() && state.attempt == 0);
    if !begun.is_empty() {
        let texts: Vec<String> = begun
            .iter()
            .map(|id| {
                facts.ledgers.partly.get(id).map_or_else(|| id.clone(), |counts| format!("{id} ({counts})"))
            })
            .collect();
        row(facts, lines, "Begun", &texts.join(", "));
    }
    if !untouched.is_empty() {
        row(facts, lines, "Not done", &untouched.join(", "));
    } else if begun.is_empty() && facts.state.status == RunStatus::Failed {
        row(facts, lines, "Not done", "nothing: every step has ended");
    }
}

fn report(facts: &Facts<'_>) -> Option<String> {
    let artifact = facts.state.steps.values().filter_map(StepState::outputs).find_map(describe::report)?;
    Some(facts.location.report(facts.run, &artifact)?.display().to_string())
}

fn asking<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = (&'a str, &'a Question)> {
    let asking = facts.state.steps.iter().filter(|(_, state)| state.status == StepStatus::Asking);
    let open = asking.filter(|(id, _)| facts.state.takes_answers(facts.plan, id));
    open.filter_map(|(id, state)| Some((id.as_str(), state.question.as_ref()?)))
}
