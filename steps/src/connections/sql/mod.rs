//! SQL databases: what the connection kinds `postgres`, `mysql` and `sqlite` share. Steps and collections work on a [`Database`] and its
//! [`Session`]s, and know the dialect only where SQL itself differs.

pub mod error;
pub mod mysql;
mod mysql_values;
pub mod postgres;
mod postgres_fate;
mod postgres_url;
mod postgres_values;
pub(crate) mod psql;
pub mod scan;
pub(super) mod server;
pub mod sqlite;

use std::collections::BTreeMap;

use async_trait::async_trait;
use runbook_engine::error::StepError;
use serde_json::Value;
use sqlx::Either;
use sqlx::pool::PoolConnection;

pub use error::Failure;

use crate::kind::SystemIs;

/// Which SQL a database speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    MySql,
    /// SQLite.
    Sqlite,
}

/// One value of a row, or a bound parameter, as it is without any loss.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// No value.
    Null,
    /// A whole number.
    Integer(i64),
    /// A whole number beyond that.
    Unsigned(u64),
    /// A floating-point number.
    Real(f64),
    /// A text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl Cell {
    /// How many bytes it holds, about.
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Blob(bytes) => bytes.len(),
            _ => 8,
        }
    }
}

/// What a statement with cells came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cells {
    /// The rows.
    pub rows: Vec<Vec<Cell>>,
    /// How many rows it changed, as the database counts.
    pub affected: u64,
    /// Whether rows were left out because those before hold too many bytes together.
    pub cut: bool,
}

/// What a statement gives and takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Its columns: the name and the type of each, as the database calls it; SQLite tells no types.
    pub columns: Vec<(String, String)>,
    /// The types of its parameters, as PostgreSQL calls them; the others tell only how many there are.
    pub parameters: Vec<String>,
}

impl Shape {
    /// What a statement was prepared as, by a driver that tells of parameters only how many there are.
    fn counted<T>(columns: Vec<(String, String)>, parameters: Option<Either<&[T], usize>>) -> Self {
        let parameters = parameters.map_or(0, |all| all.either(<[T]>::len, |count| count));
        Self { columns, parameters: vec![String::new(); parameters] }
    }
}

/// What a statement came to, for people and expressions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The first rows, each with a value per column.
    pub rows: Vec<Vec<Value>>,
    /// How many rows there were in all.
    pub total: u64,
    /// How many rows it changed; 0 for one that reads.
    pub affected: u64,
}

/// How many bytes of rows are held at once.
const HELD_BYTES: usize = 32 * 1024 * 1024;

impl Cells {
    /// Keeps a row, unless those before hold too much.
    fn keep(&mut self, row: Vec<Cell>, held: &mut usize) {
        if *held >= HELD_BYTES {
            self.cut = true;
            return;
        }
        *held += row.iter().map(Cell::bytes).sum::<usize>();
        self.rows.push(row);
    }
}

/// How a transaction begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It may only read; the database refuses everything else.
    ReadOnly,
    /// It may write.
    Write,
}

/// A connection that is in use. Dropped without [`Session::finish`] it is closed, and the database rolls back what it had begun.
#[async_trait]
pub trait Session: Send {
    /// Runs one statement with parameters bound, and keeps its first rows.
    async fn run(
        &mut self,
        statement: &scan::Statement<'_>,
        parameters: &[Value],
        keep: usize,
    ) -> Result<Answer, Failure>;

    /// Runs one statement of ours. PostgreSQL is given every parameter as a text, which the statement casts.
    async fn cells(&mut self, sql: &str, parameters: Vec<Cell>) -> Result<Cells, Failure>;

    /// What a statement gives and takes, without running it.
    async fn shape(&mut self, sql: &str) -> Result<Shape, Failure>;

    /// Runs statements as they stand, without parameters.
    async fn script(&mut self, sql: &str) -> Result<(), Failure>;

    /// Begins a transaction.
    async fn begin(&mut self, how: Begin) -> Result<(), Failure>;

    /// What the server calls the transaction, where it can be asked later what became of it.
    async fn transaction(&mut self) -> Result<Option<String>, Failure> {
        Ok(None)
    }

    /// What the server calls this connection, so that another one can look whether it is at work, or stop it; none where there is no server.
    async fn backend(&mut self) -> Result<Option<String>, Failure> {
        Ok(None)
    }

    /// Ends the transaction with its effect. A failure after which nobody knows whether it had it says so.
    async fn commit(&mut self) -> Result<(), Failure> {
        self.script("commit").await.map_err(Failure::at_commit)
    }

    /// Ends the transaction without effect.
    async fn rollback(&mut self) -> Result<(), Failure> {
        self.script("rollback").await
    }

    /// Gives the connection back for others. It is in no transaction.
    async fn finish(self: Box<Self>);
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It had its effect.
    Committed,
    /// It had none and will have none.
    RolledBack,
    /// It is not over.
    Open,
    /// The server does not know.
    Unknown,
}

/// One database.
#[async_trait]
pub trait Driver: Send + Sync {
    /// Which SQL it speaks.
    fn dialect(&self) -> Dialect;

    /// The database in words, without credentials.
    fn describe(&self) -> String;

