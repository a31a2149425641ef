//! Children that outlive a runbook that was killed: they are waited for or ended before anything is done beside them.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::place::{Place, reads, wait_until};

/// A freeze by commands whose `apply` takes `seconds`.
fn frozen_by_command(seconds: u32, timeout: &str) -> Place {
    let place = Place::new();
    place.write("value", "on\n");
    let apply =
        format!("echo x >> begun; sleep {seconds}; echo \"$RUNBOOK_VALUE\" > value; echo x >> applied");
    let freeze = format!(
        "  - id: freeze\n    uses: freeze\n    with:\n      command:\n        target: switch\n        read: [cat, value]\n        apply: [sh, -c, '{apply}']\n        release: [sh, -c, 'echo \"$RUNBOOK_ORIGINAL\" > value']\n        value: \"off\"\n        timeout: {timeout}\n"
    );
    let thaw = "  - { id: thaw, uses: unfreeze, with: { freeze: freeze } }\n";
    place.runbook("hold", &format!("steps:\n{freeze}{thaw}"));
    place
}

#[test]
fn a_change_that_prints_comes_to_its_end_when_runbook_is_killed() {
    for lines in [1, 4000] {
        let place = Place::new();
        place.write("value", "on\n");
        // A little, and more than a pipe holds.
        let apply = format!(
            "echo half > value; echo x >> begun; sleep 2; for n in $(seq {lines}); do echo a line of forty characters and some $n; echo e >&2; done; echo off > value; echo x >> applied"
        );
        place.runbook(
            "chatty",
            &format!(
                "steps:\n  - id: freeze\n    uses: freeze\n    with:\n      command:\n        target: switch\n        read: [cat, value]\n        apply: [bash, -c, '{apply}']\n        release: [sh, -c, 'echo on > value']\n        value: \"off\"\n        timeout: 1m\n"
            ),
        );
        killed_once_there(&place, "chatty.yaml", "begun");
        let ran = place.expect(6, &["cancel"]);
        assert_eq!(
            (place.text("applied"), place.text("value")),
            ("x\n".to_owned(), "on\n".to_owned()),
            "{}",
            ran.err
        );
        assert!(ran.err.contains("back at its original value"), "{}", ran.err);
        no_marks(&place);
    }
}

#[test]
fn resume_ends_what_left_the_group_of_a_command() {
    let place = Place::new();
    let script = "setsid -w sh -c \"echo x >> starts; test -e go || sleep 3; echo x >> effects\"";
    place.runbook("stray", &format!("steps:\n{}", reads("stray", script)));
    killed_once_there(&place, "stray.yaml", "starts");
    place.write("go", "");
    place.expect(0, &["resume"]);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!((place.text("starts"), place.text("effects")), ("x\nx\n".to_owned(), "x\n".to_owned()));
    no_marks(&place);
}

/// Runs the runbook until a file is there, and kills it.
fn killed_once_there(place: &Place, runbook: &str, file: &str) {
    let started = place.start(&["exec", runbook]);
    wait_until(file, || !place.text(file).is_empty());
    started.kill();
}

