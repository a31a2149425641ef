//! An older copy of the state database is put back: what it does not know of is not done a second time.

use crate::place::{Place, asks, once, reads};

/// Keeps a copy of the database as it is now, with what is not in the file yet.
fn keep(place: &Place) {
    place.query("pragma wal_checkpoint(truncate)");
    std::fs::copy(place.path("state/state.db"), place.path("kept.db")).unwrap();
}

fn put_back(place: &Place) {
    for file in place.state_files() {
        if file.file_name().unwrap().to_string_lossy().starts_with("state.db") {
            std::fs::remove_file(file).unwrap();
        }
    }
    std::fs::copy(place.path("kept.db"), place.path("state/state.db")).unwrap();
}

/// A step that sets a line of `app.env`, and may hold that for so long.
fn freezes(place: &Place, max_hold: &str) -> String {
    let path = place.path("app.env");
    format!(
        "  - id: freeze\n    uses: freeze\n    with:\n      env_file: {{ path: \"{}\", variable: MAX_MB, value: \"0\" }}\n      max_hold: {max_hold}\n",
        path.display()
    )
}

#[test]
fn what_the_log_knows_is_not_done_again() {
    let place = Place::new();
    let last = once("last", "test -e fixed");
    place.runbook("once", &format!("steps:\n{}{}{last}", asks("sure", "GO"), once("pay", "echo x >> paid")));
    place.expect(5, &["exec", "once.yaml"]);
    let run = place.newest();
    keep(&place);
    place.expect(4, &["answer", &run, "GO"]);
    assert_eq!(place.text("paid"), "x\n");
    put_back(&place);
    place.write("fixed", "");
    let log = place.path(&format!("state/runs/{run}/log.jsonl"));
    let logged = std::fs::read_to_string(&log).unwrap();
    for args in [["resume"].as_slice(), &["answer", &run, "GO"]] {
        let ran = place.expect(7, args);
        for part in [
            "an older copy was put back",
            "step-succeeded pay",
            &log.display().to_string(),
            &format!("runbook cancel {run}"),
        ] {
            assert!(ran.err.contains(part), "{args:?}: {part}\n{}", ran.err);
        }
        assert!(place.expect(0, &["show"]).out.contains("waiting"), "nothing was recorded");
    }
    assert_eq!(place.text("paid"), "x\n");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), logged);
    assert!(place.expect(0, &["runs"]).err.contains("an older copy was put back"));
    // Ending it is a way out, and the log goes on with it.
    place.expect(6, &["cancel", &run]);
    assert!(!place.expect(0, &["runs"]).err.contains("an older copy"));
    let ends = place.expect(0, &["logs", &run]).out;
    assert!(ends.contains("step-succeeded pay"), "{ends}");
    assert!(ends.lines().last().unwrap().contains("run-ended - cancelled"), "{ends}");
    let told = |what: &str| ends.lines().filter(|line| line.contains(what)).count();
    assert_eq!((told("run-ended - cancelled"), told("cancel-requested")), (1, 1), "{ends}");
}

#[test]
fn what_only_the_log_knows_to_be_held_is_told_to_the_end() {
    let place = Place::new();
    place.write("app.env", "MAX_MB=25\n");
    let freeze = freezes(&place, "1h");
    let thaw = "  - { id: thaw, uses: unfreeze, with: { freeze: freeze } }\n";
    let steps = format!("{}{freeze}{}{thaw}", asks("sure", "GO"), asks("then", "ON"));
    place.runbook("held", &format!("steps:\n{steps}"));
    place.expect(5, &["exec", "held.yaml"]);
    let run = place.newest();
    keep(&place);
    place.expect(5, &["answer", &run, "GO"]);
    let frozen = place.text("app.env");
    put_back(&place);
    let told = "its original value is 25";
    assert!(place.expect(0, &["runs"]).err.contains(told));
    assert!(place.expect(4, &["reconcile"]).err.contains(told));
    assert!(place.expect(7, &["resume"]).err.contains(told));
    // Its end would be the end of the alarm.
    let refused = place.expect(7, &["cancel", &run]).err;
    assert!(refused.contains(told) && refused.contains("--abandon"), "{refused}");
    // What it left there is no original value for anybody.
    let freeze = freeze.replace("value: \"0\"", "value: \"1\"");
    place.runbook("other", &format!("steps:\n{freeze}{thaw}"));
    let other = place.expect(4, &["exec", "other.yaml"]).err;
    assert!(other.contains(&format!("may still be held by run {run}")), "{other}");
    assert_eq!(place.text("app.env"), frozen, "what is not known is not touched");
    place.expect(6, &["cancel", &place.newest()]);
    place.write("app.env", "MAX_MB=25\n");
    let given_up = place.expect(4, &["cancel", &run, "--abandon", "--confirm", &run]).err;
    assert!(given_up.contains("its original value is 25"), "{given_up}");
    place.expect(0, &["exec", "other.yaml"]);
}

