//! What a run holds: said by every command, and put back whatever happened to the process.

use crate::place::{Place, UNTIL_GO, finished, reads};

const ORIGINAL: &str = "# limits\nMAX_MB=25 \nOTHER=x\n";

fn place(max_hold: &str) -> Place {
    let place = Place::new();
    place.write("app.env", ORIGINAL);
    let nap = reads("nap", UNTIL_GO);
    let steps = format!(
        "  - id: freeze\n    uses: freeze\n    with:\n      env_file: {{ path: \"{}\", variable: MAX_MB, value: \"0\", restart: {{ argv: [touch, \"was restarted\"] }} }}\n      max_hold: {max_hold}\n{nap}  - id: thaw\n    uses: unfreeze\n    with: {{ freeze: freeze }}\n",
        place.path("app.env").display()
    );
    place.runbook("hold", &format!("steps:\n{steps}"));
    place
}

fn value(place: &Place) -> String {
    std::fs::read_to_string(place.path("app.env")).unwrap()
}

#[test]
fn every_command_says_what_is_held_and_cancel_puts_it_back_after_a_crash() {
    let place = place("1h");
    let started = place.start(&["exec", "hold.yaml"]);
    place.wait_for("nap", "running");
    started.kill();
    let run = place.newest();
    assert_ne!(value(&place), ORIGINAL);
    for args in [["runs"].as_slice(), &["steps"], &["check", "hold.yaml"], &["schema"], &["runs", "--json"]] {
        let ran = place.expect(0, args);
        assert!(ran.err.contains("HELD") && ran.err.contains(&run), "{args:?}\n{}", ran.err);
        assert!(ran.err.contains(&format!("runbook resume {run}")), "{args:?}\n{}", ran.err);
        assert!(!ran.out.contains("HELD"), "{args:?}");
    }
    let second = place.expect(8, &["exec", "hold.yaml"]);
    assert!(second.err.contains(&run), "{}", second.err);
    let ran = place.expect(6, &["cancel", &run]);
    assert!(ran.err.contains("back at its original value"), "{}", ran.err);
    assert_eq!(value(&place), ORIGINAL);
    assert!(!place.expect(0, &["runs"]).err.contains("HELD"));
}

#[test]
fn what_somebody_else_changed_is_left_alone_and_cancel_fails() {
    let place = place("1h");
    let started = place.start(&["exec", "hold.yaml"]);
    place.wait_for("nap", "running");
    started.kill();
    place.write("app.env", "MAX_MB=77\n");
    let ran = place.expect(4, &["cancel"]);
    assert!(ran.err.contains("NOT back at its original value"), "{}", ran.err);
    assert_eq!(value(&place), "MAX_MB=77\n");
    let show = place.expect(0, &["show"]).out;
    for (who, text) in [("cancel", &ran.err), ("show", &show)] {
        let row = text.lines().find(|line| line.starts_with("  NOT BACK")).unwrap_or_default();
        assert!(
            row.contains("somebody else to 77") && row.contains("original value was 25"),
            "{who}: {text}"
        );
        assert!(text.contains("then  touch 'was restarted'\n"), "{who}: {text}");
        assert!(!text.contains("Released"), "{who}: {text}");
    }
    let runs = place.expect(0, &["runs"]);
    assert!(runs.out.contains(" cancelled! ") && runs.err.contains("NOT back"), "{}{}", runs.err, runs.out);
    assert!(place.json(&["runs"])[0]["left"].as_str().unwrap().contains("somebody else to 77"));
}

