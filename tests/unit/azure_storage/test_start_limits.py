"""An activity that was begun within its schedule_to_start may run as long as it takes, though it reports nothing."""

import asyncio

import pytest

import holdtrue
from holdtrue.core.projection import Status
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing import virtual_time
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel

app = holdtrue.App()


@app.activity(schedule_to_start=30)
async def long(ctx: holdtrue.ActivityContext, given: str) -> str:
    await asyncio.sleep(100)
    return given


@app.activity(tag="rare", schedule_to_start=30)
async def rare(ctx: holdtrue.ActivityContext, given: str) -> str:
    await asyncio.sleep(100)
    return given


@app.orchestrator
async def ask(ctx: holdtrue.OrchestrationContext, given: str) -> str:
    return await ctx.call_activity(rare if given == "rare" else long, input=given)


def host(model: StorageModel, number: int, *, local: bool, tags: tuple[str, ...] = ()) -> holdtrue.Host:
    settings = AzureStorageSettings(partition_count=1, max_queue_polling_interval=1.0, local_activities=local)
    environment = SimulatedEnvironment(number)
    store = AzureStorageStore(model, "Limits", environment=environment, settings=settings)
    given = HostSettings(name=f"h{number}", tags=tags, retention=False, schedules=False)
    return holdtrue.Host(app, store, settings=given, environment=environment)


@pytest.mark.parametrize("local", [True, False], ids=["without a message", "queued"])
def test_one_that_runs_is_told_as_running_and_is_not_late(local: bool) -> None:
    async def main() -> None:
        async with host(StorageModel(SimulatedEnvironment(1)), 2, local=local) as worker:
            await worker.client.start(ask, input="long", instance_id="i")
            await asyncio.sleep(20)
            (told,) = await worker.store.activities_of("i")
            assert told.running and told.run == 1
            status = await worker.client.wait_for_completion("i")
            assert status.runtime_status is Status.COMPLETED, status.failure
            assert await worker.store.activities_of("i") == []

    virtual_time.run(main())


@pytest.mark.parametrize("begins", [True, False], ids=["begun by another host", "begun by nobody"])
def test_one_that_is_for_another_host(begins: bool) -> None:
    async def main() -> None:
        model = StorageModel(SimulatedEnvironment(1))
        async with host(model, 2, local=True) as worker:
            await worker.client.start(ask, input="rare", instance_id="i")
            await asyncio.sleep(10)
            (told,) = await worker.store.activities_of("i")
            assert not told.running and told.run == 0
            if begins:
                async with host(model, 3, local=True, tags=("rare",)):
                    status = await worker.client.wait_for_completion("i")
                assert status.runtime_status is Status.COMPLETED, status.failure
            else:
                status = await worker.client.wait_for_completion("i")
                assert status.runtime_status is Status.FAILED and "schedule_to_start" in str(status.failure)

    virtual_time.run(main())
