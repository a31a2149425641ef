//! A backup restored into a database made for it, and counted there.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::step::{Intent, Settlement};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Backup;
use super::tools::{environment, run};
use crate::connections::sql::{Begin, Cell, Database, Dialect, Failure, Session, psql, quoted};
use crate::digest::sha256;
use crate::kind::Context;

/// A table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) owner: String,
}

impl Table {
    /// `schema.table`.
    pub(super) fn path(&self) -> String {
        format!("{}.{}", part(&self.schema), part(&self.name))
    }

    /// The same as SQL.
    pub(super) fn quoted(&self) -> String {
        let [schema, name] = [&self.schema, &self.name].map(|name| quoted(Dialect::Postgres, name));
        format!("{schema}.{name}")
    }
}

/// A name as it stands in a path: quoted where it could be taken for more than one.
pub(super) fn part(name: &str) -> Cow<'_, str> {
    if name.contains(['.', '"']) { quoted(Dialect::Postgres, name).into() } else { name.into() }
}

/// Every table that holds rows of its own, but for those of the server, as schema, name and owner.
const TABLES: &str = "select n.nspname::text, c.relname::text, pg_get_userbyid(c.relowner)::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
    where c.relkind = 'r' and c.relpersistence <> 't' and n.nspname not in ('pg_catalog', 'information_schema') \
    and n.nspname !~ '^pg_toast' and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass \
    and d.objid = c.oid and d.deptype = 'e') order by 1, 2";

/// The tables of a database.
pub(super) async fn tables(session: &mut dyn Session) -> Result<Vec<Table>, Failure> {
    let rows = session.cells(TABLES, Vec::new()).await?.rows;
    Ok(rows
        .into_iter()
        .filter_map(|row| match <[Cell; 3]>::try_from(row) {
            Ok([Cell::Text(schema), Cell::Text(name), Cell::Text(owner)]) => {
                Some(Table { schema, name, owner })
            }
            _ => None,
        })
        .collect())
}

/// One of these tables that holds a row.
pub(super) async fn filled<'t>(
    session: &mut dyn Session,
    tables: &'t [Table],
) -> Result<Option<&'t Table>, Failure> {
    for one in tables {
        let sql = format!("select exists (select from {})::text", one.quoted());
        let rows = session.cells(&sql, Vec::new()).await?.rows;
        if matches!(rows.first().and_then(|row| row.first()), Some(Cell::Text(text)) if text == "true") {
            return Ok(Some(one));
        }
    }
    Ok(None)
}

/// How many rows the tables of a database hold, as `schema.table`.
pub(super) async fn count(session: &mut dyn Session) -> Result<BTreeMap<String, u64>, Failure> {
    let mut counts = BTreeMap::new();
    for one in tables(session).await? {
        let table = one.quoted();
        let rows = session.cells(&format!("select count(*)::text from {table}"), Vec::new()).await?.rows;
        let number = match rows.first().and_then(|row| row.first()) {
            Some(Cell::Text(text)) => text.parse().unwrap_or_default(),
            _ => 0,
        };
        counts.insert(one.path(), number);
    }
    Ok(counts)
}

/// What is announced before a database is made for a probe.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Announced {
    pub(super) probe_database: String,
    /// How its server was reached, without a password.
    #[serde(default)]
    pub(super) server: BTreeMap<String, String>,
}

/// The database of a probe that a batch announced; nothing when it is none of a probe.
pub(super) fn announced(what: &Value) -> Option<Announced> {
    Announced::deserialize(what).ok()
}

/// Records that what was announced of probes is over.
async fn settle(cx: &Context) -> Result<(), StepError> {
    let view = cx.ledger.view().await?;
    // What the step had before stays known.
    let cursor = view.cursor.unwrap_or_default();
    for batch in view.unsettled.into_iter().filter(|batch| announced(&batch.what).is_some()) {
        let (cursor, outcome) = (cursor.clone(), json!({ "dropped": true }));
        cx.ledger.settle(batch.number, Settlement { cursor, outcome, ..Settlement::default() }).await?;
    }
    Ok(())
}

/// Restores the file into a database made for it on the server of connection `on`; what is in there then. The database is dropped, however it went.
pub(super) async fn restored(
    step: &Backup,
    cx: &Context,
    on: &str,
    file: &str,
) -> Result<BTreeMap<String, u64>, StepError> {
    let server = cx.resources.connection::<Database>(on)?;
    let mut env = environment(&server, on)?;
    // The same in every attempt, so that none is left behind.
    let mark = sha256(format!("{}:{}", cx.run.id, cx.step).as_bytes());
    let name = format!("runbook_probe_{}", &mark[..16]);
    let during = |error: Failure| StepError::from(error.during("making a database for the probe"));
    let server_is = psql::reached(&env).into_iter().map(|(name, value)| (name, cx.redactor.text(&value)));
    let what = json!(Announced { probe_database: name.clone(), server: server_is.collect() });
    cx.ledger.intend(Intent { what, items: 0, charged_items: 0, charged_bytes: 0 }).await?;
    drop_database(&server, &name).await.map_err(during)?;
    script(&server, &format!("create database {name} template template0")).await.map_err(during)?;
    env.insert("PGDATABASE".to_owned(), name.clone());
    let target = format!("--dbname={name}");
    let arguments = ["--no-password", "--exit-on-error", "--no-owner", "--no-privileges", &target, file];
    let ended: Result<_, StepError> = async {
        run(step, cx, "pg_restore", &arguments, env).await.map_err(|error| {
            let message = format!("the backup can not be restored: {}", error.message);
            StepError {
                message,
                kind: if error.kind == ErrorKind::Refused { ErrorKind::Gate } else { error.kind },
                ..error
            }
        })?;
        let copy = server
            .other(&name)
            .ok_or_else(|| StepError::new(ErrorKind::Bug, "the probe is on no server of PostgreSQL"))?;
        let mut session = copy.begin(Begin::ReadOnly).await?;
        Ok(count(&mut *session).await?)
    }
    .await;
    crash::point("backup: probed");
    let dropped = drop_database(&server, &name).await;
    if dropped.is_ok() {
        settle(cx).await?;
    }
    let counts = ended?;
    dropped.map_err(|error| {
        StepError::from(error.during(&format!("dropping the database {name} of the probe")))
    })?;
    Ok(counts)
}

pub(super) async fn drop_database(server: &Arc<Database>, name: &str) -> Result<(), Failure> {
    script(server, &dropping(name)).await
}

/// The statement that drops the database of a probe.
pub(super) fn dropping(name: &str) -> String {
    format!("drop database if exists {name} with (force)")
}

async fn script(server: &Arc<Database>, sql: &str) -> Result<(), Failure> {
    let mut session = server.open().await?;
    session.script(sql).await?;
    session.finish().await;
    Ok(())
}
