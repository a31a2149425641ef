//! `sql` on every database.

use std::sync::Arc;
use std::time::Duration;

use runbook_engine::error::{ErrorKind, Outcome, StepError};
use runbook_engine::plan::PlannedStep;
use runbook_engine::redact::Redactor;
use runbook_engine::step::Intent;
use runbook_steps::connections::sql::Dialect;
use runbook_steps::kind::{NoVault, Vault};
use runbook_steps::resources::Resources;
use serde_json::{Map, Value, json};

use crate::common::{Bench, planned};
use crate::databases::Db;

const WRITE: &str = r#"{ "class": "write", "repeat": "repeatable" }"#;

fn write() -> Value {
    serde_json::from_str(WRITE).unwrap()
}

fn step(with: Value) -> PlannedStep {
    let mut with = with;
    with["connection"] = json!("db");
    planned("it", "sql", with)
}

async fn bench(db: &Db, with: Value) -> Bench {
    Bench::new(vec![step(with)], db.connections(), json!({})).await
}

/// Runs it once, in a run of its own.
async fn run(db: &Db, with: Value) -> Result<Value, StepError> {
    bench(db, with).await.enter("it").await
}

async fn count(db: &Db, condition: &str) -> i64 {
    let statement = format!("select count(*) as n from t where {condition}");
    run(db, json!({ "statement": statement })).await.unwrap()["rows"][0]["n"].as_i64().unwrap()
}

/// What holds of `sql` whatever the database.
async fn everywhere(db: &Db) {
    db.execute("create table t (id bigint primary key, name varchar(100) not null)").await;
    let (one, two) = (db.place(1), db.place(2));
    let big = 9_007_199_254_740_993_i64;
    let insert = json!({
        "statements": [
            { "statement": format!("insert into t values ({one}, {two})"), "parameters": [big, "it's; -- \\ \"é\""], "expect": { "affected": 1 } },
            { "statement": format!("insert into t values ({one}, {two});"), "parameters": [-1, "b"] },
            { "statement": "select id, name from t order by id", "expect": { "rows": 2 } },
        ],
        "effect": write(),
    });
    let outputs = run(db, insert).await.unwrap();
    assert_eq!(
        outputs["rows"],
        json!([{ "id": -1, "name": "b" }, { "id": big, "name": "it's; -- \\ \"é\"" }])
    );
    assert_eq!((&outputs["affected"], &outputs["row_count"]), (&json!(2), &json!(2)));
    assert_eq!(outputs["columns"], json!(["id", "name"]));

    // What is not as expected is rolled back, with all that came before it.
    let expects = json!({
        "statement": "delete from t", "expect": { "affected": { "max": 1 } },
        "effect": { "class": "destroy", "repeat": "repeatable" },
    });
    let error = run(db, expects).await.unwrap_err();
    assert!(
        error.kind == ErrorKind::Gate && error.message.contains("changed 2 rows where at most 1"),
        "{error}"
    );
    let broken = json!({
        "statements": [
            { "statement": "delete from t where id < 0" },
            { "statement": format!("insert into t values ({one}, 'again')"), "parameters": [big] },
        ],
        "effect": write(),
    });
    let error = run(db, broken).await.unwrap_err();
    assert_eq!((error.kind, error.outcome), (ErrorKind::Refused, Outcome::Failed), "{error}");
    assert_eq!(count(db, "1 = 1").await, 2);

    // What is said to read can not write.
    let sly = json!({ "statement": "delete from t", "effect": { "class": "read", "repeat": "repeatable" } });
    let error = run(db, sly).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert_eq!(count(db, "1 = 1").await, 2);

    refused_beforehand(db).await;
}

async fn refused_beforehand(db: &Db) {
    let one = db.place(1);
    let several = json!({ "statement": "select 1; select 2" });
    assert!(run(db, several).await.unwrap_err().message.contains("holds 2 statements"));
    let transaction = json!({ "statement": "commit", "effect": write() });
    assert!(run(db, transaction).await.unwrap_err().message.contains("ends a transaction"));
    let few = json!({ "statement": format!("select name from t where id = {one}") });
    let error = run(db, few).await.unwrap_err();
    assert!(error.message.contains("takes 1 parameters and is given 0"), "{error}");
    let syntax = run(db, json!({ "statement": "select from where" })).await.unwrap_err();
    assert_eq!(syntax.kind, ErrorKind::Refused, "{syntax}");
    // The limits are asked for what is destroyed before it is committed.
    let mut limited = step(json!({
        "statement": "delete from t", "effect": { "class": "destroy", "repeat": "repeatable" },
    }));
    limited.limits.max_items = Some(1);
    let error = Bench::new(vec![limited], db.connections(), json!({})).await.enter("it").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Limit, "{error}");
    assert_eq!(count(db, "1 = 1").await, 2);
}

