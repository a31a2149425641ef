//! What a run prints and leaves.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::place::{Place, asks, reads};

#[test]
fn a_run_tells_what_it_did_in_lines_that_can_be_searched() {
    let place = Place::new();
    place.runbook("small", &format!("steps:\n{}{}", reads("one", "echo hi"), reads("two", "true")));
    let ran = place.expect(0, &["exec", "small.yaml"]);
    assert_eq!(ran.out, "");
    assert!(ran.err.contains(" step-started one attempt 1\n"), "{}", ran.err);
    assert!(ran.err.contains(" log one hi\n"), "{}", ran.err);
    assert!(ran.err.contains(" run-ended - succeeded\n"), "{}", ran.err);
    assert!(ran.err.contains("Succeeded after") && !ran.err.contains('\x1b'), "{}", ran.err);
    let log = place.expect(0, &["logs"]);
    assert!(log.out.lines().next().unwrap().contains(" run-created - by tester@"), "{}", log.out);
    assert!(log.out.contains(" log one hi\n") && log.out.contains(" run-ended - succeeded"), "{}", log.out);
    let only = place.expect(0, &["logs", "--step", "two"]).out;
    assert!(only.contains("step-started two") && !only.contains("one"), "{only}");
}

#[test]
fn json_prints_every_event_once_in_order() {
    let place = Place::new();
    place.runbook("small", &format!("steps:\n{}", reads("one", "true")));
    let ran = place.expect(0, &["exec", "small.yaml", "--json"]);
    let events: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    assert_eq!(events[0]["what"]["type"], "run-created");
    assert_eq!(events.last().unwrap()["what"]["type"], "run-ended");
    assert!(events.iter().all(|event| event["run"] == events[0]["run"]));
    let logged = place.expect(0, &["logs", "--json"]).out;
    assert!(logged.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}

#[test]
fn a_failure_tells_what_failed_what_was_done_what_was_not_and_what_to_type() {
    let place = Place::new();
    let fails = reads("boom", "test -e fixed || { echo no luck >&2; exit 3; }");
    place.runbook("fails", &format!("steps:\n{}{fails}{}", reads("before", "true"), reads("after", "true")));
    let ran = place.expect(4, &["exec", "fails.yaml"]);
    let run = place.newest();
    for part in ["boom: ", "no luck", "Done      before", "Not done  after", &format!("runbook resume {run}")]
    {
        assert!(ran.err.contains(part), "{part}\n{}", ran.err);
    }
    assert_eq!(place.json(&["show"])["status"], "failed");
    place.write("fixed", "");
    place.expect(0, &["resume"]);
    assert_eq!(place.json(&["show"])["status"], "succeeded");
    let again = place.expect(2, &["resume", &run]);
    assert!(again.err.contains("has succeeded"), "{}", again.err);
}

#[test]
fn the_runs_own_copy_is_used_and_the_difference_is_shown() {
    let place = Place::new();
    place.runbook("copy", &format!("steps:\n{}{}", asks("sure", "GO"), reads("say", "echo original")));
    place.expect(5, &["exec", "copy.yaml"]);
    place.runbook("copy", &format!("steps:\n{}{}", asks("sure", "GO"), reads("say", "echo changed")));
    let ran = place.expect(5, &["resume"]);
    assert!(ran.err.contains("copy.yaml has changed since the run was created"), "{}", ran.err);
    assert!(ran.err.contains("echo changed"), "{}", ran.err);
    let ran = place.expect(0, &["answer", &place.newest(), "GO"]);
    assert!(ran.err.contains(" log say original"), "{}", ran.err);
}

#[test]
fn a_limit_has_its_own_exit_code() {
    let place = Place::new();
    place.runbook("slow", &format!("limits: {{ max_duration: 1s }}\nsteps:\n{}", reads("nap", "sleep 30")));
    place.expect(10, &["exec", "slow.yaml"]);
}

#[test]
fn secrets_are_read_where_the_runbook_says_and_are_written_nowhere() {
    let place = Place::new();
    let step = "  - id: use\n    uses: command\n    with:\n      argv: [sh, -c, 'echo key=$KEY; echo $UPPER; echo $KEY | base64']\n      env: { KEY: \"${{ secrets.key }}\", UPPER: \"${{ secrets.key | upper }}\" }\n      effect: { class: read, repeat: repeatable }\n      parse: lines\n";
    place.runbook(
        "secret",
        &format!(
            "secrets:\n  key: {{ env: TEST_KEY }}\n  other: {{ file: /nowhere/at/all }}\nsteps:\n{step}"
        ),
    );
    let ran = place.expect(2, &["exec", "secret.yaml"]);
    assert!(ran.err.contains("TEST_KEY is not set") && ran.err.contains("/nowhere/at/all"), "{}", ran.err);
    place.runbook("secret", &format!("secrets:\n  key: {{ env: TEST_KEY }}\nsteps:\n{step}"));
    let secret = "horse-battery-9f31";
    let output = place.command(&["exec", "secret.yaml", "--json"]).env("TEST_KEY", secret).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let said = [output.stdout, output.stderr].concat();
    let forms = [secret.as_bytes(), b"HORSE-BATTERY-9F31", b"aG9yc2UtYmF0dGVyeS05ZjMx".as_slice()];
    let holds = |bytes: &[u8]| forms.iter().any(|form| bytes.windows(form.len()).any(|part| part == *form));
    assert!(String::from_utf8_lossy(&said).contains("key=[REDACTED]"), "{}", String::from_utf8_lossy(&said));
    assert!(!holds(&said), "{}", String::from_utf8_lossy(&said));
    let files = place.state_files();
    assert!(files.iter().any(|file| file.ends_with("log.jsonl")));
    for file in files {
        assert!(!holds(&std::fs::read(&file).unwrap()), "{}", file.display());
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} {mode:o}", file.display());
    }
}

#[test]
fn commands_that_need_no_run_print_documents() {
    let place = Place::new();
    let kinds = place.json(&["steps"]);
    assert!(kinds.as_array().unwrap().iter().any(|kind| kind["name"] == "confirm-prompt"));
    assert!(place.json(&["steps", "confirm-prompt"])["with"]["properties"]["phrases"].is_object());
    assert!(place.expect(0, &["steps", "command"]).out.contains("argv"));
    place.expect(2, &["steps", "no-such-kind"]);
    assert!(place.json(&["schema"])["properties"]["steps"].is_object());
    assert!(place.expect(0, &["completions", "bash"]).out.contains("runbook"));
    assert_eq!(place.json(&["runs"]), serde_json::json!([]));
    assert!(place.expect(2, &["resume"]).err.contains("there is no unfinished run"));
    assert!(place.expect(2, &["show"]).err.contains("there is no run yet"));
}
