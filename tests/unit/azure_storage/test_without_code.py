"""Instances whose orchestration no worker has: they wait, and slow nobody.  In virtual time, on the model."""

import asyncio

import holdtrue
from holdtrue.core.projection import Status
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_faults import CallFaultList, FaultyService
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import Part, run

SETTINGS = AzureStorageSettings(
    partition_count=1, max_queue_polling_interval=1.0, lease_acquire_interval=1.0, local_activities=False
)

app, later = holdtrue.App(), holdtrue.App()


@app.activity
async def add_one(ctx: holdtrue.ActivityContext, number: int) -> int:
    return number + 1


@app.orchestrator
async def chain(ctx: holdtrue.OrchestrationContext, steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = await ctx.call_activity(add_one, input=number)
    return number


@later.orchestrator
async def nobody(ctx: holdtrue.OrchestrationContext, given: None) -> str:
    return str(await ctx.wait_for_external_event("Go"))


def test_a_chain_is_as_quick_beside_four_of_them_and_they_go_on_with_their_code() -> None:
    async def main() -> None:
        account = StorageModel(SimulatedEnvironment(1))

        async def host(app: holdtrue.App, number: int) -> tuple[holdtrue.Host, FaultyService]:
            service = FaultyService(account, Part(f"h{number}"), CallFaultList())
            environment = SimulatedEnvironment(number)
            store = AzureStorageStore(service, "Hub", environment=environment, settings=SETTINGS)
            await store.open()
            settings = HostSettings(name=f"h{number}", retention=False, schedules=False)
            host = holdtrue.Host(app, store, settings=settings, environment=environment)
            await host.start()
            return host, service

        first, service = await host(app, 2)
        client, loop = first.client, asyncio.get_running_loop()

        async def chains(turn: int) -> tuple[float, int]:
            """How long they take, and how many requests that change something."""
            began, before = loop.time(), work(service)
            for number in range(10):
                await client.start("chain", input=20, instance_id=f"{turn} {number}")
            for number in range(10):
                assert (await client.wait_for_completion(f"{turn} {number}")).output == 20
            return loop.time() - began, work(service) - before

        await chains(0)
        seconds, requests = await chains(1)
        for number in range(4):
            await client.start("nobody", instance_id=f"n{number}")
            await client.raise_event(f"n{number}", "Go", number)
        await asyncio.sleep(10.0)
        beside_seconds, beside_requests = await chains(2)
        assert beside_seconds <= seconds * 1.05 + 1.0
        assert beside_requests <= requests * 1.05
        for number in range(4):
            status = await client.get_status(f"n{number}")
            assert status is not None and status.runtime_status is Status.PENDING
        await first.stop()
        second, _ = await host(later, 3)
        for number in range(4):
            assert (await second.client.wait_for_completion(f"n{number}")).output == str(number)
        await second.stop()

    run(main())


def work(service: FaultyService) -> int:
    """Requests but polls and reads."""
    return sum(
        count for kind, count in service.counts.items() if kind.startswith(("tables.tr", "tables.w", "queues.p"))
    )
