//! What a plan binds beside the items that a manifest names: the same keys in other collections, systems, time, settings.

use std::collections::BTreeSet;
use std::fs;

use jiff::Timestamp;
use serde_json::Value;

use crate::place::{Place, wait_until};

/// Two folders with files of the same names, and a runbook that deletes from both what a snapshot of the first gave.
fn two(drift: &str, order: &str) -> Place {
    let place = Place::new();
    for folder in ["a", "b"] {
        fs::create_dir(place.path(folder)).unwrap();
    }
    // Run between the question and the delete: what it does is up to the test.
    place.write("between.sh", "");
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
             \x20 - {{ id: between, uses: command, with: {{ argv: [sh, between.sh], effect: {{ class: read, repeat: repeatable }} }} }}\n\
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

/// Another folder with the same files, down to their times.
fn twin(place: &Place, of: &str, name: &str) {
    fs::create_dir(place.path(name)).unwrap();
    for entry in fs::read_dir(place.path(of)).unwrap() {
        let entry = entry.unwrap();
        let copy = place.path(name).join(entry.file_name());
        fs::copy(entry.path(), &copy).unwrap();
        let file = fs::File::options().write(true).open(&copy).unwrap();
        file.set_modified(entry.metadata().unwrap().modified().unwrap()).unwrap();
    }
}

/// Until the saved plan has expired.
fn wait_for_expiry(place: &Place) {
    let plan: Value = serde_json::from_str(&place.text("plan.json")).unwrap();
    let until: Timestamp = plan["expires_at"].as_str().unwrap().parse().unwrap();
    wait_until("the plan expires", || Timestamp::now() > until);
}

/// Enough for a run to begin in time, on a machine that has other things to do.
const SOON: &str = "6s";

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
    let ran = place.expect(9, &["answer", &place.newest(), "YES"]);
    assert!(ran.err.contains("`k2` changed since the snapshot"), "{}", ran.err);
    assert_eq!(files(&place), ["a/k2", "b/k2", "b/other"].map(str::to_owned).into());
    fs::rename(place.path("aside"), place.path("a/k2")).unwrap();
    place.write("b/k2", "it is another one");
    let ran = place.expect(9, &["resume"]);
    assert!(ran.err.contains("`k2` changed since the snapshot"), "{}", ran.err);
    assert_eq!(files(&place), ["b/k2", "b/other"].map(str::to_owned).into());
    assert_eq!(place.text("b/k2"), "it is another one");
}

#[test]
fn every_item_whose_version_is_known_is_guarded_in_whatever_collection() {
    let place = Place::new();
    for folder in ["a", "b"] {
        fs::create_dir(place.path(folder)).unwrap();
    }
    // The orphan sorts first, and is of the other collection.
    for name in ["a/k1", "a/k2", "b/a0", "b/k1", "b/k2"] {
        place.write(name, name);
    }
    let at = |folder: &str| place.path(folder).display().to_string();
    place.runbook(
        "two",
        &format!(
            "connections:\n  a: {{ type: directory, path: \"{}\" }}\n  b: {{ type: directory, path: \"{}\" }}\n\
             collections:\n  one: {{ type: files, connection: a }}\n  two: {{ type: files, connection: b }}\n\
             limits: {{ max_items: 10 }}\n\
             steps:\n\
             \x20 - {{ id: first, uses: snapshot, with: {{ collection: one }} }}\n\
             \x20 - {{ id: second, uses: snapshot, with: {{ collection: two, compare_with: \"${{{{ steps.first.outputs.manifest }}}}\" }} }}\n\
             \x20 - {{ id: sure, uses: confirm-prompt, with: {{ message: m, phrases: [\"YES\"] }} }}\n\
             \x20 - id: purge\n    uses: delete-batch\n    with:\n      collections: [two, one]\n      \
             keys: [\"${{{{ steps.first.outputs.manifest }}}}\", \"${{{{ steps.second.outputs.only_here.manifest }}}}\"]\n\
             \x20 - {{ id: left, uses: count, with: {{ collections: [one, two] }} }}\n",
            at("a"),
            at("b")
        ),
    );
    place.expect(0, &["plan", "two.yaml", "-o", "plan.json"]);
    place.expect(5, &["exec", "--plan", "plan.json"]);
    place.write("a/k2", "it is another one");
    let ran = place.expect(9, &["answer", &place.newest(), "YES"]);
    assert!(ran.err.contains("`k2` changed since the snapshot"), "{}", ran.err);
    assert_eq!(place.text("a/k2"), "it is another one");
    assert!(!place.path("b/a0").exists());
}

