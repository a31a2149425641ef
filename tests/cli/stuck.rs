//! What a run holds comes back, and what is in the way of that is named with a way out.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::place::{Place, Started, UNTIL_GO, reads};

const ORIGINAL: &str = "MAX_MB=25\n";

/// A place with a runbook that holds a lock and a line of a file, and waits for a file `go` meanwhile.
fn place(max_hold: &str) -> Place {
    let place = Place::new();
    place.write("app.env", ORIGINAL);
    let nap = reads("nap", UNTIL_GO);
    place.runbook(
        "hold",
        &format!(
            "lock: target\nsteps:\n  - id: freeze\n    uses: freeze\n    with:\n      env_file: {{ path: \"{}\", variable: MAX_MB, value: \"0\" }}\n      \
             max_hold: {max_hold}\n{nap}  - {{ id: thaw, uses: unfreeze, with: {{ freeze: freeze }} }}\n",
            place.path("app.env").display()
        ),
    );
    place
}

/// A run that waits in `nap`, frozen.
fn holding(place: &Place) -> (Started, String) {
    let started = place.start(&["exec", "hold.yaml"]);
    place.wait_for("nap", "running");
    assert_ne!(place.text("app.env"), ORIGINAL);
    (started, place.newest())
}

#[test]
fn a_log_that_can_not_be_opened_is_not_in_the_way_of_putting_back() {
    for (max_hold, command, code) in [("1h", "cancel", 6), ("1s", "reconcile", 0)] {
        let place = place(max_hold);
        let (started, run) = holding(&place);
        started.kill();
        let log = place.path(&format!("state/runs/{run}/log.jsonl"));
        std::fs::remove_file(&log).unwrap();
        std::fs::create_dir(&log).unwrap();
        std::thread::sleep(Duration::from_millis(1100));
        let refused = place.expect(7, &["resume", &run]);
        assert!(refused.err.contains(&log.display().to_string()), "{}", refused.err);
        let ran = place.expect(code, &[command]);
        assert!(ran.err.contains("is not written"), "{}", ran.err);
        assert_eq!(place.text("app.env"), ORIGINAL, "{command}\n{}", ran.err);
    }
}

#[test]
fn a_run_whose_record_can_not_be_read_has_a_way_out() {
    let place = place("1h");
    let (started, run) = holding(&place);
    place.expect(8, &["cancel", &run, "--abandon", "--confirm", &run]);
    started.kill();
    let refused = place.expect(2, &["cancel", &run, "--abandon", "--confirm", &run]);
    assert!(refused.err.contains("can be read"), "{}", refused.err);
    place.query(&format!("update events set body = '{{' where run = '{run}' and seq = 4"));
    let way_out = format!("runbook cancel {run} --abandon");
    let log = place.path(&format!("state/runs/{run}/log.jsonl"));
    for args in [["show"].as_slice(), &["logs"], &["resume"], &["cancel"], &["answer", &run, "x"]] {
        let ran = place.expect(7, args);
        for part in
            ["MAX_MB", "its original value is 25", "lock `target`", &log.display().to_string(), &way_out]
        {
            assert!(ran.err.contains(part), "{args:?}: {part}\n{}", ran.err);
        }
    }
    let second = place.expect(8, &["exec", "hold.yaml"]);
    assert!(second.err.contains(&way_out) && !second.err.contains("runbook resume"), "{}", second.err);
    let asked = place.expect(2, &["cancel", &run, "--abandon"]);
    assert!(asked.err.contains(&format!("{way_out} --confirm {run}")), "{}", asked.err);
    place.expect(2, &["cancel", &run, "--abandon", "--confirm", "yes"]);
    assert!(place.expect(0, &["runs"]).err.contains("HELD"), "nothing was given up by that");
    place.write("app.env", ORIGINAL);
    let ran = place.expect(4, &["cancel", &run, "--abandon", "--confirm", &run]);
    assert!(ran.err.contains("original value is 25") && ran.err.contains("put nothing back"), "{}", ran.err);
    let logged = std::fs::read_to_string(&log).unwrap();
    let last: serde_json::Value = serde_json::from_str(logged.lines().last().unwrap()).unwrap();
    assert!(last["text"].as_str().unwrap().starts_with("tester@"), "{last}");
    assert!(last["text"].as_str().unwrap().contains("its original value is 25"), "{last}");
    assert!(!place.expect(0, &["runs"]).err.contains("HELD"));
    assert_eq!(place.json(&["runs"])[0]["status"], "cancelled");
    place.write("go", "");
    place.expect(0, &["exec", "hold.yaml"]);
}

