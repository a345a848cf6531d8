"""Slots by kind, limits by name, and what the dispatcher is told to bring."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.authoring.app import App
from holdtrue.core.events import TaskFailed
from holdtrue.engine.activities import ActivityPool, PoolSettings
from holdtrue.engine.activity_lanes import Activity, Lane, fill
from holdtrue.environment import REAL

from .bench import Bench, settle, with_bench


def make_app() -> tuple[App, Callable[[], None]]:
    app = App()
    gates: list[asyncio.Event] = []

    @app.activity(limit=2)
    async def limited(ctx: Any) -> None:
        gates.append(asyncio.Event())
        await gates[-1].wait()

    @app.activity
    async def free(ctx: Any) -> None:
        await asyncio.sleep(0)

    @app.activity(tag="gpu")
    async def tagged(ctx: Any) -> None: ...

    @app.activity
    def blocking(ctx: Any) -> None: ...

    def open_all() -> None:
        for gate in gates:
            gate.set()

    return app, open_all


def test_a_slow_dependency_does_not_fill_the_pool() -> None:
    app, open_all = make_app()

    async def test(bench: Bench) -> None:
        pool = bench.pool
        pool.submit([bench.item("limited") for _ in range(10)] + [bench.item("free") for _ in range(10)])
        await bench.until(lambda: len(bench.told) == 10)
        assert sorted(number for number, _ in bench.told) == list(range(11, 21))
        assert (pool.running, pool.backlog(), pool.pending) == (2, 8, 8)
        assert pool.free_slots_of("limited") == 0
        assert pool.free_slots_of("nowhere") == 0
        assert "limited" not in pool.wanted_queues() and "free" in pool.wanted_queues()
        while len(bench.told) < 20:
            open_all()
            await settle()
            assert pool.running <= 2
        assert "limited" in pool.wanted_queues()

    with_bench(app, test, async_slots=16)


def test_free_slots_counts_what_could_start() -> None:
    app, open_all = make_app()

    async def test(bench: Bench) -> None:
        pool = bench.pool
        assert pool.free_slots() == 4 + 3
        assert pool.free_slots_of("limited") == 2
        pool.submit([bench.item("limited")])
        assert pool.free_slots() == 3 + 3
        assert pool.free_slots_of("limited") == 1
        await settle()
        open_all()
        await bench.idle()
        assert pool.free_slots() == 4 + 3

    with_bench(app, test, async_slots=4, threads=3)


def test_free_slots_where_every_name_is_limited() -> None:
    app = App()

    @app.activity(limit=2)
    async def one(ctx: Any) -> None: ...

    @app.activity(limit=3)
    async def two(ctx: Any) -> None: ...

    async def test(bench: Bench) -> None:
        assert bench.pool.free_slots() == 5
        assert sorted(bench.pool.rooms()) == [(4, ["one"]), (6, ["two"])]

    with_bench(app, test, async_slots=100)


def test_queues_follow_the_tags() -> None:
    app, _ = make_app()

    def queues(tags: frozenset[str]) -> list[str]:
        async def report(*given: Any) -> bool:
            return True

        pool = ActivityPool(
            app, REAL, settings=PoolSettings(tags=tags), finished=lambda item, event: None, report=report
        )
        return pool.wanted_queues()

    assert "tagged\x1fgpu" not in queues(frozenset()) and "tagged" not in queues(frozenset())
    assert "tagged\x1fgpu" in queues(frozenset({"gpu"}))


def test_rooms_group_what_shares_its_room() -> None:
    app, _ = make_app()

    async def test(bench: Bench) -> None:
        rooms = bench.pool.rooms()
        assert (4, ["limited"]) in rooms
        assert (3 + 2, ["blocking"]) in rooms
        assert (10 + 5, ["free"]) in rooms

    with_bench(app, test, async_slots=10, async_ahead=5, threads=3, threads_ahead=2)


def test_settings_that_cannot_work_are_refused() -> None:
    app, _ = make_app()

    async def report(*given: Any) -> bool:
        return True

    with pytest.raises(ValueError, match="slots of async"):
        ActivityPool(app, REAL, settings=PoolSettings(async_slots=0), finished=lambda item, event: None, report=report)


class Definition:
    def __init__(self, name: str, limit: int | None) -> None:
        self.name, self.limit = name, limit
        self.function = self.input_type = self.options = None
        self.takes_input = self.has_default = False


@settings(max_examples=150, deadline=None)
@given(
    slots=st.integers(1, 4),
    limits=st.lists(st.one_of(st.none(), st.integers(1, 3)), min_size=1, max_size=4),
    steps=st.lists(st.tuples(st.sampled_from(["submit", "end", "forget"]), st.integers(0, 9)), max_size=80),
)
def test_lanes_keep_their_limits_and_never_idle(slots: int, limits: list[int | None], steps: list[Any]) -> None:
    lane = Lane("async", slots, 0)
    names = [Activity(Definition(f"a{i}", limit), lane) for i, limit in enumerate(limits)]
    running: list[tuple[Activity, int]] = []
    waiting: list[tuple[Activity, int]] = []
    dead: set[int] = set()
    serial = 0

    def start(item: tuple[Activity, int]) -> None:
        waiting.remove(item)
        running.append(item)

    for step, pick in steps:
        if step == "submit":
            serial += 1
            activity = names[pick % len(names)]
            item = (activity, serial)
            if lane.running < lane.slots and activity.running < activity.limit:
                activity.take()
                running.append(item)
            else:
                activity.wait(item)
                waiting.append(item)
        elif step == "end" and running:
            activity, _ = running.pop(pick % len(running))
            activity.give()
            fill(lane, start, lambda item: item[1] in dead)
        elif step == "forget" and waiting:
            activity, number = waiting.pop(pick % len(waiting))
            dead.add(number)
            activity.forget()
        assert lane.running == len(running) <= lane.slots
        assert lane.waiting == len(waiting) == sum(a.waiting_count for a in names)
        for activity in names:
            assert activity.running == sum(1 for a, _ in running if a is activity) <= activity.limit
            first = [n for a, n in waiting if a is activity]
            assert first == sorted(first)
            # Nothing waits that could run.
            assert not (first and lane.running < slots and activity.running < activity.limit)


def test_a_slot_that_comes_free_after_its_run_was_told_of_is_told_too() -> None:
    """Else work that waits in the hub for it would be asked for only at the next look."""
    app = App()
    go = threading.Event()

    @app.activity(start_to_close=0.05)
    def deaf(ctx: Any) -> None:
        go.wait(30)

    @app.activity
    async def waits(ctx: Any) -> None:
        await asyncio.sleep(60)

    @app.activity
    async def quick(ctx: Any) -> None: ...

    async def test(bench: Bench) -> None:
        await bench.run("quick")
        assert type(await bench.run("deaf")) is TaskFailed and bench.freed == 0
        go.set()
        await bench.until(lambda: bench.freed == 1)
        item = bench.submit("waits")
        await settle()
        bench.pool.cancel([item.ref])
        await bench.until(lambda: bench.freed == 2)

    with_bench(app, test)
