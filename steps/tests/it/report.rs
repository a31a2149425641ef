//! `report` on runs that went well, badly, and hardly at all.

use runbook_engine::duration::Duration;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::event::{Closed, EventKind, Obligation, ObligationChange, Question};
use runbook_engine::plan::OnFailure;
use runbook_engine::step::{Intent, Settlement};
use serde_json::{Value, json};

use crate::common::{Bench, answer, planned};

/// A run with a freeze, a confirmation, a purge, an upload, and a report at the end.
async fn bench(with: Value) -> Bench {
    let mut bench = Bench::new(Vec::new(), json!({}), json!({})).await;
    let mut plan = (*bench.plan).clone();
    plan.description = "Clears | everything".to_owned();
    plan.inputs.insert("environment".to_owned(), json!("staging"));
    plan.steps = vec![
        planned("freeze", "freeze", json!({})),
        planned("confirm", "confirm-prompt", json!({})),
        planned("purge", "delete-batch", json!({})),
        planned("restore", "upload", json!({ "recorded_in": {} })),
    ];
    plan.steps[2].name = Some("Purge attachments".to_owned());
    plan.finally = vec![planned("report", "report", with)];
    bench.plan = plan.into();
    bench
}

async fn start(bench: &Bench, step: &str) {
    bench.record(EventKind::StepStarted { step: step.to_owned(), attempt: 1 }).await;
}

async fn succeed(bench: &Bench, step: &str, outputs: Value) {
    bench.record(EventKind::StepSucceeded { step: step.to_owned(), outputs }).await;
}

async fn obligation(bench: &Bench, change: ObligationChange) {
    bench.record(EventKind::Obligation { id: "freeze-1".to_owned(), change }).await;
}

async fn freeze(bench: &Bench) {
    start(bench, "freeze").await;
    let obligation_taken = Obligation {
        step: "freeze".to_owned(),
        target: "env-file:/etc/gateway.env#MAX_MB".to_owned(),
        label: "MAX_MB in gateway.env".to_owned(),
        original: json!("25"),
        replacement: json!("0.0000001"),
        max_hold: Duration::from_secs(3600),
    };
    obligation(bench, ObligationChange::Opened(Box::new(obligation_taken))).await;
    obligation(bench, ObligationChange::Applied).await;
    succeed(bench, "freeze", json!({})).await;
}

async fn confirm(bench: &Bench) {
    start(bench, "confirm").await;
    let step = "confirm".to_owned();
    let question = Question::Phrase {
        message: "Delete?".to_owned(),
        phrase: "RESET".to_owned(),
        terminal: false,
        facts: Vec::new(),
    };
    bench.record(EventKind::Asked { step: step.clone(), question }).await;
    bench.record(EventKind::Answered { step, answer: answer("RESET") }).await;
    bench.record(EventKind::StepStarted { step: "confirm".to_owned(), attempt: 2 }).await;
    succeed(bench, "confirm", json!({ "confirmed_by": [1] })).await;
}

async fn batch(bench: &Bench, step: &str, what: Value, settlement: Settlement) {
    let ledger = bench.context(step).engine.ledger;
    let intent = Intent { what, items: 1, charged_items: 0, charged_bytes: 0 };
    let number = ledger.intend(intent).await.unwrap().number;
    ledger.settle(number, settlement).await.unwrap();
}

async fn purge(bench: &Bench) {
    start(bench, "purge").await;
    let first = Settlement { done: 990, already: 10, failed: 0, ..Settlement::default() };
    batch(bench, "purge", json!({}), first).await;
    let outcome = json!({ "errors": { "id-7": { "message": "status 500" } } });
    let second = Settlement { outcome, done: 40, already: 0, failed: 1, ..Settlement::default() };
    batch(bench, "purge", json!({}), second).await;
}

async fn report(bench: &Bench) -> (Value, String) {
    start(bench, "report").await;
    let outputs = bench.enter("report").await.unwrap();
    let markdown = bench.text(&outputs["markdown"]);
    (outputs, markdown)
}

fn json_of(bench: &Bench, outputs: &Value) -> Value {
    serde_json::from_str(&bench.text(&outputs["json"])).unwrap()
}

#[tokio::test]
async fn a_run_that_went_well_says_so_with_its_counts_first() {
    let bench = bench(json!({ "title": "Reset", "notes": { "Follow-up": "none" } })).await;
    freeze(&bench).await;
    confirm(&bench).await;
    purge(&bench).await;
    succeed(&bench, "purge", json!({ "ids": 1040, "deleted": { "blobs": 1030 } })).await;
    obligation(&bench, ObligationChange::Releasing { by: None }).await;
    obligation(&bench, ObligationChange::Closed { how: Closed::Restored }).await;
    start(&bench, "restore").await;
    let outputs = json!({ "uploaded": 6, "discrepancies": ["old-1: recorded as a, and the file is b"] });
    succeed(&bench, "restore", outputs).await;
    let (outputs, markdown) = report(&bench).await;
    assert_eq!(outputs["verdict"], "PASS");
    for part in [
        "# Reset: PASS\n",
        "Clears \\| everything",
        "| Steps | 4 succeeded, of 5 |",
        "| Destroyed | **1030** items, 10 were gone already |",
        "| Held | MAX_MB in gateway.env for ",
        "the original is back |",
        "| Purge attachments (purge) | 1030 | 10 | 1 | ids 1040, deleted.blobs 1030 |",
        "- Purge attachments (purge): id-7 failed: status 500",
        "ended well all the same",
        "- restore: old-1: recorded as a, and the file is b",
        "| confirm | `RESET` | ada | ",
        "| `25` | `0.0000001` |",
        "| environment | `staging` |",
        "- **Follow-up**: none",
    ] {
        assert!(markdown.contains(part), "{part}\n{markdown}");
    }
    assert!(!markdown.contains("What to do now"));
    let json = json_of(&bench, &outputs);
    assert_eq!(json["counts"]["destroyed"], 1030);
    assert_eq!(json["held"][0]["back"], true);
    assert_eq!(json["steps"][2]["failures"]["id-7"], "status 500");
    assert_eq!(json["inputs"]["environment"], "staging");
}

