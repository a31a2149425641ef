//! `reconcile`: rows of PostgreSQL, and what they name in a real S3 store.

mod marks;
mod oracle;
mod scale;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use runbook_engine::error::StepError;
use runbook_engine::plan::PlannedStep;
use runbook_steps::connections::s3::S3;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _};

use crate::common::{Bench, planned};
use crate::databases::Db;
use crate::s3::make;
use crate::s3::proxy::{Fault, Proxy};
use runbook_sandbox::weed::Weed;

/// The table of the images, as the application's migrations leave it.
const IMAGES: &str = "create type image_status as enum ('queued', 'processing', 'ready', 'error'); \
    create table images (id bigint primary key, original_url text, staged_url text, \
      status image_status not null default 'queued', error text, \
      created_at timestamptz not null default now(), updated_at timestamptz not null default '2025-01-01', \
      cost_usd numeric(10,4) default 0, deleted_at timestamptz)";

const ORIGINAL: &str = "original missing in storage";
const STAGED: &str = "staged missing in storage";

/// Rows, objects, and the proxy that the runbook reaches the store through.
pub struct World {
    db: Db,
    weed: Weed,
    proxy: Proxy,
    s3: Arc<S3>,
}

impl World {
    async fn new() -> Self {
        let (db, weed) = (Db::postgres().await, Weed::start().await.unwrap());
        db.execute(IMAGES).await;
        let s3 = make(&weed, "real-staging").await;
        let proxy = Proxy::before(&weed.url).await;
        Self { db, weed, proxy, s3 }
    }

    /// A URL as the web client writes it.
    fn url(&self, key: &str) -> String {
        format!("{}/real-staging/{key}", self.proxy.url)
    }

    async fn put(&self, keys: impl Iterator<Item = String>) {
        let client = self.s3.client().await;
        let puts = keys
            .map(|key| client.put_object().bucket("real-staging").key(key).body(vec![b'x'].into()).send());
        let put: Vec<bool> = stream::iter(puts).buffer_unordered(64).map(|end| end.is_ok()).collect().await;
        assert!(put.iter().all(|put| *put));
    }

    async fn remove(&self, key: &str) {
        self.s3.client().await.delete_object().bucket("real-staging").key(key).send().await.unwrap();
    }

    /// A run with these steps.
    async fn bench(&self, steps: Vec<PlannedStep>) -> Bench {
        let mut connections = self.db.connections();
        connections["bucket"] = self.weed.bucket("real-staging");
        connections["bucket"]["endpoint"] = json!(self.proxy.url);
        connections["bucket"]["timeout"] = json!("2s");
        let collections = json!({
            "images": {
                "type": "sql-rows", "connection": "db", "table": "images",
                "where": { "status": { "not": "error" } }, "soft_deleted_by": "deleted_at",
            },
            "objects": { "type": "s3-objects", "connection": "bucket", "contents": false },
        });
        Bench::new(steps, connections, collections).await
    }

    async fn report(&self, with: Value) -> Result<(Bench, Value), StepError> {
        let bench = self.bench(vec![report(with)]).await;
        let outputs = bench.enter("report").await?;
        Ok((bench, outputs))
    }

    /// One column of all rows, by id.
    async fn column(&self, name: &str) -> BTreeMap<i64, Option<String>> {
        self.texts(&format!("select id, ({name})::text from images")).await.into_iter().collect()
    }

