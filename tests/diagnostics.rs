//! What an author sees: `diagnostics/CODE.yaml` and what `runbook check` says of it, with line, caret and help. `UPDATE=1` writes the
//! second. A file that begins with `# exec` is given to that command instead, because its mistake shows only with inputs.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use runbook_engine::check::CODES;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics")
}

fn said(file: &str, text: &str) -> String {
    let state = tempfile::tempdir().unwrap();
    let exec = text.strip_prefix("# exec ").and_then(|rest| rest.lines().next());
    let mut command = Command::new(env!("CARGO_BIN_EXE_runbook"));
    match exec {
        Some(more) => command.args(["exec", file]).args(more.split(' ')),
        None => command.args(["check", file]),
    };
    let output = command
        .current_dir(folder())
        .env("RUNBOOK_STATE", format!("sqlite:{}", state.path().join("state.db").display()))
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_code_has_a_pair_that_shows_it() {
    let mut files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut wrong = Vec::new();
    for code in CODES {
        let file = format!("{code}.yaml");
        if !files.remove(&file) {
            wrong.push(format!("{code} has no pair"));
            continue;
        }
        let said = said(&file, &fs::read_to_string(folder().join(&file)).unwrap());
        let out = format!("{code}.out");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(folder().join(&out), &said).unwrap();
        }
        files.remove(&out);
        if !said.contains(&format!("[{code}]")) {
            wrong.push(format!("{file} does not show {code}:\n{said}"));
        }
        if fs::read_to_string(folder().join(&out)).unwrap_or_default() != said {
            wrong.push(format!("{out} is not fresh:\n{said}"));
        }
    }
    wrong.extend(files.into_iter().map(|file| format!("{file} belongs to no code")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
