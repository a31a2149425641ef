//! Stopping, cancelling and two processes on one run.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::place::{Place, UNTIL_GO, asks, reads};

fn slow(script: &str) -> Place {
    let place = Place::new();
    place.runbook("slow", &format!("steps:\n{}{}", reads("nap", script), reads("after", "true")));
    place
}

#[test]
fn the_first_signal_stops_at_a_safe_place_and_the_run_can_be_resumed() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let place = slow("test -e short || exec sleep 20");
        let started = place.start(&["exec", "slow.yaml"]);
        place.wait_for("nap", "running");
        started.signal(signal);
        let ran = started.end();
        assert_eq!(ran.code, code, "{}", ran.err);
        assert!(ran.err.contains("press Ctrl-C again to stop now"), "{}", ran.err);
        assert!(ran.err.contains(&format!("runbook resume {}", place.newest())), "{}", ran.err);
        place.write("short", "");
        place.expect(0, &["resume"]);
    }
}

#[test]
fn the_second_signal_stops_at_once() {
    let place = slow("trap \"\" TERM; touch trapped; while :; do sleep 0.2; done");
    let started = place.start(&["exec", "slow.yaml"]);
    place.wait_for("nap", "running");
    while !place.path("trapped").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    started.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(700));
    let asked = Instant::now();
    started.signal(Signal::INT);
    let ran = started.end();
    assert_eq!(ran.code, 130, "{}", ran.err);
    assert!(ran.err.contains("stopping now"), "{}", ran.err);
    assert!(asked.elapsed() < Duration::from_secs(5));
    assert_eq!(place.json(&["runs"])[0]["status"], "interrupted");
}

#[test]
fn a_run_that_a_process_works_on_is_refused_and_can_be_cancelled_from_outside() {
    let place = slow("exec sleep 20");
    let started = place.start(&["exec", "slow.yaml"]);
    place.wait_for("nap", "running");
    let busy = place.expect(8, &["resume"]);
    assert!(busy.err.contains("is owned by tester@"), "{}", busy.err);
    let cancel = place.expect(6, &["cancel", "--json"]);
    assert!(cancel.out.contains("cancel-requested") && cancel.out.contains("run-ended"), "{}", cancel.out);
    let ran = started.end();
    assert_eq!(ran.code, 6, "{}", ran.err);
    assert_eq!(place.json(&["show"])["status"], "cancelled");
}

#[test]
fn a_run_whose_process_was_killed_is_taken_over_at_once() {
    let place = slow("test -e short || exec sleep 20");
    let started = place.start(&["exec", "slow.yaml"]);
    place.wait_for("nap", "running");
    started.kill();
    for command in ["runs", "show"] {
        let told = place.json(&[command]);
        let told = told.get(0).unwrap_or(&told);
        assert_eq!(
            (&told["status"], &told["owner"]),
            (&"interrupted".into(), &serde_json::Value::Null),
            "{command}"
        );
    }
    place.write("short", "");
    let asked = Instant::now();
    place.expect(0, &["resume"]);
    assert!(asked.elapsed() < Duration::from_secs(10), "it waited for the lease");
}

#[test]
fn an_answer_from_another_process_is_taken_up_by_the_one_that_works_on_the_run() {
    let place = Place::new();
    let rest = format!(
        "steps:\n{}{}  - id: last\n    uses: assert\n    needs: [sure, nap]\n    with: {{ that: true }}\n",
        asks("sure", "GO").replace("    with", "    needs: []\n    with"),
        reads("nap", UNTIL_GO).replace("    uses", "    needs: []\n    uses")
    );
    place.runbook("both", &rest);
    let started = place.start(&["exec", "both.yaml"]);
    place.wait_for("sure", "asking");
    let ran = place.expect(0, &["answer", &place.newest(), "GO"]);
    assert!(ran.err.contains("goes on with the run"), "{}", ran.err);
    place.wait_for("sure", "succeeded");
    place.write("go", "");
    let ran = started.end();
    assert_eq!(ran.code, 0, "{}", ran.err);
}

#[test]
fn the_log_can_be_followed_until_the_run_ends() {
    let place = slow(&format!("{UNTIL_GO}; echo done"));
    let started = place.start(&["exec", "slow.yaml"]);
    place.wait_for("nap", "running");
    let follower = place.start(&["logs", "-f"]);
    std::thread::sleep(Duration::from_millis(400));
    place.write("go", "");
    assert_eq!(started.end().code, 0);
    let log = follower.end();
    assert_eq!(log.code, 0);
    assert!(
        log.out.contains(" log nap done") && log.out.trim_end().ends_with("run-ended - succeeded"),
        "{}",
        log.out
    );
}
