//! The reference is what the program says of itself. `UPDATE=1 cargo test --test reference` writes it.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn says(arguments: &[&str]) -> String {
    let state = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_runbook"))
        .args(arguments)
        .env("RUNBOOK_STATE", format!("sqlite:{}", state.path().join("state.db").display()))
        .env("NO_COLOR", "1")
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn fresh(file: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/reference").join(file);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, text).unwrap();
    }
    let on_disk = fs::read_to_string(&path).unwrap_or_default();
    assert!(on_disk == text, "{} is not fresh: UPDATE=1 cargo test --test reference", path.display());
}

#[test]
fn the_reference_of_steps_is_fresh() {
    let mut page =
        String::from("# Step kinds\n\nMade from the program: `runbook steps KIND` prints each part.\n");
    for entry in runbook_steps::catalog::STEPS {
        let name = entry.info.name;
        write!(page, "\n## {name}\n\n```text\n{}\n```\n", says(&["steps", name])).unwrap();
    }
    fresh("steps.md", &page);
}

#[test]
fn the_reference_of_the_language_is_fresh() {
    let mut page =
        String::from("# The language\n\nMade from the program: `runbook explain TOPIC` prints each part.\n");
    let listed = says(&["explain"]);
    let topics = listed.lines().filter_map(|line| line.split_whitespace().next());
    let topics: Vec<&str> = topics.filter(|name| !name.starts_with("RB")).collect();
    assert!(topics.len() >= 7, "{topics:?}");
    for name in topics {
        write!(page, "\n## {name}\n\n```text\n{}\n```\n", says(&["explain", name])).unwrap();
    }
    fresh("language.md", &page);
}

#[test]
fn the_reference_of_commands_is_fresh() {
    let whole = says(&["--help"]);
    let mut page = format!("# Commands\n\nMade from the program's own help.\n\n```text\n{whole}\n```\n");
    let listed = whole.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let names: Vec<&str> = listed
        .take_while(|line| !line.trim().is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        write!(page, "\n## runbook {name}\n\n```text\n{}\n```\n", says(&[name, "--help"])).unwrap();
    }
    fresh("commands.md", &page);
}
