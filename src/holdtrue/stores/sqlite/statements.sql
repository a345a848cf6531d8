-- All statements of the SQLite store.  Over each stand its name and a sentence.  One whose name ends in
-- `:json` is the second form of the one before: the same for many rows that come as one JSON text.

-- == transactions ==

-- name: begin
-- Begin a write transaction; waits for other writers.
begin immediate

-- name: commit
-- End the transaction; on disk when it returns.
commit

-- name: rollback
-- Undo the transaction.
rollback

-- name: counters
-- The last keys given out, and whether a host still takes part; nothing where the hub has a later schema.
select instance, message, exists (select 1 from host where number = ?1) from counter where id = 1

-- name: set_mark
-- Put down this transaction's mark, and the same as `counters`.
update counter set mark = ?1 where id = 1
returning instance, message, exists (select 1 from host where number = ?2)

-- name: count
-- Put down the last keys given out.
update counter set instance = ?1, message = ?2

-- name: mark
-- The mark of the last durable transaction: tells whether one whose answer was lost took effect.
select mark from counter

-- name: set_version
-- The schema version; processes of an earlier Holdtrue, which have the hub open, then write no more.
update counter set id = ?1

-- name: host_alive
-- Whether a host still takes part.
select 1 from host where number = ?1

-- == starts ==

-- name: insert_instance
-- A new instance, unless its id is taken.
insert into instance (key, id, status, lock, ready, updated, created, scheduled, deadline, name, execution,
    start_id, dialect, parent, started)
values (?1, ?2, 6, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
on conflict (id) do nothing

-- name: insert_instance:json
-- The same, many at once.
insert into instance (key, id, status, lock, ready, updated, created, scheduled, deadline, name, execution,
    start_id, dialect, parent, started)
select v.value ->> 0, v.value ->> 1, 6, v.value ->> 2, v.value ->> 3, v.value ->> 4, v.value ->> 5, v.value ->> 6,
    v.value ->> 7, v.value ->> 8, v.value ->> 9, v.value ->> 10, v.value ->> 11, v.value ->> 12,
    cast(v.value ->> 13 as blob)
from json_each(?1) as v
where true
on conflict (id) do nothing

-- name: instance_exists
-- Whether an instance of this key stands.
select 1 from instance where key = ?1

-- name: insert_large
-- The ExecutionStarted of an instance whose input is big.
insert into large (instance, started) values (?1, ?2)
on conflict (instance) do update set started = excluded.started

-- name: delete_large
-- A big ExecutionStarted is not needed any more.
delete from large where instance = ?1

-- name: large
-- The ExecutionStarted of an instance whose input is big.
select started from large where instance = ?1

-- name: record_by_id
-- The record of an instance, by id.
select key, id, status, lock, ready, length, size, updated, created, completed, deadline, name, execution, start_id,
    dialect, started, custom_status, condition, failure, output
from instance where id = ?1

-- name: record_by_key
-- The record of an instance, by key.
select key, id, status, lock, ready, length, size, updated, created, completed, deadline, name, execution, start_id,
    dialect, started, custom_status, condition, failure, output
from instance where key = ?1

-- name: delete_instance
-- An instance is purged or replaced.
delete from instance where key = ?1

-- name: delete_history
-- The history of an instance.
delete from history where key between ?1 and ?2

-- name: delete_messages
-- Whatever waits for an instance.
delete from message where instance = ?1

-- name: take_messages
-- Whatever waits for an instance, for good, and what it was.
delete from message where instance = ?1 returning instance, due, event

-- name: take_messages:json
-- The same, many at once.
delete from message where instance in (select v.value ->> 0 from json_each(?1) as v) returning instance, due, event

-- name: delete_activities
-- The work items of an instance.
delete from activity where key between ?1 and ?2

-- name: put_instance
-- An instance as it stood elsewhere.
insert into instance (key, id, status, lock, ready, woken, length, size, updated, created, completed, scheduled,
    deadline, name, execution, start_id, dialect, parent, started, custom_status, condition, ending, failure, output)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24)

-- name: put_activity
-- A work item as it stood elsewhere.
insert into activity (key, at, lock, run, scheduled, execution, queue, task, progress, details, heartbeat)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)

-- == messages ==

