//! Collection kind `sql-rows`: the rows of a table of a SQL database, or of a query.

mod filter;
mod followers;
mod query;
mod records;
mod table;
mod update;
mod write;

use std::sync::Arc;

use async_trait::async_trait;
use runbook_engine::error::StepError;
use runbook_engine::kinds::{Fault, SettingProblem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use self::filter::Parameters;
use self::table::{Column, Table};
use super::record_version::record_version;
use super::{Change, Collection, Content, Doomed, Guard, Item, KeyOutcome, Page, Version};
use crate::connections::sql::{Begin, Cell, Cells, Database, Dialect, Failure, Session};
use crate::kind::CollectionKind;
use crate::one_or_many::OneOrMany;
use crate::resources::Resources;
use crate::retry::patiently;
use crate::text::in_brief;

/// The rows of a table. They are read in the order of their key, a page after the key before it, so that a row that stays is seen once, whatever
/// else comes and goes.
///
/// A record holds every value without loss: in PostgreSQL and MySQL as the text that the database writes and reads for its type (bytes of
/// MySQL as hex digits), in SQLite as a number, a text, `{ real: … }` or `{ blob: … }`. Columns that the database computes are left out.
///
/// A row of a snapshot is deleted only while all of it is as it was, or the column `version`: the row is locked, compared and deleted in one
/// transaction. A row is put back as it was or not at all; one that is there already is left, and refused when it differs.
///
/// The rows of a `query` are read in the same way: counted, listed, compared, written into a snapshot. They are never deleted, changed or put back.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["table"]}, {"required": ["query"]}]))]
#[schemars(extend("dependentRequired" = {"query": ["key"], "parameters": ["query"]}))]
pub struct SqlRows {
    /// The name of a connection of type `postgres`, `mysql` or `sqlite`.
    pub connection: String,
    /// The table: `name` or `schema.name`, as it is spelled in the database. A name with a dot in it stands in double quotes.
    #[serde(default)]
    pub table: Option<String>,
    /// In place of `table` one `select` that gives the rows. It is run for each page, so that its `key` should be found by an index.
    #[serde(default)]
    pub query: Option<String>,
    /// The values of the parameters of `query`, in order: `$1` in PostgreSQL, `?` in MySQL and SQLite.
    #[serde(default)]
    pub parameters: Vec<Value>,
    /// The column, or the columns, that tell the rows apart. Default: the primary key of the table. A unique index must say so too; of a `query`,
    /// which has none, it is made sure when the rows are first asked for.
    #[serde(default)]
    pub key: Option<OneOrMany<String>>,
    /// Only rows of which this holds, by column: a value, a list of values, null, or a mapping of comparisons (`not`, `lt`, `lte`, `gt`, `gte`,
    /// `like`). Default: every row.
    #[serde(default, rename = "where")]
    pub conditions: Map<String, Value>,
    /// The columns of a record. Default: all that the database does not compute. Rows of which only some are known can not be put back. The
    /// version of a row is that of all its columns all the same.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// A column that changes with every change of its row. Default: none, and the whole row is compared.
    #[serde(default)]
    pub version: Option<String>,
    /// A column that holds a value in rows that are deleted in name only, such as `deleted_at`: they are left out. A table without the column
    /// has no such rows. Default: none.
    #[serde(default)]
    pub soft_deleted_by: Option<String>,
}

impl CollectionKind for SqlRows {
    const NAME: &'static str = "sql-rows";
    const SUMMARY: &'static str = "The rows of a table of a SQL database, or of a query";
    const MAX_BATCH: usize = MAX_BATCH;
    const CODE_FIELDS: &'static [&'static str] = &["/query"];

    fn problems(settings: &Value) -> Vec<SettingProblem> {
        let refused = settings.get("query").and_then(Value::as_str).and_then(|sql| query::check(sql).err());
        let problem = |StepError { message, help, .. }| SettingProblem {
            pointer: "/query".to_owned(),
            fault: Fault::Value,
            message,
            help,
        };
        refused.map(problem).into_iter().collect()
    }

    fn only_read(settings: &Value) -> Option<&'static str> {
        settings.get("query").filter(|query| !query.is_null()).map(|_| NAME_THE_TABLE)
    }

    fn not_updated(settings: &Value) -> Option<&'static str> {
        Self::only_read(settings)
    }

    fn open(self, _: &str, resources: &Resources) -> Result<Arc<dyn Collection>, StepError> {
        let database = resources.connection::<Database>(&self.connection)?;
        match (&self.table, &self.query) {
            (Some(table), None) => table::parts(table).map(drop)?,
            (None, Some(query)) if self.key.is_some() => query::check(query)?,
            _ => {
                return Err(StepError::invalid(
                    "either `table`, or `query` with its `key`, says which rows there are",
                ));
            }
        }
        filter::check(&self.conditions)?;
        Ok(Arc::new(Rows { database, settings: self, table: OnceCell::new() }))
    }
}

