//! `upload` against a gateway that refuses, breaks off and forgets.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use runbook_engine::error::{ErrorKind, Outcome};
use runbook_engine::event::EventKind;
use runbook_engine::step::Intent;
use runbook_sandbox::Server;
use runbook_sandbox::admin::{Fault, FaultAction};
use runbook_steps::kind::Vault as _;
use serde_json::{Value, json};

use crate::chatkit::Lab;
use crate::common::answer;

fn upload_fault(after: u64, times: u64, action: FaultAction) -> Fault {
    let (method, path_prefix) = (Some("POST".to_owned()), "/chatkit/upload".to_owned());
    Fault { method, path_prefix, after, times, action }
}

fn status(status: u16) -> FaultAction {
    FaultAction { status: Some(status), ..FaultAction::default() }
}

fn cut() -> FaultAction {
    FaultAction { cut_after_effect: true, ..FaultAction::default() }
}

/// The descriptors, which are complete and all of one session.
fn descriptors(lab: &Lab, outputs: &Value) -> Vec<Value> {
    let descriptors = lab.bench.records(&outputs["descriptors"]);
    for (one, key) in descriptors.iter().zip(&lab.keys) {
        assert_eq!(one["key"], json!(key));
        assert_eq!(one["session_id"], outputs["session_id"]);
        let link = format!("fountain://chatkit/attachments/{}", one["attachment_id"].as_str().unwrap());
        assert_eq!(one["upload_url"], link);
        assert_eq!(one["mime_type"], "text/plain");
    }
    descriptors
}

