"""Schedules and the records of their ticks: each decision is one transaction with the start that it makes."""

import msgspec

from holdtrue.stores.protocol import CreateOutcome, CreateResult, StoredSchedule, Tick, TickCommit

from . import starts
from .statements import sql
from .transaction import Transaction


def apply_put(transaction: Transaction, puts: list[tuple[StoredSchedule, int | None]]) -> list[int | None]:
    """Write schedules, each by whoever saw its last version; the new version, or None."""
    etags: list[int | None] = []
    for schedule, expect in puts:
        transaction.schedules = True
        if expect is None:
            row = (schedule.schedule_id, schedule.definition, schedule.state, schedule.due, 1)
            etags.append(1 if transaction.counted("insert_schedule", [row]) else None)
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
        (outcome,) = starts.apply_create(transaction, [commit.request])
        refused = outcome.result is CreateResult.REFUSED
        if refused and commit.state_if_refused is not None:
            state, due = commit.state_if_refused, commit.due_if_refused
        if tick is not None:
            tick = msgspec.structs.replace(
                tick,
                instance_id=outcome.instance_id,
                execution_id=outcome.execution_id,
            )
            if outcome.status is not None:
                tick = msgspec.structs.replace(tick, status=outcome.status.name)
            if refused:
                held = outcome.condition is not None
                reason = outcome.condition.reason if outcome.condition is not None else tick.reason
                tick = msgspec.structs.replace(tick, decision="held" if held else "skipped", reason=reason)
    transaction.execute(sql.update_schedule_state, (state, due, commit.etag + 1, commit.schedule_id, commit.etag))
    if tick is not None:
        transaction.execute(sql.insert_tick, msgspec.structs.astuple(tick))
    transaction.schedules = True
    return outcome


def apply_trim(transaction: Transaction, befores: list[int]) -> list[int]:
    """Forget records of ticks."""
    return [transaction.counted("trim_ticks", [(before,)]) for before in befores]


def schedule(row: tuple[str, str, str, int | None, int]) -> StoredSchedule:
    """A schedule from its row."""
    schedule_id, definition, state, due, etag = row
    return StoredSchedule(schedule_id=schedule_id, definition=definition, state=state, due=due, etag=etag)


def tick_of(row: tuple[str, int, int, str, str | None, str | None, str | None, str | None]) -> Tick:
    """The record of a tick from its row."""
    schedule_id, due, decided_at, decision, instance_id, execution_id, status, reason = row
    return Tick(
        schedule_id=schedule_id,
        due=due,
        decided_at=decided_at,
        decision=decision,
        instance_id=instance_id,
        execution_id=execution_id,
        status=status,
        reason=reason,
    )
