//! The public YAML test suite: every document is accepted or refused with a position, and none with another meaning than the suite's.

use std::collections::BTreeMap;

use runbook_engine::check::codes;
use runbook_engine::compile::compile;
use runbook_engine::diagnostic::{Diagnostic, Severity};
use runbook_engine::document;
use runbook_engine::kinds::Catalog;
use serde::Deserialize;
use serde_json::Value;

/// A document of the suite.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The suite's name for it; with a number where one name stands for several.
    id: String,
    name: String,
    yaml: String,
    /// Whether it is no YAML.
    #[serde(default)]
    fail: bool,
    /// What it means: one JSON value a document.
    json: Option<String>,
}

const NO_KINDS: Catalog = Catalog { steps: &[], connections: &[], collections: &[] };

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("yaml-suite/cases.json")).unwrap()
}

/// The value, or the mistakes because of which there is none.
fn read(text: &str) -> Result<Value, Vec<Diagnostic>> {
    let (root, problems) = document::parse(text);
    let refused = problems.iter().any(|problem| problem.severity == Severity::Error);
    match root.filter(|_| !refused) {
        Some(root) => Ok(root.to_json()),
        None => Err(problems),
    }
}

/// Why each document that is YAML is refused all the same, by code.
fn refusals() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for case in cases().into_iter().filter(|case| !case.fail) {
        if let Err(problems) = read(&case.yaml) {
            let first = problems.iter().find(|problem| problem.severity == Severity::Error).unwrap();
            found.entry(first.code.to_owned()).or_default().push(case.id);
        }
    }
    found
}

#[test]
fn every_document_is_accepted_or_refused_with_a_position() {
    let all = cases();
    assert!(all.len() >= 402);
    for case in &all {
        let Err(problems) = read(&case.yaml) else { continue };
        let errors: Vec<&Diagnostic> =
            problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
        assert!(!errors.is_empty(), "{} {}: refused, and nothing is said", case.id, case.name);
        for problem in errors {
            assert!(case.yaml.get(problem.span.clone()).is_some(), "{} {}: {problem:?}", case.id, case.name);
            assert!(!problem.message.is_empty());
        }
    }
}

/// Accepted although it is no YAML by the letter, because it can be read in one way only: the lines of a flow list may stand at
/// their key's own indentation.
const LENIENT: [(&str, &str); 1] = [("9C9N", r#"{"flow":["a","b","c"]}"#)];

#[test]
fn no_document_that_is_no_yaml_is_accepted() {
    let wrong = cases().into_iter().filter(|case| case.fail);
    let accepted: Vec<(String, String)> =
        wrong.filter_map(|case| Some((case.id, read(&case.yaml).ok()?.to_string()))).collect();
    let known: Vec<(String, String)> =
        LENIENT.iter().map(|(id, value)| ((*id).to_owned(), (*value).to_owned())).collect();
    assert_eq!(accepted, known);
}

#[test]
fn what_is_accepted_means_what_the_suite_says() {
    let (mut same, mut other) = (0, Vec::new());
    for case in cases() {
        let (Some(json), Ok(value)) = (&case.json, read(&case.yaml)) else { continue };
        let wanted: Vec<Value> =
            serde_json::Deserializer::from_str(json).into_iter().collect::<Result<_, _>>().unwrap();
        if wanted == [value.clone()] {
            same += 1;
        } else {
            other.push(format!("{} {}:\n{}\nis {value}\nnot {wanted:?}", case.id, case.name, case.yaml));
        }
    }
    assert!(other.is_empty(), "{}", other.join("\n\n"));
    assert!(same > 150, "{same}");
}

#[test]
fn no_document_of_the_suite_is_a_runbook() {
    for case in cases() {
        let (runbook, found) = compile(&case.yaml, &NO_KINDS);
        assert!(runbook.is_none() && !found.is_empty(), "{} {}", case.id, case.name);
    }
}

#[test]
fn yaml_is_refused_for_what_a_runbook_can_not_have_and_for_nothing_else() {
    let found = refusals();
    let codes: Vec<&str> = found.keys().map(String::as_str).collect();
    let can_not_have = [codes::DUPLICATE_KEY, codes::DOCUMENTS, codes::TAG, codes::KEY];
    assert_eq!(codes, can_not_have, "{found:#?}");
}