/// What to do where rows of a query are to be changed.
const NAME_THE_TABLE: &str =
    "rows of a `query` are only read: name the `table` that they are in, and which of them by `where`";

/// The most keys of one batch.
const MAX_BATCH: usize = 1000;

struct Rows {
    database: Arc<Database>,
    settings: SqlRows,
    /// The table as the database describes it, once it was asked.
    table: OnceCell<Table>,
}

/// Where a scan goes on: the key of the last row, value by value.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    after: Vec<Value>,
}

/// A row as it was read: its key, the item, and whether the conditions hold of it.
struct Row {
    cells: Vec<Cell>,
    item: Item,
    wanted: bool,
}

impl Rows {
    async fn table(&self) -> Result<&Table, StepError> {
        let key = self.settings.key.as_ref().map_or(&[][..], |key| key.0.as_slice());
        let SqlRows { query, parameters, .. } = &self.settings;
        let load = || async move {
            let Some(query) = query else { return table::load(&self.database, self.name(), key).await };
            query::load(self.reading().await?, self.database.dialect(), query, parameters, key).await
        };
        self.table.get_or_try_init(load).await
    }

    /// The name of the table as the author wrote it; nothing of a query.
    fn name(&self) -> &str {
        self.settings.table.as_deref().unwrap_or_default()
    }

    /// Refused when the rows are only read.
    fn may_change(&self) -> Result<(), StepError> {
        if self.settings.query.is_none() {
            return Ok(());
        }
        let message = format!("{} are only read, and nothing was changed", self.describe());
        Err(StepError::invalid(message).with_help(NAME_THE_TABLE))
    }

