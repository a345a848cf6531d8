"""An activity that nobody begins in its schedule_to_start time fails, wherever it waits; in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import holdtrue
from holdtrue.core.projection import Status
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.memory.hub import MemoryHub
from holdtrue.stores.memory.store import MemoryStore
from holdtrue.stores.protocol import TaskHubStore
from holdtrue.stores.sqlite.store import SqliteStore
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.virtual_time import run

app = holdtrue.App()
begun: list[str] = []


@app.activity(tag="rare", schedule_to_start=30)
async def rare(ctx: holdtrue.ActivityContext, name: str) -> str:
    begun.append(name)
    await asyncio.sleep(100)
    return name


@app.orchestrator
async def ask(ctx: holdtrue.OrchestrationContext, name: str) -> str:
    return await ctx.call_activity(rare, input=name)


@app.orchestrator
async def insist(ctx: holdtrue.OrchestrationContext, name: str) -> str:
    policy = holdtrue.RetryPolicy(first_retry_interval=timedelta(seconds=10), max_number_of_attempts=2)
    return await ctx.call_activity(rare, input=name, retry_policy=policy)


@app.orchestrator
async def again(ctx: holdtrue.OrchestrationContext, left: int) -> str:
    task = ctx.call_activity(rare, input="again")
    if left:
        ctx.continue_as_new(left - 1)
        return ""
    return await task


@pytest.fixture(params=["memory", "sqlite"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[SimulatedEnvironment], TaskHubStore]:
    hub = MemoryHub()
    begun.clear()
    if request.param == "memory":
        return lambda environment: MemoryStore(hub, environment=environment)
    return lambda environment: SqliteStore(str(tmp_path / "hub.db"), environment=environment)


Stores = Callable[[SimulatedEnvironment], TaskHubStore]


def with_host(stores: Stores, use: Callable[[holdtrue.Host], Coroutine[Any, Any, None]]) -> None:
    """Run this beside a host that does not serve the tag."""

    async def main() -> None:
        environment = SimulatedEnvironment(1)
        settings = HostSettings(retention=False)
        async with holdtrue.Host(app, stores(environment), settings=settings, environment=environment) as host:
            await use(host)

    run(main())


def seconds(status: holdtrue.InstanceStatus) -> float:
    projection = status.record.projection
    assert projection.completed_at is not None
    return (projection.completed_at - projection.created_at) / 10_000_000


def test_nobody_serves_it(stores: Stores) -> None:
    async def use(host: holdtrue.Host) -> None:
        await host.client.start(ask, input="a", instance_id="a")
        status = await host.client.wait_for_completion("a")
        assert status.runtime_status is Status.FAILED and 30 <= seconds(status) < 31
        assert "schedule_to_start" in str(status.failure) and "'rare'" in str(status.failure)
        info = await host.client.info()
        assert (info.activities, info.messages, info.dead_letters) == (0, 0, 0)

    with_host(stores, use)


def test_each_attempt_of_a_retry_waits_that_long(stores: Stores) -> None:
    async def use(host: holdtrue.Host) -> None:
        await host.client.start(insist, input="a", instance_id="a")
        status = await host.client.wait_for_completion("a")
        assert status.runtime_status is Status.FAILED and 70 <= seconds(status) < 71
        assert (await host.client.info()).activities == 0

    with_host(stores, use)


def test_one_that_was_begun_in_time_runs_as_long_as_it_takes(stores: Stores) -> None:
    async def use(host: holdtrue.Host) -> None:
        await host.client.start(ask, input="a", instance_id="a")
        await asyncio.sleep(20)
        environment = SimulatedEnvironment(2)
        settings = HostSettings(tags=("rare",), retention=False)
        async with holdtrue.Host(app, stores(environment), settings=settings, environment=environment):
            status = await host.client.wait_for_completion("a")
        assert status.runtime_status is Status.COMPLETED and begun == ["a"]
        assert (await host.client.info()).messages == 0

    with_host(stores, use)


def test_the_limit_outlives_the_host_that_set_it(stores: Stores) -> None:
    async def begin(host: holdtrue.Host) -> None:
        await host.client.start(ask, input="a", instance_id="a")
        await asyncio.sleep(5)

    async def finish(host: holdtrue.Host) -> None:
        status = await host.client.wait_for_completion("a")
        assert status.runtime_status is Status.FAILED

    async def main() -> None:
        for use in (begin, finish):
            environment = SimulatedEnvironment(1)
            settings = HostSettings(retention=False)
            async with holdtrue.Host(app, stores(environment), settings=settings, environment=environment) as host:
                await use(host)

    run(main())


def test_limits_of_executions_before_say_nothing(stores: Stores) -> None:
    async def use(host: holdtrue.Host) -> None:
        await host.client.start(again, input=3, instance_id="a")
        status = await host.client.wait_for_completion("a")
        assert status.runtime_status is Status.FAILED and 30 <= seconds(status) < 31

    with_host(stores, use)