#[tokio::test]
async fn a_run_that_failed_says_what_was_done_what_was_not_and_what_to_type() {
    let bench = bench(json!({})).await;
    freeze(&bench).await;
    confirm(&bench).await;
    purge(&bench).await;
    let error = StepError::gate("1 of 1041 keys could not be deleted").with_help("look at the store");
    bench.record(EventKind::StepFailed { step: "purge".to_owned(), error }).await;
    let (outputs, markdown) = report(&bench).await;
    assert_eq!(outputs["verdict"], "FAIL");
    for part in [
        "# bench: FAIL\n",
        "because purge failed; restore did not run.",
        "- **Failed**: Purge attachments (purge): 1 of 1041 keys could not be deleted",
        "  - look at the store",
        "- **Done**: `freeze`, `confirm`\n",
        "- **Not done**: `restore`\n",
        "- `runbook resume run-1`: ",
        "- `runbook cancel run-1`: ",
        "still held; it is put back when the run ends",
        "**1 failed**, **1 not run**",
    ] {
        assert!(markdown.contains(part), "{part}\n{markdown}");
    }
    let json = json_of(&bench, &outputs);
    assert_eq!(json["reasons"], json!(["purge failed", "restore did not run"]));
    assert_eq!(json["held"][0]["closed_at"], Value::Null);
}

#[tokio::test]
async fn a_value_that_is_not_ours_is_loud() {
    let bench = bench(json!({})).await;
    freeze(&bench).await;
    obligation(&bench, ObligationChange::Releasing { by: None }).await;
    let how = Closed::Foreign { present: "50".to_owned() };
    obligation(&bench, ObligationChange::Closed { how }).await;
    let (outputs, markdown) = report(&bench).await;
    assert_eq!(outputs["verdict"], "FAIL");
    assert!(markdown.contains("MAX_MB in gateway.env is not back"), "{markdown}");
    assert!(markdown.contains("left alone: somebody else's value is there, 50"), "{markdown}");
}

#[tokio::test]
async fn nothing_ran_and_there_is_a_report_all_the_same() {
    let bench = bench(json!({ "include": ["steps"] })).await;
    let (outputs, markdown) = report(&bench).await;
    assert_eq!(outputs["verdict"], "FAIL");
    assert!(markdown.contains("| purge") || markdown.contains("(purge)"), "{markdown}");
    assert!(!markdown.contains("## Inputs") && markdown.contains("## Steps"), "{markdown}");
}

#[tokio::test]
async fn what_comes_later_and_what_may_fail_is_not_held_against_the_run() {
    let mut bench = bench(json!({})).await;
    let mut plan = (*bench.plan).clone();
    // In the middle: the steps after it have not run yet.
    plan.finally.clear();
    plan.steps.insert(2, planned("report", "report", json!({})));
    plan.steps[1].on_failure = OnFailure::Continue;
    bench.plan = plan.into();
    freeze(&bench).await;
    obligation(&bench, ObligationChange::Releasing { by: None }).await;
    obligation(&bench, ObligationChange::Closed { how: Closed::Untouched }).await;
    start(&bench, "confirm").await;
    let error = StepError::gate("the phrase was not given");
    bench.record(EventKind::StepFailed { step: "confirm".to_owned(), error }).await;
    let (outputs, markdown) = report(&bench).await;
    assert_eq!(outputs["verdict"], "PASS", "{markdown}");
    assert!(markdown.contains("- confirm failed: the phrase was not given (gate)"), "{markdown}");
}

#[tokio::test]
async fn copies_are_written_without_secrets() {
    let bench = bench(json!({})).await;
    bench.redactor.learn("open-sesame-17");
    freeze(&bench).await;
    start(&bench, "confirm").await;
    let error = StepError::refused("the key open-sesame-17 was refused");
    bench.record(EventKind::StepFailed { step: "confirm".to_owned(), error }).await;
    start(&bench, "report").await;
    let folder = bench.folder.path().join("reports");
    let enter = async |path: &std::path::Path| {
        let with = json!({ "path": path, "notes": { "key": "open-sesame-17" } });
        bench.enter_with(bench.context("report"), Some(with)).await
    };
    let outputs = enter(&folder).await.unwrap();
    let copy = folder.join("run-1.md");
    assert_eq!(outputs["path"], json!(copy));
    let text = std::fs::read_to_string(&copy).unwrap()
        + &std::fs::read_to_string(folder.join("run-1.json")).unwrap();
    assert!(!text.contains("open-sesame") && text.contains("REDACTED"), "{text}");
    assert_eq!(bench.text(&outputs["markdown"]), std::fs::read_to_string(&copy).unwrap());
    let outputs = enter(&folder.join("incident 9.md")).await.unwrap();
    assert_eq!(outputs["path"], json!(folder.join("incident 9.md")));
    assert!(folder.join("incident 9.json").is_file());
    assert_eq!(enter("relative/folder".as_ref()).await.unwrap_err().kind, ErrorKind::Invalid);
}
