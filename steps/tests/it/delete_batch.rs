//! `delete-batch` against a real store.

use std::collections::BTreeSet;
use std::time::Duration;

use runbook_engine::error::ErrorKind;
use runbook_sandbox::admin::FaultAction;
use runbook_sandbox::redis::RedisServer;
use runbook_sandbox::{Chatkit, Server};
use serde_json::{Value, json};

use crate::common::{Bench, planned};
use crate::databases::Db;
use crate::fountain::{change, collections, connections, docs, fault, start};

/// A bench whose step `purge` deletes `ids` from both collections.
async fn bench(chatkit: &Chatkit, ids: &[String], batch_size: u64, more: Value) -> Bench {
    let mut with = json!({ "collections": ["blobs", "metadata"], "keys": [], "batch_size": batch_size });
    for (key, value) in more.as_object().unwrap() {
        with[key] = value.clone();
    }
    let records: Vec<_> = ids.iter().map(|id| json!({ "key": id, "record": {} })).collect();
    // The plan needs the manifest, and the manifest a folder: so it is written into a bench made before.
    let draft = Bench::new(Vec::new(), json!({}), json!({})).await;
    with["keys"] = draft.artifact("ids.jsonl", &records);
    let mut step = planned("purge", "delete-batch", with);
    let max_items = step.with.as_object_mut().unwrap().remove("max_items");
    step.limits.max_items = max_items.map_or(Some(ids.len() as u64), |max| max.as_u64());
    let bench = Bench::new(vec![step], connections(chatkit), collections()).await;
    bench.artifact("ids.jsonl", &records);
    bench
}

/// Deletes the store did, as `collection/id`.
async fn deleted(chatkit: &Chatkit) -> Vec<String> {
    let effects = chatkit.effects().await.unwrap().into_iter();
    let effects = effects.filter(|effect| effect.op == "delete" && effect.existed);
    effects.map(|effect| format!("{}/{}", effect.collection.unwrap(), effect.id.unwrap())).collect()
}

#[tokio::test]
async fn what_the_manifest_names_goes_and_nothing_else() {
    let chatkit = start(25, 2).await;
    let ids = chatkit.doc_ids("attachment-metadata").await.unwrap();
    change(&chatkit, "DELETE", "attachments", &ids[4], None).await;
    let before = deleted(&chatkit).await.len();
    let bench = bench(&chatkit, &ids[..20], 7, json!({})).await;
    let outputs = bench.enter("purge").await.unwrap();
    assert_eq!(
        outputs,
        json!({
            "ids": 20, "deleted": { "blobs": 19, "metadata": 20 }, "already_gone": { "blobs": 1, "metadata": 0 },
            "gone_after_crash": { "blobs": 0, "metadata": 0 }, "failed": 0, "batches": 3, "population": 26,
            "not_in_plan": 0, "guard": {},
        })
    );
    assert_eq!(chatkit.doc_ids("attachment-metadata").await.unwrap(), ids[20..]);
    assert_eq!(chatkit.doc_ids("attachments").await.unwrap().len(), 7);
    let gone: BTreeSet<_> = deleted(&chatkit).await.split_off(before).into_iter().collect();
    assert_eq!(gone.len(), 39);
    assert!(gone.iter().all(|path| ids[..20].iter().any(|id| path.ends_with(id.as_str()))));
    // Entered again, it finds itself at the end.
    assert_eq!(bench.enter("purge").await.unwrap(), outputs);
    let batches = bench.context("purge").ledger.batches(0, 10).await.unwrap();
    let outcome = &batches[0].settled.as_ref().unwrap().outcome;
    assert_eq!((&outcome["ids"][&ids[0]], &outcome["ids"][&ids[4]]), (&json!("dd"), &json!("ad")));
}

