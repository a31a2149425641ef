//! A reset of PostgreSQL: the schema is dropped and created with all that was set on it.

use runbook_engine::error::StepError;

use super::survey::{Survey, count, texts};
use crate::connections::sql::{Cell, Dialect, Failure, Session, quoted};

const LOCKED: &str = "select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                      where n.nspname = $1 and c.relkind in ('r', 'p') and not c.relispartition order by 1";

/// The same without those of extensions, which come back with them.
const TABLES: &str = "select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                      where n.nspname = $1 and c.relkind in ('r', 'p') and not c.relispartition \
                      and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass \
                      and d.objid = c.oid and d.deptype = 'e') order by 1";

const ENUMS: &str = "select t.typname::text from pg_type t join pg_namespace n on n.oid = t.typnamespace \
                     where n.nspname = $1 and t.typtype = 'e' order by 1";

/// How much there is outside of the schema that could depend on what is in it.
const OUTSIDE: &str = "with others as (select oid from pg_namespace where nspname not in ($1, 'pg_toast') \
     and nspname !~ '^pg_(toast_)?temp_'), \
     classes as (select c.oid from pg_class c join others o on o.oid = c.relnamespace) \
     select ((select count(*) from classes) \
     + (select count(*) from pg_attribute a join classes c on c.oid = a.attrelid where not a.attisdropped) \
     + (select count(*) from pg_attrdef d join classes c on c.oid = d.adrelid) \
     + (select count(*) from pg_trigger t join classes c on c.oid = t.tgrelid) \
     + (select count(*) from pg_policy p join classes c on c.oid = p.polrelid) \
     + (select count(*) from pg_constraint k join others o on o.oid = k.connamespace) \
     + (select count(*) from pg_proc p join others o on o.oid = p.pronamespace) \
     + (select count(*) from pg_type t join others o on o.oid = t.typnamespace) \
     + (select count(*) from pg_rewrite r join classes c on c.oid = r.ev_class) \
     + (select count(*) from pg_event_trigger) + (select count(*) from pg_foreign_server) \
     + (select count(*) from pg_user_mappings) \
     + (select count(*) from pg_extension e join others o on o.oid = e.extnamespace))::text";

/// What brings back what is set on a schema, as statements.
const SETTINGS: &[&str] = &[
    "select format('alter schema %I owner to %I', nspname, pg_get_userbyid(nspowner)) from pg_namespace where nspname = $1",
    "select format('comment on schema %I is %L', nspname, obj_description(oid, 'pg_namespace')) from pg_namespace \
     where nspname = $1 and obj_description(oid, 'pg_namespace') is not null",
    "select format('grant %s on schema %I to %s%s', a.privilege_type, n.nspname, \
     case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end, \
     case when a.is_grantable then ' with grant option' else '' end) \
     from pg_namespace n cross join lateral aclexplode(n.nspacl) a where n.nspname = $1",
    "select format('alter default privileges for role %I in schema %I grant %s on %s to %s%s', \
     pg_get_userbyid(d.defaclrole), n.nspname, a.privilege_type, \
     case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions' else 'types' end, \
     case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end, \
     case when a.is_grantable then ' with grant option' else '' end) \
     from pg_default_acl d join pg_namespace n on n.oid = d.defaclnamespace cross join lateral aclexplode(d.defaclacl) a \
     where n.nspname = $1",
    "select format('create extension if not exists %I with schema %I version %L', e.extname, n.nspname, e.extversion) \
     from pg_extension e join pg_namespace n on n.oid = e.extnamespace where n.nspname = $1",
];

/// The publications that a table of the schema, or all of it, is named in. The second catalogue is there since PostgreSQL 15.
const PUBLISHED: &[&str] = &[
    "select distinct p.pubname::text from pg_publication_rel r join pg_publication p on p.oid = r.prpubid \
     join pg_class c on c.oid = r.prrelid join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 order by 1",
    "select p.pubname::text from pg_publication_namespace s join pg_publication p on p.oid = s.pnpubid \
     join pg_namespace n on n.oid = s.pnnspid where n.nspname = $1 order by 1",
];

/// The roles that may do something with what is in the schema and do not own it.
const GRANTED: &str = "select distinct case when a.grantee = 0 then 'public' else pg_get_userbyid(a.grantee)::text end from ( \
     select c.relacl as acl, c.relowner as owner from pg_class c join pg_namespace n on n.oid = c.relnamespace \
     where n.nspname = $1 union all \
     select t.attacl, c.relowner from pg_attribute t join pg_class c on c.oid = t.attrelid \
     join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 union all \
     select p.proacl, p.proowner from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = $1) o \
     cross join lateral aclexplode(o.acl) a where a.grantee <> o.owner order by 1";

