//! How times, lengths and failures are written for people.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use console::Style;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::exit::Failure;
use crate::graph::tree::Look;
use crate::reviewed;

static NO_COLOURS: AtomicBool = AtomicBool::new(false);

/// From now on nothing is shown in colours, because it goes where they would be in the way.
pub fn without_colours() {
    NO_COLOURS.store(true, Ordering::Relaxed);
}

/// Whether stderr shows colours.
pub fn colours() -> bool {
    colours_on(std::io::stderr().is_terminal())
}

fn colours_on(is_terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
    !NO_COLOURS.load(Ordering::Relaxed) && is_terminal && !set("NO_COLOR") && !dumb
}

/// Whether the terminal is set up for more than ASCII.
pub fn unicode() -> bool {
    let value = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty())
        .unwrap_or_default()
        .to_ascii_lowercase();
    value.contains("utf-8") || value.contains("utf8")
}

/// The columns of the terminal that stderr is; none when it is no terminal.
pub fn width() -> Option<usize> {
    width_of(&console::Term::stderr())
}

/// What the terminal that stdout is can show; without one lines are as long as they are.
pub fn look_of_stdout() -> Look {
    let colours = colours_on(std::io::stdout().is_terminal());
    Look { colours, unicode: unicode(), width: width_of(&console::Term::stdout()) }
}

fn width_of(term: &console::Term) -> Option<usize> {
    term.is_term().then(|| term.size_checked().map_or(80, |(_, columns)| usize::from(columns)).max(20))
}

/// The text in a style, when colours are shown.
pub fn paint(style: Style, text: &str) -> String {
    style.force_styling(colours()).apply_to(text).to_string()
}

/// Says why a command failed.
pub fn failure(failure: &Failure) {
    if failure.message.is_empty() {
        return;
    }
    eprintln!("{} {}", paint(Style::new().red().bold(), "error:"), failure.message);
    for line in failure.moved.iter().map(reviewed::line).chain(failure.help.iter().cloned()) {
        eprintln!("  {line}");
    }
}

/// Says something that a person should know and that stops nothing.
pub fn warn(text: &str) {
    eprintln!("{} {text}", paint(Style::new().yellow().bold(), "warning:"));
}

/// A length of time in two units at most: `0.4s`, `12s`, `1m02s`, `3h05m`, `2d04h`.
pub fn length(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0..10 => format!("{:.1}s", time.as_secs_f64()),
        10..60 => format!("{secs}s"),
        60..3600 => format!("{}m{:02}s", secs / 60, secs % 60),
        3600..86_400 => format!("{}h{:02}m", secs / 3600, secs % 3600 / 60),
        _ => format!("{}d{:02}h", secs / 86_400, secs % 86_400 / 3600),
    }
}

/// From `start` to `end`; nothing when the clock went back.
pub fn between(start: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(start)).unwrap_or_default()
}

/// How long ago: `12m03s ago`.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let passed = between(at, now);
    if passed < Duration::from_secs(5) { "just now".to_owned() } else { format!("{} ago", length(passed)) }
}

/// The time of day where the person is, with the date when it is not today's.
pub fn clock(at: Timestamp, now: Timestamp) -> String {
    let zone = TimeZone::system();
    let (at, now) = (at.to_zoned(zone.clone()), now.to_zoned(zone));
    let pattern = if at.date() == now.date() { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    at.strftime(pattern).to_string()
}

/// The time for a line that a program may read: UTC, whole seconds.
pub fn utc(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A count with its thousands set apart.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_two_units_at_most() {
        let texts = [
            (400, "0.4s"),
            (12_345, "12s"),
            (62_000, "1m02s"),
            (11_100_000, "3h05m"),
            (187_200_000, "2d04h"),
        ];
        for (millis, text) in texts {
            assert_eq!(length(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn counts_have_their_thousands_set_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
    }
}
