"""Time-outs are told when they strike, say which they are, and the slot comes back when the code has ended."""

import asyncio
import threading
from typing import Any

from holdtrue.authoring.app import App
from holdtrue.core.actions import ActivityOptions
from holdtrue.core.events import TICKS_PER_SECOND, TaskCompleted
from holdtrue.core.messages import WorkRef

from .bench import Bench, ManualEnvironment, failure, result, settle, with_bench

TYPE = "holdtrue.ActivityTimeoutError"


def manual(bench: Bench) -> ManualEnvironment:
    assert isinstance(bench.environment, ManualEnvironment)
    return bench.environment


def test_start_to_close_of_an_async_activity() -> None:
    app = App()
    ends: list[str] = []

    @app.activity(start_to_close=5)
    async def hangs(ctx: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled" if ctx.is_cancelled else "unasked")

    async def test(bench: Bench) -> None:
        bench.submit("hangs")
        await settle()
        await manual(bench).advance(4.9)
        assert bench.told == []
        await manual(bench).advance(0.2)
        failed = failure(dict(bench.told)[1])
        assert failed.error_type == TYPE and "start_to_close time-out of 5 s" in failed.message
        assert failed.properties == {"timeout": "start_to_close", "seconds": 5.0}
        assert ends == ["cancelled"] and bench.pool.running == 0
        assert bench.pool.counters.timed_out == 1

    with_bench(app, test, environment=ManualEnvironment())


def test_the_call_goes_before_the_declaration_and_each_time_out_by_itself() -> None:
    app = App()

    @app.activity(start_to_close=5, heartbeat=2)
    async def hangs(ctx: Any) -> None:
        await asyncio.Event().wait()

    async def test(bench: Bench) -> None:
        bench.submit("hangs", options=ActivityOptions(start_to_close=1))
        bench.submit("hangs", options=ActivityOptions(attempt=2))
        bench.submit("hangs", options=ActivityOptions(heartbeat=9))
        await settle()
        await manual(bench).advance(6)
        assert [failure(event).properties for _, event in bench.told] == [
            {"timeout": "start_to_close", "seconds": 1.0},
            {"timeout": "heartbeat", "seconds": 2.0},
            {"timeout": "start_to_close", "seconds": 5.0},
        ]

    with_bench(app, test, environment=ManualEnvironment())


def test_a_heartbeat_resets_its_time_out_at_once() -> None:
    app = App()
    go = asyncio.Event()

    @app.activity(heartbeat=3)
    async def beats(ctx: Any) -> None:
        while True:
            await go.wait()
            go.clear()
            ctx.heartbeat()

    async def test(bench: Bench) -> None:
        bench.submit("beats")
        await settle()
        for _ in range(5):
            await manual(bench).advance(2.5)
            go.set()
            await settle()
        assert bench.told == []
        await manual(bench).advance(2.9)
        assert bench.told == []
        await manual(bench).advance(0.2)
        failed = failure(dict(bench.told)[1])
        assert failed.error_type == TYPE and "heartbeat time-out of 3 s" in failed.message

    with_bench(app, test, environment=ManualEnvironment())


def test_a_thread_keeps_its_slot_until_it_ends() -> None:
    app = App()
    gate, began = threading.Event(), threading.Event()
    asked: list[bool] = []

    @app.activity(start_to_close=2)
    def stuck(ctx: Any) -> str:
        began.set()
        gate.wait(60)
        asked.append(ctx.is_cancelled)
        return "too late"

    @app.activity
    def next_one(ctx: Any) -> str:
        return "after"

    async def test(bench: Bench) -> None:
        bench.submit("stuck")
        bench.submit("next_one")
        await bench.until(began.is_set)
        await manual(bench).advance(2.5)
        assert failure(dict(bench.told)[1]).error_type == TYPE
        assert bench.pool.running == 1 and bench.pool.backlog() == 1
        assert bench.pool.refs() != []
        gate.set()
        await bench.idle()
        assert result(dict(bench.told)[2]) == '"after"'
        assert asked == [True] and len(bench.told) == 2

    with_bench(app, test, environment=ManualEnvironment(), threads=1)


def test_schedule_to_start_strikes_while_it_waits_for_a_slot() -> None:
    app = App()
    gate = asyncio.Event()
    runs: list[int] = []

    @app.activity(schedule_to_start=10)
    async def late(ctx: Any) -> None:
        runs.append(ctx.task_id)
        await gate.wait()

    async def test(bench: Bench) -> None:
        environment = manual(bench)
        began = environment.now()
        bench.submit("late", scheduled_at=began - 9 * TICKS_PER_SECOND)
        bench.submit("late", scheduled_at=began - 11 * TICKS_PER_SECOND)
        for _ in range(2_000):
            bench.submit("late", scheduled_at=began - 9 * TICKS_PER_SECOND)
        await settle()
        assert bench.told == [] and runs == [1]
        await environment.advance(0)
        assert [number for number, _ in bench.told] == [2] and bench.pool.backlog() == 2_000
        await environment.advance(5)
        # The first one still has the slot: none of the others waited for it any longer than it may.
        assert len(bench.told) == 2_001 and runs == [1] and bench.pool.backlog() == 0
        gate.set()
        await bench.idle()
        assert runs == [1] and result(dict(bench.told)[1]) == "null"
        for number in range(2, 2_003):
            failed = failure(dict(bench.told)[number])
            assert failed.error_type == TYPE and failed.properties is not None
            assert failed.properties["timeout"] == "schedule_to_start"
        bench.submit("late")  # a store that does not say when: no judgement
        await bench.idle()
        assert runs[-1] == 2_003

    with_bench(app, test, environment=ManualEnvironment(), async_slots=1)


def test_one_that_swallows_its_cancellation_is_cancelled_again() -> None:
    app = App()
    times = 0

    @app.activity(start_to_close=1)
    async def stubborn(ctx: Any) -> None:
        nonlocal times
        while times < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                times += 1

    async def test(bench: Bench) -> None:
        bench.submit("stubborn")
        await settle()
        await manual(bench).advance(1.05)
        assert len(bench.told) == 1 and bench.pool.running == 1
        await manual(bench).advance(1)
        assert times == 3 and bench.pool.running == 0

    with_bench(app, test, environment=ManualEnvironment(), cancel_grace=0.2)


def test_a_quick_one_leaves_no_timers() -> None:
    app = App()

    @app.activity(start_to_close=50, heartbeat=20)
    async def waits(ctx: Any) -> None:
        await asyncio.sleep(0)

    @app.activity(start_to_close=50, heartbeat=20)
    def blocks(ctx: Any) -> None: ...

    async def test(bench: Bench) -> None:
        for _ in range(3):
            bench.submit("waits")
            bench.submit("blocks")
        await bench.idle()
        await manual(bench).advance(1)
        assert [timer for timer in manual(bench).timers if not timer.off] == []

    with_bench(app, test, environment=ManualEnvironment())


def test_schedule_to_start_does_not_strike_once_it_has_begun_or_is_unwanted() -> None:
    app = App()
    gate = asyncio.Event()

    @app.activity(schedule_to_start=10)
    async def late(ctx: Any) -> None:
        await gate.wait()

    async def test(bench: Bench) -> None:
        environment = manual(bench)
        for _ in range(3):
            bench.submit("late", scheduled_at=environment.now())
        bench.pool.cancel([bench.item("late").ref, WorkRef(2, 7)])
        await settle()
        assert bench.told == [(2, None)]
        gate.set()
        await bench.until(lambda: len(bench.told) == 3)
        gate.clear()
        bench.submit("late", scheduled_at=environment.now())
        bench.submit("late", scheduled_at=environment.now())
        await settle()
        await environment.advance(9)
        gate.set()
        await settle()
        await environment.advance(9)
        assert [type(event) for _, event in bench.told[1:]] == [TaskCompleted] * 4
        assert bench.pool.counters.timed_out == 0

    with_bench(app, test, environment=ManualEnvironment(), async_slots=1)
