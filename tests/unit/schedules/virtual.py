"""A world of its own for these tests: virtual time from a Monday noon on, and a hub in memory."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from holdtrue.core.dialect import to_ticks
from holdtrue.core.events import TICKS_PER_SECOND, ExecutionStarted, Ticks
from holdtrue.core.messages import InboundMessage, OutboundMessage
from holdtrue.core.projection import TERMINAL, Condition, Projection, Status, initial
from holdtrue.stores.protocol import (
    CreateOutcome,
    CreateRequest,
    CreateResult,
    Delivery,
    InstanceRecord,
    Purged,
    SendOutcome,
    SendResult,
    StoredSchedule,
    Tick,
    TickCommit,
    completed_tick,
)
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.virtual_time import run

_T = TypeVar("_T")

START = to_ticks(datetime(2026, 3, 2, 12, 0, 0))
"""When virtual time begins: a Monday noon."""


class VirtualEnvironment(SimulatedEnvironment):
    """The environment of these tests; `shift` is a step of the wall clock, in seconds."""

    def __init__(self) -> None:
        super().__init__(7, epoch=START)

    @property
    def shift(self) -> float:
        return self.skew / TICKS_PER_SECOND

    @shift.setter
    def shift(self, seconds: float) -> None:
        self.skew = round(seconds * TICKS_PER_SECOND)


def in_virtual_time(body: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run a test's coroutine on a virtual loop."""
    result: _T = run(body())
    return result


class Instance(msgspec.Struct):
    """An instance of the fake hub; `runs` counts its executions."""

    projection: Projection
    started: ExecutionStarted
    start_id: str
    condition: Condition | None = None


