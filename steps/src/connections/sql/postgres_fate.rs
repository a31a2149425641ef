//! What became of a transaction of PostgreSQL, asked by its number.

use sqlx::postgres::PgConnection;
use sqlx::{Executor as _, Row as _};

use super::error::can_not_be;
use super::postgres::{PgSession, one_text};
use super::{Cell, Failure, Fate, Session as _};

/// What a cluster is called, which no other one is, and the timeline that it writes: whoever is promoted begins another one, and may have lost the last
/// transactions.
const SYSTEM: &str = "select (select system_identifier from pg_control_system()) || '.' || left(pg_walfile_name(pg_current_wal_lsn()), 8)";

/// Writes to the disk all that the server has logged until then, by way of a transaction that logs something.
const LOG_WRITTEN: &str = "begin; set local synchronous_commit to local; select pg_logical_emit_message(true, 'runbook', ''); commit";

/// What the server says of a transaction with this number.
const STATUS: &str = "select txid_status(cast($1::text as bigint))";

/// Has the server log the number of a transaction that is under way, by another connection; its number and the cluster. Nothing where this connection leads
/// elsewhere: it may have come to another server of the same name, such as one that was promoted since.
pub(super) async fn kept(
    connection: &mut PgConnection,
    transaction: &str,
) -> Result<Option<String>, sqlx::Error> {
    let status = connection.fetch_one(sqlx::query(STATUS).bind(transaction.to_owned())).await?;
    if status.try_get::<Option<&str>, _>(0)? != Some("in progress") {
        return Ok(None);
    }
    connection.execute(sqlx::raw_sql(LOG_WRITTEN)).await?;
    let system: String = connection.fetch_one(SYSTEM).await?.try_get(0)?;
    Ok(Some(format!("{transaction} {system}")))
}

/// What became of a transaction that [`kept`] named.
pub(super) async fn fate(session: &mut PgSession, transaction: &str) -> Result<Fate, Failure> {
    // Another cluster has other transactions of the same numbers, and so has one that went on elsewhere from an earlier state.
    let Some((id, there)) = transaction.split_once(' ') else { return Ok(Fate::Unknown) };
    match one_text(session, SYSTEM).await {
        Ok(system) if system == there => {}
        Err(failure) if failure.lost => return Err(failure),
        Ok(_) | Err(_) => return Ok(Fate::Unknown),
    }
    let asked = match session.cells(STATUS, vec![Cell::Text(id.to_owned())]).await {
        // A crash took it from the server, and with it what the transaction did.
        Err(failure) if can_not_be(&failure.error) => return Ok(Fate::RolledBack),
        asked => asked?,
    };
    Ok(match asked.rows.first().and_then(|row| row.first()) {
        Some(Cell::Text(status)) if status == "committed" => Fate::Committed,
        Some(Cell::Text(status)) if status == "aborted" => Fate::RolledBack,
        Some(Cell::Text(status)) if status == "in progress" => Fate::Open,
        _ => Fate::Unknown,
    })
}
