//! Opening a database file only to read it: also where nothing can be written, on a disk that is full or a folder of somebody else.

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteLockingMode, SqlitePool, SqlitePoolOptions};

use super::{READERS, chain, schema};
use crate::store::StoreError;

/// What was opened.
pub struct Reading {
    /// The connections.
    pub pool: SqlitePool,
    /// What to keep in mind about what is read; none when it is read as always.
    pub caveat: Option<String>,
}

/// Opens the file without changing it. None when its tables have to be brought up to date first.
pub async fn open(path: &Path) -> Result<Option<Reading>, StoreError> {
    let usual = schema::to_read(path);
    let first = match attempt(usual.clone(), READERS).await {
        Err(error) if is_unwritable(&error) => error,
        Err(error) => return Err(StoreError::Io(format!("{}: {}", path.display(), chain(&error)))),
        Ok(pool) => return current(pool, None).await,
    };
    let why = chain(&first);
    // The log of what is not in the file yet has an index in shared memory, which can not be made here. One connection that shares
    // nothing keeps an index of its own.
    let (options, caveat) = if schema::has_log(path) {
        (usual.vfs("unix-none").locking_mode(SqliteLockingMode::Exclusive), "without its locks")
    } else {
        (usual.immutable(true), "as it is on the disk")
    };
    let pool = attempt(options, 1)
        .await
        .map_err(|error| StoreError::Io(format!("{}: {}", path.display(), chain(&error))))?;
    let caveat = format!(
        "{} is only read, {caveat} ({why}): what another process writes at this moment may be missing",
        path.display()
    );
    current(pool, Some(caveat)).await
}

async fn attempt(options: SqliteConnectOptions, connections: u32) -> Result<SqlitePool, sqlx::Error> {
    let deadline = Instant::now() + schema::PATIENCE;
    loop {
        let pool =
            SqlitePoolOptions::new().max_connections(connections).connect_with(options.clone()).await?;
        // Nothing of the file is touched before the first statement.
        match sqlx::query("select 1 from sqlite_schema").fetch_optional(&pool).await {
            Ok(_) => return Ok(pool),
            // A process that is making the file does not let others wait as it does later.
            Err(error) if schema::is_busy(&error) && Instant::now() < deadline => {
                pool.close().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn current(pool: SqlitePool, caveat: Option<String>) -> Result<Option<Reading>, StoreError> {
    Ok(schema::is_current(&pool).await?.then_some(Reading { pool, caveat }))
}

/// Whether the disk or the rights refused, and not what is in the file.
fn is_unwritable(error: &sqlx::Error) -> bool {
    // SQLITE_PERM, READONLY, IOERR, FULL, CANTOPEN; the low byte is the primary result code.
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.and_then(|code| code.parse::<u32>().ok())
        .is_some_and(|code| matches!(code & 0xff, 3 | 8 | 10 | 13 | 14))
}
