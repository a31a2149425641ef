//! `delete-batch` on objects: a thousand a request, each key with its own end, whatever trouble the store is in.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use runbook_engine::error::ErrorKind;
use runbook_sandbox::weed::Weed;
use runbook_steps::collections::KeyOutcome;
use runbook_steps::connections::s3::S3;
use serde_json::{Value, json};

use super::deletes::Deletes;
use super::proxy::Proxy;
use super::{keep_versions, make, objects, resources, write};
use crate::collections::{doomed, every, keys};
use crate::common::{Bench, planned};

/// A store with a bucket of so many objects, and the proxy that the runbook reaches it through.
struct World {
    weed: Weed,
    s3: Arc<S3>,
    proxy: Proxy,
    deletes: Arc<Deletes>,
    keys: Vec<String>,
}

impl World {
    async fn new(count: usize) -> Self {
        let weed = Weed::start().await.unwrap();
        let s3 = make(&weed, "bucket").await;
        let deletes = Deletes::of(&s3);
        let proxy = Proxy::after(Some(deletes.clone()), &weed.url).await;
        let keys: Vec<String> = (0..count).map(|at| format!("k/{at:05}")).collect();
        let client = s3.client().await;
        let puts =
            keys.iter().map(|key| client.put_object().bucket("bucket").key(key).body(vec![b'x'].into()));
        let put: Vec<bool> = stream::iter(puts)
            .map(|put| async { put.send().await.is_ok() })
            .buffer_unordered(64)
            .collect()
            .await;
        assert!(put.iter().all(|put| *put));
        Self { weed, s3, proxy, deletes, keys }
    }

    fn bucket(&self) -> Value {
        let mut bucket = self.weed.bucket("bucket");
        bucket["endpoint"] = json!(self.proxy.url);
        bucket
    }

    /// A run whose step `purge` deletes all of the keys, a thousand at a time.
    async fn bench(&self, max_errors: Option<u64>, retry_failed: u32) -> Bench {
        let records: Vec<_> = self.keys.iter().map(|key| json!({ "key": key, "record": {} })).collect();
        let draft = Bench::new(Vec::new(), json!({}), json!({})).await;
        let manifest = draft.artifact("keys.jsonl", &records);
        let with = json!({
            "collections": ["objects"], "keys": [manifest], "batch_size": 1000, "retry_failed": retry_failed,
        });
        let mut step = planned("purge", "delete-batch", with);
        (step.limits.max_items, step.limits.max_errors) = (Some(self.keys.len() as u64), max_errors);
        let collections =
            json!({ "objects": { "type": "s3-objects", "connection": "bucket", "contents": false } });
        let bench = Bench::new(vec![step], json!({ "bucket": self.bucket() }), collections).await;
        bench.artifact("keys.jsonl", &records);
        bench
    }

    /// The keys that are in the bucket.
    async fn there(&self) -> Vec<String> {
        keys(&every(&*objects(&self.weed, "bucket", json!({ "contents": false }))).await)
    }
}

/// How often each key was asked for.
fn times(requests: &[Vec<String>]) -> BTreeMap<&str, usize> {
    let mut times = BTreeMap::new();
    for key in requests.iter().flatten() {
        *times.entry(key.as_str()).or_default() += 1;
    }
    times
}

#[tokio::test]
async fn each_key_has_its_own_end_and_only_what_may_pass_is_asked_for_again() {
    let world = World::new(2500).await;
    let for_ever = u32::MAX;
    for (at, code, times) in [
        (7, "AccessDenied", for_ever),
        (8, "InternalError", 2),
        (9, "SlowDown", 4),
        (1200, "ServiceUnavailable", for_ever),
        (2400, "InternalError", 1),
    ] {
        world.deletes.refuse(&world.keys[at], code, times);
    }
    let bench = world.bench(Some(3), 1).await;
    let error = bench.enter("purge").await.unwrap_err();
    assert!(error.message.starts_with("2 of 2500 keys could not be deleted in 2 passes"), "{error}");
    let path = error.help.unwrap().rsplit(' ').next().unwrap().to_owned();
    let lines = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (line, at, kind, code) in
        [(&lines[0], 7, "refused", "AccessDenied"), (&lines[1], 1200, "transient", "ServiceUnavailable")]
    {
        assert_eq!((&line["key"], &line["kind"]), (&json!(world.keys[at]), &json!(kind)), "{line}");
        assert!(line["error"].as_str().unwrap().contains(&format!("`{}`: {code}", world.keys[at])), "{line}");
    }
    assert_eq!(lines.len(), 2);
    assert_eq!(world.there().await, [world.keys[7].clone(), world.keys[1200].clone()]);
    let requests = world.deletes.requests();
    let sizes: Vec<usize> = requests.iter().map(Vec::len).filter(|size| *size > 2).collect();
    assert_eq!(sizes, [1000, 1000, 500], "whole batches are asked for once");
    let asked = times(&requests);
    assert_eq!((asked.len(), asked[&*world.keys[7]], asked[&*world.keys[8]]), (2500, 1, 3));
    // Three times in its batch, and in the pass after it.
    assert_eq!((asked[&*world.keys[9]], asked[&*world.keys[1200]], asked[&*world.keys[2400]]), (5, 6, 2));
    let batches = bench.context("purge").ledger.batches(0, 10).await.unwrap();
    let outcome = &batches[0].settled.as_ref().unwrap().outcome;
    let ends = [6, 7, 8, 9].map(|at| outcome["ids"][&world.keys[at]].as_str().unwrap());
    assert_eq!(ends, ["d", "f", "d", "f"], "{}", outcome["errors"]);
    assert_eq!(bench.context("purge").ledger.view().await.unwrap().totals.failed, 3);
    // Once the store is mended the same run ends.
    for at in [7, 1200] {
        world.deletes.refuse(&world.keys[at], "", 0);
    }
    let outputs = bench.enter("purge").await.unwrap();
    assert_eq!((&outputs["deleted"]["objects"], &outputs["failed"]), (&json!(2500), &json!(0)));
    assert_eq!(world.there().await, [] as [String; 0]);
}

