//! Connection kind `sqlite`: a SQLite database of this machine.

use std::io::Read as _;
use std::path::{Path, PathBuf, absolute};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use sqlx::pool::PoolOptions;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnectOptions, SqlitePool, SqliteRow};
use sqlx::{
    AssertSqlSafe, Column as _, Either, Executor as _, Row as _, SqlSafeStr as _, Statement as _,
    TypeInfo as _, ValueRef as _,
};

use super::scan::Statement;
use super::server::{default_connect_timeout, default_lock_timeout, default_max_connections};
use super::{
    Answer, Begin, Cell, Cells, Database, Dialect, Driver, Failure, Fate, Leased, Session, Shape, shown_bytes,
};
use crate::connections::directory::whereabouts;
use crate::digest::sha256;
use crate::kind::{ConnectionKind, OpenContext, SystemIs};
use crate::manifest::blocking;

/// A SQLite database of this machine. Its file is opened when a step first needs it. Foreign keys are enforced.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqliteConnection {
    /// The path of the file, from the folder that runbook was started in when it is not absolute.
    #[schemars(length(min = 1))]
    pub path: PathBuf,
    /// Whether the file is made when it is not there. Default: no, because a wrong path would pass for an empty database.
    #[serde(default)]
    pub create: bool,
    /// The most connections at a time. Default 4.
    #[serde(default = "default_max_connections")]
    #[schemars(range(min = 1, max = 100))]
    pub max_connections: u32,
    /// How long a connection is waited for. Default `10s`.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Duration,
    /// How long is waited while somebody else writes. Default `10s`.
    #[serde(default = "default_lock_timeout")]
    pub lock_timeout: Duration,
}

#[async_trait]
impl ConnectionKind for SqliteConnection {
    const NAME: &'static str = "sqlite";
    const SUMMARY: &'static str = "A SQLite database of this machine";
    type Client = Database;

    fn open(self, _: &OpenContext<'_>) -> Result<Database, StepError> {
        if self.path.as_os_str() == ":memory:" {
            let message = "`path` is `:memory:`, and what it holds is gone with each connection";
            return Err(StepError::invalid(message));
        }
        let options = SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(self.create)
            .busy_timeout(self.lock_timeout.0)
            .statement_cache_capacity(0);
        let pool =
            PoolOptions::new().max_connections(self.max_connections).acquire_timeout(self.connect_timeout.0);
        Ok(Database::new(File {
            path: self.path,
            create: self.create,
            options,
            pool,
            only_reads: AtomicBool::new(false),
            made: Default::default(),
        }))
    }

    fn place(client: &Database) -> String {
        client.describe()
    }

    async fn identity(client: &Database) -> Result<SystemIs, StepError> {
        client.identity().await
    }

    async fn content(client: &Database) -> Result<Option<String>, StepError> {
        client.content().await
    }

    fn only_read(client: &Database) {
        client.only_read();
    }
}

/// A file, with its pools once they were needed.
struct File {
    path: PathBuf,
    create: bool,
    options: SqliteConnectOptions,
    pool: PoolOptions<Sqlite>,
    only_reads: AtomicBool,
    made: [OnceLock<SqlitePool>; 4],
}

/// How a database is opened: one pool for each.
#[derive(Clone, Copy)]
enum Way {
    /// As the settings say.
    Settings,
    /// So that nothing is written: no file is made, and no log is written back into the database.
    ReadOnly,
    /// An empty one in memory, in place of a file that a run would make.
    Empty,
    /// As it lies on the disk: one that keeps a log, and whose log is written back. To open it otherwise makes a new log, and whoever reads it
    /// as another user leaves one that its owner can not write to.
    AtRest,
}

/// Whether a database keeps its changes in a log (`journal_mode = wal`) that is not there now: byte 18 of the file says so (the SQLite file
/// format, 1.3).
fn is_at_rest(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let mut header = [0; 20];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
    // Whoever has the database open has made a log: without one, nobody writes.
    read.is_ok() && header[18] == 2 && std::fs::symlink_metadata(&log).is_err()
}

impl File {
    fn way(&self) -> Way {
        if !self.only_reads.load(Ordering::Relaxed) {
            Way::Settings
        } else if self.create && !self.path.exists() {
            Way::Empty
        } else if is_at_rest(&self.path) {
            Way::AtRest
        } else {
            Way::ReadOnly
        }
    }

