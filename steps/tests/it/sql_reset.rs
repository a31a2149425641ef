//! `sql-reset` on every database.

use std::collections::BTreeMap;
use std::path::PathBuf;

use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::plan::PlannedStep;
use runbook_steps::connections::sql::Dialect;
use serde_json::{Value, json};

use crate::common::{Bench, planned};
use crate::databases::Db;

/// Files of SQL in a folder that is there as long as the test.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn step(with: &Value) -> PlannedStep {
    let mut with = with.clone();
    with["connection"] = json!("db");
    planned("wipe", "sql-reset", with)
}

async fn reset(db: &Db, with: &Value) -> Result<Value, StepError> {
    Bench::new(vec![step(with)], db.connections(), json!({})).await.enter("wipe").await
}

async fn number(db: &Db, statement: &str) -> Value {
    let with = json!({ "connection": "db", "statement": statement });
    let bench = Bench::new(vec![planned("ask", "sql", with)], db.connections(), json!({})).await;
    bench.enter("ask").await.unwrap()["rows"][0]["n"].clone()
}

const OLD: &str = "create table parents (id integer primary key); create table children (id integer primary key, \
    parent integer references parents (id)); insert into parents values (1), (2); insert into children values (1, 2); \
    create view both_of_them as select p.id from parents p join children c on c.parent = p.id";

/// What holds whatever the database; whether a failure is undone is the database's.
async fn everywhere(db: &Db) {
    let files = Files::new();
    db.execute(OLD).await;
    let schema = files.write(
        "schema.sql",
        "-- made anew\ncreate table rings (id integer primary key, name varchar(20));\n",
    );
    let rows = files.write("rows.sql", "insert into rings values (1, 'it''s; a root');");

    // What was not expected keeps everything.
    let wrong = json!({ "files": schema, "expect_before": { "rows": 99 } });
    let error = reset(db, &wrong).await.unwrap_err();
    assert!(
        error.kind == ErrorKind::Gate && error.message.contains("before the reset there are 3 rows"),
        "{error}"
    );
    let mut limited = step(&json!({ "files": schema }));
    limited.limits.max_items = Some(2);
    let error = Bench::new(vec![limited], db.connections(), json!({})).await.enter("wipe").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Limit, "{error}");
    assert_eq!(number(db, "select count(*) as n from children").await, json!(1));

    let with = json!({
        "files": [schema, rows], "expect_before": { "tables": ["parents", "children"], "rows": 3 },
        "expect": { "tables": ["rings"], "table_count": 1, "rows": 1 },
    });
    let bench = Bench::new(vec![step(&with)], db.connections(), json!({})).await;
    let outputs = bench.enter("wipe").await.unwrap();
    assert_eq!(outputs["before"]["tables"], json!({ "children": 1, "parents": 2 }));
    assert_eq!((&outputs["after"]["tables"], &outputs["after"]["rows"]), (&json!({ "rings": 1 }), &json!(1)));
    assert_eq!(outputs["files"][1]["statements"], json!(1));
    // Entered again, as after a crash that came before the step's success was recorded, it does nothing.
    db.execute("insert into rings values (2, 'later')").await;
    assert_eq!(bench.enter("wipe").await.unwrap(), outputs);
    assert_eq!(number(db, "select count(*) as n from rings").await, json!(2));
}

/// What fails leaves everything as it was.
async fn undoes(db: &Db) {
    let files = Files::new();
    let broken =
        files.write("broken.sql", "create table a (id integer primary key); insert into nowhere values (1);");
    let error = reset(db, &json!({ "files": broken })).await.unwrap_err();
    assert!(error.kind == ErrorKind::Refused && error.message.contains("broken.sql"), "{error}");
    let empty = files.write("empty.sql", "create table a (id integer primary key)");
    let error = reset(db, &json!({ "files": empty, "expect": { "tables": ["b"] } })).await.unwrap_err();
    assert!(error.message.contains("after the reset there is no table `b`"), "{error}");
    assert_eq!(number(db, "select count(*) as n from rings").await, json!(2));
}

