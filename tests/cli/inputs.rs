//! What is wrong before anything runs.

use crate::place::{Place, reads};

const INPUTS: &str = "inputs:
  environment: { type: string, enum: [staging, production], required: true }
  size: { type: integer, default: 5, minimum: 1, maximum: 10 }
  folder: { type: path, default: here }
";

fn place() -> Place {
    let place = Place::new();
    let step = "  - id: say\n    uses: command\n    with:\n      argv: [echo, \"${{ inputs.environment }} ${{ inputs.size }} ${{ inputs.folder }}\"]\n      effect: { class: read, repeat: repeatable }\n";
    place.runbook("given", &format!("{INPUTS}steps:\n{step}"));
    place
}

#[test]
fn every_mistake_in_the_inputs_is_told_at_once() {
    let place = place();
    let ran = place.expect(2, &["exec", "given.yaml", "-i", "size=70", "-i", "sise=3"]);
    for part in ["`environment`", "`size`", "`sise`"] {
        assert!(ran.err.contains(part), "{part}\n{}", ran.err);
    }
    assert!(ran.err.contains("did you mean `size`"), "{}", ran.err);
    place.expect(2, &["exec", "given.yaml", "-i", "environment"]);
    place.expect(2, &["exec", "given.yaml", "-i", "environment=staging", "-i", "environment=production"]);
    assert_eq!(place.json(&["runs"]), serde_json::json!([]));
}

#[test]
fn the_command_line_wins_over_the_inputs_file_and_paths_are_absolute() {
    let place = place();
    place.write("in.yaml", "environment: staging\nsize: 7\n");
    let ran = place.expect(0, &["exec", "given.yaml", "--inputs", "in.yaml", "-i", "environment=production"]);
    let here = std::fs::canonicalize(place.path("")).unwrap().join("here");
    let said = format!("production 7 {}", here.display());
    assert!(ran.err.contains(&said), "{said}\n{}", ran.err);
    let output = place.command(&["exec", "given.yaml"]).env("RUNBOOK_INPUTS", "in.yaml").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let none = ["exec", "given.yaml", "-i", "environment=staging"];
    assert_eq!(place.command(&none).env("RUNBOOK_INPUTS", "").output().unwrap().status.code(), Some(0));
    place.write("in.yaml", "environment: staging\nof_another_runbook: 7\n");
    let output = place.command(&["exec", "given.yaml"]).env("RUNBOOK_INPUTS", "in.yaml").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "a file of the environment may be for others too");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no input for: `of_another_runbook`"));
    place.expect(2, &["exec", "given.yaml", "--inputs", "in.yaml"]);
    let missing = place.expect(2, &["exec", "given.yaml", "--inputs", "no.yaml"]);
    assert!(missing.err.contains("no.yaml"), "{}", missing.err);
}

#[test]
fn an_invalid_runbook_is_shown_with_the_place_of_every_mistake() {
    let place = Place::new();
    place.runbook("bad", "steps:\n  - id: one\n    uses: comand\n    with: {}\n  - id: two\n    uses: assert\n    needs: [onee]\n    with: { that: true }\n");
    let ran = place.expect(3, &["exec", "bad.yaml"]);
    assert!(ran.err.contains("bad.yaml:5:") && ran.err.contains("bad.yaml:9:"), "{}", ran.err);
    assert!(
        ran.err.contains("did you mean `command`") && ran.err.contains("did you mean `one`"),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains("error[RB") && ran.err.contains('^') && !ran.err.contains('\x1b'),
        "{}",
        ran.err
    );
    assert_eq!(place.json(&["runs"]), serde_json::json!([]));
    place.expect(3, &["check", "bad.yaml"]);
    let ran = place.run(&["check", "bad.yaml", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(found[0]["diagnostics"][0]["line"], 5);
}

#[test]
fn a_runbook_is_found_by_its_name_in_a_folder_above() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("runbooks")).unwrap();
    std::fs::create_dir_all(place.path("a/b")).unwrap();
    place.runbook("runbooks/named", "");
    place.write("runbooks/named.yaml", &format!("runbook: named\nsteps:\n{}", reads("one", "true")));
    for name in ["named", "named.yaml"] {
        let output = place.command(&["exec", name]).current_dir(place.path("a/b")).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let ran = place.expect(2, &["exec", "nobody"]);
    assert!(ran.err.contains("known here: named"), "{}", ran.err);
    assert_eq!(place.run(&["exec"]).code, 2);
    assert_eq!(place.run(&["--state", "mysql:x", "runs"]).code, 2);
}

#[test]
fn a_huge_input_does_not_flood_the_terminal() {
    let place = Place::new();
    let ask = "  - id: sure\n    uses: confirm-prompt\n    with: { message: \"Delete ${{ inputs.note }}?\", phrases: [DO IT] }\n";
    place.runbook("huge", &format!("inputs:\n  note: {{ type: string, required: true }}\nsteps:\n{ask}"));
    place.write("in.json", &format!("{{ \"note\": \"{}\" }}", "y".repeat(2_000_000)));
    let ran = place.expect(5, &["exec", "huge.yaml", "--inputs", "in.json"]);
    assert!(
        ran.err.len() < 20_000 && ran.err.contains("more characters) (type `DO IT`)"),
        "{} bytes",
        ran.err.len()
    );
    assert!(place.expect(0, &["show"]).out.len() < 20_000);
    assert!(place.expect(0, &["logs"]).out.len() < 20_000);
    assert!(place.json(&["show"])["inputs"]["note"].as_str().is_some_and(|note| note.len() == 2_000_000));
    place.expect(0, &["answer", &place.newest(), "DO IT"]);
}