    fn pool(&self) -> &SqlitePool {
        let way = self.way();
        let options = || match way {
            Way::Settings => self.options.clone(),
            Way::ReadOnly => self.options.clone().create_if_missing(false).read_only(true),
            Way::AtRest => self.options.clone().create_if_missing(false).read_only(true).immutable(true),
            Way::Empty => SqliteConnectOptions::new().in_memory(true).statement_cache_capacity(0),
        };
        // Made here and not before, because a pool needs the runtime.
        self.made[way as usize].get_or_init(|| self.pool.clone().connect_lazy_with(options()))
    }
}

#[async_trait]
impl Driver for File {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn describe(&self) -> String {
        format!("sqlite:{}", self.path.display())
    }

    async fn open(&self) -> Result<Box<dyn Session>, Failure> {
        let connection = self.pool().acquire().await.map_err(|error| {
            let mut failure = Failure::from(error).during(&format!("opening {}", self.path.display()));
            if !self.path.exists() {
                failure.error.help = Some("there is no such file; `create: true` would make it".to_owned());
            }
            failure
        })?;
        Ok(Box::new(SqliteSession { leased: Leased::new(connection), read_only: false }))
    }

    /// Of a transaction that changed the schema, the version of the schema tells. Other names are not known.
    async fn fate(&self, transaction: &str) -> Result<Fate, Failure> {
        let mut session = self.open().await?;
        let found = session.cells("pragma schema_version", Vec::new()).await?;
        session.finish().await;
        let Some(Cell::Integer(version)) = found.rows.first().and_then(|row| row.first()) else {
            return Ok(Fate::Unknown);
        };
        let versions: Vec<i64> = transaction.split(' ').filter_map(|word| word.parse().ok()).collect();
        Ok(match versions[..] {
            [_, after] if after == *version => Fate::Committed,
            [before, _] if before == *version => Fate::RolledBack,
            _ => Fate::Unknown,
        })
    }

    async fn identity(&self) -> Result<SystemIs, StepError> {
        let path = self.path.clone();
        let who = blocking(move || Ok(whereabouts(&canonical(&path)))).await?;
        Ok(match who {
            SystemIs::NotYet(words) => SystemIs::NotYet(format!("SQLite {words}")),
            there => SystemIs::There(format!("SQLite {}", there.words())),
        })
    }

    async fn content(&self) -> Result<Option<String>, StepError> {
        let mut session = self.open().await?;
        session.begin(Begin::ReadOnly).await?;
        let id = session.cells("pragma application_id", Vec::new()).await?.rows;
        let things = "select type, name, tbl_name, sql from sqlite_schema where name not like 'sqlite\\_%' escape '\\' \
                      order by type, name";
        let schema = session.cells(things, Vec::new()).await?.rows;
        session.rollback().await?;
        session.finish().await;
        let id = match id.first().and_then(|row| row.first()) {
            Some(Cell::Integer(id)) => *id,
            _ => 0,
        };
        let digest: String = sha256(format!("{schema:?}").as_bytes()).chars().take(12).collect();
        Ok(Some(format!("application id {id}, schema {digest}")))
    }

    fn only_read(&self) {
        self.only_reads.store(true, Ordering::Relaxed);
    }
}

/// The path without symbolic links; the same before the file is made and after.
fn canonical(path: &Path) -> PathBuf {
    let full = absolute(path).unwrap_or_else(|_| path.to_owned());
    let of_folder = || Some(full.parent()?.canonicalize().ok()?.join(full.file_name()?));
    full.canonicalize().ok().or_else(of_folder).unwrap_or(full)
}

/// The name of a transaction that changes the schema: the versions of the schema before and after it.
pub fn schema_change(before: i64, after: i64) -> String {
    format!("schema {before} {after}")
}

/// A connection.
struct SqliteSession {
    leased: Leased<Sqlite>,
    read_only: bool,
}

type Prepared = Query<'static, Sqlite, SqliteArguments>;

