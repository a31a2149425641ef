//! A query in place of a table: its rows are read in the same way, and never changed.

use std::collections::BTreeSet;

use runbook_engine::error::StepError;
use serde_json::Value;

use super::filter::Parameters;
use super::table::{Affinity, Column, Kind, Sorts, Table, mysql_kind, mysql_sorts, no_nulls, sortable, text};
use crate::connections::sql::scan::{Place, only_reads, places, statements};
use crate::connections::sql::{Cell, Dialect, Session, Shape, as_cell, quoted};
use crate::text::in_brief;

/// A query that rows come from.
#[derive(Clone, Debug)]
pub(super) struct Query {
    /// Its text, with places for its parameters as all of our statements have them.
    pub sql: String,
    /// The values of its parameters, in order.
    pub parameters: Vec<Cell>,
}

/// Whether a text can give rows, whichever database it is for; why not otherwise.
pub(super) fn check(sql: &str) -> Result<(), StepError> {
    let found = statements(sql, Dialect::Postgres);
    let selects = found.iter().all(|one| matches!(one.verb(), "SELECT" | "WITH"));
    if only_reads(sql) && selects {
        return Ok(());
    }
    Err(StepError::invalid("`query` is not one `select` that only reads")
        .with_help("what changes rows is done by a step `sql`, and what is read needs no semicolon in it"))
}

/// Asks a database what a query gives, and makes sure that `key` tells its rows apart.
pub(super) async fn load(
    mut session: Box<dyn Session>,
    dialect: Dialect,
    sql: &str,
    values: &[Value],
    key: &[String],
) -> Result<Table, StepError> {
    let found = statements(sql, dialect);
    let text = found.first().map_or(sql, |statement| statement.text);
    let shape = session.shape(text).await?;
    let query = with_places(text, dialect, &shape, values)?;
    let columns = shape.columns.iter().map(|(name, kind)| column(dialect, name, kind)).collect();
    let name = format!("`{}`", in_brief(text));
    let mut table = Table { dialect, quoted: name, query: Some(query), columns, key: Vec::new() };
    let mut names = BTreeSet::new();
    if let Some(twice) = table.columns.iter().find(|column| !names.insert(&column.name)) {
        let message = format!("{} gives two columns `{}`", table.quoted, twice.name);
        return Err(StepError::invalid(message).with_help("name one of them otherwise, with `as`"));
    }
    for name in key {
        table.column(name)?;
        table.key.extend(table.columns.iter().position(|column| column.name == *name));
    }
    sortable(&table)?;
    if dialect == Dialect::Sqlite {
        types_of_key(&mut *session, &mut table).await?;
    }
    no_nulls(&mut *session, &table).await?;
    unique(&mut *session, &table).await?;
    session.rollback().await?;
    session.finish().await;
    Ok(table)
}

fn column(dialect: Dialect, name: &str, kind: &str) -> Column {
    let sorts = match (dialect, kind.to_lowercase().split(' ').next().unwrap_or_default()) {
        // A column of type `set` is called so too, and one whose texts are compared by their bytes is called as bytes are.
        (Dialect::MySql, "char") => Sorts::ByText,
        (Dialect::MySql, "binary") => Sorts::ByBytes,
        (Dialect::MySql, kind) => mysql_sorts(kind),
        _ => Sorts::Plainly,
    };
    let kind = match dialect {
        Dialect::Postgres => Kind::Postgres(kind.to_owned()),
        // As many digits as there can be: the result of a query does not say.
        Dialect::MySql => {
            let kind = kind.to_lowercase();
            mysql_kind(kind.split(' ').next().unwrap_or_default(), &kind, "65", "30")
        }
        Dialect::Sqlite => Kind::Sqlite(Affinity::Blob),
    };
    let quoted = quoted(dialect, name);
    Column { name: name.to_owned(), quoted, kind, sorts, generated: false, nullable: true }
}

