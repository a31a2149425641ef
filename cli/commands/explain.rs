//! `runbook explain`.

use runbook_engine::check::{CODES, page, title};
use runbook_engine::suggest::did_you_mean;
use serde_json::json;

use crate::app::App;
use crate::args::Explain;
use crate::exit::{Failure, Outcome};
use crate::fields::fitted;
use crate::format;
use crate::report::describe::wrap;
use crate::topics::{TOPICS, Topic};

/// Prints the page of a code or of a part of the language, or all of them with a line each.
pub fn run(app: &App, args: &Explain) -> Outcome {
    let Some(asked) = &args.what else { return list(app) };
    if let Some(topic) = Topic::named(asked) {
        return explain(app, topic);
    }
    let code = spelled(asked);
    let Some(text) = page(&code) else {
        let help = did_you_mean(&code, CODES.iter().copied().filter(|known| near(known, &code)));
        let help = help.unwrap_or_else(|| "`runbook explain` lists what there is".to_owned());
        return Err(Failure::usage(format!("there is no code or topic `{asked}`")).help(help));
    };
    if app.json {
        return super::print_json(&json!({ "code": code, "title": title(&code), "page": text }));
    }
    super::print(shown(text.trim_end()).join("\n").as_str())
}

/// A page as it is shown: its prose fitted to the terminal, its examples as they are written.
fn shown(text: &str) -> Vec<String> {
    let mut example = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        let fence = line.starts_with("```");
        if example || fence {
            lines.push(line.to_owned());
        } else {
            lines.extend(fitted(vec![line.to_owned()]));
        }
        example ^= fence;
    }
    lines
}

fn explain(app: &App, topic: &Topic) -> Outcome {
    if app.json {
        let page = topic.page().join("\n");
        return super::print_json(
            &json!({ "topic": topic.name, "title": topic.summary, "page": page.trim_end(), "example": topic.example }),
        );
    }
    let mut lines = fitted(topic.page());
    lines.push("example:".to_owned());
    lines.extend(topic.example.lines().map(|line| format!("  {line}")));
    super::print(&lines.join("\n"))
}

fn list(app: &App) -> Outcome {
    if app.json {
        let topics = TOPICS.iter().map(|topic| json!({ "topic": topic.name, "title": topic.summary }));
        let codes = CODES.iter().map(|code| json!({ "code": code, "title": title(code) }));
        return super::print_json(&topics.chain(codes).collect());
    }
    let topics = TOPICS.iter().map(|topic| (topic.name, topic.summary));
    let codes = CODES.iter().map(|code| (*code, title(code)));
    let width = TOPICS.iter().map(|topic| topic.name.len()).max().unwrap_or(0);
    let room = format::look_of_stdout().width.map_or(usize::MAX, |columns| columns.saturating_sub(width + 3));
    let mut lines = Vec::new();
    for (name, title) in topics.chain(codes) {
        let mut name = name;
        for part in wrap(title, room) {
            lines.push(format!("{name:width$}  {part}"));
            name = "";
        }
    }
    super::print(&lines.join("\n"))
}

/// A code as it is written: `rb501`, `0501` and `501` are `RB0501`.
fn spelled(asked: &str) -> String {
    let upper = asked.trim().to_ascii_uppercase();
    let digits = upper.strip_prefix("RB").unwrap_or(&upper);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return upper;
    }
    format!("RB{digits:0>4}")
}

/// Whether two codes differ in one digit only.
fn near(known: &str, code: &str) -> bool {
    known.len() == code.len() && known.bytes().zip(code.bytes()).filter(|(a, b)| a != b).count() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_known_however_it_is_written() {
        for asked in ["RB0501", "rb0501", "0501", "501", " Rb501 "] {
            assert_eq!(spelled(asked), "RB0501", "{asked}");
        }
        assert_eq!(spelled("snapshot"), "SNAPSHOT");
        assert!(near("RB0501", "RB0591") && !near("RB0501", "RB0101x"));
    }
}
