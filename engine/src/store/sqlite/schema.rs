//! Opening a database file: its folders, its settings, its tables.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, SqlSafeStr};

use super::{chain, failed};
use crate::store::StoreError;

/// Versions before this one can corrupt a file that two connections write to and checkpoint at one time.
const OLDEST: [u32; 3] = [3, 51, 3];

/// The version of the tables.
const VERSION: i64 = 3;

/// How long a statement waits for another process; also how long opening goes on when the file is busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

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

/// How a connection is set up that only reads.
pub fn to_read(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .read_only(true)
        .busy_timeout(PATIENCE)
        .disable_statement_logging()
}

/// Whether there is a log beside the file with what may not be in the file yet.
pub fn has_log(path: &Path) -> bool {
    std::fs::metadata(log_of(path)).is_ok_and(|log| log.len() > 0)
}

fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// Whether there is a file with anything in it. An error when there is none although there is a log: opening it would make a new file
/// and throw the log away, with everything that was written last.
pub fn is_there(path: &Path) -> Result<bool, StoreError> {
    let there = std::fs::metadata(path).is_ok_and(|file| file.len() > 0);
    if !there && has_log(path) {
        return Err(StoreError::Io(format!(
            "{} is missing or empty, but {} is there; nothing was touched: put the file back, or move both away to begin anew",
            path.display(),
            log_of(path).display()
        )));
    }
    Ok(there)
}

/// Whether the tables are those of this program; false when they have to be brought up to date. An error when they are later ones.
pub async fn is_current(pool: &SqlitePool) -> Result<bool, StoreError> {
    let versions = "select coalesce(max(version), 0) from _sqlx_migrations";
    let present: i64 = match sqlx::query_scalar(versions).fetch_one(pool).await {
        Ok(version) => version,
        // A file that was made a moment ago has no tables yet.
        Err(error)
            if error.as_database_error().is_some_and(|error| error.message().contains("no such table")) =>
        {
            0
        }
        Err(error) => return Err(failed(&error)),
    };
    if present > VERSION {
        let message =
            format!("its tables have version {present}, made by a later program; this one knows {VERSION}");
        return Err(StoreError::Io(message));
    }
    Ok(present == VERSION)
}

/// Makes the folders (0700) and the file (0600) that are missing.
pub async fn make_file(path: &Path) -> Result<(), StoreError> {
    let failed = |error: std::io::Error| {
        StoreError::Io(format!("can not create {}: {}", path.display(), chain(&error)))
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).await.map_err(failed)?;
    }
    is_there(path)?;
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
    let all: [(i64, &str, &'static str); 3] = [
        (1, "runs", include_str!("../../../migrations/sqlite/0001_runs.sql")),
        (2, "applied plans", include_str!("../../../migrations/sqlite/0002_applied_plans.sql")),
        (VERSION, "sums", include_str!("../../../migrations/sqlite/0003_sums.sql")),
    ];
    let migrations = all.map(|(version, name, text)| {
        Migration::new(version, name.to_owned().into(), MigrationType::Simple, text.into_sql_str(), false)
    });
    let migrator = Migrator::with_migrations(migrations.into());
    let mut transaction = connection.begin_with("begin immediate").await.map_err(|error| failed(&error))?;
    migrator.run_direct(None, &mut *transaction, false).await.map_err(|error| {
        let error = chain(&error);
        StoreError::Io(format!("the tables can not be brought to this program's version: {error}"))
    })?;
    transaction.commit().await.map_err(|error| failed(&error))
}

/// Whether another process has the file locked.
pub fn is_busy(error: &sqlx::Error) -> bool {
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