#[tokio::test]
async fn every_file_gets_a_new_id_in_one_session() {
    let lab = Lab::new(4).await;
    let outputs = lab.restore().await.unwrap();
    assert_eq!(
        (&outputs["uploaded"], &outputs["failed"], &outputs["replaced"]),
        (&json!(4), &json!(0), &json!(0))
    );
    let mut ids: Vec<String> = descriptors(&lab, &outputs)
        .iter()
        .map(|one| one["attachment_id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    assert_eq!(lab.chatkit.doc_ids("attachments").await.unwrap(), ids);
    let names: Vec<Value> = lab.chatkit.documents("attachment-metadata").await.unwrap();
    assert!(names.iter().any(|one| one["fileName"] == "file 3 ü.txt"));
    // Entered again, nothing is sent again.
    assert_eq!(lab.restore().await.unwrap()["session_id"], outputs["session_id"]);
    assert_eq!(lab.posts().await, 4);
}

#[tokio::test]
async fn a_file_that_changed_fails_and_only_it_is_sent_after_the_repair() {
    let mut lab = Lab::new(3).await;
    let path = lab.chatkit.archive_dir().join("01.txt");
    let right = std::fs::read(&path).unwrap();
    std::fs::write(&path, vec![b'x'; right.len()]).unwrap();
    std::fs::remove_file(lab.chatkit.archive_dir().join("02.txt")).unwrap();
    lab.bench.record(EventKind::StepStarted { step: "restore".to_owned(), attempt: 1 }).await;
    let error = lab.restore().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gate);
    assert!(
        error.message.starts_with("2 of 3 files were not uploaded: old-01: 01.txt has the SHA-256"),
        "{error}"
    );
    assert!(error.message.contains("old-02: 02.txt is missing"), "{error}");
    assert_eq!(lab.posts().await, 1);
    let step = "restore".to_owned();
    lab.bench.record(EventKind::StepFailed { step, error }).await;
    std::fs::write(&path, right).unwrap();
    lab.bench.reopen("restore").await;
    lab.bench.reopen_resources();
    let outputs = lab.restore_with(json!({ "on_missing": "continue" })).await.unwrap();
    assert_eq!(
        (&outputs["uploaded"], &outputs["failed"], &outputs["replaced"]),
        (&json!(2), &json!(1), &json!(0))
    );
    assert!(outputs["discrepancies"][0].as_str().unwrap().contains("02.txt is missing"));
    assert_eq!(lab.posts().await, 2);
}

#[tokio::test]
async fn refusals_fail_the_item_at_once() {
    for (code, said) in [(413, "413"), (415, "415"), (202, "not a promise"), (400, "400")] {
        let lab = Lab::new(1).await;
        lab.chatkit.fault(Server::Gateway, &upload_fault(0, 1, status(code))).await.unwrap();
        let error = lab.restore().await.unwrap_err();
        assert!(error.kind == ErrorKind::Gate && error.message.contains(said), "{error}");
        assert_eq!(lab.posts().await, 1);
    }
}

#[tokio::test]
async fn a_key_that_the_manifest_lacks_fails() {
    let lab = Lab::new(2).await;
    let error = lab.restore_with(json!({ "only": ["old-01", "old-77"] })).await.unwrap_err();
    assert!(
        error.message.contains("1 of 2 files were not uploaded: old-77: it is not in the manifest"),
        "{error}"
    );
    assert_eq!(lab.posts().await, 1);
}

#[tokio::test]
async fn an_upload_whose_answer_was_cut_off_is_adopted() {
    let lab = Lab::new(3).await;
    lab.chatkit.fault(Server::Gateway, &upload_fault(1, 1, cut())).await.unwrap();
    let outputs = lab.restore().await.unwrap();
    assert_eq!(outputs["uploaded"], 3);
    assert_eq!(descriptors(&lab, &outputs).len(), 3);
    assert_eq!((lab.records().await, lab.posts().await), ((3, 3), 3));
}

#[tokio::test]
async fn what_is_sent_again_is_announced_again() {
    let lab = Lab::new(1).await;
    let unanswered = FaultAction { cut_before_effect: true, ..FaultAction::default() };
    lab.chatkit.fault(Server::Gateway, &upload_fault(0, 2, unanswered)).await.unwrap();
    assert_eq!(lab.restore().await.unwrap()["uploaded"], 1);
    let rows = lab.bench.context("restore").ledger.batches(0, 100).await.unwrap();
    let until: Vec<&str> = rows.iter().map(|row| row.intent["under_way_until"].as_str().unwrap()).collect();
    assert!(until.len() == 3 && until.is_sorted() && until[0] != until[2], "{until:?}");
    let became = |at: usize| rows[at].settled.as_ref().unwrap().outcome.to_string();
    assert!(became(0).contains("sent again") && became(1).contains("sent again"), "{rows:?}");
    assert!(became(2).contains("stored"), "{rows:?}");
    assert_eq!((lab.records().await, lab.posts().await), ((1, 1), 3));
}

#[tokio::test]
async fn a_partial_upload_is_deleted_and_sent_again() {
    let lab = Lab::new(2).await;
    let fault = Fault {
        method: Some("PUT".to_owned()),
        path_prefix: "/corpora/chatkit/collections/attachment-metadata".to_owned(),
        after: 0,
        times: 1,
        action: status(500),
    };
    lab.chatkit.fault(Server::Store, &fault).await.unwrap();
    let outputs = lab.restore().await.unwrap();
    assert_eq!(outputs["uploaded"], 2);
    assert_eq!(descriptors(&lab, &outputs).len(), 2);
    assert_eq!(lab.records().await, (2, 2));
    let effects = lab.chatkit.effects().await.unwrap();
    assert_eq!(effects.iter().filter(|effect| effect.op == "delete" && effect.existed).count(), 1);
}

#[tokio::test]
async fn what_a_crash_left_open_is_settled_by_the_servers_records() {
    cut_off(false).await;
}

#[tokio::test]
async fn what_a_cancel_cut_off_is_settled_by_the_servers_records() {
    cut_off(true).await;
}

async fn cut_off(cancelled: bool) {
    let mut lab = Lab::new(3).await;
    // One file arrives, and the process dies before it records that: its batch is announced and nothing more.
    lab.chatkit.fault(Server::Gateway, &upload_fault(0, 1, cut())).await.unwrap();
    lab.chatkit
        .fault(
            Server::Store,
            &Fault {
                method: Some("POST".to_owned()),
                path_prefix: "/corpora/chatkit/collections".to_owned(),
                after: 0,
                times: 100,
                action: status(503),
            },
        )
        .await
        .unwrap();
    let error = lab.restore().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient);
    assert_eq!(lab.bench.context("restore").ledger.view().await.unwrap().unsettled.len(), 1);
    // As long as nobody can look the run stays open for another cancel.
    let error = lab.bench.tidy_with("restore", lab.restore.clone()).await.unwrap_err();
    assert!(error.kind.retryable() && error.message.contains("its last upload"), "{error}");
    lab.chatkit.clear_faults(Server::Store).await.unwrap();
    lab.bench.reopen_resources();
    if cancelled {
        // What never left is waited for as long as it could be under way, and no longer.
        let what = json!({
            "series": 0, "key": "old-02", "name": "file 2 ü.txt", "sha256": "00", "session": "gone",
            "under_way_until": Timestamp::now() + SignedDuration::from_secs(3),
        });
        let intent = Intent { what, items: 1, charged_items: 0, charged_bytes: 0 };
        lab.bench.context("restore").ledger.intend(intent).await.unwrap();
        let begun = Instant::now();
        lab.bench.tidy_with("restore", lab.restore.clone()).await.unwrap();
        let view = lab.bench.context("restore").ledger.view().await.unwrap();
        assert!(view.unsettled.is_empty() && view.totals.done == 1, "{view:?}");
        assert_eq!((lab.records().await, lab.posts().await), ((1, 1), 1));
        assert!(begun.elapsed() > Duration::from_secs(2));
        return;
    }
    let outputs = lab.restore().await.unwrap();
    assert_eq!((&outputs["uploaded"], &outputs["replaced"]), (&json!(3), &json!(0)));
    assert_eq!(descriptors(&lab, &outputs).len(), 3);
    assert_eq!((lab.records().await, lab.posts().await), ((3, 3), 3));
}

