//! The resume table of ARCHITECTURE.md: one test a row, each named after it, with the real binary.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::place::{Place, asks, once, reads, wait_until};

fn of(steps: &[String]) -> Place {
    let place = Place::new();
    place.runbook("table", &format!("steps:\n{}", steps.concat()));
    place
}

/// A step that writes a line into `FILE` each time it runs.
fn counts(id: &str, file: &str) -> String {
    reads(id, &format!("echo x >> {file}"))
}

/// A step that fails until there is a file `fixed`.
fn fails(id: &str) -> String {
    reads(id, "echo x >> tries; test -e fixed")
}

/// The events of the only run, as they are stored.
fn events(place: &Place) -> Vec<Value> {
    let rows = place.query("select body from events order by seq");
    rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect()
}

/// When the events of this type, of this step, happened.
fn times(place: &Place, step: &str, kind: &str) -> Vec<Timestamp> {
    let of = |event: &&Value| event["what"]["type"] == kind && event["what"]["data"]["step"] == step;
    events(place).iter().filter(of).map(|event| event["at"].as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn succeeded_its_outputs_stand() {
    let first = reads("first", "echo x >> ran; echo drawn $$") + "      parse: lines\n";
    let uses = "  - id: uses\n    uses: command\n    with:\n      argv: [sh, -c, \"test -e fixed && echo $SEEN > seen\"]\n      env: { SEEN: \"${{ steps.first.outputs.lines[0] }}\" }\n      effect: { class: read, repeat: repeatable }\n";
    let place = of(&[first, uses.to_owned()]);
    place.expect(4, &["exec", "table.yaml"]);
    let drawn = events(&place)
        .iter()
        .find_map(|event| event["what"]["data"]["outputs"]["lines"][0].as_str().map(str::to_owned));
    place.write("fixed", "");
    place.expect(0, &["resume"]);
    assert_eq!(place.text("ran"), "x\n");
    assert_eq!(place.text("seen").trim(), drawn.unwrap());
}

#[test]
fn running_and_its_owner_lives_refused_with_who_and_until_when() {
    let place = of(&[reads("nap", "echo x >> naps; exec sleep 20")]);
    let started = place.start(&["exec", "table.yaml"]);
    place.wait_for("nap", "running");
    wait_until("it naps", || !place.text("naps").is_empty());
    let before = events(&place).len();
    let run = place.newest();
    let ran = place.expect(8, &["resume", &run]);
    let (_, said) = ran.err.split_once(&format!("run {run} is owned by tester@")).expect(&ran.err);
    let (owner, until) = said.lines().next().unwrap().split_once(" until ").unwrap();
    assert!(owner.ends_with(&format!(":{}", started.id())), "{owner}");
    let row = place.query("select lease_until from runs");
    let lease: Timestamp = row[0].parse().unwrap();
    let told: Timestamp = until.trim().replace(' ', "T").replace("TUTC", "Z").parse().expect(until);
    assert!((lease - told).abs().total(jiff::Unit::Second).unwrap() < 11.0, "{until} {lease}");
    assert_eq!((events(&place).len(), place.text("naps").as_str()), (before, "x\n"));
}

#[test]
fn running_its_owner_gone_repeatable_goes_on_from_its_ledger() {
    let place = Place::new();
    std::fs::create_dir(place.path("logs")).unwrap();
    let name = |number: usize| format!("logs/{number:04}.log");
    (0..300).for_each(|number| place.write(&name(number), "old"));
    place.runbook("table", &place.clean_up("limits: { max_items: 1000 }\n", 1, ""));
    place.expect(5, &["exec", "table.yaml"]);
    let run = place.newest();
    let started = place.start(&["answer", &run, "DELETE"]);
    wait_until("a third is deleted", || !place.path(&name(100)).exists());
    started.kill();
    let settled =
        place.query("select batch || outcome from batches where step = 'purge' and outcome is not null");
    assert!((90..300).contains(&settled.len()), "{}", settled.len());
    // Somebody puts a file of a settled batch there again: going on from the ledger does not come back to it.
    place.write(&name(0), "new");
    place.expect(0, &["resume", &run]);
    assert_eq!(std::fs::read_dir(place.path("logs")).unwrap().count(), 1);
    assert_eq!(place.text(&name(0)), "new");
    let after = place.query("select batch || outcome from batches where step = 'purge' order by batch");
    assert_eq!((after.len(), &after[..settled.len()]), (300, settled.as_slice()));
}

#[test]
fn running_its_owner_gone_once_a_person_is_asked() {
    let place = of(&[once("act", "echo x >> acted; sleep 20"), counts("after", "followed")]);
    let started = place.start(&["exec", "table.yaml"]);
    wait_until("it acts", || !place.text("acted").is_empty());
    started.kill();
    let ran = place.expect(5, &["resume"]);
    for answer in ["done", "retry", "abort"] {
        assert!(ran.err.contains(answer), "{answer}\n{}", ran.err);
    }
    assert_eq!((place.text("acted").as_str(), place.text("followed").as_str()), ("x\n", ""));
    let before = Timestamp::now();
    place.expect(0, &["answer", &place.newest(), "act", "done"]);
    assert_eq!((place.text("acted").as_str(), place.text("followed").as_str()), ("x\n", "x\n"));
    // Who said so, and when.
    let log = place.expect(0, &["logs", &place.newest(), "--json"]).out;
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let answered: Vec<Value> =
        lines.map(|line| line["what"].clone()).filter(|what| what["type"] == "answered").collect();
    let [answered] = answered.as_slice() else { panic!("{log}") };
    let answer = &answered["data"]["answer"];
    assert!(answer["by"].as_str().unwrap().starts_with("tester@"), "{answered}");
    let at: Timestamp = answer["at"].as_str().unwrap().parse().unwrap();
    assert!(answer["text"] == "done" && at >= before && at <= Timestamp::now(), "{answered}");
}

#[test]
fn a_person_who_says_abort_ends_the_run_and_it_is_not_done_again() {
    let place = of(&[once("act", "echo x >> acted; sleep 20"), counts("after", "followed")]);
    let started = place.start(&["exec", "table.yaml"]);
    wait_until("it acts", || !place.text("acted").is_empty());
    started.kill();
    place.expect(5, &["resume"]);
    let ran = place.expect(4, &["answer", &place.newest(), "act", "abort"]);
    assert!(ran.err.contains("a person said to stop here"), "{}", ran.err);
    assert_eq!((place.text("acted").as_str(), place.text("followed").as_str()), ("x\n", ""));
    // Only an explicit resume asks again.
    place.expect(5, &["resume"]);
    assert_eq!(place.text("acted"), "x\n");
}

#[test]
fn failed_with_an_unknown_outcome_once_a_person_is_asked() {
    let slow = once("act", "echo x >> acted; test -e fast || sleep 20") + "      timeout: 1s\n";
    let place = of(&[slow, counts("after", "followed")]);
    let ran = place.expect(5, &["exec", "table.yaml"]);
    assert!(ran.err.contains("it is not known whether `act` took effect"), "{}", ran.err);
    place.expect(5, &["resume"]);
    assert_eq!((place.text("acted").as_str(), place.text("followed").as_str()), ("x\n", ""));
    place.write("fast", "");
    place.expect(0, &["answer", &place.newest(), "act", "retry"]);
    assert_eq!((place.text("acted").as_str(), place.text("followed").as_str()), ("x\nx\n", "x\n"));
}

#[test]
fn failed_with_attempts_left_starts_at_the_time_of_failure_plus_backoff() {
    let retry = "    retry: { max_attempts: 3, delay: 4s, backoff: constant, jitter: 0, on: [refused] }\n";
    for killed in [false, true] {
        let place = of(&[fails("act") + retry]);
        let started = place.start(&["exec", "table.yaml"]);
        place.wait_for("act", "failed");
        if killed {
            started.kill();
            // Neither the kill nor the resume in the pause begins the wait anew, or cuts it short.
            std::thread::sleep(Duration::from_secs(2));
            place.write("fixed", "");
            place.expect(0, &["resume"]);
        } else {
            place.write("fixed", "");
            assert_eq!(started.end().code, 0);
        }
        let failed = times(&place, "act", "step-failed");
        let starts = times(&place, "act", "step-started");
        assert_eq!((failed.len(), starts.len()), (1, 2), "killed: {killed}");
        let waited = (starts[1] - failed[0]).total(jiff::Unit::Second).unwrap();
        assert!((4.0..5.5).contains(&waited), "killed: {killed}, it waited {waited}s");
    }
}

#[test]
fn failed_for_good_an_explicit_resume_reopens_it() {
    let place = of(&[counts("first", "firsts"), fails("act"), counts("after", "followed")]);
    place.expect(4, &["exec", "table.yaml"]);
    assert_eq!(place.text("tries"), "x\n");
    place.expect(4, &["resume"]);
    assert_eq!(place.text("tries"), "x\nx\n");
    place.write("fixed", "");
    place.expect(0, &["resume"]);
    assert_eq!((place.text("tries").as_str(), place.text("firsts").as_str()), ("x\nx\nx\n", "x\n"));
    assert_eq!(place.text("followed"), "x\n");
}

#[test]
fn skipped_because_of_a_failure_an_explicit_resume_reopens_it() {
    let last = "finally:\n".to_owned() + &counts("last", "lasts");
    let aside = counts("aside", "asides") + "    if: \"${{ false }}\"\n    needs: []\n";
    let place = of(&[fails("act"), counts("after", "followed"), counts("then", "thens"), aside, last]);
    place.expect(4, &["exec", "table.yaml"]);
    assert_eq!((place.text("followed").as_str(), place.text("lasts").as_str()), ("", "x\n"));
    place.write("fixed", "");
    place.expect(0, &["resume"]);
    for (file, times) in [("followed", 1), ("thens", 1), ("asides", 0), ("lasts", 2)] {
        assert_eq!(place.text(file), "x\n".repeat(times), "{file}");
    }
}

#[test]
fn asking_it_still_asks() {
    let place = of(&[asks("sure", "GO"), counts("after", "followed")]);
    place.expect(5, &["exec", "table.yaml"]);
    let asked = times(&place, "sure", "asked");
    let started = place.start(&["resume"]);
    assert_eq!(started.end().code, 5);
    let ran = place.expect(5, &["resume"]);
    assert!(ran.err.contains("runbook answer") && place.text("followed").is_empty(), "{}", ran.err);
    assert_eq!((asked.len(), times(&place, "sure", "asked")), (1, asked), "it is the same question");
}

#[test]
fn the_file_on_disk_differs_the_runs_copy_is_used_and_the_difference_is_shown() {
    let place = of(&[fails("act"), reads("say", "echo as reviewed > said")]);
    place.expect(4, &["exec", "table.yaml"]);
    place.write("fixed", "");
    place.runbook("table", &format!("steps:\n{}{}", fails("act"), reads("say", "echo as edited > said")));
    let ran = place.expect(0, &["resume"]);
    for part in [
        "table.yaml has changed since the run was created",
        "-       argv: [sh, -c, 'echo as reviewed",
        "+       argv: [sh, -c, 'echo as edited",
    ] {
        assert!(ran.err.contains(part), "{part}\n{}", ran.err);
    }
    assert_eq!(place.text("said"), "as reviewed\n");
}

#[test]
fn a_step_that_no_longer_decodes_refused_before_anything_is_done() {
    // A kind and a setting that this program does not know any more, and a plan of a later one.
    let changes = [
        ("\"uses\":\"command\"", "\"uses\":\"teleport\"", "there is no step kind `teleport`"),
        ("\"argv\":", "\"beam_to\":1,\"argv\":", "beam_to"),
        ("\"version\":1", "\"version\":2,\"warp\":9", "made by a later program"),
    ];
    for (from, to, told) in changes {
        let place = of(&[fails("act"), counts("after", "followed")]);
        place.expect(4, &["exec", "table.yaml"]);
        place.write("fixed", "");
        let plan = place.query("select plan from runs").remove(0);
        assert!(plan.contains(from), "{plan}");
        let plan = plan.replacen(from, to, 1).replace('\'', "''");
        place.query(&format!("update runs set plan = '{plan}', sum = null"));
        let record = |place: &Place| {
            let row =
                place.query("select epoch || ' ' || last_seq || status || coalesce(owner, '') from runs");
            (row, events(place), place.text(&format!("state/runs/{}/log.jsonl", place.newest())))
        };
        let before = record(&place);
        let ran = place.expect(3, &["resume"]);
        assert!(ran.err.contains(told), "{told}\n{}", ran.err);
        assert_eq!(record(&place), before, "{told}: nothing is recorded");
        assert_eq!((place.text("tries").as_str(), place.text("followed").as_str()), ("x\n", ""), "{told}");
    }
}
