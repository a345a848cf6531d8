"""Which blobs go with a purged instance (rule 12), on the model."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import holdtrue
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_faults import Call, CallFault, FaultyService, Mishap
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import Part
from tests.unit.azure_storage.stages import played

SETTINGS = AzureStorageSettings(partition_count=1, max_queue_polling_interval=0.2, lease_acquire_interval=1.0)
LARGE = "x" * 100_000

app = holdtrue.App()


@app.activity
async def large(ctx: holdtrue.ActivityContext, text: str) -> str:
    return text


@app.orchestrator
async def echo(ctx: holdtrue.OrchestrationContext, text: str) -> str:
    return await ctx.call_activity(large, input=text)


class Stage:
    def __init__(self, account: StorageModel) -> None:
        self.account = account

    def store(self, service: Any = None) -> AzureStorageStore:
        environment = SimulatedEnvironment(7)
        return AzureStorageStore(service or self.account, "Purge", environment=environment, settings=SETTINGS)

    async def blobs(self) -> set[str]:
        names: set[str] = set()
        token: str | None = None
        while True:
            found, token = await self.account.blobs.list_blobs("purge-largemessages", "", token=token)
            names |= {one.name for one in found}
            if token is None:
                return names


def on_stage(test: Callable[[Stage, holdtrue.Client], Awaitable[None]]) -> Callable[[], None]:
    def make() -> tuple[Stage, AzureStorageStore]:
        stage = Stage(StorageModel(SimulatedEnvironment(1)))
        return stage, stage.store()

    return played(test, app, make)


@on_stage
async def test_all_blobs_of_an_instance_go_and_no_others(stage: Stage, client: holdtrue.Client) -> None:
    names = ["plain", "with/slash", "with^0slash", "b\\ack.", "with"]
    for name in names:
        await client.start(echo, input=f"{name} {LARGE}", instance_id=name)
        await client.wait_for_completion(name)
    await asyncio.sleep(5)
    before = await stage.blobs()
    for number, name in enumerate(names):
        await client.purge(name)
        left = await stage.blobs()
        assert left < before
        before = left
        for other in names[number + 1 :]:
            status = await client.get_status(other)
            assert status is not None and status.input == f"{other} {LARGE}" == status.output
    assert not before


@on_stage
async def test_a_purge_that_was_cut_short_takes_the_blobs_when_it_goes_on(
    stage: Stage, client: holdtrue.Client
) -> None:
    await client.start(echo, input=LARGE, instance_id="one")
    await client.wait_for_completion("one")
    await asyncio.sleep(5)
    assert await stage.blobs()

    class Dies:
        """Its process ends at the first deletion of a blob."""

        def at(self, call: Call) -> CallFault | None:
            return (
                CallFault(part=call.part, point=call.point, mishap=Mishap.CRASH_BEFORE)
                if call.verb == "blobs.delete_blob"
                else None
            )

    died = asyncio.Event()
    other = stage.store(FaultyService(stage.account, Part("dies"), Dies(), crash=lambda seconds: died.set()))
    await other.open()
    purge = asyncio.create_task(other.purge(["one"]))
    await died.wait()
    purge.cancel()
    assert await stage.blobs()
    assert await client.get_status("one") is None
    await client.purge("one")
    assert not await stage.blobs()