    /// The rows of a query: a number and a text.
    async fn texts(&self, sql: &str) -> Vec<(i64, Option<String>)> {
        let url = self.db.connections()["db"]["url"].as_str().unwrap().to_owned();
        let options: PgConnectOptions = url.parse().unwrap();
        let query = sqlx::query(AssertSqlSafe(sql.to_owned()));
        let rows = options.connect().await.unwrap().fetch_all(query).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}

/// The references of an image.
fn references() -> Value {
    let set = |text: &str| json!({ "status": "error", "error": text, "updated_at": { "now": true } });
    json!([
        { "name": "original", "field": "original_url", "set": set(ORIGINAL) },
        { "name": "staged", "field": "staged_url", "when": { "status": "ready" }, "set": set(STAGED) },
    ])
}

fn report(with: Value) -> PlannedStep {
    let mut all = json!({
        "collection": "images", "against": "objects", "action": "report", "references": references(),
    });
    for (name, value) in with.as_object().unwrap() {
        all[name] = value.clone();
    }
    planned("report", "reconcile", all)
}

fn mark(findings: &Value, with: Value) -> PlannedStep {
    let mut all = json!({
        "collection": "images", "against": "objects", "action": "mark", "findings": findings,
    });
    for (name, value) in with.as_object().unwrap() {
        all[name] = value.clone();
    }
    planned("mark", "reconcile", all)
}

/// The verdict of each item, by key.
fn verdicts(bench: &Bench, outputs: &Value) -> BTreeMap<i64, String> {
    let key = |line: &Value| line["key"].as_str().unwrap().parse().unwrap();
    let lines = bench.records(&outputs["verdicts"]);
    lines.iter().map(|line| (key(line), line["verdict"].as_str().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn each_reference_comes_to_its_verdict_whichever_way_they_are_compared() {
    let world = World::new().await;
    world
        .put(
            [
                "uploads/u/1 a.jpg",
                "uploads/u/3.jpg",
                "staged/3.jpg",
                "staged/4.jpg",
                "uploads/u/5.jpg",
                "uploads/u/7.jpg",
                "uploads/u/9.jpg",
            ]
            .map(str::to_owned)
            .into_iter(),
        )
        .await;
    let url = |key: &str| world.url(key);
    world
        .db
        .execute(&format!(
            "insert into images (id, original_url, staged_url, status, error, deleted_at) values \
         (1, '{}', null, 'queued', null, null), \
         (2, '{}', 's3://real-staging/staged/not-asked.jpg', 'processing', null, null), \
         (3, '{}', 's3://real-staging/staged/3.jpg', 'ready', null, null), \
         (4, '{}', 's3://real-staging/staged/4.jpg', 'ready', null, null), \
         (5, '{}', 's3://real-staging/staged/5.jpg', 'ready', null, null), \
         (6, '{}', 's3://real-staging/staged/6.jpg', 'ready', null, null), \
         (7, '{}', 's3://elsewhere/staged/7.jpg', 'ready', null, null), \
         (8, null, null, 'ready', null, null), \
         (9, '{}', null, 'ready', null, null), \
         (10, '{}', null, 'error', 'its own words', null), \
         (11, '{}', null, 'ready', null, now()), \
         (12, 'https://cdn.example.com/12.jpg', null, 'queued', null, null)",
            url("uploads/u/1%20a.jpg?X-Amz-Date=1"),
            url("uploads/u/2.jpg"),
            url("uploads/u/3.jpg"),
            url("uploads/u/4.jpg"),
            url("uploads/u/5.jpg"),
            url("uploads/u/6.jpg"),
            url("uploads/u/7.jpg"),
            url("uploads/u/9.jpg"),
            url("uploads/u/10.jpg"),
            url("uploads/u/11.jpg"),
        ))
        .await;
    let mut first = None;
    for compare in ["lookup", "listing", "auto"] {
        let (bench, outputs) = world.report(json!({ "compare": compare })).await.unwrap();
        let found = verdicts(&bench, &outputs);
        let of = |wanted: &str| {
            found.iter().filter(|(_, verdict)| *verdict == wanted).map(|(id, _)| *id).collect::<Vec<_>>()
        };
        assert_eq!(of("missing"), [2, 4, 5, 6], "{outputs}");
        assert_eq!((of("unresolvable"), of("ok")), (vec![7, 12], vec![1, 3, 8, 9]));
        assert_eq!(
            outputs["references"]["original"],
            json!({ "found": 5, "missing": 3, "unknown": 0, "unresolvable": 1, "empty": 1, "not_asked": 0 })
        );
        assert_eq!(
            outputs["references"]["staged"],
            json!({ "found": 2, "missing": 2, "unknown": 0, "unresolvable": 1, "empty": 2, "not_asked": 3 })
        );
        assert_eq!(
            (&outputs["checked"], &outputs["missing"], &outputs["missing_percent"]),
            (&json!(10), &json!(4), &json!(40.0))
        );
        let findings = bench.records(&outputs["findings"]);
        let texts: Vec<_> = findings.iter().map(|line| line["set"]["error"].as_str().unwrap()).collect();
        assert_eq!(texts, [ORIGINAL, ORIGINAL, STAGED, ORIGINAL]);
        assert_eq!(findings[1]["prior"]["status"], "ready");
        assert_eq!(outputs["examples"][2]["target"], "staged/5.jpg");
        let same = (bench.text(&outputs["verdicts"]), bench.text(&outputs["findings"]));
        assert_eq!(first.get_or_insert_with(|| same.clone()), &same, "the way makes no difference");
    }
}

#[tokio::test]
async fn only_a_404_is_missing_and_too_many_unknown_ones_fail_the_step() {
    let world = World::new().await;
    world.put((0..6).map(|at| format!("uploads/{at}"))).await;
    let url = world.url("uploads/");
    world
        .db
        .execute(&format!(
            "insert into images (id, original_url) select n, '{url}' || n from generate_series(0, 6) n"
        ))
        .await;
    world.proxy.fault("uploads/0", Fault::Status(403));
    world.proxy.fault("uploads/1", Fault::Status(500));
    world.proxy.fault("uploads/2", Fault::Slow(std::time::Duration::from_secs(5)));
    world.proxy.fault("uploads/3", Fault::Slow(std::time::Duration::from_millis(700)));
    world.proxy.fault("uploads/4", Fault::Times(503, 2));
    let bench = world.bench(vec![report(json!({ "max_unknown": 2 }))]).await;
    let error = bench.enter("report").await.unwrap_err();
    assert!(
        error.message.contains("of 3 references") && error.message.contains("max_unknown is 2"),
        "{error}"
    );
    let (one, outputs) = world.report(json!({ "max_unknown": 3 })).await.unwrap();
    assert_eq!(
        outputs["references"]["original"],
        json!({ "found": 3, "missing": 1, "unknown": 3, "unresolvable": 0, "empty": 0, "not_asked": 0 })
    );
    assert_eq!(bench.records(&bench.artifact("none", &[])), Vec::<Value>::new());
    assert_eq!(one.records(&outputs["findings"]).len(), 1, "what is unknown is nothing to act on");
    // Once the store is well, the same run goes on, and nothing is unknown.
    world.proxy.heal();
    let outputs = bench.enter("report").await.unwrap();
    assert_eq!((&outputs["unknown"], &outputs["missing"]), (&json!(0), &json!(1)));
}

#[tokio::test]
async fn a_store_without_its_bucket_or_its_objects_is_no_reason_to_take_anything_for_missing() {
    let world = World::new().await;
    let url = world.url("uploads/");
    world
        .db
        .execute(&format!(
            "insert into images (id, original_url) select n, '{url}' || n from generate_series(1, 5) n"
        ))
        .await;
    for compare in ["lookup", "listing"] {
        let error = world.report(json!({ "compare": compare })).await.err().unwrap();
        assert!(
            error.message.contains("there is nothing in objects of s3://real-staging"),
            "{compare}: {error}"
        );
    }
    world.s3.client().await.delete_bucket().bucket("real-staging").send().await.unwrap();
    for compare in ["lookup", "listing"] {
        let error = world.report(json!({ "compare": compare })).await.err().unwrap();
        assert!(error.message.contains("NoSuchBucket"), "{compare}: {error}");
    }
    for (status, told) in [(403, "403"), (503, "503")] {
        world.proxy.answer_all(status);
        for compare in ["lookup", "listing"] {
            let error = world.report(json!({ "compare": compare })).await.err().unwrap();
            assert!(error.message.contains(told), "{compare}: {error}");
        }
    }
}
