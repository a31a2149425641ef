//! A table as the database describes it: its columns, how each is read and written without loss, and what makes a row unique.

use runbook_engine::error::StepError;

use super::filter::Parameters;
use super::query::Query;
use crate::connections::sql::{Cell, Database, Dialect, Failure, Session, quoted};

/// How the values of a column travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// As the text that PostgreSQL writes and reads for this type.
    Postgres(String),
    /// As a text that MySQL casts to this type.
    Cast(String),
    /// As a text that MySQL takes as it is.
    Text,
    /// A number of MySQL whose text would lose digits, read by way of this expression.
    Number(&'static str, String),
    /// Bytes of MySQL, as hex digits.
    Bytes,
    /// As it is in SQLite.
    Sqlite(Affinity),
}

/// What a column of SQLite makes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Affinity {
    /// A text of digits becomes a number.
    Numeric,
    /// A number becomes a text.
    Text,
    /// Everything stays as it is.
    Blob,
}

/// How rows are sorted by a column, which has to be the order that its values are compared in: a page begins after the last key of the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sorts {
    /// As the database sorts its values.
    Plainly,
    /// By the bytes of its text: MySQL sorts some types by a number and compares them with texts.
    ByText,
    /// By its bytes, which may be those of such a type.
    ByBytes,
    /// In no order that is known. This is its type.
    Unknown(String),
}

/// A column.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// Its name.
    pub name: String,
    /// Its name in SQL.
    pub quoted: String,
    /// How its values travel.
    pub kind: Kind,
    /// How rows are sorted by it.
    pub sorts: Sorts,
    /// Whether the database computes it.
    pub generated: bool,
    /// Whether it may hold no value.
    pub nullable: bool,
}

/// A table, or a query that is read like one.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Its dialect.
    pub dialect: Dialect,
    /// Its name in SQL, with its schema where one was given; of a query, its beginning.
    pub quoted: String,
    /// The query, when it is one.
    pub query: Option<Query>,
    /// Its columns.
    pub columns: Vec<Column>,
    /// The places of the columns of the key.
    pub key: Vec<usize>,
}

impl Column {
    /// The column as a lossless value, of the table that is called `t`.
    pub fn read(&self) -> String {
        let name = format!("t.{}", self.quoted);
        match &self.kind {
            Kind::Postgres(_) => format!("{name}::text"),
            Kind::Cast(_) | Kind::Text => format!("cast({name} as char)"),
            Kind::Number(plus, _) => format!("cast({name} + {plus} as char)"),
            Kind::Bytes => format!("hex({name})"),
            Kind::Sqlite(_) => name,
        }
    }

    /// The place of parameter `number` as a value of this column.
    pub fn place(&self, number: usize) -> String {
        match &self.kind {
            Kind::Postgres(name) => format!("cast(${number}::text as {name})"),
            Kind::Cast(name) | Kind::Number(_, name) => format!("cast(? as {name})"),
            Kind::Bytes => "unhex(?)".to_owned(),
            Kind::Text | Kind::Sqlite(_) => "?".to_owned(),
        }
    }

    /// The column as it is sorted by, of the table that is called `t`.
    pub fn sorted(&self) -> String {
        self.as_sorted(format!("t.{}", self.quoted))
    }

    /// The place of parameter `number` as what the column is sorted by.
    pub fn sorted_place(&self, number: usize) -> String {
        self.as_sorted(self.place(number))
    }

    fn as_sorted(&self, value: String) -> String {
        match self.sorts {
            Sorts::ByText => format!("cast(cast({value} as char character set utf8mb4) as binary)"),
            Sorts::ByBytes => format!("cast({value} as binary)"),
            Sorts::Plainly | Sorts::Unknown(_) => value,
        }
    }
}