/// A rehearsal finds out what the reset would, and leaves everything as it is.
async fn rehearses(db: &Db) {
    let files = Files::new();
    let anew = files.write("anew.sql", "create table anew (id integer primary key)");
    let with = |expect: Value| json!({ "files": anew, "mode": "rehearse", "expect": expect });
    let mut limited = step(&with(json!({ "tables": ["anew"], "table_count": 1, "rows": 0 })));
    limited.limits.max_items = Some(1);
    let bench = Bench::new(vec![limited], db.connections(), json!({})).await;
    let foreseen = bench.foresee("wipe").await.unwrap();
    assert!(foreseen.does.ends_with("then take all of it back") && foreseen.items == 0, "{}", foreseen.does);
    for _ in 0..2 {
        let outputs = bench.enter("wipe").await.unwrap();
        assert_eq!(outputs["before"]["tables"], json!({ "rings": 2 }));
        assert_eq!(outputs["after"]["tables"], json!({ "anew": 0 }));
        assert_eq!([&outputs["dropped_tables"], &outputs["dropped_rows"]], [&json!(0), &json!(0)]);
        assert_eq!(number(db, "select count(*) as n from rings").await, json!(2));
    }
    let error = reset(db, &with(json!({ "tables": ["b"] }))).await.unwrap_err();
    assert!(error.message.contains("after the reset there is no table `b`"), "{error}");
    // Names of columns hide no end of the transaction.
    let ends = files.write("ends.sql", "create table calendar (event integer, begin integer); commit;");
    let error = reset(db, &json!({ "files": ends, "mode": "rehearse" })).await.unwrap_err();
    assert!(error.message.contains("commit"), "{error}");
    if db.dialect() == Dialect::Postgres {
        let late = "create table a (id integer primary key); \
                    create table b (a integer references a (id) deferrable initially deferred); insert into b values (1)";
        let with = json!({ "files": files.write("late.sql", late), "mode": "rehearse" });
        let error = reset(db, &with).await.unwrap_err();
        assert!(
            error.to_string().contains("foreign key"),
            "what the commit refuses is found before: {error}"
        );
    }
    assert_eq!(number(db, "select count(*) as n from rings").await, json!(2));
}

/// What a reviewed plan saw is what is dropped; whether the rows themselves are compared is the database's.
async fn as_planned(db: &Db, contents: bool) {
    let files = Files::new();
    let with = json!({ "connection": "db", "files": files.write("anew.sql", "create table anew (id integer primary key);") });
    db.execute("create table seen (id integer primary key, \"t\" varchar(20)); insert into seen values (1, 'x'), (2, null)".replace('"', if db.dialect() == Dialect::MySql { "`" } else { "\"" }).as_str()).await;
    let foreseen = async || {
        let bench = Bench::new(vec![step(&with)], db.connections(), json!({})).await;
        bench.foresee("wipe").await.unwrap()
    };
    let seen = foreseen().await;
    assert_eq!(seen.binds["table `seen`"].contains("sha256"), contents, "{:?}", seen.binds);
    assert_eq!(seen.binds, foreseen().await.binds);
    let enter = async |binds: &BTreeMap<String, String>| {
        let mut bench = Bench::new(vec![step(&with)], db.connections(), json!({})).await;
        bench.review("wipe", binds);
        bench.enter("wipe").await
    };
    let changes = ["update seen set id = 3 where id = 2", "insert into seen values (4, 'y')"];
    for (change, drifts) in changes.into_iter().zip([contents, true]) {
        if drifts {
            db.execute(change).await;
            let error = enter(&seen.binds).await.unwrap_err();
            assert!(error.kind == ErrorKind::Drift && error.message.contains("table `seen`"), "{error}");
            assert_ne!(number(db, "select count(*) as n from seen").await, json!(0));
        }
    }
    let outputs = enter(&foreseen().await.binds).await.unwrap();
    assert_eq!(outputs["after"]["tables"], json!({ "anew": 0 }));
    db.execute("drop table anew").await;
}

#[tokio::test]
async fn sqlite() {
    let db = Db::sqlite().await;
    as_planned(&db, true).await;
    everywhere(&db).await;
    undoes(&db).await;
    rehearses(&db).await;
    let files = Files::new();
    let orphans = files.write(
        "orphans.sql",
        "create table a (id integer primary key); create table b (a integer references a (id)); insert into b values (5)",
    );
    let error = reset(&db, &json!({ "files": orphans })).await.unwrap_err();
    assert!(error.message.contains("the first is of `b`"), "{error}");
    assert_eq!(number(&db, "select count(*) as n from rings").await, json!(2));
}

