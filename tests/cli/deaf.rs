//! Nobody listens any more: a full device, a closed pipe, a terminal that went away.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::place::{Place, asks, reads};

/// A run that takes a while and talks on the way.
fn talking() -> Place {
    let place = Place::new();
    let talks =
        "for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.1; done; test -e short || sleep 1; echo >> acted";
    place.runbook("talk", &format!("steps:\n{}{}", reads("talk", talks), reads("after", "touch after")));
    place
}

/// The exit code; none when a signal ended it.
fn ended(child: &mut std::process::Child) -> Option<i32> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < end, "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_full_device_or_a_closed_pipe_does_not_end_a_run() {
    for (closed, json, log) in
        [(false, false, "warn"), (false, true, "debug"), (true, false, "warn"), (true, true, "debug")]
    {
        let place = talking();
        let args: &[&str] = if json { &["exec", "talk.yaml", "--json"] } else { &["exec", "talk.yaml"] };
        let mut command = place.command(args);
        command.env("RUNBOOK_LOG", log);
        if !closed {
            let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
            command.stderr(full()).stdout(full());
        }
        let mut child = command.spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(ended(&mut child), Some(0), "closed: {closed}, json: {json}");
        assert!(place.path("after").exists());
        assert_eq!(place.json(&["show"])["status"], "succeeded");
    }
}

/// Both ends of a new pseudo-terminal.
fn terminal() -> (OwnedFd, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let mut open = OpenOptions::new();
    open.read(true).write(true).custom_flags(OFlags::NOCTTY.bits().cast_signed());
    (master, open.open(name.to_str().unwrap()).unwrap())
}

#[test]
fn a_view_whose_terminal_is_gone_does_not_end_a_run() {
    let place = talking();
    let (master, slave) = terminal();
    let mut command = place.command(&["exec", "talk.yaml"]);
    let mut child = command.stderr(slave).spawn().unwrap();
    // The command still holds the other end.
    drop(command);
    place.wait_for("talk", "running");
    drop(master);
    assert_eq!(ended(&mut child), Some(0));
    assert_eq!(place.json(&["show"])["status"], "succeeded");
}

/// The program as the leader of a session of its own on a terminal.
fn leading(place: &Place, args: &[&str], slave: &File) -> Command {
    let program = place.command(args);
    let mut leader = Command::new("setsid");
    leader.arg("-c").arg(program.get_program()).args(args).current_dir(place.path("")).env_clear();
    leader.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let end = || slave.try_clone().unwrap();
    leader.stdin(end()).stdout(end()).stderr(end());
    leader
}

#[test]
fn a_terminal_that_hangs_up_stops_the_run_at_a_safe_place() {
    let place = talking();
    let (master, slave) = terminal();
    let mut child = leading(&place, &["exec", "talk.yaml"], &slave).spawn().unwrap();
    drop(slave);
    place.wait_for("talk", "running");
    drop(master);
    assert_eq!(ended(&mut child), Some(129));
    assert_eq!(place.json(&["show"])["status"], "interrupted");
    assert!(!place.path("after").exists());
    place.write("short", "");
    place.expect(0, &["resume"]);
    assert!(place.path("after").exists());
}

#[test]
fn a_question_whose_terminal_hangs_up_is_answered_by_nobody() {
    let place = Place::new();
    place.runbook("gate", &format!("steps:\n{}{}", asks("sure", "DO IT"), reads("act", "touch acted")));
    let (master, slave) = terminal();
    let mut child = leading(&place, &["exec", "gate.yaml"], &slave).spawn().unwrap();
    drop(slave);
    place.wait_for("sure", "asking");
    std::thread::sleep(Duration::from_millis(300));
    drop(master);
    let code = ended(&mut child);
    // Whichever is noticed first: the signal, or that nobody can be asked.
    assert!(matches!(code, Some(129 | 5)), "{code:?}");
    assert!(!place.path("acted").exists());
    place.expect(0, &["answer", &place.newest(), "DO IT"]);
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let place = talking();
    place.write("short", "");
    place.expect(0, &["exec", "talk.yaml"]);
    for args in [["logs"].as_slice(), &["runs"], &["show"], &["runs", "--json"], &["steps"]] {
        let mut child = place.command(args).stderr(Stdio::null()).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(ended(&mut child), Some(0), "{args:?}");
    }
}
