"""Whatever an author's code does, its instance has an outcome and the host goes on."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

import holdtrue
from holdtrue import Status
from tests.e2e.hubs import outcome

from .hosting import ended, hosted

WAYS_OUT = [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, BaseException, RecursionError]


@pytest.mark.parametrize("error", WAYS_OUT, ids=lambda error: error.__name__)
def test_every_way_out_is_an_outcome_and_the_host_lives_on(tmp_path: Path, error: type[BaseException]) -> None:
    """SystemExit and its like left a work item open, or took the worker down (class 4)."""
    app = holdtrue.App()

    @app.activity
    async def on_the_loop(ctx: holdtrue.ActivityContext) -> None:
        raise error("out")

    @app.activity
    def in_a_thread(ctx: holdtrue.ActivityContext) -> None:
        raise error("out")

    @app.orchestrator
    async def calls(ctx: holdtrue.OrchestrationContext, name: str) -> None:
        await ctx.call_activity(name)

    @app.orchestrator
    async def raises(ctx: holdtrue.OrchestrationContext) -> None:
        await ctx.create_timer(timedelta(0))
        raise error("out")

    @app.orchestrator
    def unwritable(ctx: holdtrue.OrchestrationContext) -> object:
        return object()

    @app.orchestrator
    async def well(ctx: holdtrue.OrchestrationContext) -> str:
        await ctx.create_timer(timedelta(0))
        return "well"

    async def main(client: holdtrue.Client) -> None:
        ids = [
            await client.start(calls, input="on_the_loop"),
            await client.start(calls, input="in_a_thread"),
            await client.start(raises),
            await client.start(unwritable),
        ]
        statuses = [await ended(client, i, Status.FAILED) for i in ids]
        assert all(status.failure is not None for status in statuses)
        assert await outcome(client, await client.start(well)) == "well"
        assert (await client.info()).activities == 0

    hosted(tmp_path, app, main)


@pytest.mark.parametrize("live", [0, 100])
def test_degenerate_input_is_ordinary_input(tmp_path: Path, live: int) -> None:
    """Empty fan-ins, children already finished, falsy values and past times hung or got lost (class 11)."""
    app = holdtrue.App()
    falsy: list[object] = [0, "", False, [], {}, None, 0.0]

    @app.activity
    async def same(ctx: holdtrue.ActivityContext, value: object) -> object:
        return value

    @app.orchestrator
    async def job(ctx: holdtrue.OrchestrationContext) -> list[object]:
        assert await holdtrue.when_all([]) == []
        results = await holdtrue.when_all([ctx.call_activity(same, input=value) for value in falsy])
        done = ctx.call_activity(same, input="done")
        assert await done == await done == "done"
        assert await holdtrue.when_all([done, done]) == ["done", "done"]
        assert await holdtrue.when_any([ctx.create_timer(timedelta(days=1)), done]) is done
        await ctx.create_timer(timedelta(0))
        await ctx.create_timer(timedelta(days=-1))
        await ctx.create_timer(datetime(1970, 1, 1, tzinfo=timezone(timedelta(hours=14))))
        await ctx.create_timer(ctx.now.astimezone(timezone(timedelta(hours=-11))))
        await ctx.create_timer(datetime.min.replace(tzinfo=UTC))
        for value in falsy:
            ctx.send_event(ctx.instance_id, "e", data=value)
        return [results, [await ctx.wait_for_external_event("E") for _ in falsy]]

    async def main(client: holdtrue.Client) -> None:
        assert await outcome(client, await client.start(job)) == [falsy, falsy]

    hosted(tmp_path, app, main, live_instances=live)
