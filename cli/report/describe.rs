//! What an event means, in words: one vocabulary for every view, the logs and the summary.

use std::borrow::Cow;

use console::measure_text_width;
use jiff::Timestamp;
use runbook_engine::artifact::Artifact;
use runbook_engine::error::{Outcome, StepError};
use runbook_engine::event::{Closed, EventKind, Obligation, ObligationChange, Question, RunOutcome};
use runbook_engine::state::RunState;
use runbook_steps::freeze;
use serde_json::Value;

use crate::format;

/// How many outputs of a step are worth a line.
const FACTS: usize = 6;

/// How many characters of one text are shown. The record has all of them.
const SHOWN: usize = 4000;

/// The kind of an event, as it is stored.
pub fn kind(event: &EventKind) -> &'static str {
    match event {
        EventKind::RunCreated { .. } => "run-created",
        EventKind::RunClaimed { .. } => "run-claimed",
        EventKind::StepStarted { .. } => "step-started",
        EventKind::StepSucceeded { .. } => "step-succeeded",
        EventKind::StepFailed { .. } => "step-failed",
        EventKind::StepInterrupted { .. } => "step-interrupted",
        EventKind::StepSkipped { .. } => "step-skipped",
        EventKind::StepReopened { .. } => "step-reopened",
        EventKind::Asked { .. } => "asked",
        EventKind::Answered { .. } => "answered",
        EventKind::Obligation { .. } => "obligation",
        EventKind::CancelRequested { .. } => "cancel-requested",
        EventKind::RunEnded { .. } => "run-ended",
    }
}

/// The step an event is about.
pub fn step(event: &EventKind) -> Option<&str> {
    match event {
        EventKind::StepStarted { step, .. }
        | EventKind::StepSucceeded { step, .. }
        | EventKind::StepFailed { step, .. }
        | EventKind::StepInterrupted { step }
        | EventKind::StepSkipped { step, .. }
        | EventKind::StepReopened { step, .. }
        | EventKind::Asked { step, .. }
        | EventKind::Answered { step, .. } => Some(step),
        EventKind::Obligation { change: ObligationChange::Opened(obligation), .. } => Some(&obligation.step),
        _ => None,
    }
}

/// What happened, beside the kind and the step, on one line.
pub fn detail(event: &EventKind, state: &RunState) -> String {
    let text = match event {
        EventKind::RunCreated { by, .. } | EventKind::CancelRequested { by } => format!("by {by}"),
        EventKind::RunClaimed { owner, epoch } => format!("by {owner}, epoch {epoch}"),
        EventKind::StepStarted { attempt, .. } => format!("attempt {attempt}"),
        EventKind::StepSucceeded { step, outputs } => {
            let facts = facts(outputs);
            let took = took(state, step);
            if facts.is_empty() { took } else { format!("{took}, {facts}") }
        }
        EventKind::StepFailed { error, .. } => error_line(error),
        EventKind::StepInterrupted { .. } => "stopped".to_owned(),
        EventKind::StepSkipped { reason, .. } | EventKind::StepReopened { reason, .. } => reason.clone(),
        EventKind::Asked { question, .. } => question_line(question),
        EventKind::Answered { answer, .. } => format!("`{}` by {}", answer.text, answer.by),
        EventKind::Obligation { id, change } => obligation(id, change, state),
        EventKind::RunEnded { outcome, error } => {
            let outcome = outcome_name(*outcome);
            error
                .as_ref()
                .map_or_else(|| outcome.to_owned(), |error| format!("{outcome}: {}", error_line(error)))
        }
    };
    one_line(&text)
}

fn outcome_name(outcome: RunOutcome) -> &'static str {
    match outcome {
        RunOutcome::Succeeded => "succeeded",
        RunOutcome::Failed => "failed",
        RunOutcome::Cancelled => "cancelled",
    }
}

/// How long a step's last attempt took.
pub fn took(state: &RunState, step: &str) -> String {
    let times = state.step(step).and_then(|step| step.started_at.zip(step.ended_at));
    times.map_or_else(String::new, |(start, end)| format::length(format::between(start, end)))
}

