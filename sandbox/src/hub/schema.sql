-- The tables of a ring hub: thirteen, with their enums.
create type "RingVisibility" as enum ('PUBLIC', 'UNLISTED', 'PRIVATE');
create type "JoinPolicy" as enum ('OPEN', 'APPLICATION', 'INVITATION', 'CLOSED');
create type "PostPolicy" as enum ('OPEN', 'MEMBERS', 'CURATED', 'CLOSED');
create type "MembershipStatus" as enum ('PENDING', 'ACTIVE', 'SUSPENDED', 'REVOKED');
create type "PostStatus" as enum ('PENDING', 'ACCEPTED', 'REJECTED', 'REMOVED');
create type "BlockType" as enum ('USER', 'INSTANCE', 'ACTOR');
create type "InvitationStatus" as enum ('PENDING', 'ACCEPTED', 'DECLINED', 'EXPIRED', 'REVOKED');
create type "ActorType" as enum ('USER', 'SERVICE', 'INSTANCE');
create type "UserTier" as enum ('NEW', 'ESTABLISHED', 'VETERAN', 'TRUSTED');

create table "Ring" (
    id text primary key, slug text not null unique, name text not null, description text, "shortCode" text unique,
    "createdAt" timestamp(3) not null default current_timestamp, "updatedAt" timestamp(3) not null,
    visibility "RingVisibility" not null default 'PUBLIC', "joinPolicy" "JoinPolicy" not null default 'OPEN',
    "postPolicy" "PostPolicy" not null default 'OPEN', "ownerDid" text not null, "parentId" text references "Ring" (id),
    metadata jsonb, policies jsonb, "curatorNote" text, "bannerUrl" text, "themeColor" text default 'thread-pine',
    "badgeImageUrl" text, "badgeImageHighResUrl" text
);
create table "RingRole" (
    id text primary key, "ringId" text not null references "Ring" (id) on delete cascade, name text not null,
    permissions jsonb not null, "createdAt" timestamp(3) not null default current_timestamp, unique ("ringId", name)
);
create table "Actor" (
    id text primary key, did text not null unique, name text, type "ActorType" not null default 'USER', "instanceUrl" text,
    "publicKey" text, verified boolean not null default false, trusted boolean not null default false,
    "isAdmin" boolean not null default false, "discoveredAt" timestamp(3) not null default current_timestamp,
    "lastSeenAt" timestamp(3) not null default current_timestamp, metadata jsonb
);
create table "Badge" (
    id text primary key, "badgeData" jsonb not null, "issuedAt" timestamp(3) not null default current_timestamp, "revokedAt" timestamp(3)
);
create table "Membership" (
    id text primary key, "ringId" text not null references "Ring" (id) on delete cascade, "actorDid" text not null,
    "roleId" text references "RingRole" (id), status "MembershipStatus" not null default 'ACTIVE',
    "joinedAt" timestamp(3) default current_timestamp, "badgeId" text unique references "Badge" (id), unique ("ringId", "actorDid")
);
create table "PostRef" (
    id text primary key, "ringId" text not null references "Ring" (id) on delete cascade, uri text not null, "actorDid" text not null,
    status "PostStatus" not null default 'ACCEPTED', "submittedAt" timestamp(3) not null default current_timestamp
);
create table "Challenge" (id text primary key, "ringId" text not null references "Ring" (id) on delete cascade, prompt text not null);
create table "Block" (
    id text primary key, "ringId" text not null references "Ring" (id) on delete cascade, "targetDid" text not null, type "BlockType" not null
);
create table "Invitation" (
    id text primary key, "ringId" text not null references "Ring" (id) on delete cascade, "inviteeDid" text not null,
    status "InvitationStatus" not null default 'PENDING'
);
create table "AuditLog" (
    id text primary key, "ringId" text references "Ring" (id) on delete cascade, action text not null, "actorDid" text not null,
    "createdAt" timestamp(3) not null default current_timestamp, metadata jsonb
);
create table "HttpSignature" (id text primary key, "keyId" text not null unique, "publicKey" text not null, "actorDid" text not null);
create table "RateLimit" (id text primary key, "actorDid" text not null, action text not null, "performedAt" timestamp(3) not null);
create table "ActorReputation" (id text primary key, "actorDid" text not null unique, tier "UserTier" not null default 'NEW', score integer not null default 0);
