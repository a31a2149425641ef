//! What a report says: its verdicts, its fields and its rows, whatever it was written by.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::words::{Says, is_flag, is_verdict, is_verdict_column, plain, says};

/// The fields that say when a report was written, by how they are written without case and what separates words.
const DATES: &[&str] = &[
    "date",
    "datetime",
    "time",
    "timestamp",
    "generated",
    "generatedat",
    "generatedon",
    "reportedat",
    "reportedon",
    "reportdate",
    "writtenat",
    "finishedat",
    "completedat",
    "endedat",
];

/// A report as it was read.
#[derive(Debug, Default, PartialEq)]
pub struct Reading {
    /// The values of the fields of its head, by how they are written without case and spaces; of JSON also by pointer.
    fields: BTreeMap<String, Vec<String>>,
    /// The fields that give a verdict, in order.
    heads: Vec<(String, String)>,
    /// What it says of its parts: rows of tables, and in JSON what is further down.
    pub rows: Vec<Row>,
    /// Whether what it says of its parts is a verdict of the whole, when it gives none.
    of_rows: bool,
}

/// A part of a report that says how it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it is about.
    pub about: String,
    /// How it is written.
    pub word: String,
    /// What that says.
    pub says: Says,
}

/// A table as it is read: what its columns are called, when it says so.
#[derive(Default)]
struct Table<'t> {
    header: Vec<String>,
    rows: Vec<Vec<&'t str>>,
}

/// A value without what Markdown puts around it.
fn bare(text: &str) -> &str {
    text.trim().trim_matches(['`', '*']).trim()
}

