"""Messages that nobody can read, or that lie in a wrong queue, on the model."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest

import holdtrue
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage import formats
from holdtrue.stores.azure_storage.dead_letters import DeadLetters
from holdtrue.stores.azure_storage.dotnet_json import FormatError
from holdtrue.stores.azure_storage.names import partition_of
from holdtrue.stores.azure_storage.polling import Loop
from holdtrue.stores.azure_storage.postbox import Postbox
from holdtrue.stores.azure_storage.service import QueueMessage, Unsure
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.errors import StoreUnavailable
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import run

PARTITIONS = 2
SETTINGS = AzureStorageSettings(
    partition_count=PARTITIONS, max_queue_polling_interval=0.2, lease_acquire_interval=1.0, lease_interval=10.0
)

app = holdtrue.App()


@app.activity
async def nothing(ctx: holdtrue.ActivityContext, given: object) -> None:
    """So that work items are asked for."""


@app.orchestrator
async def waits(ctx: holdtrue.OrchestrationContext, given: object) -> str:
    ctx.set_custom_status("waits")
    return await ctx.wait_for_external_event("go")


class Stage:
    """A hub on a model account."""

    def __init__(self) -> None:
        self.account = StorageModel(SimulatedEnvironment(1))
        self._seed = 10
        self.hosts: list[holdtrue.Host] = []

    async def host(self) -> holdtrue.Host:
        self._seed += 1
        environment = SimulatedEnvironment(self._seed)
        store = AzureStorageStore(self.account, "Hub", environment=environment, settings=SETTINGS)
        await store.open()
        settings = HostSettings(name=f"h{self._seed}", retention=False, schedules=False)
        host = holdtrue.Host(app, store, settings=settings, environment=environment)
        await host.start()
        self.hosts.append(host)
        return host

    async def stop(self) -> None:
        for host in self.hosts:
            await host.stop()


def _in_blob(name: str) -> str:
    whole = {
        "$type": "DurableTask.AzureStorage.MessageData",
        "ActivityId": "00000000-0000-0000-0000-000000000000",
        "CompressedBlobName": name,
    }
    return msgspec.json.encode(whole).decode()


def test_a_message_whose_blob_is_larger_than_any_of_ours_is_a_dead_letter() -> None:
    async def main() -> None:
        stage = Stage()
        host = await stage.host()
        await stage.account.blobs.create_container("hub-largemessages")
        await stage.account.blobs.put_blob("hub-largemessages", "a/1.json.gz", b"x" * 1_001)
        for queue in ("hub-control-00", "hub-workitems"):
            await stage.account.queues.put(queue, _in_blob("a/1.json.gz"))
        async with asyncio.timeout(60):
            while len(letters := await host.store.dead_letters()) < 2:
                await asyncio.sleep(1)
        assert all("it has more than 1000 bytes" in one.letter.reason for one in letters)
        await stage.stop()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "MOST_BLOB_BYTES", 1_000)
        run(main())


def test_a_dead_letter_that_cannot_be_written_stops_nobody() -> None:
    """Its message comes again until it can be; what stands behind it comes to its instance."""
    fails = 3
    bury = DeadLetters.bury

    async def buries(self: DeadLetters, *given: object) -> None:
        nonlocal fails
        fails -= 1
        if fails >= 0:
            raise StoreUnavailable("not now")
        await bury(self, *given)  # type: ignore[arg-type]

    async def main() -> None:
        stage = Stage()
        host = await stage.host()
        for number in range(PARTITIONS):
            await stage.account.queues.put(f"hub-control-{number:02}", "garbage")
        await stage.account.queues.put("hub-workitems", "garbage")
        names = [await host.client.start(waits) for _ in range(8)]
        for name in names:
            await host.client.raise_event(name, "go", name)
        async with asyncio.timeout(60):
            for name in names:
                assert (await host.client.wait_for_completion(name)).output == name
            while len(await host.store.dead_letters()) < PARTITIONS + 1:
                await asyncio.sleep(1)
        await stage.stop()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DeadLetters, "bury", buries)
        run(main())
    assert fails < 0


def test_a_message_in_another_partitions_queue_comes_to_its_instance() -> None:
    """The partition count was another when it was put, or a stranger put it: its owner alone acts."""

    async def main() -> None:
        stage = Stage()
        first = await stage.host()
        names = [f"i{number}" for number in range(6)]
        assert {partition_of(name, PARTITIONS) for name in names} == {0, 1}
        await first.stop()
        stage.hosts.clear()
        store = AzureStorageStore(stage.account, "Hub", environment=SimulatedEnvironment(99), settings=SETTINGS)
        await store.open()
        client, queues = holdtrue.Client(store), stage.account.queues
        for name in names:
            await client.start("waits", instance_id=name)
            await client.raise_event(name, "go", name)
        moved: list[tuple[str, str]] = []
        for number in range(PARTITIONS):
            right, wrong = (f"hub-control-{n:02}" for n in (number, 1 - number))
            for message in await queues.take(right, 32, 60):
                await queues.remove(right, message.id, message.receipt)
                moved.append((wrong, message.text))
        await stage.host()
        await stage.host()
        async with asyncio.timeout(300):
            while not all(sum(host.store._is_mine(n) for n in range(PARTITIONS)) == 1 for host in stage.hosts):
                await asyncio.sleep(1)
            for wrong, text in moved:
                await queues.put(wrong, text)
            for name in names:
                assert (await client.wait_for_completion(name)).output == name
            for number in range(PARTITIONS):
                while await queues.approximate_count(f"hub-control-{number:02}"):
                    await asyncio.sleep(1)
        assert await store.dead_letters() == []
        await store.close()
        await stage.stop()

    run(main())


def test_one_that_cannot_be_put_into_its_queue_is_not_lost() -> None:
    """It comes again until it can be."""

    async def main() -> None:
        stage = Stage()
        host = await stage.host()
        name = next(f"i{number}" for number in range(9) if partition_of(f"i{number}", PARTITIONS) == 1)
        await host.client.start(waits, instance_id=name)
        async with asyncio.timeout(300):
            while (status := await host.client.get_status(name)) is None or status.custom_status is None:
                await asyncio.sleep(1)
        queues, taken = stage.account.queues, []
        put = queues.put

        async def put_later(queue: str, text: str, *, delay: int = 0) -> tuple[str, str]:
            taken.append(queue)
            if queue == "hub-control-01" and len(taken) in (2, 3):
                raise Unsure("not now")
            return await put("hub-control-00" if len(taken) == 1 else queue, text, delay=delay)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(queues, "put", put_later)
            await host.client.raise_event(name, "go", "on")
            async with asyncio.timeout(300):
                assert (await host.client.wait_for_completion(name)).output == "on"
        assert taken[:4] == ["hub-control-01"] * 4
        await stage.stop()

    run(main())


def test_a_letter_that_cannot_be_written_leaves_its_message_to_come_again() -> None:
    forgotten: list[int] = []

    async def unreadable(message: object) -> object:
        raise FormatError("message", "it is garbage")

    async def bury(*given: object) -> None:
        raise StoreUnavailable("not now")

    async def main() -> None:
        postbox = Postbox(
            SimpleNamespace(read_message=unreadable, unreadable_letter=lambda *given: None),  # type: ignore[arg-type]
            SimpleNamespace(forget=forgotten.append),  # type: ignore[arg-type]
            SimpleNamespace(bury=bury),  # type: ignore[arg-type]
        )
        message = QueueMessage(id="m", receipt="r", text="x", dequeue_count=1, inserted=0, next_visible=0)
        assert await postbox.read("q", 7, message, lambda content: content) is None

    run(main())
    assert forgotten == [7]


@pytest.mark.parametrize("error", [StoreUnavailable("not now"), Unsure("not now"), RuntimeError("a defect")])
def test_a_poll_that_fails_is_not_the_last_one(error: Exception) -> None:
    polls = 0

    async def pull() -> int:
        nonlocal polls
        polls += 1
        if polls == 1:
            raise error
        return 0

    async def main() -> None:
        loop = Loop(SimulatedEnvironment(1), pull, lambda: None, 5.0, "a queue")
        await asyncio.sleep(60)
        loop.task.cancel()

    run(main())
    assert polls > 5
