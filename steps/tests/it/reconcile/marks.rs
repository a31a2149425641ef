//! What was found is marked, and put back.

use runbook_engine::error::ErrorKind;
use runbook_engine::step::Intent;
use runbook_steps::catalog;
use serde_json::{Value, json};

use super::{Fault, ORIGINAL, STAGED, World, mark, report};
use crate::common::{Bench, planned};

/// Twelve images: of 1 to 4 the original is lost, of 5 to 8 what was staged.
async fn world() -> World {
    let world = World::new().await;
    world.put((5..=12).map(|at| format!("uploads/{at}"))).await;
    world.put((1..=4).chain(9..=12).map(|at| format!("staged/{at}"))).await;
    let url = world.url("uploads/");
    world
        .db
        .execute(&format!(
            "insert into images (id, original_url, staged_url, status, error) \
             select n, '{url}' || n, 's3://real-staging/staged/' || n, \
               (case when n = 1 then 'queued' when n = 2 then 'processing' else 'ready' end)::image_status, \
               case when n = 3 then 'an old warning' end from generate_series(1, 12) n"
        ))
        .await;
    world
}

/// A run that has reported, and is to mark.
async fn reported(world: &World, with: Value) -> (Bench, Value) {
    let (first, outputs) = world.report(json!({})).await.unwrap();
    assert_eq!(outputs["missing"], 8);
    let bench = world.bench(vec![mark(&outputs["findings"], with)]).await;
    let findings = bench.artifact("findings.jsonl", &first.records(&outputs["findings"]));
    assert_eq!(findings["sha256"], outputs["findings"]["sha256"]);
    (bench, outputs)
}

fn outcomes(bench: &Bench, outputs: &Value) -> Vec<String> {
    let lines = bench.records(&outputs["results"]);
    lines
        .iter()
        .map(|line| format!("{} {}", line["key"].as_str().unwrap(), line["outcome"].as_str().unwrap()))
        .collect()
}

/// Announces the first batch as the step does, and stops there as a crash would.
async fn announced(bench: &Bench, findings: &Value) {
    let (cx, sha256) = (bench.context("mark"), findings["sha256"].as_str().unwrap());
    cx.ledger.remember(&format!("findings {sha256}"), findings.clone()).await.unwrap();
    let what = json!({ "change": { "findings": sha256, "offset": 0, "unknown": 0 } });
    cx.ledger.intend(Intent { what, items: 500, charged_items: 0, charged_bytes: 0 }).await.unwrap();
}

#[tokio::test]
async fn rows_are_marked_unless_they_or_the_store_changed_and_each_gets_its_own_status_back() {
    let world = world().await;
    let before = (world.column("status").await, world.column("error").await, world.column("cost_usd").await);
    let (bench, _) = reported(&world, json!({ "batch_size": 3, "max_unknown": 1 })).await;
    // Meanwhile: the worker touches 3, the upload of 4 ends, nobody can tell of 6, and 7 is gone.
    world.db.execute("update images set cost_usd = 1.5 where id = 3; delete from images where id = 7").await;
    world.put(["uploads/4".to_owned()].into_iter()).await;
    world.proxy.fault("staged/6", Fault::Status(403));
    let outputs = bench.enter("mark").await.unwrap();
    assert_eq!(
        outcomes(&bench, &outputs),
        [
            "1 updated",
            "2 updated",
            "3 changed-since",
            "4 found-since",
            "5 updated",
            "6 unknown-since",
            "7 changed-since",
            "8 updated"
        ]
    );
    assert_eq!((&outputs["updated"], &outputs["changed_since"]), (&json!(4), &json!(2)));
    let (status, error) = (world.column("status").await, world.column("error").await);
    for (id, text) in [(1, ORIGINAL), (2, ORIGINAL), (5, STAGED), (8, STAGED)] {
        assert_eq!((status[&id].as_deref(), error[&id].as_deref()), (Some("error"), Some(text)), "{id}");
    }
    for id in [3, 4, 6, 9, 10, 11, 12] {
        assert_eq!((&status[&id], &error[&id]), (&before.0[&id], &before.1[&id]), "{id}");
    }
    let updated = world.column("extract(year from updated_at) > 2025").await;
    assert!([1, 2, 5, 8].iter().all(|id| updated[id].as_deref() == Some("true")), "{updated:?}");
    assert_eq!(updated[&9].as_deref(), Some("false"));
    undone(&world, &bench, &outputs, &before.0).await;
}

