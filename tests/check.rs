//! What an author sees: `check/err/NAME.yaml` and what `runbook check` says of it, with line, caret and help. `UPDATE=1` writes the
//! second. A file that begins with `# exec` is given to that command instead, because its mistake shows only with inputs.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use runbook_engine::check::CODES;
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/check/err")
}

fn runbook(arguments: &[&str], stdin: &[u8]) -> Output {
    let state = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_runbook"))
        .args(arguments)
        .current_dir(folder())
        .env("RUNBOOK_STATE", format!("sqlite:{}", state.path().join("state.db").display()))
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A process that reads nothing closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// The names of the pairs, without `.yaml`.
fn names() -> BTreeSet<String> {
    let files =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    files.filter_map(|file| file.strip_suffix(".yaml").map(str::to_owned)).collect()
}

#[test]
fn every_wrong_file_is_told_as_it_should_be() {
    let names = names();
    assert!(names.len() >= 60, "{} pairs", names.len());
    let (mut wrong, mut shown) = (Vec::new(), BTreeSet::new());
    for name in &names {
        let file = format!("{name}.yaml");
        let text = fs::read(folder().join(&file)).unwrap();
        let more = text.strip_prefix(b"# exec ").and_then(|rest| rest.split(|byte| *byte == b'\n').next());
        let arguments = match more.map(|more| std::str::from_utf8(more).unwrap()) {
            Some(more) => ["exec", &file].into_iter().chain(more.split(' ')).collect(),
            None => vec!["check", &file],
        };
        let output = runbook(&arguments, b"");
        let said = stderr(&output);
        let errors = !said.contains(": 0 errors");
        if output.status.code() != Some(if errors { 3 } else { 0 }) {
            wrong.push(format!("{file} made it exit {:?}", output.status.code()));
        }
        shown.extend(CODES.iter().filter(|code| said.contains(&format!("[{code}]"))).copied());
        let expected = folder().join(format!("{name}.out"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, said).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("{name}.out is not fresh:\n{said}"));
        }
        if name.starts_with("RB") && !said.contains(&format!("[{name}]")) {
            wrong.push(format!("{file} does not show {name}"));
        }
    }
    wrong
        .extend(CODES.iter().filter(|code| !shown.contains(*code)).map(|code| format!("{code} has no pair")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn one_look_tells_ten_mistakes() {
    let output = runbook(&["check", "ten_mistakes.yaml"], b"");
    let codes: BTreeSet<&str> = CODES.iter().copied().filter(|code| stderr(&output).contains(code)).collect();
    assert!(codes.len() >= 10, "{codes:?}");
}

#[test]
fn every_format_tells_the_same_mistakes() {
    let clean = "runbook: a\nsteps:\n  - { id: look, uses: command, with: { argv: [date] } }\n";
    let all = ["ten_mistakes.yaml", "-", "no such.yaml"];
    let look = |format: &'static str| {
        let arguments: Vec<&str> = ["check", "--format", format].into_iter().chain(all).collect();
        let output = runbook(&arguments, clean.as_bytes());
        assert_eq!(output.status.code(), Some(2), "a file is not there: {}", stderr(&output));
        output
    };
    let json: Value = serde_json::from_str(stdout(&look("json"))).unwrap();
    let found = json[0]["diagnostics"].as_array().unwrap();
    assert_eq!(
        (json[0]["file"].as_str(), json[1]["file"].as_str()),
        (Some("ten_mistakes.yaml"), Some("<stdin>"))
    );
    assert_eq!(json[1]["diagnostics"], Value::Array(Vec::new()));
    assert!(json[2]["error"].as_str().unwrap().contains("no such.yaml"));

    let sarif: Value = serde_json::from_str(stdout(&look("sarif"))).unwrap();
    let schema = fs::read_to_string(folder().join("../../sarif/sarif-schema-2.1.0.json")).unwrap();
    // A bracket in the pattern of a language is closed and never opened, which only the patterns of browsers let pass.
    let schema = schema.replace("{2}]?$", r"{2}\\]?$");
    let valid = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let against: Vec<String> = valid.iter_errors(&sarif).map(|error| error.to_string()).collect();
    assert!(against.is_empty(), "{against:#?}");
    let mut wrong = sarif.clone();
    wrong["runs"][0]["results"][0]["level"] = Value::from("fatal");
    assert!(!valid.is_valid(&wrong), "the schema is looked at");
    let run = &sarif["runs"][0];
    let (results, rules) = (run["results"].as_array().unwrap(), &run["tool"]["driver"]["rules"]);
    assert_eq!(results.len(), found.len());
    for (result, one) in results.iter().zip(found) {
        let at = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        let region = &result["locations"][0]["physicalLocation"]["region"];
        assert_eq!((&result["ruleId"], &rules[at]["id"]), (&one["code"], &one["code"]));
        assert_eq!((&region["startLine"], &region["startColumn"]), (&one["line"], &one["column"]));
        assert!(
            region["startLine"].as_u64() < region["endLine"].as_u64()
                || region["startColumn"].as_u64() <= region["endColumn"].as_u64()
        );
        assert!(matches!(result["level"].as_str(), Some("error" | "warning")));
    }
    let uri = &results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
    assert_eq!(uri, "ten_mistakes.yaml");
    assert_eq!(run["invocations"][0]["executionSuccessful"], false);

    let github = look("github");
    let lines: Vec<&str> = stdout(&github).lines().collect();
    assert_eq!(lines.len(), found.len() + 1, "and one for the file that is not there");
    for (line, one) in lines.iter().zip(found) {
        let begin =
            format!("::{} file=ten_mistakes.yaml,line={},", one["severity"].as_str().unwrap(), one["line"]);
        assert!(line.starts_with(&begin) && line.contains(one["code"].as_str().unwrap()), "{line}");
    }
    assert!(stderr(&github).is_empty(), "{}", stderr(&github));
}

#[test]
fn what_can_not_be_read_is_never_a_success() {
    let exit = |arguments: &[&str], stdin: &[u8]| runbook(arguments, stdin).status.code();
    let clean = b"runbook: a\nsteps:\n  - { id: look, uses: command, with: { argv: [date] } }\n";
    assert_eq!(exit(&["check", "-"], clean), Some(0));
    for stdin in [&b""[..], b"[", b"a: \xff", b"\xff\xfea\0", b"\0", b"---\n---\n", b"5", b"- a", b"null"] {
        for format in ["human", "json", "sarif", "github"] {
            assert_eq!(exit(&["check", "--format", format, "-"], stdin), Some(3), "{stdin:?} {format}");
        }
    }
    let large = [&b"runbook: a\ndescription: \""[..], &vec![b'x'; 5 << 20], b"\"\n"].concat();
    assert_eq!(exit(&["check", "-"], &large), Some(3));
    assert_eq!(exit(&["check", "no-such-file.yaml"], b""), Some(2));
    assert_eq!(exit(&["check", "."], b""), Some(2));
    assert_eq!(exit(&["check", "RB0301.yaml", "no-such-file.yaml"], b""), Some(2));
    assert_eq!(exit(&["check", "RB0301.yaml", "RB0504.yaml"], b""), Some(3));
    assert_eq!(exit(&["check", "RB0504.yaml"], b""), Some(0), "warnings stop nothing");
    assert_eq!(exit(&["check", "--json", "--format", "sarif", "-"], clean), Some(2));
}

#[test]
fn a_code_is_explained_however_it_is_written() {
    for code in CODES {
        let output = runbook(&["explain", code], b"");
        let begin = format!("# {code}: ");
        assert!(
            output.status.success() && stdout(&output).starts_with(&begin),
            "{code}: {}",
            stdout(&output)
        );
    }
    for written in ["rb0501", "501", "0501"] {
        assert!(stdout(&runbook(&["explain", written], b"")).starts_with("# RB0501: "), "{written}");
    }
    let list = runbook(&["explain"], b"");
    let codes = stdout(&list).lines().filter(|line| line.starts_with("RB")).count();
    assert_eq!(codes, CODES.len());
    assert!(stdout(&list).contains("RB0501       destroyed without a snapshot"), "{}", stdout(&list));
    let unknown = runbook(&["explain", "RB0591"], b"");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("did you mean `RB0511`?"), "{}", stderr(&unknown));
    let word = runbook(&["explain", "snapshot"], b"");
    assert!(stderr(&word).contains("`runbook explain` lists what there is"), "{}", stderr(&word));
}
