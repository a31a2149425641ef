//! What holds of every collection, held against each.

mod held;
mod queries;
mod sorted;
mod sql;
mod updates;

use std::collections::BTreeSet;
use std::sync::Arc;

use runbook_engine::error::ErrorKind;
use runbook_steps::catalog;
use runbook_steps::collections::{Collection, Doomed, Item, KeyOutcome};
use serde_json::{Value, json};

use crate::common::Bench;

/// A collection on a bench of its own.
pub async fn open(connections: Value, settings: Value) -> (Bench, Arc<dyn Collection>) {
    let bench = Bench::new(Vec::new(), connections, json!({ "it": settings })).await;
    let collection = it(&bench);
    (bench, collection)
}

/// The collection of a bench.
fn it(bench: &Bench) -> Arc<dyn Collection> {
    bench.context("none").resources.collection("it").unwrap()
}

/// All items, page by page, with the cursor behind each page.
async fn pages(collection: &dyn Collection, size: usize) -> Vec<(Vec<Item>, Option<Value>)> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = collection.scan(cursor.as_ref(), size).await.unwrap();
        assert!(page.items.len() <= size && !page.moved);
        // A cursor is kept as text.
        cursor = page.next.map(|next| serde_json::from_str(&next.to_string()).unwrap());
        all.push((page.items, cursor.clone()));
        if cursor.is_none() {
            return all;
        }
    }
}

/// All items.
pub async fn every(collection: &dyn Collection) -> Vec<Item> {
    pages(collection, 100).await.into_iter().flat_map(|(items, _)| items).collect()
}

/// The keys of items.
pub fn keys(items: &[Item]) -> Vec<String> {
    items.iter().map(|item| item.key.clone()).collect()
}

/// An item that is to go while it is as it is.
pub fn doomed(item: &Item) -> Doomed {
    Doomed { key: item.key.clone(), expected: item.version.clone() }
}

/// A scan sees each item once, from the beginning and, in another process, from any place that an earlier one came to; an item is read by its
/// key.
async fn is_scanned(bench: &mut Bench) -> Vec<Item> {
    let collection = it(bench);
    let all = every(&*collection).await;
    let distinct: BTreeSet<_> = keys(&all).into_iter().collect();
    assert_eq!((distinct.len(), all.len() as u64), (all.len(), collection.count().await.unwrap()));
    assert!(all.len() >= 4, "too few to test with");
    for size in [1, 2, 3] {
        let pages = pages(&*collection, size).await;
        let seen: Vec<Item> = pages.iter().flat_map(|(items, _)| items.clone()).collect();
        assert_eq!(seen, all, "pages of {size}");
        let mut before = 0;
        for (items, cursor) in &pages {
            before += items.len();
            let Some(cursor) = cursor else { continue };
            bench.reopen_resources();
            let next = it(bench).scan(Some(cursor), 100).await.unwrap();
            assert_eq!(keys(&next.items), keys(&all[before..]), "from {cursor}");
        }
    }
    for item in &all {
        assert_eq!(collection.read(&item.key).await.unwrap().as_ref(), Some(item));
        assert!(collection.exists(&item.key).await.unwrap());
    }
    all
}

/// Items go in batches, each once: what is gone needs nothing. Afterwards there are none.
async fn is_deleted(collection: &dyn Collection, all: &[Item]) {
    let (first, rest) = all.split_at(all.len() / 2);
    let batch = |items: &[Item]| items.iter().map(doomed).collect::<Vec<_>>();
    assert!(all.iter().all(|item| item.version.is_some()), "a version each");
    assert_eq!(collection.delete(&batch(first)).await.unwrap(), vec![KeyOutcome::Done; first.len()]);
    let ends = collection.delete(&batch(all)).await.unwrap();
    // S3 does not say of a delete marker whether it was there.
    let marker = |item: &Item| item.record.get("delete_marker").is_some();
    let again = |item| if marker(item) { KeyOutcome::Done } else { KeyOutcome::Already };
    let gone: Vec<KeyOutcome> = first.iter().map(again).collect();
    assert_eq!(ends, [gone, vec![KeyOutcome::Done; rest.len()]].concat());
    assert_eq!(collection.count().await.unwrap(), 0);
    assert_eq!(every(collection).await, []);
    assert_eq!(collection.read(&all[0].key).await.unwrap(), None);
}

/// An item that changed is not deleted, one that did not is, one that is gone needs nothing; what went comes back as it was.
async fn is_deleted_and_put_back(
    bench: &mut Bench,
    change: impl AsyncFn(&str),
    same: impl Fn(&Item, &Item) -> bool,
) {
    let all = is_scanned(bench).await;
    let collection = it(bench);
    let (stale, going, again) = (&all[0], &all[1], &all[2]);
    change(&stale.key).await;
    collection.delete(&[doomed(again)]).await.unwrap();
    let ends = collection.delete(&[doomed(stale), doomed(going), doomed(again)]).await.unwrap();
    assert!(matches!(&ends[0], KeyOutcome::Failed(error) if error.kind == ErrorKind::Gate), "{ends:?}");
    assert_eq!(ends[1..], [KeyOutcome::Done, KeyOutcome::Already]);
    assert!(collection.read(&stale.key).await.unwrap().is_some());
    assert_eq!(collection.read(&going.key).await.unwrap(), None);
    assert_eq!(collection.count().await.unwrap(), all.len() as u64 - 2);
    let ends = collection.put(&[going.clone(), again.clone()]).await.unwrap();
    assert_eq!(ends, [KeyOutcome::Done, KeyOutcome::Done]);
    for item in [going, again] {
        let back = collection.read(&item.key).await.unwrap().unwrap();
        assert!(same(item, &back), "{item:?}\n{back:?}");
    }
    // Whatever is there goes when nothing is expected of it.
    let ends = collection.delete(&[Doomed::whatever(&stale.key)]).await.unwrap();
    assert_eq!(ends, [KeyOutcome::Done]);
    collection.put(std::slice::from_ref(stale)).await.unwrap();
    let all = every(&*collection).await;
    is_deleted(&*collection, &all).await;
    assert_eq!(collection.put(&all).await.unwrap(), vec![KeyOutcome::Done; all.len()]);
    assert_eq!(keys(&every(&*collection).await), keys(&all));
}

/// One test for each place where collections of a type are, and the types that there are tests of.
macro_rules! held {
    ($($kind:literal: $($test:ident),+;)+) => {
        /// The types of collections that the tests here are about.
        const HELD: &[&str] = &[$($kind),+];
        $($(
            #[tokio::test]
            async fn $test() {
                held::$test($kind).await;
            }
        )+)+
    };
}

held! {
    "files": files;
    "fountainstore-documents": documents;
    "redis-keys": redis;
    "s3-objects": objects, versions;
    "sql-rows": postgres, mariadb, sqlite;
}

#[test]
fn every_type_of_collection_is_held_to_this() {
    let there: Vec<&str> = catalog::COLLECTIONS.iter().map(|entry| entry.info.name).collect();
    assert_eq!(there, HELD, "a type without tests here, or tests of a type that is none");
}
