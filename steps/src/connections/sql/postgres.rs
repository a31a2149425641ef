//! Connection kind `postgres`: a PostgreSQL database.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use percent_encoding::percent_decode_str;
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgSslMode, Postgres};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Either, Executor as _, Row as _};
use url::{Host, Url};

use super::postgres_fate;
use super::postgres_url::{check, said};
use super::postgres_values::{Bound, bind, decoded, plan_of, shape_of};
use super::scan::Statement;
use super::server::{
    Parts, SslFiles, SslMode, default_connect_timeout, default_lock_timeout, default_max_connections,
    described,
};
use super::{Answer, Begin, Cell, Cells, Database, Dialect, Driver, Failure, Fate, Leased, Session, Shape};
use crate::kind::{ConnectionKind, OpenContext, SystemIs};

/// A PostgreSQL database. Where it is stands in `url`, in the single settings, or in both: a single setting overrides its part of the URL.
/// Nothing is reached before a step needs it.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresConnection {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=MODE`. May hold a secret.
    #[serde(default)]
    pub url: Option<String>,
    /// The server's name or address, or the folder of its socket.
    #[serde(default)]
    pub host: Option<String>,
    /// The server's port. Default 5432.
    #[serde(default)]
    pub port: Option<u16>,
    /// The database. Default: the one that has the user's name.
    #[serde(default)]
    pub database: Option<String>,
    /// Who asks.
    #[serde(default)]
    pub user: Option<String>,
    /// Their password. May hold a secret. Without it, the password file `~/.pgpass` is looked into.
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
    /// What the server shows as the name of the program. Default `runbook`.
    #[serde(default)]
    pub application_name: Option<String>,
    /// The most connections at a time. Default 4.
    #[serde(default = "default_max_connections")]
    #[schemars(range(min = 1, max = 100))]
    pub max_connections: u32,
    /// How long a connection is waited for. Default `10s`.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Duration,
    /// How long a lock is waited for. Default `10s`.
    #[serde(default = "default_lock_timeout")]
    pub lock_timeout: Duration,
    /// How long one statement may take. Default: as long as it needs.
    #[serde(default)]
    pub statement_timeout: Option<Duration>,
}

#[async_trait]
impl ConnectionKind for PostgresConnection {
    const NAME: &'static str = "postgres";
    const SUMMARY: &'static str = "A PostgreSQL database";
    const SECRET_FIELDS: &'static [&'static str] = &["/url", "/password"];
    type Client = Database;

    fn open(self, _: &OpenContext<'_>) -> Result<Database, StepError> {
        let (options, password, files) = self.options()?;
        let environment = self.environment(&options, password, &files);
        let mut settings = format!(
            "set standard_conforming_strings = on; set intervalstyle = 'postgres'; set bytea_output = 'hex'; \
             set extra_float_digits = 1; set timezone = 'UTC'; set datestyle = 'ISO, MDY'; set lock_timeout = {}",
            millis(self.lock_timeout)
        );
        if let Some(timeout) = self.statement_timeout {
            settings.push_str(&format!("; set statement_timeout = {}", millis(timeout)));
        }
        let pool = PoolOptions::new()
            .max_connections(self.max_connections)
            .acquire_timeout(self.connect_timeout.0)
            .after_connect(move |connection: &mut PgConnection, _| {
                let settings = settings.clone();
                Box::pin(
                    async move { connection.execute(sqlx::raw_sql(AssertSqlSafe(settings))).await.map(drop) },
                )
            });
        Ok(Database::new(Server { options, environment, pool, made: OnceLock::new() }))
    }

    fn place(client: &Database) -> String {
        client.describe()
    }

    async fn identity(client: &Database) -> Result<SystemIs, StepError> {
        client.identity().await
    }
}

/// A length of time as settings of a server take it, never 0, which would be none.
pub(super) fn millis(duration: Duration) -> u128 {
    duration.0.as_millis().max(1)
}