/// Refused when a publication names what is in the schema: it would lose it without a word, and whoever is fed from it.
pub(super) async fn unpublished(session: &mut dyn Session, schema: &str) -> Result<(), StepError> {
    let there = "select coalesce(to_regclass('pg_catalog.pg_publication_namespace')::text, '')";
    let newer = texts(session, there, &[]).await?.iter().any(|name| !name.is_empty());
    let mut names = Vec::new();
    for sql in &PUBLISHED[..if newer { 2 } else { 1 }] {
        names.extend(texts(session, sql, &[schema]).await?);
    }
    if names.is_empty() {
        return Ok(());
    }
    let message = format!(
        "what is in {} is published by {}, which would lose it: nothing was dropped",
        quoted(Dialect::Postgres, schema),
        names.join(", ")
    );
    Err(StepError::refused(message).with_help(
        "take it out of the publication before (`alter publication … drop table …`), and put it back when it is made anew",
    ))
}

/// The roles that were granted something in the schema.
pub(super) async fn granted(session: &mut dyn Session, schema: &str) -> Result<Vec<String>, Failure> {
    texts(session, GRANTED, &[schema]).await
}

pub(super) async fn survey(session: &mut dyn Session, schema: &str) -> Result<Survey, Failure> {
    let tables = texts(session, TABLES, &[schema]).await?;
    let enums = texts(session, ENUMS, &[schema]).await?;
    Ok(Survey { enums, ..count(session, Dialect::Postgres, Some(schema), tables).await? })
}

/// Lets nobody write to the tables from now on, so that what is counted is what is dropped.
pub(super) async fn lock(session: &mut dyn Session, schema: &str) -> Result<(), Failure> {
    let tables = texts(session, LOCKED, &[schema]).await?;
    let name = |table: &String| {
        format!("{}.{}", quoted(Dialect::Postgres, schema), quoted(Dialect::Postgres, table))
    };
    if tables.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = tables.iter().map(name).collect();
    session.script(&format!("lock table {} in access exclusive mode", names.join(", "))).await
}

/// Who has a lock on something in a schema, each with what it is on.
const HOLDERS: &str = "select coalesce(l.pid::text, ''), format('`%s` is locked by %s', \
     string_agg(distinct format('%s.%s', n.nspname, c.relname), '`, `'), \
     case when l.pid is null then 'a prepared transaction' else format('connection %s (%s)', l.pid, \
     concat_ws(', ', a.usename, nullif(a.application_name, ''), a.state)) end) \
     from pg_locks l join pg_class c on c.oid = l.relation join pg_namespace n on n.oid = c.relnamespace \
     left join pg_stat_activity a on a.pid = l.pid \
     where l.granted and l.database = (select oid from pg_database where datname = current_database()) \
     and n.nspname = $1 and l.pid is distinct from pg_backend_pid() and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f') \
     group by l.pid, a.usename, a.application_name, a.state order by 1";

/// The error of a lock that was not had in time, with who has it. The transaction is over with that.
pub(super) async fn held_by(session: &mut dyn Session, schema: &str, error: StepError) -> StepError {
    let asked = async {
        session.rollback().await?;
        Ok::<_, Failure>(session.cells(HOLDERS, vec![Cell::Text(schema.to_owned())]).await?.rows)
    };
    let Ok(rows) = asked.await else { return error };
    let (mut ends, mut holders) = (Vec::new(), Vec::new());
    for row in rows {
        if let [Cell::Text(process), Cell::Text(words)] = &row[..] {
            holders.push(words.clone());
            if !process.is_empty() {
                ends.push(format!("`select pg_terminate_backend({process})`"));
            }
        }
    }
    if holders.is_empty() {
        return error;
    }
    let message = format!("{}; {}", error.message, holders.join("; "));
    let end = if ends.is_empty() { String::new() } else { format!(", or end it by {}", ends.join(", ")) };
    StepError { message, ..error }
        .with_help(format!("nothing was dropped; wait for its end{end}, then resume"))
}

/// Drops the schema and creates it, empty.
pub(super) async fn clear(session: &mut dyn Session, schema: &str) -> Result<(), StepError> {
    let name = quoted(Dialect::Postgres, schema);
    let mut settings = Vec::new();
    for sql in SETTINGS {
        settings.extend(texts(session, sql, &[schema]).await?);
    }
    if settings.is_empty() {
        return Err(StepError::refused(format!("there is no schema {name}")));
    }
    let before = texts(session, OUTSIDE, &[schema]).await?;
    session.script(&format!("drop schema {name} cascade")).await?;
    if texts(session, OUTSIDE, &[schema]).await? != before {
        let message =
            format!("something outside of {name} depends on what is in it, and would be dropped with it");
        return Err(StepError::refused(message).with_help(
            "drop it before, or make it not depend: a view, a foreign key, a column of a type, an extension",
        ));
    }
    session.script(&format!("create schema {name}")).await?;
    for statement in settings {
        session.script(&statement).await?;
    }
    session.script(&format!("set local search_path to {name}")).await?;
    Ok(())
}