#[tokio::test]
async fn short_failures_are_ridden_out_and_an_answer_that_is_lost_changes_nothing() {
    let chatkit = start(12, 0).await;
    let ids = chatkit.doc_ids("attachment-metadata").await.unwrap();
    let bench = bench(&chatkit, &ids, 5, json!({})).await;
    let busy = FaultAction { status: Some(503), retry_after: Some(1), ..FaultAction::default() };
    fault(&chatkit, "DELETE", &docs("attachments"), 2, 2, busy).await;
    let cut = FaultAction { cut_after_effect: true, ..FaultAction::default() };
    fault(&chatkit, "DELETE", &docs("attachment-metadata"), 3, 1, cut).await;
    let outputs = bench.enter("purge").await.unwrap();
    assert_eq!((&outputs["failed"], &outputs["ids"]), (&json!(0), &json!(12)));
    // The delete whose answer was lost is found gone when it is tried again.
    assert_eq!(
        (&outputs["deleted"]["metadata"], &outputs["already_gone"]["metadata"]),
        (&json!(11), &json!(1))
    );
    assert!(chatkit.doc_ids("attachments").await.unwrap().is_empty());
    assert_eq!(deleted(&chatkit).await.len(), 24);
}

#[tokio::test]
async fn what_fails_lasting_is_named_and_tried_again_on_the_next_entry() {
    let chatkit = start(10, 0).await;
    let ids = chatkit.doc_ids("attachment-metadata").await.unwrap();
    let bench = bench(&chatkit, &ids, 4, json!({ "retry_failed": 1 })).await;
    let broken = FaultAction { status: Some(500), ..FaultAction::default() };
    fault(&chatkit, "DELETE", &format!("{}{}", docs("attachments"), ids[6]), 0, 1000, broken).await;
    let error = bench.enter("purge").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient);
    assert!(error.message.starts_with("1 of 10 keys could not be deleted in 2 passes"), "{error}");
    let path = error.help.unwrap().rsplit(' ').next().unwrap().to_owned();
    let line: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!((&line["key"], &line["collection"]), (&json!(ids[6]), &json!("blobs")));
    // What could not be deleted first is left in the next collection too, so that it can still be found.
    assert_eq!(chatkit.doc_ids("attachment-metadata").await.unwrap(), [ids[6].clone()]);
    chatkit.clear_faults(Server::Store).await.unwrap();
    let outputs = bench.enter("purge").await.unwrap();
    assert_eq!(outputs["deleted"], json!({ "blobs": 10, "metadata": 10 }));
    assert_eq!(outputs["already_gone"], json!({ "blobs": 0, "metadata": 0 }));
    assert_eq!(deleted(&chatkit).await.len(), 20);
}

#[tokio::test]
async fn a_capability_that_is_missing_ends_it_at_once() {
    let chatkit = start(10, 0).await;
    let ids = chatkit.doc_ids("attachment-metadata").await.unwrap();
    let bench = bench(&chatkit, &ids, 5, json!({})).await;
    let missing =
        FaultAction { not_supported: Some("documents.delete".to_owned()), ..FaultAction::default() };
    fault(&chatkit, "DELETE", &docs("attachments"), 5, 1000, missing).await;
    let error = bench.enter("purge").await.unwrap_err();
    assert!(error.kind == ErrorKind::Refused && error.message.contains("`documents.delete`"), "{error}");
    assert_eq!(chatkit.doc_ids("attachments").await.unwrap().len(), 5);
    let tried = chatkit.requests(Server::Store).await.unwrap();
    let tried = tried.iter().filter(|request| request.status == Some(501)).count();
    assert!(tried <= 5, "{tried} requests after the refusal");
    chatkit.clear_faults(Server::Store).await.unwrap();
    let outputs = bench.enter("purge").await.unwrap();
    assert_eq!(outputs["ids"], json!(10));
    assert!(chatkit.doc_ids("attachments").await.unwrap().is_empty());
}

