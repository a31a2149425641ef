//! A reset of SQLite: everything in the file is dropped.

use runbook_engine::error::StepError;

use super::survey::{Survey, count, first, texts};
use crate::connections::sql::{Cell, Dialect, Failure, Session, quoted};

const TABLES: &str = "select name from sqlite_schema where type = 'table' and name not like 'sqlite\\_%' escape '\\' order by name";

/// What is dropped next. Virtual tables come first, since their shadow tables go with them.
const NEXT: &str = "select type, name from sqlite_schema where name not like 'sqlite\\_%' escape '\\' \
     and type in ('table', 'view', 'trigger') \
     order by type = 'table', sql not like 'create virtual%', name limit 1";

pub(super) async fn survey(session: &mut dyn Session) -> Result<Survey, Failure> {
    let tables = texts(session, TABLES, &[]).await?;
    count(session, Dialect::Sqlite, None, tables).await
}

/// Drops everything.
pub(super) async fn clear(session: &mut dyn Session) -> Result<(), StepError> {
    while let Some(row) = session.cells(NEXT, Vec::new()).await?.rows.into_iter().next() {
        let [Cell::Text(kind), Cell::Text(name)] = &row[..] else {
            return Err(StepError::refused("the schema of the file is not understood"));
        };
        session.script(&format!("drop {kind} {}", quoted(Dialect::Sqlite, name))).await?;
    }
    // The numbers that `autoincrement` came to.
    let sequences = "select name from sqlite_schema where name = 'sqlite_sequence'";
    if !texts(session, sequences, &[]).await?.is_empty() {
        session.script("delete from sqlite_sequence").await?;
    }
    Ok(())
}

/// Fails when a row refers to one that is not there: while the files ran, nothing looked.
pub(super) async fn check(session: &mut dyn Session) -> Result<(), StepError> {
    let broken = session.cells("pragma foreign_key_check", Vec::new()).await?.rows;
    match first(&broken) {
        None => Ok(()),
        Some(Cell::Text(table)) => {
            let rows = broken.len();
            let message = format!("{rows} rows refer to rows that are not there; the first is of `{table}`");
            Err(StepError::gate(message))
        }
        Some(_) => Err(StepError::gate("rows refer to rows that are not there")),
    }
}

/// The version of the schema, which every change of it raises.
pub(super) async fn version(session: &mut dyn Session) -> Result<i64, StepError> {
    match first(&session.cells("pragma schema_version", Vec::new()).await?.rows) {
        Some(Cell::Integer(version)) => Ok(version),
        _ => Err(StepError::refused("the file has no version of its schema")),
    }
}