#[test]
fn a_run_does_not_go_on_with_another_system_under_the_same_name() {
    let place = two("refuse", "[two, one]");
    place.expect(5, &["exec", "--plan", "plan.json"]);
    let run = place.newest();
    twin(&place, "b", "twin");
    fs::rename(place.path("b"), place.path("b_before")).unwrap();
    fs::rename(place.path("twin"), place.path("b")).unwrap();
    let before = files(&place);
    for args in [&["answer", &run, "YES"][..], &["resume", &run]] {
        let ran = place.expect(9, args);
        assert!(
            ran.err.contains("system `b`: it was") && ran.err.contains("nothing was done"),
            "{}",
            ran.err
        );
    }
    let refused = place.command(&["resume", &run, "--json"]).output().unwrap();
    let refused: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(refused["refused"]["moved"][0]["name"], "b", "{refused}");
    assert_eq!(files(&place), before);
    // Nor with none, in the place of which something could be made.
    fs::remove_dir_all(place.path("b")).unwrap();
    let ran = place.expect(9, &["answer", &run, "YES"]);
    assert!(ran.err.contains("(not there)"), "{}", ran.err);
    // With the folder that was looked at it goes on.
    fs::rename(place.path("b_before"), place.path("b")).unwrap();
    place.expect(0, &["answer", &run, "YES"]);
    assert_eq!(files(&place), ["b/other".to_owned()].into());
}

#[test]
fn a_system_that_is_exchanged_during_the_run_is_not_touched() {
    let place = two("refuse", "[two, one]");
    twin(&place, "b", "twin");
    place.expect(5, &["exec", "--plan", "plan.json"]);
    place.write("between.sh", "mv b b_before && mv twin b");
    let before = files(&place);
    let ran = place.expect(9, &["answer", &place.newest(), "YES"]);
    assert!(
        ran.err.contains("not begun: the reviewed plan") && ran.err.contains("`b`: it was"),
        "{}",
        ran.err
    );
    assert_eq!(files(&place), before);
    // A run that can not go on can be ended from there.
    place.expect(6, &["cancel", &place.newest()]);
}

#[test]
fn a_folder_that_the_run_makes_itself_is_no_other_system() {
    let place = Place::new();
    fs::create_dir(place.path("a")).unwrap();
    place.write("a/k1", "kept elsewhere");
    let at = |folder: &str| place.path(folder).display().to_string();
    place.runbook(
        "moved",
        &format!(
            "inputs:\n  page: {{ type: integer, default: 5 }}\n\
             connections:\n  a: {{ type: directory, path: \"{}\" }}\n  out: {{ type: directory, path: \"{}\" }}\n\
             collections:\n  one: {{ type: files, connection: a }}\n\
             limits: {{ max_items: 10 }}\n\
             steps:\n\
             \x20 - id: first\n    uses: snapshot\n    with: {{ collection: one, page_size: \"${{{{ inputs.page }}}}\", export: {{ connection: out, folder: \"${{{{ run.id }}}}\" }} }}\n\
             \x20 - {{ id: sure, uses: confirm-prompt, with: {{ message: m, phrases: [\"YES\"] }} }}\n\
             \x20 - {{ id: purge, uses: delete-batch, with: {{ collections: one, keys: \"${{{{ steps.first.outputs.manifest }}}}\" }} }}\n\
             \x20 - {{ id: left, uses: count, with: {{ collections: one }} }}\n",
            at("a"),
            at("out")
        ),
    );
    place.expect(0, &["plan", "moved.yaml", "-o", "plan.json"]);
    // How much is read at once only changes the speed.
    place.expect(5, &["exec", "--plan", "plan.json", "-i", "page=3"]);
    place.expect(0, &["answer", &place.newest(), "YES"]);
    assert!(!place.path("a/k1").exists() && place.path("out").exists());
}

#[test]
fn nothing_is_begun_to_be_destroyed_after_the_plan_has_expired() {
    let place = two("refuse", "[two, one]");
    place.expect(0, &["plan", "two.yaml", "-o", "plan.json", "--expires", SOON]);
    place.expect(5, &["exec", "--plan", "plan.json"]);
    let run = place.newest();
    wait_for_expiry(&place);
    let before = files(&place);
    for args in [&["answer", &run, "YES"][..], &["resume", &run]] {
        let ran = place.expect(9, args);
        assert!(ran.err.contains("expired") && ran.err.contains("runbook plan "), "{}", ran.err);
    }
    assert_eq!(place.query("select body from events where body like '%answered%'"), Vec::<String>::new());
    place.expect(6, &["cancel", &run]);
    // One that expires while the run is under way.
    place.expect(0, &["plan", "two.yaml", "-o", "plan.json", "--expires", SOON]);
    place.expect(5, &["exec", "--plan", "plan.json"]);
    let plan: Value = serde_json::from_str(&place.text("plan.json")).unwrap();
    let until: Timestamp = plan["expires_at"].as_str().unwrap().parse().unwrap();
    place
        .write("between.sh", &format!("while [ $(date +%s) -le {} ]; do sleep 0.1; done", until.as_second()));
    let ran = place.expect(9, &["answer", &place.newest(), "YES"]);
    assert!(ran.err.contains("purge: not begun: the reviewed plan"), "{}", ran.err);
    assert_eq!(place.expect(9, &["resume"]).code, 9);
    assert_eq!(files(&place), before);
}