impl Table {
    /// What rows are selected from, as `t`. Parameters of a query that go by their order stand where it does.
    pub fn source(&self, parameters: &mut Parameters) -> String {
        let Some(query) = &self.query else { return format!("{} t", self.quoted) };
        if self.dialect != Dialect::Postgres {
            parameters.0.extend(query.parameters.iter().cloned());
        }
        format!("(\n{}\n) t", query.sql)
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Result<&Column, StepError> {
        self.columns.iter().find(|column| column.name == name).ok_or_else(|| {
            let names: Vec<_> = self.columns.iter().map(|column| column.name.as_str()).collect();
            StepError::invalid(format!("{} has no column `{name}`; it has {}", self.quoted, names.join(", ")))
        })
    }

    /// The columns of the key.
    pub fn key(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().filter_map(|at| self.columns.get(*at))
    }
}

/// The parts of a table's name: `schema.table`, or `table`. A part in double quotes may hold a dot.
pub(super) fn parts(name: &str) -> Result<(Option<String>, String), StepError> {
    let mut parts = vec![String::new()];
    let (mut inside, mut chars) = (false, name.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '"' if inside && chars.peek() == Some(&'"') => {
                chars.next();
                parts.iter_mut().last().into_iter().for_each(|part| part.push('"'));
            }
            '"' => inside = !inside,
            '.' if !inside => parts.push(String::new()),
            c => parts.iter_mut().last().into_iter().for_each(|part| part.push(c)),
        }
    }
    if inside || parts.iter().any(String::is_empty) {
        return Err(StepError::invalid(format!("`table` is {name:?}, not a name or `schema.name`")));
    }
    let mut parts = parts.into_iter().rev();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(table), schema, None) => Ok((schema, table)),
        _ => Err(StepError::invalid(format!("`table` is {name:?}, which has more than two parts"))),
    }
}

/// A set of columns that no two rows share.
struct Unique {
    primary: bool,
    columns: Vec<String>,
}

/// Asks the database for a table. `key` is what the author says, or the primary key.
pub(super) async fn load(database: &Database, name: &str, key: &[String]) -> Result<Table, StepError> {
    let (schema, table) = parts(name)?;
    let dialect = database.dialect();
    let mut full = schema.iter().map(|schema| format!("{}.", quoted(dialect, schema))).collect::<String>();
    full.push_str(&quoted(dialect, &table));
    let mut session = database.open().await?;
    let (columns, unique) = match dialect {
        Dialect::Postgres => postgres(&mut *session, &full).await?,
        Dialect::MySql => mysql(&mut *session, schema.as_deref(), &table).await?,
        Dialect::Sqlite => sqlite(&mut *session, schema.as_deref(), &table).await?,
    };
    if columns.is_empty() {
        let message = format!("there is no table {full} in {}", database.describe());
        return Err(StepError::refused(message));
    }
    let mut table = Table { dialect, quoted: full, query: None, columns, key: Vec::new() };
    let primary = || unique.iter().find(|one| one.primary).map(|one| one.columns.as_slice());
    let names = if key.is_empty() { primary().unwrap_or_default() } else { key };
    if names.is_empty() {
        let message = format!("{} has no primary key", table.quoted);
        return Err(StepError::refused(message).with_help(
            "name the columns that tell its rows apart in `key`; a unique index must say so too",
        ));
    }
    for name in names {
        table.column(name)?;
        table.key.extend(table.columns.iter().position(|column| column.name == *name));
    }
    if !unique.iter().any(|one| one.columns.iter().all(|column| names.contains(column))) {
        let message = format!(
            "no unique index of {} says that `{}` tells its rows apart",
            table.quoted,
            names.join("`, `")
        );
        return Err(StepError::refused(message)
            .with_help("a row could be read or deleted in place of another: name the columns of a primary key or of a unique index"));
    }
    sortable(&table)?;
    if dialect == Dialect::Postgres {
        no_heirs(&mut *session, &table).await?;
    }
    no_nulls(&mut *session, &table).await?;
    session.finish().await;
    Ok(table)
}

