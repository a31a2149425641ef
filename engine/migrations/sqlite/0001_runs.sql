-- Times are UTC text with nine fractional digits, so that their order as text is their order in time.

create table runs (
    number      integer primary key autoincrement,
    id          text not null unique,
    runbook     text not null,
    created_at  text not null,
    plan        text not null,
    definition  text not null,
    source_name text not null,
    seed        integer not null,
    lock_key    text,
    status      text not null,
    last_seq    integer not null,
    epoch       integer not null,
    owner       text,
    lease_until text
) strict;

create index runs_newest on runs (created_at, number);

create table events (
    run  text not null references runs (id),
    seq  integer not null,
    body text not null,
    primary key (run, seq)
) strict;

create table locks (
    key text primary key,
    run text not null references runs (id)
) strict, without rowid;

-- Only the open ones: a row goes when its obligation is closed.
create table obligations (
    number     integer primary key autoincrement,
    run        text not null references runs (id),
    id         text not null,
    target     text not null unique,
    label      text not null,
    step       text not null,
    body       text not null,
    opened_at  text not null,
    hold_until text not null,
    unique (run, id)
) strict;

-- A batch is settled when it has an outcome; cursor, outcome and intent are JSON, in which null is the text `null`.
create table batches (
    run     text not null references runs (id),
    step    text not null,
    batch   integer not null,
    intent  text not null,
    items   integer not null,
    cursor  text,
    outcome text,
    done    integer not null default 0,
    already integer not null default 0,
    failed  integer not null default 0,
    primary key (run, step, batch),
    check ((cursor is null) = (outcome is null))
) strict;

create index batches_unsettled on batches (run, step, batch) where outcome is null;
create index batches_failed on batches (run, step, batch) where failed > 0;

create table facts (
    run   text not null references runs (id),
    step  text not null,
    name  text not null,
    value text not null,
    primary key (run, step, name)
) strict;

create table counters (
    run     text not null references runs (id),
    counter text not null,
    amount  integer not null,
    primary key (run, counter)
) strict;