#[tokio::test]
async fn mariadb() {
    let db = Db::mariadb().await;
    as_planned(&db, false).await;
    everywhere(&db).await;
    assert_eq!(db.dialect(), Dialect::MySql);
    let error = reset(&db, &json!({ "files": "any.sql", "mode": "rehearse" })).await.unwrap_err();
    assert!(error.kind == ErrorKind::Invalid && error.message.contains("not for MySQL"), "{error}");
    // A reset that fails is marked, and nobody else begins one.
    let files = Files::new();
    let path =
        files.write("later.sql", "create table a (id integer primary key); insert into nowhere values (1);");
    let bench = Bench::new(vec![step(&json!({ "files": path }))], db.connections(), json!({})).await;
    assert!(bench.enter("wipe").await.is_err());
    let mut other = step(&json!({ "files": path }));
    other.id = "another".to_owned();
    let error =
        Bench::new(vec![other], db.connections(), json!({})).await.enter("another").await.unwrap_err();
    assert!(error.message.contains("in the middle of a reset, by step `wipe`"), "{error}");
    // It goes on from there: what was there before is known still.
    files.write("later.sql", "create table a (id integer primary key)");
    let outputs = bench.enter("wipe").await.unwrap();
    assert_eq!(outputs["before"]["tables"], json!({ "rings": 2 }));
    assert_eq!(outputs["after"]["tables"], json!({ "a": 0 }));
    let left = "select count(*) as n from information_schema.tables where table_schema = 'app'";
    assert_eq!(number(&db, left).await, json!(1));
}

#[tokio::test]
async fn mariadb_is_not_reset_below_what_stands_in_another_database() {
    let db = Db::mariadb().await;
    let files = Files::new();
    let with = json!({ "files": files.write("anew.sql", "create table anew (id integer primary key)") });
    db.execute("create table rings (id integer primary key)").await;
    db.execute("insert into rings values (1)").await;
    db.execute("create database other").await;
    // A table of the database's name, and one that is called so, are nothing of it.
    db.execute("create table other.app (id integer primary key)").await;
    db.execute("create view other.named as select app.id from other.app").await;
    db.execute("create table other.pictures (id integer primary key)").await;
    db.execute("create view other.called as select app.id, app.id + 1 as next from other.pictures app").await;
    for (makes, takes, told) in [
        (
            "create table other.t (ring integer, constraint of_ring foreign key (ring) references app.rings (id))",
            "drop table other.t",
            "the foreign key of_ring of other.t",
        ),
        ("create view other.v as select * from app.rings", "drop view other.v", "the view other.v"),
        (
            "create view other.w as select p.id from other.pictures p join (app.rings r join app.rings s) on r.id = p.id",
            "drop view other.w",
            "the view other.w",
        ),
    ] {
        db.execute(makes).await;
        let bench = Bench::new(vec![step(&with)], db.connections(), json!({})).await;
        let foreseen = bench.foresee("wipe").await.unwrap_err();
        assert!(foreseen.message.contains(told), "{foreseen}");
        let error = reset(&db, &with).await.unwrap_err();
        assert!(error.message.contains(told) && error.message.contains("left broken"), "{error}");
        assert_eq!(number(&db, "select count(*) as n from rings").await, json!(1));
        db.execute(takes).await;
    }
    reset(&db, &with).await.unwrap();
}