#[test]
fn a_lock_and_a_plan_of_which_only_the_log_knows_are_taken() {
    let place = Place::new();
    place.runbook("locked", &format!("lock: the shop\nsteps:\n{}", asks("sure", "GO")));
    place.runbook("once", &format!("steps:\n{}", once("pay", "echo x >> paid")));
    place.runbook("before", &format!("steps:\n{}", reads("look", "true")));
    place.expect(0, &["exec", "before.yaml"]);
    keep(&place);
    place.expect(5, &["exec", "locked.yaml"]);
    let holder = place.newest();
    place.expect(0, &["plan", "once.yaml", "--output", "plan.json"]);
    place.expect(0, &["exec", "--plan", "plan.json"]);
    let payer = place.newest();
    put_back(&place);
    for (args, run) in
        [(["exec", "locked.yaml"].as_slice(), &holder), (&["exec", "--plan", "plan.json"], &payer)]
    {
        let ran = place.expect(8, args);
        assert!(ran.err.contains("only its log says so") && ran.err.contains(run.as_str()), "{}", ran.err);
        // To move the folder of what was done away would let it be done again.
        let refused = ran.err.split("error:").nth(1).unwrap();
        assert_eq!(refused.contains("move its folder"), args.len() == 2, "{refused}");
    }
    assert_eq!(place.text("paid"), "x\n");
    assert_eq!(place.expect(0, &["runs"]).out.matches("before-").count(), 1);
    assert!(!place.expect(0, &["runs"]).out.contains("once-"), "nothing was created");
    // What needs neither is nobody's business.
    place.expect(0, &["exec", "once.yaml"]);
    std::fs::remove_dir_all(place.path(&format!("state/runs/{holder}"))).unwrap();
    place.expect(5, &["exec", "locked.yaml"]);
}

#[test]
fn what_is_lifted_meanwhile_does_not_make_it_whole() {
    let place = Place::new();
    place.write("app.env", "MAX_MB=25\n");
    let freeze = freezes(&place, "5s");
    let steps =
        format!("{freeze}{}{}{}", asks("sure", "GO"), once("pay", "echo x >> paid"), asks("then", "ON"));
    place.runbook(
        "held",
        &format!("steps:\n{steps}  - {{ id: thaw, uses: unfreeze, with: {{ freeze: freeze }} }}\n"),
    );
    place.expect(5, &["exec", "held.yaml"]);
    let run = place.newest();
    keep(&place);
    place.expect(5, &["answer", &run, "GO"]);
    put_back(&place);
    std::thread::sleep(std::time::Duration::from_secs(5));
    place.expect(0, &["reconcile"]);
    assert_eq!(place.text("app.env"), "MAX_MB=25\n");
    // Its log was written on by that, and is told of all the same.
    assert!(place.expect(0, &["runs"]).err.contains("an older copy was put back"));
    for _ in 0..2 {
        assert!(place.expect(7, &["resume"]).err.contains("step-succeeded pay"));
        assert_eq!(place.text("paid"), "x\n");
    }
    place.expect(6, &["cancel", &run]);
}

