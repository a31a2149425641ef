//! What `unchanged_since` finds out that came after a backup, on a real PostgreSQL.

use runbook_engine::error::ErrorKind;
use runbook_engine::error::StepError;
use serde_json::{Value, json};

use crate::common::{Bench, planned};
use crate::databases::Db;

const BEFORE: &str = "create type mood as enum ('sad', 'ok'); create domain small as integer check (value < 10); \
    create table a (id serial primary key, name text default 'x', m mood); insert into a (name) values ('one'); \
    create view names as select name from a; create function one() returns integer language sql as 'select 1'; \
    create aggregate total(integer) (sfunc = int4pl, stype = integer, initcond = '0'); \
    create schema \"public.x\"; create table \"public.x\".t (id integer); insert into \"public.x\".t values (1); \
    create table \"x.t\" (id integer); create schema other; create table other.t (id integer); create extension pg_trgm";

/// A database with a backup of it, and steps that are held to that.
struct Held {
    db: Db,
    bench: Bench,
    folder: tempfile::TempDir,
}

impl Held {
    async fn new() -> Self {
        let db = Db::postgres().await;
        db.execute(BEFORE).await;
        let folder = tempfile::tempdir().unwrap();
        let (file, anew) = (folder.path().join("app.dump"), folder.path().join("anew.sql"));
        std::fs::write(&anew, "create table anew (id integer)").unwrap();
        let since = |with: Value| {
            let mut with = with;
            with["connection"] = json!("db");
            with["unchanged_since"] = json!("save");
            with
        };
        let steps = vec![
            planned("save", "backup", json!({ "connection": "db", "file": file })),
            planned("gate", "backup", since(json!({ "mode": "check", "file": file, "max_age": "1h" }))),
            planned("wipe", "sql-reset", since(json!({ "mode": "rehearse", "files": anew }))),
        ];
        let bench = Bench::new(steps, db.connections(), json!({})).await;
        bench.run("save", 1).await.unwrap();
        Self { db, bench, folder }
    }

    async fn refused(&self, step: &str) -> StepError {
        let error = self.bench.enter(step).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Gate, "{error}");
        error
    }
}

#[tokio::test]
async fn without_the_backup_as_it_was_made_nothing_is_dropped() {
    let held = Held::new().await;
    let file = held.folder.path().join("app.dump");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..100]).unwrap();
    let error = held.refused("wipe").await;
    assert!(error.message.contains("is not as it was made: its SHA-256 is"), "{error}");
    std::fs::remove_file(&file).unwrap();
    let error = held.refused("wipe").await;
    assert!(
        error.message.contains("can not be read any more") && error.message.contains("app.dump"),
        "{error}"
    );
    std::fs::write(&file, whole).unwrap();
    held.bench.enter("wipe").await.unwrap();
}

#[tokio::test]
async fn what_is_defined_after_a_backup_is_found_and_named() {
    let held = Held::new().await;
    for step in ["gate", "wipe"] {
        held.bench.enter(step).await.unwrap();
    }
    // A change, what is said of it, and what takes it back.
    let changes = [
        (
            "alter table a add column more text",
            "table `a` in `public` is another one",
            "alter table a drop column more",
        ),
        (
            "alter table a alter name set default 'y'",
            "table `a` in `public` is another one",
            "alter table a alter name set default 'x'",
        ),
        (
            "alter table a add constraint named check (name <> '')",
            "constraint `named` of `a` in `public` is new",
            "alter table a drop constraint named",
        ),
        ("create index by_name on a (name)", "index `by_name` in `public` is new", "drop index by_name"),
        ("create view more as select 1 as one", "view `more` in `public` is new", "drop view more"),
        (
            "create or replace view names as select name from a where id > 1",
            "view `names` in `public` is another one",
            "create or replace view names as select name from a",
        ),
        (
            "create or replace function one() returns integer language sql as 'select 2'",
            "function `one()` in `public` is another one",
            "create or replace function one() returns integer language sql as 'select 1'",
        ),
        (
            "alter function one() rename to two",
            "function `one()` in `public` is gone",
            "alter function two() rename to one",
        ),
        (
            "create trigger same before update on a for each row execute function suppress_redundant_updates_trigger()",
            "trigger `same` of `a` in `public` is new",
            "drop trigger same on a",
        ),
        ("create type fresh as enum ('new')", "type `fresh` in `public` is new", "drop type fresh"),
        (
            "alter domain small add check (value > 0)",
            "of `small` in `public` is new",
            "alter domain small drop constraint small_check1",
        ),
        (
            "select nextval('a_id_seq')",
            "sequence `a_id_seq` in `public` is at 2 and was at 1",
            "select setval('a_id_seq', 1)",
        ),
    ];
    for (change, said, back) in changes {
        held.db.execute(change).await;
        for step in ["gate", "wipe"] {
            let error = held.refused(step).await;
            assert!(error.message.contains(said), "{step}, {change}: {error}");
        }
        held.db.execute(back).await;
    }
    for step in ["gate", "wipe"] {
        held.bench.enter(step).await.unwrap();
    }
    held.db.execute("alter type mood add value 'glad'").await;
    for step in ["gate", "wipe"] {
        let error = held.refused(step).await;
        assert!(error.message.contains("type `mood` in `public` is another one"), "{error}");
    }
}

#[tokio::test]
async fn another_schema_is_none_of_the_reset() {
    let held = Held::new().await;
    for change in [
        "insert into \"public.x\".t values (2)",
        "alter table \"public.x\".t add column n integer",
        "insert into other.t values (1)",
        "create view other.v as select 1 as one",
    ] {
        held.db.execute(change).await;
        held.bench.enter("wipe").await.unwrap();
    }
    let error = held.refused("gate").await;
    for part in
        ["`\"public.x\".t` has 2 rows and had 1", "`other.t` has 1 rows", "view `v` in `other` is new"]
    {
        assert!(error.message.contains(part), "{error}");
    }
    held.db.execute("insert into \"x.t\" values (1)").await;
    let error = held.refused("wipe").await;
    assert!(error.message.contains("`public.\"x.t\"` has 1 rows and had 0"), "{error}");
}

#[tokio::test]
async fn the_tables_of_an_extension_count_for_neither_step() {
    let held = Held::new().await;
    held.db
        .execute("create table owned (id integer); insert into owned values (1); alter extension pg_trgm add table owned")
        .await;
    let wiped = held.bench.enter("wipe").await.unwrap();
    assert!(wiped["before"]["tables"].get("owned").is_none(), "{wiped}");
    assert!(wiped["before"]["tables"].get("a").is_some(), "{wiped}");
    held.bench.enter("gate").await.unwrap();
}