-- name: target
-- Where a message goes: the state of the instance of this id.
select key, lock, status, ready, condition is not null, scheduled, length, execution, parent from instance where id = ?1

-- name: target_by_key
-- Where a message goes: the state of the instance of this key.
select key, lock, status, ready, condition is not null, scheduled, length, execution, parent
from instance where key = ?1

-- name: insert_message
-- A message for an instance.
insert into message (instance, key, due, execution, scheduled, event) values (?1, ?2, ?3, ?4, ?5, ?6)

-- name: insert_message:json
-- The same, many at once.
insert into message (instance, key, due, execution, scheduled, event)
select v.value ->> 0, v.value ->> 1, v.value ->> 2, v.value ->> 3, v.value ->> 4, cast(v.value ->> 5 as blob)
from json_each(?1) as v

-- name: make_ready
-- An instance that nobody holds has work.
update instance set ready = ?1 where key = ?2 and lock is null and ready is null

-- name: make_ready:json
-- The same, many at once.
update instance set ready = v.value ->> 0 from json_each(?1) as v
where instance.key = v.value ->> 1 and instance.lock is null and instance.ready is null

-- name: ending
-- An instance got a message that ends it (1), or has none after all (null).
update instance set ending = ?1 where key = ?2

-- name: insert_mail
-- A message is for an instance that another host holds.
insert or ignore into mail (host, instance, key) values (?1, ?2, ?3)

-- name: mail
-- What came from elsewhere for instances that this host holds.
select message.instance, message.key, message.execution, message.scheduled, message.event
from mail
    cross join instance on instance.key = mail.instance and instance.lock between ?2 and ?3
    cross join message on message.instance = mail.instance and message.key = mail.key
where mail.host = ?1
order by message.instance, message.key

-- name: has_mail
-- Whether anything lies there for this host.
select 1 from mail where host = ?1 limit 1

-- name: any_mail
-- Whether anything lies there for anybody.
select 1 from mail limit 1

-- name: delete_mail
-- This host has fetched its mail.
delete from mail where host = ?1

-- name: delete_mail_of_instance
-- An instance is locked anew: its messages are handed out with it.
delete from mail where instance = ?1

-- name: earliest_due
-- When the next delayed message is due.
select min(due) from message where due is not null

-- name: due_messages
-- Delayed messages whose time has come, and the state of their instances.
select message.instance, message.key, message.execution, message.scheduled, message.event,
    instance.lock, instance.condition is not null
from message cross join instance on instance.key = message.instance
where message.due <= ?1
order by message.due
limit ?2

-- name: fire
-- A delayed message's time has come: from now on it stands in the line, at its end.
update message set due = null, key = ?3 where instance = ?1 and key = ?2

-- name: fire:json
-- The same, many at once.
update message set due = null, key = v.value ->> 2 from json_each(?1) as v
where message.instance = v.value ->> 0 and message.key = v.value ->> 1

-- == locks ==

-- name: ready_instances
-- Instances of an orchestration that have work and that nobody holds, the longest waiting first.
select key, id, status, lock, ready, length, size, updated, created, completed, deadline, name, execution, start_id,
    dialect, started, custom_status, condition, failure, output
from instance indexed by instance_ready
where name = ?1 and ready is not null and lock is null
    and (tried is null or not exists (select 1 from json_each(tried) as host where host.value = ?3))
order by ready
limit ?2

-- name: any_ready
-- Whether anybody's instance has work.
select 1 from instance indexed by instance_ready where ready is not null and lock is null limit 1

-- name: ready_of
-- Whether an instance of an orchestration has work.
select 1 from instance indexed by instance_ready
where name = ?1 and ready is not null and lock is null
    and (tried is null or not exists (select 1 from json_each(tried) as host where host.value = ?2))
limit 1

-- name: ending_instances
-- Instances of whatever orchestration that have a message which ends them, and that nobody holds.
select key, id, status, lock, ready, length, size, updated, created, completed, deadline, name, execution, start_id,
    dialect, started, custom_status, condition, failure, output
from instance indexed by instance_ending
where ending is not null and ready is not null and lock is null
    and (tried is null or not exists (select 1 from json_each(tried) as host where host.value = ?2))
limit ?1

-- name: any_ending
-- Whether there is one.
select 1 from instance indexed by instance_ending
where ending is not null and ready is not null and lock is null
    and (tried is null or not exists (select 1 from json_each(tried) as host where host.value = ?1))
