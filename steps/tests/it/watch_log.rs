//! `watch-log` on a file that grows, is rotated, or never comes.

use std::io::Write as _;
use std::time::Duration;

use runbook_engine::error::ErrorKind;
use serde_json::{Value, json};

use crate::common::{Bench, planned};

async fn bench(more: Value) -> Bench {
    let mut bench = Bench::new(vec![planned("watch", "watch-log", json!({}))], json!({}), json!({})).await;
    let mut with = json!({
        "path": bench.folder.path().join("gateway.log"),
        "interval": "20ms",
        "timeout": "300ms",
        "expect": [
            { "match": { "kind": "attachmentUploadSucceeded" }, "at_least": 2 },
            { "match": { "kind": "attachmentDownloadSucceeded", "status": 200 } },
        ],
    });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut plan = (*bench.plan).clone();
    plan.steps = vec![planned("watch", "watch-log", with)];
    bench.plan = plan.into();
    bench
}

fn append(bench: &Bench, text: &str) {
    let path = bench.folder.path().join("gateway.log");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

const UP: &str = "{\"kind\":\"attachmentUploadSucceeded\",\"timestamp\":\"2026-02-01T12:00:00Z\"}\n";
const DOWN: &str = "{\"kind\":\"attachmentDownloadSucceeded\",\"status\":200}\n";

#[tokio::test]
async fn what_is_written_while_it_watches_counts_across_a_rotation() {
    let bench = bench(json!({ "timeout": "10s" })).await;
    append(&bench, UP);
    append(&bench, "starting up, not JSON\n");
    let writer = async {
        tokio::time::sleep(Duration::from_millis(80)).await;
        let path = bench.folder.path().join("gateway.log");
        std::fs::rename(&path, path.with_extension("1")).unwrap();
        append(&bench, UP);
        append(&bench, &DOWN[..20]);
        tokio::time::sleep(Duration::from_millis(80)).await;
        append(&bench, &DOWN[20..]);
    };
    let (outputs, ()) = tokio::join!(bench.enter("watch"), writer);
    let outputs = outputs.unwrap();
    assert_eq!(outputs["counts"], json!([2, 1]));
    assert_eq!((&outputs["lines_read"], &outputs["non_json"]), (&json!(4), &json!(1)));
    assert!(outputs["waited_ms"].as_u64().unwrap() >= 100);
    assert_eq!(bench.records(&outputs["matched"]).len(), 3);
}

#[tokio::test]
async fn a_timeout_says_what_was_seen() {
    let bench = bench(json!({ "since": "2026-02-01T00:00:00Z" })).await;
    append(&bench, UP);
    append(&bench, DOWN);
    let error = bench.enter("watch").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gate);
    for part in ["after 300ms", "attachmentUploadSucceeded\"}: 1 of 2 seen", "0 of 1 seen"] {
        assert!(error.message.contains(part), "{error}");
    }
    assert!(error.help.unwrap().contains("2 lines were read"));
}

#[tokio::test]
async fn a_file_that_never_comes_is_named() {
    let bench = bench(json!({})).await;
    let error = bench.enter("watch").await.unwrap_err();
    assert!(error.help.unwrap().ends_with("gateway.log is not there"));
}

#[tokio::test]
async fn it_stops_when_told_to() {
    let bench = bench(json!({ "timeout": "1h" })).await;
    let cx = bench.context("watch");
    let stop = cx.stop.clone();
    let stopper = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        stop.cancel();
    };
    let (result, ()) = tokio::join!(bench.enter_with(cx, None), stopper);
    assert_eq!(result.unwrap_err().kind, ErrorKind::Interrupted);
}
