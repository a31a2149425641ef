//! Rows changed in some of their columns, each batch in one transaction, while they are as they were.

use std::collections::{BTreeMap, BTreeSet};

use runbook_engine::crash;
use runbook_engine::error::StepError;
use serde_json::{Map, Value};

use super::filter::{self, Parameters};
use super::records;
use super::table::{Column, Table};
use super::write::{among, among_of, begin, in_savepoint, locked};
use super::{Row, Rows};
use crate::collections::{Change, Expected, KeyOutcome, NewValue};
use crate::connections::sql::{Cell, Dialect, Failure, Session};

pub(super) async fn update(rows: &Rows, changes: &[Change]) -> Result<Vec<KeyOutcome>, StepError> {
    let table = rows.table().await?;
    let mut session = begin(rows).await?;
    let keys: Vec<&str> = changes.iter().map(|change| change.key.as_str()).collect();
    let there = locked(rows, &mut *session, &keys).await?;
    let so_already = holding(table, &mut *session, alike(changes.iter(), wanted)).await?;
    let as_expected = holding(table, &mut *session, alike(changes.iter(), fields)).await?;
    let judge = |change: &Change| match there.get(&change.key) {
        None => Some(KeyOutcome::not_updated(&change.key, "its row is gone")),
        Some(_) if so_already.contains(&change.key) => Some(KeyOutcome::Already),
        Some(row) => unexpected(change, row, as_expected.contains(&change.key)),
    };
    let judged: Vec<Option<KeyOutcome>> = changes.iter().map(judge).collect();
    let open: Vec<&Change> = changes
        .iter()
        .zip(&judged)
        .filter(|(_, judged)| judged.is_none())
        .map(|(change, _)| change)
        .collect();
    let mut refused = set_all(table, &mut *session, &open).await?;
    let now = holding(table, &mut *session, alike(open.iter().copied(), wanted)).await?;
    crash::around("sql: update commit", session.commit()).await?;
    session.finish().await;
    let end = |(change, judged): (&Change, Option<KeyOutcome>)| match (judged, refused.remove(&change.key)) {
        (Some(outcome), _) => outcome,
        (None, Some(error)) => KeyOutcome::Failed(error),
        (None, None) if now.contains(&change.key) => KeyOutcome::Done,
        (None, None) => KeyOutcome::Failed(StepError::refused(format!(
            "`{}` was updated, and does not hold what it was set to: a trigger or a rule of the table changed it",
            change.key
        ))),
    };
    Ok(changes.iter().zip(judged).map(end).collect())
}

/// Why a row is left alone; nothing when it is to be changed.
fn unexpected(change: &Change, row: &Row, has_fields: bool) -> Option<KeyOutcome> {
    let left = |how: &str| Some(KeyOutcome::not_updated(&change.key, how));
    match &change.expected {
        _ if !row.wanted => left("`where` does not hold of it"),
        Expected::Version(version) if row.item.version.as_ref() != Some(version) => {
            left("its row holds other values")
        }
        Expected::Fields(_) if !has_fields => left("it does not hold what it should"),
        _ => None,
    }
}

/// What the columns hold after a change, as conditions. The time is another one each time.
fn wanted(change: &Change) -> Map<String, Value> {
    let value = |(name, value): (&String, &NewValue)| match value {
        NewValue::Now => None,
        NewValue::Value(value) => Some((name.clone(), value.clone())),
    };
    change.set.iter().filter_map(value).collect()
}

/// What the columns must hold before it.
fn fields(change: &Change) -> Map<String, Value> {
    match &change.expected {
        Expected::Version(_) => Map::new(),
        Expected::Fields(fields) => fields.clone(),
    }
}

/// The keys of these changes by the conditions that are asked about.
fn alike<'c>(
    changes: impl Iterator<Item = &'c Change>,
    conditions: impl Fn(&Change) -> Map<String, Value>,
) -> Vec<(Map<String, Value>, Vec<&'c str>)> {
    let mut alike: BTreeMap<String, (Map<String, Value>, Vec<&str>)> = BTreeMap::new();
    for change in changes {
        let fields = conditions(change);
        let name = Value::Object(fields.clone()).to_string();
        alike.entry(name).or_insert_with(|| (fields, Vec::new())).1.push(&change.key);
    }
    alike.into_values().collect()
}

