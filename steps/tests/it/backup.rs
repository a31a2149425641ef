//! `backup` on a real PostgreSQL.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use runbook_engine::drive::Purpose;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::state::RunStatus;
use runbook_engine::step::Intent;
use runbook_sandbox::weed::Weed;
use runbook_steps::catalog;
use runbook_steps::connections::s3::S3;
use runbook_steps::digest::sha256;
use serde_json::{Value, json};

use crate::common::{Bench, planned};
use crate::databases::Db;
use crate::driven::Driven;
use crate::s3::make;
use crate::s3::proxy::{First, Proxy};

pub(crate) const TABLES: &str = "create type mood as enum ('sad', 'ok'); create table \"Ring\" (id integer primary key, name text, m mood); \
    create schema other; create table other.\"two words\" (id integer); create table parts (id integer) partition by range (id); \
    create table parts_low partition of parts for values from (0) to (10); create view names as select name from \"Ring\"; \
    insert into \"Ring\" values (1, 'it''s the root', 'ok'), (2, 'second', 'sad'); insert into other.\"two words\" values (5); \
    insert into parts values (1), (2), (3)";

pub(crate) fn with(file: &Path, more: Value) -> Value {
    let mut with = json!({ "connection": "db", "file": file });
    for (name, value) in more.as_object().unwrap() {
        with[name] = value.clone();
    }
    with
}

pub(crate) async fn bench(db: &Db, with: Value) -> Bench {
    Bench::new(vec![planned("save", "backup", with)], db.connections(), json!({})).await
}

pub(crate) async fn fails(db: &Db, with: Value) -> StepError {
    bench(db, with).await.enter("save").await.unwrap_err()
}

