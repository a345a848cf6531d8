"""The service on a hub in memory, in virtual time: what fires, what stays undone, what two hosts do."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

import pytest

from holdtrue.client.schedules import Schedules
from holdtrue.core.events import TICKS_PER_SECOND, ExecutionTerminated
from holdtrue.core.projection import Condition, Status
from holdtrue.engine.schedule_service import QUEUE_POLL, ScheduleService
from holdtrue.stores.errors import OutcomeUnknown, StoreUnavailable
from holdtrue.stores.protocol import Delivery, Notice, StoredSchedule, TickCommit
from tests.unit.schedules.virtual import START, FakeHub, VirtualEnvironment, in_virtual_time


class World:
    """A hub, its schedules as a client sees them, and any number of hosts."""

    def __init__(self) -> None:
        self.hub = FakeHub()
        self.environment = VirtualEnvironment()
        self.hosts: list[ScheduleService] = []
        self.started = 0
        self.delivered: list[Delivery] = []
        self.schedules = Schedules(
            self.hub,  # type: ignore[arg-type]
            self.environment,
            lambda value: None if value is None else repr(value),
            changed=self.nudge,
        )

    def nudge(self) -> None:
        for host in self.hosts:
            host.nudge()

    @contextlib.asynccontextmanager
    async def host(self) -> AsyncIterator[ScheduleService]:
        def count(_: object) -> None:
            self.started += 1

        service = ScheduleService(
            self.hub,  # type: ignore[arg-type]
            self.environment,
            started=count,
            deliver=self.delivered.append,
        )
        self.hosts.append(service)
        task = asyncio.ensure_future(service.run())
        try:
            yield service
        finally:
            self.hosts.remove(service)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def wait(self, seconds: float) -> None:
        await self.environment.sleep(seconds)

    async def singleton(self, **members: Any) -> None:
        members = {"cron": "* * * * * *", "instance_id": "one", **members}
        await self.schedules.create("s", "load", **members)

    def dues(self) -> list[float]:
        return [(tick.due - START) / TICKS_PER_SECOND for tick in self.hub.records]


def test_a_singleton_each_second() -> None:
    async def body() -> None:
        world = World()
        async with world.host() as host:
            await world.singleton(input=5, tags={"a": "b"}, version="3")
            await world.wait(1.5)
            world.hub.run("one")
            await world.wait(2)
            world.hub.end("one", Status.FAILED)
            await world.wait(1)
            assert world.hub.decisions() == ["started", "skipped", "skipped", "started"]
            assert world.dues() == [1, 2, 3, 4]
            first, second, _, last = world.hub.records
            assert (first.instance_id, first.status, last.status) == ("one", None, "FAILED")
            assert (second.status, second.execution_id) == ("RUNNING", first.execution_id)
            assert last.execution_id not in (None, first.execution_id)
            assert [started.execution_id for started in world.hub.starts] == [first.execution_id, last.execution_id]
            started = world.hub.starts[0]
            assert (started.name, started.input, started.tags, started.version) == ("load", "5", {"a": "b"}, "3")
            assert (host.counters.started, host.counters.skipped, host.counters.errors) == (2, 2, 0)
            assert world.started == 2

    in_virtual_time(body)


@pytest.mark.parametrize("status", [Status.PENDING, Status.RUNNING, Status.SUSPENDED])
def test_what_has_not_ended_is_never_overrun(status: Status) -> None:
    async def body() -> None:
        world = World()
        async with world.host():
            await world.singleton()
            await world.wait(1.5)
            world.hub.instances["one"].projection.status = status
            await world.wait(1)
            assert world.hub.records[-1].decision == "skipped"
            assert world.hub.records[-1].status == status.name

    in_virtual_time(body)


def test_a_held_singleton_is_told_at_every_tick(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        world = World()
        async with world.host() as host:
            await world.singleton()
            await world.wait(1.5)
            world.hub.run("one")
            world.hub.instances["one"].condition = Condition(kind="held", reason="code no longer fits step 3")
            with caplog.at_level(logging.WARNING, logger="holdtrue.schedules"):
                await world.wait(3)
            assert world.hub.decisions() == ["started", "held", "held", "held"]
            assert {tick.reason for tick in world.hub.records[1:]} == {"code no longer fits step 3"}
            assert host.counters.held == 3
            assert [("'one'" in line, "step 3" in line) for line in caplog.messages] == [(True, True)] * 3
            outcome = await world.schedules.trigger("s")
            assert (outcome.decision, outcome.reason) == ("held", "code no longer fits step 3; triggered")

    in_virtual_time(body)


def test_two_hosts_never_fire_one_tick_twice() -> None:
    async def body() -> None:
        world = World()
        async with world.host() as one, world.host() as two, world.host() as three:
            await world.schedules.create("s", "load", cron="* * * * * *", overlap="allow")
            await world.schedules.create("t", "load", interval=0.5, overlap="allow")
            await world.wait(20.2)
            hosts = (one, two, three)
            assert sum(host.counters.started for host in hosts) == 60
            assert 0 < sum(host.counters.lost for host in hosts) < 20, "hosts let the one before go first"
        assert world.hub.decisions("s") == ["started"] * 20
        assert world.hub.decisions("t") == ["started"] * 40
        assert len({started.instance_id for started in world.hub.starts}) == 60
        assert {f"s:2026-03-02T12:00:{n:02d}Z" for n in range(1, 21)} < {s.instance_id for s in world.hub.starts}

    in_virtual_time(body)


def test_a_host_that_comes_back_does_not_burst() -> None:
    async def body() -> None:
        world = World()
        async with world.host():
            await world.schedules.create("s", "load", interval=10, overlap="allow", missed="skip")
            await world.wait(35)
        await world.wait(100)
        async with world.host():
            await world.wait(10)
        assert world.hub.decisions().count("started") == 5
        assert [tick.due for tick in world.hub.records if tick.decision == "missed"] == [
            START + 10 * n * TICKS_PER_SECOND for n in range(4, 13)
        ]
        assert world.dues() == [10 * n for n in range(1, 15)]

    in_virtual_time(body)


def test_a_queued_run_starts_when_the_running_one_ends() -> None:
    async def body() -> None:
        world = World()
        async with world.host() as host:
            await world.singleton(interval=60, cron=None, overlap="queue")
            await world.wait(61)
            world.hub.run("one")
            await world.wait(120.3)
            assert world.hub.decisions() == ["started", "queued", "skipped"]
            info = await world.schedules.get("s")
            assert info.queued_since is not None
            assert info.queued_since.minute == 2
            world.hub.end("one")
            host.instances_changed(["another"])
            await world.wait(0.01)
            assert len(world.hub.records) == 3
            host.instances_changed(["one"])
            await world.wait(0.01)
            assert world.hub.decisions() == ["started", "queued", "skipped", "started"]
            assert world.hub.records[-1].reason == "queued since 2026-03-02T12:02:00Z"
            assert (await world.schedules.get("s")).queued_since is None
            assert len(world.hub.starts) == 2

    in_virtual_time(body)


def test_a_queued_run_starts_without_a_push_and_after_a_restart() -> None:
    async def body() -> None:
        world = World()
        async with world.host():
            end = datetime(2026, 3, 2, 12, 2, 30)
            await world.schedules.create("s", "load", interval=60, overlap="queue", end_at=end)
            await world.wait(61)
            first = world.hub.starts[0].instance_id
            world.hub.run(first)
            await world.wait(60)
            assert world.hub.decisions() == ["started", "queued"]
            assert (await world.schedules.get("s")).next_due is None
        world.hub.end(first)
        async with world.host():
            await world.wait(QUEUE_POLL + 0.1)
            assert world.hub.decisions() == ["started", "queued", "started"]
            assert world.hub.starts[1].instance_id == "s:2026-03-02T12:02:00Z"

    in_virtual_time(body)


def test_an_absent_instance_lets_the_queued_run_start() -> None:
    async def body() -> None:
        world = World()
        async with world.host():
            await world.singleton(interval=60, cron=None, overlap="queue")
            await world.wait(61)
            world.hub.run("one")
            await world.wait(60)
            del world.hub.instances["one"]
            await world.wait(QUEUE_POLL + 0.1)
            assert world.hub.decisions() == ["started", "queued", "started"]

    in_virtual_time(body)


def test_replace_takes_the_place_or_ends_the_run_before() -> None:
    async def body() -> None:
        world = World()
        async with world.host() as host:
            await world.singleton(overlap="replace")
            await world.wait(1.5)
            world.hub.run("one")
            await world.wait(1)
            assert world.hub.decisions() == ["started", "replaced"]
            assert world.hub.records[1].status == "RUNNING"
            assert host.counters.replaced == 1
            assert world.hub.sent == []
            await world.schedules.delete("s")
            await world.schedules.create("s", "load", interval=1, overlap="replace")
            await world.wait(1.5)
            first = world.hub.starts[2].instance_id
            world.hub.run(first)
            await world.wait(1)
            world.hub.end(world.hub.starts[3].instance_id)
            await world.wait(1)
            assert world.hub.decisions() == ["started", "replaced", "started"]
            assert world.hub.records[1].reason == f"{first} was RUNNING"
            assert host.counters.replaced == 2
            assert [message.instance_id for message in world.hub.sent] == [world.hub.starts[2].instance_id]
            assert isinstance(world.hub.sent[0].event, ExecutionTerminated)
            assert [delivery.message.event for delivery in world.delivered] == [world.hub.sent[0].event]

    in_virtual_time(body)


def test_it_outlives_a_store_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        world = World()
        failing = True

        def fail(_: TickCommit) -> None:
            if failing:
                raise StoreUnavailable("the disk is full: make room")

        world.hub.before = fail
        async with world.host() as host:
            await world.singleton(missed="skip")
            await world.wait(100)
            errors = host.counters.errors
            assert 4 <= errors <= 20, "it backs off"
            assert "disk is full" in caplog.text
            failing = False
            await world.wait(45)
            assert host.counters.errors <= errors + 1
            assert world.hub.decisions()[-1] == "skipped"
            assert len(world.hub.starts) == 1

    in_virtual_time(body)


def test_an_outcome_that_got_lost_is_read_back() -> None:
    async def body() -> None:
        world = World()

        def lose(_: TickCommit) -> None:
            if len(world.hub.records) % 2 == 1:
                raise OutcomeUnknown("the answer was lost")

        world.hub.after = lose
        async with world.host() as host:
            await world.schedules.create("s", "load", cron="* * * * * *", overlap="allow")
            await world.wait(10.5)
            assert host.counters.errors == 5
        assert world.dues() == list(range(1, 11))
        assert len({started.instance_id for started in world.hub.starts}) == len(world.hub.starts) == 10

    in_virtual_time(body)


def test_a_schedule_that_cannot_be_read_holds_up_no_other() -> None:
    async def body() -> None:
        world = World()
        world.hub.schedules["broken"] = StoredSchedule(
            schedule_id="broken", definition="{}", state="{}", due=START, etag=1
        )
        async with world.host() as host:
            await world.singleton()
            await world.wait(5.5)
            assert len(world.hub.decisions()) == 5
            assert host.counters.errors == 1

    in_virtual_time(body)


def test_a_schedule_that_fails_by_itself_holds_up_no_other() -> None:
    async def body() -> None:
        world = World()

        def fail(tick: TickCommit) -> None:
            if tick.schedule_id == "bad":
                raise RuntimeError("a defect")

        world.hub.before = fail
        async with world.host() as host:
            await world.singleton()
            await world.schedules.create("bad", "load", cron="* * * * * *")
            await world.wait(20.5)
            assert world.hub.decisions() == ["started"] + ["skipped"] * 19
            assert 1 <= host.counters.errors <= 3

    in_virtual_time(body)


def test_it_sleeps_while_nothing_is_due() -> None:
    async def body() -> None:
        world = World()
        async with world.host():
            await world.schedules.create("s", "load", cron="0 0 1 1 *")
            await world.wait(1)
            before = world.hub.reads
            await world.wait(3600)
            assert world.hub.reads - before <= 3600 / 30 + 1

    in_virtual_time(body)


def test_a_change_by_another_process_is_found_by_notice_and_without() -> None:
    async def body() -> None:
        world = World()
        silent = Schedules(world.hub, world.environment, repr)  # type: ignore[arg-type]
        async with world.host() as host:
            await world.wait(1)
            await silent.create("s", "load", interval=2, overlap="allow")
            host.noticed(Notice(work=False, schedules=True))
            await world.wait(2.5)
            assert len(world.hub.decisions("s")) == 1
            await silent.create("t", "load", interval=50, overlap="allow")
            await world.wait(55)
            assert world.hub.decisions("t") == ["started"]

    in_virtual_time(body)


def test_a_wall_clock_set_back_fires_nothing_again() -> None:
    async def body() -> None:
        world = World()
        async with world.host():
            await world.schedules.create("s", "load", interval=10, overlap="allow")
            await world.wait(31)
            world.environment.shift = -25
            await world.wait(60)
        assert world.dues() == [10, 20, 30, 40, 50, 60]

    in_virtual_time(body)


def test_a_wall_clock_set_back_does_not_put_off_the_next_look_at_the_hub() -> None:
    async def body() -> None:
        world = World()
        async with world.host():
            await world.wait(1)
            world.environment.shift = -3600
            # Made elsewhere, and no push comes.
            with mock.patch.object(world, "hosts", []):
                await world.schedules.create("s", "load", interval=10, overlap="allow")
            await world.wait(61)
            assert len(world.dues()) >= 3

    in_virtual_time(body)


def test_a_due_time_that_no_longer_fits_is_corrected() -> None:
    async def body() -> None:
        world = World()
        await world.schedules.create("s", "load", interval=3600)
        world.hub.schedules["s"].due = START - 5
        async with world.host():
            await world.wait(10)
            assert world.hub.schedules["s"].due == START + 3600 * TICKS_PER_SECOND
            assert world.hub.records == []
            assert world.hub.reads < 10

    in_virtual_time(body)


def test_records_are_kept_for_their_time() -> None:
    async def body() -> None:
        world = World()
        async with world.host():
            await world.schedules.create("s", "load", interval=60, keep_ticks=timedelta(hours=1))
            await world.schedules.create("t", "load", interval=3600, keep_ticks=timedelta(days=1))
            await world.wait(3 * 3600 + 5)
            assert 60 <= len(world.hub.decisions("s")) <= 71
            assert len(world.hub.decisions("t")) == 3

    in_virtual_time(body)
