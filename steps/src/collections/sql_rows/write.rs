//! Rows deleted and put back, each batch in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use runbook_engine::crash;
use runbook_engine::error::StepError;
use serde_json::Value;

use super::filter::Parameters;
use super::records;
use super::table::{Column, Table};
use super::{Row, Rows};
use crate::collections::{Doomed, Item, KeyOutcome};
use crate::connections::sql::{Begin, Cell, Dialect, Failure, Session};

/// How many values one statement inserts at most; PostgreSQL takes 65,535 parameters, SQLite 32,766.
const VALUES: usize = 20_000;

/// The rows of these keys, as a condition on the table that is called `t`.
pub(super) fn among(table: &Table, keys: &[&str], parameters: &mut Parameters) -> Result<String, StepError> {
    among_of("t.", table, keys, parameters)
}

pub(super) fn among_of(
    prefix: &str,
    table: &Table,
    keys: &[&str],
    parameters: &mut Parameters,
) -> Result<String, StepError> {
    let columns: Vec<&Column> = table.key().collect();
    let mut rows = Vec::with_capacity(keys.len());
    for key in keys {
        let cells = records::key_cells(table, key)?;
        let places: Vec<_> =
            columns.iter().zip(cells).map(|(column, cell)| parameters.place(column, cell)).collect();
        rows.push(places.join(", "));
    }
    let names: Vec<_> = columns.iter().map(|column| format!("{prefix}{}", column.quoted)).collect();
    let name = names.join(", ");
    if columns.len() == 1 {
        return Ok(format!("{name} in ({})", rows.join(", ")));
    }
    let values = if table.dialect == Dialect::MySql { "" } else { "values " };
    let rows: Vec<_> = rows.iter().map(|row| format!("({row})")).collect();
    Ok(format!("({name}) in ({values}{})", rows.join(", ")))
}

/// The rows of these keys, locked until the end of the transaction.
pub(super) async fn locked(
    rows: &Rows,
    session: &mut dyn Session,
    keys: &[&str],
) -> Result<BTreeMap<String, Row>, StepError> {
    let table = rows.table().await?;
    let mut parameters = Parameters::default();
    let selection = rows.selection(table, &mut parameters)?;
    let among = among(table, keys, &mut parameters)?;
    // Nobody else writes to SQLite while this transaction lasts.
    let lock = match table.dialect {
        Dialect::Postgres => " for update of t",
        Dialect::MySql => " for update",
        Dialect::Sqlite => "",
    };
    let sql = format!("select {selection} from {} t where {among}{lock}", table.quoted);
    let found = session.cells(&sql, parameters.0).await?;
    if found.cut {
        let message = "the rows of one batch hold more than 32 MiB";
        return Err(StepError::refused(message).with_help("make `batch_size` smaller"));
    }
    let mut all = BTreeMap::new();
    for cells in found.rows {
        let row = rows.row(table, cells)?;
        all.insert(row.item.key.clone(), row);
    }
    Ok(all)
}

/// A transaction that may write, on which no row is hidden.
pub(super) async fn begin(rows: &Rows) -> Result<Box<dyn Session>, Failure> {
    let mut session = rows.database.begin(Begin::Write).await?;
    rows.see_all(&mut *session).await?;
    Ok(session)
}

pub(super) async fn delete(rows: &Rows, doomed: &[Doomed]) -> Result<Vec<KeyOutcome>, StepError> {
    let mut session = begin(rows).await?;
    let keys: Vec<&str> = doomed.iter().map(|one| one.key.as_str()).collect();
    let found = locked(rows, &mut *session, &keys).await?;
    let judged: Vec<Option<KeyOutcome>> = doomed.iter().map(|one| judge(one, found.get(&one.key))).collect();
    let going: Vec<&str> =
        keys.iter().zip(&judged).filter(|(_, judged)| judged.is_none()).map(|(key, _)| *key).collect();
    let mut ends = remove(rows, &mut *session, &going).await?;
    crash::around("sql: delete commit", session.commit()).await?;
    session.finish().await;
    let end = |(key, judged): (&&str, Option<KeyOutcome>)| match judged {
        Some(outcome) => outcome,
        // A key that is named twice goes once.
        None => ends.remove(*key).unwrap_or(KeyOutcome::Already),
    };
    Ok(keys.iter().zip(judged).map(end).collect())
}