limit 1

-- name: lock_instance
-- Take an instance.
update instance set lock = ?1, ready = null where key = ?2

-- name: lock_instance:json
-- The same, many at once.
update instance set lock = v.value ->> 0, ready = null from json_each(?1) as v where instance.key = v.value ->> 1

-- name: waiting_messages
-- What waits for an instance, in order.
select key, execution, scheduled, event from message where instance = ?1 and due is null order by key

-- name: all_messages
-- What waits for an instance, in order, then what is to come later.
select due, execution, scheduled, event from message where instance = ?1 order by due is not null, key

-- name: woken
-- Whether an instance asks for an episode without a message.
select woken from instance where key = ?1

-- name: release_instance
-- Give an instance back; it is ready if it has work.
update instance set lock = null, ready = case
    when woken or condition is not null or length = 0
        or exists (select 1 from message where message.instance = instance.key and message.due is null)
    then ?1 end
where key = ?2 and lock = ?3

-- name: release_instances_of_host
-- Give back all that a host holds.
update instance set lock = null, ready = case
    when woken or condition is not null or length = 0
        or exists (select 1 from message where message.instance = instance.key and message.due is null)
    then ?1 end
where completed is null and lock between ?2 and ?3

-- name: release_activities_of_host
-- Give back all work items that a host holds.
update activity set lock = null where lock between ?1 and ?2

-- name: park
-- Hold an instance: it is offered to hosts that have not tried it, now or when they join.
update instance set lock = null, ready = ?4, condition = ?1, tried = ?5 where key = ?2 and lock = ?3

-- name: tried
-- Which hosts could not go on with an instance, and its orchestration.
select tried, name from instance where key = ?1 and lock = ?2

-- name: offer_to_all
-- An instance got a message that any host can handle, held or not.
update instance set ready = ?1, tried = null where key = ?2 and lock is null

-- name: held_instances
-- Instances that are held, of an orchestration: a new host may have code that fits.
update instance set ready = coalesce(ready, ?1),
    tried = (select json_group_array(host.value) from json_each(tried) as host where host.value <> ?3)
where condition is not null and lock is null and completed is null and name = ?2

-- name: fence
-- Who holds an instance, how far its history goes, and of which execution it is.
select lock, length, execution from instance where key = ?1

-- name: history_of
-- The pieces of a history.
select events from history where key between ?1 and ?2 order by key

-- name: history_page
-- Some pieces of a history, of an execution that still is the current one.
select history.key, history.events
from history
where history.key between ?1 and ?2
    and (select execution from instance where key = ?4) = ?5
order by history.key
limit ?3

-- name: history_piece
-- Where the piece begins that holds an ordinal.
select max(key) from history where key between ?1 and ?2

-- == episodes ==

-- name: episode
-- The common episode: no index is touched.
update instance set updated = ?1, length = length + ?2, size = size + ?3, woken = 0
where key = ?4 and lock = ?5 and length = ?6

-- name: episode:json
-- The same, many at once.
update instance set updated = v.value ->> 0, length = length + (v.value ->> 1), size = size + (v.value ->> 2), woken = 0
from json_each(?1) as v
where instance.key = v.value ->> 3 and instance.lock = v.value ->> 4 and instance.length = v.value ->> 5

-- name: episode_changed
-- An episode that changes status, custom status or condition, and does not end the instance.
update instance set updated = ?1, length = length + ?2, size = size + ?3, woken = 0,
    status = ?7, custom_status = ?8, condition = ?9, tried = null
where key = ?4 and lock = ?5 and length = ?6

-- name: episode_changed:json
-- The same, many at once.
update instance set updated = v.value ->> 0, length = length + (v.value ->> 1), size = size + (v.value ->> 2), woken = 0,
    status = v.value ->> 6, custom_status = v.value ->> 7, condition = v.value ->> 8,
    tried = null
from json_each(?1) as v
where instance.key = v.value ->> 3 and instance.lock = v.value ->> 4 and instance.length = v.value ->> 5

-- name: episode_ended
-- An episode that ends the instance; the lock is given back.
update instance set updated = ?1, length = length + ?2, size = size + ?3, woken = 0, lock = null, ready = null,
    status = ?7, custom_status = ?8, condition = null, completed = ?9, output = ?10, failure = ?11, tried = null,
    ending = null