#[test]
fn a_value_that_changed_on_the_disk_is_not_put_back() {
    let place = place("1h");
    let (started, run) = holding(&place);
    started.kill();
    let frozen = place.text("app.env");
    place.query(&format!(
        "update events set body = replace(body, 'MAX_MB=25', 'MAX_MB=35') where run = '{run}' and body like '%MAX_MB=25%'"
    ));
    for command in ["cancel", "resume"] {
        let ran = place.expect(7, &[command, &run]);
        assert!(ran.err.contains("does not match its checksum"), "{}", ran.err);
        assert!(ran.err.contains("its original value is 25"), "by the row and by the log\n{}", ran.err);
        assert!(!ran.err.contains("35"), "{}", ran.err);
    }
    assert_eq!(place.text("app.env"), frozen);
}

#[test]
fn a_number_that_changed_on_the_disk_hangs_nothing_and_keeps_no_other_run() {
    for change in ["last_seq = last_seq + 1", "last_seq = last_seq - 1"] {
        let (place, other) = (place("1s"), "other.env");
        place.write(other, ORIGINAL);
        let (started, run) = holding(&place);
        place.write(
            "other.yaml",
            &place.text("hold.yaml").replace("app.env", other).replace("lock: target\n", ""),
        );
        let second = place.start(&["exec", "other.yaml"]);
        crate::place::wait_until("both hold", || place.text(other) != ORIGINAL);
        place.wait_for("nap", "running");
        started.kill();
        second.kill();
        place.query(&format!("update runs set {change} where id = '{run}'"));
        std::thread::sleep(Duration::from_millis(1100));
        let ran = place.expect(4, &["reconcile"]);
        assert_eq!(place.text(other), ORIGINAL, "{change}\n{}", ran.err);
        assert!(ran.err.contains("can not be read") && ran.err.contains("--abandon"), "{}", ran.err);
        for command in ["cancel", "resume", "show"] {
            let ran = place.expect(7, &[command, &run]);
            assert!(ran.err.contains("its row says that it has"), "{change} {command}\n{}", ran.err);
        }
        place.write("app.env", ORIGINAL);
        place.expect(4, &["cancel", &run, "--abandon", "--confirm", &run]);
    }
}

#[test]
fn a_time_that_changed_on_the_disk_makes_no_freeze_last() {
    let place = place("1s");
    let (started, _) = holding(&place);
    started.kill();
    place.query("update obligations set hold_until = replace(hold_until, '20', '60')");
    std::thread::sleep(Duration::from_millis(1100));
    place.expect(0, &["reconcile"]);
    assert_eq!(place.text("app.env"), ORIGINAL);
}

#[test]
fn a_run_whose_row_can_not_be_read_is_given_up_too() {
    let place = place("1h");
    let (started, run) = holding(&place);
    started.kill();
    place.query(&format!("update runs set created_at = 'never', lease_until = null where id = '{run}'"));
    let second = place.expect(8, &["exec", "hold.yaml"]);
    let way_out = format!("runbook cancel {run} --abandon");
    assert!(second.err.contains(&way_out), "{}", second.err);
    place.write("app.env", ORIGINAL);
    place.expect(4, &["cancel", &run, "--abandon", "--confirm", &run]);
    place.write("go", "");
    place.expect(0, &["exec", "hold.yaml"]);
}

