-- A hub after some time: rings, members with badges, posts, and what else there is.
create table "_prisma_migrations" (id text primary key, migration_name text not null, finished_at timestamptz);
insert into "_prisma_migrations" values ('m1', '20250812_init', now()), ('m2', '20250901_badges', now());
insert into "Ring" (id, slug, name, "updatedAt", "ownerDid", "parentId", metadata)
    select 'ring-' || n, case when n = 1 then 'spool' else 'ring-' || n end, 'Ring ' || n, now(), 'did:web:hub.example',
        case when n = 1 then null else 'ring-1' end, case when n = 1 then '{"isRoot": true}'::jsonb end
    from generate_series(1, 5) n;
insert into "RingRole" (id, "ringId", name, permissions)
    select r.id || '-' || o, r.id, o, '["submit_posts", "view_content"]' from "Ring" r, unnest(array['owner', 'moderator', 'member']) o;
insert into "Actor" (id, did, name) select 'actor-' || n, 'did:web:people.example:' || n, 'Person ' || n from generate_series(1, 40) n;
insert into "Badge" (id, "badgeData")
    select 'https://hub.example/badges/' || md5(n::text), jsonb_build_object('assertion', 'member ' || n) from generate_series(1, 40) n;
insert into "Membership" (id, "ringId", "actorDid", "roleId", "badgeId")
    select 'member-' || n, 'ring-' || (n % 5 + 1), 'did:web:people.example:' || n, 'ring-' || (n % 5 + 1) || '-member',
        'https://hub.example/badges/' || md5(n::text)
    from generate_series(1, 40) n;
insert into "PostRef" (id, "ringId", uri, "actorDid")
    select 'post-' || n, 'ring-' || (n % 5 + 1), 'https://people.example/' || n, 'did:web:people.example:' || (n % 40 + 1)
    from generate_series(1, 120) n;
insert into "AuditLog" (id, "ringId", action, "actorDid")
    select 'audit-' || n, 'ring-' || (n % 5 + 1), 'ring.join', 'did:web:people.example:' || (n % 40 + 1) from generate_series(1, 60) n;
insert into "Challenge" values ('challenge-1', 'ring-2', 'What do you spin?');
insert into "Block" values ('block-1', 'ring-3', 'did:web:spam.example', 'USER');
insert into "Invitation" (id, "ringId", "inviteeDid") values ('invitation-1', 'ring-4', 'did:web:people.example:99');
insert into "HttpSignature" values ('signature-1', 'did:web:people.example:1#key', 'a public key', 'did:web:people.example:1');
insert into "RateLimit" values ('rate-1', 'did:web:people.example:1', 'join', now());
insert into "ActorReputation" (id, "actorDid") values ('reputation-1', 'did:web:people.example:1');