    /// The columns of a record.
    fn recorded<'a>(&self, table: &'a Table) -> Result<Vec<&'a Column>, StepError> {
        match &self.settings.columns {
            Some(names) => names.iter().map(|name| table.column(name)).collect(),
            None => Ok(table.columns.iter().filter(|column| !column.generated).collect()),
        }
    }

    /// The columns that the version is of where the record has only some of them: all that the database does not compute.
    fn versioned<'a>(&self, table: &'a Table) -> Vec<&'a Column> {
        match (&self.settings.columns, &self.settings.version) {
            (Some(_), None) => table.columns.iter().filter(|column| !column.generated).collect(),
            _ => Vec::new(),
        }
    }

    /// A connection for reading, on which no row is hidden.
    async fn reading(&self) -> Result<Box<dyn Session>, Failure> {
        let mut session = self.database.begin(Begin::ReadOnly).await?;
        self.see_all(&mut *session).await?;
        Ok(session)
    }

    /// PostgreSQL hides rows by policies; rather than leave some out it is to refuse.
    async fn see_all(&self, session: &mut dyn Session) -> Result<(), Failure> {
        if self.database.dialect() == Dialect::Postgres {
            session.script("set local row_security = off").await?;
        }
        Ok(())
    }

    /// Reads in a transaction of its own.
    async fn ask(&self, sql: &str, parameters: Vec<Cell>) -> Result<Cells, Failure> {
        let mut session = self.reading().await?;
        let found = session.cells(sql, parameters).await?;
        session.rollback().await?;
        session.finish().await;
        Ok(found)
    }

    /// What is selected of a row: its key, its record, its version, and whether the conditions hold.
    fn selection(&self, table: &Table, parameters: &mut Parameters) -> Result<String, StepError> {
        let mut all: Vec<String> = table.key().map(Column::read).collect();
        all.extend(self.recorded(table)?.into_iter().map(Column::read));
        all.extend(self.versioned(table).into_iter().map(Column::read));
        all.push(match &self.settings.version {
            Some(name) => table.column(name)?.read(),
            None => "''".to_owned(),
        });
        let holds = self.holds(table, parameters)?;
        all.push(format!("case when {holds} then '1' else '0' end"));
        Ok(all.join(", "))
    }

    /// Reads what [`Rows::selection`] selects.
    fn row(&self, table: &Table, mut cells: Vec<Cell>) -> Result<Row, StepError> {
        let wanted = cells.pop() == Some(Cell::Text("1".to_owned()));
        let version = cells.pop().unwrap_or(Cell::Null);
        let rest = cells.split_off(table.key.len().min(cells.len()));
        let recorded = self.recorded(table)?;
        let (kept, whole) = rest.split_at(recorded.len().min(rest.len()));
        let record = records::record(recorded.into_iter(), kept);
        let version = match &self.settings.version {
            Some(_) => Version(records::recorded(&version)),
            None if whole.is_empty() => record_version(&record),
            None => record_version(&records::record(self.versioned(table).into_iter(), whole)),
        };
        // A version that says nothing would pass for the absence of the row.
        if version.is_absent() {
            return Err(StepError::refused(format!("a row of {} has no value in its version", table.quoted)));
        }
        let key = records::key(&cells)?;
        if table.dialect == Dialect::Sqlite && records::key_cells(table, &key)? != cells {
            let message = format!("the key `{key}` of {} can not be told from another one", table.quoted);
            return Err(
                StepError::refused(message).with_help("its type is not the one that the column declares")
            );
        }
        let item = Item { key, record, bytes: None, version: Some(version) };
        Ok(Row { cells, item, wanted })
    }

    async fn select(
        &self,
        rest: impl FnOnce(&Table, &mut Parameters) -> Result<String, StepError>,
    ) -> Result<(Vec<Row>, bool), StepError> {
        let table = self.table().await?;
        let mut parameters = Parameters::of(table);
        let selection = self.selection(table, &mut parameters)?;
        let from = table.source(&mut parameters);
        let rest = rest(table, &mut parameters)?;
        let sql = format!("select {selection} from {from} where {rest}");
        let found = patiently(async || Ok(self.ask(&sql, parameters.0.clone()).await?)).await?;
        let rows = found.rows.into_iter().map(|cells| self.row(table, cells)).collect::<Result<_, _>>()?;
        Ok((rows, found.cut))
    }

    /// The conditions that a row is wanted by.
    fn holds(&self, table: &Table, parameters: &mut Parameters) -> Result<String, StepError> {
        let holds = filter::conditions(table, &self.settings.conditions, parameters)?;
        let deleted = self.settings.soft_deleted_by.as_ref().and_then(|name| table.column(name).ok());
        Ok(match deleted {
            Some(column) => format!("{holds} and t.{} is null", column.quoted),
            None => holds,
        })
    }

    async fn page(&self, at: Option<Cursor>, limit: usize) -> Result<Page, StepError> {
        let limit = limit.max(1);
        let after = match at {
            Some(cursor) => Some(cursor.after.iter().map(records::parsed).collect::<Result<Vec<_>, _>>()?),
            None => None,
        };
        let (rows, cut) = self
            .select(|table, parameters| {
                let holds = self.holds(table, parameters)?;
                let further =
                    after.map_or_else(|| "1 = 1".to_owned(), |after| further(table, after, parameters));
                let order: Vec<_> = table.key().map(Column::sorted).collect();
                Ok(format!("{holds} and {further} order by {} limit {limit}", order.join(", ")))
            })
            .await?;
        let full = cut || rows.len() == limit;
        let next = rows.last().filter(|_| full).map(|row| {
            let after: Vec<Value> = row.cells.iter().map(records::recorded).collect();
            json!({ "after": after })
        });
        Ok(Page { items: rows.into_iter().map(|row| row.item).collect(), next, total: None, moved: false })
    }
}

/// The rows after a key.
fn further(table: &Table, after: Vec<Cell>, parameters: &mut Parameters) -> String {
    let columns: Vec<&Column> = table.key().collect();
    if let [column] = columns[..] {
        let value = after.into_iter().next().unwrap_or(Cell::Null);
        return format!("{} > {}", column.sorted(), parameters.sorted_place(column, value));
    }
    if table.dialect != Dialect::MySql {
        let names: Vec<_> = columns.iter().map(|column| column.sorted()).collect();
        let places: Vec<_> =
            columns.iter().zip(after).map(|(column, value)| parameters.sorted_place(column, value)).collect();
        return format!("({}) > ({})", names.join(", "), places.join(", "));
    }
    // MySQL finds no place in an index by a comparison of rows. The places of parameters go by their order in the text.
    let value = |at: usize| after.get(at).cloned().unwrap_or(Cell::Null);
    let first = columns.first().map_or_else(String::new, |column| {
        format!("{} >= {} and ", column.sorted(), parameters.sorted_place(column, value(0)))
    });
    let mut either = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        let mut all: Vec<String> = Vec::new();
        for (place, before) in columns.iter().enumerate().take(at) {
            all.push(format!("{} = {}", before.sorted(), parameters.sorted_place(before, value(place))));
        }
        all.push(format!("{} > {}", column.sorted(), parameters.sorted_place(column, value(at))));
        either.push(format!("({})", all.join(" and ")));
    }
    format!("({first}({}))", either.join(" or "))
}

