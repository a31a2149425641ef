//! Connection kind `mysql`: a MySQL or MariaDB database.

use std::path::PathBuf;
use std::sync::OnceLock;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use sqlx::mysql::{
    MySql, MySqlArguments, MySqlColumn, MySqlConnectOptions, MySqlConnection, MySqlPool, MySqlSslMode,
};
use sqlx::pool::PoolOptions;
use sqlx::query::Query;
use sqlx::{
    AssertSqlSafe, Column as _, ConnectOptions as _, Connection as _, Either, Executor as _, Row as _,
    SqlSafeStr as _, Statement as _, TypeInfo as _,
};

use super::mysql_values::{cell, shown};
use super::postgres::millis;
use super::scan::Statement;
use super::server::{
    Parts, SslMode, default_connect_timeout, default_lock_timeout, default_max_connections, described,
};
use super::{Answer, Begin, Cell, Cells, Database, Dialect, Driver, Failure, Leased, Session, Shape};
use crate::kind::{ConnectionKind, OpenContext, SystemIs};

/// A MySQL or MariaDB database. Where it is stands in `url`, in the single settings, or in both: a single setting overrides its part of the
/// URL. Nothing is reached before a step needs it. A server that wants `caching_sha2_password` is reached encrypted only.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MysqlConnection {
    /// `mysql://USER:PASSWORD@HOST:PORT/DATABASE?ssl-mode=MODE`. May hold a secret.
    #[serde(default)]
    pub url: Option<String>,
    /// The server's name or address, or the path of its socket.
    #[serde(default)]
    pub host: Option<String>,
    /// The server's port. Default 3306.
    #[serde(default)]
    pub port: Option<u16>,
    /// The database.
    #[serde(default)]
    pub database: Option<String>,
    /// Who asks.
    #[serde(default)]
    pub user: Option<String>,
    /// Their password. May hold a secret.
    #[serde(default)]
    pub password: Option<String>,
    /// How the connection is encrypted. Default: as the URL says, and `prefer` otherwise.
    #[serde(default)]
    pub ssl_mode: Option<SslMode>,
    /// A file with the certificates of the authorities that are trusted, PEM.
    #[serde(default)]
    pub ssl_root_cert: Option<PathBuf>,
    /// A file with the client's certificate, PEM.
    #[serde(default)]
    pub ssl_cert: Option<PathBuf>,
    /// A file with the client's key, PEM.
    #[serde(default)]
    pub ssl_key: Option<PathBuf>,
    /// The most connections at a time. Default 4.
    #[serde(default = "default_max_connections")]
    #[schemars(range(min = 1, max = 100))]
    pub max_connections: u32,
    /// How long a connection is waited for. Default `10s`.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Duration,
    /// How long a lock is waited for, in whole seconds. Default `10s`.
    #[serde(default = "default_lock_timeout")]
    pub lock_timeout: Duration,
    /// How long one statement may take; MySQL holds a `select` to it, MariaDB every statement. Default: as long as it needs.
    #[serde(default)]
    pub statement_timeout: Option<Duration>,
}

#[async_trait]
impl ConnectionKind for MysqlConnection {
    const NAME: &'static str = "mysql";
    const SUMMARY: &'static str = "A MySQL or MariaDB database";
    const SECRET_FIELDS: &'static [&'static str] = &["/url", "/password"];
    type Client = Database;

    fn open(self, _: &OpenContext<'_>) -> Result<Database, StepError> {
        let options = self.options()?;
        let lock = self.lock_timeout.0.as_secs().max(1);
        let statement = self.statement_timeout.map(millis);
        let pool = PoolOptions::new()
            .max_connections(self.max_connections)
            .acquire_timeout(self.connect_timeout.0)
            .after_connect(move |connection, _| Box::pin(prepare_session(connection, lock, statement)));
        Ok(Database::new(Server { options, pool, made: OnceLock::new() }))
    }

    fn place(client: &Database) -> String {
        client.describe()
    }

    async fn identity(client: &Database) -> Result<SystemIs, StepError> {
        client.identity().await
    }
}

