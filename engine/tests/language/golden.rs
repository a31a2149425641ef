//! Golden pairs: `golden/NAME.yaml` and what is found in it, as `line:column code message`. `UPDATE=1` writes the second.

use std::fs;
use std::path::PathBuf;

use runbook_engine::compile::compile;
use runbook_engine::diagnostic::{Diagnostic, Severity};

use crate::catalog::CATALOG;

fn shown(text: &str, problem: &Diagnostic) -> String {
    let before = &text[..problem.span.start];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let token = text[problem.span.clone()].lines().next().unwrap_or_default();
    let severity = if problem.severity == Severity::Error { "error" } else { "warning" };
    let mut shown = format!("{line}:{column} {severity}[{}] `{token}`: {}\n", problem.code, problem.message);
    for label in &problem.labels {
        let line = text[..label.span.start].matches('\n').count() + 1;
        shown += &format!("  {line}: {}\n", label.text);
    }
    if let Some(help) = &problem.help {
        shown += &format!("  help: {help}\n");
    }
    shown
}

#[test]
fn what_is_found_and_where() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut texts: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .collect();
    texts.sort();
    assert!(texts.len() >= 8, "{texts:?}");
    let mut stale = Vec::new();
    for path in texts {
        let text = fs::read_to_string(&path).unwrap();
        let (runbook, problems) = compile(&text, &CATALOG);
        let errors = problems.iter().any(|problem| problem.severity == Severity::Error);
        assert_eq!(runbook.is_none(), errors, "{}", path.display());
        let found: String = problems.iter().map(|problem| shown(&text, problem)).collect();
        let out = path.with_extension("out");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&out, &found).unwrap();
        }
        if fs::read_to_string(&out).unwrap_or_default() != found {
            stale.push(format!("{}:\n{found}", out.display()));
        }
    }
    assert!(stale.is_empty(), "{}", stale.join("\n"));
}
