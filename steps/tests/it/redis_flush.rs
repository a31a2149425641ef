//! `redis-flush` on a real server.

use redis::{Value as Answer, cmd};
use runbook_engine::error::ErrorKind;
use runbook_engine::plan::PlannedStep;
use runbook_engine::step::Intent;
use runbook_sandbox::redis::RedisServer;
use runbook_steps::catalog;
use runbook_steps::kind::Context;
use serde_json::{Value, json};

use crate::common::{Bench, planned};

async fn server() -> RedisServer {
    let server = RedisServer::start().await.unwrap();
    for (database, count) in [(0, 3), (1, 2), (5, 4)] {
        for at in 0..count {
            set(&server, database, &format!("key:{at}")).await;
        }
    }
    server
}

async fn set(server: &RedisServer, database: u32, key: &str) {
    server.run_in::<()>(database, cmd("SET").arg(key).arg("v")).await.unwrap();
}

async fn size(server: &RedisServer, database: u32) -> u64 {
    server.run_in(database, &cmd("DBSIZE")).await.unwrap()
}

fn step(with: &Value) -> PlannedStep {
    let mut with = with.clone();
    with["connection"] = json!("cache");
    planned("clear", "redis-flush", with)
}

async fn bench_of(server: &RedisServer, step: PlannedStep) -> Bench {
    let connections = json!({ "cache": { "type": "redis", "url": server.url(), "database": 1 } });
    Bench::new(vec![step], connections, json!({})).await
}

/// Announces a flush as the step does, and stops there as a crash would.
async fn announced(bench: &Bench) -> Context {
    let cx = bench.context("clear");
    let what = json!({ "before": {
        "server": "s", "scope": "database", "flushed": true, "keys_before": 2, "keys_after": 0, "before": { "1": 2 }, "after": {},
    } });
    cx.ledger.intend(Intent { what, items: 2, charged_items: 2, charged_bytes: 0 }).await.unwrap();
    cx
}

#[tokio::test]
async fn one_database_or_all_of_them() {
    let server = server().await;
    let bench = bench_of(&server, step(&json!({}))).await;
    let outputs = bench.run("clear", 1).await.unwrap();
    let place = format!("{}/1", server.url());
    let wanted = json!({ "server": place, "scope": "database", "flushed": true, "keys_before": 2, "keys_after": 0,
        "before": { "1": 2 }, "after": {} });
    assert_eq!(outputs, wanted);
    assert_eq!((size(&server, 0).await, size(&server, 1).await, size(&server, 5).await), (3, 0, 4));
    // Entered again, as after a crash that came before the step's success was recorded, it does nothing.
    set(&server, 1, "later").await;
    assert_eq!(bench.enter("clear").await.unwrap(), outputs);
    assert_eq!(size(&server, 1).await, 1);
    // A person who resumes it wants it done.
    bench.reopen("clear").await;
    assert_eq!(bench.enter("clear").await.unwrap()["keys_before"], json!(1));

    let all = bench_of(&server, step(&json!({ "scope": "all" }))).await;
    let outputs = all.enter("clear").await.unwrap();
    assert_eq!((&outputs["before"], &outputs["keys_before"]), (&json!({ "0": 3, "5": 4 }), &json!(7)));
    assert_eq!((size(&server, 0).await, size(&server, 1).await, size(&server, 5).await), (0, 0, 0));
    // What is empty is left alone.
    let nothing = bench_of(&server, step(&json!({}))).await;
    assert_eq!(nothing.enter("clear").await.unwrap()["flushed"], json!(false));
}

#[tokio::test]
async fn the_limits_are_asked_before() {
    let server = server().await;
    let mut limited = step(&json!({ "scope": "all" }));
    limited.limits.max_items = Some(8);
    let error = bench_of(&server, limited.clone()).await.enter("clear").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Limit, "{error}");
    assert_eq!((size(&server, 0).await, size(&server, 1).await), (3, 2));
    limited.limits.max_items = Some(9);
    assert_eq!(bench_of(&server, limited).await.enter("clear").await.unwrap()["keys_before"], json!(9));
}