#[async_trait]
impl Collection for Rows {
    fn describe(&self) -> String {
        let what = match &self.settings.query {
            Some(query) => format!("`{}`", in_brief(query)),
            None => self.name().to_owned(),
        };
        let mut of = format!("rows of {what} at {}", self.database.describe());
        if !self.settings.conditions.is_empty() {
            of = format!("{of} where {}", filter::describe(&self.settings.conditions));
        }
        match &self.settings.soft_deleted_by {
            Some(column) => format!("{of}, without those deleted by {column}"),
            None => of,
        }
    }

    async fn follows(&self) -> Result<Vec<String>, StepError> {
        if self.settings.query.is_some() {
            return Ok(Vec::new());
        }
        let dialect = self.database.dialect();
        let (schema, name) = table::parts(self.name())?;
        let name = match dialect {
            Dialect::Postgres => (None, self.table().await?.quoted.clone()),
            _ => (schema, name),
        };
        let mut session = self.database.begin(Begin::ReadOnly).await?;
        let found = followers::followers(&mut *session, dialect, name).await?;
        session.rollback().await?;
        session.finish().await;
        Ok(found)
    }

    fn guard(&self) -> Guard {
        Guard::Looks
    }

    fn may_be_empty(&self) -> bool {
        true
    }

    fn max_batch(&self) -> usize {
        MAX_BATCH
    }

    async fn count(&self) -> Result<u64, StepError> {
        let table = self.table().await?;
        let mut parameters = Parameters::of(table);
        let from = table.source(&mut parameters);
        let holds = self.holds(table, &mut parameters)?;
        let cast = if table.dialect == Dialect::Postgres { "count(*)::text" } else { "count(*)" };
        let sql = format!("select {cast} from {from} where {holds}");
        let found = patiently(async || Ok(self.ask(&sql, parameters.0.clone()).await?)).await?;
        let number = match found.rows.first().and_then(|row| row.first()) {
            Some(Cell::Integer(number)) => u64::try_from(*number).ok(),
            Some(Cell::Text(text)) => text.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| StepError::refused(format!("{} was not counted", self.describe())))
    }

    async fn scan(&self, cursor: Option<&Value>, limit: usize) -> Result<Page, StepError> {
        let at: Option<Cursor> = cursor
            .map(|cursor| serde_json::from_value(cursor.clone()))
            .transpose()
            .map_err(|error| StepError::invalid(format!("the place in a listing is unreadable: {error}")))?;
        self.page(at, limit).await
    }

    async fn read(&self, key: &str) -> Result<Option<Item>, StepError> {
        let (rows, _) = self
            .select(|table, parameters| {
                let holds = self.holds(table, parameters)?;
                Ok(format!("{holds} and {}", write::among(table, &[key], parameters)?))
            })
            .await?;
        // A column that does not tell upper case from lower may find another row.
        Ok(rows.into_iter().map(|row| row.item).find(|item| item.key == key))
    }

    async fn find(&self, fields: &[(&str, &str)], limit: usize) -> Result<Vec<Item>, StepError> {
        let (rows, _) = self
            .select(|table, parameters| {
                let mut all = vec![self.holds(table, parameters)?];
                for (name, text) in fields {
                    let column = table.column(name)?;
                    let place = parameters.place(column, Cell::Text((*text).to_owned()));
                    all.push(format!("t.{} = {place}", column.quoted));
                }
                Ok(format!("{} limit {limit}", all.join(" and ")))
            })
            .await?;
        Ok(rows.into_iter().map(|row| row.item).collect())
    }

    fn content(&self, _: &Item) -> Result<Content, StepError> {
        Err(StepError::invalid(format!("{} have no content of their own", self.describe())))
    }

    async fn delete(&self, keys: &[Doomed]) -> Result<Vec<KeyOutcome>, StepError> {
        self.may_change()?;
        write::delete(self, keys).await
    }

    async fn update(&self, changes: &[Change]) -> Result<Vec<KeyOutcome>, StepError> {
        self.may_change()?;
        update::update(self, changes).await
    }

    async fn put(&self, items: &[Item]) -> Result<Vec<KeyOutcome>, StepError> {
        self.may_change()?;
        write::put(self, items).await
    }
}
