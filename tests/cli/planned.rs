//! `plan` changes nothing, and a run that is started with a plan touches what is in it and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::place::{Place, Ran};

/// A runbook that deletes the files of `logs`, after a person was asked twice: before the snapshot, and before the delete.
pub fn runbook(place: &Place, drift: &str, more: &str) {
    let logs = place.path("logs");
    place.runbook(
        "clean",
        &format!(
            "drift: {drift}\n\
             inputs:\n  wanted: {{ type: string, default: \"*.log\" }}\n  size: {{ type: integer, default: 3, minimum: 1, maximum: 100 }}\n\
             connections:\n  here: {{ type: directory, path: \"{}\" }}\n\
             collections:\n  logs: {{ type: files, connection: here, pattern: \"${{{{ inputs.wanted }}}}\" }}\n\
             limits: {{ max_items: 100 }}\n\
             steps:\n\
             \x20 - {{ id: begin, uses: confirm-prompt, with: {{ message: Begin, phrases: [BEGIN] }} }}\n\
             \x20 - {{ id: snapshot, uses: snapshot, with: {{ collection: logs }} }}\n\
             \x20 - id: sure\n    uses: confirm-prompt\n    with:\n      message: Delete them\n      \
             phrases: [\"DELETE ${{{{ steps.snapshot.outputs.count }}}} FILES\"]\n\
             \x20 - id: purge\n    uses: delete-batch\n    with:\n      collections: logs\n      \
             keys: \"${{{{ steps.snapshot.outputs.manifest }}}}\"\n      batch_size: \"${{{{ inputs.size }}}}\"\n\
             \x20 - {{ id: gone, uses: count, with: {{ collections: logs }} }}\n{more}",
            logs.display()
        ),
    );
}

pub fn place(drift: &str) -> Place {
    let place = Place::new();
    fs::create_dir(place.path("logs")).unwrap();
    for name in names() {
        place.write(&format!("logs/{name}"), &format!("the content of {name}"));
    }
    runbook(&place, drift, "");
    place
}

fn names() -> BTreeSet<String> {
    (b'a'..=b'h').map(|letter| format!("{}.log", char::from(letter))).collect()
}