/// Puts back what was marked, but for a row that somebody has dealt with since.
async fn undone(
    world: &World,
    marked: &Bench,
    outputs: &Value,
    before: &std::collections::BTreeMap<i64, Option<String>>,
) {
    world.db.execute("update images set error = 'looked into' where id = 5").await;
    let undo = |with: Value| {
        let mut all = json!({ "collection": "images", "action": "undo", "findings": outputs["changed"] });
        for (name, value) in with.as_object().unwrap() {
            all[name] = value.clone();
        }
        let mut step = planned("undo", "reconcile", all);
        step.id = "undo".to_owned();
        step
    };
    let open = async |with: Value| {
        let mut bench = world.bench(vec![undo(with)]).await;
        bench.artifact("changed.jsonl", &marked.records(&outputs["changed"]));
        let plan = std::sync::Arc::make_mut(&mut bench.plan);
        plan.collections["images"]["where"] = json!({ "status": "error" });
        bench.reopen_resources();
        bench
    };
    let error = open(json!({ "only": ["1", "99"] })).await.enter("undo").await.unwrap_err();
    assert!(error.kind == ErrorKind::Gate && error.message.contains("not in the findings: 99"), "{error}");
    let bench = open(json!({})).await;
    let outputs = bench.enter("undo").await.unwrap();
    assert_eq!(outcomes(&bench, &outputs), ["1 updated", "2 updated", "5 changed-since", "8 updated"]);
    let (status, error) = (world.column("status").await, world.column("error").await);
    for id in [1, 2, 8] {
        assert_eq!((&status[&id], &error[&id]), (&before[&id], &None), "{id} has its own status again");
    }
    assert_eq!((status[&5].as_deref(), error[&5].as_deref()), (Some("error"), Some("looked into")));
}

#[tokio::test]
async fn a_batch_that_a_crash_cut_off_is_settled_by_what_the_rows_hold() {
    let world = world().await;
    // The first try was committed, and nobody wrote that down; meanwhile the upload of 1 ended.
    let (bench, outputs) = reported(&world, json!({})).await;
    announced(&bench, &outputs["findings"]).await;
    world
        .db
        .execute(&format!(
            "update images set status = 'error', error = '{ORIGINAL}', updated_at = now() where id <= 4; \
         update images set status = 'error', error = '{STAGED}', updated_at = now() where id between 5 and 8"
        ))
        .await;
    world.put(["uploads/1".to_owned()].into_iter()).await;
    let done = bench.enter("mark").await.unwrap();
    assert_eq!((&done["updated"], &done["found_since"]), (&json!(8), &json!(0)), "{done}");
    assert_eq!(bench.records(&done["changed"]).len(), 8, "all of them can be put back");

    // The first try was not committed: it is done now, but for what is there now.
    world.db.execute("update images set status = 'ready', error = null, updated_at = '2025-01-01'").await;
    world.remove("uploads/1").await;
    let (bench, outputs) = reported(&world, json!({})).await;
    announced(&bench, &outputs["findings"]).await;
    world.put(["uploads/1".to_owned()].into_iter()).await;
    let done = bench.enter("mark").await.unwrap();
    assert_eq!((&done["updated"], &done["found_since"]), (&json!(7), &json!(1)), "{done}");
    assert_eq!(world.column("status").await[&1].as_deref(), Some("ready"));
}

