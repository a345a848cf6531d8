"""Messages that wait beside a history, however large and however many, on the model."""

import asyncio

import holdtrue
from holdtrue.core.events import EventRaised, ExecutionStarted
from holdtrue.core.projection import Status
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.access import Access
from holdtrue.stores.azure_storage.arrivals import Arrived
from holdtrue.stores.azure_storage.formats import Formats
from holdtrue.stores.azure_storage.holding import Held
from holdtrue.stores.azure_storage.keeping import kept_rows
from holdtrue.stores.azure_storage.names import HubNames
from holdtrue.stores.azure_storage.service import Do, Operation
from holdtrue.stores.azure_storage.service import Test as Where
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.protocol import Lease
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import run

SETTINGS = AzureStorageSettings(partition_count=1, max_queue_polling_interval=0.2, lease_acquire_interval=1.0)


class Stage:
    """A hub on a model account, whose first host lacks the code of the orchestration."""

    def __init__(self) -> None:
        self.account = StorageModel(SimulatedEnvironment(1))
        self._seed = 10

    async def store(self) -> AzureStorageStore:
        self._seed += 1
        environment = SimulatedEnvironment(self._seed)
        store = AzureStorageStore(self.account, "Hub", environment=environment, settings=SETTINGS)
        await store.open()
        return store

    async def host(self, *, has_code: bool) -> holdtrue.Host:
        store = await self.store()
        app = holdtrue.App()

        async def collect(ctx: holdtrue.OrchestrationContext, count: int) -> list[int]:
            return [len(await ctx.wait_for_external_event("e")) for _ in range(count)]

        if has_code:
            app.orchestrator(collect)
        host = holdtrue.Host(
            app,
            store,
            settings=HostSettings(name="h", retention=False, schedules=False),
            environment=SimulatedEnvironment(self._seed),
        )
        await host.start()
        return host

    async def kept(self) -> list[str]:
        page = await self.account.tables.query("HubHistory", Where("PartitionKey", "eq", "a"))
        return [row.key for row in page.rows if row.key.startswith("~kept-")]


def comes_to_it(texts: list[str]) -> None:
    """All of these are kept until there is a host with the code, and come to their instance then."""

    async def main() -> None:
        stage = Stage()
        client = holdtrue.Client(await stage.store())
        await client.start("collect", input=len(texts), instance_id="a")
        for text in texts:
            await client.raise_event("a", "e", text)
        host = await stage.host(has_code=False)  # it finds all of them at once
        async with asyncio.timeout(600):
            while len(await stage.kept()) < len(texts) + 1:
                await asyncio.sleep(1)
        await host.stop()
        host = await stage.host(has_code=True)
        async with asyncio.timeout(600):
            done = await host.client.wait_for_completion("a")
        # A queue promises no order among those of one second.
        assert sorted(done.output or []) == sorted(len(text) for text in texts), done.failure
        assert not await stage.kept()
        await host.client.purge("a")
        assert (await stage.account.blobs.list_blobs("hub-largemessages", ""))[0] == []
        await host.stop()

    run(main())


def test_one_that_is_too_large_for_a_row() -> None:
    comes_to_it(["x" * 300_000, '"' * 430_000, "ä" * 2_000_000])


def test_so_many_that_no_transaction_holds_them() -> None:
    comes_to_it(["x" * 200_000] * 30 + ["漢" * 100_000] * 30 + ["y"] * 10)


def test_one_that_cannot_be_read_is_a_dead_letter() -> None:
    async def main() -> None:
        stage = Stage()
        host = await stage.host(has_code=False)
        await host.client.start("collect", input=2, instance_id="a")
        for text in ("x", "yy", "zzz"):
            await host.client.raise_event("a", "e", text)
        async with asyncio.timeout(600):
            while len(keys := await stage.kept()) < 4:
                await asyncio.sleep(1)
        rows = [await stage.account.tables.get("HubHistory", "a", key) for key in keys]
        (lost,) = [row for row in rows if row is not None and '"yy' in str(row.values["Holdtrue"]).replace("\\", "")]
        await stage.account.tables.write(
            "HubHistory", Operation(do=Do.REPLACE, partition="a", key=lost.key, values={"Holdtrue": "0:{garbage"})
        )
        await host.stop()
        host = await stage.host(has_code=True)
        async with asyncio.timeout(600):
            done = await host.client.wait_for_completion("a")
        assert done.runtime_status is Status.COMPLETED and sorted(done.output or []) == [1, 3]
        (letter,) = await host.store.dead_letters()
        assert letter.letter.instance_id == "a" and lost.key in letter.letter.reason
        await host.stop()

    run(main())


def test_a_start_is_read_before_all_that_came_in_its_second() -> None:
    account = StorageModel(SimulatedEnvironment(1))
    formats = Formats(Access(account, HubNames("Hub"), SimulatedEnvironment(2)))
    start = ExecutionStarted(timestamp=0, name="collect", instance_id="a", execution_id="x", input=None)
    event = EventRaised(timestamp=0, name="e", input=None)
    events = [Arrived(key=number, id=f"0{number}", event=event, inserted=7) for number in range(9)]
    held = Held("a", "a", 0, Lease(key=1, token=1))
    (writes,) = asyncio.run(kept_rows(formats, held, [*events, Arrived(key=9, id="zz", event=start, inserted=7)]))
    assert min(one.key for one in writes).endswith("zz")
