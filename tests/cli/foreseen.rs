//! What a plan shows is what a run would do: its limits, its repetitions, its failures, and what is another thing in each run.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::place::{Place, Ran, asks, reads};

/// The folders `one` and `two` with so many files of 10 bytes in each.
fn two_folders(files: usize) -> Place {
    let place = Place::new();
    for folder in ["one", "two"] {
        fs::create_dir(place.path(folder)).unwrap();
        for file in 0..files {
            place.write(&format!("{folder}/{file:02}.log"), "ten bytes.");
        }
    }
    place
}

/// What follows the description in a runbook that deletes all of both folders, in two steps; `one` is added to the first of them.
fn both(place: &Place, limits: &str, one: &str) -> String {
    let of = |name: &str| {
        format!(
            "  - id: list_{name}\n    uses: snapshot\n    with: {{ collection: {name} }}\n{}\
             \x20 - id: purge_{name}\n    uses: delete-batch\n    with: {{ collections: {name}, \
             keys: \"${{{{ steps.list_{name}.outputs.manifest }}}}\" }}\n",
            asks(&format!("sure_{name}"), "GO")
        )
    };
    format!(
        "connections:\n  a: {{ type: directory, path: \"{}\" }}\n  b: {{ type: directory, path: \"{}\" }}\n\
         collections:\n  one: {{ type: files, connection: a }}\n  two: {{ type: files, connection: b }}\n\
         {limits}steps:\n{}{one}{}",
        place.path("one").display(),
        place.path("two").display(),
        of("one"),
        of("two")
    )
}

/// A step that destroys without a set.
fn wipes(effect: &str) -> String {
    format!(
        "  - {{ id: wipe, uses: command, waive: {{ RB0501: it is a test, RB0502: it is a test }}, with: {{ argv: [touch, wiped]{effect} }} }}\n"
    )
}

fn step(plan: &Value, id: &str) -> Value {
    plan["steps"].as_array().unwrap().iter().find(|step| step["step"] == id).unwrap().clone()
}

fn documents(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap()
}

#[test]
fn the_limits_of_the_run_are_over_all_its_steps() {
    let place = two_folders(8);
    let after = "it would destroy 8 items, after 8 of the steps before it, and max_items of the run is 15";
    let bytes = "it would destroy 80 bytes, after 80 of the steps before it, and max_bytes of the run is 159";
    let declared = "it would destroy 8 items, after 9 of the steps before it, and max_items of the run is 16";
    let wipe = wipes(", effect: { class: destroy, repeat: repeatable, items: 1 }");
    for (limits, more, words) in [
        ("limits: { max_items: 15 }\n", "", after),
        ("limits: { max_bytes: 159 }\n", "", bytes),
        ("limits: { max_items: 16 }\n", wipe.as_str(), declared),
    ] {
        place.runbook("both", &both(&place, limits, more));
        let ran = place.expect(4, &["plan", "both.yaml"]);
        assert!(ran.out.replace("\n      ", " ").contains(words), "{limits}: {}", ran.out);
        // The run stops at the same step.
        place.expect(5, &["exec", "both.yaml"]);
        place.expect(5, &["answer", &place.newest(), "GO"]);
        assert_eq!(place.run(&["answer", &place.newest(), "GO"]).code, 10, "{limits}");
        let left = fs::read_dir(place.path("two")).unwrap().count();
        assert_eq!((fs::read_dir(place.path("one")).unwrap().count(), left), (0, 8), "{limits}");
        for file in 0..8 {
            place.write(&format!("one/{file:02}.log"), "ten bytes.");
        }
    }
    place.runbook("both", &both(&place, "limits: { max_items: 17, max_bytes: 160 }\n", &wipe));
    place.expect(0, &["plan", "both.yaml"]);
}

#[test]
fn a_share_of_what_is_there_is_foreseen() {
    let place = two_folders(8);
    place.runbook("both", &both(&place, "limits: { max_percent: 60 }\n", ""));
    let ran = place.expect(4, &["plan", "both.yaml"]);
    let words = "it would destroy 8 items, and max_percent 60 of 8, rounded down, is 4";
    assert!(ran.out.contains(words), "{}", ran.out);
    place.runbook("both", &both(&place, "limits: { max_percent: 100 }\n", ""));
    place.expect(0, &["plan", "both.yaml"]);
    // What a step before deletes from the same folder is not there any more when it is measured.
    let text =
        place.text("both.yaml").replace("max_percent: 100", "max_percent: 99").replace("/two\"", "/one\"");
    place.write("same.yaml", &text);
    let plan = documents(&place.run(&["plan", "same.yaml", "--json"]));
    assert_eq!(step(&plan, "purge_one")["standing"]["type"], Value::from("fails"), "{plan}");
}

