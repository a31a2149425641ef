//! The rows of queries, on three databases.

use std::sync::Arc;

use runbook_engine::error::ErrorKind;
use runbook_steps::collections::{Change, Collection, Doomed, Expected};
use serde_json::{Value, json};

use super::{doomed, every, is_scanned, keys, open};
use crate::common::{Bench, planned};
use crate::databases::Db;

/// All rows of a table, by way of a query with a parameter.
pub async fn of_table(db: &Db, kind: &str, table: &str, key: &str, count: usize) {
    let key: Vec<&str> = key.split(", ").map(|name| name.trim_matches('"')).collect();
    let query = format!("select * from {table} where note <> {} -- all of them;", db.place(1));
    let settings =
        json!({ "type": kind, "connection": "db", "query": query, "parameters": ["none"], "key": key });
    let (mut bench, _) = open(db.connections(), settings).await;
    assert_eq!(is_scanned(&mut bench).await.len(), count, "{table}");
}

/// A query over two tables, with a computed column.
fn pets(db: &Db) -> Value {
    let query = format!(
        "select o.id, o.name, count(p.id) as pets, max(p.id) as last from owners o left join pets p on p.owner = o.id \
         where o.id > {} and o.name <> {} group by o.id, o.name",
        db.place(1),
        db.place(2)
    );
    json!({ "type": "sql-rows", "connection": "db", "query": query, "parameters": [0, "nobody"], "key": "id" })
}

async fn with(db: &Db, more: Value) -> (Bench, Arc<dyn Collection>) {
    let mut settings = pets(db);
    for (name, value) in more.as_object().unwrap() {
        settings[name] = value.clone();
    }
    open(db.connections(), settings).await
}

/// What a query can be asked, and what it refuses.
pub async fn of_several_tables(db: &Db) {
    db.execute(
        "create table owners (id bigint primary key, name varchar(20)); \
         create table pets (id integer primary key, owner bigint); \
         insert into owners values (0, 'out'), (1, 'ada'), (2, 'bob'), (9007199254740993, 'cyd'), (4, 'ada'), (5, 'nobody'); \
         insert into pets values (1, 1), (2, 1), (3, 2)",
    )
    .await;
    let (mut bench, all) = with(db, json!({})).await;
    let items = is_scanned(&mut bench).await;
    assert_eq!(keys(&items), ["1", "2", "4", "9007199254740993"]);
    let number = |number: u32| match db.dialect() {
        runbook_steps::connections::sql::Dialect::Sqlite => json!(number),
        _ => json!(number.to_string()),
    };
    assert_eq!(items[0].record["pets"], number(2));
    assert_eq!(all.find(&[("name", "ada")], 10).await.unwrap().len(), 2);
    assert!(all.describe().contains("rows of `select o.id"), "{}", all.describe());
    assert_eq!(all.follows().await.unwrap(), [] as [String; 0]);
    let (_bench, some) = with(db, json!({ "where": { "pets": { "gte": 1 }, "name": "bob" } })).await;
    assert_eq!((keys(&every(&*some).await), some.count().await.unwrap()), (vec!["2".to_owned()], 1));
    let (_bench, none) = with(db, json!({ "parameters": [9_007_199_254_740_993_i64, "x"] })).await;
    assert_eq!((every(&*none).await.len(), none.count().await.unwrap()), (0, 0));
    // It is only read.
    let change = Change {
        key: "1".to_owned(),
        expected: Expected::Version(items[0].version.clone().unwrap()),
        set: [("name".to_owned(), runbook_steps::collections::NewValue::Value(json!("x")))].into(),
    };
    for error in [
        all.delete(&[doomed(&items[0]), Doomed::whatever("2")]).await.unwrap_err(),
        all.put(&items[..1]).await.unwrap_err(),
        all.update(&[change]).await.unwrap_err(),
    ] {
        assert!(error.kind == ErrorKind::Invalid && error.message.contains("only read"), "{error}");
        assert!(error.help.unwrap().contains("name the `table`"));
    }
    assert_eq!(every(&*all).await, items);
    refusals(db).await;
    steps(db).await;
}

async fn refusals(db: &Db) {
    for (more, said) in [
        (json!({ "key": "name" }), "`name` does not tell the rows of"),
        (json!({ "key": "last" }), "rows without a value in their key"),
        (json!({ "key": "nothing" }), "has no column `nothing`"),
        (json!({ "parameters": [0] }), "takes 2 parameters and is given 1"),
        (json!({ "query": "select 1 as id, 2 as id", "parameters": [] }), "gives two columns `id`"),
        (json!({ "query": "select id from nowhere", "parameters": [] }), "nowhere"),
    ] {
        let (_bench, wrong) = with(db, more.clone()).await;
        let error = wrong.count().await.unwrap_err();
        assert!(error.to_string().contains(said), "{more}: {error}");
    }
}

/// Steps that read a collection read a query.
async fn steps(db: &Db) {
    let collections = json!({
        "pets": pets(db),
        "seldom": {
            "type": "sql-rows", "connection": "db", "key": "id",
            "query": "select id, owner from pets union all select 100 as id, 77 as owner",
        },
    });
    let references = json!([{ "name": "owner", "field": "owner", "holds": "key" }]);
    let steps = vec![
        planned("count", "count", json!({ "collections": ["pets"], "expect": 4 })),
        planned("listed", "snapshot", json!({ "collection": "pets", "page_size": 3 })),
        planned(
            "right",
            "reconcile",
            json!({ "collection": "seldom", "against": "pets", "action": "report", "references": references }),
        ),
    ];
    let bench = Bench::new(steps, db.connections(), collections).await;
    bench.enter("count").await.unwrap();
    let listed = bench.enter("listed").await.unwrap();
    assert_eq!(bench.records(&listed["manifest"]).len(), 4);
    let found = bench.enter("right").await.unwrap();
    assert_eq!((&found["checked"], &found["missing"]), (&json!(4), &json!(1)), "{found}");
    assert_eq!(found["examples"][0]["target"], "77");
}