#[test]
fn a_freeze_that_a_stopped_process_keeps_is_an_alarm_with_a_way_out() {
    let place = place("2s");
    let (started, run) = holding(&place);
    started.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(2100));
    let go_on = format!("kill -CONT {}", started.id());
    let ran = place.expect(8, &["reconcile"]);
    assert!(ran.err.contains(&go_on), "{}", ran.err);
    assert!(!ran.err.contains("OVERDUE") || !ran.err.contains(": runbook reconcile"), "{}", ran.err);
    let listed = place.expect(0, &["runs"]).err;
    assert!(listed.contains("OVERDUE") && listed.contains(&go_on), "{listed}");
    assert!(!listed.contains(": runbook reconcile"), "{listed}");
    let begun = Instant::now();
    let ran = place.expect(8, &["cancel", &run]);
    assert!(ran.err.contains(&go_on) && ran.err.contains("the cancel is recorded"), "{}", ran.err);
    place.expect(8, &["cancel", &run]);
    assert!(begun.elapsed() < Duration::from_secs(15), "it waits for nothing");
    let shown = place.expect(0, &["show"]).out;
    let next = shown.lines().find(|line| line.starts_with("  Next")).unwrap_or_default();
    assert!(next.contains(&go_on) && shown.contains("stalled"), "{shown}");
    assert!(shown.contains(&format!("kill -9 {}", started.id())), "{shown}");
    let asked = "select seq from events where json_extract(body, '$.what.type') = 'cancel-requested'";
    assert_eq!(place.query(asked).len(), 1, "it is recorded once");
    started.kill();
    place.expect(0, &["reconcile"]);
    assert_eq!(place.text("app.env"), ORIGINAL);
}

#[test]
fn a_freeze_of_a_lost_run_is_an_alarm() {
    let place = place("1h");
    let (started, run) = holding(&place);
    started.kill();
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let _ = std::fs::remove_file(place.path("state").join(name));
    }
    let ran = place.expect(4, &["reconcile"]);
    assert!(ran.err.contains("MAY STILL BE HELD") && ran.err.contains("original value is 25"), "{}", ran.err);
    assert!(!ran.err.contains("nothing is overdue"), "{}", ran.err);
    std::fs::rename(place.path(&format!("state/runs/{run}")), place.path("away")).unwrap();
    place.expect(0, &["reconcile"]);
}

#[test]
fn a_process_that_puts_back_what_has_just_become_overdue_is_given_a_moment() {
    let place = place("2s");
    let (started, _) = holding(&place);
    started.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(2100));
    started.signal(Signal::CONT);
    place.expect(0, &["reconcile"]);
    assert_eq!(place.text("app.env"), ORIGINAL);
}

#[test]
fn a_run_whose_mark_was_taken_away_stays_with_its_owner() {
    let place = place("1h");
    let (started, run) = holding(&place);
    std::fs::remove_dir_all(place.path("state/runs")).unwrap();
    for _ in 0..2 {
        let ran = place.expect(8, &["resume", &run]);
        assert!(ran.err.contains("is owned by"), "{}", ran.err);
    }
    place.write("go", "");
    assert_eq!(started.end().code, 0);
    assert_eq!(place.text("app.env"), ORIGINAL);
}

#[test]
fn a_run_is_the_same_through_a_link_to_its_database() {
    let place = place("1h");
    let (started, run) = holding(&place);
    std::fs::create_dir(place.path("other")).unwrap();
    std::os::unix::fs::symlink(place.path("state/state.db"), place.path("other/state.db")).unwrap();
    let mut command = place.command(&["resume", &run]);
    command.env("RUNBOOK_STATE", format!("sqlite:{}", place.path("other/state.db").display()));
    let ran = crate::place::finished(command.output().unwrap());
    assert_eq!(ran.code, 8, "{}", ran.err);
    place.write("go", "");
    assert_eq!(started.end().code, 0);
}
