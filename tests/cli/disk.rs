//! The state on a disk that is full, in a folder that can not be written, lost, and broken.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::place::{Place, Ran, finished, reads};

/// A freeze, then steps that are given by `rest`.
fn holding(rest: &str) -> Place {
    let place = Place::new();
    place.write("app.env", "MAX_MB=25\n");
    let freeze = format!(
        "  - id: freeze\n    uses: freeze\n    with:\n      env_file: {{ path: \"{}\", variable: MAX_MB, value: \"0\" }}\n",
        place.path("app.env").display()
    );
    place.runbook("hold", &format!("steps:\n{freeze}{rest}"));
    place
}

/// A place with one run that held something when its process was killed.
fn killed() -> (Place, String) {
    let place = holding(&reads("nap", "test -e go || exec sleep 20"));
    let started = place.start(&["exec", "hold.yaml"]);
    place.wait_for("nap", "running");
    started.kill();
    let run = place.newest();
    (place, run)
}

/// Runs the program where no file can grow beyond a few hundred KB, as on a disk that is full.
fn limited(place: &Place, args: &[&str]) -> Ran {
    let program = place.command(args);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "trap '' XFSZ; ulimit -f 600; exec \"$0\" \"$@\""])
        .arg(program.get_program())
        .args(args);
    shell.current_dir(place.path("")).env_clear();
    shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdin(Stdio::null());
    finished(shell.output().unwrap())
}

fn has_all(ran: &Ran, parts: &[&str]) {
    for part in parts {
        assert!(ran.err.contains(part), "{part}\n{}{}", ran.out, ran.err);
    }
}

#[test]
fn a_full_disk_stops_the_run_and_what_is_not_safe_is_told() {
    let line = "x".repeat(99);
    let talks = |id: usize| {
        let step = reads(&format!("talk{id}"), &format!("for i in $(seq 500); do echo {line}; done"));
        format!("{step}      parse: lines\n")
    };
    let place = holding(&(0..24).map(talks).collect::<String>());
    let ran = limited(&place, &["exec", "hold.yaml"]);
    assert_eq!(ran.code, 7, "{}", ran.err);
    let run = place.newest();
    let next = format!("runbook resume {run}   or   runbook cancel {run}");
    let unsafe_ = ["HELD      MAX_MB", "is NOT back", "its original value is 25", "NOT safe until then"];
    has_all(&ran, &unsafe_);
    has_all(&ran, &["Done      freeze", "does nothing more", "free space", &next]);
    for args in [["show"].as_slice(), &["runs"], &["logs"]] {
        let ran = limited(&place, args);
        assert_eq!(ran.code, 0, "{args:?}\n{}", ran.err);
        assert!(ran.out.contains(&run) || args == ["logs"], "{args:?}\n{}", ran.out);
    }
    let again = limited(&place, &["resume"]);
    assert_eq!(again.code, 7, "{}", again.err);
    has_all(&again, &unsafe_);
    assert_eq!(std::fs::read_to_string(place.path("app.env")).unwrap(), "MAX_MB=0\n");
    place.expect(6, &["cancel"]);
    assert_eq!(std::fs::read_to_string(place.path("app.env")).unwrap(), "MAX_MB=25\n");
}

