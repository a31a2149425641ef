//! Whether what is to be typed to restore a backup can work for its user. A probe restores rows, in a database of its own; the line that a person types
//! puts the whole database aside and makes it anew, with its owners and settings, which takes more.

use runbook_engine::error::StepError;

use crate::connections::sql::{Cell, Failure, Session};

/// What is not given of what it takes, one row each.
const WHY_NOT: &str = include_str!("restorable.sql");

/// The database that a client may be connected to while another one is made: one of those that every server has, and not this one.
const BESIDE: &str = "select datname::text from pg_database where datname in ('postgres', 'template1') and datname <> current_database() \
    and datallowconn and has_database_privilege(oid, 'CONNECT') order by datname";

/// What stands against it, and the database from which it is done.
pub(super) struct Restorable {
    against: Vec<String>,
    /// The database beside this one.
    pub(super) beside: String,
}

impl Restorable {
    /// Asks the server, as the user of the session.
    pub(super) async fn look(session: &mut dyn Session) -> Result<Self, Failure> {
        let mut against = texts(session, WHY_NOT).await?;
        let beside = texts(session, BESIDE).await?.into_iter().next();
        if beside.is_none() {
            against.push("its user may connect to no database of the server but this one".to_owned());
        }
        Ok(Self { against, beside: beside.unwrap_or_else(|| "postgres".to_owned()) })
    }

    /// An error when something stands against it.
    pub(super) fn judged(self, place: &str) -> Result<(), StepError> {
        if self.against.is_empty() {
            return Ok(());
        }
        let message =
            format!("what is to be typed to restore {place} would not work: {}", self.against.join("; "));
        Err(StepError::gate(message).with_help(
            "nothing was dumped or changed: give that to the user, or take a connection of one who has it",
        ))
    }
}

async fn texts(session: &mut dyn Session, sql: &str) -> Result<Vec<String>, Failure> {
    let rows = session.cells(sql, Vec::new()).await?.rows;
    let text = |row: Vec<Cell>| match row.into_iter().next() {
        Some(Cell::Text(text)) => Some(text),
        _ => None,
    };
    Ok(rows.into_iter().filter_map(text).collect())
}
