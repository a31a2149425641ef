//! What the prose and the systems get wrong, each set on purpose.

use runbook_engine::error::ErrorKind;
use runbook_engine::state::RunStatus;
use runbook_sandbox::{Options, Server};
use serde_json::json;

use crate::bench::{Bench, PHRASE};

fn small() -> Options {
    Options { attachments: 25, restore: 3, ..Options::default() }
}

async fn fault(bench: &Bench, server: Server, fault: serde_json::Value) {
    bench.kit.fault(server, &serde_json::from_value(fault).unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_window_too_short_or_over_stops_before_anything() {
    for (start, end) in [
        ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
        ("2020-01-01T00:00:00Z", "not a time"),
        ("2099-01-01T00:00:00Z", "2099-01-01T00:10:00Z"),
    ] {
        let bench = Bench::start(&small()).await;
        let (start, end) = (format!("window_start={start}"), format!("window_end={end}"));
        bench.expect(4, &["exec", "reset-chatkit", "-i", &start, "-i", &end]).await;
        assert_eq!(std::fs::read(bench.kit.env_file()).unwrap(), bench.env_before);
        assert!(bench.kit.effects().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_batch_of_more_than_100_is_refused_before_anything() {
    let bench = Bench::start(&small()).await;
    for size in ["0", "101", "many"] {
        bench.expect(2, &["exec", "reset-chatkit", "-i", &format!("batch_size={size}")]).await;
    }
    assert!(bench.newest().await.is_none());
}

#[tokio::test]
async fn an_attachment_to_keep_that_is_not_there_stops_before_the_freeze() {
    let bench = Bench::start(&small()).await;
    let said = bench.expect(4, &["exec", "reset-chatkit", "-i", "restore_ids=no-such-id"]).await;
    assert!(said.contains("no-such-id"), "{said}");
    assert_eq!(std::fs::read(bench.kit.env_file()).unwrap(), bench.env_before);
    assert!(bench.kit.effects().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_missing_capability_is_named_and_stops_before_anything() {
    let bench = Bench::start(&small()).await;
    fault(&bench, Server::Store, json!({ "path_prefix": "/capabilities", "times": 100, "action": { "not_supported": "documents.delete" } })).await;
    let said = bench.expect(4, &["exec", "reset-chatkit"]).await;
    assert!(said.contains("documents.delete"), "{said}");
    assert!(bench.kit.effects().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_capability_lost_during_the_purge_is_permanent_and_named() {
    let bench = Bench::start(&small()).await;
    bench.expect(5, &["exec", "reset-chatkit"]).await;
    let (id, _) = bench.newest().await.unwrap();
    fault(&bench, Server::Store, json!({ "method": "DELETE", "path_prefix": "/corpora", "after": 10, "times": 10000, "action": { "not_supported": "documents.delete" } })).await;
    let said = bench.expect(4, &["answer", &id, PHRASE]).await;
    assert!(said.contains("documents.delete"), "{said}");
    let (_, state) = bench.newest().await.unwrap();
    let purge = state.step("purge").unwrap();
    assert_eq!(
        (purge.failures, purge.error.as_ref().unwrap().kind),
        (1, ErrorKind::Refused),
        "it is not retried"
    );
    // Once the capability is back, the same run goes on.
    bench.kit.clear_faults(Server::Store).await.unwrap();
    bench.expect(0, &["resume", &id]).await;
    let (_, state) = bench.newest().await.unwrap();
    bench.assert_reset(&state).await;
}

#[tokio::test]
async fn trouble_on_the_way_is_ridden_out() {
    let bench = Bench::start(&small()).await;
    bench.expect(5, &["exec", "reset-chatkit"]).await;
    let (id, _) = bench.newest().await.unwrap();
    fault(&bench, Server::Store, json!({ "method": "DELETE", "path_prefix": "/corpora", "after": 3, "times": 4, "action": { "status": 503, "retry_after": 1 } })).await;
    fault(&bench, Server::Store, json!({ "method": "DELETE", "path_prefix": "/corpora", "after": 12, "times": 3, "action": { "cut_after_effect": true } })).await;
    fault(&bench, Server::Gateway, json!({ "method": "POST", "path_prefix": "/chatkit/upload", "after": 1, "times": 1, "action": { "cut_after_effect": true } })).await;
    fault(&bench, Server::Gateway, json!({ "method": "GET", "path_prefix": "/chatkit/attachments", "times": 1, "action": { "status": 502 } })).await;
    bench.expect(0, &["answer", &id, PHRASE]).await;
    let (_, state) = bench.newest().await.unwrap();
    bench.assert_reset(&state).await;
    assert_eq!(
        bench.puts("attachments").await,
        bench.keep.len(),
        "an upload whose answer was lost is found, not repeated"
    );
}

#[tokio::test]
async fn a_session_that_died_is_noticed_and_everything_restored_anew() {
    let bench = Bench::start(&small()).await;
    bench.expect(5, &["exec", "reset-chatkit"]).await;
    let (id, _) = bench.newest().await.unwrap();
    // The first download is refused as the gateway does after a restart: then really restart it.
    fault(&bench, Server::Gateway, json!({ "method": "GET", "path_prefix": "/chatkit/attachments", "times": 1, "action": { "delay_ms": 1500 } })).await;
    let answer = tokio::spawn(bench.command(&["answer", &id, PHRASE]).output());
    loop {
        let requests = bench.kit.requests(Server::Gateway).await.unwrap_or_default();
        if requests.iter().any(|one| one.method == "GET" && one.path.starts_with("/chatkit/attachments")) {
            break;
        }
        if bench.puts("attachment-metadata").await >= bench.keep.len() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    bench.kit.restart(Server::Gateway).await.unwrap();
    let output = answer.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let (_, state) = bench.newest().await.unwrap();
    bench.assert_reset(&state).await;
    assert!(
        state.step("restore").unwrap().reopened >= 1,
        "what was restored in the dead session was restored again"
    );
}

#[tokio::test]
async fn items_that_vanish_meanwhile_are_already_gone_and_new_ones_stop_the_run() {
    let bench = Bench::start(&small()).await;
    bench.expect(5, &["exec", "reset-chatkit"]).await;
    let (id, _) = bench.newest().await.unwrap();
    let http = reqwest::Client::new();
    let url = |collection: &str, id: &str| {
        format!("{}/corpora/chatkit/collections/{collection}/docs/{id}", bench.kit.store_url())
    };
    let victim = bench.ids_before.iter().next().unwrap();
    for collection in ["attachments", "attachment-metadata"] {
        let deleted =
            http.delete(url(collection, victim)).header("X-API-Key", bench.kit.api_key()).send().await;
        assert!(deleted.unwrap().status().is_success());
    }
    let stranger = json!({ "attachmentId": "stranger", "storedAt": "2026-01-01T00:00:00.000Z" });
    let put = http
        .put(url("attachments", "stranger"))
        .header("X-API-Key", bench.kit.api_key())
        .json(&stranger)
        .send();
    assert!(put.await.unwrap().status().is_success());

    let said = bench.expect(4, &["answer", &id, PHRASE]).await;
    let (_, state) = bench.newest().await.unwrap();
    assert_eq!(state.status, RunStatus::Failed);
    assert!(state.step("purge").unwrap().outputs().is_some(), "the purge itself is done: {said}");
    assert!(
        state.step("empty").unwrap().error.is_some(),
        "what nobody had listed is never deleted, it stops the run"
    );
    assert_eq!(bench.kit.doc_ids("attachments").await.unwrap(), ["stranger"]);
    bench.expect(6, &["cancel", &id]).await;
    assert_eq!(std::fs::read(bench.kit.env_file()).unwrap(), bench.env_before);
}

#[tokio::test]
async fn a_limit_stops_before_the_batch_that_would_cross_it() {
    let bench = Bench::start(&small()).await;
    let text = std::fs::read_to_string("runbooks/reset-chatkit.yaml").unwrap();
    let file = bench.state.path().join("limited.yaml");
    std::fs::write(&file, text.replace("max_items: 250000", "max_items: 20")).unwrap();
    bench.expect(5, &["exec", file.to_str().unwrap(), "-i", "batch_size=10"]).await;
    let (id, _) = bench.newest().await.unwrap();
    bench.expect(10, &["answer", &id, PHRASE]).await;
    let deleted: std::collections::BTreeSet<_> =
        bench.deletes().await.into_keys().map(|(_, id)| id).collect();
    assert_eq!(deleted.len(), 20, "two batches of ten, not a third");
    bench.expect(10, &["resume", &id]).await;
    let deleted: std::collections::BTreeSet<_> =
        bench.deletes().await.into_keys().map(|(_, id)| id).collect();
    assert_eq!(deleted.len(), 20, "a resume does not widen the budget");
}