#[test]
fn a_relative_release_is_never_looked_for_in_another_folder() {
    let place = Place::new();
    for folder in ["a", "b"] {
        std::fs::create_dir(place.path(folder)).unwrap();
    }
    place.write("value", "on\n");
    let value = place.path("value").display().to_string();
    place.write(
        "a/hold.yaml",
        &format!(
            "runbook: hold\ndescription: A test.\nsteps:\n  - id: freeze\n    uses: freeze\n    with:\n      command:\n        target: switch\n        read: [cat, {value}]\n        apply: [sh, -c, 'echo off > {value}']\n        release: [sh, ./release.sh]\n        value: \"off\"\n  - {{ id: fails, uses: command, with: {{ argv: [\"false\"] }} }}\n"
        )
    );
    let script = |by: &str| format!("echo {by} > {}; echo on > {value}\n", place.path("by").display());
    place.write("a/release.sh", &script("a"));
    place.write("b/release.sh", &script("b"));
    let within = |folder: &str, args: &[&str]| {
        finished(place.command(args).current_dir(place.path(folder)).output().unwrap())
    };
    let ran = within("a", &["exec", "hold.yaml"]);
    assert_eq!((ran.code, place.text("value").as_str()), (4, "off\n"), "{}", ran.err);
    std::fs::rename(place.path("a"), place.path("gone")).unwrap();
    let ran = within("b", &["cancel"]);
    assert_eq!((ran.code, place.text("value").as_str()), (4, "off\n"), "{}", ran.err);
    assert!(ran.err.contains("can not be entered") && ran.err.contains("HELD"), "{}", ran.err);
    assert_eq!(place.text("by"), "");
    std::fs::rename(place.path("gone"), place.path("a")).unwrap();
    let ran = within("b", &["cancel"]);
    assert_eq!((ran.code, place.text("value").as_str()), (6, "on\n"), "{}", ran.err);
    assert_eq!(place.text("by"), "a\n");
}

#[test]
fn a_run_that_left_nothing_behind_is_not_marked() {
    let place = place("1h");
    let started = place.start(&["exec", "hold.yaml"]);
    place.wait_for("nap", "running");
    started.kill();
    place.expect(6, &["cancel"]);
    assert!(place.expect(0, &["runs"]).out.contains(" cancelled  "));
    assert_eq!(place.json(&["runs"])[0]["left"], serde_json::Value::Null);
}

#[test]
fn reconcile_prints_one_document_whatever_there_is() {
    let place = place("2s");
    assert_eq!(place.json(&["reconcile"]), serde_json::json!([]));
    let started = place.start(&["exec", "hold.yaml"]);
    place.wait_for("nap", "running");
    started.kill();
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let run = place.newest();
    let told = place.json(&["reconcile"]);
    assert_eq!(told.as_array().unwrap().len(), 1, "{told}");
    assert_eq!((&told[0]["run"], &told[0]["outcome"]), (&run.into(), &"put-back".into()), "{told}");
    assert!(
        told[0]["label"].as_str().unwrap().contains("MAX_MB") && told[0]["obligation"].is_string(),
        "{told}"
    );
    assert_eq!(value(&place), ORIGINAL);
    assert_eq!(place.json(&["reconcile"]), serde_json::json!([]));
}

#[test]
fn a_cancel_that_fails_is_to_be_tried_again() {
    let place = place("1h");
    let asks = crate::place::asks("sure", "GO").replace("    with", "    needs: []\n    with");
    let steps = std::fs::read_to_string(place.path("hold.yaml")).unwrap();
    place.write(
        "hold.yaml",
        &steps
            .replace("  - id: thaw", &format!("{asks}  - id: thaw"))
            .replace("freeze: freeze }", "freeze: freeze }\n    needs: [nap, sure]"),
    );
    let started = place.start(&["exec", "hold.yaml"]);
    place.wait_for("nap", "running");
    place.wait_for("sure", "asking");
    started.kill();
    std::fs::rename(place.path("app.env"), place.path("away")).unwrap();
    let ran = place.expect(4, &["cancel"]);
    let run = place.newest();
    let next = ran.err.lines().find(|line| line.starts_with("  Next")).unwrap_or_default();
    assert!(next.contains(&format!("runbook cancel {run}")), "{}", ran.err);
    assert!(!ran.err.contains("sure GO") && !ran.err.contains("sure 'GO'"), "{}", ran.err);
    let refused = place.expect(2, &["answer", &run, "GO"]);
    assert!(refused.err.contains("is being cancelled"), "{}", refused.err);
    let shown = place.expect(0, &["show"]).out;
    assert!(!shown.contains("type `GO`") && shown.contains("no answer counts"), "{shown}");
    assert!(!place.expect(0, &["logs"]).out.contains(" answered "));
    std::fs::rename(place.path("away"), place.path("app.env")).unwrap();
    place.expect(6, &["cancel"]);
    assert_eq!(value(&place), ORIGINAL);
}

