//! Every runbook that is shipped passes its own check, and so does every step kind's example.

use std::fs;
use std::path::PathBuf;

use runbook_engine::compile::compile;
use runbook_steps::catalog::CATALOG;

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    files.sort();
    files
}

/// The runbooks that the README shows, in full.
fn in_the_readme() -> Vec<String> {
    let readme = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let blocks = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    blocks.map(str::to_owned).collect()
}

#[test]
fn the_runbook_of_the_readme_is_clean_and_its_claim_is_true() {
    let shown = in_the_readme();
    let [text] = &shown[..] else { panic!("one runbook is shown: {shown:?}") };
    let (runbook, found) = compile(text, &CATALOG);
    assert!(runbook.is_some() && found.is_empty(), "{found:#?}");
    let unasked: Vec<&str> = text.lines().filter(|line| !line.contains("confirm-prompt")).collect();
    let (runbook, found) = compile(&unasked.join("\n"), &CATALOG);
    assert!(runbook.is_none(), "without its confirmation it is refused: {found:#?}");
}

#[test]
fn a_backup_of_the_same_database_saves_what_a_reset_destroys() {
    let text = |saved: &str, mode: &str| {
        format!(
            "runbook: reset\nconnections:\n  db: {{ type: postgres, host: localhost }}\n  other: {{ type: postgres, host: localhost }}\nsteps:\n  \
             - {{ id: save, uses: backup, with: {{ connection: {saved}, mode: {mode}, file: /backups/db.dump }} }}\n  \
             - {{ id: confirm, uses: confirm-prompt, with: {{ message: Wipe it?, phrases: [WIPE] }} }}\n  \
             - {{ id: wipe, uses: sql-reset, with: {{ connection: db, files: schema.sql }} }}\n"
        )
    };
    let codes = |text: &str| {
        let found = compile(text, &CATALOG).1;
        found.iter().map(|one| one.code.to_string()).filter(|code| code == "RB0501").collect::<Vec<_>>()
    };
    assert_eq!(codes(&text("db", "take")), Vec::<String>::new());
    assert_eq!(codes(&text("db", "check")), Vec::<String>::new());
    assert_eq!(codes(&text("other", "take")), ["RB0501"]);
}

#[test]
fn every_shipped_runbook_is_clean() {
    let all: Vec<PathBuf> = ["runbooks", "examples"].iter().flat_map(|folder| files(folder)).collect();
    assert!(!all.is_empty(), "{all:?}");
    for path in all {
        let text = fs::read_to_string(&path).unwrap();
        let (runbook, found) = compile(&text, &CATALOG);
        let lines: Vec<String> = found
            .iter()
            .map(|one| {
                let line = text[..one.span.start].lines().count();
                format!(
                    "{}:{line}: {}: {} ({})",
                    path.display(),
                    one.code,
                    one.message,
                    text[one.span.clone()].chars().take(60).collect::<String>()
                )
            })
            .collect();
        assert!(runbook.is_some() && found.is_empty(), "\n{}", lines.join("\n"));
    }
}
