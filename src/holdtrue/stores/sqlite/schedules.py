"""Schedules and the records of their ticks: each decision is one transaction with the start that it makes."""

from typing import Any

import msgspec

from holdtrue.core.events import Ticks
from holdtrue.core.messages import OutboundMessage
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.stores.protocol import (
    CreateOutcome,
    CreateRequest,
    CreateResult,
    StoredSchedule,
    Tick,
    TickCommit,
    completed_tick,
)

from . import inbox, starts
from .rows import CONDITION, EXECUTION, ID, STATUS, decode_condition
from .statements import sql
from .transaction import Transaction


def apply_put(transaction: Transaction, puts: list[tuple[StoredSchedule, int | None]]) -> list[int | None]:
    """Write schedules, each by whoever saw its last version; the new version, or None."""
    etags: list[int | None] = []
    for schedule, expect in puts:
        transaction.schedules = True
        if expect is None:
            # Not one that an earlier schedule of this id had: whoever knows that one must not take this for it.
            etag = transaction.now
            row = (schedule.schedule_id, schedule.definition, schedule.state, schedule.due, etag)
            etags.append(etag if transaction.counted("insert_schedule", [row]) else None)
        else:
            etag = expect + 1
            values = (schedule.definition, schedule.state, schedule.due, etag, schedule.schedule_id, expect)
            etags.append(etag if transaction.counted("update_schedule", [values]) else None)
    return etags


def apply_delete(transaction: Transaction, schedule_ids: list[str]) -> list[bool]:
    """Remove schedules and their ticks."""
    removed = []
    for schedule_id in schedule_ids:
        transaction.schedules = True
        removed.append(bool(transaction.counted("delete_schedule", [(schedule_id,)])))
        transaction.execute(sql.delete_ticks_of, (schedule_id,))
    return removed


def apply_tick(transaction: Transaction, ticks: list[TickCommit]) -> list[CreateOutcome | None | bool]:
    """Apply decisions: False where another was faster, None without a start, else what became of it."""
    return [_tick(transaction, tick) for tick in ticks]


def _tick(transaction: Transaction, commit: TickCommit) -> CreateOutcome | None | bool:
    row = transaction.one(sql.schedule, commit.schedule_id)
    if row is None or row[0] != commit.etag:
        return False
    outcome: CreateOutcome | None = None
    tick, state, due = commit.tick, commit.state, commit.due
    if commit.request is not None:
        outcome = _guarded(transaction, commit.guard, commit.request)
        if outcome is None:
            outcome = _start(transaction, commit.request, commit.messages)
        if outcome.result is CreateResult.REFUSED and commit.state_if_refused is not None:
            state, due = commit.state_if_refused, commit.due_if_refused
        tick = completed_tick(commit, outcome)
    elif commit.messages:
        _send(transaction, commit.messages)
    transaction.execute(sql.update_schedule_state, (state, due, commit.etag + 1, commit.schedule_id, commit.etag))
    for record in [*commit.missed, *([] if tick is None else [tick])]:
        transaction.execute(sql.insert_tick, msgspec.structs.astuple(record))
    transaction.schedules = True
    return outcome


def _guarded(transaction: Transaction, guard: str | None, request: CreateRequest) -> CreateOutcome | None:
    """The refusal of a start because the instance `guard` stands and has not ended."""
    row = None if guard is None else transaction.one(sql.record_by_id, guard)
    if row is None or Status(row[STATUS]) in TERMINAL:
        return None
    return CreateOutcome(
        result=CreateResult.REFUSED,
        instance_id=row[ID],
        execution_id=row[EXECUTION],
        status=Status(row[STATUS]),
        condition=None if row[CONDITION] is None else decode_condition(row[CONDITION]),
    )


def _start(transaction: Transaction, request: CreateRequest, messages: list[OutboundMessage]) -> CreateOutcome:
    """The start of a tick; its messages go before it, and only where it is not refused."""
    if messages:
        refused = starts.refusal(transaction, request)
        if refused is not None:
            return refused
        _send(transaction, messages)
    return starts.apply_create(transaction, [request])[0]


def _send(transaction: Transaction, messages: list[OutboundMessage]) -> None:
    for message in messages:
        inbox.post_unseen(transaction, message)


def apply_trim(transaction: Transaction, asked: list[tuple[Ticks, str | None]]) -> list[int]:
    """Forget records of ticks due before, of all schedules or one."""
    return [
        transaction.counted("trim_ticks", [(before,)])
        if schedule_id is None
        else transaction.counted("trim_ticks_of", [(before, schedule_id)])
        for before, schedule_id in asked
    ]


def schedule(row: tuple[str, str, str, int | None, int]) -> StoredSchedule:
    """A schedule from its row."""
    schedule_id, definition, state, due, etag = row
    return StoredSchedule(schedule_id=schedule_id, definition=definition, state=state, due=due, etag=etag)


def tick_of(row: Any) -> Tick:
    """The record of a tick from its row."""
    schedule_id, due, decided_at, decision, count, instance_id, execution_id, status, reason = row
    return Tick(
        schedule_id=schedule_id,
        due=due,
        decided_at=decided_at,
        decision=decision,
        count=count,
        instance_id=instance_id,
        execution_id=execution_id,
        status=status,
        reason=reason,
    )
