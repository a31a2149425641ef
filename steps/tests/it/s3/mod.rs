//! S3 against a real store.

mod deletes;
mod deleting;
mod inventory;
mod lifecycle;
mod lifecycle_of_others;
mod odd_names;
pub mod proxy;
mod suspended;

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use futures_util::{StreamExt as _, stream};
use runbook_engine::error::{ErrorKind, Outcome, StepError};
use runbook_engine::redact::Redactor;
use runbook_steps::collections::{Collection, Doomed, Item, KeyOutcome};
use runbook_steps::connections::s3::S3;
use runbook_steps::kind::{NoVault, Vault};
use runbook_steps::resources::Resources;
use serde_json::{Map, Value, json};

use runbook_sandbox::weed::Weed;

/// The connection `bucket`, and the collection `objects` of these settings on it.
fn resources(bucket: Value, settings: Value) -> Resources {
    let mut collection = json!({ "type": "s3-objects", "connection": "bucket" });
    for (key, value) in settings.as_object().unwrap() {
        collection[key] = value.clone();
    }
    let one = |name: &str, value: Value| Map::from_iter([(name.to_owned(), value)]);
    let vault: Arc<dyn Vault> = Arc::new(NoVault);
    Resources::open(&one("bucket", bucket), &one("objects", collection), &Redactor::default(), &vault)
        .unwrap()
}

fn objects(weed: &Weed, bucket: &str, settings: Value) -> Arc<dyn Collection> {
    resources(weed.bucket(bucket), settings).collection("objects").unwrap()
}

/// The client of a bucket that is made now.
pub async fn make(weed: &Weed, bucket: &str) -> Arc<S3> {
    let s3 = resources(weed.bucket(bucket), json!({})).connection::<S3>("bucket").unwrap();
    s3.client().await.create_bucket().bucket(bucket).send().await.unwrap();
    s3
}

/// From now on the bucket keeps versions.
pub async fn keep_versions(s3: &S3) {
    set_versioning(s3, BucketVersioningStatus::Enabled).await;
}

/// From now on the bucket treats versions so.
pub async fn set_versioning(s3: &S3, status: BucketVersioningStatus) {
    let versioned = VersioningConfiguration::builder().status(status).build();
    let request = s3.client().await.put_bucket_versioning().bucket(s3.bucket());
    request.versioning_configuration(versioned).send().await.unwrap();
}

/// Writes an object.
pub async fn write(s3: &S3, key: &str, text: &str) {
    let request = s3.client().await.put_object().bucket(s3.bucket()).key(key);
    request.body(text.as_bytes().to_vec().into()).send().await.unwrap();
}

/// Everything from a cursor on.
async fn rest(
    of: &dyn Collection,
    mut cursor: Option<Value>,
    limit: usize,
) -> (Vec<Item>, Vec<Option<Value>>) {
    let (mut items, mut cursors) = (Vec::new(), Vec::new());
    loop {
        let page = of.scan(cursor.as_ref(), limit).await.unwrap();
        assert!(!page.moved && page.items.len() <= limit);
        items.extend(page.items);
        cursors.push(page.next.clone());
        match page.next {
            Some(next) => cursor = Some(next),
            None => return (items, cursors),
        }
    }
}

fn keys(items: &[Item]) -> Vec<&str> {
    items.iter().map(|item| item.key.as_str()).collect()
}

/// Keys that are easily got wrong: signs of URLs and XML, folders beside their names, other alphabets.
const ODD: &[&str] = &[
    "in/a",
    "in/a-b",
    "in/a/b",
    "in/a b",
    "in/a+b",
    "in/a%2Fb",
    "in/a&<b>",
    "in/ä/ü",
    "in/日本",
    "in/a'\"b",
    "in/a=b?c#d",
    "in/A",
];