/// An error with its kind and causes, and whether it is known what took effect, on one line.
pub fn error_line(error: &StepError) -> String {
    let unknown =
        if error.outcome == Outcome::Unknown { " (it is not known whether it took effect)" } else { "" };
    error_alone(error) + unknown
}

/// An error with its kind and causes, on one line; what took effect is told elsewhere.
pub fn error_alone(error: &StepError) -> String {
    let mut text = format!("{}: {}", error.kind.name(), error.message);
    for cause in &error.causes {
        text.push_str(": ");
        text.push_str(cause);
    }
    one_line(&text)
}

/// What a question asks, on one line.
pub fn question_line(question: &Question) -> String {
    match question {
        Question::Phrase { message, phrase, terminal: true, .. } => {
            format!("{} (type `{phrase}` at a terminal)", one_line(message))
        }
        Question::Phrase { message, phrase, .. } => format!("{} (type `{phrase}`)", one_line(message)),
        Question::Settle { message, .. } => format!("{} (done, retry or abort)", one_line(message)),
        Question::Approval { message, until, .. } => {
            let whom = question.asks_whom().unwrap_or_default();
            let until =
                until.map_or_else(String::new, |until| format!("; until {}", until.strftime("%F %H:%M UTC")));
            format!("{} (approve or deny, by {whom}{until})", one_line(message))
        }
    }
}

/// What is asked now, with what has become of the time for an answer.
pub fn open_question_line(question: &Question, now: Timestamp) -> String {
    let line = question_line(question);
    match question {
        Question::Approval { until: Some(until), .. } if *until <= now => {
            format!(
                "{line} THE TIME FOR THAT IS OVER: an answer fails the step now, and a resume after it asks anew"
            )
        }
        _ => line,
    }
}

fn obligation(id: &str, change: &ObligationChange, state: &RunState) -> String {
    let label = match change {
        ObligationChange::Opened(obligation) => obligation.label.as_str(),
        _ => state.obligations.get(id).map_or(id, |one| one.obligation.label.as_str()),
    };
    match change {
        ObligationChange::Opened(obligation) => {
            format!(
                "about to hold {label}, for {} at most; its original value is recorded",
                obligation.max_hold
            )
        }
        ObligationChange::Changing => format!("changing {label}"),
        ObligationChange::Unchanged => format!("{label} was not changed"),
        ObligationChange::Applied => format!("{label} is held"),
        ObligationChange::Lost { found } => format!("{label} is NOT held any more: {found}"),
        ObligationChange::Releasing { .. } => format!("putting {label} back"),
        ObligationChange::Stuck { error } => format!("{label} could not be put back: {}", error_line(error)),
        ObligationChange::Closed { how } => closed(label, how),
    }
}

/// How an obligation ended.
pub fn closed(label: &str, how: &Closed) -> String {
    match how {
        Closed::Restored => format!("{label} is back at its original value"),
        Closed::Untouched => format!("{label} had never been changed"),
        Closed::Undone => format!(
            "{label} is back at its original value: somebody else had put it back before, so what ran since may have run without it"
        ),
        Closed::ByHand { by, other: None } => {
            format!("{label} is back at its original value, by hand of {by}")
        }
        Closed::ByHand { by, other: Some(other) } => format!("{label} is as {by} left it: {other}"),
        Closed::Expired => format!("{label} is back at its original value, because it was held too long"),
        Closed::Foreign { present } => format!(
            "{label} was changed by somebody else to {present}; it was left alone and is NOT back at its original value"
        ),
    }
}

/// The countable outputs of a step: `deleted 412, failed 0`.
pub fn facts(outputs: &Value) -> String {
    let Some(fields) = outputs.as_object() else { return String::new() };
    let counts: Vec<(&str, u64)> =
        fields.iter().filter_map(|(name, value)| Some((name.as_str(), counted(name, value)?))).collect();
    // A zero says nothing beside other counts, except that nothing failed.
    let some = counts.iter().any(|(_, number)| *number > 0);
    let telling = counts.iter().filter(|(name, number)| !some || *number > 0 || *name == "failed");
    let texts =
        telling.map(|(name, number)| format!("{} {}", name.replace('_', " "), format::count(*number)));
    texts.take(FACTS).collect::<Vec<_>>().join(", ")
}