/// How many bytes of a value rows are sorted by: all that an index can have. By default two long values may count as the same.
const SORTED_BYTES: u32 = 8192;

/// Makes a new connection wait no longer than it may, and sort by whole values.
async fn prepare_session(
    connection: &mut MySqlConnection,
    lock_seconds: u64,
    statement_millis: Option<u128>,
) -> Result<(), sqlx::Error> {
    let locks = format!(
        "set session innodb_lock_wait_timeout = {lock_seconds}, session lock_wait_timeout = {lock_seconds}, \
         session max_sort_length = {SORTED_BYTES}"
    );
    connection.execute(sqlx::raw_sql(AssertSqlSafe(locks))).await?;
    let Some(millis) = statement_millis else { return Ok(()) };
    let version: String = connection.fetch_one(sqlx::raw_sql("select version()")).await?.try_get(0)?;
    let limit = if version.contains("MariaDB") {
        format!("set session max_statement_time = {}.{:03}", millis / 1000, millis % 1000)
    } else {
        format!("set session max_execution_time = {millis}")
    };
    connection.execute(sqlx::raw_sql(AssertSqlSafe(limit))).await.map(drop)
}

impl MysqlConnection {
    fn options(&self) -> Result<MySqlConnectOptions, StepError> {
        let parts = Parts {
            url: self.url.clone(),
            host: self.host.clone(),
            port: self.port,
            database: self.database.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
        };
        let url = parts.url(&["mysql", "mariadb"])?;
        let says_mode = url.query_pairs().any(|(name, _)| matches!(&*name, "sslmode" | "ssl-mode"));
        let mut options = MySqlConnectOptions::from_url(&url).map_err(|error| {
            StepError::invalid("the address of the database is unusable").with_source(&error)
        })?;
        if self.ssl_mode.is_some() || !says_mode {
            options = options.ssl_mode(match self.ssl_mode.unwrap_or_default() {
                SslMode::Disable => MySqlSslMode::Disabled,
                SslMode::Prefer => MySqlSslMode::Preferred,
                SslMode::Require => MySqlSslMode::Required,
                SslMode::VerifyCa => MySqlSslMode::VerifyCa,
                SslMode::VerifyFull => MySqlSslMode::VerifyIdentity,
            });
        }
        if let Some(file) = &self.ssl_root_cert {
            options = options.ssl_ca(file);
        }
        if let Some(file) = &self.ssl_cert {
            options = options.ssl_client_cert(file);
        }
        if let Some(file) = &self.ssl_key {
            options = options.ssl_client_key(file);
        }
        // SQL means here what it means in the server's own client.
        Ok(options.pipes_as_concat(false).no_engine_substitution(false).statement_cache_capacity(0))
    }
}

/// A server, with its pool once it was needed.
struct Server {
    options: MySqlConnectOptions,
    pool: PoolOptions<MySql>,
    made: OnceLock<MySqlPool>,
}

impl Server {
    async fn session(&self) -> Result<MySqlSession, Failure> {
        // Made here and not before, because a pool needs the runtime.
        let pool = self.made.get_or_init(|| self.pool.clone().connect_lazy_with(self.options.clone()));
        Ok(MySqlSession(Leased::new(pool.acquire().await?)))
    }
}

#[async_trait]
impl Driver for Server {
    fn dialect(&self) -> Dialect {
        Dialect::MySql
    }

    fn describe(&self) -> String {
        let o = &self.options;
        let socket = o.get_socket().map(|path| path.display().to_string());
        described("mysql", socket.as_deref().unwrap_or(o.get_host()), o.get_port(), o.get_database())
    }

    async fn open(&self) -> Result<Box<dyn Session>, Failure> {
        Ok(Box::new(self.session().await?))
    }