#[test]
fn what_is_overdue_is_put_back_by_reconcile() {
    let place = place("2s");
    let started = place.start(&["exec", "hold.yaml"]);
    place.wait_for("nap", "running");
    started.kill();
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let ran = place.expect(0, &["runs"]);
    assert!(ran.err.contains("OVERDUE") && ran.err.contains("runbook reconcile"), "{}", ran.err);
    assert_ne!(value(&place), ORIGINAL);
    place.expect(0, &["reconcile"]);
    assert_eq!(value(&place), ORIGINAL);
    assert!(place.expect(0, &["reconcile"]).err.contains("nothing is overdue"));
}

#[test]
fn what_nobody_is_known_to_have_put_back_is_an_alarm() {
    let place = place("1s");
    let started = place.start(&["exec", "hold.yaml"]);
    place.wait_for("nap", "running");
    started.kill();
    place.write("app.env", ORIGINAL);
    std::thread::sleep(std::time::Duration::from_millis(1200));
    let ran = place.run(&["reconcile", "--json"]);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(
        ran.out.contains("undone-by-others") && ran.err.contains("no run had put it back"),
        "{}{}",
        ran.out,
        ran.err
    );
    assert!(place.expect(0, &["reconcile"]).err.contains("nothing is overdue"), "it is told once");
}

#[test]
fn a_run_that_goes_on_lifts_what_it_held() {
    let place = place("1h");
    let started = place.start(&["exec", "hold.yaml"]);
    place.wait_for("nap", "running");
    started.kill();
    place.write("go", "");
    let ran = place.expect(0, &["resume"]);
    assert!(ran.err.contains("Released"), "{}", ran.err);
    assert_eq!(value(&place), ORIGINAL);
}

/// A freeze by an env file whose restart works as long as there is no file `broken`.
fn with_restart() -> Place {
    let place = Place::new();
    place.write("app.env", ORIGINAL);
    let steps = format!(
        "  - id: freeze\n    uses: freeze\n    with:\n      env_file:\n        path: \"{}\"\n        variable: MAX_MB\n        value: \"0\"\n        restart: {{ argv: [sh, -c, \"test ! -e broken\"] }}\n  - id: nap\n    uses: command\n    with: {{ argv: [\"false\"], effect: {{ class: read, repeat: repeatable }} }}\n  - id: thaw\n    uses: unfreeze\n    with: {{ freeze: freeze }}\n",
        place.path("app.env").display()
    );
    place.runbook("hold", &format!("steps:\n{steps}"));
    place
}

#[test]
fn a_restart_that_keeps_failing_is_settled_by_a_person_who_did_it_by_hand() {
    let place = with_restart();
    place.expect(4, &["exec", "hold.yaml"]);
    let run = place.newest();
    place.write("broken", "");
    let ran = place.expect(4, &["cancel"]);
    let advice = format!("runbook answer {run} freeze done");
    assert!(ran.err.contains(&advice) && ran.err.contains("HELD"), "{}", ran.err);
    let banner = place.expect(0, &["runs"]).err;
    for text in [&ran.err, &banner] {
        assert!(text.contains(&format!("runbook cancel {run}")) && !text.contains("resume"), "{text}");
    }
    // The value is back in the file and only the restart is missing: a second run may not begin.
    assert_eq!(value(&place), ORIGINAL);
    let wrong = place.expect(2, &["answer", &run]);
    assert!(wrong.err.contains("freeze done"), "{}", wrong.err);
    place.write("app.env", &ORIGINAL.replace("25", "0"));
    let refused = place.expect(2, &["answer", &run, "freeze", "done"]);
    assert!(refused.err.contains("still has the value of the run"), "{}", refused.err);
    // What can not be read may hold anything.
    place.write("app.env", "MAX_MB=0\nMAX_MB=0\n");
    let refused = place.expect(2, &["answer", &run, "freeze", "done"]);
    assert!(refused.err.contains("abandon"), "{}", refused.err);
    place.write("app.env", ORIGINAL);
    let ran = place.expect(6, &["answer", &run, "freeze", "done"]);
    assert!(ran.err.contains("by hand of tester"), "{}", ran.err);
    assert!(!place.expect(0, &["runs"]).err.contains("HELD"));
    place.expect(4, &["exec", "hold.yaml"]);
}

