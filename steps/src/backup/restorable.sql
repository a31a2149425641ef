-- What the line that restores a backup needs of its user, and whether that is given: one row, `why`, for each thing that is not.
with me as (select oid, rolname, rolsuper, rolcreatedb from pg_roles where rolname = current_user),
here as (select oid, datname, datdba from pg_database where datname = current_database()),
owners as (
    select nspowner as owner, 'pg_namespace'::regclass as class, oid, null::oid as space from pg_namespace
        where nspname !~ '^pg_' and nspname <> 'information_schema' and not (nspname = 'public' and nspowner in (10, 6171))
    union all select relowner, 'pg_class'::regclass, oid, relnamespace from pg_class
        where relnamespace in (select oid from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema')
    union all select proowner, 'pg_proc'::regclass, oid, pronamespace from pg_proc
        where pronamespace in (select oid from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema')
    union all select typowner, 'pg_type'::regclass, oid, typnamespace from pg_type
        where typnamespace in (select oid from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema')
)
select 'its user ' || me.rolname || ' may not create databases' as why from me where not (rolsuper or rolcreatedb)
union all
select 'its user ' || me.rolname || ' does not own the database, which ' || pg_get_userbyid(here.datdba) || ' does, and can not rename it'
    from me, here where not me.rolsuper and not pg_has_role(me.oid, here.datdba, 'MEMBER')
union all
select distinct 'its user ' || me.rolname || ' can make nothing for ' || pg_get_userbyid(owners.owner) || ', who owns a part of the database'
    from me, owners where not me.rolsuper and not pg_has_role(me.oid, owners.owner, 'MEMBER')
    and not exists (select from pg_depend d where d.classid = owners.class and d.objid = owners.oid and d.deptype = 'e')
union all
-- Rights are given back last: until then only who owns a schema, and in old servers everybody in public, may have something in it.
select distinct pg_get_userbyid(owners.owner) || ', who owns a part of the schema ' || n.nspname || ', may have nothing in it when it is made anew by ' || me.rolname
    from me, owners join pg_namespace n on n.oid = owners.space
    where not me.rolsuper and owners.owner <> me.oid and not pg_has_role(owners.owner, n.nspowner, 'USAGE')
    and not (n.nspname = 'public' and current_setting('server_version_num')::int < 150000)
    and not exists (select from pg_depend d where d.classid = owners.class and d.objid = owners.oid and d.deptype = 'e')
union all
select distinct 'its user ' || me.rolname || ' may not set ' || split_part(one, '=', 1) || ', which is set for the database'
    from me, here, pg_db_role_setting s, unnest(s.setconfig) one
    where s.setdatabase = here.oid and not me.rolsuper
    and exists (select from pg_settings known where known.name = split_part(one, '=', 1) and known.context in ('superuser', 'superuser-backend'))
union all
select 'default_transaction_read_only is set for the database, so that nothing can be made in it when it is made anew'
    from me, here, pg_db_role_setting s where s.setdatabase = here.oid and s.setrole in (0, me.oid)
    and exists (select from unnest(s.setconfig) one where one ~ '^default_transaction_read_only=(on|true|yes|1)$')
union all
select distinct 'its user ' || me.rolname || ' can not disconnect ' || a.usename || ', who is connected to the database'
    from me, here, pg_stat_activity a join pg_roles r on r.oid = a.usesysid
    where a.datid = here.oid and a.pid <> pg_backend_pid() and not me.rolsuper
    and (r.rolsuper or not (pg_has_role(me.oid, r.oid, 'MEMBER') or pg_has_role(me.oid, 'pg_signal_backend', 'MEMBER')))
order by 1