/// A text without its comments; one that does not end reaches to the end.
fn without_comments(text: &str) -> String {
    let (mut kept, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("<!--") {
        kept.push_str(before);
        rest = after.split_once("-->").map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    kept
}

impl Reading {
    /// Reads a report: JSON when it begins so, else Markdown.
    pub fn of(text: &str) -> Self {
        let mut reading = Self::default();
        if text.trim_start().starts_with('{')
            && let Ok(value) = serde_json::from_str::<Value>(text)
        {
            // A report of ours counts its steps itself, among them those that may fail.
            let ours = ["/runbook", "/run", "/definition", "/counts/steps"];
            let ours = ours.iter().all(|pointer| value.pointer(pointer).is_some());
            reading.json(&value, &mut String::new(), ours);
            return reading;
        }
        reading.of_rows = true;
        reading.markdown(&without_comments(text));
        reading
    }

    fn markdown(&mut self, text: &str) {
        let (mut fence, mut table) = (None, Table::default());
        for line in text.lines().map(str::trim) {
            let fences = ["```", "~~~"].into_iter().find(|fence| line.starts_with(fence));
            match (fence, fences) {
                (None, None) if line.starts_with('|') => {
                    self.line_of_table(line, &mut table);
                    continue;
                }
                (None, None) => self.field(line),
                (None, Some(_)) => fence = fences,
                (Some(open), Some(end)) if open == end => fence = None,
                // What a tool printed is no statement of the report.
                (Some(_), _) => {}
            }
            self.table(&std::mem::take(&mut table));
        }
        self.table(&table);
        if fence.is_some() {
            self.row("a block of code", "without an end", Says::Otherwise);
        }
    }

    fn json(&mut self, value: &Value, pointer: &mut String, ours: bool) {
        let mut below = |name: &str, value: &Value| {
            let length = pointer.len();
            pointer.push('/');
            pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
            self.json(value, pointer, ours);
            pointer.truncate(length);
        };
        match value {
            Value::Object(map) => map.iter().for_each(|(name, value)| below(name, value)),
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    // What has an id is known by it, wherever it stands in its list.
                    let id = item.get("id").and_then(Value::as_str);
                    below(&id.map_or_else(|| at.to_string(), str::to_owned), item);
                }
            }
            leaf => {
                let text = crate::text::of_value(leaf);
                let name = plain(pointer.rsplit('/').next().unwrap_or_default());
                let top = pointer.matches('/').count() == 1;
                if top {
                    self.fields.entry(name.clone()).or_default().push(text.clone());
                }
                if top && is_verdict(&name) {
                    self.heads.push((name, text.clone()));
                } else if !ours {
                    self.json_part(&name, pointer, leaf);
                }
                self.fields.insert(pointer.clone(), vec![text]);
            }
        }
    }

    fn json_part(&mut self, name: &str, pointer: &str, leaf: &Value) {
        match leaf {
            Value::Bool(yes) if is_flag(name) || is_verdict(name) => {
                let says = if *yes { Says::Pass } else { Says::Otherwise };
                self.row(pointer, &yes.to_string(), says);
            }
            Value::String(word) if is_verdict(name) => {
                self.row(pointer, word, says(word).unwrap_or(Says::Otherwise));
            }
            _ => {}
        }
    }

    fn row(&mut self, about: &str, word: &str, says: Says) {
        self.rows.push(Row { about: about.to_owned(), word: word.to_owned(), says });
    }

    fn field(&mut self, line: &str) {
        let line = line.trim_start_matches(['-', '*', '#', ' ']);
        let Some((name, value)) = line.split_once(':') else { return };
        let words = name.split_whitespace().count();
        // A sentence with a colon in it is none.
        if words > 0 && words <= 5 {
            self.named(name, bare(value));
        }
    }

    fn named(&mut self, name: &str, value: &str) {
        let name = plain(name);
        if name.is_empty() || value.is_empty() {
            return;
        }
        if is_verdict(&name) {
            self.heads.push((name.clone(), value.to_owned()));
        }
        self.fields.entry(name).or_default().push(value.to_owned());
    }

    fn line_of_table<'t>(&mut self, line: &'t str, table: &mut Table<'t>) {
        let line = line.strip_prefix('|').unwrap_or(line);
        let cells: Vec<&str> = line.strip_suffix('|').unwrap_or(line).split('|').map(bare).collect();
        let rules = cells.iter().all(|cell| !cell.is_empty() && cell.trim_matches([':', '-']).is_empty());
        if !rules {
            table.rows.push(cells);
        } else if table.header.is_empty()
            && let Some(header) = table.rows.pop()
        {
            table.header = header.into_iter().map(plain).collect();
        }
    }

    fn table(&mut self, table: &Table<'_>) {
        let column = |at: usize| table.header.get(at).is_some_and(|name| is_verdict_column(name));
        for cells in &table.rows {
            let about = cells.first().copied().unwrap_or_default();
            if let [name, value] = cells[..]
                && !column(1)
                && (is_verdict(&plain(name)) || says(value).is_none())
            {
                self.named(name, value);
                continue;
            }
            let mut found: Vec<(&str, Option<Says>)> = Vec::new();
            for (at, cell) in cells.iter().enumerate() {
                // What a row is about may be a word like these.
                let label = at == 0 && *cell != cell.to_uppercase();
                match says(cell).filter(|_| !label || column(at)) {
                    Some(says) => found.push((cell, Some(says))),
                    None if column(at) => found.push((cell, None)),
                    None => {}
                }
            }
            let known = found.iter().any(|(_, says)| says.is_some());
            // A number in such a column is one of HTTP, as long as something else says how it went.
            let number = |cell: &str| !cell.is_empty() && cell.chars().all(|c| c.is_ascii_digit());
            found.retain(|(cell, says)| says.is_some() || !(known && number(cell)));
            let rank = |says: Option<Says>| match says {
                Some(Says::Otherwise) | None => 0,
                Some(Says::Skipped) => 1,
                Some(Says::Pass) => 2,
            };
            if let Some((word, says)) = found.into_iter().min_by_key(|(_, says)| rank(*says)) {
                self.row(about, word, says.unwrap_or(Says::Otherwise));
            }
        }
    }

    /// A field, by its name or, of JSON, its pointer: the first of that name, because what follows may quote other reports.
    pub fn get(&self, name: &str) -> Option<&str> {
        let known = if name.starts_with('/') { self.fields.get(name) } else { self.fields.get(&plain(name)) };
        known?.first().map(String::as_str)
    }

    /// Its verdicts, each by the plain name of its field and in its own word; without one what its rows come to. None when it says nothing.
    pub fn verdicts(&self) -> Vec<(String, String)> {
        if !self.heads.is_empty() || !self.of_rows {
            return self.heads.clone();
        }
        let worst = self.rows.iter().find(|row| row.says == Says::Otherwise).map(|row| row.word.clone());
        let any = self.rows.iter().any(|row| row.says == Says::Pass);
        let word = worst.or_else(|| any.then(|| "PASS".to_owned()));
        word.into_iter().map(|word| ("its rows".to_owned(), word)).collect()
    }

    /// The modes that it says it was written in.
    pub fn modes(&self) -> &[String] {
        let named = self.fields.get("mode").or_else(|| {
            let ending =
                self.fields.iter().find(|(name, _)| name.ends_with("mode") && !name.starts_with('/'));
            ending.map(|(_, modes)| modes)
        });
        named.map_or(&[], Vec::as_slice)
    }

    /// When it says that it was written, the earliest of what it says; what it says instead of a time.
    pub fn date(&self) -> Result<Option<Timestamp>, String> {
        let said = DATES.iter().filter_map(|name| self.fields.get(*name)).flatten();
        let dates = said.map(|text| moment(text).ok_or_else(|| text.clone()));
        let dates = dates.collect::<Result<Vec<_>, _>>()?;
        if !dates.is_empty() {
            return Ok(dates.into_iter().min());
        }
        // A date that is called otherwise is still no later than the file.
        let named = |name: &str| !name.contains('/') && (name.ends_with("at") || name.ends_with("date"));
        let other = self.fields.iter().filter(|(name, _)| named(name)).flat_map(|(_, values)| values);
        Ok(other.filter_map(|text| moment(text)).filter(|date| *date <= Timestamp::now()).max())
    }

    /// The parts that say this.
    pub fn rows_that_say(&self, says: Says) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.says == says)
    }
}

