//! A process that was stopped (Ctrl-Z) keeps no other run from going on.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::place::{Place, Started, UNTIL_GO, reads, wait_until};

/// Set to the database that the process is to have for itself.
const HOLDS: &str = "RUNBOOK_TEST_HOLDS";

fn is_stopped(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "))
}

/// Whether somebody else can write to the database at this moment.
fn writable(place: &Place) -> bool {
    let options =
        SqliteConnectOptions::new().filename(place.path("state/state.db")).busy_timeout(Duration::ZERO);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = options.connect().await.unwrap();
        let begun = sqlx::query("begin immediate").execute(&mut connection).await.is_ok();
        connection.close().await.unwrap();
        begun
    })
}

fn stop(place: &Place, started: &Started) {
    started.signal(Signal::TSTP);
    wait_until("it is stopped", || is_stopped(started.id()));
    assert!(writable(place), "it was stopped in the middle of a write");
    started.signal(Signal::CONT);
}

#[test]
fn ctrl_z_never_stops_a_run_in_the_middle_of_a_write() {
    let place = Place::new();
    std::fs::create_dir(place.path("logs")).unwrap();
    for number in 0..400 {
        place.write(&format!("logs/{number}.log"), "x");
    }
    place.runbook("purge", &place.clean_up("", 1, ""));
    place.expect(5, &["exec", "purge.yaml"]);
    let started = place.start(&["answer", &place.newest(), "DELETE"]);
    wait_until("it deletes", || !place.path("logs/0.log").exists());
    for _ in 0..20 {
        stop(&place, &started);
        std::thread::sleep(Duration::from_millis(7));
    }
    assert_eq!(started.end().code, 0);
    assert_eq!(std::fs::read_dir(place.path("logs")).unwrap().count(), 0);
}

/// No test by itself: the process that has the database for itself.
#[test]
fn has_the_database() {
    let Some(database) = std::env::var_os(HOLDS) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = SqliteConnectOptions::new().filename(&database).connect().await.unwrap();
        sqlx::query("begin immediate").execute(&mut connection).await.unwrap();
        std::fs::write(std::path::Path::new(&database).with_extension("held"), "").unwrap();
        tokio::time::sleep(Duration::from_secs(120)).await;
    });
}

#[test]
fn a_run_waits_for_a_process_that_was_stopped_while_it_had_the_database() {
    let place = Place::new();
    let naps = reads("nap", UNTIL_GO) + &reads("after", "touch after");
    place.runbook("nap", &format!("steps:\n{naps}"));
    let started = place.start(&["exec", "nap.yaml"]);
    place.wait_for("nap", "running");
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "halted::has_the_database"])
        .env(HOLDS, place.path("state/state.db"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("it has it", || place.path("state/state.held").exists());
    kill_process(Pid::from_child(&holder), Signal::STOP).unwrap();
    place.write("go", "");
    let refused = place.expect(7, &["exec", "nap.yaml"]);
    let go_on = format!("kill -CONT {}", holder.id());
    assert!(refused.err.contains(&go_on) && !refused.err.contains("df -h"), "{}", refused.err);
    std::thread::sleep(Duration::from_secs(6));
    holder.kill().unwrap();
    holder.wait().unwrap();
    let ran = started.end();
    assert!(ran.code == 0 && place.path("after").exists(), "{}", ran.err);
    assert!(ran.err.contains(&go_on), "{}", ran.err);
}
