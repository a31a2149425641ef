//! What changed on the disk is never taken for what was written.

use std::path::Path;

use runbook_engine::state::RunStatus;
use runbook_engine::store::{Store, StoreError, Write};
use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::support::*;

async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

async fn execute(path: &Path, statement: &str) -> u64 {
    let mut connection = raw(path).await;
    let statement = sqlx::AssertSqlSafe(statement.to_owned());
    let changed = sqlx::query(statement).execute(&mut connection).await.unwrap().rows_affected();
    connection.close().await.unwrap();
    changed
}

/// Everything that a run `a` has, in one file.
async fn filled(path: &Path) {
    let store = open(path).await;
    let fence = owned(&store, "a").await;
    let writes = vec![
        append(1, RunStatus::Running),
        open_obligation("o", "target"),
        Write::Remember { step: "s".to_owned(), name: "seen".to_owned(), value: json!({ "rows": 25 }) },
        intend("s", 1, vec![charge("items", 2, None)]),
        settle("s", 1, json!({ "after": 25 }), 0),
        intend("s", 2, Vec::new()),
    ];
    store.commit("a", fence, writes).await.unwrap();
    store.close().await;
}

/// What reading everything of the run comes to: the first error, and what its obligation is called.
async fn read(path: &Path) -> (Result<(), StoreError>, String) {
    let store = open(path).await;
    let all = async {
        store.run("a").await?;
        store.events("a", 0).await?;
        store.ledger("a", "s").await?;
        store.batches("a", "s", 0, 9, false).await?;
        store.recall("a", "s", "seen").await?;
        store.counter("a", "items").await?;
        Ok(())
    };
    let read = all.await;
    let label = store.obligations().await.unwrap().remove(0).obligation.label;
    store.close().await;
    (read, label)
}

#[tokio::test]
async fn a_value_that_is_another_one_than_was_written_is_found_out() {
    // Each leaves what can be decoded as well as before.
    let changes = [
        ("update runs set plan = replace(plan, 'nobody', 'nobodi')", "its plan"),
        ("update runs set definition = replace(definition, 'reset', 'resat')", "its plan"),
        ("update events set body = replace(body, 'step_2', 'step_3') where seq = 2", "event 2"),
        ("update batches set intent = replace(intent, 's-1', 's-2') where batch = 1", "batch 1 of step `s`"),
        ("update batches set intent = replace(intent, 's-2', 's-3') where batch = 2", "batch 2 of step `s`"),
        ("update batches set cursor = replace(cursor, '25', '27') where batch = 1", "batch 1 of step `s`"),
        ("update batches set done = done + 1 where batch = 1", "batch 1 of step `s`"),
        ("update facts set value = replace(value, '25', '24')", "remembers as `seen`"),
        ("update counters set amount = amount - 1", "the counter `items`"),
    ];
    for (change, told) in changes {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        filled(&path).await;
        let (before, label) = read(&path).await;
        assert_eq!((before, label.as_str()), (Ok(()), "the variable target"));
        assert_eq!(execute(&path, change).await, 1, "{change}");
        let Err(StoreError::Corrupt { run, reason }) = read(&path).await.0 else {
            panic!("{change}: it was read as if it had been written")
        };
        assert!(run == "a" && reason.contains(told), "{change}: {reason}");
    }
}

#[tokio::test]
async fn what_is_held_is_shown_without_the_value_that_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    filled(&path).await;
    assert_eq!(execute(&path, "update obligations set body = replace(body, 'target', 'tarqet')").await, 1);
    let (read, label) = read(&path).await;
    assert_eq!(read, Ok(()));
    assert!(label.contains("the variable target (its record can not be read)"), "{label}");
}

#[tokio::test]
async fn a_file_of_before_there_were_sums_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    filled(&path).await;
    for table in ["runs", "events", "obligations", "facts", "counters"] {
        execute(&path, &format!("alter table {table} drop column sum")).await;
    }
    execute(&path, "alter table batches drop column intent_sum").await;
    execute(&path, "alter table batches drop column settled_sum").await;
    execute(&path, "delete from _sqlx_migrations where version = 3").await;
    assert_eq!(read(&path).await, (Ok(()), "the variable target".to_owned()));
    // What is written from here on has its sum.
    let store = open(&path).await;
    let fence = runbook_engine::store::Fence::Owner(store.run("a").await.unwrap().unwrap().epoch);
    store.commit("a", fence, vec![append(2, RunStatus::Running)]).await.unwrap();
    store.close().await;
    assert_eq!(execute(&path, "update events set body = replace(body, 'step_3', 'step_4')").await, 3);
    let Err(StoreError::Corrupt { reason, .. }) = read(&path).await.0 else { panic!("it was not found out") };
    assert!(reason.contains("event 3"), "{reason}");
}
