"""`client.schedules`: what may be changed, what is kept, and what is told."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdtrue.client.schedules import (
    InvalidSchedule,
    NeverFires,
    ScheduleBusy,
    ScheduleExists,
    ScheduleNotFound,
    Schedules,
    ScheduleSpec,
)
from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.engine.schedule_service import ScheduleService
from holdtrue.stores.protocol import TickCommit
from tests.unit.schedules.virtual import FakeHub, VirtualEnvironment, in_virtual_time


def load(ctx: Any, month: int) -> None:
    """An orchestrator."""


class World:
    def __init__(self) -> None:
        self.hub = FakeHub()
        self.environment = VirtualEnvironment()
        self.changes = 0
        self.schedules = Schedules(self.hub, self.environment, repr, changed=self._changed)  # type: ignore[arg-type]
        self.service = ScheduleService(self.hub, self.environment)  # type: ignore[arg-type]

    def _changed(self) -> None:
        self.changes += 1
        self.service.nudge()


def at(minute: int, second: int = 0) -> datetime:
    return datetime(2026, 3, 2, 12, minute, second, tzinfo=UTC)


def test_create_by_function_and_read() -> None:
    async def body() -> None:
        world = World()
        info = await world.schedules.create("s", load, cron="*/5 * * * *", input=None, grace=5, jitter=0)
        assert (info.spec.orchestrator, info.spec.input, info.spec.grace) == ("load", "None", timedelta(seconds=5))
        assert (info.schedule_id, info.paused, info.next_due, info.last_tick) == ("s", False, at(5), None)
        assert (await world.schedules.create("t", "other", interval=90)).spec.input is None
        assert [info.schedule_id for info in await world.schedules.list()] == ["s", "t"]
        assert await world.schedules.next_runs("s", 2) == [at(5), at(10)]
        assert world.changes == 2

    in_virtual_time(body)


@pytest.mark.parametrize(
    "members",
    [
        {"cron": "* * * * *", "end_at": datetime(2020, 1, 1)},
        {"interval": timedelta(days=999_999_999)},
        {"interval": timedelta(days=1), "end_at": at(5)},
    ],
)
def test_one_that_never_fires_is_not_created_but_may_stay_when_it_is_over(members: dict[str, Any]) -> None:
    async def body() -> None:
        world = World()
        with pytest.raises(NeverFires, match="'s' never fires"):
            await world.schedules.create("s", load, **members)
        assert await world.schedules.list() == []
        assert (await world.schedules.put("s", load, **members)).next_due is None

    in_virtual_time(body)


def test_create_refuses() -> None:
    async def body() -> None:
        schedules = World().schedules
        await schedules.create("s", load, interval=1)
        with pytest.raises(ScheduleExists, match="'s'"):
            await schedules.create("s", load, interval=1)
        with pytest.raises(NeverFires):
            await schedules.create("never", load, cron="0 0 31 2 *")
        with pytest.raises(InvalidSchedule, match="there is no period"):
            await schedules.create("x", load, period=5)
        with pytest.raises(InvalidSchedule, match="orchestrator"):
            await schedules.create("x", cron="* * * * *")
        with pytest.raises(InvalidSchedule, match="not both"):
            await schedules.create(ScheduleSpec(schedule_id="x", orchestrator="o", cron="* * * * *"), overlap="skip")
        with pytest.raises(InvalidSchedule, match="interval"):
            await schedules.create("x", load, interval=float("inf"))
        assert [info.schedule_id for info in await schedules.list()] == ["s"]

    in_virtual_time(body)


def test_nobody_there() -> None:
    async def body() -> None:
        schedules = World().schedules
        for call in (
            schedules.get,
            schedules.pause,
            schedules.resume,
            schedules.trigger,
            schedules.delete,
            schedules.next_runs,
            schedules.ticks,
            schedules.update,
        ):
            with pytest.raises(ScheduleNotFound, match="'nobody'"):
                await call("nobody")

    in_virtual_time(body)


def test_put_keeps_what_goes_on() -> None:
    async def body() -> None:
        world = World()
        spec = ScheduleSpec(schedule_id="s", orchestrator="load", cron="* * * * *")
        await world.schedules.put(spec)
        await world.schedules.pause("s")
        await world.environment.sleep(90)
        before = world.hub.schedules["s"]
        info = await world.schedules.put(spec)
        assert world.hub.schedules["s"] == before, "the same definition changes nothing"
        assert info.paused, "an operator's pause survives a restart of the app"
        info = await world.schedules.put("s", load, cron="* * * * *", input=7)
        assert (info.paused, info.spec.input) == (True, "7")
        assert (await world.schedules.resume("s")).next_due == at(1), "the missed tick is still to be answered"
        assert (await world.schedules.put("s", load, cron="*/5 * * * *")).next_due == at(5)

    in_virtual_time(body)


def test_update_changes_some_members() -> None:
    async def body() -> None:
        world = World()
        await world.schedules.create("s", load, cron="* * * * *", input=1, tags={"a": "b"})
        info = await world.schedules.update("s", overlap="queue", input=2, grace=9)
        assert (info.spec.overlap, info.spec.input, info.spec.tags) == ("queue", "2", {"a": "b"})
        assert info.next_due == at(1)
        info = await world.schedules.update("s", cron=None, interval=30)
        assert info.next_due == at(0, 30)
        with pytest.raises(InvalidSchedule, match="exactly one"):
            await world.schedules.update("s", cron="* * * * *")
        with pytest.raises(InvalidSchedule, match=r"pause\(\)"):
            await world.schedules.update("s", paused=True)
        assert (await world.schedules.get("s")).spec == info.spec

    in_virtual_time(body)


def test_pause_and_resume() -> None:
    async def body() -> None:
        world = World()
        await world.schedules.create("s", load, cron="* * * * *", overlap="allow", paused=True)
        task = asyncio.ensure_future(world.service.run())
        await world.environment.sleep(150)
        assert world.hub.records == []
        assert await world.schedules.next_runs("s") == []
        await world.schedules.resume("s")
        await world.environment.sleep(1)
        assert world.hub.decisions() == ["missed", "started"], "one run stands for the missed ones"
        info = await world.schedules.pause("s")
        assert (info.paused, info.next_due) == (True, None)
        await world.environment.sleep(300)
        info = await world.schedules.resume("s", catch_up=False)
        assert info.next_due == at(8)
        await world.environment.sleep(60)
        task.cancel()
        ticks = await world.schedules.ticks("s")
        assert [(tick.decision, tick.due) for tick in ticks] == [
            ("missed", at(1)),
            ("started", at(2)),
            ("started", at(8)),
        ]
        last = (await world.schedules.get("s")).last_tick
        assert last == ticks[-1]
        assert last is not None
        assert last.started
        assert last.instance_id == "s:2026-03-02T12:08:00Z"

    in_virtual_time(body)


def test_trigger_honours_the_overlap_policy() -> None:
    async def body() -> None:
        world = World()
        await world.schedules.create("s", load, cron="0 0 * * *", instance_id="one", paused=True)
        outcome = await world.schedules.trigger("s")
        assert (outcome.decision, outcome.instance_id, outcome.status) == ("started", "one", None)
        world.hub.run("one")
        outcome = await world.schedules.trigger("s")
        assert (outcome.decision, outcome.status, outcome.started) == ("skipped", "RUNNING", False)
        await world.schedules.update("s", overlap="queue")
        assert (await world.schedules.trigger("s")).decision == "queued"
        assert (await world.schedules.trigger("s")).decision == "skipped"
        await world.schedules.update("s", overlap="replace")
        assert (await world.schedules.trigger("s")).decision == "replaced"
        info = await world.schedules.get("s")
        assert info.paused
        assert info.last_tick is not None
        assert info.last_tick.decision == "replaced"
        assert len({tick.due for tick in world.hub.records}) == 5

    in_virtual_time(body)


def test_a_change_wins_against_ticks_in_between() -> None:
    async def body() -> None:
        world = World()
        await world.schedules.create("s", load, interval=60, overlap="allow")
        lost = 2

        def interfere(_: TickCommit) -> None:
            nonlocal lost
            if lost:
                lost -= 1
                world.hub.schedules["s"].etag += 1

        world.hub.before = interfere
        assert (await world.schedules.trigger("s")).started
        assert len(world.hub.starts) == 1

        def always(_: TickCommit) -> None:
            world.hub.schedules["s"].etag += 1

        world.hub.before = always
        with pytest.raises(ScheduleBusy, match="'s'"):
            await world.schedules.trigger("s")
        assert len(world.hub.starts) == 1

    in_virtual_time(body)


def test_records_page_by_page() -> None:
    async def body() -> None:
        world = World()
        await world.schedules.create("s", load, interval=1, overlap="allow")
        task = asyncio.ensure_future(world.service.run())
        await world.environment.sleep(25.5)
        task.cancel()
        first = await world.schedules.ticks("s", limit=10)
        second = await world.schedules.ticks("s", limit=100, after=first[-1].due)
        assert [tick.due.second for tick in first + second] == list(range(1, 26))
        assert [tick.due.second async for tick in world.schedules.all_ticks("s")] == list(range(1, 26))
        assert all(tick.decided_at - tick.due < timedelta(seconds=0.1) for tick in first)

    in_virtual_time(body)


def test_delete_lets_runs_go_on() -> None:
    async def body() -> None:
        world = World()
        await world.schedules.create("s", load, interval=1)
        task = asyncio.ensure_future(world.service.run())
        await world.environment.sleep(1.5)
        await world.schedules.delete("s")
        await world.environment.sleep(5)
        task.cancel()
        assert len(world.hub.starts) == 1
        assert len(world.hub.instances) == 1
        assert world.hub.records == []
        assert world.service.counters.errors == 0
        assert world.environment.now() % TICKS_PER_SECOND

    in_virtual_time(body)


class Local:
    """A host in this process."""

    def __init__(self) -> None:
        self.got: list[str] = []

    def wants(self, name: str) -> bool:
        self.got.append(f"wants {name}")
        return True

    def adopt(self, locked: object) -> None:
        self.got.append("adopt")

    def deliver(self, delivery: object) -> None:
        self.got.append("deliver")

    def nudge(self, due: int | None = None) -> None:
        self.got.append("nudge")


def test_a_trigger_is_handed_to_the_host_in_this_process() -> None:
    async def body() -> None:
        world, local = World(), Local()
        schedules = Schedules(world.hub, world.environment, repr, local=local)  # type: ignore[arg-type]
        await schedules.create("s", load, cron="0 0 1 1 *", overlap="replace")
        assert (await schedules.trigger("s")).decision == "started"
        assert local.got == ["wants load", "nudge"]
        outcome = await schedules.trigger("s")
        assert (outcome.decision, outcome.reason) == (
            "replaced",
            f"triggered; {world.hub.starts[0].instance_id} was PENDING",
        )
        assert local.got[2:] == ["deliver", "wants load", "nudge"]
        await schedules.update("s", overlap="skip")
        assert (await schedules.trigger("s")).decision == "skipped"
        assert local.got[5:] == ["wants load"]

    in_virtual_time(body)