impl PostgresConnection {
    /// The options, the password that they hold, and their files.
    fn options(&self) -> Result<(PgConnectOptions, Option<String>, SslFiles), StepError> {
        let parts = Parts {
            url: self.url.clone(),
            host: self.host.clone(),
            port: self.port,
            database: self.database.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
        };
        let url = parts.url(&["postgres", "postgresql"])?;
        check(&url)?;
        let says_mode = said(&url, &["sslmode", "ssl-mode"]).is_some();
        let mut options = PgConnectOptions::from_url(&url).map_err(|error| {
            StepError::invalid("the address of the database is unusable").with_source(&error)
        })?;
        // What the environment of this process says counts for nothing.
        if url.port().is_none() && said(&url, &["port"]).is_none() {
            options = options.port(5432);
        }
        if let Some(Host::Ipv6(address)) = url.host()
            && said(&url, &["host", "hostaddr"]).is_none()
        {
            options = options.host(&address.to_string());
        }
        if self.ssl_mode.is_some() || !says_mode {
            options = options.ssl_mode(match self.ssl_mode.unwrap_or_default() {
                SslMode::Disable => PgSslMode::Disable,
                SslMode::Prefer => PgSslMode::Prefer,
                SslMode::Require => PgSslMode::Require,
                SslMode::VerifyCa => PgSslMode::VerifyCa,
                SslMode::VerifyFull => PgSslMode::VerifyFull,
            });
        }
        let files = self.files(&url);
        if let Some(file) = &files.root_cert {
            options = options.ssl_root_cert(file);
        }
        if let Some(file) = &files.cert {
            options = options.ssl_client_cert(file);
        }
        if let Some(file) = &files.key {
            options = options.ssl_client_key(file);
        }
        // Statements are seldom run twice, and one that is kept breaks when a schema is reset under it.
        let name = self.application_name.as_deref().unwrap_or("runbook");
        let options = options.application_name(name).statement_cache_capacity(0);
        let password = url.password().map(|text| percent_decode_str(text).decode_utf8_lossy().into_owned());
        Ok((options, said(&url, &["password"]).map(Cow::into_owned).or(password), files))
    }

    /// The files of an encrypted connection, by the settings or else by the address.
    fn files(&self, url: &Url) -> SslFiles {
        let file = |set: &Option<PathBuf>, names: &[&str]| {
            set.clone().or_else(|| Some(PathBuf::from(&*said(url, names)?)))
        };
        SslFiles {
            root_cert: file(&self.ssl_root_cert, &["sslrootcert", "ssl-root-cert", "ssl-ca"]),
            cert: file(&self.ssl_cert, &["sslcert", "ssl-cert"]),
            key: file(&self.ssl_key, &["sslkey", "ssl-key"]),
        }
    }