    async fn identity(&self) -> Result<SystemIs, StepError> {
        let mut session = self.session().await?;
        let mut who = None;
        // MySQL, MariaDB since 10.6, and whatever else: the data directory on a machine.
        for sql in [
            "select @@server_uuid",
            "select @@server_uid",
            "select concat(@@hostname, ':', @@port, @@datadir)",
        ] {
            match session.cells(sql, Vec::new()).await {
                Ok(found) => who = first_text(&found),
                Err(failure) if !failure.lost => continue,
                Err(failure) => return Err(failure.into()),
            }
            break;
        }
        let database = first_text(&session.cells("select database()", Vec::new()).await?);
        Box::new(session).finish().await;
        let (who, database) = (who.unwrap_or_default(), database.unwrap_or_default());
        Ok(SystemIs::There(format!("MySQL server {who}, database {database}")))
    }

    async fn is_at_work(&self, backend: &str) -> Result<bool, Failure> {
        let sql = "select id from information_schema.processlist where id = ? and command <> 'Sleep'";
        let mut session = self.session().await?;
        let found = session.cells(sql, vec![Cell::Unsigned(number(backend)?)]).await?;
        Box::new(session).finish().await;
        Ok(!found.rows.is_empty())
    }

    async fn interrupt(&self, backend: &str) -> Result<(), Failure> {
        let sql = format!("kill query {}", number(backend)?);
        // The pool may have no other connection.
        let mut connection = self.options.connect().await?;
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
        Ok(connection.close().await?)
    }
}

/// The number of a connection.
fn number(backend: &str) -> Result<u64, Failure> {
    backend.parse().map_err(|_| Failure::plain(StepError::invalid(format!("`{backend}` is no connection"))))
}

fn first_text(found: &Cells) -> Option<String> {
    match found.rows.first()?.first()? {
        Cell::Text(text) => Some(text.clone()),
        _ => None,
    }
}

/// A connection.
struct MySqlSession(Leased<MySql>);

type Prepared = Query<'static, MySql, MySqlArguments>;

#[async_trait]
impl Session for MySqlSession {
    async fn run(
        &mut self,
        statement: &Statement<'_>,
        parameters: &[Value],
        keep: usize,
    ) -> Result<Answer, Failure> {
        let connection = self.0.get()?;
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
                        let values: Result<_, Failure> = (0..row.len()).map(|at| shown(&row, at)).collect();
                        answer.rows.push(values?);
                    }
                }
            }
        }
        if statement.reads() {
            answer.affected = 0;
        }
        Ok(answer)
    }

    async fn cells(&mut self, sql: &str, parameters: Vec<Cell>) -> Result<Cells, Failure> {
        let connection = self.0.get()?;
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
                    let values: Result<_, Failure> = (0..row.len()).map(|at| cell(&row, at)).collect();
                    cells.keep(values?, &mut held);
                }
            }
        }
        Ok(cells)
    }

    async fn shape(&mut self, sql: &str) -> Result<Shape, Failure> {
        let connection = self.0.get()?;
        let prepared = connection.prepare(AssertSqlSafe(sql.to_owned()).into_sql_str()).await?;
        let column = |one: &MySqlColumn| (one.name().to_owned(), one.type_info().name().to_owned());
        let columns = prepared.columns().iter().map(column).collect();
        Ok(Shape::counted(columns, prepared.parameters()))
    }

    async fn script(&mut self, sql: &str) -> Result<(), Failure> {
        let connection = self.0.get()?;
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await?;
        Ok(())
    }

    async fn begin(&mut self, how: Begin) -> Result<(), Failure> {
        let read_only = how == Begin::ReadOnly;
        self.script(if read_only { "start transaction read only" } else { "start transaction" }).await
    }

    async fn backend(&mut self) -> Result<Option<String>, Failure> {
        Ok(first_text(&self.cells("select cast(connection_id() as char)", Vec::new()).await?))
    }

    async fn finish(self: Box<Self>) {
        self.0.give_back();
    }
}

fn bound(query: Prepared, cell: Cell) -> Prepared {
    match cell {
        Cell::Null => query.bind(None::<String>),
        Cell::Integer(number) => query.bind(number),
        Cell::Unsigned(number) => query.bind(number),
        Cell::Real(number) => query.bind(number),
        Cell::Text(text) => query.bind(text),
        Cell::Blob(bytes) => query.bind(bytes),
    }
}