/// The number that an output is: a count, or counts by name summed up.
fn counted(name: &str, value: &Value) -> Option<u64> {
    // How long it took has its own column, and an exit code is no count.
    if name.ends_with("_ms") || name == "exit_code" {
        return None;
    }
    if let Some(number) = value.as_u64() {
        return Some(number);
    }
    let parts: Option<Vec<u64>> = value.as_object()?.values().map(Value::as_u64).collect();
    parts.filter(|parts| !parts.is_empty()).map(|parts| parts.iter().sum())
}

/// The artifact that a step wrote for people.
pub fn report(outputs: &Value) -> Option<Artifact> {
    serde_json::from_value(outputs.get("markdown")?.clone()).ok()
}

/// The text without line breaks and control characters, and not longer than a person reads.
pub fn one_line(text: &str) -> String {
    let text = bounded(text);
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The original value of what is held as it may be put on a terminal: nothing is left out, and a control character is told as its escape.
pub fn original(obligation: &Obligation) -> String {
    let text = freeze::original_text(obligation);
    let visible = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(visible).collect()
}

/// The beginning of a text that is longer than a person reads, with how much is left out.
pub fn bounded(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        None => Cow::Borrowed(text),
        Some((end, _)) => {
            let rest = u64::try_from(text[end..].chars().count()).unwrap_or(u64::MAX);
            Cow::Owned(format!("{} ... ({} more characters)", &text[..end], format::count(rest)))
        }
    }
}

/// The text in lines of at most so many columns, broken at spaces; a word that is longer than a line is broken behind a sign in it where that
/// can be. What stands between backticks is to be typed, and is never broken: a terminal folds what is too long for it, so that it can be copied whole.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in words(text) {
        let (mut word, is_typed) = (word.as_str(), word.contains('`'));
        let room = |line: &str| {
            if line.is_empty() { width } else { width.saturating_sub(measure_text_width(line) + 1) }
        };
        if measure_text_width(word) > room(&line) && !line.is_empty() {
            // What has to be broken anyway begins where there is room, unless that is next to nothing.
            let begins = !is_typed && measure_text_width(word) > width && room(&line) * 3 >= width;
            if let Some((head, tail)) = broken(word, room(&line)).filter(|_| begins) {
                line.push(' ');
                line.push_str(head);
                word = tail;
            }
            lines.push(std::mem::take(&mut line));
        }
        while !is_typed && measure_text_width(word) > width {
            let (head, tail) = broken(word, width).unwrap_or_else(|| at_width(word, width));
            lines.push(head.to_owned());
            word = tail;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// The words of a text; what stands between two backticks is one.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let is_open = |word: &String| word.matches('`').count() % 2 == 1;
    let mut left = text.matches('`').count();
    for word in text.split_whitespace() {
        match words.last_mut().filter(|last| is_open(last) && left > 0) {
            Some(last) => *last += &format!(" {word}"),
            None => words.push(word.to_owned()),
        }
        left -= word.matches('`').count();
    }
    words
}

/// The word in two, the first no wider than this, behind the last sign that is not too near its beginning: one that parts, or else one that
/// joins.
fn broken(word: &str, width: usize) -> Option<(&str, &str)> {
    let (head, _) = at_width(word, width);
    let behind = |signs: &[char]| {
        let at = head.rfind(signs)? + 1;
        (measure_text_width(&word[..at]) * 3 >= width && at < word.len()).then(|| word.split_at(at))
    };
    behind(&['/', ',', ';', '&', '?']).or_else(|| behind(&['-', '_', '.', ':', '=', '@']))
}