#[test]
fn a_delete_that_has_begun_goes_on_after_the_plan_has_expired() {
    let place = two("refuse", "[one, two]");
    place.expect(0, &["plan", "two.yaml", "-o", "plan.json", "--expires", SOON]);
    place.expect(5, &["exec", "--plan", "plan.json"]);
    fs::rename(place.path("a/k2"), place.path("aside")).unwrap();
    place.write("a/k2", "it is another one");
    place.expect(9, &["answer", &place.newest(), "YES"]);
    fs::rename(place.path("aside"), place.path("a/k2")).unwrap();
    wait_for_expiry(&place);
    place.expect(0, &["resume"]);
    assert_eq!(files(&place), ["b/other".to_owned()].into());
}

#[test]
fn a_step_that_writes_is_bound_by_everything_that_its_settings_come_to() {
    let place = Place::new();
    let look = |id: &str| {
        format!(
            "  - {{ id: {id}, uses: command, with: {{ argv: [cat, which], parse: lines, effect: {{ class: read, repeat: repeatable }} }} }}\n"
        )
    };
    place.runbook(
        "told",
        &format!(
            "secrets: {{ key: {{ file: \"{}\" }} }}\n\
             connections:\n  away: {{ type: http, url: \"http://127.0.0.1:9\" }}\n  here: {{ type: directory, path: \"{}\" }}\n\
             collections: {{ all: {{ type: files, connection: here, pattern: which }} }}\n\
             steps:\n\
             \x20 - {{ id: held, uses: snapshot, with: {{ collection: all }} }}\n{}\
             \x20 - {{ id: sure, uses: confirm-prompt, with: {{ message: m, phrases: [\"YES\"] }} }}\n{}\
             \x20 - {{ id: maybe, needs: [again], uses: command, if: \"${{{{ steps.again.outputs.lines[0] == 'bob' }}}}\", with: {{ argv: [touch, maybe], effect: {{ class: write, repeat: repeatable }} }} }}\n\
             \x20 - id: tell\n    needs: [again]\n    uses: command\n    with:\n      argv: [touch, told]\n      \
             env: {{ TO: \"${{{{ steps.again.outputs.lines[0] }}}}\", AT: \"${{{{ steps.look.ended_at }}}} after ${{{{ steps.look.outputs.duration_ms }}}} ms, ${{{{ steps.held.outputs.taken_at }}}}\", KEY: \"${{{{ secrets.key }}}}\" }}\n      \
             effect: {{ class: write, repeat: repeatable }}\n\
             \x20 - id: put\n    uses: http\n    with:\n      connection: away\n      method: PUT\n      path: /x\n      \
             headers: {{ X-To: \"${{{{ steps.again.outputs.lines[0] }}}}\" }}\n      form: {{ to: \"${{{{ steps.again.outputs.lines[0] }}}}\" }}\n      \
             effect: {{ class: write, repeat: repeatable }}\n",
            place.path("key").display(),
            place.path("").display(),
            look("look"),
            look("again"),
        ),
    );
    place.write("key", "one-secret-of-many");
    place.write("which", "ada\n");
    place.expect(0, &["plan", "told.yaml", "-o", "plan.json"]);
    assert!(!place.text("plan.json").contains("one-secret-of-many"));
    place.write("which", "bob\n");
    let ran = place.expect(9, &["exec", "--plan", "plan.json"]);
    for words in [
        "`tell`: its settings come to something else (`env`)",
        "`put`: its settings come to something else (`form`, `headers`)",
    ] {
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
    // Another value of a secret, and another time, are no other settings.
    place.write("which", "ada\n");
    place.write("key", "another-secret-of-many");
    place.expect(5, &["exec", "--plan", "plan.json"]);
    place.write("which", "bob\n");
    let ran = place.expect(9, &["answer", &place.newest(), "YES"]);
    for words in [
        "tell: not begun: its settings come to something else (`env`)",
        "maybe: not begun: the reviewed plan",
    ] {
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
    assert!(!place.path("told").exists() && !place.path("maybe").exists(), "{}", ran.err);
}
