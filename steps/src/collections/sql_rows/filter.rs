//! Conditions on columns as data: what `where` holds, and how it becomes SQL with bound parameters.

use runbook_engine::error::StepError;
use serde_json::{Map, Value};

use super::table::{Column, Kind, Table};
use crate::connections::sql::{Cell, Dialect};

/// A statement being put together: its parameters, in the order of their places.
#[derive(Default)]
pub(super) struct Parameters(pub Vec<Cell>);

impl Parameters {
    /// Those that a statement on this table begins with: numbered ones of its query stand before all others.
    pub fn of(table: &Table) -> Self {
        let numbered = table.query.as_ref().filter(|_| table.dialect == Dialect::Postgres);
        Self(numbered.map(|query| query.parameters.clone()).unwrap_or_default())
    }

    /// The place of a value of this column.
    pub fn place(&mut self, column: &Column, value: Cell) -> String {
        self.0.push(value);
        column.place(self.0.len())
    }

    /// The place of a value of this column, as what rows are sorted by.
    pub fn sorted_place(&mut self, column: &Column, value: Cell) -> String {
        self.0.push(value);
        column.sorted_place(self.0.len())
    }
}

/// The comparisons, as an author writes them and as SQL has them.
const COMPARISONS: &[(&str, &str)] =
    &[("not", "<>"), ("lt", "<"), ("lte", "<="), ("gt", ">"), ("gte", ">="), ("like", "like")];

/// Whether what an author wrote can be a condition; why not otherwise.
pub(super) fn check(conditions: &Map<String, Value>) -> Result<(), StepError> {
    for (column, wanted) in conditions {
        let Value::Object(all) = wanted else { continue };
        let known = |name: &String| COMPARISONS.iter().any(|(known, _)| known == name);
        if let Some(unknown) = all.keys().find(|name| !known(name)) {
            let names: Vec<_> = COMPARISONS.iter().map(|(name, _)| format!("`{name}`")).collect();
            let message =
                format!("`where` compares `{column}` by `{unknown}`, which is none of {}", names.join(", "));
            return Err(StepError::invalid(message));
        }
    }
    Ok(())
}

/// The conditions as SQL, of the table that is called `t`; `1 = 1` when there are none.
pub(super) fn conditions(
    table: &Table,
    wanted: &Map<String, Value>,
    parameters: &mut Parameters,
) -> Result<String, StepError> {
    let mut all = Vec::new();
    for (name, wanted) in wanted {
        let column = table.column(name)?;
        let left = format!("t.{}", column.quoted);
        all.push(match wanted {
            Value::Null => format!("{left} is null"),
            Value::Array(values) if values.is_empty() => "1 = 0".to_owned(),
            Value::Array(values) => one_of(column, &left, values, parameters)?,
            Value::Object(comparisons) => compared(column, &left, comparisons, parameters)?,
            value => format!("{left} = {}", parameters.place(column, cell(column, value)?)),
        });
    }
    Ok(if all.is_empty() { "1 = 1".to_owned() } else { all.join(" and ") })
}

fn one_of(
    column: &Column,
    left: &str,
    values: &[Value],
    parameters: &mut Parameters,
) -> Result<String, StepError> {
    let mut places = Vec::new();
    let mut or_null = "";
    for value in values {
        match value {
            Value::Null => or_null = " is null or ",
            value => places.push(parameters.place(column, cell(column, value)?)),
        }
    }
    let among =
        if places.is_empty() { "1 = 0".to_owned() } else { format!("{left} in ({})", places.join(", ")) };
    Ok(if or_null.is_empty() { among } else { format!("({left}{or_null}{among})") })
}

fn compared(
    column: &Column,
    left: &str,
    comparisons: &Map<String, Value>,
    parameters: &mut Parameters,
) -> Result<String, StepError> {
    let mut all = Vec::new();
    for (name, value) in comparisons {
        let sign = COMPARISONS.iter().find(|(known, _)| known == name).map_or("=", |(_, sign)| sign);
        all.push(match value {
            Value::Null if name == "not" => format!("{left} is not null"),
            Value::Null => {
                return Err(StepError::invalid(format!("`where` compares a column by `{name}` with null")));
            }
            // What has no value is not that value either.
            value if name == "not" => {
                format!("({left} is null or {left} <> {})", parameters.place(column, cell(column, value)?))
            }
            value => format!("{left} {sign} {}", parameters.place(column, cell(column, value)?)),
        });
    }
    Ok(if all.is_empty() { "1 = 1".to_owned() } else { all.join(" and ") })
}

/// A value of an author as one of a column.
pub(super) fn cell(column: &Column, value: &Value) -> Result<Cell, StepError> {
    let sqlite = matches!(column.kind, Kind::Sqlite(_));
    match value {
        Value::String(text) => Ok(Cell::Text(text.clone())),
        Value::Bool(flag) if sqlite => Ok(Cell::Integer(i64::from(*flag))),
        Value::Bool(flag) if matches!(column.kind, Kind::Postgres(_)) => Ok(Cell::Text(flag.to_string())),
        Value::Bool(flag) => Ok(Cell::Text(u8::from(*flag).to_string())),
        Value::Number(number) if sqlite => Ok(match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Cell::Integer(number),
            (_, Some(number)) => Cell::Real(number),
            _ => Cell::Text(number.to_string()),
        }),
        Value::Number(number) => Ok(Cell::Text(number.to_string())),
        _ => Err(StepError::invalid(format!("`where` compares `{}` with {value}", column.name))),
    }
}

/// Conditions in words.
pub(super) fn describe(wanted: &Map<String, Value>) -> String {
    let one = |(column, wanted): (&String, &Value)| match wanted {
        Value::Null => format!("{column} is null"),
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(Value::to_string).collect();
            format!("{column} in ({})", values.join(", "))
        }
        Value::Object(comparisons) => {
            let all: Vec<_> =
                comparisons.iter().map(|(name, value)| format!("{column} {name} {value}")).collect();
            all.join(" and ")
        }
        value => format!("{column} = {value}"),
    };
    // A mapping without a comparison asks for nothing.
    wanted.iter().map(one).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" and ")
}