#[async_trait]
impl Session for SqliteSession {
    async fn run(
        &mut self,
        statement: &Statement<'_>,
        parameters: &[Value],
        keep: usize,
    ) -> Result<Answer, Failure> {
        let connection = self.leased.get()?;
        let prepared = connection.prepare(AssertSqlSafe(statement.text.to_owned()).into_sql_str()).await?;
        super::check_parameters(prepared.parameters(), parameters)?;
        let columns = prepared.columns().iter().map(|one| one.name().to_owned()).collect();
        let mut answer = Answer { columns, ..Answer::default() };
        let mut query = sqlx::query(AssertSqlSafe(statement.text.to_owned())).persistent(false);
        for parameter in parameters {
            query = bound(query, super::as_cell(parameter));
        }
        let mut stream = connection.fetch_many(query);
        while let Some(step) = stream.try_next().await? {
            match step {
                Either::Left(done) => answer.affected += done.rows_affected(),
                Either::Right(row) => {
                    answer.total += 1;
                    if answer.rows.len() < keep {
                        let values: Result<_, sqlx::Error> =
                            (0..row.len()).map(|at| shown(&row, at)).collect();
                        answer.rows.push(values?);
                    }
                }
            }
        }
        // SQLite counts what the last statement that changed rows did, whichever that was.
        if !matches!(statement.verb(), "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "WITH")
            || statement.reads()
        {
            answer.affected = 0;
        }
        Ok(answer)
    }

    async fn cells(&mut self, sql: &str, parameters: Vec<Cell>) -> Result<Cells, Failure> {
        let connection = self.leased.get()?;
        let mut query = sqlx::query(AssertSqlSafe(sql.to_owned())).persistent(false);
        for parameter in parameters {
            query = bound(query, parameter);
        }
        let (mut cells, mut held) = (Cells::default(), 0);
        let mut stream = connection.fetch_many(query);
        while let Some(step) = stream.try_next().await? {
            match step {
                Either::Left(done) => cells.affected += done.rows_affected(),
                Either::Right(row) => {
                    let values: Result<_, sqlx::Error> = (0..row.len()).map(|at| cell(&row, at)).collect();
                    cells.keep(values?, &mut held);
                }
            }
        }
        Ok(cells)
    }

    async fn shape(&mut self, sql: &str) -> Result<Shape, Failure> {
        let connection = self.leased.get()?;
        let prepared = connection.prepare(AssertSqlSafe(sql.to_owned()).into_sql_str()).await?;
        let columns = prepared.columns().iter().map(|one| (one.name().to_owned(), String::new())).collect();
        Ok(Shape::counted(columns, prepared.parameters()))
    }

    async fn script(&mut self, sql: &str) -> Result<(), Failure> {
        let connection = self.leased.get()?;
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await?;
        Ok(())
    }

    async fn begin(&mut self, how: Begin) -> Result<(), Failure> {
        self.read_only = how == Begin::ReadOnly;
        // To write is announced at once: a transaction that read first may be refused later, whatever the time-out.
        self.script(if self.read_only { "pragma query_only = on; begin" } else { "begin immediate" }).await
    }

    async fn finish(mut self: Box<Self>) {
        if self.read_only && self.script("pragma query_only = off").await.is_err() {
            return;
        }
        self.leased.give_back();
    }
}

fn bound(query: Prepared, cell: Cell) -> Prepared {
    match cell {
        Cell::Null => query.bind(None::<String>),
        Cell::Integer(number) => query.bind(number),
        // More than SQLite's integers hold.
        Cell::Unsigned(number) => query.bind(number.to_string()),
        Cell::Real(number) => query.bind(number),
        Cell::Text(text) => query.bind(text),
        Cell::Blob(bytes) => query.bind(bytes),
    }
}

/// A column of a row, by what is in it and not by what the table says.
fn cell(row: &SqliteRow, at: usize) -> Result<Cell, sqlx::Error> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Cell::Null);
    }
    let kind = raw.type_info().name().to_owned();
    Ok(match kind.as_str() {
        "INTEGER" => Cell::Integer(row.try_get_unchecked(at)?),
        "REAL" => Cell::Real(row.try_get_unchecked(at)?),
        "BLOB" => Cell::Blob(row.try_get_unchecked(at)?),
        _ => Cell::Text(row.try_get_unchecked(at)?),
    })
}

fn shown(row: &SqliteRow, at: usize) -> Result<Value, sqlx::Error> {
    Ok(match cell(row, at)? {
        Cell::Null => Value::Null,
        Cell::Integer(number) => Value::from(number),
        Cell::Unsigned(number) => Value::from(number),
        Cell::Real(number) => Value::from(number),
        Cell::Text(text) => Value::String(text),
        Cell::Blob(bytes) => shown_bytes(&bytes),
    })
}
