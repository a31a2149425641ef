//! `runbook explain`.

use runbook_engine::check::{CODES, page, title};
use runbook_engine::suggest::did_you_mean;
use serde_json::{Value, json};

use crate::app::App;
use crate::args::Explain;
use crate::exit::{Failure, Outcome};

/// Prints the page of a code, or all codes with a line each.
pub fn run(app: &App, args: &Explain) -> Outcome {
    let Some(asked) = &args.code else { return list(app) };
    let code = spelled(asked);
    let Some(text) = page(&code) else {
        let help = did_you_mean(&code, CODES.iter().copied().filter(|known| near(known, &code)));
        let help = help.unwrap_or_else(|| "`runbook explain` lists the codes".to_owned());
        return Err(Failure::usage(format!("there is no code `{asked}`")).help(help));
    };
    if app.json {
        return super::print_json(&json!({ "code": code, "title": title(&code), "page": text }));
    }
    super::print(text.trim_end())
}

fn list(app: &App) -> Outcome {
    if app.json {
        let all: Vec<Value> =
            CODES.iter().map(|code| json!({ "code": code, "title": title(code) })).collect();
        return super::print_json(&Value::Array(all));
    }
    let lines: Vec<String> = CODES.iter().map(|code| format!("{code}  {}", title(code))).collect();
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
