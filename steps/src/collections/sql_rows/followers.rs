//! What goes or changes with a row that is deleted: rows of other tables by foreign keys, and what triggers and rules do. The database tells which
//! there are; what they come to for which rows, nobody knows before.

use std::collections::BTreeSet;

use crate::connections::sql::{Cell, Dialect, Failure, Session};
use crate::digest::sha256;

/// A table: its schema where the dialect keeps it apart, and its name.
type Name = (Option<String>, String);

/// What happens to the rows of a table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Delete,
    Update,
}

/// The most tables that are followed.
const MOST: usize = 500;

/// Everything that follows a delete from this table, in words, in order.
pub(super) async fn followers(
    session: &mut dyn Session,
    dialect: Dialect,
    table: Name,
) -> Result<Vec<String>, Failure> {
    // What hangs on a table is another thing when its rows go than when they change, and one child may have keys of both kinds.
    let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::from([(table.clone(), Event::Delete)]));
    let mut open = vec![(table, Event::Delete)];
    let mut first = true;
    while let Some((table, event)) = open.pop() {
        // What a foreign key of MySQL does, no trigger of MySQL sees.
        if first || dialect != Dialect::MySql {
            found.extend(triggers(session, dialect, &table, event).await?);
        }
        first = false;
        if event == Event::Update || seen.len() > MOST {
            continue;
        }
        for (child, by, rule) in keys(session, dialect, &table).await? {
            found.insert(format!("rows of `{}` (foreign key {by}, on delete {rule})", child.1));
            let next = (child, if rule == "cascade" { Event::Delete } else { Event::Update });
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// The foreign keys to this table that do something when a row goes: the table they are of, their name, and what they do.
async fn keys(
    session: &mut dyn Session,
    dialect: Dialect,
    table: &Name,
) -> Result<Vec<(Name, String, String)>, Failure> {
    let sql = match dialect {
        Dialect::Postgres => {
            "with recursive r(oid) as (select to_regclass($1::text)::oid union \
             select i.inhrelid from pg_inherits i join r on i.inhparent = r.oid) \
             select null::text, c.conrelid::regclass::text, c.conname::text, \
             case c.confdeltype when 'c' then 'cascade' when 'n' then 'set null' else 'set default' end \
             from pg_constraint c where c.contype = 'f' and c.confdeltype in ('c', 'n', 'd') \
             and c.confrelid in (select oid from r) order by 2, 3"
        }
        Dialect::MySql => {
            "select constraint_schema, table_name, constraint_name, lower(delete_rule) \
             from information_schema.referential_constraints where unique_constraint_schema = coalesce(?, database()) \
             and referenced_table_name = ? and delete_rule in ('CASCADE', 'SET NULL', 'SET DEFAULT') order by 1, 2, 3"
        }
        Dialect::Sqlite => {
            "select null, m.name, f.\"from\", lower(f.on_delete) from sqlite_schema m \
             join pragma_foreign_key_list(m.name) f where m.type = 'table' and f.\"table\" = ? collate nocase \
             and f.on_delete in ('CASCADE', 'SET NULL', 'SET DEFAULT') order by 2, 3"
        }
    };
    let rows = session.cells(sql, parameters(dialect, table)).await?.rows;
    let of = |row: Vec<Cell>| {
        let schema = match row.first() {
            Some(Cell::Text(schema)) => Some(schema.clone()),
            _ => None,
        };
        ((schema, text(row.get(1))), text(row.get(2)), text(row.get(3)))
    };
    Ok(rows.into_iter().map(of).collect())
}

/// The triggers and rules of this table for an event, each with a digest of what it does.
async fn triggers(
    session: &mut dyn Session,
    dialect: Dialect,
    table: &Name,
    event: Event,
) -> Result<Vec<String>, Failure> {
    let (bit, rule, word) = match event {
        Event::Delete => (8, '4', "DELETE"),
        Event::Update => (16, '2', "UPDATE"),
    };
    let sql = match dialect {
        Dialect::Postgres => format!(
            "with recursive r(oid) as (select to_regclass($1::text)::oid union \
             select i.inhrelid from pg_inherits i join r on i.inhparent = r.oid) \
             select 'trigger', t.tgname::text, t.tgenabled::text || pg_get_triggerdef(t.oid) || pg_get_functiondef(t.tgfoid) \
             from pg_trigger t where t.tgrelid in (select oid from r) and not t.tgisinternal and t.tgenabled <> 'D' \
             and (t.tgtype & {bit}) <> 0 union all \
             select 'rule', w.rulename::text, w.ev_enabled::text || pg_get_ruledef(w.oid) from pg_rewrite w \
             where w.ev_class in (select oid from r) and w.ev_type = '{rule}' and w.ev_enabled <> 'D'"
        ),
        Dialect::MySql => format!(
            "select 'trigger', trigger_name, concat(action_timing, ' ', action_statement) from information_schema.triggers \
             where event_object_schema = coalesce(?, database()) and event_object_table = ? and event_manipulation = '{word}'"
        ),
        // One that has the word anywhere: rather one too many than one too few.
        Dialect::Sqlite => format!(
            "select 'trigger', name, sql from sqlite_schema where type = 'trigger' and tbl_name = ? collate nocase \
             and sql like '%{word}%'"
        ),
    };
    let rows = session.cells(&sql, parameters(dialect, table)).await?.rows;
    let of = |row: Vec<Cell>| {
        let digest: String = sha256(text(row.get(2)).as_bytes()).chars().take(12).collect();
        format!("what the {} `{}` of `{}` does ({digest})", text(row.first()), text(row.get(1)), table.1)
    };
    Ok(rows.into_iter().map(of).collect())
}

fn parameters(dialect: Dialect, table: &Name) -> Vec<Cell> {
    let name = Cell::Text(table.1.clone());
    match dialect {
        Dialect::MySql => vec![table.0.clone().map_or(Cell::Null, Cell::Text), name],
        Dialect::Postgres | Dialect::Sqlite => vec![name],
    }
}

fn text(cell: Option<&Cell>) -> String {
    match cell {
        Some(Cell::Text(text)) => text.clone(),
        Some(Cell::Blob(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    }
}
