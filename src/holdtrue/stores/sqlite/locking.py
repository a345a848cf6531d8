"""Locks on instances and work items: taking, giving back, parking, and the signs of life of work items."""

from collections.abc import Sequence
from typing import Any

import msgspec

from holdtrue.core.messages import InboundMessage, WorkRef
from holdtrue.core.projection import Status
from holdtrue.stores.decisions import ends, first_message, share
from holdtrue.stores.protocol import Lease, LockedActivity, LockedInstance

from . import inbox
from .hosts import hosts_of
from .rows import (
    DEADLINE,
    ID,
    KEY,
    LENGTH,
    STARTED,
    STATUS,
    decode_names,
    decode_numbers,
    decode_task,
    encode,
    inbound,
    record,
    unreadable,
)
from .statements import sql
from .transaction import PLACE_BITS, Transaction

_PENDING = int(Status.PENDING)


def apply_lock(transaction: Transaction, asked: list[tuple[int, Sequence[str], int]]) -> list[list[LockedInstance]]:
    """Take instances that have work: each asks for a limit over names, in turn from one of them."""
    return [_lock(transaction, *one) for one in asked]


def _lock(transaction: Transaction, limit: int, names: Sequence[str], turn: int) -> list[LockedInstance]:
    if not transaction.host or limit <= 0:
        return []
    execute, host = transaction.execute, transaction.host
    rows = share(limit, names, turn, lambda name, most: execute(sql.ready_instances, (name, most, host)).fetchall())
    if len(rows) < limit:
        rows += _to_be_ended(transaction, limit - len(rows), {row[KEY] for row in rows})
    if not rows:
        return []
    token = transaction.token()
    transaction.many("lock_instance", [(token, row[KEY]) for row in rows])
    if transaction.any_mail():
        transaction.executemany(sql.delete_mail_of_instance, [(row[KEY],) for row in rows])
    locked = []
    for row in rows:
        started = row[STARTED] or execute(sql.large, (row[KEY],)).get
        locked.append(
            LockedInstance(
                lease=Lease(row[KEY], token), record=record(row, started), messages=_messages(transaction, row)
            )
        )
        if row[STATUS] == _PENDING and row[LENGTH] == 0:
            one = locked[-1]
            one.messages.insert(0, first_message(one.record.started))
    return locked


def _to_be_ended(transaction: Transaction, limit: int, taken: set[int]) -> list[Any]:
    """Instances that a message ends which any host can handle: nobody alive may have their code."""
    found = []
    for row in transaction.execute(sql.ending_instances, (limit + len(taken), transaction.host)).fetchall():
        if row[KEY] in taken:
            continue
        if _has_end(transaction, row):
            found.append(row)
        else:
            transaction.execute(sql.ending, (None, row[KEY]))
    return found[:limit]


def _has_end(transaction: Transaction, row: tuple[Any, ...]) -> bool:
    """Whether a message waits that ends an instance without its code."""
    begun, deadline = row[LENGTH] > 0, row[DEADLINE]
    return any(ends(one.event, begun=begun, deadline=deadline) for one in _messages(transaction, row))


def _messages(transaction: Transaction, row: tuple[Any, ...]) -> list[InboundMessage]:
    rows = transaction.execute(sql.waiting_messages, (row[KEY],)).fetchall()
    if not rows:
        return []
    try:
        return inbound(rows)
    except msgspec.DecodeError:
        return _readable(transaction, row, rows)


def _readable(transaction: Transaction, row: tuple[Any, ...], rows: list[Any]) -> list[InboundMessage]:
    """The messages that can be read; the others become dead letters, so that they hold nobody up."""
    messages = []
    for one in rows:
        try:
            messages += inbound([one])
        except msgspec.DecodeError as error:
            inbox.bury(transaction, unreadable(row[ID], one[3], str(error)))
            transaction.execute(sql.delete_message, (row[KEY], one[0]))
    return messages


def apply_release(transaction: Transaction, leases: list[Lease]) -> list[None]:
    """Give instances back."""
    now = transaction.now
    transaction.executemany(sql.release_instance, [(now, lease.key, lease.token) for lease in leases])
    transaction.work = True
    return [None] * len(leases)


def apply_park(transaction: Transaction, parked: list[tuple[Lease, str]]) -> list[None]:
    """Hold instances, with the condition as text.

    A host that has its code and has not tried it yet gets it; one that got a terminate or a deadline
    meanwhile is for any host.
    """
    hosts = hosts_of(transaction.execute)
    for lease, condition in parked:
        row = transaction.one(sql.tried, lease.key, lease.token)
        if row is None:
            continue
        before = set() if row[0] is None else set(decode_numbers(row[0]))
        serving = {host.number for host in hosts if row[1] in decode_names(host.orchestrators)}
        tried = before & serving | {transaction.host}
        offered = transaction.now if serving - tried else None
        transaction.execute(sql.park, (condition, lease.key, lease.token, offered, encode(sorted(tried)).decode()))
        record_row = transaction.one(sql.record_by_key, lease.key)
        transaction.changed.append(record_row[ID])
        if _has_end(transaction, record_row):
            offered = transaction.now
            transaction.execute(sql.offer_to_all, (offered, lease.key))
        transaction.work = transaction.work or offered is not None
    return [None] * len(parked)


def apply_lock_activities(
    transaction: Transaction, asked: list[tuple[int, Sequence[str], int]]
) -> list[list[LockedActivity]]:
    """Take work items: each asks for a limit over queues, in turn from one of them."""
    return [_lock_activities(transaction, *one) for one in asked]


def _lock_activities(transaction: Transaction, limit: int, queues: Sequence[str], turn: int) -> list[LockedActivity]:
    if not transaction.host or limit <= 0:
        return []
    execute = transaction.execute
    rows = share(limit, queues, turn, lambda queue, most: execute(sql.ready_activities, (queue, most)).fetchall())
    if not rows:
        return []
    token = transaction.token()
    transaction.many("lock_activity", [(token, row[0]) for row in rows])
    return [
        LockedActivity(
            ref=WorkRef(key, token),
            instance=key >> PLACE_BITS,
            task=decode_task(task),
            run=run + 1,
            details=details,
            scheduled_at=at,
        )
        for key, at, run, task, details in rows
    ]


def apply_release_activities(transaction: Transaction, refs: list[WorkRef]) -> list[None]:
    """Give work items back."""
    transaction.executemany(sql.release_activity, [(ref.key, ref.token) for ref in refs])
    transaction.work = True
    return [None] * len(refs)


def apply_report(transaction: Transaction, reports: list[tuple[WorkRef, str | None, str | None]]) -> list[bool]:
    """Signs of life of running activities; false for one that is not held any more."""
    return [
        bool(
            transaction.host
            and transaction.counted("report_activity", [(transaction.now, progress, details, ref.key, ref.token)])
        )
        for ref, progress, details in reports
    ]
