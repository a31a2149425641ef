//! What is in a schema: its tables with their rows, and its enums.

use std::collections::BTreeMap;

use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::connections::sql::{Cell, Dialect, Failure, Session, quoted};
use crate::sql::Amount;

/// What is in a schema.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Survey {
    /// How many rows each table holds, by its name.
    pub tables: BTreeMap<String, u64>,
    /// How many rows there are in all.
    pub rows: u64,
    /// The enums of PostgreSQL.
    pub enums: Vec<String>,
}

/// What must be in a schema.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Tables that must be there, others may.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Enums that must be there, others may. PostgreSQL only.
    #[serde(default)]
    pub enums: Vec<String>,
    /// How many tables there must be: a number, or `min` and `max`.
    #[serde(default)]
    pub table_count: Option<Amount>,
    /// How many rows there must be in all: a number, or `min` and `max`.
    #[serde(default)]
    pub rows: Option<Amount>,
}

impl Wanted {
    /// Fails when it is not so; `when` says of which moment it speaks.
    pub fn judge(&self, found: &Survey, when: &str) -> Result<(), StepError> {
        let mut wrong = Vec::new();
        let missing: Vec<&str> =
            self.tables.iter().filter(|name| !found.tables.contains_key(*name)).map(String::as_str).collect();
        if !missing.is_empty() {
            wrong.push(format!("there is no table `{}`", missing.join("`, `")));
        }
        let missing: Vec<&str> =
            self.enums.iter().filter(|name| !found.enums.contains(name)).map(String::as_str).collect();
        if !missing.is_empty() {
            wrong.push(format!("there is no enum `{}`", missing.join("`, `")));
        }
        let tables = found.tables.len() as u64;
        if let Some(amount) = self.table_count.filter(|amount| !amount.holds(tables)) {
            wrong.push(format!("there are {tables} tables where {amount} were expected"));
        }
        if let Some(amount) = self.rows.filter(|amount| !amount.holds(found.rows)) {
            wrong.push(format!("there are {} rows where {amount} were expected", found.rows));
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(StepError::gate(format!("{when} the reset {}", wrong.join(", and "))))
    }
}

/// Counts the rows of these tables.
pub(super) async fn count(
    session: &mut dyn Session,
    dialect: Dialect,
    schema: Option<&str>,
    tables: Vec<String>,
) -> Result<Survey, Failure> {
    let mut survey = Survey::default();
    let schema = schema.map(|schema| format!("{}.", quoted(dialect, schema))).unwrap_or_default();
    let number = if dialect == Dialect::Postgres { "count(*)::text" } else { "count(*)" };
    for name in tables {
        let sql = format!("select {number} from {schema}{}", quoted(dialect, &name));
        let rows = match first(&session.cells(&sql, Vec::new()).await?.rows) {
            Some(Cell::Integer(rows)) => u64::try_from(rows).unwrap_or_default(),
            Some(Cell::Text(text)) => text.parse().unwrap_or_default(),
            _ => 0,
        };
        survey.rows += rows;
        survey.tables.insert(name, rows);
    }
    Ok(survey)
}

/// The first cell of an answer.
pub(super) fn first(rows: &[Vec<Cell>]) -> Option<Cell> {
    rows.first()?.first().cloned()
}

/// The texts of the first column of an answer.
pub(super) async fn texts(
    session: &mut dyn Session,
    sql: &str,
    parameters: &[&str],
) -> Result<Vec<String>, Failure> {
    let parameters = parameters.iter().map(|text| Cell::Text((*text).to_owned())).collect();
    let rows = session.cells(sql, parameters).await?.rows;
    let text = |row: Vec<Cell>| match row.into_iter().next() {
        Some(Cell::Text(text)) => Some(text),
        _ => None,
    };
    Ok(rows.into_iter().filter_map(text).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let tables = [("a".to_owned(), 2), ("b".to_owned(), 0)].into();
        let found = Survey { tables, rows: 2, enums: vec!["mood".to_owned()] };
        let judge = |wanted: serde_json::Value| {
            serde_json::from_value::<Wanted>(wanted)
                .unwrap()
                .judge(&found, "after")
                .map_err(|error| error.message)
        };
        assert_eq!(
            judge(json!({ "tables": ["a"], "enums": ["mood"], "table_count": 2, "rows": { "min": 1 } })),
            Ok(())
        );
        let said =
            judge(json!({ "tables": ["c", "a"], "enums": ["x"], "table_count": 3, "rows": 0 })).unwrap_err();
        for part in ["no table `c`", "no enum `x`", "2 tables where 3", "2 rows where 0"] {
            assert!(said.contains(part), "{said}");
        }
    }
}
