"""Creates instances: judges a start against what stands under its id, replaces, takes the lock along."""

from collections.abc import Sequence
from typing import Any

from holdtrue.core.events import Ticks
from holdtrue.core.messages import InboundMessage, Start
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.stores.decisions import ends, first_message, messages_of_start, new_record, replaced_answer
from holdtrue.stores.protocol import CreateOutcome, CreateRequest, CreateResult, Lease, LockedInstance

from . import inbox
from .rows import (
    CONDITION,
    EXECUTION,
    ID,
    INLINE_BYTES,
    KEY,
    START_ID,
    STARTED,
    STATUS,
    decode_condition,
    encode,
    message_row,
    record,
)
from .statements import sql
from .transaction import Transaction, places_of


def apply_create(transaction: Transaction, requests: list[CreateRequest]) -> list[CreateOutcome]:
    """Create instances; what finds its id taken is judged one by one."""
    inserted = insert(transaction, [request.start for request in requests], [request.take for request in requests])
    outcomes: list[CreateOutcome] = []
    for request, made in zip(requests, inserted, strict=True):
        if made is None:
            outcomes.append(judge(transaction, request))
        else:
            outcomes.append(_created(request, CreateResult.CREATED, made[1]))
    return outcomes


def judge(transaction: Transaction, request: CreateRequest) -> CreateOutcome:
    """A start whose id was found taken: the same start, one that replaces, or one that is refused."""
    refused = refusal(transaction, request)
    if refused is not None:
        return refused
    row = transaction.one(sql.record_by_id, request.start.started.instance_id)
    if row is not None:
        replace(transaction, row)
    (made,) = insert(transaction, [request.start], [request.take])
    assert made is not None
    if row is None:
        return _created(request, CreateResult.CREATED, made[1])
    outcome = _created(request, CreateResult.REPLACED, made[1])
    outcome.status = Status(row[STATUS])
    return outcome


def refusal(transaction: Transaction, request: CreateRequest) -> CreateOutcome | None:
    """What stands in the way of a start (the same one was accepted before, or the status); None: nothing."""
    row = transaction.one(sql.record_by_id, request.start.started.instance_id)
    if row is None:
        return None
    status = Status(row[STATUS])
    if (row[START_ID] or row[EXECUTION]) == request.start.start_id:
        result = CreateResult.ALREADY
    elif status not in request.replaceable:
        result = CreateResult.REFUSED
    else:
        return None
    return CreateOutcome(
        result=result,
        instance_id=row[ID],
        execution_id=row[EXECUTION],
        status=status,
        condition=None if row[CONDITION] is None else decode_condition(row[CONDITION]),
    )


def _created(request: CreateRequest, result: CreateResult, taken: LockedInstance | None) -> CreateOutcome:
    started = request.start.started
    return CreateOutcome(result=result, instance_id=started.instance_id, execution_id=started.execution_id, taken=taken)


def insert(
    transaction: Transaction, starts: Sequence[Start], takes: Sequence[bool]
) -> list[tuple[int, LockedInstance | None] | None]:
    """Insert new instances: key and, where taken, the locked instance of each; None where the id is taken."""
    now, host = transaction.now, transaction.host
    token = transaction.token() if host else 0
    rows: list[tuple[Any, ...]] = []
    large: list[tuple[int, bytes]] = []
    made: list[tuple[int, LockedInstance | None] | None] = []
    for start, take in zip(starts, takes, strict=True):
        started = start.started
        key = transaction.next_instance()
        data = encode(started)
        if len(data) > INLINE_BYTES:
            large.append((key, data))
            data = b""
        later = started.scheduled_start is not None and started.scheduled_start > now
        take = take and host > 0 and not later
        rows.append(
            (
                key,
                started.instance_id,
                token if take else None,
                None if take or later else now,
                started.timestamp,
                started.timestamp,
                started.scheduled_start,
                start.deadline,
                started.name,
                started.execution_id,
                None if start.start_id == started.execution_id else start.start_id,
                start.dialect,
                None if started.parent is None else started.parent.instance_id,
                data,
            )
        )
        taken = None
        if take:
            taken = LockedInstance(lease=Lease(key, token), record=new_record(start), messages=[first_message(started)])
        elif not later:
            transaction.work = True
        made.append((key, taken))
    if transaction.counted("insert_instance", rows) != len(rows):
        large_keys = dict(large)
        for position, row in enumerate(rows):
            if transaction.one(sql.instance_exists, row[0]) is None:
                made[position] = None
                large_keys.pop(row[0], None)
        large = list(large_keys.items())
    if large:
        transaction.many("insert_large", large)
    messages: list[tuple[Any, ...]] = []
    for start, created in zip(starts, made, strict=True):
        if created is not None and (start.event or start.deadline or start.started.scheduled_start):
            messages += _first_messages(transaction, start, created)
    if messages:
        transaction.many("insert_message", messages)
    return made


def _first_messages(
    transaction: Transaction, start: Start, created: tuple[int, LockedInstance | None]
) -> list[tuple[Any, ...]]:
    """The rows of what an instance has to get from its start on: its event, its deadline, its scheduled time."""
    key, taken = created
    now = transaction.now
    rows = []
    for message in messages_of_start(start, now):
        number = transaction.next_message()
        due: Ticks | None = message.due
        if due is not None and due <= now:
            due = None
            if ends(message.event, begun=False):
                transaction.execute(sql.ending, (1, key))
                if taken is None:
                    transaction.execute(sql.offer_to_all, (now, key))
                    transaction.work = True
        if due is not None:
            transaction.work = True  # hosts are to look at the clock
        rows.append(message_row(key, number, message, due))
        if taken is not None and due is None:
            taken.messages.append(
                InboundMessage(
                    event=message.event, key=number, execution_id=message.execution_id, scheduled=message.scheduled
                )
            )
    return rows


def replace(transaction: Transaction, row: tuple[Any, ...]) -> None:
    """Make place for a new instance: the old one goes with all that belongs to it; its parent gets an answer."""
    if Status(row[STATUS]) not in TERMINAL:
        data = row[STARTED] or transaction.execute(sql.large, (row[KEY],)).get
        answer = replaced_answer(record(row, data).projection, transaction.now)
        if answer is not None:
            inbox.post_unseen(transaction, answer)
        transaction.changed.append(row[ID])
    delete(transaction, row[KEY])


def delete(transaction: Transaction, key: int) -> None:
    """Delete an instance and all that belongs to it."""
    execute = transaction.execute
    first, last = places_of(key)
    execute(sql.delete_history, (first, last))
    execute(sql.delete_activities, (first, last))
    execute(sql.delete_messages, (key,))
    execute(sql.delete_large, (key,))
    execute(sql.delete_instance, (key,))