#[test]
fn what_can_not_be_put_back_may_be_given_up_and_the_run_says_so() {
    let place = with_restart();
    place.expect(4, &["exec", "hold.yaml"]);
    let run = place.newest();
    std::fs::remove_file(place.path("app.env")).unwrap();
    place.expect(4, &["cancel"]);
    place.expect(2, &["answer", &run, "freeze", "done"]);
    let ran = place.expect(4, &["answer", &run, "freeze", "abandon"]);
    assert!(ran.err.contains("NOT seen to be back"), "{}", ran.err);
    assert!(!place.expect(0, &["runs"]).err.contains("HELD"));
}

#[test]
fn a_run_goes_on_in_the_folder_it_was_started_in() {
    let place = with_restart();
    for folder in ["here", "there"] {
        std::fs::create_dir(place.path(folder)).unwrap();
    }
    let freeze = std::fs::read_to_string(place.path("hold.yaml")).unwrap();
    place.write("hold.yaml", &freeze.replace("test ! -e broken", "pwd >> restarts"));
    let ran = place.command(&["exec", "../hold.yaml"]).current_dir(place.path("here")).output().unwrap();
    assert_eq!(ran.status.code(), Some(4));
    let ran = place.command(&["cancel"]).current_dir(place.path("there")).output().unwrap();
    assert_eq!(ran.status.code(), Some(6), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(!place.path("there/restarts").exists());
    let restarts = std::fs::read_to_string(place.path("here/restarts")).unwrap();
    assert_eq!(restarts.lines().count(), 2, "{restarts}");
    assert_eq!(value(&place), ORIGINAL);
}

#[test]
fn a_change_that_may_have_been_made_is_followed_by_a_restart_whatever_the_value_is() {
    let place = with_restart();
    let freeze = std::fs::read_to_string(place.path("hold.yaml")).unwrap();
    // The restart takes effect, and fails.
    place.write("hold.yaml", &freeze.replace("test ! -e broken", "cp app.env inforce; test ! -e broken"));
    place.write("broken", "");
    place.expect(4, &["exec", "hold.yaml"]);
    std::fs::remove_file(place.path("broken")).unwrap();
    place.write("app.env", ORIGINAL);
    place.expect(6, &["cancel"]);
    assert_eq!(
        std::fs::read_to_string(place.path("inforce")).unwrap(),
        ORIGINAL,
        "it runs with the original"
    );
}

#[test]
fn a_release_that_was_begun_in_time_may_take_its_time() {
    let place = Place::new();
    place.write("value", "25");
    let value = place.path("value").display().to_string();
    let sh = |script: &str| format!("[sh, -c, \"{script}\"]");
    let freeze = format!(
        "  - id: freeze\n    uses: freeze\n    with:\n      command: {{ target: it, read: [cat, {value}], apply: {}, release: {}, value: \"0\" }}\n      max_hold: 2s\n",
        sh(&format!("printf 0 > {value}")),
        sh(&format!("sleep 3; printf 25 > {value}")),
    );
    let thaw = "  - { id: thaw, uses: unfreeze, with: { freeze: freeze } }\n";
    place.runbook(
        "slow",
        &format!("steps:\n{freeze}{}{thaw}{}", reads("work", "true"), reads("tell", "true")),
    );
    let ran = place.expect(0, &["exec", "slow.yaml"]);
    assert_eq!(place.text("value"), "25", "{}", ran.err);
}