#[tokio::test]
async fn objects_are_scanned_from_any_place_deleted_by_the_thousand_and_put_back() {
    let weed = Weed::start().await.unwrap();
    let s3 = make(&weed, "first").await;
    for key in ODD {
        write(&s3, key, &format!("content of {key}")).await;
    }
    for at in 0..40 {
        write(&s3, &format!("in/many/{at:03}"), &at.to_string()).await;
    }
    write(&s3, "input/other", "beside the folder").await;
    let all = objects(&weed, "first", json!({ "prefix": "in/" }));
    assert_eq!(all.describe(), format!("objects below in/ of s3://first at {}", weed.url));
    assert_eq!(all.count().await.unwrap(), 52);
    let (items, cursors) = rest(&*all, None, 7).await;
    let found: BTreeSet<&str> = keys(&items).into_iter().collect();
    assert_eq!((items.len(), found.len()), (52, 52), "each once");
    assert!(ODD.iter().all(|key| found.contains(key)), "{found:?}");
    // From any cursor, as after a crash, and with another size of page.
    for (at, cursor) in cursors.iter().enumerate().filter(|(_, cursor)| cursor.is_some()) {
        let (later, _) = rest(&*all, cursor.clone(), 5).await;
        assert_eq!(keys(&later), keys(&items[(at + 1) * 7..]), "from page {at}");
    }
    put_back(&all, &s3, &items).await;
    changed_ones_are_left(&all, &s3).await;
    a_thousand_at_a_time(&weed, &s3).await;
    versions(&weed).await;
    refusals(&weed).await;
}

async fn put_back(all: &Arc<dyn Collection>, s3: &S3, items: &[Item]) {
    let request = s3.client().await.put_object().bucket(s3.bucket()).key("in/rich").content_type("image/png");
    let request = request.metadata("owner", "ada").cache_control("no-store").tagging("tier=gold&a=b%26c");
    request.body(vec![0, 159, 146, 150].into()).send().await.unwrap();
    let rich = all.read("in/rich").await.unwrap().unwrap();
    assert_eq!(all.content(&rich).unwrap().bytes, [0, 159, 146, 150]);
    assert_eq!(rich.record["tags"], json!({ "a": "b&c", "tier": "gold" }));
    let mut whole = items.to_vec();
    whole.push(rich);
    let doomed: Vec<_> =
        whole.iter().map(|item| Doomed { key: item.key.clone(), expected: item.version.clone() }).collect();
    assert_eq!(all.delete(&doomed).await.unwrap(), vec![KeyOutcome::Done; 53]);
    assert_eq!(all.count().await.unwrap(), 0);
    assert_eq!(all.delete(&doomed[..2]).await.unwrap(), vec![KeyOutcome::Already; 2]);
    assert_eq!(all.put(&whole).await.unwrap(), vec![KeyOutcome::Done; 53]);
    assert_eq!(all.put(&whole[..2]).await.unwrap(), vec![KeyOutcome::Already; 2]);
    let (again, _) = rest(&**all, None, 1000).await;
    let bare = |item: &Item| {
        let mut record = item.record.clone();
        record.as_object_mut().unwrap().remove("modified_at");
        (item.key.clone(), record)
    };
    let (mut before, mut after): (Vec<_>, Vec<_>) =
        (whole.iter().map(bare).collect(), again.iter().map(bare).collect());
    before.sort_by(|a, b| a.0.cmp(&b.0));
    after.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(before, after, "as they were, with headers, metadata and tags");
}

async fn changed_ones_are_left(all: &Arc<dyn Collection>, s3: &S3) {
    let (items, _) = rest(&**all, None, 1000).await;
    let doomed: Vec<_> = ["in/a", "in/many/001", "in/many/002"]
        .map(|key| items.iter().find(|item| item.key == key).unwrap())
        .map(|item| Doomed { key: item.key.clone(), expected: item.version.clone() })
        .to_vec();
    write(s3, "in/a", "changed meanwhile").await;
    let outcomes = all.delete(&doomed).await.unwrap();
    let KeyOutcome::Failed(error) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert!(
        error.kind == ErrorKind::Gate && error.message.contains("changed since the snapshot"),
        "{error:?}"
    );
    assert_eq!(outcomes[1..], [KeyOutcome::Done, KeyOutcome::Done]);
    assert_eq!(all.read("in/a").await.unwrap().unwrap().record["bytes"], 17);
    let outside = all.delete(&[Doomed::whatever("input/other")]).await.unwrap();
    assert!(
        matches!(&outside[0], KeyOutcome::Failed(error) if error.kind == ErrorKind::Refused),
        "{outside:?}"
    );
    let taken = Item { record: items[0].record.clone(), ..all.read("in/a").await.unwrap().unwrap() };
    write(s3, "in/a", "again").await;
    assert!(matches!(&all.put(&[taken]).await.unwrap()[0], KeyOutcome::Failed(_)), "nothing is overwritten");
}

