"""Work in hand of a worker that is busy, stops, or shares its hub with others."""

import asyncio
import threading
from pathlib import Path

import holdtrue
from holdtrue import Status
from tests.e2e.hubs import TIMEOUT, outcome, run, until

from .hosting import host, hosted


def test_a_worker_whose_threads_are_all_taken_starts_and_runs_what_needs_none(tmp_path: Path) -> None:
    """Orchestrations were Pending for minutes behind a busy worker (azure-functions-durable-extension#2090, #2306)."""
    app = holdtrue.App()
    release = threading.Event()
    begun: list[int] = []

    @app.activity
    def blocks(ctx: holdtrue.ActivityContext, n: int) -> int:
        begun.append(n)
        assert release.wait(60)
        return n

    @app.activity
    async def quick(ctx: holdtrue.ActivityContext, n: int) -> int:
        return n

    @app.orchestrator
    async def slow(ctx: holdtrue.OrchestrationContext, n: int) -> int:
        return await ctx.call_activity(blocks, input=n)

    @app.orchestrator
    async def fast(ctx: holdtrue.OrchestrationContext, n: int) -> int:
        return await ctx.call_activity(quick, input=n)

    async def main(client: holdtrue.Client) -> None:
        waiting = [await client.start(slow, input=n) for n in range(40)]
        await until(lambda: len(begun) == 2, "both threads are taken")
        for n in range(20):
            assert await outcome(client, await client.start(fast, input=n)) == n
        for i in waiting:
            assert (await client.wait_for_start(i, timeout=TIMEOUT)).runtime_status is Status.RUNNING
        assert len(begun) == 2
        release.set()
        assert [await outcome(client, i) for i in waiting] == list(range(40))

    try:
        hosted(tmp_path, app, main, activity_threads=2)
    finally:
        release.set()


def test_what_a_stopping_worker_had_in_hand_is_done_by_the_next(tmp_path: Path) -> None:
    """Work in hand of a worker that stopped was lost, the item included that was just being handed to it (class 5)."""
    app = holdtrue.App()
    patient = True
    begun: list[int] = []

    @app.activity
    async def item(ctx: holdtrue.ActivityContext, n: int) -> int:
        begun.append(n)
        if patient:
            await asyncio.sleep(600)
        return n

    @app.orchestrator
    async def job(ctx: holdtrue.OrchestrationContext, n: int) -> int:
        return await ctx.call_activity(item, input=n)

    async def main() -> None:
        nonlocal patient
        async with host(app, tmp_path, activity_slots=5, drain_seconds=0) as running:
            ids = [await running.client.start(job, input=n) for n in range(20)]
            await until(lambda: len(begun) == 5, "five run")
            stopping = asyncio.ensure_future(running.stop())
            async with holdtrue.Client(tmp_path / "hub.db") as outside:
                ids += [await outside.start("job", input=n) for n in range(20, 25)]
            await stopping
        patient = False
        async with host(app, tmp_path) as running:
            assert [await outcome(running.client, i) for i in ids] == list(range(25))
            info = await running.client.info()
            assert (info.messages, info.activities, info.dead_letters) == (0, 0, 0)

    run(main())


def test_one_fan_out_over_two_hosts_has_each_result_once(tmp_path: Path) -> None:
    """Activity results were missing in one large fan-out, and one task had two (durabletask-mssql#184)."""
    ran: list[str] = []

    def app_of(name: str) -> holdtrue.App:
        app = holdtrue.App()

        @app.activity
        async def item(ctx: holdtrue.ActivityContext, n: int) -> int:
            ran.append(name)
            await asyncio.sleep(0)
            return n

        @app.orchestrator
        async def fan(ctx: holdtrue.OrchestrationContext, n: int) -> list[int]:
            first = await holdtrue.when_all([ctx.call_activity(item, input=k) for k in range(n)])
            return first + await holdtrue.when_all([ctx.call_activity(item, input=k) for k in range(n)])

        return app

    async def main() -> None:
        one, two = (host(app_of(name), tmp_path, activity_slots=5, activity_backlog=5) for name in ("one", "two"))
        async with one, two:
            i = await one.client.start("fan", input=1_000)
            assert await outcome(one.client, i) == [*range(1_000), *range(1_000)]
            answered = [e.task_scheduled_id async for e in one.client.history(i) if type(e).__name__ == "TaskCompleted"]
            assert sorted(answered) == list(range(2_000))
        assert {"one", "two"} == set(ran) and len(ran) == 2_000

    run(main())
