//! What the values of MySQL are in the protocol of prepared statements.

use std::fmt::Write as _;

use runbook_engine::error::StepError;
use serde_json::Value;
use sqlx::decode::Decode;
use sqlx::mysql::{MySql, MySqlRow};
use sqlx::{Column as _, Row as _, Type, TypeInfo as _, ValueRef as _};

use super::{Cell, Failure, shown_bytes};

/// A column of a row.
pub(super) fn cell(row: &MySqlRow, at: usize) -> Result<Cell, Failure> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Cell::Null);
    }
    let info = raw.type_info().into_owned();
    let bytes = <&[u8] as Decode<MySql>>::decode(raw).map_err(sqlx::Error::Decode)?;
    let broken = || {
        let name = row.column(at).name();
        Failure::plain(StepError::refused(format!("the value of column `{name}` is not understood")))
    };
    read(info.name(), <str as Type<MySql>>::compatible(&info), bytes).ok_or_else(broken)
}

/// The same for people and expressions.
pub(super) fn shown(row: &MySqlRow, at: usize) -> Result<Value, Failure> {
    let is_json = row.column(at).type_info().name() == "JSON";
    Ok(match cell(row, at)? {
        Cell::Null => Value::Null,
        Cell::Integer(number) => Value::from(number),
        Cell::Unsigned(number) => Value::from(number),
        Cell::Real(number) => Value::from(number),
        Cell::Text(text) if is_json => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        Cell::Text(text) => Value::String(text),
        Cell::Blob(bytes) => shown_bytes(&bytes),
    })
}

fn read(name: &str, is_text: bool, bytes: &[u8]) -> Option<Cell> {
    let (name, unsigned) = match name.strip_suffix(" UNSIGNED") {
        Some(name) => (name, true),
        None => (name, false),
    };
    let text = || String::from_utf8(bytes.to_vec()).ok().map(Cell::Text);
    match name {
        "BOOLEAN" | "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" | "YEAR" => {
            integer(bytes, unsigned)
        }
        "FLOAT" => Some(Cell::Real(shortest(f32::from_le_bytes(bytes.try_into().ok()?)))),
        "DOUBLE" => Some(Cell::Real(f64::from_le_bytes(bytes.try_into().ok()?))),
        "BIT" => Some(Cell::Unsigned(bytes.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)))),
        "DATE" | "DATETIME" | "TIMESTAMP" => moment(name, bytes),
        "TIME" => time(bytes),
        "DECIMAL" | "JSON" | "ENUM" | "SET" => text(),
        _ if is_text => text(),
        _ => Some(Cell::Blob(bytes.to_vec())),
    }
}

/// The number that is written as shortly as this one, so that 0.1 stays 0.1.
fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

fn integer(bytes: &[u8], unsigned: bool) -> Option<Cell> {
    let negative = !unsigned && bytes.last()? & 0x80 != 0;
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let number = u64::from_le_bytes(all);
    if unsigned {
        return Some(i64::try_from(number).map_or(Cell::Unsigned(number), Cell::Integer));
    }
    Some(Cell::Integer(i64::from_le_bytes(all)))
}

/// A date or a moment: its length, year, month, day, and as far as they are not 0 the time and its microseconds.
fn moment(name: &str, bytes: &[u8]) -> Option<Cell> {
    let at = |place: usize| bytes.get(place).copied().unwrap_or(0);
    let year = u16::from_le_bytes([at(1), at(2)]);
    let mut text = format!("{year:04}-{:02}-{:02}", at(3), at(4));
    if name != "DATE" {
        write!(text, " {:02}:{:02}:{:02}", at(5), at(6), at(7)).ok()?;
        micros(&mut text, [at(8), at(9), at(10), at(11)])?;
    }
    Some(Cell::Text(text))
}

/// A span of time: its length, a sign, days, hours, minutes, seconds and microseconds.
fn time(bytes: &[u8]) -> Option<Cell> {
    let at = |place: usize| bytes.get(place).copied().unwrap_or(0);
    let days = u32::from_le_bytes([at(2), at(3), at(4), at(5)]);
    let sign = if at(1) == 1 { "-" } else { "" };
    let hours = u64::from(days) * 24 + u64::from(at(6));
    let mut text = format!("{sign}{hours:02}:{:02}:{:02}", at(7), at(8));
    micros(&mut text, [at(9), at(10), at(11), at(12)])?;
    Some(Cell::Text(text))
}

fn micros(text: &mut String, bytes: [u8; 4]) -> Option<()> {
    match u32::from_le_bytes(bytes) {
        0 => Some(()),
        micros => write!(text, ".{micros:06}").ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        assert_eq!(read("BIGINT", false, &i64::MIN.to_le_bytes()), Some(Cell::Integer(i64::MIN)));
        assert_eq!(read("BIGINT UNSIGNED", false, &u64::MAX.to_le_bytes()), Some(Cell::Unsigned(u64::MAX)));
        assert_eq!(read("TINYINT", false, &[0xff]), Some(Cell::Integer(-1)));
        assert_eq!(read("TINYINT UNSIGNED", false, &[0xff]), Some(Cell::Integer(255)));
        assert_eq!(read("FLOAT", false, &0.1f32.to_le_bytes()), Some(Cell::Real(0.1)));
        assert_eq!(read("BIT", false, &[1, 2]), Some(Cell::Unsigned(258)));
    }

    #[test]
    fn times_are_written_as_mysql_writes_them() {
        let text = |text: &str| Some(Cell::Text(text.to_owned()));
        assert_eq!(read("DATE", false, &[4, 0xe9, 7, 2, 3]), text("2025-02-03"));
        assert_eq!(
            read("DATETIME", false, &[11, 0xe9, 7, 2, 3, 4, 5, 6, 64, 226, 1, 0]),
            text("2025-02-03 04:05:06.123456")
        );
        assert_eq!(read("DATETIME", false, &[0]), text("0000-00-00 00:00:00"));
        assert_eq!(read("TIME", false, &[8, 1, 1, 0, 0, 0, 2, 3, 4]), text("-26:03:04"));
    }
}
