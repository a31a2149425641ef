//! What a report says: its verdict, its fields and its rows, whatever it was written by.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

/// The fields that give a verdict, by how they are written without case and spaces.
const VERDICTS: [&str; 5] = ["status", "overallresult", "result", "verdict", "decision"];

/// The fields that say when a report was written.
const DATES: [&str; 5] = ["date", "generated", "generatedat", "reported_at", "timestamp"];

/// The words in a row of a table that say how that row went.
const ROW_WORDS: [&str; 8] = ["PASS", "FAIL", "ERROR", "SKIPPED", "HOLD", "NO_GO", "DRY_RUN", "GO"];

/// A report as it was read.
#[derive(Debug, Default, PartialEq)]
pub struct Reading {
    /// The fields of its head, by how they are written without case and spaces; of JSON also by pointer.
    fields: BTreeMap<String, String>,
    /// The rows of its tables that say how they went: what the row is about, and the word.
    pub rows: Vec<(String, String)>,
}

/// A field's name without case and what separates words.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, ' ' | '-' | '*' | '`')).flat_map(char::to_lowercase).collect()
}

/// A value without what Markdown puts around it.
fn bare(text: &str) -> &str {
    text.trim().trim_matches(['`', '*']).trim()
}

impl Reading {
    /// Reads a report: JSON when it begins so, else Markdown.
    pub fn of(text: &str) -> Self {
        if text.trim_start().starts_with('{')
            && let Ok(value) = serde_json::from_str::<Value>(text)
        {
            let mut reading = Self::default();
            reading.json(&value, &mut String::new());
            return reading;
        }
        let mut reading = Self::default();
        let mut code = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("```") {
                code = !code;
            } else if code {
                // What a tool printed is no statement of the report.
            } else if line.starts_with('|') {
                reading.row(line);
            } else {
                reading.field(line);
            }
        }
        reading
    }

    fn json(&mut self, value: &Value, pointer: &mut String) {
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    self.below(name, value, pointer);
                }
            }
            Value::Array(items) => {
                // What has an id is known by it, wherever it stands in its list.
                for item in items {
                    let Some(id) = item.get("id").and_then(Value::as_str) else { continue };
                    self.below(id, item, pointer);
                }
            }
            leaf => {
                let text = crate::text::of_value(leaf);
                if let Some(name) = pointer.strip_prefix('/').filter(|name| !name.contains('/')) {
                    self.fields.entry(plain(name)).or_insert_with(|| text.clone());
                }
                self.fields.insert(pointer.clone(), text);
            }
        }
    }

    fn below(&mut self, name: &str, value: &Value, pointer: &mut String) {
        let length = pointer.len();
        pointer.push('/');
        pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
        self.json(value, pointer);
        pointer.truncate(length);
    }

    fn field(&mut self, line: &str) {
        let line = line.trim_start_matches(['-', '*', '#', ' ']);
        let Some((name, value)) = line.split_once(':') else { return };
        let words = name.split_whitespace().count();
        // A sentence with a colon in it is none.
        if words == 0 || words > 5 {
            return;
        }
        let value = bare(value);
        if !value.is_empty() {
            // The head comes first; what follows may quote other reports.
            self.fields.entry(plain(name)).or_insert_with(|| value.to_owned());
        }
    }

    fn row(&mut self, line: &str) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(bare).collect();
        let word = cells.iter().skip(1).find(|cell| ROW_WORDS.contains(cell));
        if let (Some(about), Some(word)) = (cells.first(), word) {
            self.rows.push(((*about).to_owned(), (*word).to_owned()));
        } else if let [name, value] = cells[..]
            && !name.is_empty()
            && !value.trim_matches([':', '-']).is_empty()
        {
            self.fields.entry(plain(name)).or_insert_with(|| value.to_owned());
        }
    }

    /// A field, by its name or, of JSON, its pointer.
    pub fn get(&self, name: &str) -> Option<&str> {
        let known = if name.starts_with('/') { self.fields.get(name) } else { self.fields.get(&plain(name)) };
        known.map(String::as_str)
    }

    /// The verdict in its own word: of the head, or without one what all its rows come to. None when it says nothing.
    pub fn verdict(&self) -> Option<String> {
        if let Some(word) = VERDICTS.iter().find_map(|name| self.fields.get(*name)) {
            return Some(word.clone());
        }
        let worst = self.rows.iter().find(|(_, word)| !matches!(word.as_str(), "PASS" | "GO" | "SKIPPED"));
        let any = self.rows.iter().any(|(_, word)| word == "PASS" || word == "GO");
        worst.map(|(_, word)| word.clone()).or_else(|| any.then(|| "PASS".to_owned()))
    }

    /// The mode that it was written in.
    pub fn mode(&self) -> Option<&str> {
        let named = self.fields.get("mode").map(String::as_str);
        named.or_else(|| {
            let ending =
                self.fields.iter().find(|(name, _)| name.ends_with("mode") && !name.starts_with('/'));
            ending.map(|(_, mode)| mode.as_str())
        })
    }

    /// When it says that it was written.
    pub fn date(&self) -> Option<Timestamp> {
        DATES.iter().find_map(|name| self.fields.get(*name)?.parse().ok())
    }

    /// The rows of these words.
    pub fn rows_that_say<'a>(&'a self, words: &'a [&str]) -> impl Iterator<Item = &'a str> {
        let those = self.rows.iter().filter(|(_, word)| words.contains(&word.as_str()));
        those.map(|(about, _)| about.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "\
# Chat Attachment Lifecycle Policy Report

Date: 2026-02-25T08:09:10Z
Mode: `apply`
Status: `PASS`

## Target

- Endpoint: `http://127.0.0.1:9000`
- Bucket: `gotong-royong-evidence-ci`
- Prefix: `chat-attachments/ci/`
- Expire days: `45`

| Metric | Value |
|---|---:|
| Rules before | 1 |
| Matching prefix+expiry rules after | 1 |
";

    const ROLLOUT: &str = "\
# Hot Path Rollout
- Date: 2026-02-25T08:09:10Z
- Overall result: `FAIL`
- Go/no-go mode: `live`

| Step | Result | Duration |
| --- | --- | --- |
| readiness | PASS | 12s |
| lifecycle apply | FAIL | 3s |
| lifecycle verify | SKIPPED | 0s |
";

    const SMOKE: &str = "\
# S3 smoke
| Check | Result | Notes |
|---|---|---|
| upload | PASS | 200 |
| redirect | PASS | 307 |
";

    #[test]
    fn a_report_with_a_status_is_read() {
        let read = Reading::of(POLICY);
        assert_eq!(read.verdict().as_deref(), Some("PASS"));
        assert_eq!(read.mode(), Some("apply"));
        assert_eq!(read.date(), Some("2026-02-25T08:09:10Z".parse().unwrap()));
        assert_eq!(read.get("bucket"), Some("gotong-royong-evidence-ci"));
        assert_eq!(read.get("Endpoint"), Some("http://127.0.0.1:9000"));
        assert_eq!(read.get("expire-days"), Some("45"));
        assert_eq!(read.get("Rules before"), Some("1"));
        assert_eq!(read.rows, []);
    }

    #[test]
    fn a_report_with_an_overall_result_is_read_with_its_rows() {
        let read = Reading::of(ROLLOUT);
        assert_eq!(read.verdict().as_deref(), Some("FAIL"));
        assert_eq!(read.mode(), Some("live"));
        assert_eq!(read.rows_that_say(&["FAIL"]).collect::<Vec<_>>(), ["lifecycle apply"]);
        assert_eq!(read.rows_that_say(&["SKIPPED"]).collect::<Vec<_>>(), ["lifecycle verify"]);
    }

    #[test]
    fn a_report_of_rows_alone_is_what_its_rows_come_to() {
        assert_eq!(Reading::of(SMOKE).verdict().as_deref(), Some("PASS"));
        assert_eq!(
            Reading::of(&SMOKE.replace("PASS | 307", "FAIL | 200")).verdict().as_deref(),
            Some("FAIL")
        );
        assert_eq!(Reading::of("# Nothing\nIt went well, as they say: PASS.\n").verdict(), None);
        assert_eq!(Reading::of("```\nStatus: `PASS`\n```\n").verdict(), None);
        assert_eq!(Reading::of("").verdict(), None);
    }

    #[test]
    fn a_report_in_json_is_read_by_name_and_by_pointer() {
        let read =
            Reading::of(r#"{ "verdict": "PASS", "inputs": { "environment": "staging", "days": 45 } }"#);
        assert_eq!(read.verdict().as_deref(), Some("PASS"));
        assert_eq!(read.get("/inputs/environment"), Some("staging"));
        assert_eq!(read.get("/inputs/days"), Some("45"));
        assert_eq!(read.get("environment"), None);
    }
}