#[tokio::test]
async fn no_batch_is_begun_after_more_errors_than_are_allowed() {
    let world = World::new(1500).await;
    for at in [3, 4] {
        world.deletes.refuse(&world.keys[at], "AccessDenied", u32::MAX);
    }
    for at in 10..30 {
        world.deletes.refuse(&world.keys[at], "SlowDown", 1);
    }
    let error = world.bench(Some(1), 3).await.enter("purge").await.unwrap_err();
    assert!(
        error.kind == ErrorKind::Limit && error.message == "2 items failed, and max_errors is 1",
        "{error}"
    );
    assert_eq!(world.there().await.len(), 502, "two that were refused, and what was not begun");
    assert_eq!(world.deletes.requests().iter().map(Vec::len).collect::<Vec<_>>(), [1000, 20]);
}

#[tokio::test]
async fn a_store_that_is_too_busy_is_asked_again_later_and_then_left_for_the_next_attempt() {
    let world = World::new(30).await;
    let bench = world.bench(Some(0), 1).await;
    world.deletes.slow_down(u32::MAX);
    let error = bench.enter("purge").await.unwrap_err();
    assert!(error.kind == ErrorKind::Transient && error.message.contains("SlowDown"), "{error}");
    assert_eq!((world.deletes.requests().len(), world.there().await.len()), (3, 30));
    world.deletes.slow_down(2);
    let begun = std::time::Instant::now();
    let outputs = bench.enter("purge").await.unwrap();
    assert!(begun.elapsed().as_millis() >= 600, "it was not waited");
    assert_eq!((world.deletes.requests().len(), &outputs["deleted"]["objects"]), (3, &json!(30)));
    assert_eq!(world.there().await, [] as [String; 0]);
}

#[tokio::test]
async fn a_store_that_makes_sure_of_etags_is_asked_to_and_nothing_is_looked_at_before() {
    let world = World::new(20).await;
    world.deletes.make_conditional();
    let all = resources(world.bucket(), json!({ "contents": false })).collection("objects").unwrap();
    let items = every(&*all).await;
    write(&world.s3, &items[1].key, "changed meanwhile").await;
    world.s3.client().await.delete_object().bucket("bucket").key(&items[2].key).send().await.unwrap();
    world.proxy.counted();
    let ends = all.delete(&items.iter().map(doomed).collect::<Vec<_>>()).await.unwrap();
    assert!(matches!(&ends[1], KeyOutcome::Failed(error) if error.kind == ErrorKind::Gate), "{ends:?}");
    assert_eq!((&ends[0], &ends[2]), (&KeyOutcome::Done, &KeyOutcome::Already));
    assert!(ends[3..].iter().all(|end| *end == KeyOutcome::Done), "{ends:?}");
    // Looked at: what the store was tried with, and the two that it refused.
    assert_eq!(world.proxy.counted().0, 3);
    let requests = world.deletes.requests();
    assert_eq!(requests.iter().map(Vec::len).collect::<Vec<_>>(), [1, 20]);
    assert_eq!(world.there().await, [items[1].key.clone()]);
}

/// What a bucket holds in all, as `key` or `key marker`.
pub async fn kept(s3: &S3) -> Vec<String> {
    let found = s3.client().await.list_object_versions().bucket(s3.bucket()).send().await.unwrap();
    let versions = found.versions().iter().map(|one| one.key().unwrap().to_owned());
    let markers = found.delete_markers().iter().map(|one| format!("{} marker", one.key().unwrap()));
    versions.chain(markers).collect()
}

#[tokio::test]
async fn in_a_bucket_with_versions_a_delete_leaves_a_marker_and_says_so_and_versions_go_one_by_one() {
    let weed = Weed::start().await.unwrap();
    let s3 = make(&weed, "kept").await;
    let current = objects(&weed, "kept", json!({}));
    assert_eq!(current.follows().await.unwrap(), [] as [String; 0]);
    write(&s3, "before", "any version").await;
    keep_versions(&s3).await;
    for text in ["one", "two"] {
        write(&s3, "a", text).await;
    }
    write(&s3, "b", "one").await;
    let follows = current.follows().await.unwrap();
    assert!(follows[0].contains("leaves a delete marker"), "{follows:?}");
    let versions = objects(&weed, "kept", json!({ "versions": true }));
    assert_eq!(versions.follows().await.unwrap(), [] as [String; 0]);
    let items = every(&*current).await;
    assert_eq!(keys(&items), ["a", "b", "before"]);
    let ends = current.delete(&items.iter().map(doomed).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(ends, vec![KeyOutcome::Done; 3]);
    assert_eq!(current.count().await.unwrap(), 0);
    // Nothing is lost, and nothing is left of the object that told whether the store makes sure of ETags.
    let mut left = kept(&s3).await;
    left.sort();
    assert_eq!(left, ["a", "a", "a marker", "b", "b marker", "before", "before marker"]);
    let items = every(&*versions).await;
    assert_eq!(items.len(), 7);
    let doomed: Vec<_> = items.iter().map(doomed).collect();
    assert_eq!(versions.delete(&doomed).await.unwrap(), vec![KeyOutcome::Done; 7]);
    assert_eq!(kept(&s3).await, [] as [String; 0]);
}
