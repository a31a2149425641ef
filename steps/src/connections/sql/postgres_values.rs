//! How values travel to and from PostgreSQL without loss. A parameter is turned into the bytes of its type by the server itself, and a column
//! is asked for as JSON or, where JSON would lose digits, as a text.

use runbook_engine::error::StepError;
use serde_json::Value;
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgConnection, PgRow, PgTypeInfo, Postgres};
use sqlx::{AssertSqlSafe, Column as _, Either, Executor as _, Row as _, SqlSafeStr as _, Statement as _};
use sqlx::{Type, TypeInfo as _, ValueRef as _};

use super::postgres::Parameters;
use super::scan::Statement;
use super::{Failure, Shape};

/// A statement as it is sent, and what it takes and gives.
pub(super) struct Plan {
    /// The statement.
    pub sql: String,
    /// The names of the columns.
    pub columns: Vec<String>,
    parameters: Vec<Oid>,
    shown: Vec<Shown>,
}

/// How the value of a column comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// As JSON, made by the server.
    Json,
    /// As a text, made by the server.
    Text,
    /// As the server sends it.
    Plain,
}

const TEXT: Oid = Oid(25);
const NUMERIC: &[Oid] = &[Oid(1700), Oid(1231)];

/// Asks the server what a statement takes and gives.
pub(super) async fn plan_of(
    connection: &mut PgConnection,
    statement: &Statement<'_>,
) -> Result<Plan, Failure> {
    let text = AssertSqlSafe(statement.text.to_owned()).into_sql_str();
    let prepared = connection.prepare(text).await?;
    let parameters = match prepared.parameters() {
        Some(Either::Left(types)) => types.iter().map(|one| one.oid().unwrap_or(TEXT)).collect(),
        _ => Vec::new(),
    };
    let columns: Vec<String> = prepared.columns().iter().map(|one| one.name().to_owned()).collect();
    if columns.is_empty() || !statement.fits_in_with() {
        let shown = vec![Shown::Plain; columns.len()];
        return Ok(Plan { sql: statement.text.to_owned(), columns, parameters, shown });
    }
    let shown: Vec<Shown> = prepared
        .columns()
        .iter()
        .map(|one| match one.type_info().oid() {
            Some(oid) if NUMERIC.contains(&oid) => Shown::Text,
            _ => Shown::Json,
        })
        .collect();
    let list = |each: &dyn Fn(usize) -> String| (0..columns.len()).map(each).collect::<Vec<_>>().join(", ");
    let names = list(&|at| format!("c{at}"));
    let values = list(&|at| match shown[at] {
        Shown::Text => format!("c{at}::text"),
        _ => format!("to_json(c{at})::text"),
    });
    let sql = format!("with q({names}) as (\n{}\n) select {values} from q", statement.text);
    Ok(Plan { sql, columns, parameters, shown })
}

/// What a statement gives and takes, with the types by their names.
pub(super) async fn shape_of(connection: &mut PgConnection, sql: &str) -> Result<Shape, Failure> {
    let prepared = connection.prepare(AssertSqlSafe(sql.to_owned()).into_sql_str()).await?;
    let of = |one: &PgTypeInfo| one.oid().unwrap_or(TEXT);
    let columns: Vec<(String, Oid)> =
        prepared.columns().iter().map(|one| (one.name().to_owned(), of(one.type_info()))).collect();
    let parameters: Vec<Oid> = match prepared.parameters() {
        Some(Either::Left(types)) => types.iter().map(of).collect(),
        _ => Vec::new(),
    };
    let all = columns.iter().map(|(_, oid)| oid).chain(&parameters);
    let all: Vec<i64> = all.map(|oid| i64::from(oid.0)).collect();
    let names = "select format_type(one::oid, -1) from unnest($1::int8[]) with ordinality as all_of(one, at) order by at";
    let rows = connection.fetch_all(sqlx::query(names).persistent(false).bind(all)).await?;
    let names: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, sqlx::Error>>()?;
    let (given, taken) = names.split_at(columns.len().min(names.len()));
    let columns = columns.into_iter().map(|(name, _)| name).zip(given.iter().cloned()).collect();
    Ok(Shape { columns, parameters: taken.to_vec() })
}

/// A parameter in the bytes of its type.
pub(super) struct Bound {
    oid: Oid,
    bytes: Option<Vec<u8>>,
}

impl Type<Postgres> for Bound {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TEXT)
    }
}

impl Encode<'_, Postgres> for Bound {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        match &self.bytes {
            Some(bytes) => {
                buffer.extend_from_slice(bytes);
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(self.oid))
    }
}

/// Turns values into parameters of the types that the statement takes.
pub(super) async fn bind(
    connection: &mut PgConnection,
    plan: &Plan,
    values: &[Value],
) -> Result<Parameters, Failure> {
    super::check_parameters::<Oid>(Some(Either::Left(&plan.parameters)), values)?;
    let types = sending(connection, &plan.parameters).await?;
    let mut texts = Vec::new();
    let mut calls = Vec::new();
    for (value, oid) in values.iter().zip(&plan.parameters) {
        let kind = types.iter().find(|one| one.oid == *oid);
        let text = as_text(value, kind.is_some_and(|kind| kind.is_array))?;
        if let (Some(kind), true) = (kind, text.is_some()) {
            calls.push(format!("{}(cast(${}::text as {}))", kind.send, calls.len() + 1, kind.name));
        }
        texts.push((*oid, kind.is_some(), text));
    }
    let sent = encode(connection, &calls, &texts).await?;
    let mut sent = sent.into_iter();
    let bound = texts.into_iter().map(|(oid, is_sent, text)| {
        let bytes = match text {
            None => None,
            Some(_) if is_sent => sent.next().flatten(),
            Some(text) => Some(text.into_bytes()),
        };
        Bound { oid, bytes }
    });
    Ok(bound.collect())
}