pub(crate) async fn numbers(db: &Db, statement: &str) -> Value {
    let with = json!({ "connection": "db", "statement": statement });
    let bench = Bench::new(vec![planned("ask", "sql", with)], db.connections(), json!({})).await;
    bench.enter("ask").await.unwrap()["rows"][0]["n"].clone()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Runs a command as it is told to a person.
pub(crate) fn typed(line: &str) {
    let run = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

#[tokio::test]
async fn a_backup_is_taken_once_and_brings_everything_back() {
    let db = Db::postgres().await;
    db.execute(TABLES).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.dump");
    let bench = bench(&db, with(&file, json!({ "probe": "db" }))).await;
    let outputs = bench.run("save", 1).await.unwrap();
    let rows = json!({ "public.Ring": 2, "other.two words": 1, "public.parts_low": 3 });
    assert_eq!((&outputs["rows"], &outputs["probed"]), (&rows, &json!(true)));
    assert_eq!(outputs["tables"], json!(["other.two words", "public.Ring", "public.parts_low"]));
    let bytes = fs::read(&file).unwrap();
    assert_eq!((&outputs["sha256"], &outputs["bytes"]), (&json!(sha256(&bytes)), &json!(bytes.len())));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // Neither an unfinished file nor the database of the probe is left.
    let program = folder.path().join("app.dump.restore.sh");
    assert_eq!(files(folder.path()), vec![file.clone(), program.clone()]);
    assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(outputs["restore"], format!("sh {}", program.display()));
    assert_eq!(outputs["restore_program"], fs::read_to_string(&program).unwrap());
    let probes = "select count(*) as n from pg_database where datname like 'runbook%'";
    assert_eq!(numbers(&db, probes).await, json!(0));

    // Entered again it gives the same, and a new run writes nothing over it.
    db.execute("insert into \"Ring\" values (3, 'later', null)").await;
    assert_eq!(bench.enter("save").await.unwrap(), outputs);
    let error = fails(&db, with(&file, json!({}))).await;
    assert!(error.kind == ErrorKind::Refused && error.message.contains("are there already"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), bytes);

    // What is told brings it back.
    db.execute("drop schema other cascade; drop table parts; drop type mood cascade").await;
    // What came later hangs on what was dumped.
    db.execute("alter table \"Ring\" drop constraint if exists \"Ring_pkey\"; alter table \"Ring\" add primary key (id); create table later (ring integer references \"Ring\")").await;
    typed(outputs["restore"].as_str().unwrap());
    let counted = "select (select count(*) from \"Ring\") * 100 + (select count(*) from other.\"two words\") * 10 + (select count(*) from parts) as n";
    assert_eq!(numbers(&db, counted).await, json!(213));
    assert_eq!(numbers(&db, "select count(*) as n from pg_class where relname = 'later'").await, json!(0));
    assert_eq!(
        numbers(&db, "select name as n from names where name like '%root'").await,
        json!("it's the root")
    );
    fs::write(&file, "another").unwrap();
    assert_eq!(bench.enter("save").await.unwrap_err().kind, ErrorKind::Gate);
}

#[tokio::test]
async fn a_backup_that_would_not_help_stops_the_run() {
    let db = Db::postgres().await;
    db.execute(TABLES).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.dump");
    let check = |more: Value| {
        let mut with = with(&file, more);
        with["mode"] = json!("check");
        with
    };
    let stops = async |with: Value, said: &str| {
        let error = fails(&db, with).await;
        assert!(error.kind == ErrorKind::Gate && error.message.contains(said), "{said}: {error:?}");
    };
    stops(check(json!({})), "there is no backup").await;
    bench(&db, with(&file, json!({}))).await.enter("save").await.unwrap();
    let looked = bench(&db, check(json!({}))).await.enter("save").await.unwrap();
    assert_eq!((&looked["probed"], looked.get("rows")), (&json!(false), None));
    let restored = bench(&db, check(json!({ "probe": "db" }))).await.enter("save").await.unwrap();
    assert_eq!((&restored["probed"], &restored["rows"]["public.Ring"]), (&json!(true), &json!(2)));
    assert_eq!(restored["sha256"], looked["sha256"]);

    // A dump of a database of the same name in which there is nothing yet.
    let empty = Db::postgres().await;
    empty.execute(&TABLES.replace("insert into", "; -- ")).await;
    let of_nothing = folder.path().join("empty.dump");
    bench(&empty, with(&of_nothing, json!({}))).await.enter("save").await.unwrap();
    let check_nothing = json!({ "connection": "db", "file": of_nothing, "mode": "check" });
    bench(&empty, check_nothing.clone()).await.enter("save").await.unwrap();
    stops(check_nothing, "holds no row of any table, and the database has some, in `other.two words`").await;

    db.execute("create table newer (id integer)").await;
    stops(check(json!({})), "holds no rows of `public.newer`").await;
    db.execute("drop table newer").await;
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    // Touched it is not newer: the time stands in it.
    fs::File::options().append(true).open(&file).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    stops(check(json!({ "max_age": "1s" })), "1s is the oldest").await;
    db.execute("create database twin").await;
    let mut connections = db.connections();
    connections["db"]["database"] = json!("twin");
    let twin = Bench::new(vec![planned("save", "backup", check(json!({})))], connections, json!({})).await;
    let error = twin.enter("save").await.unwrap_err();
    assert!(error.kind == ErrorKind::Gate && error.message.contains("is of the database app"), "{error}");

    let whole = fs::read(&file).unwrap();
    for broken in [&whole[..whole.len() - 60], &whole[..100], b"-- plain SQL", b""] {
        fs::write(&file, broken).unwrap();
        stops(check(json!({})), "can not be read").await;
    }
}

#[tokio::test]
async fn after_a_crash_the_file_tells_whether_it_was_written() {
    let db = Db::postgres().await;
    db.execute(TABLES).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.dump");
    let announce = async |bench: &Bench, sha256: &str| {
        let what = json!({ "file": file, "sha256": sha256, "bytes": 3, "dumped_at": "2026-01-01T00:00:00Z",
            "tables": [], "probed": false, "restore": "" });
        let intent = Intent { what: what.clone(), items: 1, charged_items: 0, charged_bytes: 0 };
        bench.context("save").ledger.intend(intent).await.unwrap();
        what
    };
    fs::write(&file, "old").unwrap();
    let written = bench(&db, with(&file, json!({}))).await;
    let what = announce(&written, &sha256(b"old")).await;
    assert_eq!(written.enter("save").await.unwrap(), what);
    fs::remove_file(&file).unwrap();
    let nothing = bench(&db, with(&file, json!({}))).await;
    announce(&nothing, &sha256(b"old")).await;
    assert_eq!(nothing.enter("save").await.unwrap()["rows"]["public.Ring"], json!(2));
    assert_eq!(nothing.context("save").ledger.view().await.unwrap().unsettled, []);
}

/// Programs that let `pg_restore` into a database wait, after they have said so in a file.
fn waiting_programs(folder: &Path, said: &Path) -> PathBuf {
    let programs = folder.join("programs");
    fs::create_dir(&programs).unwrap();
    let wait = format!("case \"$*\" in *--dbname=*) touch '{}'; sleep 60;; esac\n", said.display());
    for (program, before) in [("pg_dump", ""), ("pg_restore", &*wait)] {
        let path = programs.join(program);
        fs::write(&path, format!("#!/bin/sh\n{before}exec {program} \"$@\"\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    programs
}

#[tokio::test]
async fn a_cancel_takes_away_what_a_killed_backup_left_or_says_how_to() {
    let db = Db::postgres().await;
    db.execute(TABLES).await;
    let driven = Driven::new(&db.connections(), &json!({}));
    let (folder, said) = (driven.path("backups"), driven.path("said"));
    fs::create_dir(&folder).unwrap();
    let programs = waiting_programs(driven.folder.path(), &said);
    let names = "select count(*) as n from pg_database where datname like 'runbook_probe%'";
    for dropped in [true, false] {
        let more = json!({ "probe": "db", "programs": programs });
        let id = format!("dropped-{dropped}");
        driven.create(&id, vec![planned("save", "backup", with(&folder.join("app.dump"), more))]).await;
        driven.crash(&id, Purpose::GoOn, || said.exists()).await;
        fs::remove_file(&said).unwrap();
        let left = files(&folder);
        assert!(left.len() == 1 && left[0].extension().is_some_and(|end| end == "part"), "{left:?}");
        assert_eq!(numbers(&db, names).await, json!(1));
        let template = "update pg_database set datistemplate = $ where datname like 'runbook_probe%'";
        if !dropped {
            db.execute(&template.replace('$', "true")).await;
        }
        let state = driven.ended(&id, Purpose::Cancel("ada".to_owned())).await;
        assert_eq!(state.status, RunStatus::Cancelled);
        assert_eq!(files(&folder), Vec::<PathBuf>::new());
        if dropped {
            assert_eq!((numbers(&db, names).await, state.error), (json!(0), None));
            continue;
        }
        let error = state.error.unwrap();
        assert!(error.message.contains("what `save` left open was not settled"), "{error}");
        assert!(error.message.contains("the database runbook_probe_"), "{error}");
        let help = error.help.unwrap();
        db.execute(&template.replace('$', "false")).await;
        typed(help.strip_prefix("type  ").unwrap());
        assert_eq!(numbers(&db, names).await, json!(0));
    }
}

#[tokio::test]
async fn a_plan_dumps_nothing_and_no_message_holds_the_password() {
    let db = Db::postgres().await;
    db.execute("create table one (id integer); create role ada login password 'hunter2'").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.dump");
    let bench = bench(&db, with(&file, json!({}))).await;
    let entry = catalog::step("backup").unwrap();
    let effect = (entry.info.effect)(&json!({}));
    let seen = (entry.foresee)(with(&file, json!({})), effect, bench.context("save")).await.unwrap();
    assert!(seen.does.starts_with("dump postgres://127.0.0.1:") && !file.exists(), "{}", seen.does);
    // The user may not read the table; and a folder without the programs.
    let mut connections = db.connections();
    connections["db"]["user"] = json!("ada");
    connections["db"]["password"] = json!("hunter2");
    for more in [json!({}), json!({ "programs": folder.path() })] {
        let step = planned("save", "backup", with(&file, more));
        let error =
            Bench::new(vec![step], connections.clone(), json!({})).await.enter("save").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2") && files(folder.path()).is_empty(), "{error:?}");
    }
    let other = Db::sqlite().await;
    assert_eq!(fails(&other, with(&file, json!({}))).await.kind, ErrorKind::Invalid);
}

/// What a bucket holds: the keys of its objects, and of those that were begun in parts.
async fn held(s3: &S3) -> (Vec<String>, Vec<String>) {
    let client = s3.client().await;
    let objects = client.list_objects_v2().bucket(s3.bucket()).send().await.unwrap();
    let begun = client.list_multipart_uploads().bucket(s3.bucket()).send().await.unwrap();
    (
        objects.contents().iter().filter_map(|one| one.key().map(str::to_owned)).collect(),
        begun.uploads().iter().filter_map(|one| one.key().map(str::to_owned)).collect(),
    )
}

async fn read(s3: &S3, key: &str) -> Vec<u8> {
    let found = s3.client().await.get_object().bucket(s3.bucket()).key(key).send().await.unwrap();
    found.body.collect().await.unwrap().to_vec()
}

/// A database, a folder and a bucket, of which steps know the last by this endpoint.
struct Kept {
    db: Db,
    s3: Arc<S3>,
    folder: tempfile::TempDir,
    connections: Value,
}

impl Kept {
    async fn start(weed: &Weed, endpoint: &str) -> Self {
        let db = Db::postgres().await;
        db.execute(TABLES).await;
        let s3 = make(weed, "kept").await;
        let mut connections = db.connections();
        connections["kept"] = weed.bucket("kept");
        connections["kept"]["endpoint"] = json!(endpoint);
        Self { db, s3, folder: tempfile::tempdir().unwrap(), connections }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("app.dump")
    }

    async fn bench(&self, more: Value) -> Bench {
        let mut with = with(&self.file(), more);
        with["copy"] = json!({ "connection": "kept", "key": "backups/app.dump" });
        Bench::new(vec![planned("save", "backup", with)], self.connections.clone(), json!({})).await
    }

    /// So many rows of text that no program makes small.
    async fn fill(&self, rows: u64) {
        let rows = format!(
            "create table much as select md5(n::text) || md5((-n)::text) as text from generate_series(1, {rows}) n"
        );
        self.db.execute(&rows).await;
    }
}

#[tokio::test]
async fn a_copy_is_made_once_read_back_and_never_over_something() {
    let weed = Weed::start().await.unwrap();
    let kept = Kept::start(&weed, &weed.url).await;
    let bench = kept.bench(json!({})).await;
    let outputs = bench.run("save", 1).await.unwrap();
    let bytes = fs::read(kept.file()).unwrap();
    assert_eq!(read(&kept.s3, "backups/app.dump").await, bytes);
    assert_eq!(outputs["copy"]["url"], json!("s3://kept/backups/app.dump"));
    let fetch = outputs["copy"]["fetch"].as_str().unwrap();
    assert!(fetch.starts_with("aws s3 cp --endpoint-url=") && fetch.ends_with("app.dump"), "{fetch}");
    assert_eq!(bench.enter("save").await.unwrap(), outputs, "entered again");

    // The gate wants the copy as well, and all of it.
    let check = kept.bench(json!({ "mode": "check" })).await;
    assert_eq!(check.enter("save").await.unwrap()["copy"], outputs["copy"]);
    let mut wrong = bytes.clone();
    wrong[100] ^= 1;
    weed.put("kept", "backups/app.dump", wrong).await.unwrap();
    for bench in [&check, &bench] {
        assert_eq!(bench.enter("save").await.unwrap_err().kind, ErrorKind::Gate);
    }
    let gone = kept.s3.client().await.delete_object().bucket("kept").key("backups/app.dump").send().await;
    gone.unwrap();
    let error = check.enter("save").await.unwrap_err();
    assert!(error.message.contains("there is no copy of the backup at s3://kept/"), "{error}");

    // Something else is there: the backup is made, its copy is not, and the message says both.
    fs::remove_file(kept.file()).unwrap();
    fs::remove_file(kept.folder.path().join("app.dump.restore.sh")).unwrap();
    weed.put("kept", "backups/app.dump", b"of somebody else".to_vec()).await.unwrap();
    let again = kept.bench(json!({})).await;
    let error = again.enter("save").await.unwrap_err();
    assert!(
        error.kind == ErrorKind::Refused && error.message.contains("nothing was written over"),
        "{error}"
    );
    assert_eq!(read(&kept.s3, "backups/app.dump").await, b"of somebody else");
    let entry = catalog::step("backup").unwrap();
    let planned = with(
        &kept.folder.path().join("other.dump"),
        json!({ "copy": { "connection": "kept", "key": "backups/app.dump" } }),
    );
    let effect = (entry.info.effect)(&json!({}));
    let seen = (entry.foresee)(planned, effect, again.context("save")).await;
    assert!(seen.unwrap_err().message.contains("is there already"));
    // It goes away, and the same backup is copied.
    let made = fs::read(kept.file()).unwrap();
    kept.s3.client().await.delete_object().bucket("kept").key("backups/app.dump").send().await.unwrap();
    again.enter("save").await.unwrap();
    assert_eq!(read(&kept.s3, "backups/app.dump").await, made);
    assert_eq!(fs::read(kept.file()).unwrap(), made);
}

/// Answers the second part of an upload with an error, so often.
struct Parts(AtomicU32);

impl First for Parts {
    fn answer<'a>(
        &'a self,
        head: &'a axum::http::request::Parts,
        _: &'a [u8],
    ) -> Pin<Box<dyn Future<Output = Option<axum::http::Response<axum::body::Body>>> + Send + 'a>> {
        let second = head.uri.query().is_some_and(|query| query.contains("partNumber=2"));
        let left = |left: u32| left.checked_sub(1);
        let fails = second && self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok();
        let answer = || axum::http::Response::builder().status(503).body(axum::body::Body::empty()).unwrap();
        Box::pin(async move { fails.then(answer) })
    }
}

#[tokio::test]
async fn what_is_large_is_sent_in_parts_and_no_part_is_left_over() {
    let weed = Weed::start().await.unwrap();
    let faults = Arc::new(Parts(AtomicU32::new(3)));
    let proxy = Proxy::after(Some(faults.clone()), &weed.url).await;
    let kept = Kept::start(&weed, &proxy.url).await;
    kept.fill(400_000).await;
    let bench = kept.bench(json!({})).await;
    // Three times is as patient as a part is.
    let error = bench.enter("save").await.unwrap_err();
    assert!(
        error.kind == ErrorKind::Transient
            && error.message.contains("has no copy at s3://kept/backups/app.dump: sending part 2"),
        "{error:?}"
    );
    assert_eq!(held(&kept.s3).await, (Vec::new(), Vec::new()), "nothing is left of it");
    let file = fs::read(kept.file()).unwrap();
    assert!(file.len() > 9 * 1024 * 1024, "{}", file.len());

    // A process that is killed leaves its parts, and the next one takes them away.
    let client = kept.s3.client().await;
    let begun = client.create_multipart_upload().bucket("kept").key("backups/app.dump").send().await.unwrap();
    let upload = begun.upload_id().unwrap();
    let what = json!({ "copy": { "url": "", "fetch": "" }, "sha256": sha256(&file), "upload": upload });
    let intent = Intent { what, items: 1, charged_items: 0, charged_bytes: 0 };
    bench.context("save").ledger.intend(intent).await.unwrap();
    assert_eq!(held(&kept.s3).await.1.len(), 1);
    let outputs = bench.run("save", 1).await.unwrap();
    assert_eq!(held(&kept.s3).await, (vec!["backups/app.dump".to_owned()], Vec::new()));
    assert!(read(&kept.s3, "backups/app.dump").await == file, "the copy is another");
    assert_eq!(fs::read(kept.file()).unwrap(), file, "the backup is the one of before");
    assert_eq!(bench.context("save").ledger.view().await.unwrap().unsettled, []);

    // One that was killed after the last part has a copy, and nobody knows: it is found.
    let again = kept.bench(json!({})).await;
    let mut first = outputs.clone();
    first.as_object_mut().unwrap().remove("copy");
    let intent = Intent { what: first, items: 1, charged_items: 0, charged_bytes: 0 };
    again.context("save").ledger.intend(intent).await.unwrap();
    let writes = proxy.writes().len();
    assert_eq!(again.enter("save").await.unwrap(), outputs);
    assert_eq!(proxy.writes().len(), writes);
}