#[tokio::test]
async fn after_a_crash_the_server_tells_whether_it_happened() {
    let server = server().await;
    // It was announced and not sent: it is done now.
    let bench = bench_of(&server, step(&json!({}))).await;
    announced(&bench).await;
    set(&server, 1, "third").await;
    let outputs = bench.enter("clear").await.unwrap();
    assert_eq!((&outputs["keys_before"], size(&server, 1).await), (&json!(3), 0));

    // It was sent, and keys came back: they are not flushed, and the step says so.
    set(&server, 1, "old").await;
    let bench = bench_of(&server, step(&json!({}))).await;
    announced(&bench).await;
    let mark = "runbook:flushed:run-1:clear";
    for command in
        [cmd("FLUSHDB"), cmd("SET").arg(mark).arg(1).to_owned(), cmd("SET").arg("new").arg(1).to_owned()]
    {
        server.run_in::<Answer>(1, &command).await.unwrap();
    }
    let error = bench.enter("clear").await.unwrap_err();
    assert!(error.kind == ErrorKind::Gate && error.message.contains("1 keys are there again"), "{error}");
    assert_eq!(size(&server, 1).await, 1);
    assert_eq!(server.run_in::<Option<u64>>(1, cmd("GET").arg(mark)).await.unwrap(), None);

    // The same where it is only to be reported.
    let bench = bench_of(&server, step(&json!({ "came_back": "report" }))).await;
    announced(&bench).await;
    server.run_in::<Answer>(1, cmd("SET").arg(mark).arg(1)).await.unwrap();
    let outputs = bench.enter("clear").await.unwrap();
    assert_eq!(
        (&outputs["keys_before"], &outputs["keys_after"], &outputs["after"]),
        (&json!(2), &json!(1), &json!({ "1": 1 }))
    );
    assert_eq!(size(&server, 1).await, 1);

    // The server lost everything, the mark too: nothing is left to do.
    let bench = bench_of(&server, step(&json!({}))).await;
    announced(&bench).await;
    server.run_in::<Answer>(1, &cmd("FLUSHDB")).await.unwrap();
    assert_eq!(bench.enter("clear").await.unwrap()["keys_before"], json!(2));
}

#[tokio::test]
async fn a_cancel_finds_out_whether_it_happened_flushes_nothing_and_leaves_no_mark() {
    let server = server().await;
    let mark = "runbook:flushed:run-1:clear";
    for (happened, done, left) in [(true, 2, 1), (false, 0, 2)] {
        server.run_in::<Answer>(1, &cmd("FLUSHDB")).await.unwrap();
        let bench = bench_of(&server, step(&json!({}))).await;
        announced(&bench).await;
        set(&server, 1, "new").await;
        if happened {
            server.run_in::<Answer>(1, cmd("SET").arg(mark).arg(1)).await.unwrap();
        } else {
            set(&server, 1, "old").await;
        }
        let with = bench.plan.step("clear").unwrap().with.clone();
        let tidy = || (catalog::step("redis-flush").unwrap().tidy)(with.clone(), bench.context("clear"));
        tidy().await.unwrap();
        assert_eq!(size(&server, 1).await, left);
        let view = bench.context("clear").ledger.view().await.unwrap();
        assert!(view.unsettled.is_empty(), "{view:?}");
        assert_eq!((view.totals.done, view.totals.failed), (done, 0));
        // It was recorded, and the mark was not taken away any more.
        if happened {
            server.run_in::<Answer>(1, cmd("SET").arg(mark).arg(1)).await.unwrap();
            tidy().await.unwrap();
            assert_eq!(size(&server, 1).await, left);
        }
    }
    // What never began needs no server for its end.
    let bench = bench_of(&server, step(&json!({}))).await;
    drop(server);
    let with = bench.plan.step("clear").unwrap().with.clone();
    (catalog::step("redis-flush").unwrap().tidy)(with, bench.context("clear")).await.unwrap();
}

#[tokio::test]
async fn a_user_who_may_not_flush_flushes_nothing() {
    let server = server().await;
    let mut rule = cmd("ACL");
    rule.arg("SETUSER")
        .arg("ada")
        .arg("on")
        .arg(">hunter2")
        .arg("~*")
        .arg("+@all")
        .arg("-flushdb")
        .arg("-flushall");
    server.run_in::<()>(0, &rule).await.unwrap();
    let connections =
        json!({ "cache": { "type": "redis", "url": server.url(), "user": "ada", "password": "hunter2" } });
    let bench = Bench::new(vec![step(&json!({}))], connections, json!({})).await;
    let error = bench.enter("clear").await.unwrap_err();
    let told = format!("{error:?}");
    assert!(
        error.kind == ErrorKind::Refused && told.contains("flushdb") && !told.contains("hunter2"),
        "{told}"
    );
    assert_eq!(size(&server, 0).await, 3);
    assert_eq!(bench.context("clear").ledger.view().await.unwrap().unsettled, []);
}

#[tokio::test]
async fn a_plan_shows_how_many_and_is_not_held_to_it() {
    let server = server().await;
    let bench = bench_of(&server, step(&json!({ "scope": "all" }))).await;
    let entry = catalog::step("redis-flush").unwrap();
    let with = json!({ "connection": "cache", "scope": "all" });
    let seen =
        (entry.foresee)(with, (entry.info.effect)(&Value::Null), bench.context("clear")).await.unwrap();
    assert_eq!((seen.items, seen.population.map(|of| of.1), seen.done), (9, Some(9), false));
    let does = format!(
        "flush every database of the server of {}/1; the plan binds which one, and not its keys",
        server.url()
    );
    assert!(seen.does.starts_with(&does), "{}", seen.does);
    assert_eq!(size(&server, 0).await, 3);
}
