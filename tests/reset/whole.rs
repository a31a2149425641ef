//! The procedure from its first step to its last.

use runbook_engine::state::StepStatus;
use runbook_sandbox::Options;
use serde_json::Value;

use crate::bench::{Bench, PHRASE};

#[tokio::test]
async fn everything_is_purged_the_chosen_are_restored_and_the_freeze_is_lifted() {
    let bench =
        Bench::start(&Options { attachments: 130, orphans: 3, restore: 8, ..Options::default() }).await;
    let said = bench.expect(5, &["exec", "reset-chatkit"]).await;
    assert!(said.contains("runbook answer"), "the next command is told:\n{said}");
    assert_eq!(bench.deletes().await.len(), 0, "nothing is deleted before the answer");
    assert_ne!(std::fs::read(bench.kit.env_file()).unwrap(), bench.env_before, "uploads are frozen");
    let (id, _) = bench.newest().await.unwrap();
    let said = bench.expect(0, &["answer", &id, PHRASE]).await;
    let (_, state) = bench.newest().await.unwrap();
    bench.assert_reset(&state).await;
    assert!(said.contains("report"), "the report is named:\n{said}");

    let purge = state.step("purge").unwrap().outputs().unwrap();
    assert_eq!(purge["ids"], 133, "the orphans are among them: {purge}");
    let blobs = state.step("snapshot_blobs").unwrap().outputs().unwrap();
    assert_eq!(blobs["only_here"]["count"], 3);
    assert_eq!(state.step("verify").unwrap().outputs().unwrap()["checked"], 8);
    for skipped in ["teams_know", "drop_corpus", "create_corpus", "traffic"] {
        assert_eq!(state.step(skipped).unwrap().status, StepStatus::Skipped, "{skipped}");
    }
    let webhooks = bench.kit.webhooks().await.unwrap();
    assert!(
        webhooks.iter().all(|one| one.verified) && webhooks.len() == 1,
        "the teams were told once, signed"
    );
}

#[tokio::test]
async fn the_report_tells_the_times_the_counts_and_the_discrepancies() {
    let bench =
        Bench::start(&Options { attachments: 20, orphans: 2, restore: 3, ..Options::default() }).await;
    let state = bench.finish().await;
    bench.assert_reset(&state).await;
    let report = state.step("report").unwrap().outputs().unwrap().clone();
    let artifacts = bench.state.path().join("artifacts");
    let read = |which: &str| {
        let hash = report[which]["sha256"].as_str().unwrap();
        std::fs::read_to_string(artifacts.join(&hash[..2]).join(hash)).unwrap()
    };
    let json: Value = serde_json::from_str(&read("json")).unwrap();
    assert_eq!(json["verdict"], "PASS", "{json}");
    let markdown = read("markdown");
    for needed in
        ["PASS", "**22** items", "CHATKIT_ATTACHMENT_MAX_MB", "only_here.count is 2", "Maintenance window"]
    {
        assert!(markdown.contains(needed), "{needed} is missing:\n{markdown}");
    }
}

#[tokio::test]
async fn the_real_gateways_quirks_do_not_stop_it() {
    let options = Options { attachments: 30, restore: 5, wire: true, ..Options::default() };
    let bench = Bench::start(&options).await;
    let state = bench.finish().await;
    bench.assert_reset(&state).await;
    let freeze = state.step("freeze").unwrap().outputs().unwrap();
    assert_eq!(freeze["probe"]["status"], 400, "the wire says 400 where the documents say 413");
}

#[tokio::test]
async fn with_nothing_to_restore_the_missing_traffic_is_told_and_not_fatal() {
    let bench = Bench::start(&Options { attachments: 12, restore: 0, ..Options::default() }).await;
    bench.expect(5, &["exec", "reset-chatkit", "-i", "log_timeout=2s"]).await;
    let state = bench.finish().await;
    bench.assert_reset(&state).await;
    assert_eq!(state.step("traffic").unwrap().status, StepStatus::Failed);
}

#[tokio::test]
async fn the_corpus_is_recycled_only_on_request_with_its_own_phrase_and_never_over_threads() {
    let bench = Bench::start(&Options { attachments: 12, restore: 2, ..Options::default() }).await;
    bench.expect(5, &["exec", "reset-chatkit", "-i", "recycle_corpus=true"]).await;
    let (id, _) = bench.newest().await.unwrap();
    let said = bench.expect(4, &["answer", &id, PHRASE]).await;
    assert!(said.contains("chat threads"), "{said}");
    assert!(!bench.kit.doc_ids("threads").await.unwrap().is_empty(), "the threads are there");
    bench.expect(6, &["cancel", &id]).await;
    assert_eq!(std::fs::read(bench.kit.env_file()).unwrap(), bench.env_before);

    let bench = Bench::start(&Options { attachments: 12, restore: 2, ..Options::default() }).await;
    let inputs = ["-i", "recycle_corpus=true", "-i", "recycle_with_threads=true"];
    let exec: Vec<&str> = ["exec", "reset-chatkit"].into_iter().chain(inputs).collect();
    bench.expect(5, &exec).await;
    let (id, _) = bench.newest().await.unwrap();
    bench.expect(5, &["answer", &id, PHRASE]).await;
    assert_eq!(bench.kit.effects().await.unwrap().iter().filter(|one| one.op == "delete_corpus").count(), 0);
    bench.expect(0, &["answer", &id, "RECYCLE CORPUS"]).await;
    let effects = bench.kit.effects().await.unwrap();
    let corpora: Vec<&str> = effects
        .iter()
        .filter(|one| one.op.ends_with("_corpus") && one.corpus == "chatkit")
        .map(|one| one.op.as_str())
        .collect();
    assert!(corpora.ends_with(&["delete_corpus", "create_corpus"]), "{corpora:?}");
    let (_, state) = bench.newest().await.unwrap();
    bench.assert_reset(&state).await;
}
