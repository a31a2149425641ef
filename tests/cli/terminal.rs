//! Questions and the live view on a real pseudo-terminal.

use std::time::Duration;

use expectrl::process::unix::WaitStatus;
use expectrl::session::OsSession;
use expectrl::{ControlCode, Eof, Expect, Session};

use crate::place::{Place, UNTIL_GO, asks, once, reads};
use crate::planned;

fn gate() -> Place {
    let place = Place::new();
    place.runbook(
        "gate",
        &format!("steps:\n{}{}{}", reads("look", "true"), asks("sure", "DO IT"), reads("act", "touch acted")),
    );
    place
}

fn open(place: &Place, args: &[&str], plain: bool) -> OsSession {
    let mut command = place.bare(args);
    if plain {
        command.env("NO_COLOR", "1");
    }
    let mut session = Session::spawn(command).unwrap();
    session.set_expect_timeout(Some(Duration::from_secs(20)));
    session
}

fn end(mut session: OsSession) -> (i32, String) {
    let rest = session
        .expect(Eof)
        .map(|found| String::from_utf8_lossy(found.as_bytes()).into_owned())
        .unwrap_or_default();
    match session.get_process().wait().unwrap() {
        WaitStatus::Exited(_, code) => (code, rest),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_phrase_lets_the_run_go_on() {
    let place = gate();
    let mut session = open(&place, &["exec", "gate.yaml"], false);
    session.expect("type").unwrap();
    session.send_line("DO IT").unwrap();
    session.expect("Succeeded").unwrap();
    let (code, rest) = end(session);
    assert_eq!(code, 0, "{rest}");
    assert!(place.path("acted").exists());
}

#[test]
fn what_is_typed_before_the_question_answers_nothing() {
    let place = Place::new();
    let look = reads("look", UNTIL_GO);
    place.runbook("gate", &format!("steps:\n{look}{}{}", asks("sure", "DO IT"), reads("act", "touch acted")));
    let mut session = open(&place, &["exec", "gate.yaml"], true);
    session.expect("look").unwrap();
    session.send_line("DO IT").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    place.write("go", "");
    session.expect("Ctrl-C stops it").unwrap();
    session.expect("sure").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(!place.path("acted").exists());
    session.send(ControlCode::EndOfTransmission).unwrap();
    let (code, rest) = end(session);
    assert_eq!(code, 5, "{rest}");
    assert!(!place.path("acted").exists());
}

#[test]
fn three_wrong_phrases_fail_the_step_and_nothing_goes_on() {
    let place = gate();
    let mut session = open(&place, &["exec", "gate.yaml"], true);
    session.expect("type").unwrap();
    for (typed, said) in
        [("", "sure"), ("do it", "2 more tries"), ("DO IT ", "1 more try"), (" DO IT", "Nothing happens")]
    {
        session.send_line(typed).unwrap();
        session.expect(said).unwrap();
    }
    let (code, rest) = end(session);
    assert_eq!(code, 4, "{rest}");
    assert!(!place.path("acted").exists());
}

#[test]
fn the_end_of_input_leaves_the_run_waiting() {
    let place = gate();
    let mut session = open(&place, &["exec", "gate.yaml"], true);
    session.expect("Ctrl-C stops it").unwrap();
    session.expect("sure").unwrap();
    session.send(ControlCode::EndOfTransmission).unwrap();
    let (code, rest) = end(session);
    assert_eq!(code, 5, "{rest}");
    assert!(rest.contains("runbook answer"), "{rest}");
    assert!(!place.path("acted").exists());
    place.expect(0, &["answer", &place.newest(), "DO IT"]);
}

#[test]
fn control_c_at_the_prompt_stops_the_run() {
    let place = gate();
    let mut session = open(&place, &["exec", "gate.yaml"], true);
    session.expect("Ctrl-C stops it").unwrap();
    session.expect("sure").unwrap();
    session.send(ControlCode::EndOfText).unwrap();
    let (code, rest) = end(session);
    assert_eq!(code, 130, "{rest}");
    assert!(rest.contains("runbook resume"), "{rest}");
    assert!(!place.path("acted").exists());
}

#[test]
fn no_color_is_respected_in_view_and_prompt() {
    let place = gate();
    let mut session = open(&place, &["exec", "gate.yaml"], true);
    let before = session.expect("type").unwrap();
    let mut text = String::from_utf8_lossy(before.before()).into_owned();
    session.send_line("DO IT").unwrap();
    let (code, rest) = end(session);
    text.push_str(&rest);
    assert_eq!(code, 0);
    // Moving the cursor is no colour; those codes end in `m`.
    let coloured = text
        .split("\x1b[")
        .skip(1)
        .any(|code| code.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'));
    assert!(!coloured, "{text:?}");
}

#[test]
fn a_question_that_is_answered_elsewhere_lets_the_terminal_go() {
    let place = Place::new();
    let acts = reads("act", "touch acted");
    place.runbook("gate", &format!("steps:\n{}{}{acts}", asks("first", "ONE"), asks("second", "TWO")));
    let mut session = open(&place, &["exec", "gate.yaml"], true);
    session.expect("Ctrl-C stops it").unwrap();
    session.expect("first").unwrap();
    session.send("ON").unwrap();
    place.expect(0, &["answer", &place.newest(), "ONE"]);
    session.expect("This question is settled").unwrap();
    session.expect("Ctrl-C stops it").unwrap();
    session.expect("second").unwrap();
    // Every key reaches the question that is open now.
    session.send_line("TWO").unwrap();
    session.expect("Succeeded").unwrap();
    let (code, rest) = end(session);
    assert_eq!(code, 0, "{rest}");
    assert!(place.path("acted").exists());
}

#[test]
fn the_outcome_of_a_step_is_a_word_that_is_typed_out() {
    let place = Place::new();
    let act = once("act", "echo x >> acted; test -e go || exec sleep 20");
    place.runbook("crash", &format!("steps:\n{act}"));
    let started = place.start(&["exec", "crash.yaml"]);
    place.wait_for("act", "running");
    while !place.path("acted").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    started.kill();
    place.write("go", "");
    let mut session = open(&place, &["resume"], true);
    session.expect("Ctrl-C stops it").unwrap();
    session.expect("act").unwrap();
    // A key by mistake settles nothing.
    session.send_line("").unwrap();
    session.send_line("d").unwrap();
    session.expect("none of the words").unwrap();
    assert_eq!(place.json(&["show"])["steps"][0]["status"], "asking");
    session.send_line("retry").unwrap();
    session.expect("Succeeded").unwrap();
    let (code, rest) = end(session);
    assert_eq!(code, 0, "{rest}");
    assert_eq!(std::fs::read_to_string(place.path("acted")).unwrap(), "x\nx\n", "it was not done again");
}

#[test]
fn lines_are_not_filled_up_so_that_a_terminal_can_reflow_them() {
    let place = Place::new();
    place.runbook(
        "view",
        &format!("steps:\n{}{}", reads("look", "echo hi; sleep 0.5"), reads("then", "true")),
    );
    let session = open(&place, &["exec", "view.yaml"], true);
    let (code, text) = end(session);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("▸ look") && text.contains("Succeeded"), "{text:?}");
    assert!(!text.contains(&" ".repeat(40)), "{text:?}");
}

#[test]
fn a_question_tells_beside_its_own_count_what_the_plan_lets_be_touched() {
    let place = planned::place("subset");
    planned::saved(&place);
    place.write("logs/new.log", "it came later");
    let mut session = open(&place, &["exec", "--plan", "plan.json"], true);
    session.expect("type").unwrap();
    session.send_line("BEGIN").unwrap();
    session.expect("the 8 items that it names").unwrap();
    session.expect("DELETE 9 FILES").unwrap();
    session.expect("Ctrl-C stops it").unwrap();
    session.send(ControlCode::EndOfTransmission).unwrap();
    let (code, rest) = end(session);
    assert_eq!(code, 5, "{rest}");
}