fn runs(place: &Place, pid_file: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", place.text(pid_file).trim()));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

fn no_marks(place: &Place) {
    let marks: Vec<_> = place.state_files();
    let marks = marks.iter().filter(|path| path.to_string_lossy().contains("/children/"));
    assert_eq!(marks.count(), 0);
}

#[test]
fn a_release_waits_for_the_change_that_is_still_being_made() {
    let place = frozen_by_command(3, "1m");
    killed_once_there(&place, "hold.yaml", "begun");
    let ran = place.expect(6, &["cancel"]);
    // Past the time at which the change is made when nobody waits for it.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!((place.text("applied"), place.text("value")), ("x\n".to_owned(), "on\n".to_owned()));
    assert!(
        ran.err.contains("waiting for its end") && ran.err.contains("back at its original value"),
        "{}",
        ran.err
    );
    no_marks(&place);
}

#[test]
fn a_change_that_takes_longer_than_it_may_is_ended_before_the_release() {
    let place = frozen_by_command(6, "2s");
    killed_once_there(&place, "hold.yaml", "begun");
    let ran = place.expect(6, &["cancel"]);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!((place.text("applied"), place.text("value")), (String::new(), "on\n".to_owned()));
    assert!(ran.err.contains("ending it"), "{}", ran.err);
    no_marks(&place);
}

#[test]
fn a_freeze_that_goes_on_waits_for_the_change_of_the_killed_one() {
    let place = frozen_by_command(2, "1m");
    killed_once_there(&place, "hold.yaml", "begun");
    let ran = place.expect(0, &["resume"]);
    assert_eq!((place.text("begun"), place.text("value")), ("x\n".to_owned(), "on\n".to_owned()));
    assert!(ran.err.contains("waiting for its end"), "{}", ran.err);
}

#[test]
fn a_restart_that_still_runs_does_not_undo_the_one_of_the_release() {
    let place = Place::new();
    place.write("app.env", "MAX_MB=25\n");
    place.write("running", "MAX_MB=25\n");
    // A system that reads its file early, and is up late.
    place.write(
        "restart.sh",
        "seen=$(cat app.env); echo x >> begun; test -e fast || sleep 3; echo \"$seen\" > running\n",
    );
    place.runbook(
        "restart",
        "steps:\n  - id: freeze\n    uses: freeze\n    with:\n      env_file: { path: app.env, variable: MAX_MB, value: \"0\", restart: { argv: [sh, restart.sh] } }\n  - { id: thaw, uses: unfreeze, with: { freeze: freeze } }\n",
    );
    killed_once_there(&place, "restart.yaml", "begun");
    place.write("fast", "");
    place.expect(6, &["cancel"]);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(place.text("app.env"), "MAX_MB=25\n");
    assert_eq!((place.text("begun"), place.text("running")), ("x\nx\n".to_owned(), "MAX_MB=25\n".to_owned()));
    no_marks(&place);
}

#[test]
fn cancel_ends_the_command_of_a_killed_run() {
    let place = Place::new();
    let script = "sleep 60 & echo $! > helper; sleep 2; echo late > late";
    place.runbook("late", &format!("steps:\n{}", reads("slow", script)));
    killed_once_there(&place, "late.yaml", "helper");
    assert!(runs(&place, "helper"));
    let ran = place.expect(6, &["cancel"]);
    assert!(!runs(&place, "helper"), "its group is ended with it");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(place.text("late"), "");
    assert!(ran.err.contains("ending it"), "{}", ran.err);
    no_marks(&place);
}

#[test]
fn resume_ends_the_earlier_command_before_it_starts_it_again() {
    let place = Place::new();
    let script = "echo x >> starts; test -e go || sleep 3; echo x >> ends";
    place.runbook("again", &format!("steps:\n{}", reads("slow", script)));
    killed_once_there(&place, "again.yaml", "starts");
    place.write("go", "");
    let ran = place.expect(0, &["resume"]);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!((place.text("starts"), place.text("ends")), ("x\nx\n".to_owned(), "x\n".to_owned()));
    assert!(ran.err.contains("ending it"), "{}", ran.err);
    no_marks(&place);
}

#[test]
fn a_server_that_a_command_left_running_stays() {
    let place = Place::new();
    let before = reads("before", "sleep 60 > /dev/null 2>&1 & echo $! > early");
    // This one comes to its end after runbook was killed, and its server is in its group.
    let during = reads("during", "sleep 60 > /dev/null 2>&1 & echo $! > server; sleep 1; echo $$ > over");
    place.runbook("serve", &format!("steps:\n{before}{during}"));
    killed_once_there(&place, "serve.yaml", "server");
    wait_until("over", || !place.text("over").is_empty() && !runs(&place, "over"));
    let ran = place.expect(6, &["cancel"]);
    assert!(!ran.err.contains("still runs"), "{}", ran.err);
    for server in ["early", "server"] {
        assert!(runs(&place, server), "{server}");
        let pid = place.text(server).trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
}