fn present(place: &Place) -> BTreeSet<String> {
    let entries = fs::read_dir(place.path("logs")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

const APPLY: [&str; 7] =
    ["exec", "--plan", "plan.json", "--confirm", "begin=BEGIN", "--confirm", "sure=DELETE 8 FILES"];

pub fn saved(place: &Place) -> Value {
    place.expect(0, &["plan", "clean.yaml", "-o", "plan.json"]);
    let plan: Value = serde_json::from_str(&place.text("plan.json")).unwrap();
    let schema = include_str!("../../schemas/saved-plan.schema.json");
    let validator = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let wrong: Vec<_> = validator.iter_errors(&plan).map(|error| error.to_string()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    plan
}

#[test]
fn a_plan_is_shown_saved_and_applied_once() {
    let place = place("refuse");
    let shown = place.expect(0, &["plan", "clean.yaml", "-o", "plan.json"]);
    for line in ["8 items", "a.log, b.log", "no way back", "DELETE 8 FILES", "destroys 8 items"] {
        assert!(shown.out.contains(line), "{line}:\n{}", shown.out);
    }
    assert_eq!(place.expect(0, &["plan", "show", "plan.json"]).out, shown.out);
    assert_eq!(place.json(&["runs"]), serde_json::json!([]), "a plan is no run");
    let ran = place.expect(0, &[&APPLY[..], &["--as", "ada"]].concat());
    assert!(present(&place).is_empty(), "{}", ran.err);
    let id = saved_id(&place);
    let run = place.json(&["show"]);
    assert_eq!((&run["plan"]["id"], &run["plan"]["seen_by"]), (&id, &Value::from("ada")));
    let answers: Vec<String> = place.query("select body from events where body like '%answered%'");
    assert!(answers.len() == 2 && answers.iter().all(|body| body.contains("\"by\":\"ada\"")), "{answers:?}");
    let again = place.expect(9, &APPLY);
    assert!(
        again.err.contains(&format!("applied already, by run {}", run["id"].as_str().unwrap())),
        "{}",
        again.err
    );
}

fn saved_id(place: &Place) -> Value {
    let plan: Value = serde_json::from_str(&place.text("plan.json")).unwrap();
    plan["id"].clone()
}

#[test]
fn a_plan_that_expired_or_was_edited_or_is_none_is_refused() {
    let place = place("refuse");
    place.expect(0, &["plan", "clean.yaml", "-o", "plan.json", "--expires", "1s"]);
    std::thread::sleep(Duration::from_millis(1100));
    assert!(place.expect(9, &APPLY).err.contains("the plan expired"));
    saved(&place);
    let text = place.text("plan.json");
    place.write("plan.json", &text.replace("\"max_items\": 100", "\"max_items\": 900"));
    assert!(place.expect(9, &APPLY).err.contains("was edited after it was made"));
    place.write("plan.json", &text.replacen("\"version\": 1", "\"version\": 2", 1));
    assert!(place.expect(2, &APPLY).err.contains("a later program made it"));
    place.write("plan.json", "{}");
    assert!(place.expect(2, &APPLY).err.contains("this is no saved plan"));
    place.write("plan.json", &text);
    let set = state_of_sets(&place);
    let whole = fs::read_to_string(&set).unwrap();
    fs::write(&set, whole.replace("b.log", "x.log")).unwrap();
    for altered in [true, false] {
        let ran = place.expect(9, &APPLY);
        let path = set.display().to_string();
        assert!(ran.err.contains(&path) && ran.err.contains("runbook plan "), "{altered}: {}", ran.err);
        if altered {
            fs::remove_dir_all(place.path("plan.json.sets")).unwrap();
        }
    }
    assert_eq!(present(&place), names());
    assert_eq!(place.json(&["runs"]), serde_json::json!([]));
}

/// The one set beside the plan.
fn state_of_sets(place: &Place) -> PathBuf {
    let folders = fs::read_dir(place.path("plan.json.sets")).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.filter(|path| path.is_dir()).flat_map(|folder| fs::read_dir(folder).unwrap());
    let files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn what_is_refused_is_told_as_data_and_what_is_mistyped_is_no_drift() {
    let place = place("refuse");
    saved(&place);
    for given in ["wished=*.log", "size=999"] {
        let ran = place.expect(2, &[&APPLY[..], &["-i", given]].concat());
        assert!(ran.err.contains("the inputs are wrong"), "{}", ran.err);
    }
    place.write("logs/e.log", "the CONTENT of e.log");
    fs::remove_file(place.path("logs/c.log")).unwrap();
    let ran = place.expect(9, &[&APPLY[..], &["--json"]].concat());
    let told: Value = serde_json::from_str(&ran.out).unwrap();
    let purge = &told["refused"]["moved"].as_array().unwrap()[1];
    assert_eq!((&told["refused"]["exit"], &purge["name"]), (&Value::from(9), &Value::from("purge")));
    assert!(purge["how"].as_str().unwrap().contains("1 changed (e.log), 1 gone (c.log)"), "{told}");
    // A runbook that was moved is named.
    fs::rename(place.path("clean.yaml"), place.path("moved.yaml")).unwrap();
    let ran = place.expect(9, &APPLY);
    assert!(ran.err.contains("runbook exec FILE --plan "), "{}", ran.err);
    let ran = place.expect(9, &[&["exec", "moved.yaml"], &APPLY[1..]].concat());
    assert!(ran.err.contains("1 changed (e.log)"), "{}", ran.err);
    assert_eq!(place.run(&[&["exec", "nowhere.yaml"], &APPLY[1..]].concat()).code, 2);
    assert_eq!(place.json(&["runs"]), serde_json::json!([]));
}

#[test]
fn phrases_are_given_beforehand_only_with_the_plan_that_asks_for_them() {
    let place = place("refuse");
    assert_eq!(place.run(&["exec", "clean.yaml", "--confirm", "begin=BEGIN"]).code, 2);
    saved(&place);
    let with = |confirm: &str| place.run(&["exec", "--plan", "plan.json", "--confirm", confirm]);
    for (confirm, words) in [
        ("sure=DELETE 7 FILES", "asks for `DELETE 8 FILES`"),
        ("purge=DELETE", "asks for no phrase"),
        ("nobody=X", "the plan has no step `nobody`"),
        ("gone=X", "is known only after `purge`"),
        ("begin", "has no phrase"),
    ] {
        let ran = with(confirm);
        assert!(ran.code == 2 && ran.err.contains(words), "{confirm}: {}", ran.err);
    }
    assert_eq!(place.json(&["runs"]), serde_json::json!([]));
    // What is not given beforehand is asked as ever.
    assert_eq!(with("begin=BEGIN").code, 5);
    assert_eq!(present(&place), names());
    place.expect(0, &["answer", &place.newest(), "DELETE 8 FILES"]);
    assert!(present(&place).is_empty());
}

#[test]
fn a_run_that_would_fail_has_no_plan() {
    let place = place("refuse");
    runbook(
        &place,
        "refuse",
        "  - { id: never, uses: assert, with: { that: \"${{ inputs.size > 5 }}\", message: too small } }\n",
    );
    let ran = place.expect(4, &["plan", "clean.yaml", "-o", "plan.json"]);
    assert!(
        ran.out.contains("would fail") && ran.err.contains("the plan was not saved"),
        "{}{}",
        ran.out,
        ran.err
    );
    assert!(!place.path("plan.json").exists());
    place.expect(0, &["exec", "clean.yaml", "--dry-run", "-i", "size=6"]);
    // A limit that would be crossed is told before.
    let text = place.text("clean.yaml").replace("max_items: 100", "max_items: 7");
    place.write("clean.yaml", &text);
    let ran = place.expect(4, &["plan", "clean.yaml", "-i", "size=6"]);
    assert!(ran.out.contains("it would destroy 8 items, and max_items of the run is 7"), "{}", ran.out);
    assert_eq!(present(&place), names());
}

#[test]
fn limits_that_were_changed_are_told_as_they_were_and_are() {
    let place = place("refuse");
    saved(&place);
    let text = place.text("clean.yaml").replace("max_items: 100", "max_items: 99");
    place.write("clean.yaml", &text);
    let ran = place.expect(9, &["exec", "--plan", "plan.json"]);
    assert!(ran.err.contains("`max_items` was 100 and is 99"), "{}", ran.err);
    assert_eq!(present(&place), names());
}

#[test]
fn what_moves_while_the_run_waits_is_not_touched_either() {
    for drift in ["refuse", "subset"] {
        let place = place(drift);
        saved(&place);
        place.expect(5, &["exec", "--plan", "plan.json"]);
        let run = place.newest();
        place.write("logs/new.log", "it came later");
        place.write("logs/a.log", "it is another one");
        fs::remove_file(place.path("logs/b.log")).unwrap();
        place.expect(5, &["answer", &run, "BEGIN"]);
        // The phrase counts the files, so that what came is seen by a person too.
        let ran = place.run(&["answer", &run, "DELETE 8 FILES"]);
        let words = "1 new (new.log), 1 changed (a.log)";
        if drift == "refuse" {
            assert_eq!(ran.code, 9, "{}", ran.err);
            assert!(ran.err.contains(words) && ran.err.contains("nothing was deleted"), "{}", ran.err);
            let at = |command: &str| ran.err.rfind(command).unwrap();
            assert!(at("runbook plan ") < at("runbook resume "), "going on does not help: {}", ran.err);
            assert_eq!(present(&place).len(), 8);
            assert_eq!(place.run(&["resume", &run]).code, 9, "it is not forgotten");
        } else {
            assert_eq!(ran.code, 0, "{}", ran.err);
            assert!(ran.err.contains(words), "{}", ran.err);
            let left: BTreeSet<String> = ["a.log", "new.log"].map(str::to_owned).into();
            assert_eq!(present(&place), left);
            let outputs = place.json(&["show"])["steps"]
                .as_array()
                .unwrap()
                .iter()
                .find(|step| step["id"] == "purge")
                .unwrap()["outputs"]
                .clone();
            assert_eq!(
                (&outputs["not_in_plan"], &outputs["guard"]["logs"]),
                (&Value::from(2), &Value::from("looks"))
            );
        }
    }
}

#[test]
fn a_command_that_destroys_does_what_was_planned_or_nothing() {
    let place = Place::new();
    place.runbook(
        "state",
        "steps:\n\
         \x20 - { id: look, uses: command, with: { argv: [cat, which], parse: lines, effect: { class: read, repeat: repeatable } } }\n\
         \x20 - { id: sure, uses: confirm-prompt, with: { message: m, phrases: [\"YES\"] } }\n\
         \x20 - { id: again, needs: [sure], uses: command, with: { argv: [cat, which], parse: lines, effect: { class: read, repeat: repeatable } } }\n\
         \x20 - { id: wipe, uses: command, waive: { RB0501: it is a test }, with: { argv: [sh, -c, 'rm -rf \"$TARGET\"'], env: { TARGET: \"${{ steps.again.outputs.lines[0] }}\" }, effect: { class: destroy, repeat: repeatable, items: 1 } } }\n\
         \x20 - { id: extra, uses: command, waive: { RB0501: it is a test }, if: \"${{ steps.again.outputs.lines[0] == 'victim' }}\", with: { argv: [touch, extra-ran], effect: { class: destroy, repeat: repeatable, items: 1 } } }\n\
         \x20 - { id: after, uses: command, with: { argv: [ls], effect: { class: read, repeat: repeatable } } }\n",
    );
    for name in ["old", "victim"] {
        place.write(name, "kept");
    }
    place.write("which", "old\n");
    place.expect(0, &["plan", "state.yaml", "-o", "plan.json"]);
    // What it would be told changes before the run is started, and it is not.
    place.write("which", "victim\n");
    let ran = place.expect(9, &["exec", "--plan", "plan.json"]);
    assert!(ran.err.contains("`wipe`: its settings come to something else"), "{}", ran.err);
    place.write("which", "old\n");
    place.expect(5, &["exec", "--plan", "plan.json"]);
    place.write("which", "victim\n");
    let ran = place.expect(9, &["answer", &place.newest(), "YES"]);
    assert!(ran.err.contains("come to something else"), "{}", ran.err);
    assert_eq!((place.text("old").as_str(), place.text("victim").as_str()), ("kept", "kept"));
    assert!(!place.path("extra-ran").exists());
}

#[test]
fn a_plan_is_written_over_nothing_but_a_plan() {
    let place = place("refuse");
    let text = place.text("clean.yaml");
    assert!(place.expect(2, &["plan", "clean.yaml", "-o", "clean.yaml"]).err.contains("it was left alone"));
    assert_eq!(place.text("clean.yaml"), text);
    saved(&place);
    saved(&place);
    for name in ["", "a\nb"] {
        assert_eq!(place.run(&["exec", "--plan", "plan.json", "--as", name]).code, 2);
    }
}

#[test]
fn a_bound_run_that_is_killed_goes_on_within_its_plan() {
    let place = place("subset");
    saved(&place);
    place.expect(5, &["exec", "--plan", "plan.json", "--confirm", "begin=BEGIN", "-i", "size=1"]);
    let run = place.newest();
    for round in 0..3 {
        let started = place.start(&["answer", &run, "DELETE 8 FILES"]);
        std::thread::sleep(Duration::from_millis(25 + 25 * round));
        started.kill();
        place.write(&format!("logs/late-{round}.log"), "it is in no plan");
    }
    let ran = place.run(&["resume", &run]);
    let ran = if ran.code == 5 { place.run(&["answer", &run, "DELETE 8 FILES"]) } else { ran };
    // A fast machine may have been done before it was killed.
    assert!(ran.code == 0 || ran.err.contains("has succeeded"), "{}: {}", ran.code, ran.err);
    let left: BTreeSet<String> = (0..3).map(|round| format!("late-{round}.log")).collect();
    assert_eq!(present(&place), left);
}

/// What somebody does between plan and apply, with the word by which it has to be named.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mutation {
    Insert,
    Delete,
    Change,
    InputThatMatters,
    InputOfSpeed,
    Comment,
    Speed,
    Step,
    NewStep,
    Limit,
}

const MUTATIONS: [(Mutation, &str); 10] = [
    (Mutation::Insert, "i.log"),
    (Mutation::Delete, "c.log"),
    (Mutation::Change, "e.log"),
    (Mutation::InputThatMatters, "input `wanted`"),
    (Mutation::InputOfSpeed, ""),
    (Mutation::Comment, ""),
    (Mutation::Speed, ""),
    (Mutation::Step, "step `sure`"),
    (Mutation::NewStep, "step `more`"),
    (Mutation::Limit, "`limits`"),
];

fn mutate(place: &Place, mutation: Mutation, args: &mut Vec<&'static str>) {
    let edit = |from: &str, to: &str| {
        let text = place.text("clean.yaml");
        assert!(text.contains(from), "{from}");
        place.write("clean.yaml", &text.replace(from, to));
    };
    match mutation {
        Mutation::Insert => place.write("logs/i.log", "it was not there"),
        Mutation::Delete => fs::remove_file(place.path("logs/c.log")).unwrap(),
        Mutation::Change => place.write("logs/e.log", "the CONTENT of e.log"),
        Mutation::InputThatMatters => args.extend(["-i", "wanted=?.log"]),
        Mutation::InputOfSpeed => args.extend(["-i", "size=2"]),
        Mutation::Comment => edit("steps:\n", "# Nothing to see here.\nsteps:\n"),
        Mutation::Speed => edit("batch_size: \"${{ inputs.size }}\"", "batch_size: 5"),
        Mutation::Step => edit("message: Delete them", "message: Keep them"),
        Mutation::NewStep => edit(
            "  - { id: gone,",
            "  - { id: more, uses: assert, with: { that: \"${{ true }}\", message: no } }\n  - { id: gone,",
        ),
        Mutation::Limit => edit("max_items: 100", "max_items: 99"),
    }
}

/// SplitMix64.
fn lot(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*seed ^ (*seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// `MUTATED=200` tries more than the few of every run.
#[test]
fn whatever_moves_between_plan_and_apply_nothing_outside_the_plan_is_touched() {
    let trials: u64 = std::env::var("MUTATED").ok().and_then(|text| text.parse().ok()).unwrap_or(32);
    for trial in 0..trials {
        let mut seed = trial;
        let subset = trial.is_multiple_of(2);
        let place = place(if subset { "subset" } else { "refuse" });
        saved(&place);
        // The first ones one by one, then some together.
        let chosen: Vec<(Mutation, &str)> = if trial < 2 * MUTATIONS.len() as u64 {
            vec![MUTATIONS[usize::try_from(trial / 2).unwrap()]]
        } else {
            MUTATIONS.into_iter().filter(|_| lot(&mut seed).is_multiple_of(4)).collect()
        };
        let mut args = Vec::new();
        for (mutation, _) in &chosen {
            mutate(&place, *mutation, &mut args);
        }
        let before = present(&place);
        let ran = place.run(&[&APPLY[..], &args].concat());
        check(&place, subset, &chosen, &before, &ran, trial);
    }
}

fn check(
    place: &Place,
    subset: bool,
    chosen: &[(Mutation, &str)],
    before: &BTreeSet<String>,
    ran: &Ran,
    trial: u64,
) {
    let told = format!("trial {trial}, subset {subset}, {chosen:?}: exit {}\n{}", ran.code, ran.err);
    let of_definition = chosen.iter().any(|(one, _)| {
        matches!(one, Mutation::InputThatMatters | Mutation::Step | Mutation::NewStep | Mutation::Limit)
    });
    let of_items =
        chosen.iter().any(|(one, _)| matches!(one, Mutation::Insert | Mutation::Delete | Mutation::Change));
    if of_definition || (of_items && !subset) {
        assert_eq!(ran.code, 9, "{told}");
        assert_eq!(present(place), *before, "nothing was touched: {told}");
        assert_eq!(place.json(&["runs"]), serde_json::json!([]), "{told}");
        // Of a definition that moved the world is not read again.
        for (mutation, word) in chosen {
            let item = matches!(mutation, Mutation::Insert | Mutation::Delete | Mutation::Change);
            assert!((item && of_definition) || ran.err.contains(word), "`{word}` is not named: {told}");
        }
        return;
    }
    // A phrase that was given for another number of files counts for nothing: the run waits.
    let counted = chosen.iter().filter(|(one, _)| matches!(one, Mutation::Insert | Mutation::Delete)).count();
    let same = counted != 1;
    if !same {
        assert_eq!(ran.code, 5, "{told}");
        let phrase = format!("DELETE {} FILES", before.len());
        place.expect(0, &["answer", &place.newest(), &phrase]);
    } else {
        assert_eq!(ran.code, 0, "{told}");
    }
    let may_stay: BTreeSet<String> = chosen
        .iter()
        .filter(|(one, _)| matches!(one, Mutation::Insert | Mutation::Change))
        .map(|(_, word)| (*word).to_owned())
        .collect();
    assert_eq!(present(place), may_stay, "{told}");
}

/// A database with a session that expired.
fn make_sessions(path: &std::path::Path) {
    use sqlx::{ConnectOptions as _, Executor as _};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let tables = "create table sessions (id text primary key, name text, expires_at text not null); \
        create table notes (at text, said text); insert into sessions values ('a', 'ada', '1999-01-01')";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime
        .block_on(async { options.connect().await.unwrap().execute(sqlx::raw_sql(tables)).await })
        .unwrap();
}

#[test]
fn a_plan_over_every_example_changes_nothing() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(root.join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "yaml") {
            continue;
        }
        let place = Place::new();
        fs::copy(&path, place.path("example.yaml")).unwrap();
        fs::create_dir(place.path("full")).unwrap();
        place.write("full/a.log", "kept");
        let mut args = vec!["plan", "example.yaml"];
        let text = fs::read_to_string(&path).unwrap();
        if text.contains("backup:") {
            args.extend(["-i", "folder=full", "-i", "backup=backup"]);
        }
        let database = place.path("full/app.db");
        if text.contains("database:") {
            make_sessions(&database);
            args.extend(["-i", "database=full/app.db"]);
        }
        let before = fs::read(&database).ok();
        let ran = place.run(&args);
        assert!(fs::read(&database).ok() == before, "{}: the database changed", path.display());
        assert!(matches!(ran.code, 0 | 4), "{}: {}{}", path.display(), ran.out, ran.err);
        let mut left: Vec<_> =
            fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.retain(|name| name != "state" && name != "example.yaml" && name != "full");
        assert_eq!(place.text("full/a.log"), "kept");
        assert!(left.is_empty(), "{}: {left:?}", path.display());
        let kept: Vec<_> = place.state_files();
        assert!(kept.is_empty(), "{kept:?}");
    }
}
