//! `snapshot` and `count` against a real store.

use std::time::Duration;

use runbook_engine::error::ErrorKind;
use runbook_sandbox::admin::FaultAction;
use runbook_steps::digest::{sha256, sha256_file};
use serde_json::json;

use crate::common::{Bench, planned};
use crate::fountain::{change, collections, connections, fault, start};

#[tokio::test]
async fn every_item_is_there_once_and_in_order_and_orphans_are_found() {
    let chatkit = start(40, 3).await;
    // 40 is a multiple of the page size: the store repeats its last document past the end.
    let snapshot =
        |collection: &str| planned("s", "snapshot", json!({ "collection": collection, "page_size": 8 }));
    let bench = Bench::new(vec![snapshot("metadata")], connections(&chatkit), collections()).await;
    let metadata = bench.enter("s").await.unwrap();
    assert_eq!(
        (&metadata["count"], &metadata["exported"], &metadata["only_here"]),
        (&json!(40), &json!(0), &json!(null))
    );
    let lines = bench.records(&metadata["manifest"]);
    let times: Vec<_> = lines.iter().map(|line| line["record"]["storedAt"].as_str().unwrap()).collect();
    assert!(times.is_sorted());
    let mut keys: Vec<_> = lines.iter().map(|line| line["key"].as_str().unwrap().to_owned()).collect();
    keys.sort();
    assert_eq!(keys, chatkit.doc_ids("attachment-metadata").await.unwrap());

    let with = json!({ "collection": "blobs", "page_size": 8, "compare_with": metadata["manifest"], "expect_count": 43 });
    let blobs = bench.enter_with(bench.context("s"), Some(with)).await.unwrap();
    assert_eq!((&blobs["only_here"]["count"], &blobs["only_there"]["count"]), (&json!(3), &json!(0)));
    for line in bench.records(&blobs["only_here"]["manifest"]) {
        assert!(!keys.contains(&line["key"].as_str().unwrap().to_owned()));
    }
    let sizes: u64 =
        bench.records(&blobs["manifest"]).iter().map(|line| line["bytes"].as_u64().unwrap()).sum();
    assert_eq!(blobs["bytes"], json!(sizes));

    let with = json!({ "collection": "blobs", "expect_count": 44 });
    let error = bench.enter_with(bench.context("s"), Some(with)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gate);
    assert!(error.message.contains("43 items, and 44 were expected"), "{error}");

    let count = runbook_steps::catalog::step("count").unwrap();
    let with = json!({ "collections": ["blobs", "metadata"], "at_least": 40 });
    let end = (count.run)(with, bench.context("s")).await.unwrap();
    let runbook_engine::step::StepEnd::Done(outputs) = end else { panic!("asks") };
    assert_eq!(outputs, json!({ "counts": { "blobs": 43, "metadata": 40 }, "total": 83 }));
    let with = json!({ "collections": "blobs", "expect": 0 });
    let error = (count.run)(with, bench.context("s")).await.unwrap_err();
    assert!(error.message.contains("holds 43, and exactly 0 were expected"), "{error}");
}

#[tokio::test]
async fn named_items_are_exported_and_proven_on_disk() {
    let chatkit = start(10, 0).await;
    let ids = chatkit.doc_ids("attachments").await.unwrap();
    let with = json!({ "collection": "blobs", "only": [ids[3], ids[1]], "export": { "connection": "archive", "folder": "a/b" } });
    let steps = vec![planned("s", "snapshot", with)];
    let bench = Bench::new(steps, connections(&chatkit), collections()).await;
    let outputs = bench.enter("s").await.unwrap();
    assert_eq!((&outputs["count"], &outputs["exported"]), (&json!(2), &json!(2)));
    let documents = chatkit.documents("attachments").await.unwrap();
    let lines = bench.records(&outputs["export_manifest"]);
    assert_eq!(
        lines.iter().map(|line| line["key"].as_str().unwrap()).collect::<Vec<_>>(),
        [&ids[3], &ids[1]]
    );
    for line in lines {
        let document = documents.iter().find(|document| document["attachmentId"] == line["key"]).unwrap();
        let path = chatkit.archive_dir().join(line["path"].as_str().unwrap());
        let (hash, size) = sha256_file(&path).unwrap();
        assert_eq!((&json!(hash), &json!(size)), (&document["checksum"], &document["sizeBytes"]));
        assert_eq!(
            (&line["sha256"], &line["bytes"], &line["name"]),
            (&json!(hash), &json!(size), &document["fileName"])
        );
    }
    // Once more is the same; a file that is another one is left alone, and said.
    assert_eq!(bench.enter("s").await.unwrap()["exported"], json!(2));
    let path =
        chatkit.archive_dir().join(bench.records(&outputs["export_manifest"])[0]["path"].as_str().unwrap());
    std::fs::write(&path, "of somebody else").unwrap();
    let error = bench.enter("s").await.unwrap_err();
    assert!(error.kind == ErrorKind::Gate && error.message.contains(&ids[3]), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"of somebody else");

    let with = json!({ "collection": "blobs", "only": [ids[0], "gone-1", "gone-2"] });
    let error = bench.enter_with(bench.context("s"), Some(with)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gate);
    assert!(error.message.contains("2 of 3") && error.message.contains("`gone-1`, `gone-2`"), "{error}");
}