where key = ?4 and lock = ?5 and length = ?6

-- name: episode_ended:json
-- The same, many at once.
update instance set updated = v.value ->> 0, length = length + (v.value ->> 1), size = size + (v.value ->> 2), woken = 0,
    lock = null, ready = null, status = v.value ->> 6, custom_status = v.value ->> 7, condition = null,
    completed = v.value ->> 8, output = v.value ->> 9, failure = cast(v.value ->> 10 as blob), tried = null,
    ending = null
from json_each(?1) as v
where instance.key = v.value ->> 3 and instance.lock = v.value ->> 4 and instance.length = v.value ->> 5

-- name: episode_replaced
-- An episode that replaces the history: the instance continued as new (and may have ended since).
update instance set updated = ?1, length = ?2, size = ?3, woken = 0,
    lock = case when ?8 is null then lock end, ready = null,
    status = ?6, custom_status = ?7, condition = null, completed = ?8, output = ?9, failure = ?10,
    start_id = coalesce(start_id, execution), execution = ?11, started = ?12, name = ?13, scheduled = null, tried = null,
    ending = case when ?8 is null then ending end
where key = ?4 and lock = ?5 and execution = ?14 and length = ?15

-- name: rewinding
-- A failed instance got a rewind: it has not ended any more.
update instance set status = ?3, output = null, failure = null, completed = null, updated = ?1 where key = ?2

-- name: wake
-- An instance asks for an episode without a message.
update instance set woken = 1 where key = ?1

-- name: insert_history
-- The events of an episode.
insert into history (key, events) values (?1, ?2)

-- name: insert_history:json
-- The same, many at once.
insert into history (key, events) select v.value ->> 0, cast(v.value ->> 1 as blob) from json_each(?1) as v

-- name: delete_message
-- A message is used up.
delete from message where instance = ?1 and key = ?2

-- name: delete_message:json
-- The same, many at once.
delete from message where (instance, key) in (select v.value ->> 0, v.value ->> 1 from json_each(?1) as v)

-- name: cancel_messages
-- Delayed messages are not wanted any more.
delete from message
where instance = ?1 and execution = ?2 and due is not null and scheduled in (select value from json_each(?3))

-- name: delete_old_timers
-- The delayed messages of earlier executions go when an instance continues as new.
delete from message where instance = ?1 and due is not null and execution is not null and execution <> ?2

-- name: insert_activity
-- A work item.
insert into activity (key, at, lock, run, scheduled, execution, queue, task) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)

-- name: insert_activity:json
-- The same, many at once.
insert into activity (key, at, lock, run, scheduled, execution, queue, task)
select v.value ->> 0, v.value ->> 1, v.value ->> 2, v.value ->> 3, v.value ->> 4, v.value ->> 5, v.value ->> 6,
    cast(v.value ->> 7 as blob)
from json_each(?1) as v

-- name: activity_exists
-- Whether a work item's place is taken.
select 1 from activity where key = ?1

-- name: delete_activity
-- A work item is done.
delete from activity where key = ?1 and lock = ?2

-- name: delete_activity:json
-- The same, many at once.
delete from activity where (key, lock) in (select v.value ->> 0, v.value ->> 1 from json_each(?1) as v)

-- name: cancel_activities
-- Work items are not wanted any more; a host that runs one learns it at its next sign of life.
delete from activity where execution = ?1 and key in (select value from json_each(?2))

-- == work items ==

-- name: ready_activities
-- Work items of a queue that nobody holds, the oldest first.
select key, at, run, task, details from activity indexed by activity_ready
where queue = ?1 and lock is null order by at limit ?2

-- name: any_activity
-- Whether any work item waits.
select 1 from activity indexed by activity_ready where lock is null limit 1

-- name: activity_of_queue
-- Whether a work item of a queue waits.
select 1 from activity indexed by activity_ready where queue = ?1 and lock is null limit 1

-- name: lock_activity
-- Take a work item.
update activity set lock = ?1, run = run + 1 where key = ?2

-- name: lock_activity:json
-- The same, many at once.
update activity set lock = v.value ->> 0, run = run + 1 from json_each(?1) as v where activity.key = v.value ->> 1