/// What becomes of a key without touching it; nothing when it is to go.
fn judge(doomed: &Doomed, found: Option<&Row>) -> Option<KeyOutcome> {
    let Some(row) = found else { return Some(KeyOutcome::Already) };
    if !row.wanted {
        return Some(KeyOutcome::changed(&doomed.key, "`where` does not hold of it"));
    }
    match &doomed.expected {
        Some(expected) if row.item.version.as_ref() != Some(expected) => {
            Some(KeyOutcome::changed(&doomed.key, "its row holds other values"))
        }
        _ => None,
    }
}

/// Deletes rows that are locked: all of them at once, and one by one when that is refused.
async fn remove(
    rows: &Rows,
    session: &mut dyn Session,
    keys: &[&str],
) -> Result<BTreeMap<String, KeyOutcome>, StepError> {
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    let table = rows.table().await?;
    let mut ends = BTreeMap::new();
    match attempt(table, session, keys).await {
        Ok(gone) => settle(&mut ends, keys, &gone),
        Err(failure) if failure.constraint && keys.len() > 1 => {
            for key in keys {
                match attempt(table, session, &[key]).await {
                    Ok(gone) => settle(&mut ends, &[key], &gone),
                    Err(failure) if failure.constraint => {
                        ends.insert((*key).to_owned(), KeyOutcome::Failed(*failure.error));
                    }
                    Err(failure) => return Err(failure.into()),
                }
            }
        }
        Err(failure) if failure.constraint => {
            ends.extend(
                keys.iter().map(|key| ((*key).to_owned(), KeyOutcome::Failed((*failure.error).clone()))),
            );
        }
        Err(failure) => return Err(failure.into()),
    }
    Ok(ends)
}

fn settle(ends: &mut BTreeMap<String, KeyOutcome>, keys: &[&str], gone: &BTreeSet<String>) {
    for key in keys {
        let kept = || {
            StepError::refused(format!("`{key}` was not deleted: a trigger or a rule of the table kept it"))
        };
        let end = if gone.contains(*key) { KeyOutcome::Done } else { KeyOutcome::Failed(kept()) };
        ends.insert((*key).to_owned(), end);
    }
}

/// Deletes rows in a savepoint; the keys of those that went.
async fn attempt(
    table: &Table,
    session: &mut dyn Session,
    keys: &[&str],
) -> Result<BTreeSet<String>, Failure> {
    let mut parameters = Parameters::default();
    let plain = table.dialect != Dialect::Postgres;
    let among =
        among_of(if plain { "" } else { "t." }, table, keys, &mut parameters).map_err(Failure::plain)?;
    let key = |each: fn(&Column) -> String| table.key().map(each).collect::<Vec<_>>().join(", ");
    let sql = match table.dialect {
        Dialect::MySql => format!("delete from {} where {among}", table.quoted),
        Dialect::Sqlite => {
            let key = key(|column| column.quoted.clone());
            format!("delete from {} where {among} returning {key}", table.quoted)
        }
        Dialect::Postgres => {
            format!("delete from {} as t where {among} returning {}", table.quoted, key(Column::read))
        }
    };
    let done = in_savepoint(session, &sql, parameters.0).await?;
    if table.dialect != Dialect::MySql {
        return done.rows.iter().map(|cells| records::key(cells).map_err(Failure::plain)).collect();
    }
    if done.affected == keys.len() as u64 {
        return Ok(keys.iter().map(|key| (*key).to_owned()).collect());
    }
    let message = format!("{} rows were to be deleted, and {} were", keys.len(), done.affected);
    Err(Failure::plain(StepError::refused(message)))
}

/// Runs a statement so that its failure leaves the transaction as it was.
pub(super) async fn in_savepoint(
    session: &mut dyn Session,
    sql: &str,
    parameters: Vec<Cell>,
) -> Result<crate::connections::sql::Cells, Failure> {
    session.script("savepoint runbook").await?;
    match session.cells(sql, parameters).await {
        Ok(done) => {
            session.script("release savepoint runbook").await?;
            Ok(done)
        }
        Err(failure) => {
            if !failure.lost {
                session.script("rollback to savepoint runbook").await?;
            }
            Err(failure)
        }
    }
}

