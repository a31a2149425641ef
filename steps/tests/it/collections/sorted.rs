//! Keys that a database may sort otherwise than it compares them, and keys that are not one row's alone.

use std::collections::BTreeSet;

use runbook_engine::error::ErrorKind;
use serde_json::{Value, json};

use super::{every, keys, open};
use crate::databases::Db;

/// Every row is listed once, in pages, whatever the key is.
async fn is_whole(db: &Db, settings: Value, count: usize) {
    let mut whole = json!({ "type": "sql-rows", "connection": "db" });
    for (name, value) in settings.as_object().unwrap() {
        whole[name] = value.clone();
    }
    let (_bench, collection) = open(db.connections(), whole).await;
    let all = keys(&every(&*collection).await);
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (count, count), "{settings}");
}

async fn refused(db: &Db, settings: Value) -> String {
    let mut whole = json!({ "type": "sql-rows", "connection": "db" });
    for (name, value) in settings.as_object().unwrap() {
        whole[name] = value.clone();
    }
    let (_bench, collection) = open(db.connections(), whole).await;
    let error = collection.scan(None, 10).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error:?}");
    error.message
}

#[tokio::test]
async fn keys_of_mariadb_that_are_sorted_by_a_number_are_listed_whole() {
    let db = Db::mariadb().await;
    db.execute(
        "create table k_enum (a enum('z','a','m') collate utf8mb4_bin, b int, primary key (a, b)); \
         insert into k_enum select elt(1 + seq % 3, 'z', 'a', 'm'), seq from seq_1_to_250; \
         create table k_set (a set('z','a','é') character set latin1, b int, primary key (b, a)); \
         insert into k_set select seq % 8, seq div 8 from seq_0_to_249; \
         create table k_one (a enum('z','a','Z','é','b','c') collate utf8mb4_bin primary key); \
         insert into k_one values ('z'), ('a'), ('Z'), ('é'), ('b'), ('c'); \
         create table k_uuid (a uuid primary key); \
         insert into k_uuid select uuid() from seq_1_to_250; \
         create table k_address (a inet6 primary key); \
         insert into k_address select concat('::', hex(seq * 251)) from seq_1_to_250; \
         create table k_year (a year, b bit(9), primary key (a, b)); \
         insert into k_year select 1999 + seq % 3, seq from seq_1_to_250; \
         create table k_time (a time(3) primary key); \
         insert into k_time select sec_to_time((cast(seq as signed) - 125) * 9007.5) from seq_1_to_250; \
         create table k_long (a varchar(700) primary key); \
         insert into k_long select concat(repeat('x', 690), 1000 + seq) from seq_1_to_250; \
         create table k_text (a text unique not null); \
         insert into k_text values ('a'); \
         create table k_json (a int primary key, b json not null, c longtext not null); \
         insert into k_json values (1, '{}', 'c')",
    )
    .await;
    for (table, key, count) in [
        ("k_enum", json!(["a", "b"]), 250),
        ("k_set", json!(["a", "b"]), 250),
        ("k_one", json!("a"), 6),
        ("k_uuid", json!("a"), 250),
        ("k_address", json!("a"), 250),
        ("k_year", json!(["a", "b"]), 250),
        ("k_time", json!("a"), 250),
        ("k_long", json!("a"), 250),
    ] {
        is_whole(&db, json!({ "table": table, "key": key }), count).await;
        is_whole(&db, json!({ "query": format!("select * from {table}"), "key": key }), count).await;
    }
    let told = refused(&db, json!({ "table": "k_text", "key": "a" })).await;
    assert!(told.contains("`a`") && told.contains("of type text"), "{told}");
    let told = refused(&db, json!({ "query": "select a, c from k_json", "key": "c" })).await;
    assert!(told.contains("`c`") && told.contains("text"), "{told}");
}

#[tokio::test]
async fn a_table_of_postgresql_that_others_inherit_from_is_refused_by_name() {
    let db = Db::postgres().await;
    db.execute(
        "create table parents (id int primary key, note text); \
         create table heirs () inherits (parents); \
         insert into parents values (1, 'a'), (2, 'b'); insert into heirs values (2, 'c'); \
         create table parted (id int primary key) partition by range (id); \
         create table part_1 partition of parted for values from (0) to (100); \
         create table part_2 partition of parted for values from (100) to (1000); \
         insert into parted select * from generate_series(0, 249); \
         create schema ext; create extension citext schema ext; \
         create table folded (id ext.citext primary key); \
         insert into folded values ('a'), ('B'), ('c')",
    )
    .await;
    let told = refused(&db, json!({ "table": "parents" })).await;
    assert!(told.contains("heirs"), "{told}");
    is_whole(&db, json!({ "query": "select id, note from only parents", "key": "id" }), 2).await;
    is_whole(&db, json!({ "table": "parted" }), 250).await;
    // Its own `>` is out of reach, and that of `text` would be taken in its place.
    let told = refused(&db, json!({ "table": "folded" })).await;
    assert!(told.contains("citext"), "{told}");
    db.execute("alter role current_user set search_path = public, ext").await;
    is_whole(&db, json!({ "table": "folded" }), 3).await;
}
