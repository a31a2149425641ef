//! The databases that the tests of SQL run on.

use runbook_sandbox::database::{DatabaseServer, Kind};
use runbook_steps::connections::sql::Dialect;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};

/// A database that is there as long as the test.
pub enum Db {
    /// One of a server.
    Server(DatabaseServer, Dialect),
    /// A file.
    File(tempfile::TempDir),
}

impl Db {
    /// PostgreSQL.
    pub async fn postgres() -> Self {
        Self::Server(DatabaseServer::start(Kind::Postgres).await.unwrap(), Dialect::Postgres)
    }

    /// MariaDB.
    pub async fn mariadb() -> Self {
        Self::Server(DatabaseServer::start(Kind::MariaDb).await.unwrap(), Dialect::MySql)
    }

    /// SQLite.
    pub async fn sqlite() -> Self {
        let db = Self::File(tempfile::tempdir().unwrap());
        db.execute("pragma journal_mode = wal").await;
        db
    }

    /// Its SQL.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Server(_, dialect) => *dialect,
            Self::File(_) => Dialect::Sqlite,
        }
    }

    /// The connections of a runbook that uses it.
    pub fn connections(&self) -> Value {
        let db = match self {
            Self::Server(server, Dialect::Postgres) => json!({ "type": "postgres", "url": server.url() }),
            Self::Server(server, _) => json!({ "type": "mysql", "url": server.url() }),
            Self::File(folder) => json!({ "type": "sqlite", "path": folder.path().join("app.db") }),
        };
        json!({ "db": db })
    }

    /// The place of parameter `number` in a statement.
    pub fn place(&self, number: u32) -> String {
        if self.dialect() == Dialect::Postgres { format!("${number}") } else { "?".to_owned() }
    }

    /// Runs a statement in another database of the server.
    pub async fn execute_elsewhere(&self, sql: &str) {
        let Self::Server(server, _) = self else { panic!("there is no other database") };
        server.execute_in("postgres", sql).await.unwrap();
    }

    /// A session of somebody else on PostgreSQL, until it is dropped.
    pub async fn held(&self) -> sqlx::PgConnection {
        self.options().connect().await.unwrap()
    }

    /// The same of another user, whose password is `pw`.
    pub async fn held_by(&self, user: &str) -> sqlx::PgConnection {
        self.options().username(user).password("pw").connect().await.unwrap()
    }

    fn options(&self) -> sqlx::postgres::PgConnectOptions {
        let Self::Server(server, Dialect::Postgres) = self else { panic!("it is no PostgreSQL") };
        server.url().parse().unwrap()
    }

    /// Ends the server as a power cut would, and starts it again.
    pub async fn restart(&mut self) {
        let Self::Server(server, _) = self else { panic!("it has no server") };
        server.restart().await.unwrap();
    }

    /// Runs statements behind the back of the runbook.
    pub async fn execute(&self, sql: &str) {
        match self {
            Self::Server(server, _) => server.execute(sql).await.unwrap(),
            Self::File(folder) => {
                let options = SqliteConnectOptions::new()
                    .filename(folder.path().join("app.db"))
                    .create_if_missing(true);
                let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
                options.connect().await.unwrap().execute(sql).await.unwrap();
            }
        }
    }
}