#[tokio::test]
async fn after_a_crash_only_the_batch_in_flight_is_done_again_and_nothing_is_charged_twice() {
    let chatkit = start(30, 0).await;
    let ids = chatkit.doc_ids("attachment-metadata").await.unwrap();
    let mut bench = bench(&chatkit, &ids, 5, json!({})).await;
    // The second batch is cut off after its deletes of the first collection and some of the second.
    let slow = FaultAction { delay_ms: Some(60_000), ..FaultAction::default() };
    fault(&chatkit, "DELETE", &docs("attachment-metadata"), 7, 1000, slow).await;
    let crash = tokio::time::timeout(Duration::from_secs(4), bench.enter("purge")).await;
    assert!(crash.is_err(), "it was not cut off");
    let view = bench.context("purge").ledger.view().await.unwrap();
    assert_eq!((view.unsettled.len(), view.totals.done), (1, 5));
    chatkit.clear_faults(Server::Store).await.unwrap();
    bench.reopen_resources();
    let requests = chatkit.requests(Server::Store).await.unwrap().len();
    // max_items is the number of keys: a second charge for the batch would be refused.
    let outputs = bench.enter("purge").await.unwrap();
    assert_eq!((&outputs["ids"], &outputs["batches"]), (&json!(30), &json!(6)));
    assert_eq!(
        (&outputs["deleted"]["blobs"], &outputs["gone_after_crash"]["blobs"]),
        (&json!(25), &json!(5))
    );
    assert!(chatkit.doc_ids("attachments").await.unwrap().is_empty());
    assert!(chatkit.doc_ids("attachment-metadata").await.unwrap().is_empty());
    let again = chatkit.requests(Server::Store).await.unwrap().split_off(requests);
    let again = again.iter().filter(|request| request.method == "DELETE").count();
    assert_eq!(again, 50, "25 keys, the batch cut off included, in two collections");
}

#[tokio::test]
async fn a_stop_is_heard_between_batches_and_a_limit_before_one() {
    let chatkit = start(20, 0).await;
    let ids = chatkit.doc_ids("attachment-metadata").await.unwrap();
    let stopped = bench(&chatkit, &ids, 5, json!({})).await;
    let cx = stopped.context("purge");
    let slow = FaultAction { delay_ms: Some(300), ..FaultAction::default() };
    fault(&chatkit, "DELETE", &docs("attachments"), 0, 1000, slow).await;
    let (stop, abandon) = (cx.stop.clone(), cx.abandon.clone());
    let (end, ()) = tokio::join!(stopped.enter_with(cx, None), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        // As a cancel does: what only waits is given up, and the batch in flight is not.
        stop.cancel();
        abandon.cancel();
    });
    assert_eq!(end.unwrap_err().kind, ErrorKind::Interrupted);
    let view = stopped.context("purge").ledger.view().await.unwrap();
    assert!(view.unsettled.is_empty() && view.totals.done > 0 && view.totals.done < 20);
    let left = chatkit.doc_ids("attachments").await.unwrap();
    assert_eq!(left, chatkit.doc_ids("attachment-metadata").await.unwrap());
    chatkit.clear_faults(Server::Store).await.unwrap();
    assert_eq!(stopped.enter("purge").await.unwrap()["deleted"], json!({ "blobs": 20, "metadata": 20 }));

    let error = bench(&chatkit, &ids, 5, json!({})).await.enter("purge").await.unwrap_err();
    assert!(error.kind == ErrorKind::Gate && error.message.contains("empty"), "{error}");
}

