//! What the lines of the live view say: a pure function of the state, the progress and the width.

use std::time::Duration;

use console::{Style, measure_text_width, pad_str, truncate_str};
use jiff::Timestamp;
use runbook_engine::drive::live::Progress;
use runbook_engine::plan::Plan;
use runbook_engine::retry;
use runbook_engine::state::{RunState, RunStatus, StepState, StepStatus};

use super::super::{Subject, describe};
use crate::format;

/// Narrower than this, bars and rates are left out.
const NARROW: usize = 60;

/// Columns of the time.
const TIME: usize = 7;

/// Columns of a bar.
const BAR: usize = 16;

/// How a step stands.
#[derive(Clone, Copy)]
pub(super) enum Mark {
    Done,
    Failed,
    Running,
    Asking,
    Paused,
    Skipped,
    Again,
    Waiting,
}

/// The width, the columns and the colours.
pub(super) struct Look {
    width: usize,
    label: usize,
    unicode: bool,
}

impl Look {
    pub(super) fn new(width: usize, plan: &Plan) -> Self {
        let longest = plan.all_steps().map(|step| measure_text_width(&step.id)).max().unwrap_or(0);
        let most = if width < NARROW { width / 3 } else { 28 };
        Self { width, label: longest.clamp(1, most.max(1)), unicode: format::unicode() }
    }

    fn narrow(&self) -> bool {
        self.width < NARROW
    }

    /// One column short of the width, because some terminals wrap a full line.
    fn cut(&self, line: &str) -> String {
        let dots = if self.unicode { "…" } else { "..." };
        truncate_str(line.trim_end(), self.width.saturating_sub(1), dots).into_owned()
    }

    fn mark(&self, mark: Mark) -> String {
        let (fancy, plain, style) = match mark {
            Mark::Done => ("✓", "+", Style::new().green()),
            Mark::Failed => ("✗", "x", Style::new().red()),
            Mark::Running => ("▸", ">", Style::new().cyan()),
            Mark::Asking => ("?", "?", Style::new().yellow()),
            Mark::Paused => ("‖", "=", Style::new().yellow()),
            Mark::Skipped => ("–", "-", Style::new().dim()),
            Mark::Again => ("↺", "~", Style::new().yellow()),
            Mark::Waiting => ("·", ".", Style::new().dim()),
        };
        format::paint(style, if self.unicode { fancy } else { plain })
    }

    pub(super) fn title(&self, runbook: &str, about: &str, steps: usize) -> String {
        let name = format::paint(Style::new().bold(), runbook);
        let rest = format!("{steps} step{}  {about}", if steps == 1 { "" } else { "s" });
        self.cut(&format!("{name}  {}", format::paint(Style::new().dim(), &rest)))
    }

    /// One step on one line, in columns; text that does not fit after its mark, label and time goes on below, indented.
    pub(super) fn step(&self, mark: Mark, id: &str, time: &str, text: &str) -> String {
        let head = self.head(mark, id, time);
        let room = self.width.saturating_sub(measure_text_width(&head) + 3);
        if matches!(mark, Mark::Failed) && measure_text_width(text) > room {
            let below = describe::wrap(text, self.width.saturating_sub(6))
                .into_iter()
                .map(|line| format!("      {line}"));
            return std::iter::once(head.trim_end().to_owned()).chain(below).collect::<Vec<_>>().join("\n");
        }
        let text = if matches!(mark, Mark::Failed) { text.to_owned() } else { dim(text) };
        self.cut(&format!("{head}  {text}"))
    }

    fn head(&self, mark: Mark, id: &str, time: &str) -> String {
        let label = pad_str(id, self.label, console::Alignment::Left, Some("…"));
        let time = pad_str(time, TIME, console::Alignment::Right, None);
        format!("  {} {label} {}", self.mark(mark), dim(&time))
    }

