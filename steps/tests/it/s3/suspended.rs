//! Buckets that kept versions and do so no more, delete markers without an id, and stores that do not tell.

use std::pin::Pin;
use std::sync::Arc;

use aws_sdk_s3::types::BucketVersioningStatus;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, Response};
use runbook_engine::error::ErrorKind;
use runbook_sandbox::weed::Weed;
use runbook_steps::collections::{Collection, KeyOutcome};
use runbook_steps::connections::s3::S3;
use serde_json::{Value, json};

use super::deletes::xml;
use super::deleting::kept;
use super::proxy::{Fault, First, Proxy};
use super::{keep_versions, make, objects, resources, set_versioning, write};
use crate::collections::{doomed, every, keys};

/// A store with a bucket that kept versions.
async fn suspended() -> (Weed, Arc<S3>) {
    let weed = Weed::start().await.unwrap();
    let s3 = make(&weed, "bucket").await;
    write(&s3, "old", "before any version").await;
    keep_versions(&s3).await;
    write(&s3, "old", "with an id").await;
    write(&s3, "a", "with an id").await;
    set_versioning(&s3, BucketVersioningStatus::Suspended).await;
    (weed, s3)
}

async fn plain_delete(s3: &S3, key: &str) {
    s3.client().await.delete_object().bucket(s3.bucket()).key(key).send().await.unwrap();
}

/// The bucket through a proxy.
fn through(proxy: &Proxy, weed: &Weed, settings: Value) -> Arc<dyn Collection> {
    let mut bucket = weed.bucket("bucket");
    bucket["endpoint"] = json!(proxy.url);
    resources(bucket, settings).collection("objects").unwrap()
}

fn failure(outcome: &KeyOutcome) -> (ErrorKind, &str) {
    let KeyOutcome::Failed(error) = outcome else { panic!("{outcome:?}") };
    (error.kind, &error.message)
}

#[tokio::test]
async fn a_delete_takes_what_was_written_without_versions_and_leaves_nothing_but_its_markers() {
    let (weed, s3) = suspended().await;
    write(&s3, "since", "without an id").await;
    let current = objects(&weed, "bucket", json!({}));
    let follows = current.follows().await.unwrap();
    assert!(follows[0].starts_with("the bucket kept versions before: each delete"), "{follows:?}");
    let items = every(&*current).await;
    assert_eq!(keys(&items), ["a", "old", "since"]);
    let ends = current.delete(&items.iter().map(doomed).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(ends, vec![KeyOutcome::Done; 3]);
    assert_eq!(current.count().await.unwrap(), 0);
    let mut left = kept(&s3).await;
    left.sort();
    // What `old` was before any version, and `since`, are gone for good.
    assert_eq!(left, ["a", "a marker", "old", "old marker", "since marker"]);
    let ends = current.delete(&items.iter().map(doomed).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(ends, vec![KeyOutcome::Already; 3]);
}

#[tokio::test]
async fn a_version_without_an_id_is_deleted_only_while_it_is_what_it_was() {
    let (weed, s3) = suspended().await;
    let versions = objects(&weed, "bucket", json!({ "prefix": "c", "versions": true }));
    write(&s3, "c", "first").await;
    let object = every(&*versions).await;
    plain_delete(&s3, "c").await;
    let marker = every(&*versions).await;
    assert!(keys(&object) == ["c@null"] && keys(&marker) == ["c@null"]);
    // An object that is a delete marker by now.
    let ends = versions.delete(&[doomed(&object[0])]).await.unwrap();
    let (kind, said) = failure(&ends[0]);
    assert!(kind == ErrorKind::Gate && said.contains("and is a delete marker now"), "{said}");
    // A delete marker in the place of which somebody has written an object.
    write(&s3, "c", "again").await;
    let ends = versions.delete(&[doomed(&marker[0])]).await.unwrap();
    let (kind, said) = failure(&ends[0]);
    assert!(kind == ErrorKind::Gate && said.contains("it was a delete marker and is an object"), "{said}");
    let now = every(&*versions).await;
    assert_eq!(versions.content(&now[0]).unwrap().bytes, b"again");
    // As it is now it goes, for good, and then there is nothing of either.
    assert_eq!(versions.delete(&[doomed(&now[0])]).await.unwrap(), [KeyOutcome::Done]);
    assert_eq!(versions.count().await.unwrap(), 0);
    for gone in [&object[0], &marker[0]] {
        assert_eq!(versions.delete(&[doomed(gone)]).await.unwrap(), [KeyOutcome::Already]);
    }
}

/// Removes a delete marker without an id, as AWS does and SeaweedFS does not: something is written over it before it is deleted.
struct Removes(Arc<S3>);

impl First for Removes {
    fn answer<'a>(
        &'a self,
        head: &'a Parts,
        body: &'a [u8],
    ) -> Pin<Box<dyn Future<Output = Option<Response<Body>>> + Send + 'a>> {
        Box::pin(async move {
            let asked = std::str::from_utf8(body).unwrap_or_default();
            if head.method == Method::POST && asked.contains("<VersionId>null</VersionId>") {
                write(&self.0, "c", "over the marker").await;
            }
            None
        })
    }
}

