//! Rows of a database: listed, confirmed, deleted in batches, and noted; then the schema is made anew. On PostgreSQL and on SQLite.

use std::path::PathBuf;
use std::process::Output;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use runbook_sandbox::database::{DatabaseServer, Kind};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _};

use crate::matrix::{Case, explore};
use crate::picture::RUNTIME;
use crate::place::Place;
use crate::trial::{Recovery, World, run_in};

/// How many rows are deleted; in batches of 3.
const ROWS: u64 = 7;

/// Where the server of this process is, with a database of its own for every world.
static SERVER: OnceLock<String> = OnceLock::new();
static NUMBER: AtomicU64 = AtomicU64::new(0);

const TABLES: &str = "create table items (id integer primary key, state varchar(10), note text); \
    create table notes (said varchar(100)); \
    insert into items select n, 'old', 'note ' || n from numbers; \
    insert into items values (100, 'new', 'kept')";

/// What stands in the file of the reset.
const SCHEMA: &str = "create table items (id integer primary key, state varchar(10), note text); \
    create table resets (said varchar(100)); insert into resets values ('made anew')";

enum Database {
    Postgres(String),
    Sqlite(PathBuf),
}

struct Rows {
    place: Place,
    database: Database,
}

impl Database {
    fn settings(&self) -> String {
        match self {
            Self::Postgres(url) => format!("{{ type: postgres, url: \"{url}\" }}"),
            Self::Sqlite(path) => format!("{{ type: sqlite, path: \"{}\" }}", path.display()),
        }
    }

    fn execute(&self, sql: &str) {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        RUNTIME.block_on(async {
            match self {
                Self::Postgres(url) => {
                    let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
                    options.connect().await.unwrap().execute(sql).await.unwrap();
                }
                Self::Sqlite(path) => {
                    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
                    options.connect().await.unwrap().execute(sql).await.unwrap();
                }
            }
        });
    }

    /// The first column of a query; nothing when it fails, because a table is not there.
    fn texts(&self, sql: &str) -> Option<Vec<String>> {
        let sql = AssertSqlSafe(sql.to_owned());
        RUNTIME.block_on(async {
            match self {
                Self::Postgres(url) => {
                    let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
                    let rows = options.connect().await.unwrap().fetch_all(sqlx::query(sql)).await.ok()?;
                    Some(rows.iter().map(|row| row.get(0)).collect())
                }
                Self::Sqlite(path) => {
                    let options = SqliteConnectOptions::new().filename(path);
                    let rows = options.connect().await.unwrap().fetch_all(sqlx::query(sql)).await.ok()?;
                    Some(rows.iter().map(|row| row.get(0)).collect())
                }
            }
        })
    }
}

fn on(place: Place, database: Database) -> Box<dyn World> {
    let numbers = match &database {
        Database::Postgres(_) => {
            format!("create view numbers as select n from generate_series(1, {ROWS}) n; ")
        }
        Database::Sqlite(_) => format!(
            "create view numbers as with recursive c(n) as (select 1 union all select n + 1 from c where n < {ROWS}) select n from c; "
        ),
    };
    database.execute(&(numbers + TABLES));
    let one = if matches!(database, Database::Postgres(_)) { "$1" } else { "?" };
    place.write("schema.sql", SCHEMA);
    let settings = database.settings();
    let text = format!(
        r#"connections:
  db: {settings}
collections:
  old: {{ type: sql-rows, connection: db, table: items, where: {{ state: old }} }}
limits: {{ max_items: {}, max_percent: 100, max_errors: 0 }}
lock: rows
steps:
  - {{ id: listed, uses: snapshot, with: {{ collection: old }} }}
  - {{ id: confirm, uses: confirm-prompt, with: {{ message: Delete them?, phrases: [DELETE] }} }}
  - id: purge
    uses: delete-batch
    with: {{ collections: [old], keys: "${{{{ steps.listed.outputs.manifest }}}}", batch_size: 3 }}
  - id: note
    uses: sql
    with:
      connection: db
      statement: insert into notes values ({one})
      parameters: ["deleted ${{{{ steps.listed.outputs.count }}}}"]
      check: {{ statement: select said from notes }}
      effect: {{ class: write, repeat: once }}
  - id: wipe
    uses: sql-reset
    with: {{ connection: db, files: schema.sql, expect_before: {{ tables: [notes] }}, expect: {{ tables: [resets], rows: 1 }} }}
  - id: after
    uses: sql
    with: {{ connection: db, statement: select said from resets, expect: {{ rows: 1 }} }}
finally:
  - {{ id: report, uses: report }}
"#,
        ROWS + 2,
    );
    place.runbook("rows", &text);
    Box::new(Rows { place, database })
}

fn on_postgres() -> Box<dyn World> {
    let url = SERVER.get().unwrap();
    let name = format!("world_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    Database::Postgres(url.clone()).execute(&format!("create database {name}"));
    on(Place::new(), Database::Postgres(url.replace("/app?", &format!("/{name}?"))))
}

fn on_sqlite() -> Box<dyn World> {
    let place = Place::new();
    let path = place.path("app.db");
    on(place, Database::Sqlite(path))
}

impl World for Rows {
    fn run(&self, arguments: &[String], variables: &[(String, String)]) -> Output {
        run_in(&self.place, arguments, variables)
    }

    fn state(&self) -> PathBuf {
        self.place.path("state")
    }

    fn exec(&self) -> Vec<String> {
        ["exec", "rows.yaml"].map(str::to_owned).into()
    }

    fn took_effect(&self, step: &str) -> bool {
        panic!("`{step}` may be repeated");
    }

    fn names(&self) -> Vec<(String, String)> {
        let database = match &self.database {
            Database::Postgres(url) => url.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned(),
            Database::Sqlite(_) => "app.db".to_owned(),
        };
        vec![
            (self.place.path("").display().to_string(), "WORLD/".to_owned()),
            (database, "DATABASE".to_owned()),
        ]
    }

    fn picture(&self) -> Value {
        json!({
            "items": self.database.texts("select note from items order by id"),
            "notes": self.database.texts("select said from notes"),
            "resets": self.database.texts("select said from resets"),
        })
    }

    fn wrong(&self, _: &[String]) -> Vec<String> {
        let notes = self.database.texts("select said from notes").unwrap_or_default();
        let resets = self.database.texts("select said from resets").unwrap_or_default();
        [("notes", notes), ("resets", resets)]
            .into_iter()
            .filter(|(_, said)| said.len() > 1)
            .map(|(table, said)| format!("{table} holds {said:?}"))
            .collect()
    }
}

#[test]
fn rows_of_postgres_go_once_and_the_schema_is_made_anew_once() {
    // Started by this thread, with which it ends.
    let server = RUNTIME.block_on(DatabaseServer::start(Kind::Postgres)).unwrap();
    SERVER.get_or_init(|| server.url());
    explore(&Case {
        name: "rows of PostgreSQL",
        recovery: Recovery::Resume,
        make: on_postgres,
        stride: 3,
        second_stride: 97,
    });
}

#[test]
fn rows_of_sqlite_go_once_and_the_schema_is_made_anew_once() {
    explore(&Case {
        name: "rows of SQLite",
        recovery: Recovery::Resume,
        make: on_sqlite,
        stride: 3,
        second_stride: 97,
    });
}
