//! One run that can not be read is in nobody's way.

use std::time::Duration;

use crate::place::{Place, asks, reads};

/// A place with a run that holds something for two seconds at most and waits, one that waits, and one that was cancelled: their ids.
fn place() -> (Place, String, String, String) {
    let place = Place::new();
    place.write("app.env", "MAX_MB=25\n");
    let freeze = format!(
        "  - id: freeze\n    uses: freeze\n    with:\n      env_file: {{ path: \"{}\", variable: MAX_MB, value: \"0\" }}\n      max_hold: 1s\n",
        place.path("app.env").display()
    );
    let fails = reads("fails", "exit 1");
    place.runbook(
        "holds",
        &format!("steps:\n{freeze}{fails}  - {{ id: thaw, uses: unfreeze, with: {{ freeze: freeze }} }}\n"),
    );
    place.runbook("waits", &format!("steps:\n{}{}", asks("sure", "GO"), reads("act", "echo x >> acted")));
    place.expect(4, &["exec", "holds.yaml"]);
    let holds = place.newest();
    place.expect(5, &["exec", "waits.yaml"]);
    let waits = place.newest();
    place.expect(5, &["exec", "waits.yaml"]);
    let cancelled = place.newest();
    place.expect(6, &["cancel", &cancelled]);
    (place, holds, waits, cancelled)
}

/// What still works although one run is broken like this. `of` is where its id goes.
fn others_go_on(broken: &str, statement: Option<&str>) {
    let (place, holds, waits, cancelled) = place();
    place.expect(5, &["exec", "waits.yaml"]);
    let poisoned = place.newest();
    match statement {
        Some(statement) => {
            place.query(&statement.replace("POISONED", &poisoned).replace("CANCELLED", &cancelled));
        }
        None => {
            let folder = place.path(&format!("state/runs/{poisoned}"));
            std::fs::remove_dir_all(&folder).unwrap();
            std::fs::write(folder, "not a folder").unwrap();
        }
    }
    for command in [["runs"].as_slice(), &["runs", "--unfinished"]] {
        let ran = place.expect(0, command);
        assert!(
            ran.out.contains(&waits) && ran.out.contains(&holds),
            "{broken} {command:?}\n{}{}",
            ran.out,
            ran.err
        );
    }
    let ran = place.run(&["resume", &poisoned]);
    assert!(
        [2, 5, 7].contains(&ran.code) && !ran.err.contains("panicked"),
        "{broken}: {}\n{}",
        ran.code,
        ran.err
    );
    place.expect(5, &["resume", &waits]);
    std::thread::sleep(Duration::from_millis(1100));
    // What the broken run holds is still told, as a failure.
    let ran = place.run(&["reconcile"]);
    assert!([0, 4].contains(&ran.code), "{broken}: {}\n{}", ran.code, ran.err);
    assert_eq!(place.text("app.env"), "MAX_MB=25\n", "{broken}");
    place.expect(0, &["answer", &waits, "GO"]);
    assert_eq!(place.text("acted"), "x\n", "{broken}");
    place.expect(6, &["cancel", &holds]);
    place.expect(5, &["exec", "waits.yaml"]);
    place.expect(6, &["cancel", &place.newest()]);
}

#[test]
fn its_plan() {
    others_go_on("the plan", Some("update runs set plan = '{' where id = 'POISONED'"));
}

#[test]
fn its_row() {
    others_go_on(
        "the row",
        Some("update runs set status = 'nonsense', created_at = 'never' where id = 'POISONED'"),
    );
}

#[test]
fn its_events() {
    others_go_on("an event", Some("update events set body = '[]' where run = 'POISONED' and seq = 3"));
}

#[test]
fn the_end_of_a_cancelled_one() {
    others_go_on("the end", Some("update events set body = '[]' where run = 'CANCELLED'"));
}

#[test]
fn what_it_holds() {
    others_go_on(
        "an obligation",
        Some(
            "insert into obligations (run, id, target, label, step, body, opened_at, hold_until) values ('POISONED', 'x-1', 'x', 'x', 'x', '[]', 'never', 'never')",
        ),
    );
}

#[test]
fn its_folder() {
    others_go_on("the folder", None);
}