#[tokio::test]
async fn a_snapshot_taken_anew_is_gone_through_from_its_first_line() {
    let chatkit = start(20, 0).await;
    let ids = chatkit.doc_ids("attachment-metadata").await.unwrap();
    let mut bench = bench(&chatkit, &ids[..15], 5, json!({ "max_items": 100 })).await;
    // The first manifest is left in the middle, with a batch in flight.
    let slow = FaultAction { delay_ms: Some(60_000), ..FaultAction::default() };
    fault(&chatkit, "DELETE", &docs("attachment-metadata"), 12, 1000, slow).await;
    let crash = tokio::time::timeout(Duration::from_secs(4), bench.enter("purge")).await;
    assert!(crash.is_err(), "it was not cut off");
    chatkit.clear_faults(Server::Store).await.unwrap();
    bench.reopen_resources();
    let left: Vec<_> = chatkit.doc_ids("attachments").await.unwrap();
    let fresh: Vec<_> = ids.iter().filter(|id| left.contains(id) || ids[10..15].contains(id)).collect();
    let records: Vec<_> = fresh.iter().map(|id| json!({ "key": id, "record": {} })).collect();
    let manifest = bench.artifact("fresh.jsonl", &records);
    let with = json!({ "collections": ["blobs", "metadata"], "keys": manifest, "batch_size": 5 });
    let outputs = bench.enter_with(bench.context("purge"), Some(with)).await.unwrap();
    assert_eq!(outputs["ids"], json!(fresh.len()), "every line of the new manifest is dealt with");
    assert!(chatkit.doc_ids("attachments").await.unwrap().is_empty());
    assert!(chatkit.doc_ids("attachment-metadata").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_store_that_is_down_costs_no_failed_keys() {
    let chatkit = start(10, 0).await;
    let ids = chatkit.doc_ids("attachment-metadata").await.unwrap();
    let bench = bench(&chatkit, &ids, 5, json!({})).await;
    let slow = FaultAction { delay_ms: Some(1000), ..FaultAction::default() };
    fault(&chatkit, "DELETE", &docs("attachment-metadata"), 0, 5, slow).await;
    let (end, ()) = tokio::join!(bench.enter("purge"), async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        chatkit.kill(Server::Store).await.unwrap();
    });
    assert_eq!(end.unwrap_err().kind, ErrorKind::Transient);
    let view = bench.context("purge").ledger.view().await.unwrap();
    assert_eq!((view.totals.failed, view.unsettled.len()), (0, 1));
    chatkit.restart(Server::Store).await.unwrap();
    let outputs = bench.enter("purge").await.unwrap();
    assert_eq!((&outputs["ids"], &outputs["failed"]), (&json!(10), &json!(0)));
    assert!(chatkit.doc_ids("attachment-metadata").await.unwrap().is_empty());
}

#[tokio::test]
async fn an_empty_key_goes_where_there_may_be_one() {
    let server = RedisServer::start().await.unwrap();
    for key in ["", "other"] {
        server.run_in::<redis::Value>(0, redis::cmd("SET").arg(key).arg("value")).await.unwrap();
    }
    let db = Db::sqlite().await;
    db.execute(
        "create table texts (id text primary key, note text); insert into texts values ('', 'a'), ('b', 'c')",
    )
    .await;
    let mut connections = db.connections();
    connections["cache"] = json!({ "type": "redis", "url": server.url() });
    let chatkit = start(1, 0).await;
    connections["store"] = self::connections(&chatkit)["store"].clone();
    let mut all = collections();
    all["cached"] = json!({ "type": "redis-keys", "connection": "cache", "pattern": "*" });
    all["rows"] = json!({ "type": "sql-rows", "connection": "db", "table": "texts" });
    let records = [json!({ "key": "", "record": {} })];
    let purge = async |collection: &str| {
        let draft = Bench::new(Vec::new(), json!({}), json!({})).await;
        let keys = draft.artifact("ids.jsonl", &records);
        let mut step = planned("purge", "delete-batch", json!({ "collections": [collection], "keys": keys }));
        step.limits.max_items = Some(1);
        let bench = Bench::new(vec![step], connections.clone(), all.clone()).await;
        bench.artifact("ids.jsonl", &records);
        bench.enter("purge").await
    };
    for collection in ["cached", "rows"] {
        let outputs = purge(collection).await.unwrap();
        assert_eq!((&outputs["deleted"][collection], &outputs["population"]), (&json!(1), &json!(2)));
    }
    let left: i64 = server.run_in(0, &redis::cmd("DBSIZE")).await.unwrap();
    assert_eq!(left, 1);
    // A document without an id would be all of them.
    let error = purge("metadata").await.unwrap_err();
    assert!(error.kind == ErrorKind::Gate && error.message.contains("is empty"), "{error:?}");
    assert_eq!(chatkit.doc_ids("attachment-metadata").await.unwrap().len(), 1);
}