#[tokio::test]
async fn contents_that_are_not_what_they_say_stop_the_run() {
    let chatkit = start(6, 0).await;
    let documents = chatkit.documents("attachments").await.unwrap();
    let id = |at: usize| documents[at]["attachmentId"].as_str().unwrap();
    let mut hash = documents[1].clone();
    hash["checksum"] = json!(sha256(b"something else"));
    change(&chatkit, "PUT", "attachments", id(1), Some(&hash)).await;
    let mut size = documents[4].clone();
    size["sizeBytes"] = json!(1_000_000);
    change(&chatkit, "PUT", "attachments", id(4), Some(&size)).await;
    let with = json!({ "collection": "blobs", "export": { "connection": "archive" } });
    let bench = Bench::new(vec![planned("s", "snapshot", with)], connections(&chatkit), collections()).await;
    let error = bench.enter("s").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gate);
    assert!(error.message.starts_with("2 contents"), "{error}");
    assert!(error.message.contains(id(1)) && error.message.contains(id(4)), "{error}");

    let mut keyless = documents[2].clone();
    keyless["attachmentId"] = json!(7);
    change(&chatkit, "PUT", "attachments", id(2), Some(&keyless)).await;
    let with = json!({ "collection": "blobs" });
    let error = bench.enter_with(bench.context("s"), Some(with)).await.unwrap_err();
    assert!(error.kind == ErrorKind::Gate && error.message.contains("`attachmentId`"), "{error}");
}

#[tokio::test]
async fn a_collection_that_changes_is_read_again() {
    let chatkit = start(30, 0).await;
    let with = json!({ "collection": "metadata", "page_size": 5 });
    let bench = Bench::new(vec![planned("s", "snapshot", with)], connections(&chatkit), collections()).await;
    // The fourth page comes late; the first document, already read, goes away meanwhile, so that all others move up by one.
    let query = "/corpora/chatkit/collections/attachment-metadata/query";
    let slow = FaultAction { delay_ms: Some(1500), ..FaultAction::default() };
    fault(&chatkit, "POST", query, 3, 1, slow).await;
    let mut documents = chatkit.documents("attachment-metadata").await.unwrap();
    documents.sort_by_key(|document| document["storedAt"].as_str().unwrap().to_owned());
    let first = documents[0]["attachmentId"].as_str().unwrap().to_owned();
    let meddle = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        change(&chatkit, "DELETE", "attachment-metadata", &first, None).await;
    };
    let (outputs, ()) = tokio::join!(bench.enter("s"), meddle);
    let outputs = outputs.unwrap();
    assert_eq!(outputs["count"], json!(29));
    let mut keys: Vec<_> = bench
        .records(&outputs["manifest"])
        .iter()
        .map(|line| line["key"].as_str().unwrap().to_owned())
        .collect();
    keys.sort();
    assert_eq!(keys, chatkit.doc_ids("attachment-metadata").await.unwrap());
    assert!(!keys.contains(&first));
}

#[tokio::test]
async fn an_empty_collection_is_an_answer_and_a_missing_corpus_is_none() {
    let chatkit = start(4, 0).await;
    for id in chatkit.doc_ids("attachment-metadata").await.unwrap() {
        change(&chatkit, "DELETE", "attachment-metadata", &id, None).await;
    }
    let mut collections = collections();
    collections["elsewhere"] = collections["metadata"].clone();
    collections["elsewhere"]["corpus"] = json!("no-such-corpus");
    let with = json!({ "collection": "metadata" });
    let bench = Bench::new(vec![planned("s", "snapshot", with)], connections(&chatkit), collections).await;
    assert_eq!(bench.enter("s").await.unwrap()["count"], json!(0));
    let with = json!({ "collection": "elsewhere" });
    let error = bench.enter_with(bench.context("s"), Some(with)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
}

#[tokio::test]
async fn short_failures_of_the_store_are_ridden_out() {
    let chatkit = start(12, 0).await;
    let with = json!({ "collection": "metadata", "page_size": 4 });
    let bench = Bench::new(vec![planned("s", "snapshot", with)], connections(&chatkit), collections()).await;
    let query = "/corpora/chatkit/collections/attachment-metadata/query";
    fault(&chatkit, "POST", query, 1, 1, FaultAction { status: Some(503), ..FaultAction::default() }).await;
    fault(&chatkit, "POST", query, 2, 1, FaultAction { truncate_body: true, ..FaultAction::default() }).await;
    assert_eq!(bench.enter("s").await.unwrap()["count"], json!(12));
    let missing = FaultAction { not_supported: Some("query.sort".to_owned()), ..FaultAction::default() };
    let bench = Bench::new(
        vec![planned("s", "snapshot", json!({ "collection": "metadata" }))],
        connections(&chatkit),
        collections(),
    )
    .await;
    fault(&chatkit, "GET", "/capabilities", 0, 1, missing).await;
    let error = bench.enter("s").await.unwrap_err();
    assert!(error.kind == ErrorKind::Refused && error.message.contains("`query.sort`"), "{error}");
}