/// Makes everything below readable and nothing writable, except for root.
fn freeze_rights(path: &Path) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            freeze_rights(&entry.unwrap().path());
        }
    }
    let mode = if path.is_dir() { 0o555 } else { 0o444 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The program as somebody whom the rights of files bind. None, and said, where there is nobody like that.
fn bound(place: &Place, args: &[&str]) -> Option<Ran> {
    const NOBODY: u32 = 65_534;
    let mut command = place.command(args);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
        // The program may lie in a folder that only root may enter.
        let copy = place.path("program");
        if !copy.exists() {
            std::fs::copy(command.get_program(), &copy).unwrap();
            chown(&copy, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut other = Command::new(&copy);
        other.args(args).current_dir(place.path("")).env_clear().uid(NOBODY).gid(NOBODY);
        other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        other.stdin(Stdio::null());
        command = other;
    }
    match command.output() {
        Ok(output) => Some(finished(output)),
        Err(error) => {
            eprintln!("SKIPPED: the program can not be run as somebody else: {error}");
            None
        }
    }
}

#[test]
fn a_state_that_can_only_be_read_is_shown() {
    let (place, run) = killed();
    std::fs::set_permissions(place.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    // With its shared memory, without it, and as a file that was closed.
    for gone in ["", "state.db-shm"] {
        if !gone.is_empty() {
            std::fs::set_permissions(place.path("state"), std::fs::Permissions::from_mode(0o755)).unwrap();
            std::fs::remove_file(place.path("state").join(gone)).unwrap();
        }
        freeze_rights(&place.path("state"));
        for args in [["show", &run].as_slice(), &["runs"], &["logs", &run]] {
            let Some(ran) = bound(&place, args) else { return };
            assert_eq!(ran.code, 0, "{gone} {args:?}\n{}", ran.err);
            assert!(ran.out.contains(&run) || args[0] == "logs", "{args:?}\n{}", ran.out);
            assert!(ran.out.contains("nap") || args == ["runs"], "{args:?}\n{}", ran.out);
            if !gone.is_empty() {
                assert!(ran.err.contains("is only read"), "{args:?}\n{}", ran.err);
            }
        }
        let Some(ran) = bound(&place, &["cancel", &run]) else { return };
        assert_eq!(ran.code, 7, "{}", ran.err);
        has_all(&ran, &["nothing was done", "NOT SAFE: MAX_MB", &run, "its original value is 25"]);
    }
    open_rights(&place.path("state"));
}

/// So that the folder can be removed.
fn open_rights(folder: &Path) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            open_rights(&path);
        }
    }
}

#[test]
fn a_lost_database_is_told_with_what_its_runs_may_hold() {
    let (place, run) = killed();
    let log = place.path(&format!("state/runs/{run}/log.jsonl"));
    let told = [
        &run,
        "it had NOT ended",
        log.to_str().unwrap(),
        "MAY STILL BE HELD: MAX_MB",
        "original value is 25",
    ];
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        std::fs::remove_file(place.path("state").join(name)).unwrap();
    }
    for (code, args) in
        [(0, ["runs"].as_slice()), (2, &["show"]), (0, &["runs", "--json"]), (2, &["resume"]), (0, &["runs"])]
    {
        has_all(&place.expect(code, args), &told);
    }
    place.runbook("small", &format!("steps:\n{}", reads("one", "true")));
    let ran = place.expect(0, &["exec", "small.yaml"]);
    has_all(&ran, &told);
    let other = place.newest();
    let ran = place.expect(0, &["runs"]);
    has_all(&ran, &told);
    assert!(!ran.err.contains(&other), "{}", ran.err);
    std::fs::remove_dir_all(place.path(&format!("state/runs/{run}"))).unwrap();
    assert_eq!(place.expect(0, &["runs"]).err, "");
}

/// Puts what is in the log of the database into its file.
fn checkpoint(place: &Place) {
    let url = format!("sqlite:{}", place.path("state/state.db").display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
        sqlx::query("pragma wal_checkpoint(truncate)").execute(&pool).await.unwrap();
        pool.close().await;
    });
}

#[test]
fn a_broken_database_is_refused_and_never_overwritten() {
    for cut in [false, true] {
        let (place, run) = killed();
        checkpoint(&place);
        let file = place.path("state/state.db");
        let whole = std::fs::read(&file).unwrap();
        let before =
            if cut { whole[..whole.len() / 2].to_vec() } else { [b"not a database", &*whole].concat() };
        std::fs::write(&file, &before).unwrap();
        for args in [["runs"].as_slice(), &["show"], &["exec", "hold.yaml"], &["cancel"]] {
            let ran = place.expect(7, args);
            has_all(
                &ran,
                &["the state store failed", "was left as it is", &run, "MAY STILL BE HELD: MAX_MB"],
            );
            assert!(std::fs::read(&file).unwrap() == before, "{args:?} changed the file");
        }
    }
}

#[test]
fn a_database_that_was_emptied_beside_its_log_is_refused() {
    let (place, run) = killed();
    let file = place.path("state/state.db");
    let log = std::fs::read(place.path("state/state.db-wal")).unwrap();
    assert!(!log.is_empty());
    for gone in [false, true] {
        std::fs::write(&file, "").unwrap();
        if gone {
            std::fs::remove_file(&file).unwrap();
        }
        for args in [["runs"].as_slice(), &["exec", "hold.yaml"], &["cancel"]] {
            has_all(&place.expect(7, args), &["nothing was touched", &run, "MAY STILL BE HELD: MAX_MB"]);
            assert!(
                std::fs::read(place.path("state/state.db-wal")).unwrap() == log,
                "{args:?} changed the log"
            );
        }
    }
}
