//! Statements of `sql` that are stopped, and such that outlive whoever sent them.

use std::time::{Duration, Instant};

use runbook_engine::error::{ErrorKind, Outcome};
use runbook_steps::connections::sql::Dialect;
use serde_json::{Value, json};

use crate::common::{Bench, planned};
use crate::databases::Db;

async fn bench(db: &Db, mut with: Value) -> Bench {
    with["connection"] = json!("db");
    Bench::new(vec![planned("it", "sql", with)], db.connections(), json!({})).await
}

async fn number(db: &Db, statement: &str) -> i64 {
    let outputs = bench(db, json!({ "statement": statement })).await.enter("it").await.unwrap();
    outputs["rows"][0]["n"].as_i64().unwrap()
}

/// Adds one to the row of `t`, after so many seconds.
fn slowly(db: &Db, seconds: u32, transaction: bool, repeat: &str) -> Value {
    let condition = match db.dialect() {
        Dialect::Postgres => format!("pg_sleep({seconds}) is not null"),
        _ => format!("sleep({seconds}) = 0"),
    };
    json!({
        "statement": format!("update t set n = n + 1 where {condition}"), "transaction": transaction,
        "effect": { "class": "write", "repeat": repeat },
    })
}

/// How many connections are at work on such a statement.
async fn at_work(db: &Db) -> i64 {
    let others = match db.dialect() {
        Dialect::Postgres => {
            "select count(*) as n from pg_stat_activity where state = 'active' and query like 'update t set%'"
        }
        _ => "select count(*) as n from information_schema.processlist where info like 'update t set%'",
    };
    number(db, others).await
}

/// A statement that is not waited for any more is ended on the server, and its locks are free.
async fn is_ended(db: &Db) {
    for transaction in [true, false] {
        let bench = bench(db, slowly(db, 20, transaction, "repeatable")).await;
        let cx = bench.context("it");
        let (abandon, began) = (cx.abandon.clone(), Instant::now());
        let (end, ()) = tokio::join!(bench.enter_with(cx, None), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            abandon.cancel();
        });
        assert_eq!(end.unwrap_err().kind, ErrorKind::Interrupted, "transaction: {transaction}");
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        assert_eq!(at_work(db).await, 0, "transaction: {transaction}");
        assert_eq!(number(db, "select n from t").await, 0);
    }
}

/// A statement that outlives its process is waited for before it is done again; and not done again when nobody could know of its end.
async fn is_waited_for(db: &Db) {
    for (repeat, told) in [("repeatable", false), ("once", true)] {
        db.execute("update t set n = 0").await;
        let bench = bench(db, slowly(db, 4, false, repeat)).await;
        let cut = tokio::time::timeout(Duration::from_millis(1500), bench.enter("it")).await;
        assert!(cut.is_err(), "it was not cut off");
        assert_eq!(at_work(db).await, 1, "the server did not go on");
        if told {
            let error = bench.enter("it").await.unwrap_err();
            assert!(error.message.contains("still at work"), "{error}");
            assert_eq!((error.kind, error.outcome), (ErrorKind::Gate, Outcome::Unknown));
            assert_eq!((number(db, "select n from t").await, at_work(db).await), (1, 0));
        }
        let began = Instant::now();
        bench.enter("it").await.unwrap();
        assert!(told || began.elapsed() > Duration::from_secs(5), "it did not wait: {:?}", began.elapsed());
        assert_eq!(number(db, "select n from t").await, 2, "{repeat}");
    }
}

async fn two_columns_of_one_name(db: &Db) {
    let error = bench(db, json!({ "statement": "select 1 as a, 2 as b, 3 as a" })).await.enter("it").await;
    let error = error.unwrap_err();
    assert!(error.kind == ErrorKind::Invalid && error.message.contains("two columns `a`"), "{error}");
}

async fn server(db: &Db) {
    db.execute("create table t (n integer not null); insert into t values (0)").await;
    is_ended(db).await;
    is_waited_for(db).await;
    two_columns_of_one_name(db).await;
}

/// A reset that commits as it goes is ended on the server too, by whoever asks gently as well, and goes on from its mark.
#[tokio::test]
async fn a_reset_of_mariadb_is_ended_and_begins_again() {
    let db = Db::mariadb().await;
    db.execute("create table old (id integer); insert into old values (1), (2)").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("schema.sql");
    let write = |seconds: u32| {
        let text = format!(
            "create table a (id integer); insert into a select sleep({seconds}) from seq_1_to_2; create table b (id integer)"
        );
        std::fs::write(&path, text).unwrap();
    };
    let with = json!({ "connection": "db", "files": path });
    let bench = Bench::new(vec![planned("it", "sql-reset", with.clone())], db.connections(), json!({})).await;
    let tables = "select count(*) as n from information_schema.tables where table_schema = 'app'";
    let asleep = "select count(*) as n from information_schema.processlist where info like 'insert into a%'";
    for gently in [true, false] {
        write(20);
        let cx = bench.context("it");
        let (stop, abandon, began) = (cx.stop.clone(), cx.abandon.clone(), Instant::now());
        let (end, ()) = tokio::join!(bench.enter_with(cx, None), async {
            while number(&db, asleep).await == 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            stop.cancel();
            if !gently {
                abandon.cancel();
            }
        });
        assert_eq!(end.unwrap_err().kind, ErrorKind::Interrupted, "gently: {gently}");
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        assert_eq!(number(&db, asleep).await, 0, "gently: {gently}");
        // The table that was made, and the mark.
        assert_eq!(number(&db, tables).await, 2, "gently: {gently}");
        assert_eq!(number(&db, "select count(*) as n from runbook_reset").await, 1);
    }
    // Cancelled there, the run says in what state the database is.
    let entry = runbook_steps::catalog::step("sql-reset").unwrap();
    assert!(entry.tidies);
    let left = (entry.tidy)(with.clone(), bench.context("it")).await.unwrap_err();
    assert!(left.message.contains("in the middle of the reset"), "{left}");
    assert!(left.help.unwrap().contains("drop table runbook_reset"));
    write(0);
    let outputs = bench.enter("it").await.unwrap();
    assert_eq!(outputs["before"]["tables"], json!({ "old": 2 }));
    assert_eq!(outputs["after"]["tables"], json!({ "a": 2, "b": 0 }));
    assert_eq!(number(&db, tables).await, 2);
    (entry.tidy)(with, bench.context("it")).await.unwrap();
}

#[tokio::test]
async fn postgres() {
    server(&Db::postgres().await).await;
}

#[tokio::test]
async fn mariadb() {
    server(&Db::mariadb().await).await;
}

#[tokio::test]
async fn sqlite() {
    two_columns_of_one_name(&Db::sqlite().await).await;
}
