"""Cancelling what nobody wants, and stopping a worker so that nothing is lost."""

import asyncio
import threading
from typing import Any

from holdtrue.authoring.app import App
from holdtrue.core.messages import WorkRef
from holdtrue.environment import REAL
from holdtrue.stores.errors import StoreUnavailable

from .bench import Bench, ManualEnvironment, failure, result, settle, with_bench


class Stages:
    """An app whose activities say how far they got."""

    def __init__(self) -> None:
        self.app = app = App()
        self.log: list[str] = []
        self.gate = threading.Event()

        @app.activity
        async def cooperative(ctx: Any) -> str:
            self.log.append("began")
            await ctx.wait_cancelled()
            self.log.append("asked")
            ctx.raise_if_cancelled()
            return "never"

        @app.activity
        async def deaf(ctx: Any) -> None:
            self.log.append("began")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.log.append("cancelled")
                raise

        @app.activity
        async def finishes(ctx: Any) -> str:
            await ctx.wait_cancelled()
            return "done all the same"

        @app.activity
        async def fails(ctx: Any) -> str:
            await ctx.wait_cancelled()
            raise ValueError("since it was asked to end")

        @app.activity
        def blocking(ctx: Any) -> str:
            self.log.append("began")
            while not ctx.is_cancelled:
                self.gate.wait(0.005)
            self.log.append("asked")
            ctx.raise_if_cancelled()
            return "never"

        @app.activity
        def stuck(ctx: Any) -> str:
            ctx.heartbeat({"at": 7})
            self.log.append("began")
            self.gate.wait(60)
            return "late"

        @app.activity
        async def quick(ctx: Any) -> str:
            return "quick"


def test_cancel_tells_at_once_asks_then_stops() -> None:
    stages = Stages()

    async def test(bench: Bench) -> None:
        assert isinstance(bench.environment, ManualEnvironment)
        items = [bench.submit(name) for name in ("cooperative", "deaf", "quick")]
        await settle()
        bench.pool.cancel([item.ref for item in items] + [WorkRef(99, 1), WorkRef(1, 8)])
        assert bench.told[-2:] == [(1, None), (2, None)]
        await settle()
        assert stages.log == ["began", "began", "asked"] and bench.pool.running == 1
        await bench.environment.advance(5.1)
        assert stages.log[-1] == "cancelled" and bench.pool.running == 0
        assert len(bench.told) == 3 and bench.pool.counters.cancelled == 2

    with_bench(stages.app, test, environment=ManualEnvironment(), cancel_grace=5.0)


def test_cancel_of_those_that_have_not_begun() -> None:
    stages = Stages()

    async def test(bench: Bench) -> None:
        first = bench.submit("deaf")
        waiting = bench.submit("deaf")
        bench.pool.cancel([waiting.ref])
        assert bench.told == [(2, None)] and bench.pool.backlog() == 0
        bench.pool.cancel([first.ref])  # its slot is taken, its code has not begun
        await bench.idle()
        assert stages.log == []
        assert result(await bench.run("quick")) == '"quick"'

    with_bench(stages.app, test, async_slots=1)


def test_cancel_of_a_task_that_has_not_begun() -> None:
    stages = Stages()

    async def test(bench: Bench) -> None:
        bench.pool.cancel([bench.submit("cooperative").ref])
        await bench.idle()
        first = bench.submit("cooperative")
        await settle()
        bench.pool.cancel([first.ref])
        await bench.idle()
        assert stages.log == ["began", "asked"]
        again = bench.submit("cooperative")  # such ones get a task each by now
        bench.pool.cancel([again.ref])
        await bench.idle()
        assert stages.log == ["began", "asked"]

    with_bench(stages.app, test)


def test_cancel_by_what_scheduled_it() -> None:
    stages = Stages()

    async def test(bench: Bench) -> None:
        # One instance, two executions of it: an ordinal says nothing without its execution.
        bench.submit("cooperative", execution="x1")
        bench.submit("cooperative", execution="x2")
        await settle()
        bench.pool.cancel_scheduled("x2", [1, 2])
        assert bench.told == [(2, None)]
        await settle()
        assert bench.pool.refs() == [WorkRef(1, 7)]
        bench.pool.cancel(bench.pool.refs())
        await bench.idle()

    with_bench(stages.app, test)


