"""Code that no longer fits its history: the instance is held, says why, grows not, and goes on by itself."""

import asyncio
import logging

import pytest
from hubs import TIMEOUT, outcome, run, until

import holdtrue
from holdtrue import Status


def app_with(body, **options) -> holdtrue.App:
    app = holdtrue.App()

    @app.activity
    async def first(ctx, n: int) -> int:
        return n

    @app.activity
    async def second(ctx, n: int) -> int:
        return n + 100

    @app.orchestrator(name="job", **options)
    async def job(ctx, n):
        return await body(ctx, n)

    return app


async def original(ctx, n):
    value = await ctx.call_activity("first", input=n)
    await ctx.wait_for_external_event("go")
    return await ctx.call_activity("second", input=value)


async def changed(ctx, n):
    value = await ctx.call_activity("second", input=n)
    await ctx.wait_for_external_event("go")
    return value


async def begun(tmp_path, app):
    async with holdtrue.Host(app, tmp_path / "hub.db") as host:
        i = await host.client.start("job", instance_id="one", input=1)
        await until(lambda: length(host.client, i, 6), "the wait")


async def length(client, i, n):
    return (await client.get_status(i)).history_size >= n


async def is_held(client, i):
    status = await client.get_status(i)
    return status.condition is not None and status.condition.kind == "held"


def test_held_and_going_on_when_fitting_code_comes(tmp_path, caplog):
    async def main():
        await begun(tmp_path, app_with(original))
        async with holdtrue.Host(app_with(changed), tmp_path / "hub.db") as host:
            client = host.client
            await client.raise_event("one", "go")
            await until(lambda: is_held(client, "one"), "held")
            status = await client.get_status("one")
            assert status.runtime_status is Status.RUNNING
            assert "'first'" in status.condition.reason and "'second'" in status.condition.reason
            size = status.history_size
            for _ in range(5):
                await client.raise_event("one", "go")
            await asyncio.sleep(0.2)
            status = await client.get_status("one")
            assert status.history_size == size
            assert host.dispatcher.counters.held == 1
            with caplog.at_level(logging.WARNING):
                again = await client.start_if_not_running("job", instance_id="one")
            assert again.outcome == "held" and "'first'" in again.reason
        async with holdtrue.Host(app_with(original), tmp_path / "hub.db") as host:
            assert await outcome(host.client, "one") == 101
            assert (await host.client.get_status("one")).condition is None

    run(main())


def test_a_held_one_can_be_terminated_purged_and_replaced(tmp_path):
    async def main():
        await begun(tmp_path, app_with(original))
        async with holdtrue.Host(app_with(changed), tmp_path / "hub.db") as host:
            client = host.client
            await client.raise_event("one", "go")
            await until(lambda: is_held(client, "one"), "held")
            await client.terminate("one", "gave up")
            status = await client.wait_for_completion("one", timeout=TIMEOUT)
            assert status.runtime_status is Status.TERMINATED and status.condition is None
            await client.start("job", instance_id="one", input=5)
            await client.raise_event("one", "go")
            assert await outcome(client, "one") == 105

    run(main())


def test_fail_can_be_chosen_instead(tmp_path):
    async def main():
        await begun(tmp_path, app_with(original))
        async with holdtrue.Host(app_with(changed, on_mismatch="fail"), tmp_path / "hub.db") as host:
            await host.client.raise_event("one", "go")
            status = await host.client.wait_for_completion("one", timeout=TIMEOUT)
            assert status.runtime_status is Status.FAILED
            assert "NonDeterminism" in status.failure.error_type

    run(main())


@pytest.mark.parametrize("kind", ["sleep", "gather", "future"])
def test_waiting_for_what_is_not_durable_fails_with_the_way_out(tmp_path, kind):
    async def body(ctx, n):
        import asyncio as aio

        if kind == "sleep":
            await aio.sleep(0)  # holdtrue: allow
        elif kind == "gather":
            await aio.gather(aio.sleep(0.01))  # holdtrue: allow
        else:
            await aio.get_running_loop().create_future()  # holdtrue: allow

    async def main():
        async with holdtrue.Host(app_with(body), tmp_path / "hub.db") as host:
            status = await host.client.wait_for_completion(await host.client.start("job"), timeout=TIMEOUT)
            assert status.runtime_status is Status.FAILED
            assert "ctx.create_timer" in status.failure.message and "test_held.py" in status.failure.message

    run(main())


def test_a_step_that_takes_too_long_is_told_with_its_line(tmp_path, caplog):
    async def body(ctx, n):
        await ctx.call_activity("first", input=1)
        await ctx.wait_for_external_event("go")

    async def main():
        # Every step takes longer than this.
        settings = holdtrue.HostSettings(slow_step_seconds=0.0)
        async with holdtrue.Host(app_with(body), tmp_path / "hub.db", settings=settings) as host:
            with caplog.at_level(logging.WARNING, "holdtrue.engine"):
                await host.client.start("job", instance_id="one")
                await until(lambda: length(host.client, "one", 6), "the wait")
            assert host.dispatcher.counters.slow_steps >= 2
        line = body.__code__.co_firstlineno
        steps = [text for text in caplog.messages if "took" in text]
        assert f"test_held.py:{line + 1}, took" in steps[0] and f"test_held.py:{line + 2}, took" in steps[1]
        assert "'one'" in steps[0] and "ctx.call_activity" in steps[0]

    run(main())