    /// A connection, waited for as long as the settings say.
    async fn open(&self) -> Result<Box<dyn Session>, Failure>;

    /// Which database it is, see `ConnectionKind::identity`.
    async fn identity(&self) -> Result<SystemIs, StepError>;

    /// The environment in which the programs of the server's own make reach the database; none where there are no such programs.
    fn environment(&self) -> Option<BTreeMap<String, String>> {
        None
    }

    /// Another database of the same server; none where a server has one only.
    fn other(&self, name: &str) -> Option<Database> {
        let _ = name;
        None
    }

    /// What is in it, see `ConnectionKind::content`.
    async fn content(&self) -> Result<Option<String>, StepError> {
        Ok(None)
    }

    /// From now on it is only read from, see `ConnectionKind::only_read`.
    fn only_read(&self) {}

    /// Whether a connection that [`Session::backend`] named is at work on a statement.
    async fn is_at_work(&self, backend: &str) -> Result<bool, Failure> {
        let _ = backend;
        Ok(false)
    }

    /// Ends the statement that a connection is at work on, by way of another connection.
    async fn interrupt(&self, backend: &str) -> Result<(), Failure> {
        let _ = backend;
        Ok(())
    }

    /// Whether the server has a connection that [`Session::backend`] named, or one that may be it.
    async fn has(&self, backend: &str) -> Result<bool, Failure> {
        let _ = backend;
        Ok(false)
    }

    /// Ends a connection, by way of another one: its transaction is taken back.
    async fn end(&self, backend: &str) -> Result<(), Failure> {
        let _ = backend;
        Ok(())
    }

    /// Has the server keep the number of a transaction, which [`Session::transaction`] told and which is not over, whatever happens to it: a
    /// number that a crash takes from it is given again. What to ask [`Driver::fate`] for; nothing where that could tell a falsehood.
    async fn kept(&self, transaction: &str) -> Result<Option<String>, Failure> {
        Ok(Some(transaction.to_owned()))
    }

    /// What became of a transaction that [`Driver::kept`] named.
    async fn fate(&self, transaction: &str) -> Result<Fate, Failure> {
        let _ = transaction;
        Ok(Fate::Unknown)
    }
}

/// The client of every SQL connection.
pub struct Database(Box<dyn Driver>);

impl std::ops::Deref for Database {
    type Target = dyn Driver;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl Database {
    fn new(driver: impl Driver + 'static) -> Self {
        Self(Box::new(driver))
    }

    /// A connection in a transaction.
    pub async fn begin(&self, how: Begin) -> Result<Box<dyn Session>, Failure> {
        let mut session = self.open().await?;
        session.begin(how).await?;
        Ok(session)
    }
}

/// A connection of a pool that goes back only when it is known to be clean, and is closed otherwise.
struct Leased<DB: sqlx::Database>(Option<PoolConnection<DB>>);

impl<DB: sqlx::Database> Leased<DB> {
    fn new(connection: PoolConnection<DB>) -> Self {
        Self(Some(connection))
    }

    fn get(&mut self) -> Result<&mut DB::Connection, Failure> {
        self.0.as_deref_mut().ok_or_else(Failure::closed)
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl<DB: sqlx::Database> Drop for Leased<DB> {
    fn drop(&mut self) {
        // Out of the pool, so that nobody gets a connection in the middle of a transaction.
        drop(self.0.take().map(PoolConnection::detach));
    }
}

/// A name in double quotes, as PostgreSQL and SQLite have it, or in backticks, as MySQL has it.
pub fn quoted(dialect: Dialect, name: &str) -> String {
    match dialect {
        Dialect::MySql => format!("`{}`", name.replace('`', "``")),
        _ => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// A value of an author as a parameter of MySQL or SQLite.
pub(crate) fn as_cell(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Bool(flag) => Cell::Integer(i64::from(*flag)),
        Value::String(text) => Cell::Text(text.clone()),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => Cell::Integer(number),
            (_, Some(number), _) => Cell::Unsigned(number),
            (_, _, Some(number)) => Cell::Real(number),
            _ => Cell::Text(number.to_string()),
        },
        other => Cell::Text(other.to_string()),
    }
}

/// Refused unless as many parameters are given as the statement takes.
fn check_parameters<T>(wanted: Option<Either<&[T], usize>>, given: &[Value]) -> Result<(), Failure> {
    let wanted = match wanted {
        Some(Either::Left(types)) => types.len(),
        Some(Either::Right(count)) => count,
        None => return Ok(()),
    };
    if wanted == given.len() {
        return Ok(());
    }
    let message = format!("the statement takes {wanted} parameters and is given {}", given.len());
    Err(Failure::plain(StepError::invalid(message)))
}

/// Bytes as a text for people: `\x` and hex digits, as PostgreSQL shows them.
fn shown_bytes(bytes: &[u8]) -> Value {
    Value::from(format!("\\x{}", crate::digest::hex(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted(Dialect::Postgres, r#"a"b"#), r#""a""b""#);
        assert_eq!(quoted(Dialect::Sqlite, "Ring"), r#""Ring""#);
        assert_eq!(quoted(Dialect::MySql, "a`b\""), "`a``b\"`");
    }
}
