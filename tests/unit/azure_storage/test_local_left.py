"""Activities whose host was killed at work, without a message: who comes next runs, queues or buries them."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import holdtrue
from holdtrue.core.projection import Status
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.local import places
from holdtrue.stores.azure_storage.names import row_key
from holdtrue.stores.azure_storage.service import ANY, Do, Operation
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import Part, as_part, run

HUB, WIDTH = "Left", 3


class Scene:
    """A hub whose instance `i` waits for activities."""

    def __init__(self) -> None:
        self.model = StorageModel(SimulatedEnvironment(1))
        self.ran: Counter[int] = Counter()
        self.app = app = holdtrue.App()
        self.seconds = 100.0

        @app.activity
        async def work(ctx: holdtrue.ActivityContext, number: int) -> int:
            self.ran[number] += 1
            await asyncio.sleep(self.seconds)
            return number

        @app.orchestrator
        async def fan(ctx: holdtrue.OrchestrationContext) -> int:
            return len(await holdtrue.when_all([ctx.call_activity(work, input=n) for n in range(WIDTH)]))

        self.fan = fan

    def store(self, seed: int) -> tuple[AzureStorageStore, SimulatedEnvironment]:
        environment = SimulatedEnvironment(seed)
        settings = AzureStorageSettings(partition_count=1, lease_interval=10.0, lease_acquire_interval=2.0)
        return AzureStorageStore(self.model, HUB, environment=environment, settings=settings), environment

    def host(self, seed: int, slots: int = 10) -> tuple[holdtrue.Host, AzureStorageStore]:
        store, environment = self.store(seed)
        settings = HostSettings(name=f"h{seed}", activity_slots=slots, retention=False, schedules=False)
        return holdtrue.Host(self.app, store, settings=settings, environment=environment), store

    async def killed_at_work(self) -> AzureStorageStore:
        """A host has begun them all, and was killed; a store for looking on."""
        part = Part("killed")
        with as_part(part):
            host, _ = self.host(2)
            await asyncio.ensure_future(host.start())
            await asyncio.ensure_future(host.client.start(self.fan, instance_id="i"))
        while len(self.ran) < WIDTH:
            await asyncio.sleep(1)
        part.die()
        await asyncio.sleep(60)
        store, _ = self.store(3)
        await store.open()
        return store

    def work_items(self) -> list[str]:
        return self.model.queues.look()[f"{HUB.lower()}-workitems"]


def in_virtual_time(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # who dies leaves things
        await scenario()

    run(main())


def test_settling_a_hub_puts_them_into_the_queue_and_names_them_no_more() -> None:
    async def scenario() -> None:
        scene = Scene()
        store = await scene.killed_at_work()
        sentinel = await store._access.sentinel("i")
        assert sentinel is not None and len(places(sentinel.state.local)) == WIDTH and scene.work_items() == []
        settled = await store.settle()
        assert settled.done and settled.ready == ["i"]
        assert len(scene.work_items()) == WIDTH
        sentinel = await store._access.sentinel("i")
        assert sentinel is not None and not sentinel.is_ours and sentinel.state.local == []
        # Whoever comes next has them from the queue.
        host, _ = scene.host(4)
        async with host:
            status = await host.client.wait_for_completion("i")
        assert status.output == WIDTH and set(scene.ran.values()) == {2}
        await store.close()

    in_virtual_time(scenario)


def test_one_whose_row_was_written_over_is_a_dead_letter_and_the_others_run() -> None:
    async def scenario() -> None:
        scene = Scene()
        store = await scene.killed_at_work()
        sentinel = await store._access.sentinel("i")
        assert sentinel is not None
        ordinal = places(sentinel.state.local)[1][1]
        row = await scene.model.tables.get(f"{HUB}History", "i", row_key(ordinal))
        assert row is not None and row.values["EventType"] == "TaskScheduled"
        values = {"EventType": "GenericEvent", "Reason": "Rewound: TaskScheduled"}  # as .NET's rewind does
        await scene.model.tables.write(
            f"{HUB}History", Operation(do=Do.MERGE, partition="i", key=row_key(ordinal), values=values, etag=ANY)
        )
        host, other = scene.host(4)
        async with host:
            while scene.ran != {0: 2, 1: 1, 2: 2}:
                await asyncio.sleep(1)
            (letter,) = await other.dead_letters()
            assert f"event {ordinal}" in letter.letter.reason and letter.letter.instance_id == "i"
        await store.close()

    in_virtual_time(scenario)


def test_what_waits_for_a_slot_goes_to_another_host_that_lives_and_only_then() -> None:
    async def scenario() -> None:
        scene = Scene()
        first, store = scene.host(2, slots=1)
        async with first:
            await first.client.start(scene.fan, instance_id="i")
            await asyncio.sleep(20)
            assert scene.ran == {0: 1} and scene.work_items() == []  # nobody else is there
            second, _ = scene.host(4)
            began = asyncio.get_running_loop().time()
            async with second:
                while len(scene.ran) < WIDTH:
                    await asyncio.sleep(0.5)
                assert asyncio.get_running_loop().time() - began < 60
                sentinel = await store._access.sentinel("i")
                assert sentinel is not None and len(places(sentinel.state.local)) == 1  # the one that runs here
                status = await first.client.wait_for_completion("i")
        assert status.runtime_status is Status.COMPLETED and set(scene.ran.values()) == {1}

    in_virtual_time(scenario)


def test_the_keeper_of_what_a_start_replaces_is_let_go_where_that_start_is_a_keeper_too() -> None:
    """It lay in the queue, hidden again and again, for as long as its host lived."""

    async def scenario() -> None:
        scene = Scene()
        host, _ = scene.host(2)
        async with host:
            await host.client.start(scene.fan, instance_id="i")
            await asyncio.sleep(20)
            await host.client.start(scene.fan, instance_id="i", reuse="replace")
            status = await host.client.wait_for_completion("i")
            assert status.output == WIDTH and set(scene.ran.values()) == {2}
            assert scene.model.queues.look()[f"{HUB.lower()}-control-00"] == []

    in_virtual_time(scenario)
