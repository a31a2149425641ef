//! What holds of every collection, held against each.

use std::collections::BTreeSet;
use std::sync::Arc;

use runbook_engine::error::ErrorKind;
use runbook_sandbox::redis::RedisServer;
use runbook_steps::collections::{Collection, Doomed, Item, KeyOutcome};
use serde_json::{Value, json};

use crate::common::Bench;
use crate::databases::Db;
use crate::fountain;
use crate::redis_keys;

/// A collection on a bench of its own.
pub async fn open(connections: Value, settings: Value) -> (Bench, Arc<dyn Collection>) {
    let bench = Bench::new(Vec::new(), connections, json!({ "it": settings })).await;
    let collection = bench.context("none").resources.collection("it").unwrap();
    (bench, collection)
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

/// A scan sees each item once, from the beginning and from any place that an earlier one came to; an item is read by its key.
async fn is_scanned(collection: &dyn Collection) -> Vec<Item> {
    let all = every(collection).await;
    let distinct: BTreeSet<_> = keys(&all).into_iter().collect();
    assert_eq!((distinct.len(), all.len() as u64), (all.len(), collection.count().await.unwrap()));
    assert!(all.len() >= 4, "too few to test with");
    for size in [1, 2, 3] {
        let pages = pages(collection, size).await;
        let seen: Vec<Item> = pages.iter().flat_map(|(items, _)| items.clone()).collect();
        assert_eq!(seen, all, "pages of {size}");
        let mut before = 0;
        for (items, cursor) in &pages {
            before += items.len();
            let Some(cursor) = cursor else { continue };
            let next = collection.scan(Some(cursor), 100).await.unwrap();
            assert_eq!(keys(&next.items), keys(&all[before..]), "from {cursor}");
        }
    }
    for item in &all {
        assert_eq!(collection.read(&item.key).await.unwrap().as_ref(), Some(item));
    }
    all
}

/// An item that changed is not deleted, one that did not is, one that is gone needs nothing; what went comes back as it was.
async fn is_deleted_and_put_back(
    collection: &dyn Collection,
    change: impl AsyncFn(&str),
    same: impl Fn(&Item, &Item) -> bool,
) {
    let all = is_scanned(collection).await;
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
}

#[tokio::test]
async fn files() {
    let folder = tempfile::tempdir().unwrap();
    for at in 0..7 {
        std::fs::write(folder.path().join(format!("{at}.log")), format!("content {at}")).unwrap();
    }
    let connections = json!({ "there": { "type": "directory", "path": folder.path() } });
    let (_bench, collection) = open(connections, json!({ "type": "files", "connection": "there" })).await;
    let change = async |key: &str| std::fs::write(folder.path().join(key), "changed").unwrap();
    let content = |item: &Item| item.record["content"].clone();
    is_deleted_and_put_back(&*collection, change, |one, other| content(one) == content(other)).await;
}

#[tokio::test]
async fn documents() {
    let chatkit = fountain::start(7, 0).await;
    let settings = fountain::collections()["metadata"].clone();
    let (_bench, collection) = open(fountain::connections(&chatkit), settings).await;
    let change = async |key: &str| {
        let mut record = collection.read(key).await.unwrap().unwrap().record;
        record["fileName"] = json!("changed");
        fountain::change(&chatkit, "PUT", "attachment-metadata", key, Some(&record)).await;
    };
    is_deleted_and_put_back(&*collection, change, |one, other| one == other).await;
}

#[tokio::test]
async fn redis() {
    let server = RedisServer::start().await.unwrap();
    let value = "SET k:0 text\nHSET k:1 a 1 b 2\nRPUSH k:2 a b\nSADD k:3 x y\nSET k:4 soon PXAT 4102444800123\nZADD k:5 1 a\nSET other x";
    redis_keys::run(&server, value).await;
    let (_bench, collection) = redis_keys::keys_of(&server, "k:*").await;
    let change = async |key: &str| redis_keys::run(&server, &format!("SET {key} changed")).await;
    is_deleted_and_put_back(&*collection, change, |one, other| one == other).await;
}

/// Tables whose keys are of every type, with a column `note` each.
async fn tables_of_keys(db: &Db, tables: &[(&str, &str, &str, usize)]) {
    for (number, (columns, key, values, count)) in tables.iter().enumerate() {
        let table = format!("keys_{number}");
        db.execute(&format!("create table {table} ({columns}, note varchar(50), primary key ({key}))")).await;
        db.execute(&format!("insert into {table} values {values}")).await;
        let settings = json!({ "type": "sql-rows", "connection": "db", "table": table });
        let (_bench, collection) = open(db.connections(), settings).await;
        assert_eq!(collection.count().await.unwrap(), *count as u64, "{table}");
        let change = async |_: &str| {
            db.execute(&format!("update {table} set note = 'changed' where note = 'n1'")).await;
        };
        // The first in order is the one that changes.
        is_deleted_and_put_back(&*collection, change, |one, other| one == other).await;
    }
}

/// The rows of the table `wide` are deleted and put back; then the database finds that they are as they were.
async fn comes_back_bit_by_bit(db: &Db, fingerprint: &str) {
    let (_bench, collection) =
        open(db.connections(), json!({ "type": "sql-rows", "connection": "db", "table": "wide" })).await;
    let before = ask(db, fingerprint).await;
    let all = is_scanned(&*collection).await;
    let text = serde_json::to_string(&all.iter().map(|item| &item.record).collect::<Vec<_>>()).unwrap();
    let records: Vec<Value> = serde_json::from_str(&text).unwrap();
    let items: Vec<Item> =
        all.iter().zip(records).map(|(item, record)| Item { record, ..item.clone() }).collect();
    let ends = collection.delete(&all.iter().map(doomed).collect::<Vec<_>>()).await.unwrap();
    assert!(ends.iter().all(|end| *end == KeyOutcome::Done), "{ends:?}");
    assert_eq!(collection.count().await.unwrap(), 0);
    let ends = collection.put(&items).await.unwrap();
    assert!(ends.iter().all(|end| *end == KeyOutcome::Done), "{ends:?}");
    assert_eq!(ask(db, fingerprint).await, before);
    let ends = collection.put(&items).await.unwrap();
    assert!(ends.iter().all(|end| *end == KeyOutcome::Already), "{ends:?}");
    // One that is there with other values is left.
    db.execute("update wide set note = 'other'").await;
    let ends = collection.put(&items[..1]).await.unwrap();
    let refused =
        |end: &KeyOutcome| matches!(end, KeyOutcome::Failed(error) if error.message.contains("`note`"));
    assert!(refused(&ends[0]), "{ends:?}");
}

async fn ask(db: &Db, statement: &str) -> Value {
    let with = json!({ "connection": "db", "statement": statement });
    let bench =
        Bench::new(vec![crate::common::planned("ask", "sql", with)], db.connections(), json!({})).await;
    bench.enter("ask").await.unwrap()["rows"].clone()
}

/// What `where`, `columns` and `version` come to, and what a constraint of one row means for the others.
async fn settings(db: &Db) {
    db.execute(
        "create table parents (id integer primary key, state varchar(20), rev integer not null); \
         create table children (id integer primary key, parent integer not null references parents (id)); \
         insert into parents values (1, 'new', 1), (2, 'old', 1), (3, null, 1), (4, 'old', 1), (5, 'odd', 1); \
         insert into children values (1, 2)",
    )
    .await;
    let of = async |more: Value| {
        let mut settings = json!({ "type": "sql-rows", "connection": "db", "table": "parents" });
        for (name, value) in more.as_object().unwrap() {
            settings[name] = value.clone();
        }
        open(db.connections(), settings).await
    };
    for (wanted, found) in [
        (json!({ "state": "old" }), "2,4"),
        (json!({ "state": ["old", null] }), "2,3,4"),
        (json!({ "state": null }), "3"),
        (json!({ "state": { "not": "old" } }), "1,3,5"),
        (json!({ "state": { "like": "o%" }, "id": { "gte": 3, "lt": 5 } }), "4"),
        (json!({ "state": [] }), ""),
        (json!({ "state": "x' or '1' = '1" }), ""),
    ] {
        let (_bench, collection) = of(json!({ "where": wanted })).await;
        assert_eq!(keys(&every(&*collection).await).join(","), found, "{wanted}");
    }
    let (_bench, old) =
        of(json!({ "where": { "state": "old" }, "version": "rev", "columns": ["state"] })).await;
    let all = every(&*old).await;
    assert_eq!(all[0].record, json!({ "state": "old" }));
    db.execute("update parents set state = 'new' where id = 4").await;
    let ends = old.delete(&[doomed(&all[0]), doomed(&all[1]), Doomed::whatever("3")]).await.unwrap();
    let failed = |end: &KeyOutcome| match end {
        KeyOutcome::Failed(error) => error.kind,
        end => panic!("{end:?}"),
    };
    // The first has a child; the others are not of the collection.
    assert_eq!(
        ends.iter().map(failed).collect::<Vec<_>>(),
        [ErrorKind::Refused, ErrorKind::Gate, ErrorKind::Gate]
    );
    assert!(old.put(&all[..1]).await.is_err(), "some columns are no row");
    let (_bench, any) = of(json!({})).await;
    let ends = any.delete(&["2", "3", "5"].map(Doomed::whatever)).await.unwrap();
    assert_eq!(
        (failed(&ends[0]), &ends[1..]),
        (ErrorKind::Refused, &[KeyOutcome::Done, KeyOutcome::Done][..])
    );
    let found = any.find(&[("state", "new")], 10).await.unwrap();
    assert_eq!(found.len(), 2);

    let (_bench, loose) = of(json!({ "key": "state" })).await;
    assert!(loose.count().await.unwrap_err().message.contains("no unique index"));
    let (_bench, none) = of(json!({ "table": "nowhere" })).await;
    assert!(none.count().await.unwrap_err().message.contains("there is no table"));
}

#[tokio::test]
async fn postgres() {
    let db = Db::postgres().await;
    let uuid = |last: char| format!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1{last}");
    let uuids: Vec<_> = "123456".chars().map(|last| format!("('{}', 'n{last}')", uuid(last))).collect();
    let texts = r#"('', 'n0'), ('a,b', 'n2'), ('A''s \ "x"', 'n1'), ('é', 'n4'), ('z', 'n5')"#;
    let many = "(1, 'b', 'n2'), (1, 'a', 'n1'), (9007199254740993, '', 'n3'), (9007199254740993, 'x', 'n4'), (9007199254740992, 'q', 'n5')";
    tables_of_keys(
        &db,
        &[
            ("k uuid", "k", &uuids.join(", "), 6),
            ("k bigint", "k", "(9007199254740993, 'n3'), (9007199254740992, 'n2'), (-5, 'n1'), (10, 'n4')", 4),
            ("k text collate \"C\"", "k", &texts.replace("('', 'n0'), ", ""), 4),
            ("a bigint, \"B b\" text", "a, \"B b\"", many, 5),
            ("k timestamptz", "k", "('2026-01-01 00:00:00.000001Z', 'n1'), ('2026-01-01 00:00:00.000002Z', 'n2'), ('2026-01-01 01:00Z', 'n3'), ('infinity', 'n4')", 4),
            ("k numeric(30,2)", "k", "(1.10, 'n1'), (12345678901234567890123456.78, 'n2'), (2, 'n3'), (3, 'n4')", 4),
        ],
    )
    .await;
    db.execute(include_str!("wide/postgres.sql")).await;
    comes_back_bit_by_bit(
        &db,
        "select encode(sha256(string_agg(record_send(everything), '' order by id)), 'hex') as all_of_it from wide everything",
    )
    .await;
    settings(&db).await;
    // Rows that a policy hides are no rows that are not there.
    db.execute(
        "create role reader login; grant select on parents to reader; alter table parents enable row level security",
    )
    .await;
    let mut connections = db.connections();
    connections["db"]["user"] = json!("reader");
    let settings = json!({ "type": "sql-rows", "connection": "db", "table": "parents" });
    let (_bench, hidden) = open(connections, settings).await;
    assert!(hidden.count().await.unwrap_err().message.contains("row-level security"));
}

#[tokio::test]
async fn mariadb() {
    let db = Db::mariadb().await;
    tables_of_keys(
        &db,
        &[
            ("k bigint unsigned", "k", "(18446744073709551615, 'n3'), (9007199254740993, 'n2'), (5, 'n1'), (10, 'n4')", 4),
            ("k varchar(20)", "k", "('A', 'n1'), ('b', 'n2'), ('C''\\\\', 'n3'), ('é', 'n4')", 4),
            ("a bigint, b varchar(10)", "a, b", "(1, 'b', 'n2'), (1, 'a', 'n1'), (9007199254740993, 'x', 'n4'), (9007199254740992, 'q', 'n5')", 4),
            ("k binary(16)", "k", "(x'00', 'n1'), (x'01ff', 'n2'), (x'02', 'n3'), (x'ff', 'n4')", 4),
            ("k datetime(6)", "k", "('2026-01-01 00:00:00.000001', 'n1'), ('2026-01-01 00:00:00.000002', 'n2'), ('2027-01-01', 'n3'), ('2028-01-01', 'n4')", 4),
            ("k decimal(30,2)", "k", "(1.10, 'n1'), (12345678901234567890123456.78, 'n2'), (2, 'n3'), (3, 'n4')", 4),
        ],
    )
    .await;
    db.execute(include_str!("wide/mariadb.sql")).await;
    let columns = "id a b c d e f g h i j k l m n".split(' ');
    let equal: Vec<_> =
        columns.map(|name| format!("hex(w.{name}) <=> hex(o.{name}) and w.{name} <=> o.{name}")).collect();
    let equal = format!("select count(*) as equal from wide w join original o on {}", equal.join(" and "));
    assert_eq!(ask(&db, &equal).await, json!([{ "equal": 4 }]));
    comes_back_bit_by_bit(&db, &equal).await;
    settings(&db).await;
}

#[tokio::test]
async fn sqlite() {
    let db = Db::sqlite().await;
    tables_of_keys(
        &db,
        &[
            (
                "k integer",
                "k",
                "(9007199254740993, 'n3'), (9007199254740992, 'n2'), (-5, 'n1'), (10, 'n4')",
                4,
            ),
            ("k text", "k", "('10', 'n2'), ('1', 'n1'), ('x''ff''', 'n4'), ('é', 'n3')", 4),
            (
                "a integer, b text",
                "a, b",
                "(1, '2', 'n2'), (1, '1', 'n1'), (2, '1', 'n4'), (2, '3', 'n5')",
                4,
            ),
            ("k blob", "k", "(x'00', 'n1'), (x'01ff', 'n2'), (x'02', 'n3'), (x'ff', 'n4')", 4),
        ],
    )
    .await;
    db.execute(
        "create table wide (id integer primary key, a, b real, c text, d blob, note text, twice generated always as (id * 2)); \
         insert into wide values (1, 5, 0.1, 'it''s', x'00ff', null), (2, '5', -0.0, '', x'', 'n'), \
         (3, 9e999, 1e-320, char(10, 233), 'text in a blob', ''), (4, 9223372036854775807, 0.30000000000000004, null, zeroblob(10), 'n')",
    )
    .await;
    let each = ["a", "b", "c", "d", "note"]
        .map(|name| format!("typeof({name}) || quote({name})"))
        .join(" || ',' || ");
    comes_back_bit_by_bit(&db, &format!("select id, {each} as row from wide order by id")).await;
    settings(&db).await;
}