/// The word in two, the first as wide as can be, and of one character at least.
fn at_width(word: &str, width: usize) -> (&str, &str) {
    let ends = word.char_indices().map(|(at, c)| at + c.len_utf8());
    let fits = ends.take_while(|end| measure_text_width(&word[..*end]) <= width).last();
    word.split_at(fits.unwrap_or_else(|| word.chars().next().map_or(0, char::len_utf8)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_approval_that_comes_too_late_is_told() {
        let until: Timestamp = "2026-01-02T03:04:00Z".parse().unwrap();
        let question = Question::Approval {
            message: "May it?".to_owned(),
            role: "ops".to_owned(),
            approvers: Vec::new(),
            except: None,
            until: Some(until),
            facts: Vec::new(),
        };
        let at = |now: &str| open_question_line(&question, now.parse().unwrap());
        assert!(at("2026-01-02T03:03:59Z").ends_with("until 2026-01-02 03:04 UTC)"));
        assert!(at("2026-01-02T03:04:00Z").contains("THE TIME FOR THAT IS OVER"));
    }

    #[test]
    fn what_is_to_be_typed_is_never_broken() {
        let text = "It is not whole. Type `sh /a/long/path/of/a/program.sh --now`, then `runbook cancel x`.";
        let whole = [
            "It is not whole.",
            "Type",
            "`sh /a/long/path/of/a/program.sh --now`,",
            "then",
            "`runbook cancel x`.",
        ];
        assert_eq!(wrap(text, 16), whole);
        assert_eq!(wrap("an `open one, with more words", 12), ["an `open", "one, with", "more words"]);
        assert_eq!(wrap("/a/path/that/is/long", 12), ["/a/path/", "that/is/long"]);
    }

    #[test]
    fn facts_are_the_counts_among_the_outputs() {
        let outputs = json!({ "deleted": 1412, "already_gone": 3, "ok": true, "manifest": { "bytes": 4, "name": "a" }, "rate": 0.5 });
        assert_eq!(facts(&outputs), "deleted 1,412, already gone 3");
        assert_eq!(facts(&json!({ "deleted": { "blobs": 3, "metadata": 4 }, "took_ms": 5 })), "deleted 7");
        assert_eq!(facts(&json!({ "checked": 12, "replaced": 0, "failed": 0 })), "checked 12, failed 0");
        assert_eq!(facts(&json!({ "total": 0 })), "total 0");
        assert_eq!(facts(&json!(null)), "");
    }

    #[test]
    fn an_error_is_one_line_with_its_causes() {
        let mut error = StepError::transient("the gateway\ndoes not answer").unknown();
        error.causes.push("connection reset".to_owned());
        let text = error_line(&error);
        assert!(
            text.starts_with("transient: the gateway does not answer: connection reset (it is not known"),
            "{text}"
        );
    }

    #[test]
    fn what_is_too_long_to_be_read_is_cut_off_and_said() {
        let text = one_line(&"é".repeat(SHOWN + 1234));
        assert!(
            text.ends_with("é ... (1,234 more characters)") && text.chars().count() < SHOWN + 40,
            "{text}"
        );
        assert_eq!(one_line(&"é".repeat(SHOWN)), "é".repeat(SHOWN));
        let question = Question::Phrase {
            message: "x".repeat(10_000),
            phrase: "GO".to_owned(),
            terminal: false,
            facts: Vec::new(),
        };
        assert!(question_line(&question).ends_with("more characters) (type `GO`)"));
    }

    #[test]
    fn a_word_that_is_too_long_is_broken_at_a_sign_and_no_line_is_wider_than_it_may_be() {
        let path = "/srv/data/2026/chatkit-attachments/of-everybody.jsonl";
        assert_eq!(wrap(path, 24), ["/srv/data/2026/", "chatkit-attachments/", "of-everybody.jsonl"]);
        assert_eq!(wrap(&format!("delete {path}"), 24)[0], "delete /srv/data/2026/");
        assert_eq!(wrap("0123456789abcdef", 6), ["012345", "6789ab", "cdef"]);
        assert_eq!(wrap("a 日本語の文字", 6), ["a", "日本語", "の文字"]);
        for width in 1..40 {
            for text in [path, "one two-three/four=five six", "日本語の文字 and more", ""] {
                let lines = wrap(text, width);
                assert!(
                    lines.iter().all(|line| measure_text_width(line) <= width.max(2)),
                    "{width}: {lines:?}"
                );
                let kept: String = lines.concat().chars().filter(|c| *c != ' ').collect();
                assert_eq!(kept, text.replace(' ', ""), "{width}");
            }
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(one_line("a\x1b[2Jb\r\nc"), "a [2Jb c");
    }
}
