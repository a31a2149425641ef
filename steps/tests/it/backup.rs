//! `backup` on a real PostgreSQL.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::step::Intent;
use runbook_steps::catalog;
use runbook_steps::digest::sha256;
use serde_json::{Value, json};

use crate::common::{Bench, planned};
use crate::databases::Db;

const TABLES: &str = "create type mood as enum ('sad', 'ok'); create table \"Ring\" (id integer primary key, name text, m mood); \
    create schema other; create table other.\"two words\" (id integer); create table parts (id integer) partition by range (id); \
    create table parts_low partition of parts for values from (0) to (10); create view names as select name from \"Ring\"; \
    insert into \"Ring\" values (1, 'it''s the root', 'ok'), (2, 'second', 'sad'); insert into other.\"two words\" values (5); \
    insert into parts values (1), (2), (3)";

fn with(file: &Path, more: Value) -> Value {
    let mut with = json!({ "connection": "db", "file": file });
    for (name, value) in more.as_object().unwrap() {
        with[name] = value.clone();
    }
    with
}

async fn bench(db: &Db, with: Value) -> Bench {
    Bench::new(vec![planned("save", "backup", with)], db.connections(), json!({})).await
}

async fn fails(db: &Db, with: Value) -> StepError {
    bench(db, with).await.enter("save").await.unwrap_err()
}

