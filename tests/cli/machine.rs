//! Faults of the machine: wherever they hit, the run stops before its next effect and says so, and a resume ends it once they are gone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::place::{Place, Ran, finished, reads};

/// How many steps the runbook has.
const STEPS: usize = 12;

/// A place whose steps each make a folder of their own, and say and return a lot.
fn place() -> Place {
    let place = Place::new();
    std::fs::create_dir(place.path("effects")).unwrap();
    let step = |number: usize| {
        let said = "for i in $(seq 250); do echo a line of output that takes some room in the record; done";
        reads(&format!("s{number:02}"), &format!("mktemp -d effects/s{number:02}.XXXXXX > /dev/null; {said}"))
            + "      parse: lines\n"
    };
    let last = "finally:\n  - { id: report, uses: report }\n";
    place.runbook("many", &format!("steps:\n{}{last}", (0..STEPS).map(step).collect::<String>()));
    place
}

/// How often each step had its effect.
fn effects(place: &Place) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(place.path("effects")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        *found.entry(name[..3].to_owned()).or_insert(0) += 1;
    }
    found
}

/// The program under a fault: `sh` starts it after `before`, with these variables.
fn under(place: &Place, before: &str, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    let program = place.command(args);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{before} exec \"$0\" \"$@\"")]).arg(program.get_program()).args(args);
    shell.current_dir(place.path("")).env_clear().stdin(Stdio::null());
    shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.envs(variables.iter().copied());
    finished(shell.output().unwrap())
}

/// What must hold after a fault and, once it is gone, after a resume.
fn stopped_and_ended(place: &Place, ran: &Ran, fault: &str) {
    assert_eq!(ran.code, 7, "{fault}\n{}", ran.err);
    let before = effects(place);
    let run = place.json(&["runs"])[0]["id"].as_str().map(str::to_owned);
    let Some(run) = run else {
        assert!(before.is_empty(), "{fault}: {before:?} without a run\n{}", ran.err);
        return;
    };
    let started = place.query("select json_extract(body, '$.what.data.step') from events where json_extract(body, '$.what.type') = 'step-started'");
    for (step, times) in &before {
        assert!(
            *times == 1 && started.contains(step),
            "{fault}: {step} {times} times, and {started:?} are recorded"
        );
    }
    // Nothing was begun after the record could not be kept.
    assert!(
        before.len() >= started.iter().filter(|step| step.starts_with('s')).count().saturating_sub(1),
        "{fault}"
    );
    if !before.is_empty() {
        for part in ["what is recorded is said above", &format!("runbook resume {run}"), "Done"] {
            assert!(
                part == "Done" && before.len() < 2 || ran.err.contains(part),
                "{fault}: {part}\n{}",
                ran.err
            );
        }
    }
    place.expect(0, &["resume", &run]);
    let after = effects(place);
    assert_eq!(after.len(), STEPS, "{fault}");
    let again: Vec<_> = after.iter().filter(|(_, times)| **times > 1).collect();
    assert!(again.len() <= 1 && after.values().all(|times| *times <= 2), "{fault}: {again:?} were repeated");
}

#[test]
fn a_disk_that_is_full_at_any_point() {
    let mut stopped = 0;
    // Blocks of 512 bytes: from too few for the first table to nearly enough for the whole run.
    for blocks in [8, 64, 128, 200, 260, 330, 420, 520] {
        let place = place();
        let limit = format!("trap '' XFSZ; ulimit -f {blocks};");
        let ran = under(&place, &limit, &[], &["exec", "many.yaml"]);
        if ran.code == 0 {
            continue;
        }
        stopped += usize::from(!effects(&place).is_empty());
        stopped_and_ended(&place, &ran, &format!("{blocks} blocks"));
    }
    assert!(stopped >= 2, "it was never full in the middle of the run");
}

#[test]
fn a_disk_that_is_too_full_for_a_snapshot() {
    let place = Place::new();
    std::fs::create_dir(place.path("logs")).unwrap();
    (0..60).for_each(|number| place.write(&format!("logs/{number:02}.log"), &"x".repeat(10_000)));
    place.runbook("many", &place.clean_up("limits: { max_items: 100 }\n", 10, ""));
    let ran = under(&place, "trap '' XFSZ; ulimit -f 600;", &[], &["exec", "many.yaml"]);
    assert_eq!(ran.code, 7, "{}", ran.err);
    assert!(
        !place.state_files().iter().any(|path| path.to_string_lossy().contains("/.new-")),
        "it leaves nothing behind"
    );
    place.expect(5, &["resume"]);
    place.expect(0, &["answer", &place.newest(), "DELETE"]);
    assert_eq!(std::fs::read_dir(place.path("logs")).unwrap().count(), 0);
}

/// A library in whose programs nothing reaches the disk any more after `SYNCS` times.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
static atomic_int calls;
static int fails(void) {
    const char *most = getenv("SYNCS");
    return most && atomic_fetch_add(&calls, 1) >= atoi(most);
}
#define SHIM(name) int name(int fd) { \
    static int (*real)(int); \
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, #name); \
    if (fails()) { errno = EIO; return -1; } \
    return real(fd); }
SHIM(fsync)
SHIM(fdatasync)
"#;

