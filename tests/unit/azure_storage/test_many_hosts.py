"""Several whole hosts on one hub of a model account, in virtual time: work goes on while they come, go and die."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

import holdtrue
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import Part, VirtualLoop, as_part, run

LEASE, ACQUIRE = 30.0, 10.0
STEPS = 25
"""Of an instance; each takes a second."""
by_either = pytest.mark.parametrize("by_table", [True, False], ids=["table", "blobs"])
"""How the hosts share out the partitions."""


class Scene:
    """A hub, its hosts, and what its activities have done."""

    def __init__(self, partitions: int, by_table: bool) -> None:
        self.by_table = by_table
        self.model = StorageModel(SimulatedEnvironment(1))
        self.partitions = partitions
        self.ran: Counter[str] = Counter()
        self.hosts: dict[str, tuple[holdtrue.Host, AzureStorageStore, Part]] = {}
        self.app = app = holdtrue.App()
        scene = self

        @app.activity
        async def step(ctx: holdtrue.ActivityContext, name: str) -> None:
            scene.ran[name] += 1
            await asyncio.sleep(1)

        @app.orchestrator
        async def steps(ctx: holdtrue.OrchestrationContext, name: str) -> str:
            for number in range(STEPS):
                await ctx.call_activity(step, input=f"{name}/{number}")
            return name

        self.steps = steps

    def store(self, seed: int) -> tuple[AzureStorageStore, SimulatedEnvironment]:
        environment = SimulatedEnvironment(seed)
        settings = AzureStorageSettings(
            partition_count=self.partitions,
            lease_interval=LEASE,
            lease_acquire_interval=ACQUIRE,
            max_queue_polling_interval=1.0,
            use_table_partition_management=self.by_table,
        )
        return AzureStorageStore(self.model, "Hub", environment=environment, settings=settings), environment

    async def come(self, name: str) -> None:
        """A host joins."""
        part = Part(name)
        with as_part(part):
            store, environment = self.store(len(self.hosts) + 10)
            settings = HostSettings(name=name, retention=False, drain_seconds=5.0)
            host = holdtrue.Host(self.app, store, settings=settings, environment=environment)
            self.hosts[name] = host, store, part
            await asyncio.ensure_future(host.start())

    async def go(self, name: str) -> None:
        """A host leaves."""
        host, store, part = self.hosts.pop(name)
        with as_part(part):
            await asyncio.ensure_future(host.stop())
            await asyncio.ensure_future(store.close())

    def die(self, name: str) -> None:
        """A host is killed."""
        self.hosts.pop(name)[2].die()

    def shares(self) -> list[int]:
        """How many partitions each has."""
        return [sum(map(store._is_mine, range(self.partitions))) for _, store, _ in self.hosts.values()]

    async def balanced(self, within: float) -> None:
        """Each gets its share."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + within
        while sum(shares := self.shares()) != self.partitions or max(shares) - min(shares) > 1:
            assert loop.time() < ends, f"after {within} s the shares are {shares}"
            await asyncio.sleep(0.5)

    async def all_go(self) -> None:
        for name in list(self.hosts):
            await self.go(name)


def in_virtual_time(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)  # who dies leaves what it was about to do
        await scenario()

    run(main())


@by_either
@pytest.mark.parametrize("partitions", [4, 16])
def test_hosts_come_and_go_and_each_has_its_share(partitions: int, by_table: bool) -> None:
    """Instances go on all the time: none stands still for a lease, and no step of theirs is run twice."""

    async def scenario() -> None:
        scene = Scene(partitions, by_table)
        await scene.come("h1")
        store, environment = scene.store(2)
        await store.open()
        client = holdtrue.Client(store, app=scene.app, environment=environment)
        began = environment.monotonic()
        names = [await client.start(scene.steps, input=f"i{n}", instance_id=f"i{n}") for n in range(40)]
        for number in range(2, 6):
            await scene.come(f"h{number}")
            await scene.balanced(within=4 * ACQUIRE)
        for name in ("h1", "h4"):
            await scene.go(name)
            await scene.balanced(within=4 * ACQUIRE)
        for name in names:
            done = await client.wait_for_completion(name, timeout=600)
            assert done.output == name
        assert environment.monotonic() - began < 10 * STEPS
        assert set(scene.ran.values()) == {1} and len(scene.ran) == 40 * STEPS
        await scene.all_go()
        await store.close()

    in_virtual_time(scenario)


@by_either
def test_a_host_dies_and_another_takes_over_within_a_lease_and_a_look(by_table: bool) -> None:
    async def scenario() -> None:
        scene = Scene(4, by_table)
        await scene.come("h1")
        await scene.come("h2")
        await scene.balanced(within=4 * ACQUIRE)
        store, environment = scene.store(2)
        await store.open()
        client = holdtrue.Client(store, app=scene.app, environment=environment)
        names = [await client.start(scene.steps, input=f"i{n}", instance_id=f"i{n}") for n in range(20)]
        await asyncio.sleep(5)
        scene.die("h1")
        await scene.balanced(within=LEASE + ACQUIRE)
        for name in names:
            assert (await client.wait_for_completion(name, timeout=120)).output == name
        assert len(scene.ran) == 20 * STEPS
        await scene.all_go()
        await store.close()

    in_virtual_time(scenario)


@by_either
def test_a_frozen_host_wakes_up_and_does_no_harm(by_table: bool) -> None:
    async def scenario() -> None:
        scene = Scene(4, by_table)
        await scene.come("h1")
        await scene.come("h2")
        await scene.balanced(within=4 * ACQUIRE)
        store, environment = scene.store(2)
        await store.open()
        client = holdtrue.Client(store, app=scene.app, environment=environment)
        names = [await client.start(scene.steps, input=f"i{n}", instance_id=f"i{n}") for n in range(20)]
        await asyncio.sleep(5)
        part = scene.hosts["h1"][2]
        part.paused = True
        await asyncio.sleep(LEASE + ACQUIRE + 5)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.resume(part)
        for name in names:
            assert (await client.wait_for_completion(name, timeout=200)).output == name
        await scene.balanced(within=6 * ACQUIRE)
        assert len(scene.ran) == 20 * STEPS
        await scene.all_go()
        await store.close()

    in_virtual_time(scenario)
