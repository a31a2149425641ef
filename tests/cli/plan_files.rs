//! The files of plans: compared, written over, and gone when nobody needs them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::place::{Place, reads, wait_until};
use crate::planned;

#[test]
fn two_plans_are_compared_item_by_item_whatever_the_policy() {
    for drift in ["refuse", "subset"] {
        let place = planned::place(drift);
        place.expect(0, &["plan", "clean.yaml", "-o", "before.json"]);
        assert!(place.expect(0, &["plan", "diff", "before.json", "before.json"]).out.contains("do the same"));
        place.write("logs/new.log", "it came later");
        place.write("logs/a.log", "it is another one");
        fs::remove_file(place.path("logs/b.log")).unwrap();
        fs::remove_file(place.path("logs/c.log")).unwrap();
        place.expect(0, &["plan", "clean.yaml", "-o", "after.json"]);
        let said = place.expect(9, &["plan", "diff", "before.json", "after.json"]).out;
        let words =
            "`purge`: 8 items then, and 7 now: 1 new (new.log), 1 changed (a.log), 2 gone (b.log, c.log)";
        assert!(said.contains(words), "{drift}: {said}");
        assert!(said.contains("DELETE 8 FILES") && said.contains("DELETE 7 FILES"), "{drift}: {said}");
        assert_eq!(place.state_files(), Vec::<PathBuf>::new(), "comparing keeps nothing");
    }
}

#[test]
fn a_plan_that_is_written_over_leaves_no_sets() {
    let place = planned::place("refuse");
    let sets = || {
        let starts = fs::read_dir(place.path("plan.json.sets")).into_iter().flatten().flatten();
        starts.flat_map(|start| fs::read_dir(start.path()).into_iter().flatten().flatten()).count()
    };
    planned::saved(&place);
    assert_eq!(sets(), 1);
    let first = place.text("plan.json");
    place.write("logs/new.log", "it came later");
    // What is no set of a plan stays, wherever it is.
    place.write("plan.json.sets/notes.txt", "mine");
    planned::saved(&place);
    assert_ne!(place.text("plan.json"), first);
    assert_eq!((sets(), place.text("plan.json.sets/notes.txt").as_str()), (1, "mine"));
    place.expect(5, &["exec", "--plan", "plan.json"]);
}

#[test]
fn what_a_killed_plan_has_read_is_gone_with_the_next_command_and_not_before() {
    let place = Place::new();
    fs::create_dir(place.path("logs")).unwrap();
    place.write("logs/a.log", "what is in it");
    let head = format!(
        "connections: {{ here: {{ type: directory, path: \"{}\" }} }}\n\
         collections: {{ logs: {{ type: files, connection: here }} }}\n\
         steps:\n  - {{ id: list, uses: snapshot, with: {{ collection: logs }} }}\n",
        place.path("logs").display()
    );
    let waits = reads("waits", "touch waits; while test ! -e go; do sleep 0.05; done");
    place.runbook("long", &format!("{head}{waits}"));
    place.runbook("short", &head);
    let planning =
        || place.state_files().into_iter().filter(|path| path.to_string_lossy().contains("/planning/"));
    let of_items = || planning().filter(|path| path.extension().is_none()).count();
    let killed = place.start(&["plan", "long.yaml"]);
    wait_until("it reads", || place.path("waits").exists());
    assert_ne!(of_items(), 0, "there is something to take away");
    for command in [&["plan", "short.yaml"][..], &["runs"]] {
        place.run(command);
        assert_ne!(of_items(), 0, "{command:?} takes it away from one that lives");
    }
    killed.kill();
    fs::write(place.path("go"), "").unwrap();
    assert_ne!(of_items(), 0, "a killed process takes nothing away");
    place.run(&["runs"]);
    assert_eq!(planning().collect::<Vec<_>>(), Vec::<PathBuf>::new());
    assert!(!place.path("state/planning").read_dir().unwrap().any(|entry| entry.is_ok()), "no folder either");
}

#[test]
fn a_plan_that_could_not_be_applied_at_any_time_is_not_made() {
    let place = planned::place("refuse");
    for expires in ["0s", "0ms"] {
        let ran = place.expect(2, &["plan", "clean.yaml", "-o", "plan.json", "--expires", expires]);
        assert!(ran.err.contains("would have expired"), "{}", ran.err);
        assert!(!place.path("plan.json").exists());
    }
    place.expect(0, &["plan", "clean.yaml", "-o", "plan.json", "--expires", "1s"]);
    std::thread::sleep(Duration::from_millis(1100));
    assert!(place.expect(9, &["exec", "--plan", "plan.json"]).err.contains("expired"));
}
