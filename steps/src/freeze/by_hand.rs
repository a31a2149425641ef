//! What a person can type to do by hand what a release left to them.

use runbook_engine::event::Obligation;
use serde_json::Value;

use super::original_text;

/// The command that ends the release of a freeze with these settings, once the original value is where it belongs, as it is typed in a
/// shell: the restart of an env file's system, or the release command. None when there is none.
pub fn by_hand(with: &Value, obligation: &Obligation) -> Option<String> {
    if let Some(argv) = with.pointer("/env_file/restart/argv") {
        return line(argv);
    }
    let release = line(with.pointer("/command/release")?)?;
    let value = obligation.replacement.as_str().unwrap_or_default();
    let original = original_text(obligation);
    Some(format!("RUNBOOK_VALUE={} RUNBOOK_ORIGINAL={} {release}", quoted(value), quoted(&original)))
}

fn line(argv: &Value) -> Option<String> {
    let words = argv.as_array()?.iter().map(|word| match word {
        Value::String(text) => quoted(text),
        other => quoted(&other.to_string()),
    });
    Some(words.collect::<Vec<_>>().join(" ")).filter(|line| !line.is_empty())
}

/// One word for a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use runbook_engine::duration::Duration;
    use serde_json::json;

    use super::*;

    fn obligation() -> Obligation {
        Obligation {
            step: "freeze".to_owned(),
            target: "command:limit".to_owned(),
            label: "limit".to_owned(),
            original: json!({ "text": "it's 25", "state": "it's 25" }),
            replacement: json!("0"),
            max_hold: Duration::from_secs(60),
        }
    }

    #[test]
    fn the_command_can_be_pasted_into_a_shell() {
        let env_file = json!({ "env_file": { "restart": { "argv": ["systemctl", "restart", "a b"] } } });
        assert_eq!(by_hand(&env_file, &obligation()).as_deref(), Some("systemctl restart 'a b'"));
        let command = json!({ "command": { "release": ["./limit", "put"] } });
        assert_eq!(
            by_hand(&command, &obligation()).as_deref(),
            Some(r"RUNBOOK_VALUE=0 RUNBOOK_ORIGINAL='it'\''s 25' ./limit put")
        );
        assert_eq!(by_hand(&json!({ "env_file": { "path": "/a" } }), &obligation()), None);
        assert_eq!(by_hand(&json!({ "http": {} }), &obligation()), None);
    }
}
