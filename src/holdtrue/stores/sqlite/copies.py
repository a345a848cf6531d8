"""Instances as wholes: read with all that belongs to them, at one moment, and put there as they were read elsewhere."""

from typing import Any, NamedTuple

import apsw

from holdtrue.core.events import AnyEvent, Ticks, decode_event, decode_events, encode_events
from holdtrue.core.messages import OutboundMessage
from holdtrue.core.projection import TERMINAL
from holdtrue.stores.decisions import AT_REST, ends
from holdtrue.stores.protocol import ActivityCopy, InstanceCopy, queue_name

from . import starts
from .rows import (
    INLINE_BYTES,
    KEY,
    STARTED,
    activity_key,
    condition_text,
    decode_task,
    encode,
    failure_bytes,
    message_row,
    record,
)
from .statements import sql
from .transaction import PLACE_BITS, Transaction, places_of


class Putting(NamedTuple):
    """What is asked: instances, whether they take the place of others, whether they go on from there."""

    copies: list[InstanceCopy]
    replace: bool
    run: bool


def read(connection: apsw.Connection, instance_ids: list[str]) -> list[InstanceCopy | None]:
    """Instances with all that belongs to them, all as they stand at one moment; None for an id that there is not."""
    execute: Any = connection.execute
    execute("begin")
    try:
        return [_read(execute, instance_id) for instance_id in instance_ids]
    finally:
        execute("rollback")


def _read(execute: Any, instance_id: str) -> InstanceCopy | None:
    row = execute(sql.record_by_id, (instance_id,)).fetchone()
    if row is None:
        return None
    key = row[KEY]
    places = places_of(key)
    history: list[AnyEvent] = []
    for (data,) in execute(sql.history_of, places).fetchall():
        history += decode_events(data)
    return InstanceCopy(
        record=record(row, row[STARTED] or execute(sql.large, (key,)).get),
        history=history,
        messages=[
            OutboundMessage(
                instance_id=instance_id,
                event=decode_event(event),
                execution_id=execution,
                scheduled=scheduled,
                due=due,
            )
            for due, execution, scheduled, event in execute(sql.all_messages, (key,)).fetchall()
        ],
        activities=[
            ActivityCopy(
                task=decode_task(task), at=at, run=run, progress=progress, details=details, heartbeat_at=heartbeat
            )
            for at, run, task, progress, details, heartbeat in execute(sql.all_activities, places).fetchall()
        ],
        wake=bool(execute(sql.woken, (key,)).get),
    )


def apply_put(transaction: Transaction, asked: list[Putting]) -> list[list[str]]:
    """Put instances there: the ids that stand in the way of each putting, which then does nothing."""
    return [_put_all(transaction, putting) for putting in asked]


def _put_all(transaction: Transaction, putting: Putting) -> list[str]:
    there: dict[str, int] = {}
    for copy in putting.copies:
        instance_id = copy.record.projection.instance_id
        row = transaction.one(sql.purge_target, instance_id)
        if row is not None:
            there[instance_id] = row[0]
    if there and not putting.replace:
        return list(there)
    for key in there.values():
        starts.delete(transaction, key)
    for copy in putting.copies:
        _put(transaction, copy, putting.run)
        transaction.changed.append(copy.record.projection.instance_id)
    transaction.work = transaction.work or putting.run
    return []


def _put(transaction: Transaction, copy: InstanceCopy, run: bool) -> None:
    found = copy.record
    p, started = found.projection, found.started
    key, now = transaction.next_instance(), transaction.now
    unfinished = p.status not in TERMINAL
    lock = AT_REST if unfinished and not run else None
    messages = [(message, _later(message.due, now)) for message in copy.messages]
    begun, scheduled = bool(copy.history), started.scheduled_start
    data = encode(started)
    if len(data) > INLINE_BYTES:
        transaction.execute(sql.insert_large, (key, data))
        data = b""
    events = encode_events(copy.history)
    due_now = [message.event for message, due in messages if due is None]
    waits = not begun and scheduled is not None and scheduled > now
    has_work = copy.wake or found.condition is not None or due_now or (not begun and not waits)
    ending = unfinished and any(ends(event, begun=begun, deadline=found.deadline) for event in due_now)
    row = (
        key,
        p.instance_id,
        int(p.status),
        lock,
        now if unfinished and run and has_work else None,
        int(copy.wake),
        len(copy.history),
        len(events) if begun else 0,
        p.last_updated_at,
        p.created_at,
        p.completed_at,
        None if begun else scheduled,
        found.deadline,
        p.name,
        p.execution_id,
        None if found.start_id == p.execution_id else found.start_id,
        found.dialect,
        None if started.parent is None else started.parent.instance_id,
        data,
        p.custom_status,
        condition_text(found.condition),
        1 if ending else None,
        failure_bytes(p.failure),
        p.output,
    )
    transaction.execute(sql.put_instance, row)
    if begun:
        transaction.execute(sql.insert_history, (key << PLACE_BITS, events))
    for message, due in messages:
        transaction.execute(sql.insert_message, message_row(key, transaction.next_message(), message, due))
    _put_activities(transaction, key, copy, lock)


def _later(due: Ticks | None, now: Ticks) -> Ticks | None:
    return due if due is not None and due > now else None


def _put_activities(transaction: Transaction, key: int, copy: InstanceCopy, lock: int | None) -> None:
    projection = copy.record.projection
    # Those of the current execution first: they must lie where they are looked for.
    own = sorted(copy.activities, key=lambda one: one.task.execution_id != projection.execution_id)
    first, last = places_of(key)
    for one in own:
        task = one.task
        place = activity_key(key, projection.generation, task.scheduled)
        while transaction.one(sql.activity_exists, place) is not None:
            place = place - 1 if place > first else last
        queue = queue_name(task.name, None if task.options is None else task.options.tag)
        values = (place, one.at, lock, one.run, task.scheduled, task.execution_id, queue, encode(task))
        transaction.execute(sql.put_activity, (*values, one.progress, one.details, one.heartbeat_at))