#[tokio::test]
async fn postgres() {
    let db = Db::postgres().await;
    as_planned(&db, true).await;
    everywhere(&db).await;
    undoes(&db).await;
    rehearses(&db).await;
    db.execute(
        "create role app login; create role reader; grant usage on schema public to app with grant option; \
         comment on schema public is 'it''s ours'; create schema other; create extension pg_trgm; \
         alter default privileges in schema public grant select on tables to reader; \
         create type public.mood as enum ('sad')",
    )
    .await;
    let files = Files::new();
    let schema = files.write(
        "schema.sql",
        "select set_config('search_path', '', false); create type public.mood as enum ('sad', 'ok'); \
         create function public.f() returns text language plpgsql as $$ begin return 'a;b'; end $$; \
         create table public.rings (id integer primary key, name text, m public.mood); \
         create index on public.rings using gin (name public.gin_trgm_ops)",
    );
    let with = json!({ "files": schema, "expect": { "tables": ["rings"], "enums": ["mood"], "rows": 0 } });

    // Something outside would be dropped with it.
    db.execute("create table other.t (m public.mood)").await;
    let error = reset(&db, &with).await.unwrap_err();
    assert!(error.message.contains("something outside of \"public\""), "{error}");
    assert_eq!(number(&db, "select count(*) as n from rings").await, json!(2));
    db.execute("drop table other.t").await;

    reset(&db, &with).await.unwrap();
    let privileges = "select nspacl::text || obj_description(oid, 'pg_namespace') || pg_get_userbyid(nspowner) as n \
                      from pg_namespace where nspname = 'public'";
    let told = number(&db, privileges).await;
    let told = told.as_str().unwrap();
    assert!(told.contains("app=U*/") && told.contains("it's ourspg_database_owner"), "{told}");
    let readable = "select has_table_privilege('reader', 'rings', 'select')::text as n";
    assert_eq!(number(&db, readable).await, json!("true"));
    // Who holds a lock is not waited for longer than the connection says.
    let mut connections = db.connections();
    connections["db"]["lock_timeout"] = json!("300ms");
    let holder = json!({ "connection": "db", "statement": "select pg_sleep(3), count(*) from rings" });
    let holding = Bench::new(vec![planned("hold", "sql", holder)], db.connections(), json!({})).await;
    let waiting = Bench::new(vec![step(&with)], connections, json!({})).await;
    let (held, refused) = tokio::join!(holding.enter("hold"), async {
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        waiting.enter("wipe").await
    });
    held.unwrap();
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Transient);
}

#[tokio::test]
async fn mariadb_drops_tables_with_a_history_and_waits_for_a_session_that_outlived_its_process() {
    let db = Db::mariadb().await;
    db.execute(
        "create table kept (id integer primary key) with system versioning; insert into kept values (1)",
    )
    .await;
    let files = Files::new();
    let path = files.write(
        "slow.sql",
        "create table a (id integer); do sleep(4); insert into a values (1); create table kept (id integer)",
    );
    let bench = Bench::new(vec![step(&json!({ "files": path }))], db.connections(), json!({})).await;
    // The server goes on with the script of a process that is gone.
    let cut = tokio::time::timeout(std::time::Duration::from_millis(1500), bench.enter("wipe")).await;
    assert!(cut.is_err(), "it was not cut off");
    let outputs = bench.enter("wipe").await.unwrap();
    assert_eq!(outputs["before"]["tables"], json!({ "kept": 1 }));
    assert_eq!(outputs["after"]["tables"], json!({ "a": 1, "kept": 0 }));
    assert_eq!(number(&db, "select count(*) as n from a").await, json!(1));
}

#[tokio::test]
async fn postgres_tells_of_grants_and_leaves_what_is_published() {
    let db = Db::postgres().await;
    db.execute(
        "create table rings (id integer primary key); create role reader; grant select on rings to reader; \
         create publication feed for table rings",
    )
    .await;
    let files = Files::new();
    let with = json!({ "files": files.write("anew.sql", "create table rings (id integer primary key)") });
    let foresee =
        async || Bench::new(vec![step(&with)], db.connections(), json!({})).await.foresee("wipe").await;
    for publication in ["for table rings", "for tables in schema public"] {
        db.execute(&format!("drop publication feed; create publication feed {publication}")).await;
        for error in [foresee().await.unwrap_err(), reset(&db, &with).await.unwrap_err()] {
            assert!(
                error.kind == ErrorKind::Refused && error.message.contains("published by feed"),
                "{error}"
            );
        }
    }
    db.execute("drop publication feed").await;
    let does = foresee().await.unwrap().does;
    assert!(does.contains("what reader may do"), "{does}");
    reset(&db, &with).await.unwrap();
}
