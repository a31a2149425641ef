//! Nobody listens any more: a full device, a closed pipe, a terminal that went away.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::place::{Place, asks, reads, wait_until};

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

#[test]
fn a_pipe_or_a_terminal_that_nobody_reads_keeps_no_freeze() {
    for on_terminal in [false, true] {
        let place = Place::new();
        place.write("app.env", "MAX_MB=25\n");
        // More than a pipe takes.
        let talks = "for a in $(seq 30); do for b in $(seq 100); do echo a line of output that takes some room: $a $b; done; sleep 0.05; done; sleep 60";
        place.runbook(
            "hold",
            &format!(
                "steps:\n  - id: freeze\n    uses: freeze\n    with:\n      env_file: {{ path: \"{}\", variable: MAX_MB, value: \"0\" }}\n      \
                 max_hold: 6s\n{}  - {{ id: thaw, uses: unfreeze, with: {{ freeze: freeze }} }}\n",
                place.path("app.env").display(),
                reads("talk", talks)
            ),
        );
        let mut command = place.command(&["exec", "hold.yaml"]);
        let (mut reader, writer) = if on_terminal {
            let (master, slave) = terminal();
            (File::from(master), OwnedFd::from(slave))
        } else {
            let (reader, writer) = std::io::pipe().unwrap();
            (File::from(OwnedFd::from(reader)), OwnedFd::from(writer))
        };
        let mut child = command.stderr(writer).spawn().unwrap();
        drop(command);
        wait_until("frozen", || place.text("app.env").contains("MAX_MB=0"));
        wait_until("put back", || place.text("app.env") == "MAX_MB=25\n");
        wait_until("ended", || place.json(&["runs"])[0]["status"] == "failed");
        let run = place.newest();
        let logged = place.text(&format!("state/runs/{run}/log.jsonl"));
        assert_eq!(logged.matches("takes some room").count(), 3000, "on a terminal: {on_terminal}");
        let read = std::thread::spawn(move || {
            let mut all = Vec::new();
            // A terminal ends with an error.
            let _ = reader.read_to_end(&mut all);
            String::from_utf8_lossy(&all).into_owned()
        });
        assert_eq!(ended(&mut child), Some(4));
        let told = read.join().unwrap();
        assert!(told.contains("lines were not shown") && told.contains("runbook logs"), "{told}");
    }
}
