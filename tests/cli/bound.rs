//! What a plan binds beside the items that a manifest names: the same keys in other collections, systems, time, settings.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::place::Place;

/// Two folders with files of the same names, and a runbook that deletes from both what a snapshot of the first gave.
fn two(drift: &str, order: &str) -> Place {
    let place = Place::new();
    for folder in ["a", "b"] {
        fs::create_dir(place.path(folder)).unwrap();
    }
    for name in ["a/k1", "a/k2", "a/k3", "a/k4", "b/k1", "b/k2", "b/k4", "b/other"] {
        place.write(name, name);
    }
    let at = |folder: &str| place.path(folder).display().to_string();
    place.runbook(
        "two",
        &format!(
            "drift: {drift}\n\
             connections:\n  a: {{ type: directory, path: \"{}\" }}\n  b: {{ type: directory, path: \"{}\" }}\n\
             collections:\n  one: {{ type: files, connection: a }}\n  two: {{ type: files, connection: b }}\n\
             limits: {{ max_items: 10 }}\n\
             steps:\n\
             \x20 - {{ id: first, uses: snapshot, with: {{ collection: one }} }}\n\
             \x20 - {{ id: sure, uses: confirm-prompt, with: {{ message: m, phrases: [\"YES\"] }} }}\n\
             \x20 - id: purge\n    uses: delete-batch\n    waive: {{ RB0501: the keys are those of the first }}\n    with:\n      \
             collections: {order}\n      keys: \"${{{{ steps.first.outputs.manifest }}}}\"\n\
             \x20 - {{ id: left, uses: count, with: {{ collections: [one, two] }} }}\n",
            at("a"),
            at("b")
        ),
    );
    place.expect(0, &["plan", "two.yaml", "-o", "plan.json"]);
    place
}

fn files(place: &Place) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for folder in ["a", "b"] {
        let names = fs::read_dir(place.path(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        all.extend(names.map(|name| format!("{folder}/{}", name.into_string().unwrap())));
    }
    all
}

fn outputs(place: &Place, step: &str) -> Value {
    let steps = place.json(&["show"])["steps"].clone();
    steps.as_array().unwrap().iter().find(|one| one["id"] == step).unwrap()["outputs"].clone()
}

const APPLY: [&str; 5] = ["exec", "--plan", "plan.json", "--confirm", "sure=YES"];

#[test]
fn an_item_that_moved_in_a_collection_that_gave_no_key_is_drift() {
    type Change = fn(&Place);
    let changes: [(Change, &str); 3] = [
        (|place| place.write("b/k2", "it is another one"), "1 changed (k2)"),
        (|place| place.write("b/k3", "it was not there"), "1 changed (k3)"),
        (|place| fs::remove_file(place.path("b/k1")).unwrap(), "1 gone in part (k1)"),
    ];
    for (change, words) in changes {
        // Between the plan and the run.
        let place = two("refuse", "[two, one]");
        change(&place);
        let before = files(&place);
        let ran = place.expect(9, &APPLY);
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
        assert_eq!(place.json(&["runs"]), serde_json::json!([]), "{words}");
        assert_eq!(files(&place), before, "{words}");
        // While the run waits.
        let place = two("refuse", "[two, one]");
        place.expect(5, &["exec", "--plan", "plan.json"]);
        change(&place);
        let ran = place.expect(9, &["answer", &place.newest(), "YES"]);
        assert!(ran.err.contains(words) && ran.err.contains("nothing was deleted"), "{words}: {}", ran.err);
        assert_eq!(files(&place), before, "{words}");
    }
    // What is in the second collection under a key that is in no manifest moves nobody.
    let place = two("refuse", "[two, one]");
    place.write("b/other", "it is another one");
    place.expect(0, &APPLY);
    assert_eq!(files(&place), ["b/other".to_owned()].into());
    assert_eq!(outputs(&place, "purge")["guard"], serde_json::json!({ "one": "looks", "two": "looks" }));
}

#[test]
fn what_moved_in_a_collection_that_gave_no_key_is_left_alone_in_both() {
    let place = two("subset", "[two, one]");
    place.expect(5, &["exec", "--plan", "plan.json"]);
    place.write("b/k2", "it is another one");
    place.write("b/k3", "it was not there");
    fs::remove_file(place.path("b/k1")).unwrap();
    let ran = place.expect(0, &["answer", &place.newest(), "YES"]);
    assert!(ran.err.contains("2 changed (k2, k3), 1 gone in part (k1)"), "{}", ran.err);
    let left = ["a/k2", "a/k3", "b/k2", "b/k3", "b/other"].map(str::to_owned);
    assert_eq!(files(&place), left.into());
    let outputs = outputs(&place, "purge");
    assert_eq!((&outputs["not_in_plan"], &outputs["deleted"]["two"]), (&Value::from(2), &Value::from(1)));
}

#[test]
fn each_item_is_held_to_its_version_in_every_collection_also_after_a_resume() {
    let place = two("refuse", "[one, two]");
    place.expect(5, &["exec", "--plan", "plan.json"]);
    // Put aside and put back, it is the same file again.
    fs::rename(place.path("a/k2"), place.path("aside")).unwrap();
    place.write("a/k2", "it is another one");
    let ran = place.expect(4, &["answer", &place.newest(), "YES"]);
    assert!(ran.err.contains("`k2` changed since the snapshot"), "{}", ran.err);
    assert_eq!(files(&place), ["a/k2", "b/k2", "b/other"].map(str::to_owned).into());
    fs::rename(place.path("aside"), place.path("a/k2")).unwrap();
    place.write("b/k2", "it is another one");
    let ran = place.expect(4, &["resume"]);
    assert!(ran.err.contains("`k2` changed since the snapshot"), "{}", ran.err);
    assert_eq!(files(&place), ["b/k2", "b/other"].map(str::to_owned).into());
    assert_eq!(place.text("b/k2"), "it is another one");
}