/// A moment with its zone, however it is written; none of a day or a time of nobody knows where.
fn moment(text: &str) -> Option<Timestamp> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match (digits, text.len(), text.parse::<i64>()) {
        (true, 9..=10, Ok(seconds)) => return Timestamp::from_second(seconds).ok(),
        (true, 13, Ok(millis)) => return Timestamp::from_millisecond(millis).ok(),
        _ => {}
    }
    let zulu = text.strip_suffix("UTC").or_else(|| text.strip_suffix("GMT"));
    let written = zulu.map_or_else(|| text.to_owned(), |rest| format!("{}Z", rest.trim_end()));
    let rfc_2822 = || jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
    written.parse().ok().or_else(rfc_2822)
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

    fn word(read: &Reading) -> Option<String> {
        read.verdicts().into_iter().next().map(|(_, word)| word)
    }

    fn about(read: &Reading, says: Says) -> Vec<&str> {
        read.rows_that_say(says).map(|row| row.about.as_str()).collect()
    }

    #[test]
    fn a_report_with_a_status_is_read() {
        let read = Reading::of(POLICY);
        assert_eq!(word(&read).as_deref(), Some("PASS"));
        assert_eq!(read.modes(), ["apply"]);
        assert_eq!(read.date(), Ok(Some("2026-02-25T08:09:10Z".parse().unwrap())));
        assert_eq!(read.get("bucket"), Some("gotong-royong-evidence-ci"));
        assert_eq!(read.get("Endpoint"), Some("http://127.0.0.1:9000"));
        assert_eq!(read.get("expire-days"), Some("45"));
        assert_eq!(read.get("Rules before"), Some("1"));
        assert_eq!(read.rows, []);
    }

    #[test]
    fn a_report_with_an_overall_result_is_read_with_its_rows() {
        let read = Reading::of(ROLLOUT);
        assert_eq!(word(&read).as_deref(), Some("FAIL"));
        assert_eq!(read.modes(), ["live"]);
        assert_eq!(about(&read, Says::Otherwise), ["lifecycle apply"]);
        assert_eq!(about(&read, Says::Skipped), ["lifecycle verify"]);
    }

    #[test]
    fn a_report_of_rows_alone_is_what_its_rows_come_to() {
        let of = |text: &str| word(&Reading::of(text));
        assert_eq!(of(SMOKE).as_deref(), Some("PASS"));
        assert_eq!(of(&SMOKE.replace("PASS | 307", "FAIL | 200")).as_deref(), Some("FAIL"));
        for text in [
            "# Nothing\nIt went well, as they say: PASS.\n",
            "```\nStatus: `PASS`\n```\n",
            "<!--\nStatus: PASS\n-->\n",
            "",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn a_report_in_json_is_read_by_name_and_by_pointer() {
        let read =
            Reading::of(r#"{ "verdict": "PASS", "inputs": { "environment": "staging", "days": 45 } }"#);
        assert_eq!(word(&read).as_deref(), Some("PASS"));
        assert_eq!(read.get("/inputs/environment"), Some("staging"));
        assert_eq!(read.get("/inputs/days"), Some("45"));
        assert_eq!(read.get("environment"), None);
    }

    #[test]
    fn every_row_that_does_not_pass_is_found() {
        for (row, word) in [
            ("| redirect | FAILED | 200 |", "FAILED"),
            ("| redirect | Fail | 200 |", "Fail"),
            ("| redirect | ❌ FAIL | 200 |", "❌ FAIL"),
            ("| redirect | FAIL (timeout) | |", "FAIL (timeout)"),
            ("| redirect | HOLD | 1s |", "HOLD"),
            ("| redirect | TIMEOUT | 1s |", "TIMEOUT"),
            ("| redirect | as ever | 1s |", "as ever"),
            ("| redirect |  | 1s |", ""),
            ("| redirect | PASS | FAIL |", "FAIL"),
        ] {
            let read = Reading::of(&format!("{SMOKE}{row}\n"));
            let found: Vec<_> = read.rows_that_say(Says::Otherwise).map(|row| row.word.as_str()).collect();
            assert_eq!(found, [word], "{row}");
        }
        let of = |text: &str| about(&Reading::of(text), Says::Otherwise).len();
        assert_eq!(of("| a | DRY_RUN | 1s |\n| b | NO_GO | 1s |\n"), 2);
        assert_eq!(of("| Step | Expected | Actual |\n|---|---|---|\n| upload | PASS | FAIL |\n"), 1);
        assert_eq!(of("```\nfine\n"), 1, "nobody knows what is behind an open block");
        // A column of errors, what a row is called, a number of HTTP and a note are no verdicts.
        let well = "| Check | Status | Result | Error | Notes |\n|---|---|---|---|---|\n\
                    | Error | 307 | PASS | none | ok |\n| hold | 200 | pass | - | see `a` |\n";
        assert_eq!((of(well), word(&Reading::of(well)).as_deref()), (0, Some("PASS")));
    }

    #[test]
    fn json_is_read_to_its_end() {
        let read = Reading::of(
            r#"{ "status": "PASS", "http": { "status": 200 }, "steps": [{ "status": "ok" }, { "status": "FAIL" }, { "passed": false }] }"#,
        );
        assert_eq!(about(&read, Says::Otherwise), ["/steps/1/status", "/steps/2/passed"]);
        let ours = r#"{ "verdict": "PASS", "runbook": "r", "run": "1", "definition": "d", "counts": { "steps": 1 },
                        "steps": [{ "status": "failed" }] }"#;
        assert_eq!(Reading::of(ours).rows, []);
        assert_eq!(word(&Reading::of(r#"{ "success": true }"#)), None);
    }

    #[test]
    fn dates_are_read_or_named() {
        let of = |line: &str| Reading::of(&format!("# R\n{line}\nStatus: PASS\n")).date();
        let then: Timestamp = "2020-01-02T03:04:05Z".parse().unwrap();
        for line in [
            "Date: 2020-01-02T03:04:05Z",
            "Generated at: 2020-01-02 03:04:05 UTC",
            "- Timestamp: 1577934245",
            "Date: Thu, 02 Jan 2020 03:04:05 +0000",
            "Uploaded at: 2020-01-02T03:04:05Z",
            "Date: 2026-01-01T00:00:00Z\nTimestamp: 2020-01-02T03:04:05Z",
        ] {
            assert_eq!(of(line), Ok(Some(then)), "{line}");
        }
        for line in ["Date: 2020-01-02", "Date: 2020-01-02 03:04:05", "Date: yesterday"] {
            assert!(of(line).is_err(), "{line}");
        }
        assert_eq!(of("Format: 2"), Ok(None));
        let json = Reading::of(r#"{ "status": "PASS", "generated_at": "2020-01-02T03:04:05Z" }"#);
        assert_eq!(json.date(), Ok(Some(then)));
    }
}
