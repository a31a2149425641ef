//! What a reviewed plan promises beside its items: the questions, the freezes, the systems, and what it says of itself.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::place::Place;

/// Two files to delete, after a look at the file `world` and these steps.
fn guarded(drift: &str, between: &str) -> Place {
    let place = Place::new();
    fs::create_dir(place.path("old")).unwrap();
    place.write("old/1.tmp", "one");
    place.write("old/2.tmp", "two");
    place.write("world", "staging");
    place.runbook(
        "clear",
        &format!(
            "{drift}connections:
  disk: {{ type: directory, path: \"{}\" }}
collections:
  old: {{ type: files, connection: disk }}
limits: {{ max_items: 10 }}
steps:
  - {{ id: before, uses: snapshot, with: {{ collection: old }} }}
  - {{ id: first, uses: confirm-prompt, with: {{ message: \"Begin?\", phrases: [BEGIN] }} }}
  - id: world
    uses: command
    with: {{ argv: [cat, world], effect: {{ class: read, repeat: repeatable }} }}
{between}  - id: clear
    uses: delete-batch
    with: {{ collections: old, keys: \"${{{{ steps.before.outputs.manifest }}}}\" }}
  - {{ id: after, uses: count, with: {{ collections: [old], expect: 0 }} }}
",
            place.path("old").display()
        ),
    );
    place
}

const NAMED: &str = "  - { id: sure, uses: confirm-prompt, with: { message: \"Clear ${{ steps.world.outputs.stdout }}?\", phrases: [GO] } }\n";
const ONLY_STAGING: &str = "  - { id: sure, if: \"${{ steps.world.outputs.stdout == 'staging' }}\", uses: confirm-prompt, with: { message: \"Sure?\", phrases: [GO] } }\n";

fn left(place: &Place) -> usize {
    fs::read_dir(place.path("old")).unwrap().count()
}

#[test]
fn nothing_is_deleted_when_a_question_of_the_plan_is_skipped() {
    let place = guarded("", ONLY_STAGING);
    place.expect(0, &["plan", "clear.yaml", "-o", "p.json"]);
    place.expect(5, &["exec", "--plan", "p.json"]);
    place.write("world", "production");
    let ran = place.run(&["answer", &place.newest(), "BEGIN"]);
    assert_eq!(ran.code, 9, "{}", ran.err);
    assert!(
        ran.err.contains("`sure` was skipped") && ran.err.contains("says that it is done before"),
        "{}",
        ran.err
    );
    assert_eq!(left(&place), 2);
}

#[test]
fn nothing_is_deleted_when_what_was_planned_beside_it_is_not_as_planned_though_the_run_goes_on() {
    let question = NAMED.replace("{ id: sure,", "{ id: sure, on_failure: continue,");
    let gate = "  - { id: gate, if: \"${{ steps.world.outputs.stdout == 'staging' }}\", uses: command, with: { argv: [\"true\"], effect: { class: read, repeat: repeatable } } }\n";
    for (between, why) in
        [(question.as_str(), "`sure` is not as it was planned"), (gate, "`gate` was skipped")]
    {
        let place = guarded("", between);
        place.expect(0, &["plan", "clear.yaml", "-o", "p.json"]);
        place.expect(5, &["exec", "--plan", "p.json"]);
        place.write("world", "PRODUCTION");
        let ran = place.run(&["answer", &place.newest(), "BEGIN"]);
        assert_eq!(ran.code, 9, "{}", ran.err);
        assert!(ran.err.contains(why), "{}", ran.err);
        assert_eq!(left(&place), 2);
    }
}

#[test]
fn a_final_step_destroys_nothing_when_the_question_was_not_answered() {
    let place = guarded("", "");
    let text = place.text("clear.yaml").replace(
        "  - id: clear\n",
        "finally:\n  - id: clear\n    waive: { RB0501: t, RB0502: t, RB0506: t }\n",
    );
    place.write("clear.yaml", &text);
    place.expect(0, &["plan", "clear.yaml", "-o", "p.json"]);
    place.expect(5, &["exec", "--plan", "p.json"]);
    let ran = place.run(&["cancel", &place.newest()]);
    assert!(ran.err.contains("what `first` asks was not answered"), "{}: {}", ran.code, ran.err);
    assert_eq!(left(&place), 2);
}

#[test]
fn another_question_than_in_the_plan_is_not_asked() {
    let place = guarded("", NAMED);
    place.expect(0, &["plan", "clear.yaml", "-o", "p.json"]);
    place.expect(5, &["exec", "--plan", "p.json", "--confirm", "sure=GO"]);
    place.write("world", "PRODUCTION");
    let ran = place.run(&["answer", &place.newest(), "BEGIN"]);
    assert_eq!(ran.code, 9, "{}", ran.err);
    assert!(ran.err.contains("not begun") && ran.err.contains("than in the reviewed plan"), "{}", ran.err);
    assert_eq!(left(&place), 2);
}

#[test]
fn a_phrase_given_beforehand_answers_no_other_question() {
    for (now, code, files) in [("staging", 0, 0), ("PRODUCTION", 5, 2)] {
        let place = guarded("drift: subset\n", NAMED);
        place.expect(0, &["plan", "clear.yaml", "-o", "p.json"]);
        place.write("world", now);
        let ran =
            place.run(&["exec", "--plan", "p.json", "--confirm", "first=BEGIN", "--confirm", "sure=GO"]);
        assert_eq!(ran.code, code, "{now}: {}", ran.err);
        assert_eq!(ran.err.contains("does not count"), code == 5, "{}", ran.err);
        assert_eq!(left(&place), files);
    }
}

#[test]
fn what_differs_leads_to_a_plan_with_the_same_inputs() {
    let place = guarded("inputs: { place: { type: string, default: nowhere, description: d } }\n", NAMED);
    place.expect(0, &["plan", "clear.yaml", "-i", "place=here and there", "-o", "p.json"]);
    place.write("old/3.tmp", "three");
    let ran = place.expect(9, &["exec", "--plan", "p.json"]);
    assert!(ran.err.contains("-i 'place=here and there' -o "), "{}", ran.err);
}

#[test]
fn a_plan_is_saved_in_files_alone() {
    let place = guarded("", NAMED);
    assert!(Command::new("mkfifo").arg(place.path("pipe")).status().unwrap().success());
    std::os::unix::fs::symlink(place.path("p.json"), place.path("link")).unwrap();
    for name in ["pipe", "link", "/dev/stdout"] {
        let ran = place.expect(2, &["plan", "clear.yaml", "-o", name]);
        assert!(ran.err.contains("is no file that a plan can be saved in"), "{}", ran.err);
    }
    assert!(!place.path("p.json").exists());
    assert!(fs::symlink_metadata(place.path("link")).unwrap().is_symlink());
}

#[test]
fn programs_of_a_killed_plan_are_ended_by_the_next_command() {
    let place = Place::new();
    let step = "  - { id: long, uses: command, with: { argv: [sh, -c, \"echo $$ > pid; exec sleep 600\"], effect: { class: read, repeat: repeatable } } }\n";
    place.runbook("long", &format!("steps:\n{step}"));
    let mut plan = place.command(&["plan", "long.yaml"]).spawn().unwrap();
    while place.text("pid").trim().is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    plan.kill().unwrap();
    assert_eq!(plan.wait().unwrap().signal(), Some(9));
    let alive = || {
        fs::read_to_string(format!("/proc/{}/stat", place.text("pid").trim()))
            .is_ok_and(|stat| !stat.contains(") Z "))
    };
    assert!(alive());
    place.write("long.yaml", "runbook: long\ndescription: A test.\nsteps:\n  - { id: a, uses: assert, with: { that: \"${{ 1 == 1 }}\", message: m } }\n");
    place.expect(0, &["plan", "long.yaml"]);
    assert!(!alive());
    let planning = fs::read_dir(place.path("state/planning"));
    assert_eq!(planning.map_or(0, Iterator::count), 0);
}

#[test]
fn what_was_to_be_known_after_a_step_may_be_so_before_it() {
    let place = Place::new();
    place.runbook(
        "sooner",
        "steps:\n  - { id: make, uses: command, with: { argv: [touch, made], effect: { class: write, repeat: repeatable } } }\n\
         \x20 - { id: look, uses: command, with: { argv: [cat, made], effect: { class: read, repeat: repeatable } } }\n",
    );
    let said = place.expect(0, &["plan", "sooner.yaml", "-o", "p.json"]).out;
    assert!(said.contains("known after make"), "{said}");
    place.write("made", "");
    place.expect(0, &["exec", "--plan", "p.json"]);
}

#[test]
fn a_plan_that_is_told_to_stop_says_by_what() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let place = Place::new();
        let step = "  - { id: long, uses: command, with: { argv: [sh, -c, \"echo $$ > pid; exec sleep 600\"], effect: { class: read, repeat: repeatable } } }\n";
        place.runbook("long", &format!("steps:\n{step}"));
        let plan = place.start(&["plan", "long.yaml"]);
        while place.text("pid").trim().is_empty() {
            std::thread::sleep(Duration::from_millis(20));
        }
        plan.signal(signal);
        let ran = plan.end();
        assert_eq!(ran.code, code, "{}", ran.err);
        assert!(ran.err.contains("nothing was changed"), "{}", ran.err);
    }
}

#[test]
fn requests_that_delete_count_in_the_plan_as_in_the_run() {
    let place = Place::new();
    let one = |id: &str| {
        format!(
            "  - {{ id: {id}, uses: http, waive: {{ RB0501: t, RB0502: t, RB0506: t }}, with: {{ connection: api, method: DELETE, path: /threads/1 }} }}\n"
        )
    };
    place.runbook(
        "delete",
        &format!(
            "connections: {{ api: {{ type: http, url: \"http://127.0.0.1:1\" }} }}\nlimits: {{ max_items: 1 }}\nsteps:\n{}{}",
            one("first"),
            one("second")
        ),
    );
    let ran = place.expect(4, &["plan", "delete.yaml"]);
    assert!(ran.out.contains("it would destroy 1 item, after 1 of the steps before it"), "{}", ran.out);
}

#[test]
fn a_plan_shows_what_a_freeze_runs_and_what_is_waited_for() {
    let place = Place::new();
    place.write("value", "live");
    place.runbook(
        "hold",
        "steps:
  - id: hold
    uses: freeze
    with:
      command:
        target: cluster
        read: [cat, value]
        apply: [sh, -c, \"echo frozen > value; rm -rf precious\"]
        release: [sh, -c, \"echo live > value\"]
        value: frozen
  - { id: pause, uses: wait-for, with: { duration: 1h } }
  - { id: lift, uses: unfreeze, with: { freeze: hold } }
  - { id: told, uses: report, with: { path: /nowhere/told.md } }
",
    );
    let ran = place.expect(0, &["plan", "hold.yaml"]);
    for words in ["rm -rf precious", "command.release:", "wait for 1h", "/nowhere/told.md"] {
        assert!(ran.out.contains(words), "{words}: {}", ran.out);
    }
}

#[test]
fn a_plan_that_is_over_says_so() {
    let place = guarded("", NAMED);
    place.expect(0, &["plan", "clear.yaml", "-o", "p.json", "--expires", "1ms"]);
    assert!(place.expect(0, &["plan", "show", "p.json"]).err.contains("it expired"));
    place.expect(0, &["plan", "clear.yaml", "-o", "p.json"]);
    assert_eq!(place.expect(0, &["plan", "show", "p.json"]).err, "");
    place.expect(5, &["exec", "--plan", "p.json"]);
    let ran = place.expect(0, &["plan", "show", "p.json"]);
    assert!(ran.err.contains(&format!("it was applied by run {}", place.newest())), "{}", ran.err);
}