/// What a killed process left is settled by `check`.
async fn settled_by_check(db: &Db) {
    let announced = json!({ "series": 0, "items": 0, "transaction": null, "outputs": {
        "rows": [], "columns": [], "row_count": 0, "affected": 1, "statements": [],
    }});
    let intent = || Intent { what: announced.clone(), items: 0, charged_items: 0, charged_bytes: 0 };
    let with = json!({
        "statement": "insert into t values (7, 'seven')",
        "check": { "statement": "select 1 from t where id = 7" },
        "effect": { "class": "write", "repeat": "once" },
    });
    let undone = bench(db, with.clone()).await;
    undone.context("it").ledger.intend(intent()).await.unwrap();
    undone.enter("it").await.unwrap();
    assert_eq!(count(db, "id = 7").await, 1, "it had not happened, so it was done");
    for there in [true, false] {
        let cancelled = bench(db, with.clone()).await;
        let cx = cancelled.context("it");
        cx.ledger.intend(intent()).await.unwrap();
        if !there {
            db.execute("delete from t where id = 7").await;
        }
        cancelled.tidy("it").await.unwrap();
        let row = cx.ledger.batches(0, 1).await.unwrap().remove(0);
        let outcome = row.settled.unwrap().outcome;
        assert_eq!(outcome.get("committed").is_some(), there, "{outcome}");
        assert_eq!(count(db, "id = 7").await, i64::from(there), "nothing is done by a cancel");
    }
    db.execute("insert into t values (7, 'seven')").await;
    let done = bench(db, with).await;
    done.context("it").ledger.intend(intent()).await.unwrap();
    assert_eq!(done.enter("it").await.unwrap()["affected"], json!(1));
    assert!(done.context("it").ledger.view().await.unwrap().unsettled.is_empty());
}

#[tokio::test]
async fn sqlite() {
    let db = Db::sqlite().await;
    everywhere(&db).await;
    settled_by_check(&db).await;
    let values = "select 1 as a, 2.5 as b, null as c, 'x' as d, x'00ff' as e";
    let outputs = run(&db, json!({ "statement": values })).await.unwrap();
    assert_eq!(outputs["rows"][0], json!({ "a": 1, "b": 2.5, "c": null, "d": "x", "e": "\\x00ff" }));
    let missing = json!({ "db": { "type": "sqlite", "path": "/nowhere/app.db" } });
    let error = Bench::new(vec![step(json!({ "statement": "select 1" }))], missing, json!({}))
        .await
        .enter("it")
        .await
        .unwrap_err();
    assert!(error.help.unwrap().contains("create: true"), "{}", error.message);
}

#[tokio::test]
async fn mariadb() {
    let db = Db::mariadb().await;
    everywhere(&db).await;
    settled_by_check(&db).await;
    let values = "select cast(18446744073709551615 as unsigned) as a, cast(-1.500 as decimal(10,3)) as b, \
                  cast('2026-02-03 04:05:06.123456' as datetime(6)) as c, x'00ff' as d, null as e, 'é' as f";
    let outputs = run(&db, json!({ "statement": values })).await.unwrap();
    let wanted = json!({
        "a": u64::MAX, "b": "-1.500", "c": "2026-02-03 04:05:06.123456", "d": "\\x00ff", "e": null, "f": "é",
    });
    assert_eq!(outputs["rows"][0], wanted);
    let ddl = json!({ "statement": "create table u (id int)", "effect": write() });
    assert!(run(&db, ddl.clone()).await.unwrap_err().message.contains("commits by itself"));
    let mut alone = ddl;
    alone["transaction"] = json!(false);
    run(&db, alone).await.unwrap();
    assert_eq!(db.dialect(), Dialect::MySql);
}