pub(super) async fn put(rows: &Rows, items: &[Item]) -> Result<Vec<KeyOutcome>, StepError> {
    if rows.settings.columns.is_some() {
        let message =
            format!("rows of {} can not be put back: `columns` leaves some of their values out", rows.name());
        return Err(StepError::invalid(message));
    }
    let table = rows.table().await?;
    let mut session = begin(rows).await?;
    if table.dialect == Dialect::MySql {
        // A 0 is a 0, and no wish for the next number.
        session.script("set session sql_mode = concat(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')").await?;
    }
    let keys: Vec<&str> = items.iter().map(|item| item.key.as_str()).collect();
    let there = locked(rows, &mut *session, &keys).await?;
    let missing: Vec<&Item> = items.iter().filter(|item| !there.contains_key(&item.key)).collect();
    let refused = insert(table, &mut *session, &missing).await?;
    let back = locked(rows, &mut *session, &keys).await?;
    crash::around("sql: put commit", session.commit()).await?;
    if table.dialect != Dialect::MySql {
        session.finish().await;
    }
    let end = |item: &Item| {
        let now = back.get(&item.key).map(|row| &row.item.record);
        match (refused.get(&item.key), there.get(&item.key)) {
            (Some(error), _) => KeyOutcome::Failed(error.clone()),
            (None, Some(row)) if row.item.record == item.record => KeyOutcome::Already,
            (None, Some(row)) => {
                KeyOutcome::Failed(different(item, &row.item.record, "is there with other values in"))
            }
            (None, None) if now == Some(&item.record) => KeyOutcome::Done,
            (None, None) => {
                let now = now.unwrap_or(&Value::Null);
                KeyOutcome::Failed(different(item, now, "was put back, and the database changed"))
            }
        }
    };
    Ok(items.iter().map(end).collect())
}

fn different(item: &Item, now: &Value, how: &str) -> StepError {
    let fields = item.record.as_object().into_iter().flatten();
    let names: Vec<_> = fields
        .filter(|(name, value)| now.get(name) != Some(value))
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    StepError::refused(format!("`{}` {how} {}", item.key, names.join(", ")))
}

/// Inserts rows: many at once, and one by one when that is refused. Those that were refused, with the reason.
async fn insert(
    table: &Table,
    session: &mut dyn Session,
    items: &[&Item],
) -> Result<BTreeMap<String, StepError>, StepError> {
    let mut refused = BTreeMap::new();
    let each = (VALUES / table.columns.len().max(1)).max(1);
    for chunk in items.chunks(each) {
        match insert_all(table, session, chunk).await {
            Ok(()) => {}
            Err(failure) if failure.constraint => {
                for item in chunk {
                    match insert_all(table, session, &[item]).await {
                        Ok(()) => {}
                        Err(failure) if failure.constraint => {
                            refused.insert(item.key.clone(), *failure.error);
                        }
                        Err(failure) => return Err(failure.into()),
                    }
                }
            }
            Err(failure) => return Err(failure.into()),
        }
    }
    Ok(refused)
}

async fn insert_all(table: &Table, session: &mut dyn Session, items: &[&Item]) -> Result<(), Failure> {
    let columns: Vec<&Column> = table.columns.iter().filter(|column| !column.generated).collect();
    let (mut parameters, mut rows) = (Parameters::default(), Vec::with_capacity(items.len()));
    for item in items {
        let mut places = Vec::with_capacity(columns.len());
        for column in &columns {
            let value = item.record.get(&column.name).ok_or_else(|| {
                let message = format!("the record of `{}` has no column `{}`", item.key, column.name);
                Failure::plain(StepError::gate(message))
            })?;
            let cell = records::parsed(value).map_err(Failure::plain)?;
            places.push(parameters.place(column, cell));
        }
        rows.push(format!("({})", places.join(", ")));
    }
    let names: Vec<_> = columns.iter().map(|column| column.quoted.as_str()).collect();
    let overriding = if table.dialect == Dialect::Postgres { " overriding system value" } else { "" };
    let sql =
        format!("insert into {} ({}){overriding} values {}", table.quoted, names.join(", "), rows.join(", "));
    in_savepoint(session, &sql, parameters.0).await.map(drop)
}
