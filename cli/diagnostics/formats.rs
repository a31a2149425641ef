//! What was found in several runbooks, for programs: JSON, SARIF 2.1.0, and the annotations of a GitHub workflow.

use runbook_engine::check::{CODES, title};
use runbook_engine::diagnostic::{Diagnostic, Severity};
use serde_json::{Map, Value, json};

use super::lines::Lines;
use crate::exit::{Exit, Failure};
use crate::find::Source;

/// A runbook that was looked at, or why it could not be.
pub enum Looked {
    /// What was found in it.
    Read(Source, Vec<Diagnostic>),
    /// The name it was asked for, and why it could not be read.
    Unread(String, Failure),
}

impl Looked {
    /// The exit code that it asks for.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Read(_, found) if super::fatal(found) => Exit::Invalid,
            Self::Read(..) => Exit::Succeeded,
            Self::Unread(_, failure) => failure.exit,
        }
    }
}

/// The lines and columns of some bytes, from 1; columns count characters.
struct Region {
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
}

impl Region {
    fn of(lines: &Lines<'_>, span: &std::ops::Range<usize>) -> Self {
        let (line, column) = lines.position(span.start);
        let (end_line, end_column) = lines.position(span.end.max(span.start));
        Self { line, column, end_line, end_column }
    }
}

/// One list with an entry for each runbook.
pub fn json(all: &[Looked]) -> Value {
    all.iter()
        .map(|looked| match looked {
            Looked::Read(source, found) => {
                let lines = Lines::of(&source.text);
                let found: Vec<Value> = found.iter().map(|one| json_one(&lines, one)).collect();
                json!({ "file": source.name, "diagnostics": found })
            }
            Looked::Unread(name, failure) => {
                json!({ "file": name, "error": failure.message, "help": failure.help, "diagnostics": [] })
            }
        })
        .collect()
}

