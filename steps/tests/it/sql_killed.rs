//! A `sql-reset` whose process was killed, and what the server still does for it.

use std::path::PathBuf;
use std::time::Duration;

use runbook_engine::drive::Purpose;
use runbook_engine::plan::PlannedStep;
use runbook_engine::state::RunStatus;
use runbook_steps::catalog;
use serde_json::{Value, json};

use crate::common::{Bench, planned};
use crate::databases::Db;
use crate::driven::Driven;

/// A run on a server, of one reset.
struct Killed {
    db: Db,
    driven: Driven,
    file: PathBuf,
}

impl Killed {
    async fn new(user: Option<&str>) -> Self {
        let db = Db::postgres().await;
        db.execute("create table kept (id integer primary key); insert into kept values (1)").await;
        let mut connections = db.connections();
        connections["db"]["lock_timeout"] = json!("400ms");
        if let Some(user) = user {
            db.execute(&format!(
                "create role {user} login; grant {user} to current_user; alter schema public owner to {user}; \
                 alter table kept owner to {user}; grant create on database app to {user}"
            ))
            .await;
            connections["db"]["user"] = json!(user);
        }
        let driven = Driven::new(&connections, &json!({}));
        let file = driven.path("anew.sql");
        Self { db, driven, file }
    }

    fn step(&self, mode: &str) -> PlannedStep {
        planned("wipe", "sql-reset", json!({ "connection": "db", "mode": mode, "files": self.file }))
    }

    /// A run that is killed while the server sleeps in its file.
    async fn kill(&self, id: &str, mode: &str) {
        std::fs::write(&self.file, "create table anew (id integer); select pg_sleep(45)").unwrap();
        self.driven.create(id, vec![self.step(mode)]).await;
        let asleep = self.driven.path("asleep");
        let watched = async {
            while self.at_work().await == json!(0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            std::fs::write(&asleep, "").unwrap();
        };
        tokio::join!(self.driven.crash(id, Purpose::GoOn, || asleep.exists()), watched);
        std::fs::remove_file(&asleep).unwrap();
        assert_eq!(self.at_work().await, json!(1), "the server goes on");
    }

    async fn number(&self, statement: &str) -> Value {
        let with = json!({ "connection": "db", "statement": statement });
        let bench = Bench::new(vec![planned("ask", "sql", with)], self.db.connections(), json!({})).await;
        bench.enter("ask").await.unwrap()["rows"][0]["n"].clone()
    }

    /// How many connections sleep in a file.
    async fn at_work(&self) -> Value {
        self.number("select count(*) as n from pg_stat_activity where query like '%pg_sleep(45)' and state = 'active'")
            .await
    }

    /// The table can be read: nobody has its lock.
    async fn is_free(&self) {
        assert_eq!(self.number("select count(*) as n from kept").await, json!(1));
    }
}

#[tokio::test]
async fn a_cancel_ends_what_the_server_does_for_a_killed_reset() {
    let killed = Killed::new(None).await;
    for mode in ["reset", "rehearse"] {
        killed.kill(mode, mode).await;
        let state = killed.driven.ended(mode, Purpose::Cancel("ada".to_owned())).await;
        assert_eq!((state.status, state.error), (RunStatus::Cancelled, None), "{mode}");
        assert_eq!(killed.at_work().await, json!(0), "{mode}");
        killed.is_free().await;
    }
}

#[tokio::test]
async fn a_resume_ends_what_the_server_does_for_the_attempt_before() {
    let killed = Killed::new(None).await;
    for (mode, tables) in [("rehearse", "kept"), ("reset", "anew")] {
        killed.kill(mode, mode).await;
        std::fs::write(&killed.file, "create table anew (id integer)").unwrap();
        let state = killed.driven.ended(mode, Purpose::Resume).await;
        assert_eq!(state.status, RunStatus::Succeeded, "{mode}: {state:?}");
        assert_eq!(killed.at_work().await, json!(0), "{mode}");
        let there = "select string_agg(tablename, ',') as n from pg_tables where schemaname = 'public'";
        assert_eq!(killed.number(there).await, json!(tables));
    }
}

#[tokio::test]
async fn what_can_not_be_ended_is_named_with_what_ends_it() {
    let killed = Killed::new(Some("ada")).await;
    killed.db.execute("revoke execute on function pg_terminate_backend(integer, bigint) from public").await;
    killed.kill("it", "rehearse").await;
    let pid =
        killed.number("select pid::text as n from pg_stat_activity where query like '%pg_sleep(45)'").await;
    let state = killed.driven.ended("it", Purpose::Cancel("ada".to_owned())).await;
    assert_eq!(state.status, RunStatus::Cancelled);
    let error = state.error.unwrap();
    assert!(
        error.message.contains(&format!("connection {} of postgres://", pid.as_str().unwrap())),
        "{error}"
    );
    let line = error.help.unwrap();
    let line = line.strip_prefix("type  ").unwrap().replace("--username=ada", "--username=runbook");
    let typed = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(typed.status.success(), "{}", String::from_utf8_lossy(&typed.stderr));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(killed.at_work().await, json!(0));
    killed.is_free().await;
}

#[tokio::test]
async fn who_holds_the_lock_is_named() {
    let killed = Killed::new(None).await;
    let mut holder = killed.db.held().await;
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut holder).await.unwrap();
    sqlx::raw_sql("begin; select * from kept").execute(&mut holder).await.unwrap();
    std::fs::write(&killed.file, "create table anew (id integer)").unwrap();
    for mode in ["reset", "rehearse"] {
        let state = killed.driven.run(mode, vec![killed.step(mode)]).await;
        let error = crate::driven::error(&state, "wipe");
        let said = format!("`public.kept` is locked by connection {pid} (runbook");
        assert!(error.message.contains(&said) && error.message.contains("idle in transaction"), "{error}");
        assert!(error.help.as_ref().unwrap().contains(&format!("pg_terminate_backend({pid})")), "{error}");
    }
}

#[tokio::test]
async fn a_cancel_removes_the_mark_of_a_reset_of_mysql_that_was_recorded() {
    let db = Db::mariadb().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("anew.sql");
    std::fs::write(&file, "create table anew (id integer)").unwrap();
    let step = planned("wipe", "sql-reset", json!({ "connection": "db", "files": file }));
    let bench = Bench::new(vec![step.clone()], db.connections(), json!({})).await;
    bench.enter("wipe").await.unwrap();
    let cx = || bench.context("wipe");
    let run = cx().run.id.clone();
    let tidy = || (catalog::step("sql-reset").unwrap().tidy)(step.with.clone(), cx());
    let marks = "select count(*) as n from information_schema.tables where table_name = 'runbook_reset'";
    let number = async |statement: &str| {
        let with = json!({ "connection": "db", "statement": statement });
        let bench = Bench::new(vec![planned("ask", "sql", with)], db.connections(), json!({})).await;
        bench.enter("ask").await.unwrap()["rows"][0]["n"].clone()
    };
    // The process was killed before it removed it; of whom else it is stays.
    for (owner, left) in [(run.as_str(), json!(0)), ("another", json!(1))] {
        db.execute(&format!("create table runbook_reset as select '{owner}' as run, 'wipe' as step")).await;
        tidy().await.unwrap();
        assert_eq!(number(marks).await, left, "{owner}");
    }
    assert_eq!(number("select count(*) as n from anew").await, json!(0));
}