/// The keys of the rows of which the conditions hold that they stand beside.
async fn holding(
    table: &Table,
    session: &mut dyn Session,
    alike: Vec<(Map<String, Value>, Vec<&str>)>,
) -> Result<BTreeSet<String>, StepError> {
    let mut found = BTreeSet::new();
    for (fields, keys) in alike {
        let mut parameters = Parameters::default();
        let key: Vec<_> = table.key().map(Column::read).collect();
        let holds = same(table, &fields, &mut parameters)?;
        let among = among(table, &keys, &mut parameters)?;
        let sql = format!("select {} from {} t where {holds} and {among}", key.join(", "), table.quoted);
        for cells in session.cells(&sql, parameters.0).await?.rows {
            found.insert(records::key(&cells)?);
        }
    }
    Ok(found)
}

/// That every one of these columns holds its value: one of an author, or one of a record.
fn same(
    table: &Table,
    fields: &Map<String, Value>,
    parameters: &mut Parameters,
) -> Result<String, StepError> {
    let mut all = Vec::new();
    for (name, value) in fields {
        let column = table.column(name)?;
        all.push(match value {
            Value::Null => format!("t.{} is null", column.quoted),
            Value::Array(_) => {
                filter::conditions(table, &Map::from_iter([(name.clone(), value.clone())]), parameters)?
            }
            value => format!("t.{} = {}", column.quoted, parameters.place(column, cell(column, value)?)),
        });
    }
    Ok(if all.is_empty() { "1 = 1".to_owned() } else { all.join(" and ") })
}

/// A value of an author or of a record as one of a column. What both may hold is the same to both.
fn cell(column: &Column, value: &Value) -> Result<Cell, StepError> {
    if value.is_object() { records::parsed(value) } else { filter::cell(column, value) }
}

/// Changes rows that are locked: those with the same change at once, and one by one when that is refused. Those that were refused, with the
/// reason.
async fn set_all(
    table: &Table,
    session: &mut dyn Session,
    changes: &[&Change],
) -> Result<BTreeMap<String, StepError>, StepError> {
    let mut alike: BTreeMap<String, Vec<&Change>> = BTreeMap::new();
    for change in changes {
        alike.entry(format!("{:?}", change.set)).or_default().push(change);
    }
    let mut refused = BTreeMap::new();
    for some in alike.into_values() {
        match set(table, session, &some).await {
            Ok(()) => {}
            Err(failure) if failure.constraint => {
                for change in some {
                    match set(table, session, &[change]).await {
                        Ok(()) => {}
                        Err(failure) if failure.constraint => {
                            refused.insert(change.key.clone(), *failure.error);
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

/// Changes rows in a savepoint, all in the same way.
async fn set(table: &Table, session: &mut dyn Session, changes: &[&Change]) -> Result<(), Failure> {
    let Some(first) = changes.first() else { return Ok(()) };
    let (mut parameters, mut sets) = (Parameters::default(), Vec::new());
    for (name, value) in &first.set {
        let column = table.column(name).map_err(Failure::plain)?;
        let value = match value {
            NewValue::Now => "current_timestamp".to_owned(),
            NewValue::Value(Value::Null) => "null".to_owned(),
            NewValue::Value(value) => parameters.place(column, cell(column, value).map_err(Failure::plain)?),
        };
        sets.push(format!("{} = {value}", column.quoted));
    }
    let keys: Vec<&str> = changes.iter().map(|change| change.key.as_str()).collect();
    let postgres = table.dialect == Dialect::Postgres;
    let among =
        among_of(if postgres { "t." } else { "" }, table, &keys, &mut parameters).map_err(Failure::plain)?;
    let named = if postgres { " as t" } else { "" };
    let sql = format!("update {}{named} set {} where {among}", table.quoted, sets.join(", "));
    in_savepoint(session, &sql, parameters.0).await.map(drop)
}
