//! A database that is backed up, held to its backup, and made anew: the backup is whole, one, of before, and has its copy in a bucket.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use runbook_sandbox::database::{DatabaseServer, Kind};
use runbook_sandbox::weed::Weed;
use runbook_steps::digest::sha256_file;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _};

use crate::bucket::Bucket;
use crate::matrix::{Case, explore};
use crate::picture::{RUNTIME, files};
use crate::place::Place;
use crate::trial::{Recovery, World, run_in};

/// Where the server of this process is, with a database of its own for every world.
static SERVER: OnceLock<String> = OnceLock::new();
static NUMBER: AtomicU64 = AtomicU64::new(0);
/// The store of the copies.
static STORE: OnceLock<Value> = OnceLock::new();

struct Saved {
    place: Place,
    bucket: Bucket,
    url: String,
    name: String,
}

/// The first column of what statements give.
fn sql(url: &str, text: &str) -> Vec<String> {
    let options: PgConnectOptions = url.parse().unwrap();
    RUNTIME.block_on(async {
        let mut open = options.connect().await.unwrap();
        let rows = open.fetch_all(sqlx::raw_sql(AssertSqlSafe(text.to_owned()))).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    })
}

fn make() -> Box<dyn World> {
    let server = SERVER.get().unwrap();
    let name = format!("saved_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    sql(server, &format!("create database {name}"));
    let url = server.replace("/app?", &format!("/{name}?"));
    sql(&url, "create table items (id integer primary key); insert into items values (1), (2)");
    let (place, bucket) = (Place::new(), Bucket::make(STORE.get().unwrap()));
    place.write("schema.sql", "create table items (id integer primary key)");
    let text = format!(
        r#"connections:
  db: {{ type: postgres, url: "{url}" }}
  scratch: {{ type: postgres, url: "{server}" }}
  bucket: {}
limits: {{ max_items: 2, max_errors: 0 }}
lock: saved
steps:
  - {{ id: save, uses: backup, with: {{ connection: db, file: "{file}", probe: scratch, copy: {copy} }} }}
  - {{ id: gate, uses: backup, with: {{ connection: db, mode: check, file: "{file}", max_age: 1h, copy: {copy} }} }}
  - {{ id: confirm, uses: confirm-prompt, with: {{ message: Make it anew?, phrases: [WIPE] }} }}
  - {{ id: wipe, uses: sql-reset, with: {{ connection: db, files: schema.sql, expect: {{ tables: [items] }} }} }}
finally:
  - {{ id: report, uses: report }}
"#,
        bucket.settings,
        file = place.path("before.dump").display(),
        copy = "{ connection: bucket, key: backups/before.dump }",
    );
    place.runbook("saved", &text);
    Box::new(Saved { place, bucket, url, name })
}

impl World for Saved {
    fn run(&self, arguments: &[String], variables: &[(String, String)]) -> Output {
        run_in(&self.place, arguments, variables)
    }

    fn state(&self) -> PathBuf {
        self.place.path("state")
    }

    fn exec(&self) -> Vec<String> {
        ["exec", "saved.yaml"].map(str::to_owned).into()
    }

    fn took_effect(&self, step: &str) -> bool {
        panic!("`{step}` may be repeated");
    }

    fn names(&self) -> Vec<(String, String)> {
        vec![
            (self.place.path("").display().to_string(), "WORLD/".to_owned()),
            (self.name.clone(), "DATABASE".to_owned()),
            (self.bucket.name.clone(), "BUCKET".to_owned()),
        ]
    }

    /// A backup that was announced and has not its name yet is made anew, and so is its probe, which is announced too.
    fn repeatable(&self, step: &str, crashed_at: &[String]) -> u64 {
        crashed_at.len() as u64 * if step == "save" { 2 } else { 1 }
    }

    /// A dump holds times, and the way back names it by its digest.
    fn is_drawn(&self, member: &str) -> bool {
        ["sha256", "bytes", "restore_program"].contains(&member)
    }

    fn picture(&self) -> Value {
        let dumps: Vec<String> = files(&self.place.path(""))
            .iter()
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
            .filter(|name| name.contains("dump"))
            .collect();
        let copies = RUNTIME.block_on(self.bucket.keys());
        json!({ "rows": sql(&self.url, "select id::text from items"), "dumps": dumps, "copies": copies })
    }

    fn wrong(&self, _: &[String]) -> Vec<String> {
        let mut wrong = Vec::new();
        if sql(&self.url, "select id::text from items").len() == 2 {
            return wrong;
        }
        let mut read = Command::new("pg_restore");
        read.args(["--data-only", "--file=-"]).arg(self.place.path("before.dump"));
        let text = read.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        if !text.as_ref().is_ok_and(|text| text.contains("\n1\n2\n")) {
            wrong.push(format!("the rows are gone, and the backup holds {text:?}"));
        }
        let copy = RUNTIME.block_on(self.bucket.s3.digest("backups/before.dump"));
        let file = sha256_file(&self.place.path("before.dump"));
        if copy.clone().ok().flatten() != file.as_ref().ok().cloned() {
            wrong.push(format!("the copy is {copy:?}, and the backup {file:?}"));
        }
        wrong
    }
}

#[test]
fn what_is_wiped_is_in_one_whole_backup_whatever_crashes() {
    // Started by this thread, with which it ends.
    let server = RUNTIME.block_on(DatabaseServer::start(Kind::Postgres)).unwrap();
    SERVER.get_or_init(|| server.url());
    let weed = RUNTIME.block_on(Weed::start()).unwrap();
    STORE.get_or_init(|| weed.bucket("none"));
    explore(&Case { name: "backup", recovery: Recovery::Resume, make, stride: 7, second_stride: 0 });
    let probes = "select datname::text from pg_database where datname like 'runbook_probe_%'";
    assert_eq!(sql(&server.url(), probes), Vec::<String>::new());
}
