//! What `backup` says to type to have a database back, typed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use runbook_engine::error::ErrorKind;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tempfile::TempDir;

use crate::backup::{TABLES, bench, numbers, typed, with};
use crate::common::{Bench, planned};
use crate::databases::Db;

#[tokio::test]
async fn the_way_back_brings_back_whatever_a_database_holds_with_everybodys_rights() {
    let db = Db::postgres().await;
    db.execute(TABLES).await;
    db.execute(
        "create role app_user login; grant select on all tables in schema public to app_user; \
         create schema extensions; create extension pgcrypto schema extensions; \
         create schema only_types; create type only_types.t as (a integer); \
         create schema only_functions; create function only_functions.one() returns integer language sql return 1; \
         create schema only_views; create view only_views.v as select 1 as one; \
         create schema only_parents; create table only_parents.p (id integer) partition by range (id); \
         select lo_from_bytea(4711, 'large'); create publication everything for all tables; \
         create foreign data wrapper nothing; alter database app set work_mem = '5MB'",
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.dump");
    let outputs = bench(&db, with(&file, json!({ "probe": "db" }))).await.enter("save").await.unwrap();
    let restore = outputs["restore"].as_str().unwrap();
    db.execute("drop table \"Ring\" cascade; drop schema other cascade; create table later (id integer)")
        .await;

    // A file that can not be restored leaves what was there.
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert!(!Command::new("sh").args(["-c", restore]).status().unwrap().success());
    assert_eq!(numbers(&db, "select count(*) as n from later").await, json!(0));
    fs::write(&file, whole).unwrap();

    // Somebody who is connected does not keep it from being done.
    let held = db.held().await;
    typed(restore);
    drop(held);
    assert_eq!(numbers(&db, "select count(*) as n from \"Ring\"").await, json!(2));
    for (what, number) in [
        ("select only_functions.one() as n", 1),
        ("select one as n from only_views.v", 1),
        ("select count(*) as n from pg_publication", 1),
        ("select length(lo_get(4711)) as n", 5),
        ("select count(*) as n from pg_foreign_data_wrapper", 1),
        ("select length(extensions.digest('a', 'sha256')) as n", 32),
        ("select count(*) as n from pg_class where relname = 'later'", 0),
        (
            "select (has_table_privilege('app_user', '\"Ring\"', 'select') and has_schema_privilege('app_user', 'public', 'usage'))::int as n",
            1,
        ),
        (
            "select count(*) as n from pg_namespace where nspname = 'public' and nspowner::regrole::text = 'pg_database_owner'",
            1,
        ),
        ("select (current_setting('work_mem') = '5MB')::int as n", 1),
        ("select count(*) as n from pg_database where datname like 'app_was_%'", 1),
    ] {
        assert_eq!(numbers(&db, what).await, json!(number), "{what}");
    }
}

/// A database with tables in it, and its backup: the folder in which that is `app.dump`, and the outputs.
async fn saved() -> (Db, TempDir, Value) {
    let db = Db::postgres().await;
    db.execute(TABLES).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.dump");
    let outputs = bench(&db, with(&file, json!({}))).await.enter("save").await.unwrap();
    (db, folder, outputs)
}

/// Puts what is there aside, as the way back does.
const RENAME: &str = "alter database app rename to app_mid_MARK";

#[tokio::test]
async fn the_way_back_that_was_cut_off_is_typed_again_and_done_only_once() {
    let (db, folder, outputs) = saved().await;
    let restore = outputs["restore"].as_str().unwrap();
    db.execute("drop table \"Ring\" cascade").await;
    let mark = &outputs["sha256"].as_str().unwrap()[..8];

    // As it stands when the shell went away: before the renaming, just after it, and in the middle of the restore.
    let begun = folder.path().join("app.dump.restoring");
    for half in [&["select 1"][..], &[RENAME], &[RENAME, "create database app"]] {
        fs::write(&begun, "").unwrap();
        for statement in half {
            db.execute_elsewhere(&statement.replace("MARK", mark)).await;
        }
        typed(restore);
        assert!(!begun.exists(), "{half:?}");
        assert_eq!(numbers(&db, "select count(*) as n from \"Ring\"").await, json!(2), "{half:?}");
        let kept = "select count(*) as n from pg_database where datname like 'app_was_%'";
        assert_eq!(numbers(&db, kept).await, json!(1), "{half:?}");

        // What was written since stays.
        db.execute("insert into \"Ring\" values (3, 'since', null)").await;
        let again = Command::new("sh").args(["-c", restore]).output().unwrap();
        let said = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(!again.status.success() && said.contains("it was restored before"), "{said}");
        assert_eq!(numbers(&db, "select count(*) as n from \"Ring\"").await, json!(3), "{half:?}");
        db.execute_elsewhere(&format!("drop database app_was_{mark} with (force)")).await;
    }
    // What stood in its name may have been whole, and in use: it is put aside.
    let half = "select count(*) as n from pg_database where datname ~ '^app_half_[0-9]{14}$'";
    assert_eq!(numbers(&db, half).await, json!(1));
}

/// A program of PostgreSQL in this folder that does so before the real one is run; the line with it.
fn in_place_of(program: &str, does: &str, folder: &Path, line: &str) -> String {
    let (place, path) = (folder.join(program), std::env::var("PATH").unwrap());
    fs::write(&place, format!("#!/bin/sh\n{does}\nPATH='{path}' exec {program} \"$@\"\n")).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    format!("PATH='{}':\"$PATH\"; {line}", folder.display())
}

/// What is said when this is typed, and whether it went well.
fn told(line: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    let said = [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned());
    (output.status.success(), said.concat())
}

#[tokio::test]
async fn what_was_restored_stays_when_the_last_step_of_the_way_back_fails() {
    let (db, folder, outputs) = saved().await;
    let restore = outputs["restore"].as_str().unwrap();
    db.execute("drop table \"Ring\" cascade").await;
    // As when somebody mistypes the password the last time it is asked for.
    let calls = folder.path().join("calls").display().to_string();
    let does = format!("echo >>'{calls}'; test $(wc -l <'{calls}') = 3 && exit 2");
    let (well, said) = told(&in_place_of("psql", &does, folder.path(), restore));
    assert!(well && said.contains("restored; what was there is in the database app_mid_"), "{said}");
    db.execute("insert into \"Ring\" values (3, 'since', null)").await;
    // Typed again it does what was left, and what was written since stays.
    let (well, said) = told(restore);
    assert!(well && said.contains("restored; what was there is in the database app_was_"), "{said}");
    assert_eq!(numbers(&db, "select count(*) as n from \"Ring\"").await, json!(3));
    assert!(!folder.path().join("app.dump.restoring").exists());
    let aside = "select count(*) as n from pg_database where datname ~ '^app_(was|mid|half)_'";
    assert_eq!(numbers(&db, aside).await, json!(1));
}

#[tokio::test]
async fn a_database_that_is_gone_is_brought_back_and_once_more_when_it_goes_again() {
    let (db, _folder, outputs) = saved().await;
    let restore = outputs["restore"].as_str().unwrap();
    for name in ["app_was_", "app_half_"] {
        db.execute_elsewhere("drop database app with (force)").await;
        let (well, said) = told(restore);
        let kept = format!("restored; what was there is in the database {name}");
        assert!(well && said.contains(&kept) && !said.contains("as well"), "{said}");
        assert_eq!(numbers(&db, "select count(*) as n from \"Ring\"").await, json!(2));
    }
    let (well, said) = told(restore);
    assert!(
        !well && said.contains("it was restored before") && said.contains("another name first"),
        "{said}"
    );
}

#[tokio::test]
async fn what_was_begun_elsewhere_is_not_taken_for_whole() {
    let (db, folder, outputs) = saved().await;
    let restore = outputs["restore"].as_str().unwrap();
    let mark = &outputs["sha256"].as_str().unwrap()[..8];
    for statement in [RENAME, "create database app"] {
        db.execute_elsewhere(&statement.replace("MARK", mark)).await;
    }
    let (well, said) = told(restore);
    assert!(!well && said.contains("whether app is whole is not known here"), "{said}");
    assert!(!folder.path().join("app.dump.restoring").exists());
    db.execute_elsewhere("alter database app rename to found_half").await;
    typed(restore);
    assert_eq!(numbers(&db, "select count(*) as n from \"Ring\"").await, json!(2));
}

#[tokio::test]
async fn a_way_back_that_fails_leaves_and_names_what_was_there() {
    let (db, folder, outputs) = saved().await;
    let restore = outputs["restore"].as_str().unwrap();
    db.execute("create table later (id integer)").await;
    let as_it_was = async |said: &str| {
        assert_eq!(numbers(&db, "select count(*) as n from later").await, json!(0), "{said}");
        assert!(!folder.path().join("app.dump.restoring").exists(), "{said}");
    };

    // Whole, and of this database, but another one.
    let file = folder.path().join("app.dump");
    let whole = fs::read(&file).unwrap();
    let other = folder.path().join("other.dump");
    bench(&db, with(&other, json!({}))).await.enter("save").await.unwrap();
    fs::copy(&other, &file).unwrap();
    let (well, said) = told(restore);
    assert!(
        !well && said.contains("NOT restored: the backup is not there, or is not as it was made"),
        "{said}"
    );
    as_it_was(&said).await;
    fs::write(&file, whole).unwrap();

    // Another one goes on with it.
    let held = fs::File::open(&file).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let (well, said) = told(restore);
    assert!(!well && said.contains("NOT restored: another process is at it"), "{said}");
    as_it_was(&said).await;
    drop(held);

    // Somebody makes the database while its name is free.
    let does = "while [ \"$1\" != --create ]; do options=\"$options $1\"; shift; done; \
        psql $options --quiet --command='create database app'; exit 1";
    let (well, said) = told(&in_place_of("pg_restore", does, folder.path(), restore));
    assert!(!well && said.contains("NOT restored: what was there is in its place again"), "{said}");
    assert!(said.contains("put aside as well, and not dropped: the database app_half_"), "{said}");
    as_it_was(&said).await;
}

#[tokio::test]
async fn what_was_cut_off_after_an_earlier_way_back_is_not_taken_for_restored() {
    let (db, folder, outputs) = saved().await;
    let restore = outputs["restore"].as_str().unwrap();
    typed(restore);
    let begun = folder.path().join("app.dump.restoring");
    // Gone meanwhile, and killed in the middle, or failed: it is there, with nothing in it.
    for killed in [true, false] {
        db.execute_elsewhere("drop database app with (force)").await;
        if killed {
            fs::write(&begun, "begun\n").unwrap();
            db.execute_elsewhere("create database app").await;
        } else {
            let (well, said) = told(&in_place_of("pg_restore", "exit 1", folder.path(), restore));
            assert!(!well && said.contains("what was there is in its place again"), "{said}");
            let (well, said) = told(restore);
            assert!(!well && said.contains("What is in app now may be something else"), "{said}");
            db.execute_elsewhere("drop database app with (force)").await;
        }
        typed(restore);
        assert_eq!(numbers(&db, "select count(*) as n from \"Ring\"").await, json!(2), "{killed}");
    }
}

#[tokio::test]
async fn a_backup_that_is_lost_after_it_was_cut_off_moves_nothing() {
    let (db, folder, outputs) = saved().await;
    let restore = outputs["restore"].as_str().unwrap();
    let mark = &outputs["sha256"].as_str().unwrap()[..8];
    let (file, begun) = (folder.path().join("app.dump"), folder.path().join("app.dump.restoring"));
    let whole = fs::read(&file).unwrap();
    fs::write(&begun, "begun\n").unwrap();
    for statement in [RENAME, "create database app"] {
        db.execute_elsewhere(&statement.replace("MARK", mark)).await;
    }
    for lost in [Some(&whole[..whole.len() / 2]), None] {
        match lost {
            Some(part) => fs::write(&file, part).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let (well, said) = told(restore);
        assert!(!well && said.contains("is not there, or is not as it was made"), "{said}");
        assert!(said.contains(&format!("give app another name, and app_mid_{mark} the name app")), "{said}");
        let names = "select count(*) as n from pg_database where datname ~ '^app'";
        assert_eq!((numbers(&db, names).await, begun.exists()), (json!(2), true));
    }
    fs::write(&file, whole).unwrap();
    typed(restore);
    assert_eq!(numbers(&db, "select count(*) as n from \"Ring\"").await, json!(2));
}

#[tokio::test]
async fn what_can_not_be_noted_and_what_another_backup_has_begun_are_told() {
    let (db, folder, outputs) = saved().await;
    let restore = outputs["restore"].as_str().unwrap();
    let begun = folder.path().join("app.dump.restoring");
    // Another backup of it was being brought back.
    db.execute_elsewhere("create database app_mid_00000000").await;
    let (well, said) = told(restore);
    assert!(!well && said.contains("in the database app_mid_00000000, which is to have its name"), "{said}");
    assert!(!begun.exists());
    db.execute_elsewhere("drop database app_mid_00000000").await;

    // The disk is full when all of it is there, and then the server is away.
    let noted = begun.display();
    let line = in_place_of("pg_restore", &format!("rm '{noted}'; mkdir '{noted}'"), folder.path(), restore);
    let calls = folder.path().join("calls").display().to_string();
    let does = format!("echo >>'{calls}'; test $(wc -l <'{calls}') = 3 && exit 2");
    let (well, said) = told(&in_place_of("psql", &does, folder.path(), &line));
    assert!(well && said.contains("do NOT type the same again"), "{said}");
    assert_eq!(numbers(&db, "select count(*) as n from \"Ring\"").await, json!(2));
}

#[tokio::test]
async fn a_way_back_that_its_user_can_not_go_is_no_backup() {
    let db = Db::postgres().await;
    db.execute("create role plain login password 'pw'; create role apart; create table kept (id integer)")
        .await;
    let folder = tempfile::tempdir().unwrap();
    let mut connections = db.connections();
    connections["db"]["user"] = json!("plain");
    connections["db"]["password"] = json!("pw");
    let taken = async |name: &str| {
        let with = with(&folder.path().join(name), json!({ "probe": "db" }));
        let steps = vec![planned("save", "backup", with)];
        Bench::new(steps, connections.clone(), json!({})).await.enter("save").await
    };
    let refused = async |parts: &[&str]| {
        let error = taken("refused.dump").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Gate, "{error}");
        assert!(parts.iter().all(|part| error.message.contains(part)), "{parts:?}: {error}");
    };
    refused(&["plain may not create databases", "plain does not own the database", "can make nothing for"])
        .await;
    db.execute(
        "alter role plain createdb; alter database app owner to plain; alter table kept owner to apart",
    )
    .await;
    refused(&["can make nothing for apart"]).await;
    db.execute("grant apart to plain").await;
    refused(&["apart, who owns a part of the schema public, may have nothing in it"]).await;
    db.execute(
        "create schema of_its_own authorization apart; alter table kept set schema of_its_own; \
        alter database app set log_min_duration_statement = 500",
    )
    .await;
    refused(&["may not set log_min_duration_statement"]).await;
    db.execute("alter database app reset log_min_duration_statement").await;
    let held = db.held().await;
    refused(&["can not disconnect"]).await;
    drop(held);
    assert!(!folder.path().join("refused.dump").exists());
    let outputs = taken("good.dump").await.unwrap();
    db.execute("drop table of_its_own.kept").await;
    let restore = format!("export PGPASSWORD=pw; {}", outputs["restore"].as_str().unwrap());
    // Who is there and can not be disconnected is named.
    let held = db.held().await;
    let (well, said) = told(&restore);
    assert!(!well && said.contains("could not be put aside") && said.contains(" of runbook"), "{said}");
    assert!(!folder.path().join("good.dump.restoring").exists());
    drop(held);
    // What another user is doing is hidden from who may end it all the same.
    db.execute("create role user_of_it login password 'pw'; grant pg_signal_backend to plain").await;
    let mut held = db.held_by("user_of_it").await;
    typed(&restore);
    assert!(held.ping().await.is_err());
    assert_eq!(numbers(&db, "select count(*) as n from of_its_own.kept").await, json!(0));
    let owner = "select (tableowner = 'apart')::int as n from pg_tables where tablename = 'kept'";
    assert_eq!(numbers(&db, owner).await, json!(1));
}
