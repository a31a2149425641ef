//! The schemas on disk are the ones the types give, and what the program writes is valid against them.
//! `UPDATE=1 cargo test --test schemas` writes them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use jsonschema::Validator;
use runbook_engine::compile::compile;
use runbook_engine::event::{
    Answer, Closed, Event, EventKind, Obligation, ObligationChange, Question, RunOutcome,
};
use runbook_engine::inputs::{Given, resolve_inputs};
use runbook_engine::runbook::{Input, Runbook};
use runbook_engine::schema;
use runbook_steps::catalog::CATALOG;
use serde_json::{Value, json};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn fresh(file: &str, schema: &Value) {
    let path = root().join("schemas").join(file);
    let text = serde_json::to_string_pretty(schema).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let on_disk = fs::read_to_string(&path).unwrap_or_default();
    assert!(on_disk == text, "{} is not fresh: UPDATE=1 cargo test --test schemas", path.display());
}

/// The schema as the command prints it, ready to check with.
fn validator(what: &str) -> Validator {
    let output = Command::new(env!("CARGO_BIN_EXE_runbook")).args(["schema", what]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    jsonschema::validator_for(&serde_json::from_slice(&output.stdout).unwrap()).unwrap()
}

fn valid(validator: &Validator, value: &Value) {
    let problems: Vec<String> = validator
        .iter_errors(value)
        .map(|problem| format!("{}: {problem}", problem.instance_path()))
        .collect();
    assert!(problems.is_empty(), "{value:#}\n{}", problems.join("\n"));
}

fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    files
}

#[test]
fn the_schemas_are_fresh() {
    fresh("runbook.schema.json", &schema::runbook(&CATALOG));
    fresh("plan.schema.json", &schema::plan());
    fresh("saved-plan.schema.json", &schema::saved_plan());
    fresh("event.schema.json", &schema::event());
}

#[test]
fn every_shipped_runbook_is_valid_against_the_schema_and_a_typing_error_is_not() {
    let validator = validator("runbook");
    let files: Vec<PathBuf> = ["runbooks", "examples"].into_iter().flat_map(yaml_files).collect();
    assert!(!files.is_empty());
    for file in files {
        let runbook: Value = serde_yaml::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        valid(&validator, &runbook);
    }
    let wrong =
        json!({ "runbook": "a", "steps": [{ "id": "b", "uses": "command", "with": { "argvv": ["c"] } }] });
    assert!(!validator.is_valid(&wrong));
}

/// A value that an input takes.
fn some_value(runbook: &Runbook, input: &Input) -> String {
    let name = &input.name.value;
    let takes = |value: &&str| {
        let given = [(name.clone(), Given::Text((*value).to_owned()))];
        resolve_inputs(runbook, &given).err().is_none_or(|wrong| wrong.iter().all(|one| one.input != *name))
    };
    let all = input.choices.iter().filter_map(Value::as_str);
    let value = all.chain(["abc", "https://a.example", "owner/name", "did:web:a"]).find(takes);
    value.unwrap_or_else(|| panic!("no value for {name}")).to_owned()
}