/// A runbook that holds a line of a file for a moment, pays once, and fails until there is a file `fixed`.
fn lifts(place: &Place) -> String {
    place.write("app.env", "MAX_MB=25\n");
    let freeze = freezes(place, "2s");
    let steps = format!("{freeze}{}{}", asks("sure", "GO"), once("pay", "echo x >> paid"));
    let thaw = "  - { id: thaw, uses: unfreeze, with: { freeze: freeze } }\n";
    place.runbook("lifts", &format!("steps:\n{steps}{thaw}{}", once("last", "test -e fixed")));
    place.expect(5, &["exec", "lifts.yaml"]);
    place.newest()
}

#[test]
fn what_the_log_says_was_given_back_is_not_touched_again() {
    let place = Place::new();
    let run = lifts(&place);
    keep(&place);
    place.expect(4, &["answer", &run, "GO"]);
    assert_eq!(place.text("app.env"), "MAX_MB=25\n");
    // Somebody else holds it by now, at the same value.
    place.write("app.env", "MAX_MB=0\n");
    put_back(&place);
    std::thread::sleep(std::time::Duration::from_secs(2));
    for (code, command) in [(4, "reconcile"), (7, "cancel"), (7, "resume")] {
        let ran = place.expect(code, &[command]);
        assert!(ran.err.contains("an older copy was put back"), "{}", ran.err);
        assert_eq!(place.text("app.env"), "MAX_MB=0\n", "{command}\n{}", ran.err);
    }
    let told = place.expect(7, &["cancel", &run]).err;
    assert!(
        told.contains("was given back") && told.contains(&format!("runbook cancel {run} --abandon")),
        "{told}"
    );
    place.expect(4, &["cancel", &run, "--abandon", "--confirm", &run]);
    place.expect(0, &["reconcile"]);
    assert_eq!(place.text("app.env"), "MAX_MB=0\n");
}

#[test]
fn a_secret_that_is_in_every_time_does_not_hide_what_was_done() {
    let place = Place::new();
    let year = jiff::Timestamp::now().to_string()[..4].to_owned();
    let with =
        |args: &[&str]| crate::place::finished(place.command(args).env("PIN", &year).output().unwrap());
    let pay = once("pay", "echo x >> paid");
    place.runbook(
        "pin",
        &format!(
            "secrets: {{ pin: {{ env: PIN }} }}\nsteps:\n{}{pay}{}",
            asks("sure", "GO"),
            once("last", "false")
        ),
    );
    assert_eq!(with(&["exec", "pin.yaml"]).code, 5);
    let run = place.newest();
    keep(&place);
    assert_eq!(with(&["answer", &run, "GO"]).code, 4);
    put_back(&place);
    let ran = with(&["answer", &run, "GO"]);
    assert_eq!((ran.code, place.text("paid").as_str()), (7, "x\n"), "{}", ran.err);
}

#[test]
fn what_an_index_has_lost_is_not_done_again() {
    let place = Place::new();
    let slow = "echo x >> paid; test -e quick || sleep 60";
    place
        .runbook("pay", &format!("steps:\n{}      check: {{ argv: [test, -s, paid] }}\n", once("pay", slow)));
    let started = place.start(&["exec", "pay.yaml"]);
    crate::place::wait_until("it pays", || place.text("paid") == "x\n");
    started.kill();
    place.write("quick", "");
    let page: usize = place
        .query("select '' || rootpage from sqlite_schema where name = 'batches_unsettled'")[0]
        .parse()
        .unwrap();
    place.query("pragma wal_checkpoint(truncate)");
    let database = place.path("state/state.db");
    let mut bytes = std::fs::read(&database).unwrap();
    let of_index = (page - 1) * 4096..page * 4096;
    let at = bytes[of_index.clone()].windows(3).position(|three| three == b"pay").unwrap();
    bytes[of_index.start + at + 2] ^= 1;
    std::fs::write(&database, bytes).unwrap();
    let ran = place.expect(7, &["resume"]);
    assert!(ran.err.contains("is damaged") && ran.err.contains("batches_unsettled"), "{}", ran.err);
    assert_eq!(place.text("paid"), "x\n");
}