/// Refused when a column of the key is of a type whose order is not known: a page would begin elsewhere than the one before ended.
pub(super) fn sortable(table: &Table) -> Result<(), StepError> {
    for column in table.key() {
        let Sorts::Unknown(kind) = &column.sorts else { continue };
        let message = format!(
            "the rows of {} can not be read in the order of `{}`: whether values of type {kind} are sorted as they are compared is not known",
            table.quoted, column.name
        );
        return Err(StepError::refused(message).with_help(
            "name the columns of another unique index in `key`, or cast the column in a `query`, which is only read",
        ));
    }
    Ok(())
}

/// No index of PostgreSQL reaches the rows that a table has from those that inherit from it.
async fn no_heirs(session: &mut dyn Session, table: &Table) -> Result<(), StepError> {
    let sql = "select c.oid::regclass::text from pg_inherits i join pg_class c on c.oid = i.inhrelid \
               where i.inhparent = to_regclass($1::text) and not c.relispartition order by 1";
    let heirs = session.cells(sql, vec![Cell::Text(table.quoted.clone())]).await?.rows;
    if heirs.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = heirs.iter().map(|row| text(row.first())).collect();
    let message = format!(
        "{} holds the rows of {} too, which inherit from it: no index makes sure that its key tells them all apart",
        table.quoted,
        names.join(", ")
    );
    Err(StepError::refused(message).with_help(
        "name the tables that inherit, each as a collection of its own; rows of the table alone are read by a `query`: `select … from only …`",
    ))
}

/// A row without a value in its key would never be listed.
pub(super) async fn no_nulls(session: &mut dyn Session, table: &Table) -> Result<(), StepError> {
    let nullable: Vec<_> =
        table.key().filter(|one| one.nullable).map(|one| format!("t.{} is null", one.quoted)).collect();
    if nullable.is_empty() {
        return Ok(());
    }
    let mut parameters = Parameters::of(table);
    let from = table.source(&mut parameters);
    let sql = format!("select '1' from {from} where {} limit 1", nullable.join(" or "));
    if session.cells(&sql, parameters.0).await?.rows.is_empty() {
        return Ok(());
    }
    Err(StepError::refused(format!("{} has rows without a value in their key", table.quoted)))
}