async fn numbers(db: &Db, statement: &str) -> Value {
    let with = json!({ "connection": "db", "statement": statement });
    let bench = Bench::new(vec![planned("ask", "sql", with)], db.connections(), json!({})).await;
    bench.enter("ask").await.unwrap()["rows"][0]["n"].clone()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Runs a command as it is told to a person.
fn typed(line: &str) {
    let run = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

#[tokio::test]
async fn a_backup_is_taken_once_and_brings_everything_back() {
    let db = Db::postgres().await;
    db.execute(TABLES).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.dump");
    let bench = bench(&db, with(&file, json!({ "probe": "db" }))).await;
    let outputs = bench.run("save", 1).await.unwrap();
    let rows = json!({ "public.Ring": 2, "other.two words": 1, "public.parts_low": 3 });
    assert_eq!((&outputs["rows"], &outputs["probed"]), (&rows, &json!(true)));
    assert_eq!(outputs["tables"], json!(["other.two words", "public.Ring", "public.parts_low"]));
    let bytes = fs::read(&file).unwrap();
    assert_eq!((&outputs["sha256"], &outputs["bytes"]), (&json!(sha256(&bytes)), &json!(bytes.len())));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // Neither an unfinished file nor the database of the probe is left.
    assert_eq!(files(folder.path()), vec![file.clone()]);
    let probes = "select count(*) as n from pg_database where datname like 'runbook%'";
    assert_eq!(numbers(&db, probes).await, json!(0));

    // Entered again it gives the same, and a new run writes nothing over it.
    db.execute("insert into \"Ring\" values (3, 'later', null)").await;
    assert_eq!(bench.enter("save").await.unwrap(), outputs);
    let error = fails(&db, with(&file, json!({}))).await;
    assert!(error.kind == ErrorKind::Refused && error.message.contains("is there already"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), bytes);

    // What is told brings it back.
    db.execute("drop schema other cascade; drop table parts; drop type mood cascade").await;
    // What came later hangs on what was dumped.
    db.execute("alter table \"Ring\" drop constraint if exists \"Ring_pkey\"; alter table \"Ring\" add primary key (id); create table later (ring integer references \"Ring\")").await;
    typed(outputs["restore"].as_str().unwrap());
    let counted = "select (select count(*) from \"Ring\") * 100 + (select count(*) from other.\"two words\") * 10 + (select count(*) from parts) as n";
    assert_eq!(numbers(&db, counted).await, json!(213));
    let script = folder.path().join("app.dump.sql");
    assert_eq!(fs::metadata(script).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(numbers(&db, "select count(*) as n from pg_class where relname = 'later'").await, json!(0));
    assert_eq!(
        numbers(&db, "select name as n from names where name like '%root'").await,
        json!("it's the root")
    );
    fs::write(&file, "another").unwrap();
    assert_eq!(bench.enter("save").await.unwrap_err().kind, ErrorKind::Gate);
}

#[tokio::test]
async fn a_backup_that_would_not_help_stops_the_run() {
    let db = Db::postgres().await;
    db.execute(TABLES).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.dump");
    let check = |more: Value| {
        let mut with = with(&file, more);
        with["mode"] = json!("check");
        with
    };
    let stops = async |with: Value, said: &str| {
        let error = fails(&db, with).await;
        assert!(error.kind == ErrorKind::Gate && error.message.contains(said), "{said}: {error:?}");
    };
    stops(check(json!({})), "there is no backup").await;
    bench(&db, with(&file, json!({}))).await.enter("save").await.unwrap();
    let looked = bench(&db, check(json!({}))).await.enter("save").await.unwrap();
    assert_eq!((&looked["probed"], looked.get("rows")), (&json!(false), None));
    let restored = bench(&db, check(json!({ "probe": "db" }))).await.enter("save").await.unwrap();
    assert_eq!((&restored["probed"], &restored["rows"]["public.Ring"]), (&json!(true), &json!(2)));
    assert_eq!(restored["sha256"], looked["sha256"]);

    db.execute("create table newer (id integer)").await;
    stops(check(json!({})), "holds no rows of `public.newer`").await;
    db.execute("drop table newer").await;
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    // Touched it is not newer: the time stands in it.
    fs::File::options().append(true).open(&file).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    stops(check(json!({ "max_age": "1s" })), "1s is the oldest").await;
    db.execute("create database twin").await;
    let mut connections = db.connections();
    connections["db"]["database"] = json!("twin");
    let twin = Bench::new(vec![planned("save", "backup", check(json!({})))], connections, json!({})).await;
    let error = twin.enter("save").await.unwrap_err();
    assert!(error.kind == ErrorKind::Gate && error.message.contains("is of the database app"), "{error}");

    let whole = fs::read(&file).unwrap();
    for broken in [&whole[..whole.len() - 60], &whole[..100], b"-- plain SQL", b""] {
        fs::write(&file, broken).unwrap();
        stops(check(json!({})), "can not be read").await;
    }
}

#[tokio::test]
async fn after_a_crash_the_file_tells_whether_it_was_written() {
    let db = Db::postgres().await;
    db.execute(TABLES).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.dump");
    let announce = async |bench: &Bench, sha256: &str| {
        let what = json!({ "file": file, "sha256": sha256, "bytes": 3, "dumped_at": "2026-01-01T00:00:00Z",
            "tables": [], "probed": false, "restore": "" });
        let intent = Intent { what: what.clone(), items: 1, charged_items: 0, charged_bytes: 0 };
        bench.context("save").ledger.intend(intent).await.unwrap();
        what
    };
    fs::write(&file, "old").unwrap();
    let written = bench(&db, with(&file, json!({}))).await;
    let what = announce(&written, &sha256(b"old")).await;
    assert_eq!(written.enter("save").await.unwrap(), what);
    fs::remove_file(&file).unwrap();
    let nothing = bench(&db, with(&file, json!({}))).await;
    announce(&nothing, &sha256(b"old")).await;
    assert_eq!(nothing.enter("save").await.unwrap()["rows"]["public.Ring"], json!(2));
    assert_eq!(nothing.context("save").ledger.view().await.unwrap().unsettled, []);
}

#[tokio::test]
async fn a_plan_dumps_nothing_and_no_message_holds_the_password() {
    let db = Db::postgres().await;
    db.execute("create table one (id integer); create role ada login password 'hunter2'").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.dump");
    let bench = bench(&db, with(&file, json!({}))).await;
    let entry = catalog::step("backup").unwrap();
    let effect = (entry.info.effect)(&json!({}));
    let seen = (entry.foresee)(with(&file, json!({})), effect, bench.context("save")).await.unwrap();
    assert!(seen.does.starts_with("dump postgres://127.0.0.1:") && !file.exists(), "{}", seen.does);
    // The user may not read the table; and a folder without the programs.
    let mut connections = db.connections();
    connections["db"]["user"] = json!("ada");
    connections["db"]["password"] = json!("hunter2");
    for more in [json!({}), json!({ "programs": folder.path() })] {
        let step = planned("save", "backup", with(&file, more));
        let error =
            Bench::new(vec![step], connections.clone(), json!({})).await.enter("save").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2") && files(folder.path()).is_empty(), "{error:?}");
    }
    let other = Db::sqlite().await;
    assert_eq!(fails(&other, with(&file, json!({}))).await.kind, ErrorKind::Invalid);
}