#[tokio::test]
async fn postgres() {
    let db = Db::postgres().await;
    everywhere(&db).await;
    settled_by_check(&db).await;
    every_type(&db).await;
    let vacuum = json!({ "statement": "vacuum t", "effect": write() });
    assert!(run(&db, vacuum.clone()).await.is_err());
    let mut alone = vacuum;
    alone["transaction"] = json!(false);
    run(&db, alone).await.unwrap();
    let shown = run(&db, json!({ "statement": "show server_encoding" })).await.unwrap();
    assert_eq!(shown["rows"][0]["server_encoding"], "UTF8");
    commits(&db).await;
    another_database_or_another_path_is_another_system(&db).await;
}

/// Which database it is, in words.
async fn system(db: &Db) -> String {
    let vault: Arc<dyn Vault> = Arc::new(NoVault);
    let connections = db.connections().as_object().unwrap().clone();
    let resources = Resources::open(&connections, &Map::new(), &Redactor::default(), &vault).unwrap();
    resources.identities().await.unwrap()["db"].words().to_owned()
}

/// A name leads to another table when the path is another one, and a database that was made anew is another one.
async fn another_database_or_another_path_is_another_system(db: &Db) {
    let before = system(db).await;
    assert_eq!(system(db).await, before);
    db.execute("alter database app set search_path = other, public").await;
    let path = system(db).await;
    assert!(path.contains("other, public") && path != before, "{path}");
    db.execute("alter database app reset search_path").await;
    assert_eq!(system(db).await, before);
    db.execute_elsewhere("drop database app with (force)").await;
    db.execute_elsewhere("create database app").await;
    assert_ne!(system(db).await, before);
}

/// Parameters of any type are bound, and values of any type are shown.
async fn every_type(db: &Db) {
    db.execute(
        "create type mood as enum ('sad', 'it''s ok'); create domain slug as text check (value ~ '^[a-z]+$')",
    )
    .await;
    let with = json!({
        "statement": "select $1::uuid as a, $2::numeric as b, $3::timestamptz as c, $4::mood as d, $5::jsonb as e, \
                      $6::text[] as f, $7::bytea as g, $8::slug as h, $9::int8[] as i, $10::bool as j, $11 as k, \
                      $12::inet as l, $13::float8 as m",
        "parameters": [
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "12345678901234567890.12345", "2026-02-03T04:05:06.123456Z", "it's ok",
            { "a": [1, null] }, ["x,\"y\\", null], "\\x00ff", "abc", [1, 9_007_199_254_740_993_i64], true, null,
            "10.0.0.1", 0.1,
        ],
    });
    let row = run(db, with).await.unwrap()["rows"][0].clone();
    let wanted = json!({
        "a": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "b": "12345678901234567890.12345",
        "c": "2026-02-03T04:05:06.123456+00:00", "d": "it's ok", "e": { "a": [1, null] }, "f": ["x,\"y\\", null],
        "g": "\\x00ff", "h": "abc", "i": [1, 9_007_199_254_740_993_i64], "j": true, "k": null, "l": "10.0.0.1", "m": 0.1,
    });
    assert_eq!(row, wanted);
    let error = run(db, json!({ "statement": "select $1::uuid", "parameters": ["x"] })).await.unwrap_err();
    assert!(error.message.contains("a parameter does not fit"), "{error}");
}