def test_cancel_of_a_thread() -> None:
    stages = Stages()

    async def test(bench: Bench) -> None:
        item = bench.submit("blocking")
        await bench.until(lambda: stages.log == ["began"])
        bench.pool.cancel([item.ref])
        assert bench.told == [(1, None)]
        await bench.idle()
        assert stages.log == ["began", "asked"] and len(bench.told) == 1

    with_bench(stages.app, test)


def test_a_report_that_nobody_wants_cancels() -> None:
    app = App()
    told: list[bool] = []

    @app.activity
    async def reports(ctx: Any) -> None:
        ctx.progress(1)
        await ctx.wait_cancelled()
        told.append(ctx.is_cancelled)

    async def test(bench: Bench) -> None:
        bench.wanted = False
        bench.submit("reports")
        await bench.idle()
        assert bench.told == [(1, None)] and told == [True]

    with_bench(app, test)


def test_cancelled_without_being_asked_is_a_failure() -> None:
    app = App()

    @app.activity
    async def gives_up(ctx: Any) -> None:
        from holdtrue.authoring.activity_context import ActivityCancelledError

        raise ActivityCancelledError("by itself")

    async def test(bench: Bench) -> None:
        assert failure(await bench.run("gives_up")).error_type == "holdtrue.ActivityCancelledError"

    with_bench(app, test)


# -- drain -------------------------------------------------------------------------------------------------


def test_drain_lets_end_what_ends_and_gives_back_the_rest() -> None:
    stages = Stages()

    async def test(bench: Bench) -> None:
        for name in ("deaf", "finishes", "fails", "cooperative", "deaf", "deaf", "quick"):
            bench.submit(name)
        await settle()
        assert bench.pool.backlog() == 3
        back = await bench.pool.drain(0.01)
        # 1 was cancelled, 3 and 4 failed since they were asked to end, 5 to 7 had not begun.
        assert sorted(ref.key for ref in back) == [1, 3, 4, 5, 6, 7]
        assert [(number, result(event)) for number, event in bench.told] == [(2, '"done all the same"')]
        assert bench.pool.running == 0 and bench.pool.free_slots() == 0
        assert bench.pool.wanted_queues() == [] and bench.pool.rooms() == []
        bench.submit("quick")
        assert [ref.key for ref in await bench.pool.drain(0)] == [8]

    with_bench(stages.app, test, async_slots=4)


def test_drain_waits_for_what_ends_in_time() -> None:
    app = App()
    gate = asyncio.Event()

    @app.activity
    async def ends(ctx: Any) -> str:
        await gate.wait()
        assert not ctx.is_cancelled
        return "ended"

    async def test(bench: Bench) -> None:
        bench.submit("ends")
        await settle()
        draining = asyncio.ensure_future(bench.pool.drain(30))
        await settle()
        assert not draining.done()
        gate.set()
        assert await draining == []
        assert result(dict(bench.told)[1]) == '"ended"'

    with_bench(app, test)


def test_drain_leaves_a_stuck_thread_alone_and_drops_its_result() -> None:
    stages = Stages()

    async def test(bench: Bench) -> None:
        bench.submit("stuck")
        await bench.until(lambda: stages.log == ["began"])
        back = await bench.pool.drain(0)
        assert [ref.key for ref in back] == [1] and bench.told == []
        # What it said last is stored, so that the next run can go on from there.
        assert bench.reports[-1] == (1, None, '{"at":7}')
        stages.gate.set()
        await bench.until(lambda: bench.pool.running == 0)
        assert bench.told == []

    with_bench(stages.app, test, cancel_grace=0.05)


def test_drain_before_anything_began() -> None:
    async def test(bench: Bench) -> None:
        assert await bench.pool.drain(1) == []

    with_bench(Stages().app, test)


# -- signs of life -------------------------------------------------------------------------------------------


