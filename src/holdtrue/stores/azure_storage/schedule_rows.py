"""Schedules and the records of their ticks, in the hub's own table.

A tick and the start that it makes are of two tables.  The schedule's row is the point of decision: it takes the tick
under If-Match, as pending; then the start is made, under the start's own id, and the record is written.  Whoever
reads a schedule with a pending tick first finishes it.
"""

import msgspec

from holdtrue.core.events import ExecutionStarted, Ticks
from holdtrue.core.messages import OutboundMessage, Start
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.stores.decisions import not_started
from holdtrue.stores.protocol import (
    STARTED,
    CreateOutcome,
    CreateRequest,
    CreateResult,
    StoredSchedule,
    Tick,
    TickCommit,
    completed_tick,
)

from .access import Access, own_value, own_values
from .names import escape_key
from .reading import Reader
from .sending import Sender
from .sentinel import extra_text
from .service import ANY, All, Conflict, Do, NotThere, Operation, Row, Test
from .starting import Starter

PARTITION = "schedules"


class _Request(msgspec.Struct, omit_defaults=True):
    """A start as a pending tick holds it."""

    started: ExecutionStarted
    start_id: str
    dialect: str
    deadline: Ticks | None
    event: OutboundMessage | None
    replaceable: list[int]

    def as_request(self) -> CreateRequest:
        start = Start(
            started=self.started,
            start_id=self.start_id,
            dialect=self.dialect,
            deadline=self.deadline,
            event=self.event,
        )
        return CreateRequest(start=start, replaceable=frozenset(Status(number) for number in self.replaceable))


class _Pending(msgspec.Struct, omit_defaults=True):
    """A tick that was taken and is not finished."""

    tick: Tick | None
    request: _Request | None
    guard: str | None
    state_if_refused: str | None
    due_if_refused: Ticks | None
    decision_if_refused: str
    missed: list[Tick]
    messages: list[OutboundMessage]

    def as_commit(self, schedule: StoredSchedule) -> TickCommit:
        return TickCommit(
            schedule_id=schedule.schedule_id,
            etag=schedule.etag,
            state=schedule.state,
            due=schedule.due,
            tick=self.tick,
            request=None if self.request is None else self.request.as_request(),
            guard=self.guard,
            state_if_refused=self.state_if_refused,
            due_if_refused=self.due_if_refused,
            decision_if_refused=self.decision_if_refused,
            missed=self.missed,
            messages=self.messages,
        )


class _Stored(msgspec.Struct, omit_defaults=True):
    schedule: StoredSchedule
    pending: _Pending | None = None


