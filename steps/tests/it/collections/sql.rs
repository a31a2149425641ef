//! The rows of three databases.

use runbook_engine::error::ErrorKind;
use runbook_steps::collections::{Doomed, Item, KeyOutcome};
use serde_json::{Value, json};

use super::{doomed, every, is_deleted_and_put_back, is_scanned, keys, open};
use super::{queries, updates};
use crate::common::Bench;
use crate::databases::Db;

/// Tables whose keys are of every type, with a column `note` each.
async fn tables_of_keys(db: &Db, kind: &str, tables: &[(&str, &str, &str, usize)]) {
    for (number, (columns, key, values, count)) in tables.iter().enumerate() {
        let table = format!("keys_{number}");
        db.execute(&format!("create table {table} ({columns}, note varchar(50), primary key ({key}))")).await;
        db.execute(&format!("insert into {table} values {values}")).await;
        let settings = json!({ "type": kind, "connection": "db", "table": table });
        let (mut bench, collection) = open(db.connections(), settings).await;
        assert_eq!(collection.count().await.unwrap(), *count as u64, "{table}");
        let change = async |_: &str| {
            db.execute(&format!("update {table} set note = 'changed' where note = 'n1'")).await;
        };
        // The first in order is the one that changes.
        is_deleted_and_put_back(&mut bench, change, |one, other| one == other).await;
        queries::of_table(db, kind, &table, key, *count).await;
    }
}

/// The rows of the table `wide` are deleted and put back; then the database finds that they are as they were.
async fn comes_back_bit_by_bit(db: &Db, fingerprint: &str) {
    let (mut bench, collection) =
        open(db.connections(), json!({ "type": "sql-rows", "connection": "db", "table": "wide" })).await;
    let before = ask(db, fingerprint).await;
    let all = is_scanned(&mut bench).await;
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

/// The rows of a statement.
pub async fn ask(db: &Db, statement: &str) -> Value {
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

pub async fn postgres(kind: &str) {
    let db = Db::postgres().await;
    let uuid = |last: char| format!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1{last}");
    let uuids: Vec<_> = "123456".chars().map(|last| format!("('{}', 'n{last}')", uuid(last))).collect();
    let texts = r#"('', 'n0'), ('a,b', 'n2'), ('A''s \ "x"', 'n1'), ('é', 'n4'), ('z', 'n5')"#;
    let many = "(1, 'b', 'n2'), (1, 'a', 'n1'), (9007199254740993, '', 'n3'), (9007199254740993, 'x', 'n4'), (9007199254740992, 'q', 'n5')";
    tables_of_keys(
        &db,
        kind,
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
    db.execute(include_str!("../wide/postgres.sql")).await;
    comes_back_bit_by_bit(
        &db,
        "select encode(sha256(string_agg(record_send(everything), '' order by id)), 'hex') as all_of_it from wide everything",
    )
    .await;
    settings(&db).await;
    queries::of_several_tables(&db).await;
    updates::rows(&db).await;
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

pub async fn mariadb(kind: &str) {
    let db = Db::mariadb().await;
    tables_of_keys(
        &db,
        kind,
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
    db.execute(include_str!("../wide/mariadb.sql")).await;
    let columns = "id a b c d e f g h i j k l m n".split(' ');
    let equal: Vec<_> =
        columns.map(|name| format!("hex(w.{name}) <=> hex(o.{name}) and w.{name} <=> o.{name}")).collect();
    let equal = format!("select count(*) as equal from wide w join original o on {}", equal.join(" and "));
    assert_eq!(ask(&db, &equal).await, json!([{ "equal": 4 }]));
    comes_back_bit_by_bit(&db, &equal).await;
    settings(&db).await;
    queries::of_several_tables(&db).await;
    updates::rows(&db).await;
}

pub async fn sqlite(kind: &str) {
    let db = Db::sqlite().await;
    tables_of_keys(
        &db,
        kind,
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
    queries::of_several_tables(&db).await;
    updates::rows(&db).await;
}