#[tokio::test]
async fn without_records_to_look_at_a_person_decides() {
    let lab = Lab::new(2).await;
    lab.chatkit.fault(Server::Gateway, &upload_fault(0, 1, cut())).await.unwrap();
    let more = json!({ "recorded_in": null });
    for _ in 0..2 {
        let error = lab.restore_with(more.clone()).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Unknown);
        assert!(error.message.contains("old-00"), "{error}");
    }
    assert_eq!(lab.posts().await, 1);
    let mut cx = lab.bench.context("restore");
    cx.engine.answers.push(answer("retry"));
    let mut with = lab.restore.clone();
    with["recorded_in"] = Value::Null;
    assert_eq!(lab.bench.enter_with(cx, Some(with)).await.unwrap()["uploaded"], 2);
    assert_eq!(lab.posts().await, 3);
}

#[tokio::test]
async fn files_of_a_lost_session_are_replaced() {
    let mut lab = Lab::new(4).await;
    let first = lab.restore_with(json!({ "only": ["old-00", "old-01"] })).await.unwrap();
    // Sessions live in the gateway's memory only.
    lab.chatkit.restart(Server::Gateway).await.unwrap();
    lab.bench.reopen_resources();
    let outputs = lab.restore().await.unwrap();
    assert_ne!(outputs["session_id"], first["session_id"]);
    assert_eq!((&outputs["uploaded"], &outputs["replaced"]), (&json!(4), &json!(2)));
    assert_eq!(descriptors(&lab, &outputs).len(), 4);
    assert_eq!(lab.records().await, (4, 4), "the records of the lost session are gone");
}

#[tokio::test]
async fn a_session_that_is_refreshed_is_the_same_session() {
    let lab = Lab::new(3).await;
    lab.chatkit.fault(Server::Gateway, &upload_fault(1, 1, status(401))).await.unwrap();
    let outputs = lab.restore().await.unwrap();
    assert_eq!((&outputs["uploaded"], &outputs["replaced"]), (&json!(3), &json!(0)));
    assert_eq!(descriptors(&lab, &outputs).len(), 3);
    assert_eq!(lab.posts().await, 4);
}

#[tokio::test]
async fn a_gateway_that_is_down_is_a_failure_that_can_be_retried() {
    let lab = Lab::new(2).await;
    assert_eq!(lab.restore_with(json!({ "only": ["old-00"] })).await.unwrap()["uploaded"], 1);
    lab.chatkit.kill(Server::Gateway).await.unwrap();
    let error = lab.restore().await.unwrap_err();
    assert_eq!((error.kind, error.outcome), (ErrorKind::Transient, Outcome::Failed));
    lab.chatkit.restart(Server::Gateway).await.unwrap();
    assert_eq!(lab.restore().await.unwrap()["uploaded"], 2);
}

#[tokio::test]
async fn no_secret_is_in_the_ledger() {
    let lab = Lab::new(2).await;
    lab.restore().await.unwrap();
    let rows = lab.bench.context("restore").ledger.batches(0, 100).await.unwrap();
    let text = rows.iter().map(|row| format!("{} {:?}", row.intent, row.settled)).collect::<String>();
    assert!(text.contains("old-00") && !text.contains("secret"), "{text}");
    let held: Value = serde_json::from_str(&lab.bench.vault.get("session:gateway").unwrap()).unwrap();
    assert!(!text.contains(held["secret"].as_str().unwrap()));
}

#[tokio::test]
async fn an_announced_file_that_never_left_is_sent() {
    let lab = Lab::new(1).await;
    let what =
        json!({ "series": 0, "key": "old-00", "name": "file 0 ü.txt", "sha256": "00", "session": "gone" });
    let intent = Intent { what, items: 1, charged_items: 0, charged_bytes: 0 };
    lab.bench.context("restore").ledger.intend(intent).await.unwrap();
    assert_eq!(lab.restore().await.unwrap()["uploaded"], 1);
}
