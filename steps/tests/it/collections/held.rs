//! The places where collections of each type are.

use runbook_sandbox::redis::RedisServer;
use runbook_sandbox::weed::Weed;
use runbook_steps::collections::Item;
use serde_json::json;

pub use super::sql::{mariadb, postgres, sqlite};
use super::{every, is_deleted, is_deleted_and_put_back, is_scanned, it, open};
use crate::fountain;
use crate::redis_keys;
use crate::s3::{keep_versions, make, write};

pub async fn files(kind: &str) {
    let folder = tempfile::tempdir().unwrap();
    for at in 0..7 {
        std::fs::write(folder.path().join(format!("{at}.log")), format!("content {at}")).unwrap();
    }
    let connections = json!({ "there": { "type": "directory", "path": folder.path() } });
    let (mut bench, _) = open(connections, json!({ "type": kind, "connection": "there" })).await;
    let change = async |key: &str| std::fs::write(folder.path().join(key), "changed").unwrap();
    is_deleted_and_put_back(&mut bench, change, same_content).await;
}

/// A file or an object that is written again has another time.
fn same_content(one: &Item, other: &Item) -> bool {
    one.record["content"].is_string() && one.record["content"] == other.record["content"]
}

pub async fn documents(kind: &str) {
    let chatkit = fountain::start(7, 0).await;
    let mut settings = fountain::collections()["metadata"].clone();
    settings["type"] = json!(kind);
    let (mut bench, collection) = open(fountain::connections(&chatkit), settings).await;
    let change = async |key: &str| {
        let mut record = collection.read(key).await.unwrap().unwrap().record;
        record["fileName"] = json!("changed");
        fountain::change(&chatkit, "PUT", "attachment-metadata", key, Some(&record)).await;
    };
    is_deleted_and_put_back(&mut bench, change, |one, other| one == other).await;
}

pub async fn redis(kind: &str) {
    let server = RedisServer::start().await.unwrap();
    let value = "SET k:0 text\nHSET k:1 a 1 b 2\nRPUSH k:2 a b\nSADD k:3 x y\nSET k:4 soon PXAT 4102444800123\nZADD k:5 1 a\nSET other x";
    redis_keys::run(&server, value).await;
    let connections = json!({ "cache": { "type": "redis", "url": server.url() } });
    let settings = json!({ "type": kind, "connection": "cache", "pattern": "k:*" });
    let (mut bench, _) = open(connections, settings).await;
    let change = async |key: &str| redis_keys::run(&server, &format!("SET {key} changed")).await;
    is_deleted_and_put_back(&mut bench, change, |one, other| one == other).await;
}

/// The objects of a bucket, and those that are current in one that keeps versions.
pub async fn objects(kind: &str) {
    let weed = Weed::start().await.unwrap();
    for (bucket, versions) in [("plain", false), ("kept", true)] {
        let s3 = make(&weed, bucket).await;
        if versions {
            keep_versions(&s3).await;
        }
        for at in 0..7 {
            write(&s3, &format!("in/{at} ä&b"), &format!("content {at}")).await;
        }
        let settings = json!({ "type": kind, "connection": "bucket", "prefix": "in/" });
        let (mut bench, _) = open(json!({ "bucket": weed.bucket(bucket) }), settings).await;
        let change = async |key: &str| write(&s3, key, "changed").await;
        is_deleted_and_put_back(&mut bench, change, same_content).await;
    }
}

/// Every version and every delete marker; of a bucket without versions, what is there. A version never changes, and no store takes one back.
pub async fn versions(kind: &str) {
    let weed = Weed::start().await.unwrap();
    for (bucket, versions) in [("plain", false), ("kept", true)] {
        let s3 = make(&weed, bucket).await;
        if versions {
            keep_versions(&s3).await;
        }
        for key in ["a", "a", "b", "b", "c", "d", "e@x"] {
            write(&s3, key, &format!("content of {key}")).await;
        }
        s3.client().await.delete_object().bucket(bucket).key("b").send().await.unwrap();
        let settings = json!({ "type": kind, "connection": "bucket", "versions": true });
        let (mut bench, _) = open(json!({ "bucket": weed.bucket(bucket) }), settings).await;
        let all = is_scanned(&mut bench).await;
        assert_eq!(all.len(), if versions { 8 } else { 4 });
        let collection = it(&bench);
        is_deleted(&*collection, &all).await;
        let ends = collection.put(&all[..1]).await.unwrap();
        assert!(format!("{ends:?}").contains("no store takes a version back"), "{ends:?}");
        assert!(every(&*collection).await.is_empty());
    }
}