#[test]
fn the_plan_of_every_shipped_runbook_is_valid_against_the_schema() {
    let validator = validator("plan");
    let mut seen = 0;
    for file in ["runbooks", "examples"].into_iter().flat_map(yaml_files) {
        let runbook = compile(&fs::read_to_string(&file).unwrap(), &CATALOG).0.unwrap();
        let needed = runbook.inputs.iter().filter(|input| input.required && input.default.is_null());
        let given: Vec<(String, Given)> = needed
            .map(|input| (input.name.value.clone(), Given::Text(some_value(&runbook, input))))
            .collect();
        let inputs = resolve_inputs(&runbook, &given).unwrap();
        let plan =
            runbook.plan(inputs, &CATALOG).unwrap_or_else(|found| panic!("{}: {found:#?}", file.display()));
        let mut plan = serde_json::to_value(plan).unwrap();
        valid(&validator, &plan);
        plan["steps"][0]["effect"]["class"] = json!("harmless");
        assert!(!validator.is_valid(&plan), "an effect that there is not");
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn every_line_of_a_run_is_valid_against_the_schema_of_events() {
    let state = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_runbook"))
        .args(["exec", "--json"])
        .arg(root().join("examples/hello.yaml"))
        .env("RUNBOOK_STATE", format!("sqlite:{}", state.path().join("state.db").display()))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let validator = validator("event");
    assert!(text.lines().count() > 6, "{text}");
    for line in text.lines() {
        valid(&validator, &serde_json::from_str(line).unwrap());
    }
}

#[test]
fn every_kind_of_event_is_valid_against_the_schema_of_events() {
    let validator = validator("event");
    let kinds = every_kind();
    let listed = schema::event()["definitions"]["EventKind"]["oneOf"].as_array().unwrap().len();
    let mut named: Vec<Value> = kinds.iter().map(|kind| json!(kind)["type"].clone()).collect();
    named.dedup();
    assert_eq!(named.len(), listed, "an example of each kind: {named:?}");
    for what in kinds {
        let event = Event { seq: 1, at: "2026-11-21T10:00:00Z".parse().unwrap(), what };
        let mut line = serde_json::to_value(event).unwrap();
        assert!(!validator.is_valid(&line), "the run is missing");
        line["run"] = json!("x7k2");
        valid(&validator, &line);
        line["what"]["type"] = json!("something-else");
        assert!(!validator.is_valid(&line));
    }
}

/// An event of every kind, those that hold one of several things with each of them; kinds that are the same follow each other.
fn every_kind() -> Vec<EventKind> {
    let step = || "purge".to_owned();
    let text = || "because".to_owned();
    let error = || runbook_engine::error::StepError::gate("no");
    let at = "2026-11-21T10:00:00Z".parse().unwrap();
    let obligation = Obligation {
        step: step(),
        target: text(),
        label: text(),
        original: json!("25"),
        replacement: Value::Null,
        max_hold: runbook_engine::duration::Duration::from_secs(60),
    };
    let ended = [
        Closed::Restored,
        Closed::Untouched,
        Closed::Foreign { present: text() },
        Closed::Expired,
        Closed::Undone,
        Closed::ByHand { by: text(), other: Some(text()) },
    ];
    let changes = [
        ObligationChange::Opened(Box::new(obligation)),
        ObligationChange::Changing,
        ObligationChange::Unchanged,
        ObligationChange::Applied,
        ObligationChange::Lost { found: text() },
        ObligationChange::Releasing { by: Some(step()) },
        ObligationChange::Stuck { error: error() },
    ];
    let closed = ended.map(|how| ObligationChange::Closed { how });
    let questions = [
        Question::Phrase { message: text(), phrase: text(), terminal: true, facts: vec![(text(), text())] },
        Question::Settle { message: text(), succeeded: true },
        Question::Approval {
            message: text(),
            role: text(),
            approvers: vec![text()],
            except: Some(text()),
            until: Some(jiff::Timestamp::UNIX_EPOCH),
            facts: vec![(text(), text())],
        },
    ];
    let outcomes = [RunOutcome::Succeeded, RunOutcome::Failed, RunOutcome::Cancelled];
    let mut all = vec![
        EventKind::RunCreated { by: text(), lock: Some(text()), applies: Some(text()) },
        EventKind::RunClaimed { epoch: 1, owner: text() },
        EventKind::StepStarted { step: step(), attempt: 1 },
        EventKind::StepSucceeded { step: step(), outputs: json!({ "count": 3 }) },
        EventKind::StepFailed { step: step(), error: error() },
        EventKind::StepInterrupted { step: step() },
        EventKind::StepSkipped { step: step(), reason: text() },
        EventKind::StepReopened { step: step(), reason: text() },
        EventKind::Answered { step: step(), answer: Answer { text: text(), by: text(), at } },
        EventKind::CancelRequested { by: text() },
    ];
    all.extend(questions.map(|question| EventKind::Asked { step: step(), question }));
    let obligations = changes.into_iter().chain(closed);
    all.extend(obligations.map(|change| EventKind::Obligation { id: text(), change }));
    all.extend(outcomes.map(|outcome| EventKind::RunEnded { outcome, error: Some(error()) }));
    all
}