#[tokio::test]
async fn of_a_batch_that_a_cancel_cut_off_it_is_told_what_was_changed_and_nothing_more_is() {
    let world = world().await;
    let (bench, outputs) = reported(&world, json!({})).await;
    announced(&bench, &outputs["findings"]).await;
    let marked = "update images set status = 'error', error = ";
    world.db.execute(&format!("{marked}'{ORIGINAL}', updated_at = now() where id <= 3")).await;
    let before = world.column("status").await;
    bench.tidy("mark").await.unwrap();
    assert_eq!(world.column("status").await, before);
    let view = bench.context("mark").ledger.view().await.unwrap();
    assert!(view.unsettled.is_empty(), "{view:?}");
    assert_eq!((view.totals.done, view.totals.already, view.totals.failed), (3, 0, 0));
}

#[tokio::test]
async fn the_prior_state_is_saved_before_the_first_change_and_never_overwritten() {
    let world = world().await;
    let (first, outputs) = world.report(json!({})).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let with = json!({ "save_to": { "connection": "archive", "file": "runs/one.jsonl" } });
    let mut bench = world.bench(vec![mark(&outputs["findings"], with)]).await;
    let plan = std::sync::Arc::make_mut(&mut bench.plan);
    plan.connections.insert("archive".to_owned(), json!({ "type": "directory", "path": folder.path() }));
    bench.reopen_resources();
    bench.artifact("findings.jsonl", &first.records(&outputs["findings"]));
    let file = folder.path().join("runs/one.jsonl");
    std::fs::create_dir(folder.path().join("runs")).unwrap();
    std::fs::write(&file, "of another run").unwrap();
    let error = bench.enter("mark").await.unwrap_err();
    assert!(error.kind == ErrorKind::Gate && error.message.contains("is there already"), "{error}");
    assert!(world.column("status").await.values().all(|status| status.as_deref() != Some("error")));
    std::fs::remove_file(&file).unwrap();
    bench.enter("mark").await.unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), first.text(&outputs["findings"]));
    // A trigger that keeps a row is told, and the step does not pass for done.
    world
        .db
        .execute(
            "create function keep() returns trigger language plpgsql as $$ begin return null; end $$; \
        create trigger keep before update on images for each row when (old.id = 9) execute function keep()",
        )
        .await;
    world.remove("uploads/9").await;
    let (first, outputs) = world.report(json!({})).await.unwrap();
    let bench = world.bench(vec![mark(&outputs["findings"], json!({}))]).await;
    bench.artifact("findings.jsonl", &first.records(&outputs["findings"]));
    let error = bench.enter("mark").await.unwrap_err();
    assert!(
        error.message.contains("1 of 1 items could not be changed") && error.message.contains("a trigger"),
        "{error}"
    );
}

#[tokio::test]
async fn a_plan_lists_what_would_be_marked_and_changes_nothing() {
    let world = world().await;
    let (bench, outputs) = reported(&world, json!({})).await;
    let step = bench.plan.step("mark").unwrap().clone();
    let entry = catalog::step("reconcile").unwrap();
    let seen = (entry.foresee)(step.with.clone(), step.effect, bench.context("mark")).await.unwrap();
    let [set] = &seen.touches[..] else { panic!("{seen:?}") };
    assert_eq!((set.count, set.examples[0].as_str()), (8, "1"), "{set:?}");
    assert_eq!(seen.changes.as_deref(), Some(&["images".to_owned()][..]));
    assert!(world.column("status").await.values().all(|status| status.as_deref() != Some("error")));
    // A report is done when it is planned.
    let bench = world.bench(vec![report(json!({}))]).await;
    let step = bench.plan.step("report").unwrap().clone();
    let seen = (entry.foresee)(step.with, step.effect, bench.context("report")).await.unwrap();
    assert!(seen.done && seen.outputs.unwrap()["findings"]["sha256"] == outputs["findings"]["sha256"]);
}