fn json_one(lines: &Lines<'_>, one: &Diagnostic) -> Value {
    let at = Region::of(lines, &one.span);
    let labels = one.labels.iter().map(|label| {
        let at = Region::of(lines, &label.span);
        json!({ "line": at.line, "column": at.column, "span": label.span, "text": label.text })
    });
    json!({
        "code": one.code,
        "severity": one.severity,
        "message": one.message,
        "line": at.line,
        "column": at.column,
        "end_line": at.end_line,
        "end_column": at.end_column,
        "span": one.span,
        "label": one.label,
        "labels": labels.collect::<Vec<_>>(),
        "help": one.help,
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// A log in the Static Analysis Results Interchange Format, version 2.1.0.
pub fn sarif(all: &[Looked]) -> Value {
    let rules: Vec<Value> = CODES
        .iter()
        .map(|code| {
            let help = format!("`runbook explain {code}` tells more.");
            json!({ "id": code, "shortDescription": { "text": title(code) }, "help": { "text": help } })
        })
        .collect();
    let (mut results, mut notifications) = (Vec::new(), Vec::new());
    for looked in all {
        match looked {
            Looked::Read(source, found) => {
                let lines = Lines::of(&source.text);
                results.extend(found.iter().map(|one| sarif_result(source, &lines, one)));
            }
            Looked::Unread(name, failure) => notifications.push(json!({
                "level": "error",
                "message": { "text": failure.message },
                "locations": [{ "physicalLocation": { "artifactLocation": { "uri": uri(name) } } }],
            })),
        }
    }
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "runbook", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "invocations": [{
                "executionSuccessful": notifications.is_empty(),
                "toolExecutionNotifications": notifications,
            }],
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn sarif_result(source: &Source, lines: &Lines<'_>, one: &Diagnostic) -> Value {
    let text = one.help.as_ref().map_or(one.message.clone(), |help| format!("{}\n{help}", one.message));
    let mut result = Map::from_iter([
        ("ruleId".to_owned(), json!(one.code)),
        ("level".to_owned(), json!(level(one.severity))),
        ("message".to_owned(), json!({ "text": text })),
        ("locations".to_owned(), json!([sarif_place(source, lines, &one.span, &one.label)])),
    ]);
    if let Some(at) = CODES.iter().position(|code| *code == one.code) {
        result.insert("ruleIndex".to_owned(), json!(at));
    }
    if !one.labels.is_empty() {
        let places = one.labels.iter().map(|label| sarif_place(source, lines, &label.span, &label.text));
        result.insert("relatedLocations".to_owned(), places.collect());
    }
    Value::Object(result)
}

fn sarif_place(source: &Source, lines: &Lines<'_>, span: &std::ops::Range<usize>, label: &str) -> Value {
    let at = Region::of(lines, span);
    let mut place = json!({ "physicalLocation": {
        "artifactLocation": { "uri": uri(&source.name) },
        "region": {
            "startLine": at.line,
            "startColumn": at.column,
            "endLine": at.end_line,
            "endColumn": at.end_column,
        },
    } });
    if !label.is_empty() {
        place["message"] = json!({ "text": label });
    }
    place
}

/// A path as a reference of a URI: what has a meaning there, or no place, is written as percent and two digits.
fn uri(path: &str) -> String {
    let mut uri = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

/// A line for each mistake, which a GitHub workflow shows beside the line of the file.
pub fn github(all: &[Looked]) -> String {
    let mut lines = Vec::new();
    for looked in all {
        match looked {
            Looked::Read(source, found) => {
                let of = Lines::of(&source.text);
                lines.extend(found.iter().map(|one| annotation(source, &of, one)));
            }
            Looked::Unread(name, failure) => {
                lines.push(format!("::error file={}::{}", property(name), message(&failure.message)));
            }
        }
    }
    lines.join("\n")
}

fn annotation(source: &Source, lines: &Lines<'_>, one: &Diagnostic) -> String {
    let at = Region::of(lines, &one.span);
    let text = one.help.as_ref().map_or(one.message.clone(), |help| format!("{}\n{help}", one.message));
    // Columns are for one line only.
    let columns = if at.line == at.end_line {
        format!(",col={},endColumn={}", at.column, at.end_column)
    } else {
        String::new()
    };
    format!(
        "::{} file={},line={},endLine={}{columns},title={}::{}",
        level(one.severity),
        property(&source.name),
        at.line,
        at.end_line,
        one.code,
        message(&text)
    )
}

fn message(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    message(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked() -> Looked {
        let text = "runbook: a\nsteps: é, 100%\n".to_owned();
        let at = text.find("100%").unwrap();
        let source = Source { path: "a".into(), name: "a, b.yaml".to_owned(), text, broken: None };
        let one = Diagnostic::error("RB0203", at..at + 4, "100% is wrong")
            .help("write 5")
            .also(0..7, "beside this");
        Looked::Read(source, vec![one])
    }

    #[test]
    fn an_annotation_is_one_line_that_means_what_it_says() {
        assert_eq!(
            github(&[looked()]),
            "::error file=a%2C b.yaml,line=2,endLine=2,col=11,endColumn=15,title=RB0203::100%25 is wrong%0Awrite 5"
        );
        let unread = Looked::Unread("x.yaml".to_owned(), Failure::usage("no\nfile"));
        assert_eq!(github(&[unread]), "::error file=x.yaml::no%0Afile");
    }

    #[test]
    fn a_file_that_was_not_read_is_no_success_in_any_format() {
        let all = [looked(), Looked::Unread("x y".to_owned(), Failure::usage("there is no file"))];
        let log = sarif(&all);
        let invocation = &log["runs"][0]["invocations"][0];
        assert_eq!(invocation["executionSuccessful"], false);
        assert_eq!(invocation["toolExecutionNotifications"][0]["message"]["text"], "there is no file");
        assert_eq!(json(&all)[1]["error"], "there is no file");
        assert_eq!(uri("a b/ü.yaml"), "a%20b/%C3%BC.yaml");
    }
}