class FakeHub:
    """The part of a store that schedules and retention use, by the words of the protocol.

    `before` and `after` are called around each commit of a tick, to fail or to interfere there.
    """

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.schedules: dict[str, StoredSchedule] = {}
        self.records: list[Tick] = []
        self.starts: list[ExecutionStarted] = []
        self.sent: list[OutboundMessage] = []
        self.purges: list[list[str]] = []
        self.before: Callable[[TickCommit], None] | None = None
        self.after: Callable[[TickCommit], None] | None = None
        self.reads = 0

    # -- what tests do -------------------------------------------------------------------------------
    def end(self, instance_id: str, status: Status = Status.COMPLETED, at: Ticks = 0) -> None:
        """Let a run end."""
        projection = self.instances[instance_id].projection
        projection.status, projection.completed_at = status, at

    def run(self, instance_id: str) -> None:
        """Let a run begin."""
        self.instances[instance_id].projection.status = Status.RUNNING

    def decisions(self, schedule_id: str = "s") -> list[str]:
        """What was decided, in order."""
        return [tick.decision for tick in self.records if tick.schedule_id == schedule_id]

    # -- the protocol --------------------------------------------------------------------------------
    def _create(self, request: CreateRequest, guard: str | None) -> CreateOutcome:
        started = request.start.started
        before = self.instances.get(started.instance_id)
        if before is not None and before.start_id == request.start.start_id:
            return CreateOutcome(
                result=CreateResult.ALREADY,
                instance_id=started.instance_id,
                execution_id=before.projection.execution_id,
            )
        guarding = None if guard is None else self.instances.get(guard)
        standing = None
        if guarding is not None and guarding.projection.status not in TERMINAL:
            standing = guarding
        elif before is not None and before.projection.status not in request.replaceable:
            standing = before
        if standing is not None:
            return CreateOutcome(
                result=CreateResult.REFUSED,
                instance_id=standing.projection.instance_id,
                execution_id=standing.projection.execution_id,
                status=standing.projection.status,
                condition=standing.condition,
            )
        self.instances[started.instance_id] = Instance(initial(started), started, request.start.start_id)
        self.starts.append(started)
        return CreateOutcome(
            result=CreateResult.CREATED if before is None else CreateResult.REPLACED,
            instance_id=started.instance_id,
            execution_id=started.execution_id,
            status=None if before is None else before.projection.status,
        )

    async def status(self, instance_ids: Sequence[str]) -> list[InstanceRecord | None]:
        await asyncio.sleep(0)
        found = [self.instances.get(instance_id) for instance_id in instance_ids]
        return [
            None
            if instance is None
            else InstanceRecord(
                projection=instance.projection, started=instance.started, start_id=instance.start_id, dialect="dotnet"
            )
            for instance in found
        ]

    async def send(self, messages: Sequence[OutboundMessage]) -> list[SendOutcome]:
        await asyncio.sleep(0)
        self.sent.extend(messages)
        event = messages[0].event
        delivery = Delivery(instance=7, message=InboundMessage(event=event, key=1))
        return [SendOutcome(result=SendResult.ACCEPTED, delivery=delivery) for _ in messages]

    async def put_schedule(self, schedule: StoredSchedule, *, expect: int | None) -> int | None:
        await asyncio.sleep(0)
        there = self.schedules.get(schedule.schedule_id)
        if (None if there is None else there.etag) != expect:
            return None
        etag = 1 if expect is None else expect + 1
        self.schedules[schedule.schedule_id] = msgspec.structs.replace(schedule, etag=etag)
        return etag

    async def get_schedules(self, due_by: Ticks | None = None) -> list[StoredSchedule]:
        self.reads += 1
        await asyncio.sleep(0)
        return [
            msgspec.structs.replace(schedule)
            for _, schedule in sorted(self.schedules.items())
            if due_by is None or (schedule.due is not None and schedule.due <= due_by)
        ]

    async def delete_schedule(self, schedule_id: str) -> bool:
        self.records = [tick for tick in self.records if tick.schedule_id != schedule_id]
        return self.schedules.pop(schedule_id, None) is not None

    async def commit_tick(self, tick: TickCommit) -> CreateOutcome | None | bool:
        await asyncio.sleep(0)
        if self.before is not None:
            self.before(tick)
        schedule = self.schedules.get(tick.schedule_id)
        if schedule is None or schedule.etag != tick.etag:
            return False
        state, due, outcome = tick.state, tick.due, None
        records = list(tick.missed)
        if tick.request is not None:
            outcome = self._create(tick.request, tick.guard)
            if outcome.result is CreateResult.REFUSED and tick.state_if_refused is not None:
                state, due = tick.state_if_refused, tick.due_if_refused
            record = completed_tick(tick, outcome)
        else:
            record = tick.tick
        records.extend([] if record is None else [record])
        keys = {(known.schedule_id, known.due) for known in self.records}
        for new in records:
            assert (new.schedule_id, new.due) not in keys, f"a second record for {new}"
        self.records.extend(records)
        self.schedules[tick.schedule_id] = msgspec.structs.replace(schedule, state=state, due=due, etag=tick.etag + 1)
        if self.after is not None:
            self.after(tick)
        return outcome

    async def ticks(self, schedule_id: str, *, after: Ticks | None = None, limit: int = 100) -> list[Tick]:
        found = [t for t in self.records if t.schedule_id == schedule_id and (after is None or t.due > after)]
        return sorted(found, key=lambda tick: tick.due)[:limit]

    async def trim_ticks(self, before: Ticks, schedule_id: str | None = None) -> int:
        kept = [t for t in self.records if t.due >= before or schedule_id not in (None, t.schedule_id)]
        gone, self.records = len(self.records) - len(kept), kept
        return gone

    async def expired(
        self,
        name: str | None,
        completed_before: Ticks | None,
        keep: int | None,
        limit: int,
        excluding: Sequence[str] = (),
    ) -> list[str]:
        ended = sorted(
            (
                instance.projection
                for instance in self.instances.values()
                if instance.projection.status in TERMINAL
                and instance.projection.parent is None
                and (name is None or instance.projection.name == name)
                and instance.projection.name not in excluding
            ),
            key=lambda projection: projection.completed_at or 0,
        )
        beyond = len(ended) if keep is None else keep
        return [
            projection.instance_id
            for index, projection in enumerate(ended)
            if (completed_before is not None and (projection.completed_at or 0) < completed_before)
            or index < len(ended) - beyond
        ][:limit]

    async def purge(self, instance_ids: Sequence[str], *, recursive: bool = True) -> Purged:
        assert recursive
        self.purges.append(list(instance_ids))
        purged = Purged()
        for instance_id in instance_ids:
            if self.instances.pop(instance_id, None) is not None:
                purged.instances += 1
        return purged