-- name: held_activity
-- A work item that is held under this token.
select execution, scheduled from activity where key = ?1 and lock = ?2

-- name: release_activity
-- Give a work item back.
update activity set lock = null where key = ?1 and lock = ?2

-- name: report_activity
-- A running activity's sign of life, with what it said last (null: as before).
update activity set heartbeat = ?1, progress = coalesce(?2, progress), details = coalesce(?3, details)
where key = ?4 and lock = ?5

-- name: all_activities
-- The outstanding work items of an instance, with all that is known of them, in the order of their schedules.
select at, run, task, progress, details, heartbeat from activity where key between ?1 and ?2
order by execution, scheduled

-- name: activities_of
-- The outstanding work items of an instance.
select lock, run, queue, task, progress, heartbeat from activity where key between ?1 and ?2 order by key

-- == hosts ==

-- name: insert_host
-- A host joins.
insert into host (name, file, lease_seconds, orchestrators, queues) values (?1, ?2, ?3, ?4, ?5) returning number

-- name: update_host
-- A host has other code than before.
update host set orchestrators = ?1, queues = ?2, lease_seconds = ?3, renewals = renewals + 1 where number = ?4

-- name: hosts
-- All hosts.
select number, name, file, lease_seconds, renewals, orchestrators, queues from host

-- name: renew_host
-- A host prolongs its lease: the others see that it does.
update host set renewals = renewals + 1 where number = ?1

-- name: delete_host
-- A host leaves, or was found dead.
delete from host where number = ?1

-- == schedules ==

-- name: insert_schedule
-- A new schedule.
insert into schedule (id, definition, state, due, etag) values (?1, ?2, ?3, ?4, ?5) on conflict (id) do nothing

-- name: update_schedule
-- A schedule is written anew, by whoever saw its last version.
update schedule set definition = ?1, state = ?2, due = ?3, etag = ?4 where id = ?5 and etag = ?6

-- name: update_schedule_state
-- A schedule goes on, by whoever saw its last version.
update schedule set state = ?1, due = ?2, etag = ?3 where id = ?4 and etag = ?5

-- name: schedule
-- One schedule's version.
select etag from schedule where id = ?1

-- name: schedules
-- All schedules.
select id, definition, state, due, etag from schedule order by id

-- name: schedules_due
-- Schedules whose next tick has come.
select id, definition, state, due, etag from schedule where due is not null and due <= ?1 order by due, id

-- name: delete_schedule
-- A schedule goes.
delete from schedule where id = ?1

-- name: delete_ticks_of
-- The records of a schedule go with it.
delete from tick where schedule = ?1

-- name: insert_tick
-- The record of one tick.
insert into tick (schedule, due, decided_at, decision, count, instance_id, execution_id, status, reason)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)

-- name: ticks
-- Records of a schedule's ticks, in order of time.
select schedule, due, decided_at, decision, count, instance_id, execution_id, status, reason from tick
where schedule = ?1 and due > ?2 order by due, key limit ?3

-- name: trim_ticks
-- Records of long ago go.
delete from tick where due < ?1

-- name: trim_ticks_of
-- Records of long ago of one schedule go.
delete from tick where schedule = ?2 and due < ?1

-- == dead letters ==

-- name: insert_dead_letter
-- A message could not be handled.
insert into dead_letter (at, letter) values (?1, ?2)

-- name: dead_letters
-- Dead letters by number.
select number, at, letter from dead_letter where number > ?1 order by number limit ?2

-- name: dead_letter
-- One dead letter.
select letter from dead_letter where number = ?1

-- name: delete_dead_letter
-- A dead letter was sent again or dismissed.
delete from dead_letter where number = ?1

-- == reading ==

-- name: query_ascending
-- A page of instances in the order of their creation.
select key, id, status, lock, ready, length, size, updated, created, completed, deadline, name, execution, start_id,
    dialect, started, custom_status, condition, failure, output
from instance
where key > :after
    and (:statuses is null or (:statuses >> status) & 1)
    and (:name is null or name = :name)
    and (:prefix is null or id >= :prefix and id < :beyond)
    and (:created_from is null or created >= :created_from)
    and (:created_to is null or created < :created_to)
    and (:completed_to is null or completed < :completed_to)
    and (:tags is null or not exists (
        select 1 from json_each(:tags) as tag
        where not exists (
            select 1 from json_each(cast(coalesce(
                nullif(started, x''), (select started from large where large.instance = instance.key)) as text), '$.tags')
                as has where has.key = tag.key and has.value = tag.value)))
