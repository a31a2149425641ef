//! Commands from several terminals at the same moment: one wins, the others say why, and nothing happens twice.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::place::{Place, Ran, UNTIL_GO, asks};

/// How often each race is run.
const ROUNDS: usize = 3;

fn lines(place: &Place, name: &str) -> usize {
    std::fs::read_to_string(place.path(name)).map_or(0, |text| text.lines().count())
}

/// Starts all of them at once, and waits for all.
fn together(place: &Place, commands: &[&[&str]]) -> Vec<Ran> {
    let started: Vec<_> = commands.iter().map(|args| place.start(args)).collect();
    started.into_iter().map(crate::place::Started::end).collect()
}

fn codes(all: &[Ran]) -> Vec<i32> {
    let mut codes: Vec<i32> = all.iter().map(|ran| ran.code).collect();
    codes.sort_unstable();
    codes
}

/// A step that leaves a line behind each time it runs, and then takes a moment.
fn leaves(id: &str, file: &str) -> String {
    takes(id, file, "sleep 0.3")
}

fn takes(id: &str, file: &str, moment: &str) -> String {
    format!(
        "  - id: {id}\n    uses: command\n    with:\n      argv: [sh, -c, \"echo {id} >> {file}; {moment}\"]\n      effect: {{ class: write, repeat: repeatable }}\n"
    )
}

/// Two steps; the first goes on when there is a file `go`.
fn slow() -> Place {
    let place = Place::new();
    let first = takes("first", "acted", UNTIL_GO);
    place.runbook("slow", &format!("steps:\n{first}{}", leaves("second", "acted")));
    place
}

#[test]
fn of_many_resumes_one_goes_on() {
    for _ in 0..ROUNDS {
        let place = Place::new();
        place.runbook("two", &format!("steps:\n{}{}", asks("sure", "GO"), leaves("act", "acted")));
        let started = place.start(&["exec", "two.yaml"]);
        let ran = started.end();
        assert_eq!(ran.code, 5, "{}", ran.err);
        let run = place.newest();
        let all = together(&place, &[&["answer", &run, "GO"], &["answer", &run, "GO"], &["resume", &run]]);
        // Who answered is told that it went well, whoever took the answer up; the other answer is refused.
        let mut answers = [all[0].code, all[1].code];
        answers.sort_unstable();
        assert_eq!(answers, [0, 2], "{}\n{}", all[0].err, all[1].err);
        // The resume may find nothing to do, a process that works on it, or a run that is over.
        assert!(all.iter().all(|ran| [0, 2, 5, 8].contains(&ran.code)), "{:?}", codes(&all));
        place.wait_for("act", "succeeded");
        assert_eq!(lines(&place, "acted"), 1, "it acted once");
        let answers = place.json(&["show", &run]);
        assert_eq!(answers["status"], "succeeded");
    }
}

#[test]
fn of_a_killed_run_one_resume_takes_it_over() {
    for _ in 0..ROUNDS {
        let place = slow();
        let started = place.start(&["exec", "slow.yaml"]);
        place.wait_for("first", "running");
        started.kill();
        place.write("go", "");
        let run = place.newest();
        let all = together(&place, &[&["resume", &run], &["resume", &run], &["resume", &run]]);
        let done = all.iter().filter(|ran| ran.code == 0).count();
        assert_eq!(done, 1, "{:?}\n{}\n{}\n{}", codes(&all), all[0].err, all[1].err, all[2].err);
        // Busy, or over before it could be looked at.
        assert!(all.iter().all(|ran| [0, 2, 8].contains(&ran.code)), "{:?}", codes(&all));
        assert!(
            (2..=3).contains(&lines(&place, "acted")),
            "the step that was interrupted once more, at most"
        );
    }
}

#[test]
fn an_answer_and_a_cancel_at_the_same_moment_both_end_and_one_counts() {
    for round in 0..ROUNDS {
        let place = Place::new();
        place.runbook("ask", &format!("steps:\n{}{}", asks("sure", "GO"), leaves("act", "acted")));
        assert_eq!(place.run(&["exec", "ask.yaml"]).code, 5);
        let run = place.newest();
        let (answer, cancel) = (["answer", run.as_str(), "GO"], ["cancel", run.as_str()]);
        let pair: [&[&str]; 2] = if round % 2 == 0 { [&answer, &cancel] } else { [&cancel, &answer] };
        let all = together(&place, &pair);
        let status = place.json(&["show", &run])["status"].clone();
        let acted = lines(&place, "acted");
        assert!(acted <= 1, "{acted}");
        match status.as_str().unwrap() {
            "cancelled" => {}
            "succeeded" => assert_eq!(acted, 1),
            other => panic!("{other}: {:?}\n{}\n{}", codes(&all), all[0].err, all[1].err),
        }
        assert!(all.iter().all(|ran| [0, 2, 6, 8].contains(&ran.code)), "{:?}", codes(&all));
    }
}

#[test]
fn of_runs_with_one_lock_one_begins() {
    for _ in 0..ROUNDS {
        let place = Place::new();
        place.runbook("one", &format!("lock: only-one\nsteps:\n{}", leaves("act", "acted")));
        let exec: &[&str] = &["exec", "one.yaml"];
        let all = together(&place, &[exec, exec, exec, exec]);
        let begun = all.iter().filter(|ran| ran.code == 0).count();
        assert!(begun >= 1, "{:?}", codes(&all));
        assert!(all.iter().all(|ran| [0, 8].contains(&ran.code)), "{:?}", codes(&all));
        assert_eq!(lines(&place, "acted"), begun, "who is refused does nothing");
    }
}

#[test]
fn a_stopped_owner_keeps_its_run_and_goes_on_when_it_wakes() {
    let place = slow();
    let started = place.start(&["exec", "slow.yaml"]);
    place.wait_for("first", "running");
    started.signal(Signal::STOP);
    let run = place.newest();
    let begin = Instant::now();
    // Longer than its lease.
    while begin.elapsed() < Duration::from_secs(17) {
        let ran = place.run(&["resume", &run]);
        assert_eq!(ran.code, 8, "{}", ran.err);
        std::thread::sleep(Duration::from_secs(3));
    }
    place.write("go", "");
    started.signal(Signal::CONT);
    let ran = started.end();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(lines(&place, "acted"), 2, "each step once");
}

#[test]
fn a_stopped_owner_is_not_said_to_be_gone_and_cancels_when_it_wakes() {
    let place = slow();
    let started = place.start(&["exec", "slow.yaml"]);
    place.wait_for("first", "running");
    started.signal(Signal::STOP);
    // This one waits until the lease has ended.
    let ran = place.expect(8, &["cancel"]);
    assert!(
        ran.err.contains("alive or stopped") && ran.err.contains("the cancel is recorded"),
        "{}",
        ran.err
    );
    assert!(!ran.err.contains("is gone"), "{}", ran.err);
    started.signal(Signal::CONT);
    let ran = started.end();
    assert_eq!(ran.code, 6, "{}", ran.err);
    assert_eq!(lines(&place, "acted"), 1, "nothing was begun after the cancel");
}