#[tokio::test]
async fn a_marker_that_stays_though_the_store_says_that_it_went_is_told() {
    let (weed, s3) = suspended().await;
    write(&s3, "c", "first").await;
    plain_delete(&s3, "c").await;
    let settings = json!({ "prefix": "c", "versions": true });
    let versions = objects(&weed, "bucket", settings.clone());
    let marker = every(&*versions).await;
    let ends = versions.delete(&[doomed(&marker[0])]).await.unwrap();
    let (kind, said) = failure(&ends[0]);
    assert_eq!(
        (kind, said),
        (ErrorKind::Refused, "the store says that it deleted `c@null`, and still lists it")
    );
    assert_eq!(every(&*versions).await, marker);
    let proxy = Proxy::after(Some(Arc::new(Removes(Arc::clone(&s3)))), &weed.url).await;
    let removed = through(&proxy, &weed, settings).delete(&[doomed(&marker[0])]).await.unwrap();
    assert_eq!((removed, versions.count().await.unwrap()), (vec![KeyOutcome::Done], 0));
}

/// What a request is answered with, when it is.
type Answer = Option<Response<Body>>;

/// Answers by the method and the query.
struct Says(fn(&Method, &str) -> Answer);

impl First for Says {
    fn answer<'a>(
        &'a self,
        head: &'a Parts,
        _: &'a [u8],
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
        let answer = (self.0)(&head.method, head.uri.query().unwrap_or_default());
        Box::pin(async move { answer })
    }
}

fn marked(method: &Method, _: &str) -> Answer {
    let answer = || Response::builder().status(405).header("x-amz-delete-marker", "true");
    (method == Method::HEAD).then(|| answer().body(Body::empty()).unwrap())
}

#[tokio::test]
async fn a_405_says_that_there_is_no_object_only_where_there_is_a_delete_marker() {
    let weed = Weed::start().await.unwrap();
    let s3 = make(&weed, "bucket").await;
    write(&s3, "a", "there").await;
    let proxy = Proxy::before(&weed.url).await;
    let current = through(&proxy, &weed, json!({ "contents": false }));
    // Whoever is in between lets nobody look.
    proxy.fault("a", Fault::Status(405));
    for error in [current.exists("a").await.unwrap_err(), current.read("a").await.unwrap_err()] {
        assert!(error.kind == ErrorKind::Refused && error.message.contains("405"), "{error:?}");
    }
    proxy.heal();
    assert!(current.exists("a").await.unwrap());
    let aws = Proxy::after(Some(Arc::new(Says(marked))), &weed.url).await;
    assert!(!through(&aws, &weed, json!({ "contents": false })).exists("a").await.unwrap());

    // AWS answers so when it is asked for a marker by its id.
    keep_versions(&s3).await;
    write(&s3, "a", "with an id").await;
    plain_delete(&s3, "a").await;
    let versions = through(&proxy, &weed, json!({ "contents": false, "versions": true }));
    let items = every(&*versions).await;
    assert_eq!(items.len(), 3);
    proxy.fault("a", Fault::Status(405));
    for item in &items {
        let (read, marker) = (versions.read(&item.key).await, item.record["delete_marker"] == json!(true));
        match read {
            Ok(found) => assert!(marker && found.as_ref() == Some(item), "{found:?}"),
            Err(error) => assert!(!marker && error.message.contains("405"), "{error:?}"),
        }
        // Neither is it gone, nor is it deleted unseen.
        let ends = versions.delete(&[doomed(item)]).await.unwrap();
        match marker {
            true => assert_eq!(ends, [KeyOutcome::Done]),
            false => assert_eq!(failure(&ends[0]).0, ErrorKind::Refused),
        }
    }
    assert_eq!(versions.count().await.unwrap(), 2);
}

fn denied(method: &Method, query: &str) -> Answer {
    let asks = method == Method::GET && query.split('&').any(|part| part.starts_with("versioning"));
    asks.then(|| xml(403, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"))
}

#[tokio::test]
async fn who_may_not_ask_for_the_versioning_deletes_without_a_trial_and_is_told() {
    let (weed, s3) = suspended().await;
    write(&s3, "since", "without an id").await;
    let plain = make(&weed, "plain").await;
    write(&plain, "b", "there").await;
    let proxy = Proxy::after(Some(Arc::new(Says(denied))), &weed.url).await;
    let current = through(&proxy, &weed, json!({}));
    let follows = current.follows().await.unwrap();
    assert!(follows[0].contains("can not be told"), "{follows:?}");
    let items = every(&*current).await;
    write(&s3, "a", "changed meanwhile").await;
    let ends = current.delete(&items.iter().map(doomed).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(failure(&ends[0]).0, ErrorKind::Gate, "{ends:?}");
    assert_eq!(ends[1..], [KeyOutcome::Done, KeyOutcome::Done]);
    // Nothing was written to find out how the store deletes.
    assert_eq!(proxy.writes(), ["POST /bucket/"]);
    // Where no version was ever kept what is there is known by no id.
    let mut bucket = weed.bucket("plain");
    bucket["endpoint"] = json!(proxy.url);
    let versions = resources(bucket, json!({ "versions": true })).collection("objects").unwrap();
    let items = every(&*versions).await;
    assert_eq!(keys(&items), ["b@null"]);
    assert_eq!(versions.delete(&[doomed(&items[0])]).await.unwrap(), [KeyOutcome::Done]);
    assert_eq!(kept(&plain).await, [] as [String; 0]);
}