/// The server's own bytes of values.
async fn encode(
    connection: &mut PgConnection,
    calls: &[String],
    texts: &[(Oid, bool, Option<String>)],
) -> Result<Vec<Option<Vec<u8>>>, Failure> {
    if calls.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!("select {}", calls.join(", "));
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
    for (_, _, text) in texts.iter().filter(|(_, is_sent, text)| *is_sent && text.is_some()) {
        query = query.bind(text);
    }
    let row = connection
        .fetch_one(query)
        .await
        .map_err(|error| Failure::from(error).during("a parameter does not fit"))?;
    let values: Result<Vec<_>, sqlx::Error> =
        (0..row.len()).map(|at| row.try_get::<Option<Vec<u8>>, _>(at)).collect();
    Ok(values?)
}

/// A type whose values the server turns into bytes.
struct Sending {
    oid: Oid,
    send: String,
    name: String,
    is_array: bool,
}

/// The types of these that are not text, with the function that makes their bytes.
async fn sending(connection: &mut PgConnection, oids: &[Oid]) -> Result<Vec<Sending>, Failure> {
    let wanted: Vec<i64> = oids.iter().filter(|oid| **oid != TEXT).map(|oid| i64::from(oid.0)).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let sql = "select t.oid::int8, quote_ident(n.nspname) || '.' || quote_ident(p.proname), \
               format_type(t.oid, -1), t.typcategory = 'A' \
               from pg_type t join pg_proc p on p.oid = t.typsend join pg_namespace n on n.oid = p.pronamespace \
               where t.oid::int8 = any($1)";
    let rows = connection.fetch_all(sqlx::query(sql).persistent(false).bind(wanted)).await?;
    let of = |row: PgRow| -> Result<Sending, sqlx::Error> {
        let oid: i64 = row.try_get(0)?;
        Ok(Sending {
            oid: Oid(u32::try_from(oid).unwrap_or_default()),
            send: row.try_get(1)?,
            name: row.try_get(2)?,
            is_array: row.try_get(3)?,
        })
    };
    let types: Result<Vec<_>, sqlx::Error> = rows.into_iter().map(of).collect();
    Ok(types?)
}

/// A value as PostgreSQL reads it; nothing for null.
fn as_text(value: &Value, is_array: bool) -> Result<Option<String>, Failure> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text.clone(),
        Value::Array(items) if is_array => array(items),
        other => other.to_string(),
    };
    if text.contains('\0') {
        let message = "a parameter holds the character NUL, which PostgreSQL can not hold";
        return Err(Failure::plain(StepError::invalid(message)));
    }
    Ok(Some(text))
}

/// A list as an array of PostgreSQL.
fn array(items: &[Value]) -> String {
    let item = |item: &Value| match item {
        Value::Null => "NULL".to_owned(),
        Value::Array(items) => array(items),
        Value::String(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        other => format!("\"{}\"", other.to_string().replace('\\', "\\\\").replace('"', "\\\"")),
    };
    format!("{{{}}}", items.iter().map(item).collect::<Vec<_>>().join(","))
}

/// The values of a row.
pub(super) fn decoded(row: &PgRow, plan: &Plan) -> Result<Vec<Value>, Failure> {
    plan.shown.iter().enumerate().map(|(at, shown)| one(row, at, *shown)).collect()
}

fn one(row: &PgRow, at: usize, shown: Shown) -> Result<Value, Failure> {
    if shown == Shown::Plain {
        return plain(row, at);
    }
    let Some(text) = row.try_get::<Option<String>, _>(at)? else { return Ok(Value::Null) };
    if shown == Shown::Text {
        return Ok(Value::String(text));
    }
    serde_json::from_str(&text)
        .map_err(|error| Failure::plain(StepError::refused("a value is no JSON").with_source(&error)))
}

/// What a statement gives that can not be wrapped (`show`, `explain`, a `with` that writes).
fn plain(row: &PgRow, at: usize) -> Result<Value, Failure> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let kind = raw.type_info().name().to_owned();
    Ok(match kind.as_str() {
        "BOOL" => Value::from(row.try_get::<bool, _>(at)?),
        "INT2" => Value::from(row.try_get::<i16, _>(at)?),
        "INT4" => Value::from(row.try_get::<i32, _>(at)?),
        "INT8" => Value::from(row.try_get::<i64, _>(at)?),
        "FLOAT4" => Value::from(row.try_get::<f32, _>(at)?),
        "FLOAT8" => Value::from(row.try_get::<f64, _>(at)?),
        "TEXT" | "VARCHAR" | "NAME" | "CHAR" | "BPCHAR" | "UNKNOWN" => {
            Value::from(row.try_get::<String, _>(at)?)
        }
        "JSON" | "XML" => text_of(raw.as_bytes().unwrap_or_default()),
        _ => {
            let name = row.column(at).name();
            let message =
                format!("column `{name}` of this statement has the type {kind}, which can not be shown");
            let help = format!("cast it: `{name}::text`");
            return Err(Failure::plain(StepError::refused(message).with_help(help)));
        }
    })
}

fn text_of(bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_arrays_of_postgres() {
        let text = |value: Value| as_text(&value, true).unwrap().unwrap();
        assert_eq!(text(json!([1, "a\"b\\", null, [true]])), r#"{"1","a\"b\\",NULL,{"true"}}"#);
        assert_eq!(as_text(&json!([1]), false).unwrap().unwrap(), "[1]");
        assert_eq!(as_text(&json!(null), true).unwrap(), None);
        assert!(as_text(&json!("a\0"), false).is_err());
    }
}
