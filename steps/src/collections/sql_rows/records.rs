//! Rows as records, and keys as texts: every value so that it can be put back bit by bit.

use runbook_engine::error::StepError;
use serde_json::{Map, Value, json};

use super::table::{Affinity, Column, Kind, Table};
use crate::connections::sql::Cell;
use crate::digest::hex;

/// A value in a record. PostgreSQL and MySQL write every value as a text; SQLite, where the type is the value's and not the column's, as a
/// number, a text, or `{"real": …}` and `{"blob": …}`.
pub(super) fn recorded(cell: &Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Integer(number) => Value::from(*number),
        Cell::Unsigned(number) => Value::from(*number),
        Cell::Real(number) => json!({ "real": number.to_string() }),
        Cell::Text(text) => Value::from(text.as_str()),
        Cell::Blob(bytes) => json!({ "blob": hex(bytes) }),
    }
}

/// The value of a record.
pub(super) fn parsed(value: &Value) -> Result<Cell, StepError> {
    let broken = || StepError::gate(format!("a record holds {value}, which is no value of a database"));
    let under = |name: &str| value.get(name).and_then(Value::as_str);
    Ok(match value {
        Value::Null => Cell::Null,
        Value::String(text) => Cell::Text(text.clone()),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Cell::Integer(number),
            (_, Some(number)) => Cell::Unsigned(number),
            _ => return Err(broken()),
        },
        _ => match (under("real"), under("blob")) {
            (Some(text), _) => Cell::Real(text.parse().map_err(|_| broken())?),
            (_, Some(text)) => Cell::Blob(bytes(text).ok_or_else(broken)?),
            _ => return Err(broken()),
        },
    })
}

/// The record of a row: a mapping from column to value.
pub(super) fn record<'a>(columns: impl Iterator<Item = &'a Column>, cells: &[Cell]) -> Value {
    let fields: Map<String, Value> =
        columns.zip(cells).map(|(column, cell)| (column.name.clone(), recorded(cell))).collect();
    Value::Object(fields)
}

/// The key of a row: the text of its value, or a JSON list of the texts when it has several.
pub(super) fn key(cells: &[Cell]) -> Result<String, StepError> {
    let part = |cell: &Cell| match cell {
        Cell::Text(text) => Ok(text.clone()),
        Cell::Integer(number) => Ok(number.to_string()),
        Cell::Unsigned(number) => Ok(number.to_string()),
        Cell::Blob(bytes) => Ok(format!("x'{}'", hex(bytes))),
        Cell::Real(_) | Cell::Null => {
            Err(StepError::refused("a key holds no value, or a number with a point"))
        }
    };
    match cells {
        [one] => part(one),
        several => {
            several.iter().map(part).collect::<Result<Vec<_>, _>>().map(|parts| json!(parts).to_string())
        }
    }
}

/// The values of a key.
pub(super) fn key_cells(table: &Table, key: &str) -> Result<Vec<Cell>, StepError> {
    let parts: Vec<String> = match table.key.len() {
        1 => vec![key.to_owned()],
        wanted => serde_json::from_str(key)
            .ok()
            .filter(|parts: &Vec<String>| parts.len() == wanted)
            .ok_or_else(|| StepError::invalid(format!("`{key}` is no key of {}", table.quoted)))?,
    };
    Ok(table.key().zip(parts).map(|(column, part)| key_cell(column, part)).collect())
}

fn key_cell(column: &Column, part: String) -> Cell {
    let blob = || part.strip_prefix("x'").and_then(|rest| bytes(rest.strip_suffix('\'')?)).map(Cell::Blob);
    let other = match column.kind {
        Kind::Sqlite(Affinity::Numeric) => part.parse().ok().map(Cell::Integer),
        Kind::Sqlite(Affinity::Blob) => blob(),
        _ => None,
    };
    other.unwrap_or(Cell::Text(part))
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_were() {
        for cell in [
            Cell::Null,
            Cell::Integer(i64::MIN),
            Cell::Unsigned(u64::MAX),
            Cell::Real(0.1 + 0.2),
            Cell::Real(f64::INFINITY),
            Cell::Real(-0.0),
            Cell::Text("5".to_owned()),
            Cell::Blob(vec![0, 255]),
        ] {
            let text = recorded(&cell).to_string();
            let back = parsed(&serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(format!("{back:?}"), format!("{cell:?}"));
        }
        assert!(parsed(&json!(0.5)).is_err() && parsed(&json!({ "blob": "0" })).is_err());
    }

    #[test]
    fn keys_of_several_columns_are_lists() {
        let cells = [Cell::Text("a,\"b".to_owned()), Cell::Integer(5)];
        assert_eq!(key(&cells).unwrap(), r#"["a,\"b","5"]"#);
        assert_eq!(key(&cells[1..]).unwrap(), "5");
        assert!(key(&[Cell::Null]).is_err());
    }
}