order by key
limit :limit

-- name: query_descending
-- The same, the newest first.
select key, id, status, lock, ready, length, size, updated, created, completed, deadline, name, execution, start_id,
    dialect, started, custom_status, condition, failure, output
from instance
where key < :after
    and (:statuses is null or (:statuses >> status) & 1)
    and (:name is null or name = :name)
    and (:prefix is null or id >= :prefix and id < :beyond)
    and (:created_from is null or created >= :created_from)
    and (:created_to is null or created < :created_to)
    and (:completed_to is null or completed < :completed_to)
    and (:tags is null or not exists (
        select 1 from json_each(:tags) as tag
        where not exists (
            select 1 from json_each(cast(coalesce(
                nullif(started, x''), (select started from large where large.instance = instance.key)) as text), '$.tags')
                as has where has.key = tag.key and has.value = tag.value)))
order by key desc
limit :limit

-- name: query_open_ascending
-- The same, of those that have not ended.
select key, id, status, lock, ready, length, size, updated, created, completed, deadline, name, execution, start_id,
    dialect, started, custom_status, condition, failure, output
from instance indexed by instance_open
where completed is null and key > :after
    and (:statuses is null or (:statuses >> status) & 1)
    and (:name is null or name = :name)
    and (:prefix is null or id >= :prefix and id < :beyond)
    and (:created_from is null or created >= :created_from)
    and (:created_to is null or created < :created_to)
    and (:completed_to is null or completed < :completed_to)
    and (:tags is null or not exists (
        select 1 from json_each(:tags) as tag
        where not exists (
            select 1 from json_each(cast(coalesce(
                nullif(started, x''), (select started from large where large.instance = instance.key)) as text), '$.tags')
                as has where has.key = tag.key and has.value = tag.value)))
order by key
limit :limit

-- name: query_open_descending
-- The same, the newest first.
select key, id, status, lock, ready, length, size, updated, created, completed, deadline, name, execution, start_id,
    dialect, started, custom_status, condition, failure, output
from instance indexed by instance_open
where completed is null and key < :after
    and (:statuses is null or (:statuses >> status) & 1)
    and (:name is null or name = :name)
    and (:prefix is null or id >= :prefix and id < :beyond)
    and (:created_from is null or created >= :created_from)
    and (:created_to is null or created < :created_to)
    and (:completed_to is null or completed < :completed_to)
    and (:tags is null or not exists (
        select 1 from json_each(:tags) as tag
        where not exists (
            select 1 from json_each(cast(coalesce(
                nullif(started, x''), (select started from large where large.instance = instance.key)) as text), '$.tags')
                as has where has.key = tag.key and has.value = tag.value)))
order by key desc
limit :limit

-- name: query_failed_ascending
-- The same, of those that failed.
select key, id, status, lock, ready, length, size, updated, created, completed, deadline, name, execution, start_id,
    dialect, started, custom_status, condition, failure, output
from instance indexed by instance_failed
where status = 3 and key > :after
    and (:statuses is null or (:statuses >> status) & 1)
    and (:name is null or name = :name)
    and (:prefix is null or id >= :prefix and id < :beyond)
    and (:created_from is null or created >= :created_from)
    and (:created_to is null or created < :created_to)
    and (:completed_to is null or completed < :completed_to)
    and (:tags is null or not exists (
        select 1 from json_each(:tags) as tag
        where not exists (
            select 1 from json_each(cast(coalesce(
                nullif(started, x''), (select started from large where large.instance = instance.key)) as text), '$.tags')
                as has where has.key = tag.key and has.value = tag.value)))
order by key
limit :limit

-- name: query_failed_descending
-- The same, of those that failed.
select key, id, status, lock, ready, length, size, updated, created, completed, deadline, name, execution, start_id,
    dialect, started, custom_status, condition, failure, output
