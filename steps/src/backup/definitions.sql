with own as (
  select n.oid as n, n.nspname::text as schema from pg_namespace n
  where n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp_)'
    and ($1 = '' or n.nspname = $1)
),
relations as (
  select c.* from pg_class c join own on own.n = c.relnamespace
  where not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
),
things as (
  select r.relnamespace as n,
    format('%s `%s`', case r.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table'
      when 'c' then 'type' else 'table' end, r.relname) as name,
    row(r.relkind, r.relpersistence, r.reloptions, r.relrowsecurity, r.relforcerowsecurity, r.relreplident,
      pg_get_partkeydef(r.oid), pg_get_expr(r.relpartbound, r.oid),
      (select string_agg(row(a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
         pg_get_expr(e.adbin, e.adrelid), (select l.collname from pg_collation l where l.oid = a.attcollation))::text, ';'
         order by a.attnum)
       from pg_attribute a left join pg_attrdef e on e.adrelid = a.attrelid and e.adnum = a.attnum
       where a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped),
      (select string_agg(i.inhparent::regclass::text, ';' order by i.inhseqno) from pg_inherits i where i.inhrelid = r.oid),
      case when r.relkind in ('v', 'm') then pg_get_viewdef(r.oid) end)::text as says
  from relations r where r.relkind in ('r', 'p', 'v', 'm', 'f', 'c')
  union all
  select r.relnamespace, format('sequence `%s`', r.relname),
    row(format_type(q.seqtypid, null), q.seqstart, q.seqincrement, q.seqmax, q.seqmin, q.seqcache, q.seqcycle)::text
  from relations r join pg_sequence q on q.seqrelid = r.oid
  union all
  select r.relnamespace, format('index `%s`', x.relname), row(pg_get_indexdef(i.indexrelid), i.indisvalid)::text
  from relations r join pg_index i on i.indrelid = r.oid join pg_class x on x.oid = i.indexrelid
  union all
  select k.connamespace, format('constraint `%s` of `%s`', k.conname, coalesce(r.relname, t.typname)),
    row(pg_get_constraintdef(k.oid), k.convalidated)::text
  from pg_constraint k join own on own.n = k.connamespace left join relations r on r.oid = k.conrelid
    left join pg_type t on t.oid = k.contypid
  where k.contype <> 't' and (r.oid is not null or t.oid is not null)
  union all
  select r.relnamespace, format('trigger `%s` of `%s`', t.tgname, r.relname), row(pg_get_triggerdef(t.oid), t.tgenabled)::text
  from relations r join pg_trigger t on t.tgrelid = r.oid where not t.tgisinternal
  union all
  select r.relnamespace, format('rule `%s` of `%s`', u.rulename, r.relname), row(pg_get_ruledef(u.oid), u.ev_enabled)::text
  from relations r join pg_rewrite u on u.ev_class = r.oid where u.rulename <> '_RETURN'
  union all
  select r.relnamespace, format('policy `%s` of `%s`', p.polname, r.relname),
    row(p.polcmd, p.polpermissive, (select string_agg(pg_get_userbyid(o), ',' order by o) from unnest(p.polroles) o),
      pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))::text
  from relations r join pg_policy p on p.polrelid = r.oid
  union all
  select p.pronamespace, format('%s `%s(%s)`', case p.prokind when 'p' then 'procedure' when 'a' then 'aggregate' else 'function' end,
      p.proname, pg_get_function_identity_arguments(p.oid)),
    case when p.prokind = 'a' then (select row(g.aggtransfn, g.aggfinalfn, g.aggtranstype::regtype, g.agginitval)::text
      from pg_aggregate g where g.aggfnoid = p.oid) else pg_get_functiondef(p.oid) end
  from pg_proc p join own on own.n = p.pronamespace
  where not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
  union all
  select t.typnamespace, format('type `%s`', t.typname),
    row(t.typtype, format_type(t.typbasetype, t.typtypmod), t.typnotnull, t.typdefault,
      (select string_agg(quote_literal(e.enumlabel), ',' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid),
      (select format_type(g.rngsubtype, null) from pg_range g where g.rngtypid = t.oid))::text
  from pg_type t join own on own.n = t.typnamespace
  where t.typtype in ('e', 'd', 'r')
    and not exists (select from pg_depend d where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e')
  union all
  select e.extnamespace, format('extension `%s`', e.extname), e.extversion from pg_extension e join own on own.n = e.extnamespace
)
select own.schema, things.name, left(md5(coalesce(things.says, '')), 16), '' from things join own using (n)
union all
select own.schema, r.relname::text, '',
  coalesce(case when has_sequence_privilege(r.oid, 'usage, select') then pg_sequence_last_value(r.oid)::text end, 'none')
from relations r join own on own.n = r.relnamespace where r.relkind = 'S'
