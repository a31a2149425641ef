//! The invariants of ARCHITECTURE.md that can be read off the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a source file without its tests. Near 400 is the aim; this is where it stops being near.
const FILE_LINES: usize = 500;
/// Lines of a function. Near 70 is the aim.
const FUNCTION_LINES: usize = 90;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder of the repository with this ending.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<(PathBuf, String)> {
    ["cli", "engine/src", "steps/src", "sandbox/src"]
        .iter()
        .flat_map(|folder| files(folder, ".rs"))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

/// The file without its unit tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

fn refuse(offences: Vec<String>) {
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn the_pure_part_of_the_engine_reaches_for_nothing() {
    let async_parts = [
        "engine/src/drive/",
        "engine/src/store/",
        "engine/src/artifact",
        "engine/src/step.rs",
        "engine/src/crash.rs",
    ];
    let forbidden = [
        "tokio",
        "std::fs",
        "std::env",
        "SystemTime",
        "Instant::now",
        "Timestamp::now",
        "println!",
        "eprint",
        "std::process",
        "crash::",
    ];
    let mut offences = Vec::new();
    for (path, text) in sources() {
        let name = name(&path);
        if !name.starts_with("engine/src/") || async_parts.iter().any(|part| name.starts_with(part)) {
            continue;
        }
        for (at, line) in product(&text).lines().enumerate() {
            if let Some(word) = forbidden.iter().find(|word| line.contains(**word))
                && !line.trim_start().starts_with("//")
            {
                offences.push(format!("{name}:{}: {word}", at + 1));
            }
        }
    }
    refuse(offences);
}

#[test]
fn the_engine_names_no_kind_outside_its_rules() {
    let mut offences = Vec::new();
    for (path, text) in sources() {
        let name = name(&path);
        if !name.starts_with("engine/src/") || name.starts_with("engine/src/check/") {
            continue;
        }
        for kind in runbook_steps::catalog::STEPS.iter().map(|entry| entry.info.name) {
            // A word such as `http` or `count` may mean something else; the hyphenated ones can not.
            let quoted = format!("\"{kind}\"");
            if kind.contains('-') && product(&text).contains(&quoted) {
                offences.push(format!("{name}: {quoted}"));
            }
        }
    }
    refuse(offences);
}

#[test]
fn imports_point_one_way() {
    let mut offences = Vec::new();
    for (path, text) in sources() {
        let name = name(&path);
        let banned: &[&str] = if name.starts_with("engine/") {
            &["runbook_steps", "runbook_sandbox"]
        } else if name.starts_with("steps/") || name.starts_with("cli/") {
            &["runbook_sandbox"]
        } else {
            &["runbook_engine", "runbook_steps"]
        };
        offences
            .extend(banned.iter().filter(|word| text.contains(**word)).map(|word| format!("{name}: {word}")));
    }
    refuse(offences);
}

#[test]
fn files_and_functions_stay_small() {
    let mut offences = Vec::new();
    for (path, text) in sources() {
        let name = name(&path);
        let lines: Vec<&str> = product(&text).lines().collect();
        if lines.len() > FILE_LINES {
            offences.push(format!("{name}: {} lines", lines.len()));
        }
        let mut open: Option<(usize, usize)> = None;
        for (at, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let starts = line.trim_start().split('(').next().is_some_and(|head| {
                head.split_whitespace().any(|word| word == "fn") && !head.starts_with("//")
            });
            if starts && open.is_none() {
                // One that ends on its line has no body, or one that is no matter.
                open = (!line.trim_end().ends_with([';', '}'])).then_some((at, indent));
            } else if let Some((start, depth)) = open
                && indent == depth
                && line.trim() == "}"
            {
                if at - start > FUNCTION_LINES {
                    offences.push(format!("{name}:{}: a function of {} lines", start + 1, at - start));
                }
                open = None;
            } else if open
                .is_some_and(|(start, depth)| at > start && indent <= depth && line.trim_end().ends_with(';'))
            {
                open = None;
            }
        }
    }
    refuse(offences);
}

#[test]
fn nothing_is_silenced_or_left_open() {
    let forbidden =
        ["#[allow(", "#![allow(", "serde(flatten", "serde(untagged", "todo!(", "unimplemented!(", "#[ignore"];
    let mut offences = Vec::new();
    let tests = ["tests", "engine/tests", "steps/tests", "sandbox/tests"];
    let tests =
        tests.iter().filter(|folder| root().join(folder).is_dir()).flat_map(|folder| files(folder, ".rs"));
    let others = tests.filter(|path| !path.ends_with("tidy.rs")).map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    });
    for (path, text) in sources().into_iter().chain(others) {
        for (at, line) in text.lines().enumerate() {
            if let Some(word) = forbidden.iter().find(|word| line.contains(**word)) {
                offences.push(format!("{}:{}: {word}", name(&path), at + 1));
            }
        }
    }
    refuse(offences);
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    let mut offences = Vec::new();
    let mut texts = sources();
    for folder in ["docs", "runbooks", "examples", "schemas"] {
        for path in files(folder, "") {
            if let Ok(text) = fs::read_to_string(&path) {
                texts.push((path, text));
            }
        }
    }
    for (path, text) in texts {
        for word in ["/root/", "/work/", "/home/"] {
            if text.contains(word) {
                offences.push(format!("{}: {word}", name(&path)));
            }
        }
    }
    refuse(offences);
}

#[test]
fn every_mutant_still_applies() {
    let mut offences = Vec::new();
    let patches = files("tests/mutants", ".patch");
    assert!(!patches.is_empty());
    for path in patches {
        let text = fs::read_to_string(&path).unwrap();
        if !text.lines().any(|line| line.starts_with("Caught-by: ")) {
            offences.push(format!("{}: its header does not say which test must catch it", name(&path)));
        }
        let git = std::process::Command::new("git")
            .args(["apply", "--check"])
            .arg(&path)
            .current_dir(root())
            .output();
        let git = git.unwrap();
        if !git.status.success() {
            offences.push(format!("{}: {}", name(&path), String::from_utf8_lossy(&git.stderr)));
        }
    }
    refuse(offences);
}
