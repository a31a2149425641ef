//! Every error code has a page, its examples are true, and the list of pages is whole.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use runbook_engine::check::{CODES, title};
use runbook_engine::compile::compile;
use runbook_engine::diagnostic::Diagnostic;
use runbook_engine::inputs::resolve_inputs;

use runbook_steps::catalog::CATALOG;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/errors")
}

/// What a text leads to, when it is checked and then planned.
fn found(text: &str) -> Vec<Diagnostic> {
    let (runbook, mut problems) = compile(text, &CATALOG);
    if let Some(runbook) = runbook {
        let inputs = resolve_inputs(&runbook, &[]).unwrap();
        problems.extend(runbook.plan(inputs, &CATALOG).err().unwrap_or_default());
    }
    for problem in &problems {
        assert!(text.get(problem.span.clone()).is_some(), "{problem:?}");
    }
    problems
}

#[test]
fn pages_are_codes_and_codes_are_pages() {
    let pages: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| {
            entry.unwrap().file_name().into_string().ok()?.strip_suffix(".md").map(str::to_owned)
        })
        .filter(|name| name.starts_with("RB"))
        .collect();
    assert_eq!(pages, CODES.iter().map(|code| (*code).to_owned()).collect());
    assert_eq!(CODES.len(), pages.len(), "no code is there twice");
}

#[test]
fn the_wrong_example_is_wrong_and_the_right_one_right() {
    let mut untrue = Vec::new();
    for code in CODES {
        let page = fs::read_to_string(folder().join(format!("{code}.md"))).unwrap();
        let examples: Vec<&str> =
            page.split("```yaml\n").skip(1).map(|part| part.split("```").next().unwrap()).collect();
        let [wrong, right] = examples.as_slice() else { panic!("{code} has no two examples") };
        let (of_wrong, of_right) = (found(wrong), found(right));
        if of_wrong.is_empty() || of_wrong.iter().any(|problem| problem.code != *code) {
            untrue.push(format!("{code} wrong: {of_wrong:?}"));
        }
        if !of_right.is_empty() {
            untrue.push(format!("{code} right: {of_right:?}"));
        }
    }
    assert!(untrue.is_empty(), "{untrue:#?}");
}

#[test]
fn the_list_of_pages_is_whole() {
    let list = fs::read_to_string(folder().join("README.md")).unwrap();
    let lines: Vec<&str> = list.lines().filter(|line| line.starts_with("| [RB")).collect();
    let wanted: Vec<String> =
        CODES.iter().map(|code| format!("| [{code}]({code}.md) | {} |", title(code))).collect();
    assert_eq!(lines, wanted);
}