    /// Something about the run as a whole.
    pub(super) fn notice(&self, text: &str) -> String {
        let style = Style::new().yellow();
        let lines = describe::wrap(text, self.width.saturating_sub(5));
        lines
            .iter()
            .map(|line| format!("    {}", format::paint(style.clone(), line)))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// What a step says.
    pub(super) fn said(&self, step: &str, text: &str) -> String {
        let label = pad_str(step, self.label, console::Alignment::Left, Some("…"));
        // The column of the time is left empty only where there is room for it.
        let gap = if self.narrow() { 0 } else { TIME + 1 };
        self.cut(&format!("    {}", dim(&format!("{label}{:gap$}  {text}", ""))))
    }
}

fn dim(text: &str) -> String {
    if text.trim().is_empty() { text.to_owned() } else { format::paint(Style::new().dim(), text) }
}

/// What had been done before this process took the run up.
pub(super) fn so_far(look: &Look, plan: &Plan, state: &RunState) -> Vec<String> {
    let over = plan.all_steps().filter_map(|step| {
        let one = state.step(&step.id)?;
        match one.status {
            StepStatus::Succeeded => {
                let facts = one.outputs().map(describe::facts).unwrap_or_default();
                Some(look.step(Mark::Done, &step.id, &describe::took(state, &step.id), &facts))
            }
            StepStatus::Skipped => {
                Some(look.step(Mark::Skipped, &step.id, "", one.skipped.as_deref().unwrap_or_default()))
            }
            StepStatus::Failed => {
                let error = one.error.as_ref().map(describe::error_line).unwrap_or_default();
                Some(look.step(Mark::Failed, &step.id, &describe::took(state, &step.id), &error))
            }
            _ => None,
        }
    });
    over.collect()
}

/// The lines that stay at the bottom: what runs, asks or waits for its next attempt, then the run in one line.
pub(super) fn lines(
    look: &Look,
    subject: &Subject,
    state: &RunState,
    now: Timestamp,
    stopping: bool,
    rate: impl Fn(&str) -> Option<f64>,
) -> Vec<String> {
    let mut lines = Vec::new();
    for step in subject.plan.all_steps() {
        let Some(one) = state.step(&step.id) else { continue };
        let time = one.started_at.map(|at| format::length(format::between(at, now))).unwrap_or_default();
        let name = step.name.as_deref().unwrap_or_default();
        match one.status {
            StepStatus::Running => {
                let progress = subject.live.progress(&step.id);
                let text = progress
                    .map_or_else(|| dim(name), |progress| batch(look, &progress, rate(&step.id), name));
                lines.push(look.cut(&format!("{}  {text}", look.head(Mark::Running, &step.id, &time))));
            }
            StepStatus::Asking => lines.push(look.step(Mark::Asking, &step.id, "", "waits for a person")),
            StepStatus::Failed if state.status == RunStatus::Running => {
                if let Some(text) = next_attempt(subject, step, one, now) {
                    lines.push(look.step(Mark::Waiting, &step.id, "", &text));
                }
            }
            _ => {}
        }
    }
    lines.push(String::new());
    lines.push(foot(look, subject, state, now, stopping));
    lines
}

fn next_attempt(
    subject: &Subject,
    step: &runbook_engine::plan::PlannedStep,
    state: &StepState,
    now: Timestamp,
) -> Option<String> {
    let at = retry::next_attempt(&step.retry, state, subject.seed)?;
    let wait = format::between(now, at);
    Some(format!("attempt {} of {} in {}", state.failures + 1, step.retry.max_attempts, format::length(wait)))
}

/// Progress on one line: a bar when the end is known, then counts, rate and time left.
fn batch(look: &Look, progress: &Progress, rate: Option<f64>, name: &str) -> String {
    let mut parts = Vec::new();
    let done = format::count(progress.done);
    let unit = if look.narrow() { "" } else { progress.unit.as_str() };
    match progress.total {
        Some(total) if total > 0 => {
            if !look.narrow() {
                parts.push(bar(look, progress.done, total));
            }
            parts.push(format!("{done}/{} {unit}", format::count(total)).trim_end().to_owned());
        }
        _ if progress.done > 0 => parts.push(format!("{done} {unit}").trim_end().to_owned()),
        _ => {}
    }
    if let Some(rate) = rate {
        if !look.narrow() {
            parts.push(if rate >= 10.0 { format!("{rate:.0}/s") } else { format!("{rate:.1}/s") });
        }
        if let Some(left) = time_left(progress, rate) {
            parts.push(format!("{} left", format::length(left)));
        }
    }
    if progress.failed > 0 {
        parts.push(format::paint(Style::new().red(), &format!("{} failed", format::count(progress.failed))));
    }
    let note = describe::one_line(if progress.note.is_empty() { name } else { &progress.note });
    if !note.is_empty() {
        parts.push(dim(&note));
    }
    parts.join("  ")
}

fn time_left(progress: &Progress, rate: f64) -> Option<Duration> {
    let left = u32::try_from(progress.total?.checked_sub(progress.done)?).ok().filter(|left| *left > 0)?;
    Duration::try_from_secs_f64((f64::from(left) / rate).max(1.0).round()).ok()
}

fn bar(look: &Look, done: u64, total: u64) -> String {
    let filled =
        usize::try_from(u128::from(done.min(total)) * BAR as u128 / u128::from(total)).unwrap_or(BAR);
    let (full, empty) = if look.unicode { ("━", "─") } else { ("#", "-") };
    format!(
        "{}{}",
        format::paint(Style::new().cyan(), &full.repeat(filled)),
        dim(&empty.repeat(BAR - filled))
    )
}

/// The run in one line: how far, how long, what is held.
fn foot(look: &Look, subject: &Subject, state: &RunState, now: Timestamp, stopping: bool) -> String {
    let all = subject.plan.all_steps().count();
    let over = state.steps.values().filter(|step| step.is_over()).count();
    let mut parts = vec![dim(&format!("{over} of {all} done"))];
    if let Some(started) = state.started_at {
        parts.push(dim(&format::length(format::between(started, now))));
    }
    for (_, held) in state.open_obligations() {
        let left = format::between(now, held.hold_until());
        let text = format!("HELD {}, {} at most", held.obligation.label, format::length(left));
        parts.push(format::paint(Style::new().yellow(), &text));
    }
    if stopping {
        parts.push(format::paint(Style::new().yellow(), "stopping"));
    }
    look.cut(&format!("  {}", parts.join(&dim("  "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(width: usize) -> Look {
        Look { width, label: 8, unicode: true }
    }

    fn progress() -> Progress {
        Progress {
            done: 240,
            total: Some(400),
            unit: "documents".to_owned(),
            failed: 0,
            note: "batch 3".to_owned(),
        }
    }

    #[test]
    fn a_batch_shows_bar_items_rate_and_time_left() {
        let text = batch(&look(100), &progress(), Some(38.4), "");
        assert_eq!(text, "━━━━━━━━━───────  240/400 documents  38/s  4.0s left  batch 3");
    }

    #[test]
    fn a_narrow_terminal_shows_no_bar() {
        let text = batch(&look(50), &progress(), Some(38.4), "");
        assert_eq!(text, "240/400  4.0s left  batch 3");
    }

    #[test]
    fn what_a_step_says_begins_early_on_a_narrow_terminal() {
        assert_eq!(look(33).said("purge", "12 of 40 are gone"), "    purge     12 of 40 are gone");
        assert_eq!(look(80).said("purge", "gone"), format!("    purge{:11}  gone", ""));
    }

    #[test]
    fn every_line_fits_the_width() {
        let long = "x".repeat(300);
        for width in [20, 50, 80] {
            let look = look(width);
            for line in [
                look.step(Mark::Done, &long, "1m02s", &long),
                look.said("purge", &long),
                look.title("a", &long, 3),
            ] {
                assert!(measure_text_width(&line) < width, "{line}");
            }
        }
    }

    #[test]
    fn a_long_failure_is_told_in_full() {
        let text = "refused: the store does not allow it because of a capability that it lacks";
        let shown = look(50).step(Mark::Failed, "purge", "3s", text);
        assert_eq!(
            describe::one_line(&shown.lines().skip(1).collect::<String>()).replace(' ', ""),
            text.replace(' ', "")
        );
        assert!(shown.lines().all(|line| measure_text_width(line) <= 50));
    }
}
