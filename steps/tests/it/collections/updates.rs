//! Rows changed in some of their columns, on three databases.

use runbook_engine::error::ErrorKind;
use runbook_steps::collections::{Change, Expected, Item, KeyOutcome, NewValue};
use runbook_steps::connections::sql::Dialect;
use serde_json::{Value, json};

use super::sql::ask;
use super::{every, open};
use crate::common::{Bench, planned};
use crate::databases::Db;

fn change(key: &str, expected: Expected, set: &Value) -> Change {
    let value = |value: &Value| match value {
        Value::Object(_) => NewValue::Now,
        value => NewValue::Value(value.clone()),
    };
    let set = set.as_object().unwrap().iter().map(|(name, to)| (name.clone(), value(to))).collect();
    Change { key: key.to_owned(), expected, set }
}

/// As it was read.
fn as_read(item: &Item, set: &Value) -> Change {
    change(&item.key, Expected::Version(item.version.clone().unwrap()), set)
}

fn holding(key: &str, fields: &Value, set: &Value) -> Change {
    change(key, Expected::Fields(fields.as_object().unwrap().clone()), set)
}

/// Whether it was left, for a reason in which this is said.
fn left(end: &KeyOutcome, kind: ErrorKind, said: &str) -> bool {
    matches!(end, KeyOutcome::Failed(error) if error.kind == kind && error.message.contains(said))
}

/// A row that is not as it was is left alone; the others are changed, whatever the database counts as changed.
pub async fn rows(db: &Db) {
    db.execute(
        "create table marked (id integer primary key, state varchar(20), note varchar(50), slot integer unique, \
           changed timestamp null); \
         insert into marked (id, state) values (1, 'ready'), (2, 'ready'), (3, 'ready'), (4, 'ready'), (5, 'ready'), \
           (6, 'ready'), (7, 'out'), (8, 'error'), (9, 'ready')",
    )
    .await;
    let settings = json!({
        "type": "sql-rows", "connection": "db", "table": "marked", "where": { "state": ["ready", "error"] },
    });
    let (_bench, collection) = open(db.connections(), settings).await;
    let items = every(&*collection).await;
    let of = |id: &str| items.iter().find(|item| item.key == id).unwrap();
    // Meanwhile: somebody else writes to 2, 3 is gone, and 4 is what it is to be already, with something else beside.
    db.execute(
        "update marked set note = 'mine' where id = 2; delete from marked where id = 3; \
         update marked set state = 'error', note = 'lost', slot = 4 where id = 4; \
         update marked set state = 'out' where id = 9",
    )
    .await;
    let lost = json!({ "state": "error", "note": "lost", "changed": { "now": true } });
    let ends = collection
        .update(&[
            as_read(of("1"), &lost),
            as_read(of("2"), &lost),
            as_read(of("3"), &lost),
            as_read(of("4"), &lost),
            holding("5", &json!({ "state": "ready", "note": null }), &lost),
            holding("6", &json!({ "state": "queued" }), &lost),
            holding("7", &json!({ "state": "out" }), &lost),
            // Nothing of it but the note is another value.
            as_read(of("8"), &lost),
            as_read(of("9"), &lost),
        ])
        .await
        .unwrap();
    let gate = ErrorKind::Gate;
    assert_eq!([&ends[0], &ends[4], &ends[7]], [&KeyOutcome::Done; 3], "{ends:?}");
    assert_eq!(ends[3], KeyOutcome::Already);
    assert!(
        left(&ends[1], gate, "holds other values") && left(&ends[2], gate, "its row is gone"),
        "{ends:?}"
    );
    assert!(left(&ends[5], gate, "it does not hold what it should"), "{ends:?}");
    assert!(left(&ends[6], gate, "`where` does not hold") && left(&ends[8], gate, "`where`"), "{ends:?}");
    let state =
        "select id, concat_ws(' ', state, note) as held, changed is null as never from marked order by id";
    let held: Vec<Value> = ask(db, state).await.as_array().unwrap().clone();
    let texts: Vec<&str> = held.iter().map(|row| row["held"].as_str().unwrap()).collect();
    assert_eq!(
        texts,
        ["error lost", "ready mine", "error lost", "error lost", "ready", "out", "error lost", "out"]
    );
    let changed: Vec<i64> = held
        .iter()
        .filter(|row| [json!(0), json!(false)].contains(&row["never"]))
        .map(|row| row["id"].as_i64().unwrap())
        .collect();
    assert_eq!(changed, [1, 5, 8]);
    same_values(db, &*collection).await;
}

/// An update to what is there already changes nothing, and is told as what it is, whatever the database counts.
async fn same_values(db: &Db, collection: &dyn runbook_steps::collections::Collection) {
    let items = every(collection).await;
    let lost = json!({ "state": "error", "note": "lost" });
    let again: Vec<Change> = ["1", "4", "5", "8"].map(|id| holding(id, &json!({}), &lost)).to_vec();
    assert_eq!(collection.update(&again).await.unwrap(), vec![KeyOutcome::Already; 4]);
    assert_eq!(every(collection).await, items);
    let with = json!({
        "connection": "db", "statement": "update marked set note = note where note = 'lost'",
        "effect": { "class": "write", "repeat": "repeatable" },
    });
    let bench = Bench::new(vec![planned("same", "sql", with)], db.connections(), json!({})).await;
    assert_eq!(
        bench.enter("same").await.unwrap()["affected"],
        4,
        "rows that were found, as in every database"
    );
    // Of two that a constraint refuses together, the first is changed.
    let slot = json!({ "slot": 1, "note": null });
    let ends =
        collection.update(&[holding("1", &json!({}), &slot), holding("5", &json!({}), &slot)]).await.unwrap();
    assert_eq!(ends[0], KeyOutcome::Done);
    assert!(matches!(&ends[1], KeyOutcome::Failed(error) if error.kind == ErrorKind::Refused), "{ends:?}");
    if db.dialect() == Dialect::MySql {
        db.execute("create trigger keep before update on marked for each row set new.state = old.state")
            .await;
        let ends =
            collection.update(&[holding("8", &json!({}), &json!({ "state": "ready" }))]).await.unwrap();
        assert!(left(&ends[0], ErrorKind::Refused, "a trigger"), "{ends:?}");
    }
}
