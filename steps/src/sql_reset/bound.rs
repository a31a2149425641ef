//! What a reviewed plan saw of a schema binds what is dropped.

use runbook_engine::error::StepError;
use sha2::{Digest as _, Sha256};

use super::files::File;
use super::survey::{Survey, first};
use crate::bound::{Facts, as_reviewed, drift};
use crate::connections::sql::{Cell, Dialect, Failure, Session, quoted};
use crate::digest::hex;
use crate::kind::Context;

/// The most rows, in all tables together, whose contents are digested.
pub(super) const MOST_ROWS: u64 = 100_000;

/// How many rows of SQLite are read at a time.
const PAGE: u64 = 1000;

/// What is in a schema, and what it is made anew from, by name: what a plan shows and a run is held to.
pub(super) struct Bound {
    /// Each table with its rows, the enums, each file with its digest.
    pub facts: Facts,
    /// Whether the contents of the rows are in it.
    pub contents: bool,
}

/// Finds out what would be dropped, in the transaction of `session`.
pub(super) async fn bound(
    session: &mut dyn Session,
    dialect: Dialect,
    schema: &str,
    survey: &Survey,
    files: &[File],
    cx: &Context,
) -> Result<Bound, Failure> {
    let contents = dialect != Dialect::MySql && survey.rows <= MOST_ROWS;
    let mut facts = Facts::new();
    for (name, rows) in &survey.tables {
        let mut fact = format!("{rows} rows");
        if contents {
            let digest = match dialect {
                Dialect::Postgres => postgres(session, schema, name).await?,
                _ => sqlite(session, name).await?,
            };
            fact = format!("{fact} (sha256 {digest})");
        }
        facts.insert(cx.redactor.text(&format!("table `{name}`")), fact);
    }
    if !survey.enums.is_empty() {
        facts.insert("enums".to_owned(), cx.redactor.text(&survey.enums.join(", ")));
    }
    for (at, file) in files.iter().enumerate() {
        let name = cx.redactor.text(&format!("file {} {}", at + 1, file.outputs.path));
        facts.insert(name, format!("sha256 {}", file.outputs.sha256));
    }
    Ok(Bound { facts, contents })
}

impl Bound {
    /// All of it in a few digits.
    pub fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for (name, fact) in &self.facts {
            digest.update(format!("{name}\0{fact}\0"));
        }
        hex(&digest.finalize()).chars().take(12).collect()
    }

    /// Of kind drift when the run was started with a plan that saw something else.
    pub fn judge(&self, cx: &Context) -> Result<(), StepError> {
        let Some(reviewed) = &cx.history.plan.reviewed else { return Ok(()) };
        let Some(planned) = reviewed.binds.get(&cx.step) else {
            let id = reviewed.short_id();
            let message = format!("the reviewed plan {id} says nothing of what this step would drop");
            return Err(drift(message, "dropped"));
        };
        as_reviewed(reviewed, planned, &self.facts, "dropped")
    }
}

/// The digest of the rows of a table of PostgreSQL, whatever their order.
async fn postgres(session: &mut dyn Session, schema: &str, table: &str) -> Result<String, Failure> {
    let name = |name: &str| quoted(Dialect::Postgres, name);
    let sql = format!(
        "select encode(sha256(convert_to(coalesce(string_agg(h, '' order by h), ''), 'UTF8')), 'hex') from \
         (select encode(sha256(convert_to(row(t.*)::text, 'UTF8')), 'hex') collate \"C\" as h from {}.{} t) hashes",
        name(schema),
        name(table)
    );
    match first(&session.cells(&sql, Vec::new()).await?.rows) {
        Some(Cell::Text(digest)) => Ok(digest),
        _ => Ok(String::new()),
    }
}

/// The digest of the rows of a table of SQLite, whatever their order.
async fn sqlite(session: &mut dyn Session, table: &str) -> Result<String, Failure> {
    let name = quoted(Dialect::Sqlite, table);
    let (mut hashes, mut read) = (Vec::new(), 0);
    loop {
        let sql = format!("select * from {name} limit {PAGE} offset {read}");
        let rows = session.cells(&sql, Vec::new()).await?.rows;
        if rows.is_empty() {
            break;
        }
        read += rows.len() as u64;
        hashes.extend(rows.iter().map(|row| row_hash(row)));
    }
    hashes.sort_unstable();
    let mut digest = Sha256::new();
    hashes.iter().for_each(|hash| digest.update(hash));
    Ok(hex(&digest.finalize()))
}

/// A row by the types and the lengths of its values, so that no two differ and come to the same.
fn row_hash(row: &[Cell]) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut value = |kind: u8, bytes: &[u8]| {
        digest.update([kind]);
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    for cell in row {
        match cell {
            Cell::Null => value(0, &[]),
            Cell::Integer(number) => value(1, &number.to_le_bytes()),
            Cell::Unsigned(number) => value(2, &number.to_le_bytes()),
            Cell::Real(number) => value(3, &number.to_bits().to_le_bytes()),
            Cell::Text(text) => value(4, text.as_bytes()),
            Cell::Blob(bytes) => value(5, bytes),
        }
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_that_differ_have_other_hashes() {
        let text = |text: &str| Cell::Text(text.to_owned());
        let rows = [
            vec![text("a"), text("b")],
            vec![text("ab"), text("")],
            vec![text("1")],
            vec![Cell::Integer(1)],
            vec![Cell::Blob(b"1".to_vec())],
            vec![Cell::Real(1.0)],
            vec![Cell::Null],
            vec![text("")],
        ];
        let hashes: BTreeSet<_> = rows.iter().map(|row| row_hash(row)).collect();
        assert_eq!(hashes.len(), rows.len());
    }
}
