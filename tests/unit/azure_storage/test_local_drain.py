"""A host that leaves has nothing that runs without a message: whoever comes next, .NET too, finds it in the queues."""

import asyncio
import random
from typing import Any

import pytest

import holdtrue
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing import virtual_time
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel

app = holdtrue.App()


class Port:
    """One of an account's services whose calls take time."""

    def __init__(self, port: Any, chance: random.Random) -> None:
        self._port = port
        self._chance = chance

    def __getattr__(self, verb: str) -> Any:
        method = getattr(self._port, verb)

        async def call(*given: Any, **named: Any) -> Any:
            await asyncio.sleep(self._chance.random() * 0.05)
            outcome = await method(*given, **named)
            await asyncio.sleep(self._chance.random() * 0.05)
            return outcome

        return call


class Far:
    """An account that is not near."""

    def __init__(self, model: StorageModel, chance: random.Random) -> None:
        self._model = model
        self.tables = Port(model.tables, chance)
        self.queues = Port(model.queues, chance)
        self.blobs = Port(model.blobs, chance)

    async def open(self) -> None:
        await self._model.open()

    async def close(self) -> None:
        pass

    def blob_url(self, container: str, blob: str) -> str:
        return self._model.blob_url(container, blob)


@app.activity
async def step(ctx: holdtrue.ActivityContext, seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@app.orchestrator
async def loop(ctx: holdtrue.OrchestrationContext, left: int) -> str:
    await ctx.call_activity(step, input=0.01)
    if left:
        ctx.continue_as_new(left - 1)
    return "done"


@app.orchestrator
async def chain(ctx: holdtrue.OrchestrationContext, length: int) -> int:
    for number in range(length):
        await ctx.call_activity(step, input=number % 3 * 0.4)
    return length


@app.orchestrator
async def fan(ctx: holdtrue.OrchestrationContext, width: int) -> int:
    return len(await holdtrue.when_all([ctx.call_activity(step, input=0.3) for _ in range(width)]))


@pytest.mark.parametrize("first", range(0, 20, 10))
def test_what_runs_here_is_in_the_queue_when_a_host_has_left(first: int) -> None:
    for seed in range(first, first + 10):
        virtual_time.run(left_after_a_while(seed))


async def left_after_a_while(seed: int) -> None:
    chance = random.Random(seed)
    model = StorageModel(SimulatedEnvironment(seed))
    environment = SimulatedEnvironment(1_000 + seed)
    settings = AzureStorageSettings(partition_count=2, max_queue_polling_interval=0.3)
    store = AzureStorageStore(Far(model, chance), "Left", environment=environment, settings=settings)  # type: ignore[arg-type]
    given = HostSettings(
        activity_slots=8, drain_seconds=chance.choice([0.0, 0.2, 2.0]), retention=False, schedules=False
    )
    starts: list[tuple[Any, str, int]] = [(loop, f"l{n}", 200) for n in range(4)]
    starts += [(chain, f"c{n}", 50) for n in range(3)] + [(fan, "f", 30)]
    async with holdtrue.Host(app, store, settings=given, environment=environment) as host:
        for orchestrator, name, size in starts:
            await host.client.start(orchestrator, input=size, instance_id=name)
        await environment.sleep(0.5 + chance.random() * 3)
    reader = AzureStorageStore(model, "Left", environment=SimulatedEnvironment(5), settings=settings)
    await reader.open()
    for _, name, _ in starts:
        sentinel = await reader._access.sentinel(name)
        if sentinel is not None:
            assert (sentinel.state.local, sentinel.state.keeper) == ([], None), (seed, name)
    await reader.close()