    /// The same for programs that use libpq.
    fn environment(
        &self,
        options: &PgConnectOptions,
        password: Option<String>,
        files: &SslFiles,
    ) -> BTreeMap<String, String> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let host = options.get_socket().map(|folder| folder.display().to_string());
        let mode = match options.get_ssl_mode() {
            PgSslMode::Disable => "disable",
            PgSslMode::Allow => "allow",
            PgSslMode::Prefer => "prefer",
            PgSslMode::Require => "require",
            PgSslMode::VerifyCa => "verify-ca",
            PgSslMode::VerifyFull => "verify-full",
        };
        let all = [
            ("PGHOST", Some(host.unwrap_or_else(|| options.get_host().to_owned()))),
            ("PGPORT", Some(options.get_port().to_string())),
            ("PGUSER", Some(options.get_username().to_owned())),
            ("PGDATABASE", options.get_database().map(str::to_owned)),
            ("PGPASSWORD", password),
            ("PGSSLMODE", Some(mode.to_owned())),
            ("PGSSLROOTCERT", path(&files.root_cert)),
            ("PGSSLCERT", path(&files.cert)),
            ("PGSSLKEY", path(&files.key)),
            ("PGCONNECT_TIMEOUT", Some(self.connect_timeout.0.as_secs().max(2).to_string())),
            ("PGAPPNAME", Some("runbook".to_owned())),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// A server, with its pool once it was needed.
struct Server {
    options: PgConnectOptions,
    environment: BTreeMap<String, String>,
    pool: PoolOptions<Postgres>,
    made: OnceLock<PgPool>,
}

impl Server {
    async fn session(&self) -> Result<PgSession, Failure> {
        // Made here and not before, because a pool needs the runtime.
        let pool = self.made.get_or_init(|| self.pool.clone().connect_lazy_with(self.options.clone()));
        Ok(PgSession(Leased::new(pool.acquire().await?)))
    }

    /// How many rows a statement about another connection gives. The pool may have no other connection to ask by.
    async fn beside(&self, sql: String, backend: &str) -> Result<usize, Failure> {
        let asked = async {
            let mut connection = self.options.connect().await?;
            let asked = sqlx::query(AssertSqlSafe(sql)).bind(backend.to_owned());
            let found = connection.fetch_all(asked).await?.len();
            connection.close().await?;
            Ok(found)
        };
        Ok(self.soon(asked).await?)
    }

    /// What is asked by a connection beside the pool's, within `connect_timeout`: a pooler without room lets it wait for one that may be ours.
    async fn soon<T>(&self, asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        let most = self.pool.get_acquire_timeout();
        tokio::time::timeout(most, asked).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }
}

#[async_trait]
impl Driver for Server {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn describe(&self) -> String {
        let o = &self.options;
        let socket = o.get_socket().map(|path| path.display().to_string());
        described("postgres", socket.as_deref().unwrap_or(o.get_host()), o.get_port(), o.get_database())
    }

    async fn open(&self) -> Result<Box<dyn Session>, Failure> {
        Ok(Box::new(self.session().await?))
    }

    async fn identity(&self) -> Result<SystemIs, StepError> {
        let mut session = self.session().await?;
        let database = one_text(&mut session, "select current_database()").await?;
        let system = one_text(&mut session, "select system_identifier::text from pg_control_system()").await;
        // One that was dropped and made anew has the same name. The path decides which table a name is.
        let oid = "select oid::text from pg_database where datname = current_database()";
        let database = format!("{database} (oid {})", one_text(&mut session, oid).await?);
        let path = one_text(&mut session, "select current_setting('search_path')").await?;
        let database = format!("{database}, search path {path}");
        let who = match system {
            Ok(system) => format!("PostgreSQL system {system}, database {database}"),
            // Not everybody may ask for it.
            Err(failure) if !failure.lost => {
                let (host, port) = (self.options.get_host(), self.options.get_port());
                format!("PostgreSQL at {host}:{port}, database {database}")
            }
            Err(failure) => return Err(failure.into()),
        };
        Box::new(session).finish().await;
        Ok(SystemIs::There(who))
    }

    fn environment(&self) -> Option<BTreeMap<String, String>> {
        Some(self.environment.clone())
    }

    fn other(&self, name: &str) -> Option<Database> {
        let mut environment = self.environment.clone();
        environment.insert("PGDATABASE".to_owned(), name.to_owned());
        let (options, pool) = (self.options.clone().database(name), self.pool.clone());
        Some(Database::new(Self { options, environment, pool, made: OnceLock::new() }))
    }

    async fn is_at_work(&self, backend: &str) -> Result<bool, Failure> {
        let sql = format!(
            "select pid::text from pg_stat_activity where {BACKEND} = $1 and state is distinct from 'idle'"
        );
        let mut session = self.session().await?;
        let found = session.cells(&sql, vec![Cell::Text(backend.to_owned())]).await?;
        Box::new(session).finish().await;
        Ok(!found.rows.is_empty())
    }

    async fn interrupt(&self, backend: &str) -> Result<(), Failure> {
        let sql = format!("select pg_cancel_backend(pid) from pg_stat_activity where {BACKEND} = $1");
        self.beside(sql, backend).await.map(drop)
    }

    async fn has(&self, backend: &str) -> Result<bool, Failure> {
        // When it began is not told of a connection of another account.
        let sql = format!(
            "select pid from pg_stat_activity where {BACKEND} = $1 \
             or (backend_start is null and pid::text = split_part($1, ' ', 1))"
        );
        Ok(self.beside(sql, backend).await? > 0)
    }

    async fn end(&self, backend: &str) -> Result<(), Failure> {
        let sql = format!("select pg_terminate_backend(pid) from pg_stat_activity where {BACKEND} = $1");
        self.beside(sql, backend).await.map(drop)
    }

    async fn kept(&self, transaction: &str) -> Result<Option<String>, Failure> {
        let asked = async {
            let mut connection = self.options.connect().await?;
            let kept = postgres_fate::kept(&mut connection, transaction).await?;
            connection.close().await?;
            Ok(kept)
        };
        // Not every server that speaks so has all that, and there may be no room for one more connection.
        Ok(self.soon(asked).await.ok().flatten())
    }

    async fn fate(&self, transaction: &str) -> Result<Fate, Failure> {
        let mut session = self.session().await?;
        let fate = postgres_fate::fate(&mut session, transaction).await;
        Box::new(session).finish().await;
        fate
    }
}

/// A connection by its process and by when that began, because numbers of processes come again.
const BACKEND: &str = "pid::text || ' ' || extract(epoch from backend_start)::text";

/// The only text that a query gives.
pub(super) async fn one_text(session: &mut PgSession, sql: &str) -> Result<String, Failure> {
    let found = session.cells(sql, Vec::new()).await?;
    match found.rows.into_iter().next().and_then(|row| row.into_iter().next()) {
        Some(Cell::Text(text)) => Ok(text),
        _ => Err(Failure::plain(StepError::refused(format!("the server gave no answer to `{sql}`")))),
    }
}

/// A connection.
pub(super) struct PgSession(Leased<Postgres>);

#[async_trait]
impl Session for PgSession {
    async fn run(
        &mut self,
        statement: &Statement<'_>,
        parameters: &[Value],
        keep: usize,
    ) -> Result<Answer, Failure> {
        let connection = self.0.get()?;
        let plan = plan_of(connection, statement).await?;
        let bound = bind(connection, &plan, parameters).await?;
        let mut answer = Answer { columns: plan.columns.clone(), ..Answer::default() };
        let mut query = sqlx::query(AssertSqlSafe(plan.sql.clone())).persistent(false);
        for value in bound {
            query = query.bind(value);
        }
        let mut stream = connection.fetch_many(query);
        while let Some(step) = stream.try_next().await? {
            match step {
                Either::Left(done) => answer.affected += done.rows_affected(),
                Either::Right(row) => {
                    answer.total += 1;
                    if answer.rows.len() < keep {
                        answer.rows.push(decoded(&row, &plan)?);
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
            query = query.bind(match parameter {
                Cell::Null => None,
                Cell::Integer(number) => Some(number.to_string()),
                Cell::Unsigned(number) => Some(number.to_string()),
                Cell::Real(number) => Some(number.to_string()),
                Cell::Text(text) => Some(text),
                Cell::Blob(bytes) => Some(format!("\\x{}", crate::digest::hex(&bytes))),
            });
        }
        let (mut cells, mut held) = (Cells::default(), 0);
        let mut stream = connection.fetch_many(query);
        while let Some(step) = stream.try_next().await? {
            match step {
                Either::Left(done) => cells.affected += done.rows_affected(),
                Either::Right(row) => {
                    let texts: Result<Vec<_>, sqlx::Error> =
                        (0..row.len()).map(|at| cell(&row, at)).collect();
                    cells.keep(texts?, &mut held);
                }
            }
        }
        Ok(cells)
    }

    async fn shape(&mut self, sql: &str) -> Result<Shape, Failure> {
        shape_of(self.0.get()?, sql).await
    }

    async fn script(&mut self, sql: &str) -> Result<(), Failure> {
        let connection: &mut PgConnection = self.0.get()?;
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await?;
        Ok(())
    }

    async fn begin(&mut self, how: Begin) -> Result<(), Failure> {
        self.script(if how == Begin::ReadOnly { "begin transaction read only" } else { "begin" }).await
    }

    async fn transaction(&mut self) -> Result<Option<String>, Failure> {
        one_text(self, "select txid_current()::text").await.map(Some)
    }

    async fn backend(&mut self) -> Result<Option<String>, Failure> {
        let sql = format!("select {BACKEND} from pg_stat_activity where pid = pg_backend_pid()");
        match one_text(self, &sql).await {
            Ok(backend) => Ok(Some(backend)),
            // Not every server that speaks so has the view, and not everybody may ask for it.
            Err(failure) if !failure.lost => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    async fn finish(self: Box<Self>) {
        self.0.give_back();
    }
}

/// A column of a row as a text; our statements cast everything to one.
fn cell(row: &sqlx::postgres::PgRow, at: usize) -> Result<Cell, sqlx::Error> {
    Ok(row.try_get::<Option<String>, _>(at)?.map_or(Cell::Null, Cell::Text))
}

/// A parameter of an author as it is sent.
pub(super) type Parameters = Vec<Bound>;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_leads_where_its_query_says() {
        let opened = |url: &str| {
            let connection: PostgresConnection = serde_json::from_value(json!({ "url": url })).unwrap();
            let (options, password, files) = connection.options().unwrap();
            let environment = connection.environment(&options, password, &files);
            let of = |name: &str| environment.get(name).cloned().unwrap_or_default();
            ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGSSLROOTCERT"].map(of)
        };
        assert_eq!(opened("postgres://u:p%40@h/d"), ["h", "5432", "u", "d", "p@", ""]);
        assert_eq!(opened("postgres://u:p@h/d?port=55432"), ["h", "55432", "u", "d", "p", ""]);
        assert_eq!(opened("postgres://u:p@[::1]:55432/d"), ["::1", "55432", "u", "d", "p", ""]);
        assert_eq!(
            opened("postgres:///d?host=/run/pg&port=55432&user=v&password=q&sslrootcert=/ca"),
            ["/run/pg", "55432", "v", "d", "q", "/ca"]
        );
    }
}