async fn a_thousand_at_a_time(weed: &Weed, s3: &S3) {
    let bare = objects(weed, "first", json!({ "prefix": "big/", "contents": false }));
    let client = s3.client().await;
    let puts = stream::iter(0..2300).map(|at| {
        client.put_object().bucket("first").key(format!("big/{at:05}")).body(vec![b'x'].into()).send()
    });
    let put: Vec<bool> = puts.buffered(32).map(|end| end.is_ok()).collect().await;
    assert!(put.iter().all(|put| *put));
    assert_eq!(bare.count().await.unwrap(), 2300);
    let (items, _) = rest(&*bare, None, 1000).await;
    assert_eq!(items.len(), 2300);
    assert!(bare.content(&items[0]).is_err(), "a record without contents can not be put back");
    for page in items.chunks(bare.max_batch()) {
        let doomed: Vec<_> = page.iter().map(|item| Doomed::whatever(&item.key)).collect();
        assert!(bare.delete(&doomed).await.unwrap().iter().all(|outcome| *outcome == KeyOutcome::Done));
    }
    assert_eq!(bare.count().await.unwrap(), 0);
}

async fn versions(weed: &Weed) {
    let s3 = make(weed, "kept").await;
    let client = s3.client().await;
    keep_versions(&s3).await;
    write(&s3, "a", "one").await;
    write(&s3, "a", "two").await;
    client.delete_object().bucket("kept").key("a").send().await.unwrap();
    write(&s3, "b", "one").await;
    let current = objects(weed, "kept", json!({}));
    assert_eq!(current.count().await.unwrap(), 1);
    let every = objects(weed, "kept", json!({ "versions": true }));
    let (items, _) = rest(&*every, None, 2).await;
    assert_eq!(items.len(), 4, "{:?}", keys(&items));
    assert_eq!(items.iter().filter(|item| item.record.get("delete_marker").is_some()).count(), 1);
    let old = items
        .iter()
        .find(|item| item.key.starts_with("a@") && item.record.get("content") == Some(&json!("b25l")));
    assert!(old.is_some(), "{items:?}");
    let doomed: Vec<_> =
        items.iter().map(|item| Doomed { key: item.key.clone(), expected: item.version.clone() }).collect();
    assert_eq!(every.delete(&doomed).await.unwrap(), vec![KeyOutcome::Done; 4]);
    assert_eq!(every.count().await.unwrap(), 0);
    assert!(matches!(&every.put(&items[..1]).await.unwrap()[0], KeyOutcome::Failed(_)));
}

async fn refusals(weed: &Weed) {
    let failed = async |settings: Value| -> StepError {
        resources(settings, json!({})).collection("objects").unwrap().count().await.unwrap_err()
    };
    let mut wrong = weed.bucket("first");
    wrong["secret_key"] = json!("not-the-secret");
    let error = failed(wrong).await;
    assert!(error.kind == ErrorKind::Refused && error.message.contains("SignatureDoesNotMatch"), "{error:?}");
    assert!(error.help.as_deref().is_some_and(|help| help.contains("keys of the connection")), "{error:?}");
    let error = failed(weed.bucket("nowhere")).await;
    assert!(error.kind == ErrorKind::Refused && error.message.contains("NoSuchBucket"), "{error:?}");
    let mut closed = weed.bucket("first");
    closed["endpoint"] = json!("http://127.0.0.1:9");
    let error = failed(closed).await;
    assert_eq!((error.kind, error.outcome), (ErrorKind::Transient, Outcome::Unknown), "{error:?}");
    assert!(!format!("{error:?}").contains("runbook-test-secret"));
}