pub(super) fn text(cell: Option<&Cell>) -> String {
    match cell {
        Some(Cell::Text(text)) => text.clone(),
        Some(Cell::Integer(number)) => number.to_string(),
        Some(Cell::Unsigned(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// Rows of an index and one of its columns each, gathered; the first column says whether it is the primary key.
fn gathered(rows: &[Vec<Cell>]) -> Vec<Unique> {
    let mut all: Vec<(String, Unique)> = Vec::new();
    for row in rows {
        let (primary, index, column) = (text(row.first()) == "1", text(row.get(1)), text(row.get(2)));
        match all.last_mut() {
            Some((name, unique)) if *name == index => unique.columns.push(column),
            _ => all.push((index, Unique { primary, columns: vec![column] })),
        }
    }
    all.into_iter().map(|(_, unique)| unique).collect()
}

type Described = (Vec<Column>, Vec<Unique>);

async fn postgres(session: &mut dyn Session, full: &str) -> Result<Described, Failure> {
    let columns = "select a.attname::text, format_type(a.atttypid, -1), \
                   case when a.attgenerated <> '' then '1' else '0' end, case when a.attnotnull then '0' else '1' end, \
                   case when y.typtype = 'b' and y.typcategory <> 'A' and y.typnamespace <> 'pg_catalog'::regnamespace \
                   and not exists (select from pg_operator o where o.oprname = '>' and o.oprleft = y.oid \
                   and o.oprright = y.oid and pg_operator_is_visible(o.oid)) then '0' else '1' end \
                   from pg_attribute a join pg_type t on t.oid = a.atttypid \
                   join pg_type y on y.oid = case when t.typtype = 'd' then t.typbasetype else t.oid end where a.attrelid = to_regclass($1::text) and a.attnum > 0 and not a.attisdropped \
                   order by a.attnum";
    let unique = "select case when i.indisprimary then '1' else '0' end, i.indexrelid::text, a.attname::text \
                  from pg_index i cross join lateral unnest(i.indkey::int2[]) with ordinality k(attnum, at) \
                  join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum \
                  where i.indrelid = to_regclass($1::text) and i.indisunique and i.indisvalid and i.indimmediate \
                  and i.indpred is null and i.indexprs is null and k.at <= i.indnkeyatts order by i.indexrelid, k.at";
    let name = || vec![Cell::Text(full.to_owned())];
    let rows = session.cells(columns, name()).await?.rows;
    let of = |row: &Vec<Cell>| {
        let name = text(row.first());
        Column {
            quoted: quoted(Dialect::Postgres, &name),
            name,
            kind: Kind::Postgres(text(row.get(1))),
            // Of a type whose own `>` is not found, PostgreSQL takes that of another type, and sorts by its own.
            sorts: match text(row.get(4)).as_str() {
                "1" => Sorts::Plainly,
                _ => Sorts::Unknown(text(row.get(1))),
            },
            generated: text(row.get(2)) == "1",
            nullable: text(row.get(3)) == "1",
        }
    };
    Ok((rows.iter().map(of).collect(), gathered(&session.cells(unique, name()).await?.rows)))
}

async fn mysql(session: &mut dyn Session, schema: Option<&str>, table: &str) -> Result<Described, Failure> {
    let columns = "select column_name, data_type, column_type, is_nullable, extra, numeric_precision, numeric_scale \
                   from information_schema.columns where table_schema = coalesce(?, database()) and table_name = ? \
                   order by ordinal_position";
    let unique = "select case when index_name = 'PRIMARY' then '1' else '0' end, index_name, column_name \
                  from information_schema.statistics where table_schema = coalesce(?, database()) and table_name = ? \
                  and non_unique = 0 and index_name not in (select index_name from information_schema.statistics \
                  where table_schema = coalesce(?, database()) and table_name = ? and sub_part is not null) \
                  order by index_name, seq_in_index";
    let schema = schema.map_or(Cell::Null, |schema| Cell::Text(schema.to_owned()));
    let one = vec![schema, Cell::Text(table.to_owned())];
    let rows = session.cells(columns, one.clone()).await?.rows;
    let of = |row: &Vec<Cell>| {
        let name = text(row.first());
        let (precision, scale) = (text(row.get(5)), text(row.get(6)));
        Column {
            quoted: quoted(Dialect::MySql, &name),
            name,
            kind: mysql_kind(&text(row.get(1)), &text(row.get(2)), &precision, &scale),
            sorts: mysql_sorts(&text(row.get(1))),
            generated: text(row.get(4)).to_uppercase().contains(" GENERATED"),
            nullable: text(row.get(3)) == "YES",
        }
    };
    let columns = rows.iter().map(of).collect();
    let twice = [one.clone(), one].concat();
    Ok((columns, gathered(&session.cells(unique, twice).await?.rows)))
}

pub(super) fn mysql_kind(data: &str, full: &str, precision: &str, scale: &str) -> Kind {
    let cast = |name: &str| Kind::Cast(name.to_owned());
    match data.to_lowercase().as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" if full.contains("unsigned") => {
            cast("unsigned")
        }
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" | "boolean" => cast("signed"),
        "decimal" => Kind::Cast(format!("decimal({precision},{scale})")),
        "float" => Kind::Number("0e0", "double".to_owned()),
        "double" => cast("double"),
        "bit" => Kind::Number("0", "unsigned".to_owned()),
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "geometry" | "point"
        | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
        | "geometrycollection" | "vector" => Kind::Bytes,
        _ => Kind::Text,
    }
}

/// How MySQL sorts a type. Of texts and bytes without a near end it sorts by the beginning only.
pub(super) fn mysql_sorts(data: &str) -> Sorts {
    match data.to_lowercase().as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" | "boolean" | "decimal"
        | "float" | "double" | "bit" | "char" | "varchar" | "tinytext" | "binary" | "varbinary"
        | "tinyblob" | "date" | "time" | "datetime" | "timestamp" | "uuid" | "inet4" | "inet6" => {
            Sorts::Plainly
        }
        "enum" | "set" => Sorts::ByText,
        other => Sorts::Unknown(other.to_owned()),
    }
}

async fn sqlite(session: &mut dyn Session, schema: Option<&str>, table: &str) -> Result<Described, Failure> {
    let schema = Cell::Text(schema.unwrap_or("main").to_owned());
    let of_table = vec![Cell::Text(table.to_owned()), schema.clone()];
    let columns =
        "select name, type, \"notnull\", pk, hidden from pragma_table_xinfo(?, ?) where hidden <> 1";
    let unique = "select case when l.origin = 'pk' then '1' else '0' end, l.name, i.name \
                  from pragma_index_list(?, ?) l join pragma_index_xinfo(l.name, ?) i on i.key \
                  where l.\"unique\" and not l.partial order by l.name, i.seqno";
    let rows = session.cells(columns, of_table.clone()).await?.rows;
    let of = |row: &Vec<Cell>| {
        let name = text(row.first());
        Column {
            quoted: quoted(Dialect::Sqlite, &name),
            name,
            kind: Kind::Sqlite(affinity(&text(row.get(1)))),
            sorts: Sorts::Plainly,
            generated: matches!(text(row.get(4)).as_str(), "2" | "3"),
            nullable: text(row.get(2)) != "1",
        }
    };
    let mut found = gathered(&session.cells(unique, [of_table, vec![schema]].concat()).await?.rows);
    // An expression in an index has no name, and is no column.
    found.retain(|one| one.columns.iter().all(|column| !column.is_empty()));
    let mut primary: Vec<(String, String)> = rows
        .iter()
        .map(|row| (text(row.get(3)), text(row.first())))
        .filter(|(place, _)| place != "0")
        .collect();
    primary.sort();
    if !primary.is_empty() && !found.iter().any(|one| one.primary) {
        // The rowid has no index of its own.
        let columns = primary.into_iter().map(|(_, name)| name).collect();
        found.push(Unique { primary: true, columns });
    }
    Ok((rows.iter().map(of).collect(), found))
}

/// What a column declared so makes of a value: SQLite's rules.
fn affinity(declared: &str) -> Affinity {
    let declared = declared.to_uppercase();
    let has = |parts: &[&str]| parts.iter().any(|part| declared.contains(part));
    if has(&["INT"]) {
        Affinity::Numeric
    } else if has(&["CHAR", "CLOB", "TEXT"]) {
        Affinity::Text
    } else if has(&["BLOB"]) || declared.is_empty() {
        Affinity::Blob
    } else {
        Affinity::Numeric
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables() {
        let of = |name: &str| parts(name).ok();
        assert_eq!(of("Ring"), Some((None, "Ring".to_owned())));
        assert_eq!(of("public.Ring"), Some((Some("public".to_owned()), "Ring".to_owned())));
        assert_eq!(of(r#""a.b"."c""d""#), Some((Some("a.b".to_owned()), "c\"d".to_owned())));
        for bad in ["", "a.", ".a", "a.b.c", "\"a"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn affinities() {
        for (declared, wanted) in [
            ("INTEGER", Affinity::Numeric),
            ("numeric(10)", Affinity::Numeric),
            ("TEXT", Affinity::Text),
            ("varchar", Affinity::Text),
            ("", Affinity::Blob),
            ("blob", Affinity::Blob),
            ("datetime", Affinity::Numeric),
        ] {
            assert_eq!(affinity(declared), wanted, "{declared}");
        }
    }
}
