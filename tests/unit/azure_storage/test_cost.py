"""What orchestrations cost in requests, counted on the model: the same each time, and no more than the goals.

Empty polls, renewals of leases and background requests count for the idle host alone.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import holdtrue
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_faults import Call, CallFaultList, FaultyService
from holdtrue.testing.storage_model import AZURITE, StorageModel
from holdtrue.testing.virtual_time import Part, run

SETTINGS = AzureStorageSettings(row_delay=60.0, max_queue_polling_interval=1.0, local_activities=False)
BACKGROUND = ("CostPartitions", "CostHoldtrue", "cost-applease")
DOTNET_IDLE = 5.4
"""Requests a second of an idle .NET worker with 4 partitions and the same polling."""

app = holdtrue.App()


@app.activity
async def add_one(ctx: holdtrue.ActivityContext, number: int) -> int:
    return number + 1


@app.orchestrator
async def chain(ctx: holdtrue.OrchestrationContext, steps: int) -> int:
    number = 0
    for step in range(steps):
        number = await ctx.call_activity(add_one, input=number)
        ctx.set_custom_status(step)
    return number


@app.orchestrator
async def fan_out(ctx: holdtrue.OrchestrationContext, width: int) -> int:
    return sum(await holdtrue.when_all([ctx.call_activity(add_one, input=number) for number in range(width)]))


@app.orchestrator
async def parent(ctx: holdtrue.OrchestrationContext, width: int) -> int:
    children = [
        ctx.call_sub_orchestrator(chain, input=3, instance_id=f"{ctx.instance_id}:child:{number}")
        for number in range(width)
    ]
    return sum(await holdtrue.when_all(children))


class Scene:
    """A worker and a client on one hub, as two processes, and their requests by kind."""

    def __init__(self) -> None:
        self.model = StorageModel(SimulatedEnvironment(1), manner=AZURITE)
        self.worker: Counter[str] = Counter()
        self.client_made: Counter[str] = Counter()
        self.all_of_worker: Counter[str] = Counter()
        self.taken: list[tuple[str, int, int]] = []
        self._seeds = 1

    def _store(self, name: str, counts: Counter[str]) -> AzureStorageStore:
        def applied(call: Call, given: tuple[Any, ...], outcome: Any) -> None:
            kind = f"{call.verb} {call.target}"
            if counts is self.worker:
                self.all_of_worker[kind] += 1
            if call.verb == "queues.take":
                self.taken.append((call.target, given[1], len(outcome)))
                if not outcome:
                    return
            if call.target not in BACKGROUND:
                counts[kind] += 1

        service = FaultyService(self.model, Part(name), CallFaultList(()), applied=applied)
        return AzureStorageStore(service, "Cost", environment=self._environment(), settings=SETTINGS)

    def _environment(self) -> SimulatedEnvironment:
        self._seeds += 1
        return SimulatedEnvironment(self._seeds)

    async def begin(self, slots: int = 100) -> None:
        store = self._store("worker", self.worker)
        await store.open()
        settings = HostSettings(name="worker", activity_slots=slots)
        self.host = holdtrue.Host(app, store, settings=settings, environment=self._environment())
        await self.host.start()
        other = self._store("client", self.client_made)
        await other.open()
        self.client = holdtrue.Client(other, app=app, environment=self._environment())
        await asyncio.sleep(20.0)
        for counts in (self.worker, self.client_made):
            counts.clear()

    async def cost(self, orchestrator: Callable[..., Any], given: int, expected: int) -> tuple[int, int]:
        """The requests of the client's start, and of the worker."""
        name = await self.client.start(orchestrator, input=given)
        started = self.client_made.total()
        await asyncio.sleep(30.0)
        worker = self.worker.total()
        status = await self.client.get_status(name)
        assert status is not None and status.output == expected
        return started, worker


def scene(test: Callable[[Scene], Awaitable[None]]) -> Callable[[], None]:
    def play() -> None:
        async def main() -> None:
            one = Scene()
            await test(one)
            await one.host.stop()

        run(main())

    play.__name__, play.__doc__ = test.__name__, test.__doc__
    return play


@scene
async def test_a_chain_of_five_through_the_queue(scene: Scene) -> None:
    await scene.begin()
    start, worker = await scene.cost(chain, 5, 5)
    assert start <= 3, scene.client_made
    assert start + worker <= 31 <= 46, scene.worker


@scene
async def test_a_fan_out_of_a_hundred_through_the_queue(scene: Scene) -> None:
    await scene.begin()
    _, worker = await scene.cost(fan_out, 100, 5050)
    assert worker <= 216 <= 460, scene.worker


@scene
async def test_ten_children_through_the_queue(scene: Scene) -> None:
    await scene.begin()
    _, worker = await scene.cost(parent, 10, 30)
    assert worker <= 205 <= 320, scene.worker


@scene
async def test_a_long_chain_costs_the_same_at_its_end(scene: Scene) -> None:
    await scene.begin()
    _, short = await scene.cost(chain, 20, 20)
    before = scene.worker.total()
    _, long = await scene.cost(chain, 200, 200)
    assert long - before <= short * 10


@scene
async def test_an_idle_worker(scene: Scene) -> None:
    await scene.begin()
    await asyncio.sleep(120.0)
    scene.all_of_worker.clear()
    await asyncio.sleep(600.0)
    assert scene.all_of_worker.total() / 600.0 <= DOTNET_IDLE, scene.all_of_worker


@scene
async def test_no_more_work_items_are_got_than_there_are_slots(scene: Scene) -> None:
    await scene.begin(slots=7)
    await scene.cost(fan_out, 60, sum(range(1, 61)))
    got = [(limit, count) for queue, limit, count in scene.taken if queue == "cost-workitems"]
    assert sum(count for _, count in got) == 60
    assert max(limit for limit, _ in got) <= 7