/// The query with its values at the places that all of our statements have them at.
fn with_places(sql: &str, dialect: Dialect, shape: &Shape, values: &[Value]) -> Result<Query, StepError> {
    let found = places(sql, dialect);
    let wanted = shape.parameters.len();
    if wanted != values.len() {
        let message = format!("the query takes {wanted} parameters and is given {}", values.len());
        return Err(StepError::invalid(message));
    }
    if dialect != Dialect::Postgres {
        if found.len() != wanted || found.iter().any(|place| place.number.is_some()) {
            let message = "a parameter of the query has a number or a name";
            return Err(StepError::invalid(message).with_help("write `?`, once for each of `parameters`"));
        }
        return Ok(Query { sql: sql.to_owned(), parameters: values.iter().map(as_cell).collect() });
    }
    let (mut written, mut at) = (String::new(), 0);
    for Place { start, end, number } in found {
        let number = number.unwrap_or_default();
        let kind = shape.parameters.get(number.saturating_sub(1)).map_or("text", String::as_str);
        written.push_str(&sql[at..start]);
        written.push_str(&format!("cast(${number}::text as {kind})"));
        at = end;
    }
    written.push_str(&sql[at..]);
    let value = |value: &Value| match value {
        Value::Null => Ok(Cell::Null),
        Value::String(text) => Ok(Cell::Text(text.clone())),
        Value::Bool(_) | Value::Number(_) => Ok(Cell::Text(value.to_string())),
        _ => Err(StepError::invalid(format!("{value} is no parameter of a query: it is not one value"))),
    };
    let parameters = values.iter().map(value).collect::<Result<_, _>>()?;
    Ok(Query { sql: written, parameters })
}

/// What the values of the key are: SQLite tells of a value, and not always of a column.
async fn types_of_key(session: &mut dyn Session, table: &mut Table) -> Result<(), StepError> {
    let types: Vec<_> = table.key().map(|column| format!("typeof(t.{})", column.quoted)).collect();
    let mut parameters = Parameters::of(table);
    let from = table.source(&mut parameters);
    let sql = format!("select {} from {from} limit 1", types.join(", "));
    let found = session.cells(&sql, parameters.0).await?.rows.into_iter().next().unwrap_or_default();
    for (at, kind) in table.key.clone().into_iter().zip(&found) {
        let affinity = match text(Some(kind)).as_str() {
            "integer" => Affinity::Numeric,
            "text" => Affinity::Text,
            _ => Affinity::Blob,
        };
        if let Some(column) = table.columns.get_mut(at) {
            column.kind = Kind::Sqlite(affinity);
        }
    }
    Ok(())
}

/// No index says of a query that its key tells the rows apart: they are looked at.
async fn unique(session: &mut dyn Session, table: &Table) -> Result<(), StepError> {
    let key: Vec<_> = table.key().map(|column| format!("t.{}", column.quoted)).collect();
    let key = key.join(", ");
    let mut parameters = Parameters::of(table);
    let from = table.source(&mut parameters);
    let sql = format!("select '1' from {from} group by {key} having count(*) > 1 limit 1");
    if session.cells(&sql, parameters.0).await?.rows.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = table.key().map(|column| column.name.as_str()).collect();
    let message = format!("`{}` does not tell the rows of {} apart", names.join("`, `"), table.quoted);
    Err(StepError::refused(message)
        .with_help("a row would be read in place of another: name more columns in `key`"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_select_that_reads_and_nothing_else() {
        for good in ["select 1 as a", "with a as (select 1 as b) select b from a", "select ';' as a -- ;\n"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "values (1)",
            "show tables",
            "select 1; select 2",
            "delete from t returning id",
            "with a as (delete from t returning *) select * from a",
            "select * from t for update",
            "select pg_terminate_backend(7) as a",
            "select 1 as a /*! into outfile '/tmp/x' */",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_stand_at_the_places_of_their_types() {
        let shape = |types: &[&str]| Shape {
            columns: Vec::new(),
            parameters: types.iter().map(|&kind| kind.to_owned()).collect(),
        };
        let sql = "select '$1' as a from t where b = $2 and c > $1";
        let query = with_places(sql, Dialect::Postgres, &shape(&["bigint", "text"]), &[json!(5), json!("x")])
            .unwrap();
        assert_eq!(
            query.sql,
            "select '$1' as a from t where b = cast($2::text as text) and c > cast($1::text as bigint)"
        );
        assert_eq!(query.parameters, [Cell::Text("5".to_owned()), Cell::Text("x".to_owned())]);
        let values = [json!(5)];
        let of = |sql: &str| with_places(sql, Dialect::Sqlite, &shape(&[""]), &values).is_ok();
        assert!(of("select '?' as a from t where b = ?"));
        assert!(!of("select a from t where b = ?1") && !of("select a from t where b = :b"));
        assert!(with_places(sql, Dialect::Postgres, &shape(&["bigint"]), &[]).is_err());
    }
}
