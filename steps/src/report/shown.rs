//! Values of any shape as short texts, and times and lengths for people.

use jiff::Timestamp;
use runbook_engine::duration::Duration;
use serde_json::Value;

/// How many outputs of one step are shown.
const MOST: usize = 40;

/// The longest text that is shown, in characters.
pub(super) const TEXT: usize = 200;

/// A text cut at `most` characters, on one line.
pub(super) fn short(text: &str, most: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Any value as one short line.
pub(super) fn line(value: &Value) -> String {
    match value {
        Value::String(text) => short(text, TEXT),
        other => short(&other.to_string(), TEXT),
    }
}

/// Numbers, truth values, short texts and artifacts of a step's outputs, by name; members of objects as `name.member`. Lists
/// come as their length, and what is absent is left out.
pub(super) fn outputs(value: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        collect(name, value, 2, &mut found);
    }
    found.truncate(MOST);
    found
}

fn collect(name: &str, value: &Value, depth: u32, found: &mut Vec<(String, Value)>) {
    let artifact = value.get("sha256").and_then(Value::as_str).zip(value.get("name").and_then(Value::as_str));
    match value {
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) => found.push((name.to_owned(), value.clone())),
        Value::String(text) => found.push((name.to_owned(), short(text, TEXT).into())),
        Value::Array(items) => found.push((name.to_owned(), format!("{} items", items.len()).into())),
        Value::Object(_) if artifact.is_some() => {
            let (sha256, file) = artifact.unwrap_or_default();
            let lines = value.get("lines").and_then(Value::as_u64);
            let lines = lines.map_or_else(String::new, |lines| format!(", {lines} lines"));
            found.push((name.to_owned(), format!("{file} (SHA-256 {sha256}{lines})").into()));
        }
        Value::Object(members) if depth > 0 => {
            for (member, value) in members {
                collect(&format!("{name}.{member}"), value, depth - 1, found);
            }
        }
        Value::Object(_) => {}
    }
}

/// A time to the second, UTC.
pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A length of time: milliseconds below ten seconds, whole seconds above.
pub(super) fn length(millis: u64) -> String {
    let millis = if millis < 10_000 { millis } else { millis / 1000 * 1000 };
    Duration::from_millis(millis).to_string()
}

/// How many milliseconds passed between two times; 0 when a clock went back.
pub(super) fn between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn outputs_are_flat_and_short() {
        let value = json!({
            "count": 3,
            "counts": { "metadata": 5, "deep": { "er": { "still": 1 } } },
            "manifest": { "sha256": "ab12", "name": "m.jsonl", "bytes": 9, "lines": 3 },
            "list": [1, 2],
            "none": null,
            "text": "x".repeat(500),
        });
        let found = outputs(&value);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["count", "counts.metadata", "manifest", "list", "text"]);
        assert_eq!(found[2].1, "m.jsonl (SHA-256 ab12, 3 lines)");
        assert_eq!(found[4].1.as_str().unwrap().chars().count(), TEXT + 1);
    }

    #[test]
    fn lengths_are_read_at_a_glance() {
        assert_eq!((length(350), length(61_234), length(0)), ("350ms".into(), "1m1s".into(), "0s".into()));
    }
}
