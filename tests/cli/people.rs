//! Questions without a terminal.

use crate::place::{Place, asks, once, reads};

fn gate() -> Place {
    let place = Place::new();
    place.runbook(
        "gate",
        &format!("lock: gate\nsteps:\n{}{}", asks("sure", "DO IT"), reads("act", "touch acted")),
    );
    place
}

#[test]
fn without_a_terminal_the_run_waits_and_an_answer_completes_it() {
    let place = gate();
    let ran = place.expect(5, &["exec", "gate.yaml"]);
    let run = place.newest();
    assert!(ran.err.contains(&format!("runbook answer {run} sure 'DO IT'")), "{}", ran.err);
    assert_eq!(place.json(&["show"])["status"], "waiting");
    let before = place.expect(0, &["logs"]).out;
    let wrong = place.expect(2, &["answer", &run, "do it"]);
    assert!(wrong.err.contains("nothing was recorded"), "{}", wrong.err);
    place.expect(2, &["answer", &run, "DO", "IT"]);
    assert_eq!(place.expect(5, &["answer", &run]).out, "");
    assert_eq!(place.expect(0, &["logs"]).out, before);
    assert!(!place.path("acted").exists());
    place.expect(5, &["resume"]);
    place.expect(0, &["answer", &run[run.len() - 4..], "sure", "DO IT"]);
    assert!(place.path("acted").exists());
    assert!(place.expect(2, &["answer", &run, "DO IT"]).err.contains("asks nothing"));
}

#[test]
fn a_run_that_waits_keeps_its_lock_until_it_is_cancelled() {
    let place = gate();
    place.expect(5, &["exec", "gate.yaml"]);
    let run = place.newest();
    let busy = place.expect(8, &["exec", "gate.yaml"]);
    assert!(busy.err.contains(&run) && busy.err.contains(&format!("runbook cancel {run}")), "{}", busy.err);
    assert!(busy.err.contains("waiting"), "{}", busy.err);
    place.expect(6, &["cancel"]);
    assert!(place.expect(2, &["cancel", &run]).err.contains("was cancelled already"));
    place.expect(5, &["exec", "gate.yaml"]);
    assert!(!place.path("acted").exists());
}

#[test]
fn what_may_not_be_repeated_is_settled_by_a_person_after_a_crash() {
    let place = Place::new();
    place.runbook(
        "crash",
        &format!("steps:\n{}{}", once("act", "echo x >> acted; sleep 20"), reads("after", "true")),
    );
    let started = place.start(&["exec", "crash.yaml"]);
    place.wait_for("act", "running");
    while !place.path("acted").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    started.kill();
    let ran = place.expect(5, &["resume"]);
    assert!(ran.err.contains("it is not known whether `act` took effect"), "{}", ran.err);
    let run = place.newest();
    assert!(place.expect(2, &["answer", &run, "yes"]).err.contains("retry"));
    place.expect(0, &["answer", &run, "done"]);
    assert_eq!(std::fs::read_to_string(place.path("acted")).unwrap(), "x\n");
}

#[test]
fn several_unfinished_runs_are_listed() {
    let place = Place::new();
    place.runbook("free", &format!("steps:\n{}", asks("sure", "GO")));
    place.expect(5, &["exec", "free.yaml"]);
    let first = place.newest();
    place.expect(5, &["exec", "free.yaml"]);
    let ran = place.expect(2, &["resume"]);
    assert!(ran.err.contains(&first) && ran.err.contains(&place.newest()), "{}", ran.err);
}

#[test]
fn a_run_is_not_named_by_nothing_or_by_a_letter() {
    let place = gate();
    place.expect(5, &["exec", "gate.yaml"]);
    let run = place.newest();
    for text in ["", "g", "gat"] {
        for args in
            [["answer", text, "DO IT"].as_slice(), &["cancel", text], &["resume", text], &["show", text]]
        {
            let ran = place.expect(2, args);
            assert!(ran.err.contains(&run), "{args:?}\n{}", ran.err);
        }
    }
    assert!(!place.path("acted").exists());
    place.expect(0, &["answer", "gate", "DO IT"]);
}

#[test]
fn a_final_step_of_a_cancelled_run_still_gets_its_answer() {
    let place = Place::new();
    let last = format!("finally:\n{}", asks("last", "SEEN"));
    place.runbook("gate", &format!("steps:\n{}{last}", asks("sure", "DO IT")));
    place.expect(5, &["exec", "gate.yaml"]);
    let run = place.newest();
    let ran = place.expect(5, &["cancel"]);
    assert!(ran.err.contains(&format!("runbook answer {run} last 'SEEN'")), "{}", ran.err);
    assert!(!ran.err.contains("'DO IT'") && !ran.err.contains("runbook resume"), "{}", ran.err);
    let refused = place.expect(2, &["answer", &run, "sure", "DO IT"]);
    assert!(refused.err.contains(&format!("runbook cancel {run}")), "{}", refused.err);
    place.expect(6, &["answer", &run, "last", "SEEN"]);
}

#[test]
fn the_report_of_a_cancelled_run_asks_for_no_answer() {
    let place = Place::new();
    let last = "finally:\n  - { id: report, uses: report }\n";
    place.runbook("gate", &format!("steps:\n{}{last}", asks("sure", "DO IT")));
    place.expect(5, &["exec", "gate.yaml"]);
    place.expect(6, &["cancel"]);
    let reports =
        place.state_files().into_iter().filter(|file| file.starts_with(place.path("state/artifacts")));
    let texts: Vec<String> = reports.map(|file| std::fs::read_to_string(file).unwrap()).collect();
    assert!(texts.iter().any(|text| text.contains("runbook show")), "{texts:?}");
    assert!(texts.iter().all(|text| !text.contains("runbook answer")), "{texts:?}");
}

#[test]
fn what_a_question_shows_is_told_where_nobody_is_asked() {
    let place = Place::new();
    let facts =
        asks("sure", "GO").replace("message: Sure?", "message: Sure?, facts: { Gateway: there, Items: 212 }");
    place.runbook("gate", &format!("steps:\n{facts}"));
    let ran = place.expect(5, &["exec", "gate.yaml"]);
    let shown = place.expect(0, &["show"]);
    for text in [&ran.err, &shown.out] {
        assert!(text.contains(" Gateway: there\n") && text.contains(" Items: 212\n"), "{text}");
    }
}