#[test]
fn a_read_is_repeated_as_declared_and_bounded_by_its_timeout() {
    let place = Place::new();
    let flaky = reads("flaky", "echo x >> tries; test $(wc -l < tries) -ge 3");
    let retry = "    retry: { max_attempts: 3, delay: 10ms, on: [refused] }\n";
    place.runbook("flaky", &format!("steps:\n{flaky}{retry}"));
    let ran = place.expect(0, &["plan", "flaky.yaml"]);
    assert_eq!(place.text("tries").lines().count(), 3);
    assert!(ran.err.contains("attempt 1 of 3: ") && ran.err.contains("again in "), "{}", ran.err);
    place.write("tries", "");
    place.runbook("once", &format!("steps:\n{flaky}"));
    place.expect(4, &["plan", "once.yaml"]);
    assert_eq!(place.text("tries").lines().count(), 1, "nothing is repeated that is not declared so");
    place.runbook("slow", &format!("steps:\n{}    timeout: 300ms\n", reads("slow", "sleep 20")));
    let begun = Instant::now();
    let ran = place.expect(4, &["plan", "slow.yaml"]);
    assert!(ran.out.contains("it took longer than its timeout, 300ms"), "{}", ran.out);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn a_step_that_may_fail_does_not_end_the_plan() {
    let place = two_folders(3);
    let look = format!("{}    on_failure: continue\n", reads("look", "test -e there"));
    let told = reads("told", "echo told");
    let text = both(&place, "limits: { max_items: 10 }\n", "").replacen(
        "steps:\n",
        &format!("steps:\n{look}{told}"),
        1,
    );
    let status = reads("status", "true") + "    if: \"${{ steps.look.status == 'failed' }}\"\n";
    place.runbook("goes", &format!("{text}{status}"));
    let ran = place.expect(0, &["plan", "goes.yaml", "-o", "plan.json"]);
    for words in ["would fail", "the run goes on all the same", "note: it needs `look`, which would fail"] {
        assert!(ran.out.contains(words), "{words}: {}", ran.out);
    }
    let plan: Value = serde_json::from_str(&place.text("plan.json")).unwrap();
    let stands = |id: &str| step(&plan, id)["standing"]["type"].clone();
    assert_eq!(
        [stands("look"), stands("told"), stands("purge_two"), stands("status")],
        ["fails", "read", "would", "read"]
    );
    // It is applied, and the failure is there as planned; when it is not there any more, that is a difference.
    place.write("there", "");
    let ran = place.expect(9, &["exec", "--plan", "plan.json"]);
    assert!(ran.err.contains("`look`: it fails"), "{}", ran.err);
    fs::remove_file(place.path("there")).unwrap();
    place.expect(5, &["exec", "--plan", "plan.json"]);
    place.expect(5, &["answer", &place.newest(), "GO"]);
    place.expect(0, &["answer", &place.newest(), "GO"]);
    assert_eq!(fs::read_dir(place.path("two")).unwrap().count(), 0);
    // What uses what it would have given fails with it, and stops the run.
    let needs = reads("needs", "true") + "    if: \"${{ steps.look.outputs.exit_code == 0 }}\"\n";
    place.runbook("stops", &format!("steps:\n{look}{needs}{}", reads("last", "true")));
    let ran = place.run(&["plan", "stops.yaml", "--json"]);
    assert_eq!(ran.code, 4, "{}{}", ran.out, ran.err);
    let plan = documents(&ran);
    assert_eq!(step(&plan, "needs")["standing"]["type"], "fails");
    assert_eq!(step(&plan, "last")["standing"]["data"][0], "needs");
}

#[test]
fn what_is_another_thing_in_each_run_is_no_difference() {
    let place = two_folders(2);
    let first = "  - id: sure\n    uses: confirm-prompt\n    with:\n      message: \"Run ${{ run.id }} of ${{ run.created_at }}, \
                 list of ${{ steps.list_one.outputs.taken_at }}, after ${{ steps.look.outputs.duration_ms }} ms, ${{ steps.look.ended_at }}, \
                 ${{ steps.open.outputs.window.remaining_ms }} ms left\"\n      \
                 phrases: [GO]\n";
    let open = "  - { id: open, uses: assert, with: { window: { start: \"2020-01-01T00:00:00Z\", end: \"2999-01-01T00:00:00Z\" } } }\n";
    let writes = "  - { id: note, uses: command, with: { argv: [touch, \"at-${{ run.created_at }}-${{ steps.list_one.outputs.taken_at }}\"], \
                  effect: { class: write, repeat: repeatable } } }\n";
    let wipe = "  - { id: wipe, uses: command, waive: { RB0501: it is a test }, with: { argv: [touch, \"wiped-${{ steps.list_one.outputs.taken_at }}\"], \
                env: { TOOK: \"${{ steps.look.outputs.duration_ms * 2 }}\", WHEN: \"${{ run.created_at }}\" }, \
                effect: { class: destroy, repeat: repeatable, items: 1 } } }\n";
    let text = both(&place, "limits: { max_items: 10 }\n", "");
    let text = text.split("  - id: sure_one").next().unwrap().to_owned();
    place.runbook("timed", &format!("{text}{}{open}{first}{writes}{wipe}", reads("look", "sleep 0.01")));
    place.expect(0, &["plan", "timed.yaml", "-o", "plan.json"]);
    std::thread::sleep(Duration::from_millis(1100));
    let ran = place.run(&["exec", "--plan", "plan.json", "--confirm", "sure=GO"]);
    assert_ne!(ran.code, 9, "{}", ran.err);
    let names: Vec<String> = fs::read_dir(place.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.iter().any(|name| name.starts_with("at-2"))
            && names.iter().any(|name| name.starts_with("wiped-2")),
        "{names:?} {}",
        ran.err
    );
    // Only a phrase can not be given beforehand then.
    let phrase = "  - id: sure\n    uses: confirm-prompt\n    with: { message: m, phrases: [GO, \"RUN ${{ run.id }}\"] }\n";
    place.runbook("phrase", &format!("steps:\n{phrase}"));
    let ran = place.expect(0, &["plan", "phrase.yaml"]);
    let words = "the phrase at `with.phrases.1` holds `run.id`, which is another one in each run";
    assert!(ran.out.replace("\n      ", " ").contains(words), "{}", ran.out);
    // What a program says each time anew is told with both texts.
    let now =
        "      argv: [cat, now]\n      parse: lines\n      effect: { class: read, repeat: repeatable }\n";
    let asked = "  - id: sure\n    uses: confirm-prompt\n    with: { message: \"It is ${{ steps.now.outputs.lines[0] }}\", phrases: [GO] }\n";
    place.runbook("told", &format!("steps:\n  - id: now\n    uses: command\n    with:\n{now}{asked}"));
    place.write("now", "noon\n");
    place.expect(0, &["plan", "told.yaml", "-o", "told.json"]);
    place.write("now", "midnight\n");
    let ran = place.expect(9, &["exec", "--plan", "told.json"]);
    assert!(ran.err.contains("it asked `It is noon` then, and asks `It is midnight` now"), "{}", ran.err);
}

#[test]
fn what_is_destroyed_is_counted_with_who_says_so_and_told_where_it_begins() {
    let place = two_folders(8);
    let told = |more: &str| {
        place.runbook("both", &both(&place, "limits: { max_items: 100 }\n", more));
        place.expect(0, &["plan", "both.yaml"]).out
    };
    assert!(
        told("").contains("destroys 16 items, 160 B by their manifests; asks 2 questions"),
        "{}",
        told("")
    );
    let out = told(&wipes(", effect: { class: destroy, repeat: repeatable, items: 5 }"));
    let words = "destroys 21 items: 16 of sets, 160 B by their manifests, and 5 as its steps count";
    assert!(out.contains(words) && out.contains("counts as 5 items, as declared"), "{out}");
    let out = told(&wipes(", effect: { class: destroy, repeat: repeatable }"));
    assert!(out.contains("counts as 1 item, because nobody says how many"), "{out}");
    let out = told(&wipes(""));
    assert!(out.contains("; nobody says what wipe does"), "{out}");
    // Where nobody knows, the point of no return may be there.
    place.runbook("wipe", &format!("steps:\n{}{}", reads("look", "true"), wipes("")));
    let out = place.expect(0, &["plan", "wipe.yaml"]).out;
    let at = |words: &str| out.find(words).unwrap_or_else(|| panic!("{words}: {out}"));
    assert!(
        at("look") < at("there may be no way back") && at("there may be no way back") < at("? wipe"),
        "{out}"
    );
    assert!(out.contains("destroys nothing; nobody says what wipe does"), "{out}");
    // What is known later and destroys for sure stands behind its line too.
    let later = "  - { id: make, uses: command, with: { argv: [echo, x], parse: lines, effect: { class: write, repeat: repeatable } } }\n".to_owned()
        + &wipes(", env: { X: \"${{ steps.make.outputs.lines[0] }}\" }, effect: { class: destroy, repeat: repeatable, items: 3 }");
    place.runbook("later", &format!("steps:\n{later}"));
    let out = place.expect(0, &["plan", "later.yaml"]).out;
    assert!(out.contains("there is no way back") && out.contains("destroys what is known later"), "{out}");
}

#[test]
fn a_look_that_fails_before_a_change_may_hold_after_it() {
    let place = Place::new();
    let read = "effect: { class: read, repeat: repeatable }";
    let write = "effect: { class: write, repeat: repeatable }";
    let change = format!(
        "  - {{ id: change, uses: command, with: {{ argv: [sh, -c, \"# in lines\\necho new > told\"], env: {{ WHO: ada }}, {write} }} }}\n"
    );
    let look = |id: &str| {
        format!("  - {{ id: {id}, uses: command, with: {{ argv: [grep, -q, new, told], {read} }} }}\n")
    };
    place.write("after.yaml", &format!("runbook: after\nsteps:\n{change}{}", look("is_new")));
    let said = place.expect(0, &["plan", "after.yaml", "-o", "plan.json"]).out;
    assert!(said.contains("known after change"), "{said}");
    assert!(said.contains("looked at now, before `change`, it fails: `grep` exited with 2"), "{said}");
    assert!(said.contains("run `sh -c '# in lines … (2 lines)'` with WHO=ada"), "{said}");
    place.expect(0, &["exec", "--plan", "plan.json"]);

    // Before any change it stops the run, and what follows from values alone is the same at any time.
    fs::remove_file(place.path("told")).unwrap();
    place.write("before.yaml", &format!("runbook: before\nsteps:\n{}{change}", look("is_new")));
    assert!(place.expect(4, &["plan", "before.yaml"]).out.contains("would fail"));
    let never = "  - { id: never, uses: assert, with: { that: \"${{ 1 > 2 }}\", message: never } }\n";
    place.write("never.yaml", &format!("runbook: never\nsteps:\n{change}{never}"));
    assert!(place.expect(4, &["plan", "never.yaml"]).out.contains("would fail"));
}

#[test]
fn what_a_sentence_cuts_short_stands_below_it_as_it_is() {
    let place = Place::new();
    let script = "set -eu\\necho begin\\nrm -rf precious";
    let long = (0..12).map(|at| format!("echo {at}; ")).collect::<String>() + "rm -rf precious";
    place.runbook(
        "long",
        &format!(
            "steps:\n  - {{ id: script, uses: command, with: {{ argv: [sh, -c, \"{script}\"], effect: {{ class: write, repeat: repeatable }} }} }}\n\
             \x20 - {{ id: long, uses: command, with: {{ argv: [sh, -c, \"{long}\"], effect: {{ class: write, repeat: repeatable }} }} }}\n\
             \x20 - {{ id: short, uses: command, with: {{ argv: [touch, made], effect: {{ class: write, repeat: repeatable }} }} }}\n"
        ),
    );
    let out = place.expect(0, &["plan", "long.yaml"]).out;
    let line = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(line.contains("argv.2 line 3: rm -rf precious"), "{out}");
    assert!(line.contains(&format!("{long}\"]")), "{out}");
    assert!(line.contains("run `touch made`") && !line.contains("argv: [\"touch\""), "{out}");
}

#[test]
fn a_bucket_is_where_requests_go() {
    let place = Place::new();
    place.runbook(
        "bucket",
        "connections: { b: { type: s3, bucket: mine } }\n\
         collections: { all: { type: s3-objects, connection: b } }\n\
         steps:\n  - { id: counted, uses: count, with: { collections: all } }\n",
    );
    let mut command = place.command(&["plan", "bucket.yaml"]);
    command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret").env("AWS_REGION", "here");
    let out = command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("127.0.0.1:1"), "{text}{}", String::from_utf8_lossy(&out.stderr));
}