class Schedules:
    """The schedules of a hub."""

    def __init__(self, access: Access, reader: Reader, starter: Starter, sender: Sender) -> None:
        self._access = access
        self._reader = reader
        self._starter = starter
        self._sender = sender

    async def put(self, schedule: StoredSchedule, *, expect: int | None) -> int | None:
        """Write a schedule, by whoever saw its last version; the new version, or None."""
        row = await self._access.get_own(PARTITION, escape_key(schedule.schedule_id))
        standing = None if row is None else await self._finished(row)
        if (None if standing is None else standing[0].etag) != expect:
            return None
        etag = self._access.environment.now() if expect is None else expect + 1
        stored = _Stored(msgspec.structs.replace(schedule, etag=etag))
        return etag if await self._write(stored, None if standing is None else standing[1]) else None

    async def _write(self, stored: _Stored, etag: str | None) -> str | None:
        """Write a schedule's row where it still has the etag (None: is not there); its new etag."""
        key = escape_key(stored.schedule.schedule_id)
        do = Do.INSERT if etag is None else Do.REPLACE
        operation = Operation(do=do, partition=PARTITION, key=key, values=extra_text(stored), etag=etag)
        try:
            return await self._access.write_own(operation)
        except (Conflict, NotThere):
            # Perhaps our own, by a try whose answer was lost.
            row = await self._access.get_own(PARTITION, key)
            return row.etag if row is not None and _read(row) == stored else None

    async def get(self, due_by: Ticks | None) -> list[StoredSchedule]:
        """All schedules by id, or those due."""
        found = []
        rows = await self._access.query_own(Test("PartitionKey", "eq", PARTITION))
        for row, _ in own_values(rows, _Stored):
            schedule, _ = await self._finished(row)
            found.append(schedule)
        if due_by is None:
            return sorted(found, key=lambda one: one.schedule_id)
        due = [(one.due, one.schedule_id, one) for one in found if one.due is not None and one.due <= due_by]
        return [one for _, _, one in sorted(due, key=lambda item: item[:2])]

    async def delete(self, schedule_id: str) -> bool:
        """Remove a schedule and its ticks."""
        operation = Operation(do=Do.DELETE, partition=PARTITION, key=escape_key(schedule_id), etag=ANY)
        there = await self._access.delete_own(operation)
        await self.trim(1 << 62, schedule_id)
        return there

    # -- ticks -----------------------------------------------------------------------------------------

    async def commit_tick(self, commit: TickCommit) -> CreateOutcome | None | bool:
        """Apply a decision: False where another was faster, None without a start, else what became of it."""
        row = await self._access.get_own(PARTITION, escape_key(commit.schedule_id))
        if row is None:
            return False
        schedule, etag = await self._finished(row)
        if schedule.etag != commit.etag:
            return False
        taken = msgspec.structs.replace(schedule, state=commit.state, due=commit.due, etag=commit.etag + 1)
        stored = _Stored(taken, _pending(commit))
        written = await self._write(stored, etag)
        if written is None:
            return False
        return await self._finish(stored, written)

    async def _finished(self, row: Row) -> tuple[StoredSchedule, str]:
        """A schedule whose pending tick is finished, and its row's etag."""
        while True:
            stored = _read(row)
            if stored.pending is None:
                return stored.schedule, row.etag
            await self._finish(stored, row.etag)
            again = await self._access.get_own(row.partition, row.key)
            if again is None:
                return stored.schedule, row.etag
            row = again

    async def _finish(self, stored: _Stored, etag: str) -> CreateOutcome | None:
        pending, schedule = stored.pending, stored.schedule
        assert pending is not None
        commit = pending.as_commit(schedule)
        outcome: CreateOutcome | None = None
        record, state, due = commit.tick, schedule.state, schedule.due
        if commit.request is None:
            await self._send(commit)
        else:
            outcome = await self._start(commit, commit.request, etag)
            if outcome.result is CreateResult.REFUSED and not await self._is_current(schedule.schedule_id, etag):
                return outcome  # another host has finished it meanwhile: what is in the way may be a tick's after it
            if outcome.result is CreateResult.REFUSED and commit.state_if_refused is not None:
                state, due = commit.state_if_refused, commit.due_if_refused
            record = completed_tick(commit, outcome)
        records = [*commit.missed, *([] if record is None else [record])]
        if record is not None and outcome is not None and outcome.result is CreateResult.REFUSED:
            records.remove(record)
            if not await self._recorded(record):
                # Another has finished it, when nothing was in its way: its start stands.
                state, due = schedule.state, schedule.due
        ticks = {_key(one.due): _record(Do.REPLACE, one) for one in records}
        await self._access.put_own(list(ticks.values()))
        await self._write(_Stored(msgspec.structs.replace(schedule, state=state, due=due)), etag)
        return outcome

    async def _recorded(self, record: Tick) -> bool:
        """Record a tick that has started nothing; false where it is recorded as one that has."""
        operation = _record(Do.INSERT, record)
        while True:
            try:
                await self._access.write_own(operation)
                return True
            except (Conflict, NotThere):
                row = await self._access.get_own(operation.partition, operation.key)
            if row is None:
                operation = _record(Do.INSERT, record)
            elif own_value(row, Tick).decision in STARTED:
                return False
            else:
                operation = msgspec.structs.replace(operation, do=Do.REPLACE, etag=row.etag)

    async def _is_current(self, schedule_id: str, etag: str) -> bool:
        row = await self._access.get_own(PARTITION, escape_key(schedule_id))
        return row is not None and row.etag == etag

    async def _start(self, commit: TickCommit, request: CreateRequest, etag: str) -> CreateOutcome:
        """The start of a tick; its messages go before it, and only where it is not refused.

        Another host may finish the same tick.  Its start has then run, and what stands there may be that of a tick
        after it: that is written over only while the schedule's row has this `etag`.
        """
        own = (await self._reader.standing(request.start.started.instance_id)).record
        begun = own is not None and own.start_id == request.start.start_id
        if commit.guard is not None and not begun:
            guard = (await self._reader.standing(commit.guard)).record
            if guard is not None and guard.projection.status not in TERMINAL:
                return not_started(CreateResult.REFUSED, guard.projection, guard.condition)
        if own is not None and not begun and own.projection.status not in request.replaceable:
            return not_started(CreateResult.REFUSED, own.projection, own.condition)
        await self._send(commit)
        outcome = await self._starter.create(request, lambda: self._is_current(commit.schedule_id, etag))
        if outcome.result is CreateResult.ALREADY:
            # By whoever took this tick before.
            outcome.result = CreateResult.CREATED
        return outcome

    async def _send(self, commit: TickCommit) -> None:
        for message in commit.messages:
            await self._sender.send(message)

    async def ticks(self, schedule_id: str, *, after: Ticks | None, limit: int) -> list[Tick]:
        """Records in order of time."""
        where: tuple[Test, ...] = (Test("PartitionKey", "eq", _ticks(schedule_id)),)
        if after is not None:
            where = (*where, Test("RowKey", "gt", _key(after)))
        rows = await self._access.query_own(All(where), limit=limit)
        return [tick for _, tick in own_values(rows, Tick)]

    async def trim(self, before: Ticks, schedule_id: str | None) -> int:
        """Forget records of ticks due before, of all schedules or one."""
        if schedule_id is None:
            names = [one.schedule_id for one in await self.get(None)]
        else:
            names = [schedule_id]
        trimmed = 0
        for name in names:
            where = All((Test("PartitionKey", "eq", _ticks(name)), Test("RowKey", "lt", _key(before))))
            rows = await self._access.query_own(where, select=("PartitionKey", "RowKey"))
            trimmed += await self._access.delete_all_own(rows)
        return trimmed


def _record(do: Do, tick: Tick) -> Operation:
    return Operation(do=do, partition=_ticks(tick.schedule_id), key=_key(tick.due), values=extra_text(tick))


def _pending(commit: TickCommit) -> _Pending:
    request = commit.request
    return _Pending(
        tick=commit.tick,
        request=None
        if request is None
        else _Request(
            request.start.started,
            request.start.start_id,
            request.start.dialect,
            request.start.deadline,
            request.start.event,
            sorted(int(status) for status in request.replaceable),
        ),
        guard=commit.guard,
        state_if_refused=commit.state_if_refused,
        due_if_refused=commit.due_if_refused,
        decision_if_refused=commit.decision_if_refused,
        missed=commit.missed,
        messages=commit.messages,
    )


def _read(row: Row) -> _Stored:
    return own_value(row, _Stored)


def _ticks(schedule_id: str) -> str:
    return f"ticks {escape_key(schedule_id)}"


def _key(due: Ticks) -> str:
    # Shifted, so that times before 1970 sort before.
    return f"{due + (1 << 62):020d}"
