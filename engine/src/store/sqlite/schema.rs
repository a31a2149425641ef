//! Opening a database file: its folders, its settings, its tables.

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqlSafeStr};

use super::{chain, failed};
use crate::store::StoreError;

/// Versions before this one can corrupt a file that two connections write to and checkpoint at one time.
const OLDEST: [u32; 3] = [3, 51, 3];

/// How long a statement waits for another process; also how long opening goes on when the file is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// How every connection to the file is set up.
pub fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(PATIENCE)
        .disable_statement_logging()
}

/// Makes the folders (0700) and the file (0600) that are missing.
pub async fn make_file(path: &Path) -> Result<(), StoreError> {
    let failed = |error: std::io::Error| {
        StoreError::Io(format!("can not create {}: {}", path.display(), chain(&error)))
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).await.map_err(failed)?;
    }
    let mut open = tokio::fs::OpenOptions::new();
    open.create(true).truncate(false).write(true).mode(0o600);
    open.open(path).await.map(drop).map_err(failed)
}

/// A connection to the file, which is brought up to date. Other processes may be doing the same at this moment.
pub async fn prepare(options: &SqliteConnectOptions) -> Result<SqliteConnection, StoreError> {
    let deadline = Instant::now() + PATIENCE;
    let mut connection = loop {
        // Switching a new file to WAL does not wait for others as statements do.
        match options.connect().await {
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => break other.map_err(|error| failed(&error))?,
        }
    };
    let version: String = sqlx::query_scalar("select sqlite_version()")
        .fetch_one(&mut connection)
        .await
        .map_err(|error| failed(&error))?;
    check_version(&version)?;
    migrate(&mut connection).await?;
    Ok(connection)
}

/// Everything in one transaction that waits for its turn: two processes that start together do not meet.
async fn migrate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let first = Migration::new(
        1,
        "runs".into(),
        MigrationType::Simple,
        include_str!("../../../migrations/sqlite/0001_runs.sql").into_sql_str(),
        false,
    );
    let migrator = Migrator::with_migrations(vec![first]);
    let mut transaction = connection.begin_with("begin immediate").await.map_err(|error| failed(&error))?;
    migrator.run_direct(None, &mut *transaction, false).await.map_err(|error| {
        let error = chain(&error);
        StoreError::Io(format!("the tables can not be brought to this program's version: {error}"))
    })?;
    transaction.commit().await.map_err(|error| failed(&error))
}

fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    // The low byte is the primary result code: SQLITE_BUSY is 5.
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 5)
}

fn check_version(version: &str) -> Result<(), StoreError> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let found: [u32; 3] = std::array::from_fn(|_| parts.next().unwrap_or(0));
    if found >= OLDEST {
        return Ok(());
    }
    Err(StoreError::Io(format!("SQLite {version} can corrupt its files; 3.51.3 or later is needed")))
}

#[cfg(test)]
mod tests {
    use super::check_version;

    #[test]
    fn refuses_versions_that_corrupt() {
        for good in ["3.51.3", "3.52.0", "4.0.0", "3.100.1"] {
            assert_eq!(check_version(good), Ok(()), "{good}");
        }
        for bad in ["3.51.2", "3.46.0", "3.9.99", "", "x"] {
            assert!(check_version(bad).is_err(), "{bad}");
        }
    }
}
