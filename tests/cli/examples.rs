//! Each example runs, with no server at all.

use crate::place::Place;

fn example(name: &str) -> String {
    format!("{}/examples/{name}.yaml", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn hello() {
    let place = Place::new();
    let ran = place.expect(0, &["exec", &example("hello")]);
    assert!(ran.err.contains(" log bye counted 3 numbers"), "{}", ran.err);
}

#[test]
fn parallel() {
    let place = Place::new();
    let ran = place.expect(0, &["exec", &example("parallel")]);
    assert!(ran.err.contains("step-skipped audit"), "{}", ran.err);
    let run = place.json(&["show"]);
    let started = |id: &str| {
        run["steps"].as_array().unwrap().iter().find(|one| one["id"] == id).unwrap()["started_at"].clone()
    };
    let ended =
        run["steps"].as_array().unwrap().iter().find(|one| one["id"] == "disk").unwrap()["ended_at"].clone();
    assert!(started("network").as_str() < ended.as_str(), "they did not run side by side");
    let ran =
        place.expect(0, &["exec", &example("parallel"), "-i", "environment=production", "-i", "seconds=0"]);
    assert!(ran.err.contains("the audit trail of production is complete"), "{}", ran.err);
}

#[test]
fn confirm() {
    let place = Place::new();
    place.expect(5, &["exec", &example("confirm"), "-i", "machine=db-1"]);
    let ran = place.expect(0, &["answer", &place.newest(), "TURN IT OFF"]);
    assert!(ran.err.contains("turning db-1 off"), "{}", ran.err);
}

#[test]
fn clean_up() {
    let place = Place::new();
    std::fs::create_dir(place.path("logs")).unwrap();
    for number in 0..130 {
        place.write(&format!("logs/{number}.log"), &format!("line of {number}\n"));
    }
    place.write("logs/keep.txt", "not a log");
    let inputs = ["exec", &example("clean-up"), "-i", "folder=logs", "-i", "backup=backup"];
    place.expect(5, &inputs);
    assert_eq!(std::fs::read_dir(place.path("logs")).unwrap().count(), 131);
    let ran = place.expect(0, &["answer", &place.newest(), "DELETE THE LOGS"]);
    assert!(ran.err.contains("deleted 130"), "{}", ran.err);
    let left: Vec<_> =
        std::fs::read_dir(place.path("logs")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["keep.txt"]);
    assert_eq!(std::fs::read_dir(place.path("backup")).unwrap().count(), 130);
}

#[test]
fn forget_sessions() {
    let place = Place::new();
    let make = r#"connections: { app: { type: sqlite, path: app.db, create: true } }
steps:
  - id: make
    uses: sql
    with:
      connection: app
      statements:
        - statement: create table sessions (id text primary key, name text, expires_at text not null)
        - statement: create table notes (at text, said text)
        - statement: insert into sessions values ('a', 'ada', '2020-01-01'), ('b', 'bob', '2999-01-01'), ('c', null, '2025-12-31')
      effect: { class: write, repeat: once }
"#;
    place.runbook("make", make);
    place.expect(0, &["exec", "make.yaml"]);
    place.expect(
        5,
        &["exec", &example("forget-sessions"), "-i", "database=app.db", "-i", "before=2026-01-01"],
    );
    place.expect(0, &["answer", &place.newest(), "DELETE THE SESSIONS"]);
    let look = r#"connections: { app: { type: sqlite, path: app.db } }
steps:
  - id: look
    uses: sql
    with:
      connection: app
      statement: select s.id, n.said from sessions s, notes n
      expect: { rows: 1, values: { id: b } }
"#;
    place.runbook("look", look);
    place.expect(0, &["exec", "look.yaml"]);
    let said = place.json(&["show"])["steps"][0]["outputs"]["rows"][0]["said"].clone();
    assert!(said.as_str().unwrap().ends_with("deleted 2 sessions"), "{said}");
}

#[test]
fn every_example_is_here() {
    let folder = format!("{}/examples", env!("CARGO_MANIFEST_DIR"));
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    // What is in `nightly` needs servers: `tests/images/nightly.rs` runs it.
    assert_eq!(
        names,
        ["clean-up.yaml", "confirm.yaml", "forget-sessions.yaml", "hello.yaml", "nightly", "parallel.yaml"]
    );
}