/// Builds it. None, and said, where there is no C compiler.
fn shim(place: &Place) -> Option<PathBuf> {
    place.write("shim.c", SHIM);
    let library = place.path("shim.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(place.path("shim.c"))
        .arg("-ldl")
        .status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: there is no C compiler to make fsync fail with");
        return None;
    }
    Some(library)
}

#[test]
fn a_disk_on_which_nothing_can_be_made_durable_any_more() {
    let tools = Place::new();
    let Some(library) = shim(&tools) else { return };
    let library = library.display().to_string();
    let mut stopped = 0;
    for syncs in [0, 2, 5, 9, 12, 16, 21, 27] {
        let place = place();
        let variables = [("LD_PRELOAD", library.as_str()), ("SYNCS", &syncs.to_string())];
        let ran = under(&place, "", &variables, &["exec", "many.yaml"]);
        stopped += usize::from(!effects(&place).is_empty());
        stopped_and_ended(&place, &ran, &format!("{syncs} syncs"));
    }
    assert!(stopped >= 3, "it never failed in the middle of the run");
}

#[test]
fn a_file_in_the_place_of_a_folder() {
    let place = place();
    place.write("state", "not a folder");
    let ran = place.expect(7, &["exec", "many.yaml"]);
    assert!(ran.err.contains("nothing was done") && effects(&place).is_empty(), "{}", ran.err);
    assert_eq!(place.text("state"), "not a folder");
    std::fs::remove_file(place.path("state")).unwrap();
    // The folder of the run's own files can not be made.
    std::fs::create_dir(place.path("state")).unwrap();
    place.write("state/runs", "not a folder");
    let ran = place.expect(7, &["exec", "many.yaml"]);
    assert!(effects(&place).is_empty(), "{}", ran.err);
    std::fs::remove_file(place.path("state/runs")).unwrap();
    place.expect(0, &["resume"]);
    assert_eq!(effects(&place).values().sum::<usize>(), STEPS);
}

/// Holds the database for itself once the first step has had its effect, until it is let go or for `longest`; how long the program took.
fn held_busy(place: &Place, longest: Duration) -> (Ran, Duration) {
    let url = format!("sqlite:{}", place.path("state/state.db").display());
    let (over, wait) = channel::<()>();
    let folder = place.path("effects");
    let holder = std::thread::spawn(move || {
        while std::fs::read_dir(&folder).unwrap().next().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            use sqlx::Connection;
            let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
            sqlx::query("begin exclusive").execute(&mut connection).await.unwrap();
            let _ = wait.recv_timeout(longest);
            sqlx::query("rollback").execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        });
    });
    let begun = Instant::now();
    let ran = place.run(&["exec", "many.yaml"]);
    let took = begun.elapsed();
    let _ = over.send(());
    holder.join().unwrap();
    (ran, took)
}

#[test]
fn a_database_that_another_program_holds_for_a_while_is_waited_for() {
    let place = place();
    let (ran, took) = held_busy(&place, Duration::from_secs(3));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(took > Duration::from_secs(3), "{took:?}");
    let effects = effects(&place);
    assert!(effects.len() == STEPS && effects.values().all(|times| *times == 1), "{effects:?}");
}

#[test]
fn a_database_that_another_program_does_not_let_go_stops_the_run() {
    let place = place();
    let (ran, took) = held_busy(&place, Duration::from_secs(60));
    assert!(took < Duration::from_secs(50), "{took:?}");
    assert!(effects(&place).len() < STEPS, "it went on");
    stopped_and_ended(&place, &ran, "busy");
}

#[test]
fn a_database_with_a_page_that_is_overwritten() {
    let whole = place();
    // With rights of their own, so that a resume has something to do.
    let gate = whole.text("many.yaml").replacen(
        "- id: s03",
        "- id: sure\n    uses: confirm-prompt\n    with: { message: Sure?, phrases: [GO] }\n  - id: s03",
        1,
    );
    whole.write("many.yaml", &gate);
    whole.expect(5, &["exec", "many.yaml"]);
    let run = whole.newest();
    whole.query("pragma wal_checkpoint(truncate)");
    let bytes = std::fs::read(whole.path("state/state.db")).unwrap();
    let before = effects(&whole);
    let mut refused = 0;
    for page in (0..bytes.len() / 4096).step_by(2) {
        for fill in [0x00, 0xA5] {
            let mut broken = bytes.clone();
            broken[page * 4096..page * 4096 + 512].fill(fill);
            std::fs::write(whole.path("state/state.db"), &broken).unwrap();
            for name in ["state.db-wal", "state.db-shm"] {
                let _ = std::fs::remove_file(whole.path("state").join(name));
            }
            let ran = whole.run(&["resume", &run]);
            // A page that nothing of the run is on is in nobody's way; then it still asks.
            assert!([5, 7].contains(&ran.code), "page {page} {fill}: {}\n{}", ran.code, ran.err);
            assert!(!ran.err.contains("panicked"), "{}", ran.err);
            assert_eq!(effects(&whole), before, "page {page}: it went on");
            refused += usize::from(ran.code == 7);
        }
    }
    assert!(refused >= 4, "only {refused} were noticed");
    std::fs::write(whole.path("state/state.db"), &bytes).unwrap();
    for name in ["state.db-wal", "state.db-shm"] {
        let _ = std::fs::remove_file(whole.path("state").join(name));
    }
    whole.expect(0, &["answer", &run, "GO"]);
    assert_eq!(effects(&whole).values().sum::<usize>(), STEPS);
}