from instance indexed by instance_failed
where status = 3 and key < :after
    and (:statuses is null or (:statuses >> status) & 1)
    and (:name is null or name = :name)
    and (:prefix is null or id >= :prefix and id < :beyond)
    and (:created_from is null or created >= :created_from)
    and (:created_to is null or created < :created_to)
    and (:completed_to is null or completed < :completed_to)
    and (:tags is null or not exists (
        select 1 from json_each(:tags) as tag
        where not exists (
            select 1 from json_each(cast(coalesce(
                nullif(started, x''), (select started from large where large.instance = instance.key)) as text), '$.tags')
                as has where has.key = tag.key and has.value = tag.value)))
order by key desc
limit :limit

-- name: query_prefix_ascending
-- The same for a prefix that few ids have: found by id, then sorted.
select key, id, status, lock, ready, length, size, updated, created, completed, deadline, name, execution, start_id,
    dialect, started, custom_status, condition, failure, output
from instance indexed by instance_id
where id >= :prefix and id < :beyond and key > :after
    and (:statuses is null or (:statuses >> status) & 1)
    and (:name is null or name = :name)
    and (:created_from is null or created >= :created_from)
    and (:created_to is null or created < :created_to)
    and (:completed_to is null or completed < :completed_to)
    and (:tags is null or not exists (
        select 1 from json_each(:tags) as tag
        where not exists (
            select 1 from json_each(cast(coalesce(
                nullif(started, x''), (select started from large where large.instance = instance.key)) as text), '$.tags')
                as has where has.key = tag.key and has.value = tag.value)))
order by key
limit :limit


-- name: query_prefix_descending
-- The same for a prefix that few ids have: found by id, then sorted.
select key, id, status, lock, ready, length, size, updated, created, completed, deadline, name, execution, start_id,
    dialect, started, custom_status, condition, failure, output
from instance indexed by instance_id
where id >= :prefix and id < :beyond and key < :after
    and (:statuses is null or (:statuses >> status) & 1)
    and (:name is null or name = :name)
    and (:created_from is null or created >= :created_from)
    and (:created_to is null or created < :created_to)
    and (:completed_to is null or completed < :completed_to)
    and (:tags is null or not exists (
        select 1 from json_each(:tags) as tag
        where not exists (
            select 1 from json_each(cast(coalesce(
                nullif(started, x''), (select started from large where large.instance = instance.key)) as text), '$.tags')
                as has where has.key = tag.key and has.value = tag.value)))
order by key desc
limit :limit


-- name: few_of_prefix
-- Whether no more than so many ids have a prefix.
select count(*) <= ?3 from (
    select 1 from instance indexed by instance_id where id >= ?1 and id < ?2 limit ?3 + 1)

-- name: children
-- The direct children of an instance, the oldest first.
select id from instance where parent = ?1 order by key

-- name: children_to_end
-- The same, and whether each has ended.
select id, completed is not null from instance where parent = ?1 order by key

-- name: purge_target
-- What is needed to know whether an instance may be purged.
select key, status, lock from instance where id = ?1

-- name: expired_by_age
-- Ended top-level instances that ended before.
select id from instance
where completed is not null and completed < ?2 and parent is null and (?1 is null or name = ?1)
    and name not in (select value from json_each(?4))
order by completed, key limit ?3

-- name: expired_by_count
-- Ended top-level instances beyond the newest so many.
select id from instance
where completed is not null and parent is null and (?1 is null or name = ?1)
    and name not in (select value from json_each(?4))
order by completed, key limit max(0, min(?3, (
    select count(*) from instance as every
    where every.completed is not null and every.parent is null and (?1 is null or every.name = ?1)
        and every.name not in (select value from json_each(?4))) - ?2))

-- name: count_by_status
-- Instances by status.
select status, count(*) from instance group by status

-- name: counts
-- Messages, work items and dead letters.
select (select count(*) from message), (select count(*) from activity), (select count(*) from dead_letter)

-- name: file_size
-- Bytes of the database file, and free ones among them.
select page_count * page_size, freelist_count * page_size
from pragma_page_count(), pragma_page_size(), pragma_freelist_count()

-- == restoring ==

-- name: restored
-- A restored hub has no hosts: nobody holds anything (what is at rest, stays so).
delete from host;
delete from mail;
update activity set lock = null where lock >= 0;
update instance set lock = null, ready = case
    when woken or condition is not null or length = 0
        or exists (select 1 from message where message.instance = instance.key and message.due is null)
    then updated end
where completed is null and lock >= 0;