/// A commit that takes two seconds and is not waited for, and one that is cut off.
async fn commits(db: &Db) {
    db.execute(
        "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(2); return null; end $$; \
         create constraint trigger slow after insert on t deferrable initially deferred for each row execute function slow()",
    )
    .await;
    let insert =
        |id: i64| json!({ "statement": format!("insert into t values ({id}, 'slow')"), "effect": write() });
    let killed = async |id| {
        let killed = bench(db, insert(id)).await;
        tokio::select! {
            end = killed.enter("it") => panic!("it ended: {end:?}"),
            () = committing(&killed) => {}
        }
        killed
    };
    let mut cancelled = killed(99).await;
    cancelled.reopen_resources();
    cancelled.tidy("it").await.unwrap();
    let view = cancelled.context("it").ledger.view().await.unwrap();
    assert!(view.unsettled.is_empty() && view.cursor.is_some(), "{view:?}");
    assert_eq!(count(db, "id = 99").await, 1, "a cancel waits for what became of it");
    // Every cluster has a transaction of this number, and it was committed; that it was in this one nobody says.
    let elsewhere = bench(db, insert(98)).await;
    let what =
        json!({ "series": 0, "items": 0, "transaction": "3 1", "outputs": view.cursor.unwrap()["outputs"] });
    let intent = Intent { what, items: 0, charged_items: 0, charged_bytes: 0 };
    elsewhere.context("it").ledger.intend(intent).await.unwrap();
    elsewhere.tidy("it").await.unwrap();
    assert_eq!(elsewhere.context("it").ledger.view().await.unwrap().unsettled.len(), 1);
    let mut killed = killed(100).await;
    killed.reopen_resources();
    assert_eq!(killed.enter("it").await.unwrap()["affected"], json!(1));
    assert_eq!(count(db, "id = 100").await, 1, "committed once, and found so");

    let cut = bench(db, insert(101)).await;
    let (end, ()) = tokio::join!(cut.enter("it"), async {
        committing(&cut).await;
        db.execute("select pg_terminate_backend(pid) from pg_stat_activity where query = 'commit'").await;
    });
    let error = end.unwrap_err();
    assert!(error.kind == ErrorKind::Transient && error.outcome == Outcome::Failed, "{error:?}");
    assert_eq!(count(db, "id = 101").await, 0);
    cut.enter("it").await.unwrap();
    assert_eq!(count(db, "id = 101").await, 1);
}

#[tokio::test]
async fn a_transaction_that_a_crash_of_the_server_took_away_is_not_the_one_that_got_its_number() {
    let mut db = Db::postgres().await;
    db.execute("create table t (id bigint primary key, name text)").await;
    let slow = "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(20); return null; end $$; \
         create constraint trigger slow after insert on t deferrable initially deferred for each row execute function slow()";
    db.execute(slow).await;
    let mut cut_off = Vec::new();
    for id in 1..=2 {
        let insert =
            json!({ "statement": format!("insert into t values ({id}, 'slow')"), "effect": write() });
        let killed = bench(&db, insert).await;
        tokio::select! {
            end = killed.enter("it") => panic!("it ended: {end:?}"),
            () = committing(&killed) => {}
        }
        cut_off.push(killed);
    }
    db.restart().await;
    for (at, mut cut_off) in cut_off.into_iter().enumerate() {
        // The first is asked for at once, the second once others have had numbers.
        for _ in 0..at * 20 {
            db.execute("select txid_current()").await;
        }
        cut_off.reopen_resources();
        cut_off.tidy("it").await.unwrap();
        let view = cut_off.context("it").ledger.view().await.unwrap();
        assert!(view.unsettled.is_empty(), "{at}: {view:?}");
        assert!(view.cursor.as_ref().is_none_or(Value::is_null), "{at}: {view:?}");
    }
    assert_eq!(count(&db, "true").await, 0);
}

#[tokio::test]
async fn a_pooler_with_room_for_one_connection_does_not_keep_the_commit_waiting() {
    let db = Db::postgres().await;
    db.execute("create table t (id bigint primary key)").await;
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut connections = db.connections();
    let mut url = url::Url::parse(connections["db"]["url"].as_str().unwrap()).unwrap();
    let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    url.set_port(Some(door.local_addr().unwrap().port())).unwrap();
    connections["db"] = json!({ "type": "postgres", "url": url.as_str(), "connect_timeout": "1s" });
    let one_at_a_time = async {
        loop {
            let (mut from, _) = door.accept().await.unwrap();
            let mut to = tokio::net::TcpStream::connect(&server).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
        }
    };
    let insert = json!({ "statement": "insert into t values (1)", "effect": write() });
    let bench = Bench::new(vec![step(insert)], connections, json!({})).await;
    tokio::select! {
        () = one_at_a_time => {}
        done = tokio::time::timeout(Duration::from_secs(30), bench.enter("it")) => {
            assert_eq!(done.expect("it ends").unwrap()["affected"], 1);
        }
    }
    assert_eq!(count(&db, "id = 1").await, 1);
}

/// Waits until a step has announced its commit, and a moment longer.
async fn committing(bench: &Bench) {
    while bench.context("it").ledger.view().await.unwrap().unsettled.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
}
