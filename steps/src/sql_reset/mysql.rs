//! A reset of MySQL, which commits every change of a schema by itself. A table of ours marks the database from before the first drop until
//! the reset is recorded: a database with the mark is in the middle of a reset, and one without is not.

use runbook_engine::error::StepError;

use super::survey::{Survey, count, texts};
use crate::connections::sql::{Cell, Dialect, Failure, Session, quoted};
use crate::kind::Context;

/// The name of the table that marks the database.
pub(super) const MARK: &str = "runbook_reset";

/// Whatever is not known to be something else: MariaDB has tables of another type than `BASE TABLE`, those that keep their history.
const TABLES: &str = "select table_name from information_schema.tables where table_schema = database() \
                      and table_type not in ('VIEW', 'SYSTEM VIEW', 'SEQUENCE', 'TEMPORARY') \
                      and table_name <> 'runbook_reset' order by table_name";

/// The name of the lock of a reset of this database.
const LOCK: &str = "concat('runbook-reset-', left(sha2(database(), 256), 32))";

/// How often the lock is asked for, a second each.
const ASKED: u32 = 30;

/// Everything that is dropped, each as the words that name it.
const THINGS: &[(&str, &str)] = &[
    ("view", "select table_name from information_schema.views where table_schema = database()"),
    ("table", TABLES),
    (
        "sequence",
        "select table_name from information_schema.tables where table_schema = database() and table_type = 'SEQUENCE'",
    ),
    (
        "procedure",
        "select routine_name from information_schema.routines where routine_schema = database() and routine_type = 'PROCEDURE'",
    ),
    (
        "function",
        "select routine_name from information_schema.routines where routine_schema = database() and routine_type = 'FUNCTION'",
    ),
    ("event", "select event_name from information_schema.events where event_schema = database()"),
];

pub(super) async fn survey(session: &mut dyn Session) -> Result<Survey, Failure> {
    let tables = texts(session, TABLES, &[]).await?;
    count(session, Dialect::MySql, None, tables).await
}

/// What of other databases would be left broken: foreign keys to tables of this one, and views that read it. The definition of a view is told in a
/// form of the server's own, with the database of each table after `from` or `join`, and columns by other names. What the user of the connection may
/// not see is not told of.
const OUTSIDE: &str = "select concat('the foreign key ', constraint_name, ' of ', table_schema, '.', table_name) \
                       from information_schema.key_column_usage \
                       where referenced_table_schema = database() and table_schema <> database() \
                       union \
                       select concat('the view ', table_schema, '.', table_name) from information_schema.views \
                       where table_schema not in (database(), 'sys', 'mysql', 'information_schema', 'performance_schema') \
                       and (instr(replace(view_definition, '(', ''), concat('from `', replace(database(), '`', '``'), '`.')) > 0 \
                       or instr(replace(view_definition, '(', ''), concat('join `', replace(database(), '`', '``'), '`.')) > 0) order by 1";

/// Refuses to drop what something in another database of the server stands on: MySQL would not, and would leave that broken.
pub(super) async fn stands_alone(session: &mut dyn Session) -> Result<(), StepError> {
    let outside = texts(session, OUTSIDE, &[]).await?;
    let Some(first) = outside.first() else { return Ok(()) };
    let more = match outside.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!("{first}{more} in another database of the server would be left broken");
    Err(StepError::refused(message)
        .with_help("nothing was dropped; drop it before, or make it not depend on what is in this database"))
}

/// Whose mark is on the database: a run and its step.
pub(super) async fn marked(session: &mut dyn Session) -> Result<Option<(String, String)>, Failure> {
    let there =
        "select table_name from information_schema.tables where table_schema = database() and table_name = ?";
    if texts(session, there, &[MARK]).await?.is_empty() {
        return Ok(None);
    }
    let rows = session.cells("select run, step from runbook_reset", Vec::new()).await?.rows;
    Ok(rows.into_iter().next().and_then(|row| match &row[..] {
        [Cell::Text(run), Cell::Text(step)] => Some((run.clone(), step.clone())),
        _ => None,
    }))
}

/// Holds the lock of this database until the connection ends. A server goes on with the statements of a process that was killed: whoever
/// comes after it waits for their end.
pub(super) async fn lock(session: &mut dyn Session, cx: &Context) -> Result<(), StepError> {
    for _ in 0..ASKED {
        cx.checkpoint()?;
        let got = texts(session, &format!("select cast(get_lock({LOCK}, 1) as char)"), &[]).await?;
        if got.first().is_some_and(|got| got == "1") {
            return Ok(());
        }
    }
    let holder = holder(session).await?.unwrap_or_default();
    let message = format!(
        "another connection of the server, {holder}, is in the middle of a reset of this database; nothing was dropped"
    );
    Err(StepError::transient(message)
        .with_help(format!("wait for its end, or end it by `kill {holder}`, then resume")))
}

/// The connection of the server that is at work on a reset of this database.
pub(super) async fn holder(session: &mut dyn Session) -> Result<Option<String>, Failure> {
    let sql = format!("select cast(coalesce(is_used_lock({LOCK}), 0) as char)");
    Ok(texts(session, &sql, &[]).await?.into_iter().next().filter(|holder| holder != "0"))
}

/// Marks the database.
pub(super) async fn mark(session: &mut dyn Session, run: &str, step: &str) -> Result<(), Failure> {
    // With its row at once, so that there is no mark that is nobody's.
    let sql =
        "create table runbook_reset as select cast(? as char(200)) as run, cast(? as char(200)) as step";
    session.cells(sql, vec![Cell::Text(run.to_owned()), Cell::Text(step.to_owned())]).await.map(drop)
}

/// Removes the mark.
pub(super) async fn unmark(session: &mut dyn Session) -> Result<(), Failure> {
    session.script("drop table if exists runbook_reset").await
}

/// Drops everything but the mark.
pub(super) async fn clear(session: &mut dyn Session) -> Result<(), StepError> {
    session.script("set foreign_key_checks = 0").await?;
    for (kind, sql) in THINGS {
        for name in texts(session, sql, &[]).await? {
            session.script(&format!("drop {kind} {}", quoted(Dialect::MySql, &name))).await?;
        }
    }
    session.script("set foreign_key_checks = 1").await?;
    let left = texts(session, TABLES, &[]).await?;
    if left.is_empty() {
        return Ok(());
    }
    Err(StepError::refused(format!("tables are left after everything was dropped: {}", left.join(", ")))
        .with_help(
            "something makes them anew, or they are of a type that is not known: drop them, then resume",
        ))
}