def test_reports_at_most_once_a_second_and_the_last_wins() -> None:
    app = App()
    steps: asyncio.Queue[int | None] = asyncio.Queue()

    @app.activity
    async def works(ctx: Any) -> None:
        while (step := await steps.get()) is not None:
            ctx.progress({"step": step})
            ctx.heartbeat([step])
            ctx.heartbeat()

    async def test(bench: Bench) -> None:
        assert isinstance(bench.environment, ManualEnvironment)
        bench.submit("works", details="[0]")
        await settle()
        for step in range(1, 6):
            steps.put_nowait(step)
            await settle()
        assert bench.reports == [(1, '{"step":1}', "[1]")]
        await bench.environment.advance(0.9)
        assert len(bench.reports) == 1
        await bench.environment.advance(0.2)
        assert bench.reports[1:] == [(1, '{"step":5}', "[5]")]
        await bench.environment.advance(10)
        assert len(bench.reports) == 2, "nothing new: nothing to report"
        bench.wanted = StoreUnavailable("the disk is full")
        steps.put_nowait(6)
        await settle()
        assert len(bench.reports) == 3
        bench.wanted = True
        await bench.environment.advance(1.1)
        assert bench.reports[3:] == [(1, '{"step":6}', "[6]")], "a report that failed is made again"
        steps.put_nowait(None)
        await bench.idle()

    with_bench(app, test, environment=ManualEnvironment())


def test_reports_from_a_thread() -> None:
    app = App()
    reported = threading.Event()

    @app.activity
    def works(ctx: Any) -> None:
        for step in range(10_000):
            ctx.progress(step)
        reported.wait(30)

    async def test(bench: Bench) -> None:
        bench.submit("works")
        await bench.until(lambda: bool(bench.reports))
        # The first word is at once, the last comes a second later at most.
        await bench.until(lambda: bench.reports[-1][1] == "9999")
        assert len(bench.reports) <= 3
        reported.set()
        await bench.idle()

    with_bench(app, test, environment=REAL)


def test_what_cannot_be_written_fails_at_the_call() -> None:
    app = App()

    @app.activity
    async def works(ctx: Any) -> str:
        try:
            ctx.progress(object())
        except ValueError as error:
            return type(error).__name__
        return "nothing"

    async def test(bench: Bench) -> None:
        assert result(await bench.run("works")) == '"PayloadError"'
        assert bench.reports == []

    with_bench(app, test)


def test_the_context_tells_who_asks() -> None:
    app = App()
    seen: dict[str, Any] = {}

    @app.activity
    async def looks(ctx: Any) -> None:
        for name in (
            "orchestration_id", "instance_id", "execution_id", "task_id", "name", "attempt", "run", "idempotency_key",
            "details", "is_cancelled", "client",
        ):  # fmt: skip
            seen[name] = getattr(ctx, name)
        seen["typed"] = ctx.details_as(list[float])
        seen["logger"] = ctx.logger.extra
        ctx.raise_if_cancelled()

    @app.activity
    def blocks(ctx: Any) -> str:
        return str(ctx.client)

    async def test(bench: Bench) -> None:
        result(await bench.run("looks", details="[1, 2]"))
        logger = seen.pop("logger")
        assert logger["instance_id"] == "order-1" and logger["activity"] == "looks"
        assert seen == {
            "orchestration_id": "order-1", "instance_id": "order-1", "execution_id": "x1", "task_id": 1,
            "name": "looks", "attempt": 1, "run": 1, "idempotency_key": "x1:1", "details": [1, 2], "typed": [1.0, 2.0],
            "is_cancelled": False, "client": "an async client",
        }  # fmt: skip
        assert result(await bench.run("blocks")) == '"an sync client"'

    with_bench(app, test, client=lambda kind: f"an {kind} client")


def test_without_a_client_the_context_says_so() -> None:
    app = App()

    @app.activity
    async def asks(ctx: Any) -> None:
        ctx.client  # noqa: B018

    async def test(bench: Bench) -> None:
        assert "lends its activities no client" in failure(await bench.run("asks")).message

    with_bench(app, test)
