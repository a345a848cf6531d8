-- The tables of a task hub.  Loaded once, when the file is made; later versions come by migrations.sql.
--
-- Every row belongs to an instance by its integer key.  Times are ticks (100 ns since 1970 UTC), payloads
-- JSON texts, blobs JSON too (events as core.events encodes them).  A lock is the fencing token of who
-- holds the row: its host's number in the upper bits, a counter in the lower 40; -1: it is at rest, nobody gets it.

-- An instance as it is committed.  `ready` is since when it has work and nobody holds it; `woken` asks for
-- an episode without a message; a `started` of many bytes lies in `large` (then it is empty here);
-- `tried` lists the hosts that could not go on with a held one; `ending` is set while a message waits that ends it, for which
-- no code is needed; `start_id` is null where it equals the first execution's id.
create table instance (
    key integer primary key,
    id text not null,
    status integer not null,
    lock integer,
    ready integer,
    woken integer not null default 0,
    length integer not null default 0,
    size integer not null default 0,
    updated integer not null,
    created integer not null,
    completed integer,
    scheduled integer,
    deadline integer,
    name text not null,
    execution text not null,
    start_id text,
    dialect text not null,
    parent text,
    started blob not null,
    custom_status text,
    condition text,
    tried text,
    ending integer,
    failure blob,
    output text
) strict;
create unique index instance_id on instance (id);
-- What a host may lock, by orchestration, the longest waiting first.
create index instance_ready on instance (name, ready) where ready is not null and lock is null;
-- What has not ended; touched by a start and an end only.
create index instance_open on instance (key) where completed is null;
create index instance_failed on instance (key) where status = 3;
create index instance_ending on instance (key) where ending is not null;
create index instance_parent on instance (parent) where parent is not null;
create index instance_condition on instance (key) where condition is not null;

-- The ExecutionStarted of instances whose input is too big to lie in a row that every episode rewrites.
create table large (
    instance integer primary key,
    started blob not null
) strict;

-- One row an episode: its events.  The key is the instance's, shifted, plus the ordinal of the first event.
create table history (
    key integer primary key,
    events blob not null
) strict;

-- What waits for an instance, in the order of keys; not before `due` (null: now).
create table message (
    instance integer not null,
    key integer not null,
    due integer,
    execution text,
    scheduled integer,
    event blob not null,
    primary key (instance, key)
) without rowid, strict;
create index message_due on message (due) where due is not null;

-- Messages that came from elsewhere for instances that a host holds; it fetches them and takes the row away.
create table mail (
    host integer not null,
    instance integer not null,
    key integer not null,
    primary key (host, instance, key)
) without rowid, strict;

-- Work items of activities.  The key is the instance's, shifted, plus a place made of generation and ordinal.
create table activity (
    key integer primary key,
    at integer not null,
    lock integer,
    run integer not null,
    scheduled integer not null,
    execution text not null,
    queue text not null,
    task blob not null,
    progress text,
    details text,
    heartbeat integer
) strict;
create index activity_ready on activity (queue, at) where lock is null;

-- Hosts that take part.  A number never comes again: a host that was taken for dead has lost all its locks.
create table host (
    number integer primary key autoincrement,
    name text not null,
    file text not null,
    lease_seconds real not null,
    renewals integer not null default 0,
    orchestrators text not null,
    queues text not null
) strict;

create table schedule (
    id text primary key,
    definition text not null,
    state text not null,
    due integer,
    etag integer not null
) without rowid, strict;
create index schedule_due on schedule (due) where due is not null;

create table tick (
    key integer primary key,
    schedule text not null,
    due integer not null,
    decided_at integer not null,
    decision text not null,
    count integer not null,
    instance_id text,
    execution_id text,
    status text,
    reason text
) strict;
create index tick_schedule on tick (schedule, due);
create index tick_due on tick (due);

create table dead_letter (
    number integer primary key autoincrement,
    at integer not null,
    letter blob not null
) strict;

-- One row: the last instance key and message key given out, and the mark of the last durable transaction.
-- Its id is the schema version: who has the hub open since before a migration finds no row any more.
create table counter (
    id integer primary key,
    instance integer not null,
    message integer not null,
    mark integer not null
) strict;
insert into counter values (1, 0, 0, 0);
