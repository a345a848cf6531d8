"""The whole of it on a real emulator: hosts, a client, orchestrations; what a dead host leaves behind."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

import holdtrue
from holdtrue.core.projection import Status
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.http.connection import from_connection_string, reopening
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.reconciling import Pace
from holdtrue.stores.azure_storage.service import Do, Operation
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from tools.azurite import Azurite

SETTINGS = AzureStorageSettings(
    partition_count=2,
    max_queue_polling_interval=0.5,
    lease_interval=6.0,
    lease_acquire_interval=1.0,
    use_app_lease=True,
)

PACE = Pace(every_seconds=0.5, requests_a_minute=6_000.0, fresh_seconds=1.0)

app = holdtrue.App()


@app.activity
async def add_one(ctx: holdtrue.ActivityContext, number: int) -> int:
    return number + 1


@app.activity
async def large(ctx: holdtrue.ActivityContext, size: int) -> str:
    return "ä" * size


@app.orchestrator
async def chain(ctx: holdtrue.OrchestrationContext, count: int) -> int:
    number = 0
    for _ in range(count):
        number = await ctx.call_activity(add_one, input=number)
    return number


@app.orchestrator
async def everything(ctx: holdtrue.OrchestrationContext, given: dict[str, int]) -> list[object]:
    children = [ctx.call_sub_orchestrator(chain, input=n) for n in range(3)]
    fanned = await holdtrue.when_all([ctx.call_activity(add_one, input=n) for n in range(given["fan"])])
    await ctx.create_timer(timedelta(seconds=1))
    ctx.set_custom_status("w" * given["status"])
    went = await ctx.wait_for_external_event("go")
    text = await ctx.call_activity(large, input=given["size"])
    return [sum(fanned), await holdtrue.when_all(children), went, len(text)]


@app.orchestrator
async def loop(ctx: holdtrue.OrchestrationContext, left: int) -> str:
    await ctx.call_activity(add_one, input=left)
    if left:
        ctx.continue_as_new(left - 1)
        return ""
    return "over"


def on_hub(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """An async test of a hub on a new account; what else it takes is pytest's to give."""

    def run(azurite: Azurite, **more: object) -> None:
        async def main() -> None:
            hub = Hub(azurite.connection_string(azurite.new_account()))
            try:
                async with asyncio.timeout(120):
                    await test(hub, **more)
            finally:
                await hub.close()

        asyncio.run(main())

    first, *rest = inspect.signature(test).parameters.values()
    run.__signature__ = inspect.Signature([first.replace(name="azurite"), *rest])  # type: ignore[attr-defined]
    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


class Hub:
    """One hub, and what is open on it."""

    def __init__(self, connection: str) -> None:
        self.settings = SETTINGS
        self.renewed_by_process = False
        """As a host that is opened by its account's settings: a process beside it renews what it has."""
        self._connection = connection
        self._stores: list[AzureStorageStore] = []
        self._hosts: list[holdtrue.Host] = []

    async def store(self) -> AzureStorageStore:
        connection = from_connection_string(self._connection)
        account = reopening(connection) if self.renewed_by_process else None
        store = AzureStorageStore(HttpService(connection), "Hub", settings=self.settings, pace=PACE, account=account)
        await store.open()
        self._stores.append(store)
        return store

    async def host(self, name: str) -> holdtrue.Host:
        settings = HostSettings(name=name, retention=False, drain_seconds=1.0)
        host = holdtrue.Host(app, await self.store(), settings=settings)
        await host.start()
        self._hosts.append(host)
        return host

    async def client(self) -> holdtrue.Client:
        return holdtrue.Client(await self.store(), app=app)

    async def close(self) -> None:
        for host in self._hosts:
            await host.stop()
        for store in self._stores:
            await store.close()


@on_hub
async def test_every_kind_of_step_with_two_hosts(hub: Hub) -> None:
    await hub.host("one")
    await hub.host("two")
    client = await hub.client()
    names = [
        await client.start(everything, input={"fan": 7, "size": 60_000, "status": 100_000}, instance_id=f"e/{n}#ä?")
        for n in range(3)
    ]
    looped = await client.start(loop, input=3)
    for name in names:
        await client.raise_event(name, "go", {"n": 1})
    for name in names:
        status = await client.wait_for_completion(name, timeout=60)
        assert status.output == [28, [0, 1, 2], {"n": 1}, 60_000], status.failure
        assert status.custom_status == "w" * 100_000
    assert (await client.wait_for_completion(looped, timeout=60)).output == "over"


@on_hub
async def test_an_episode_of_more_than_one_transaction(hub: Hub) -> None:
    await hub.host("one")
    client = await hub.client()
    name = await client.start(everything, input={"fan": 150, "size": 1, "status": 1})
    await client.raise_event(name, "go", None)
    status = await client.wait_for_completion(name, timeout=90)
    assert status.output == [sum(range(1, 151)), [0, 1, 2], None, 1]


@pytest.mark.parametrize("said", ["Running", "Terminated"])
@on_hub
async def test_a_row_that_was_left_behind_reads_true_and_is_mended(hub: Hub, said: str) -> None:
    """The known failure: the history says Completed, and the row Running; or Terminated, where .NET replays the end."""
    host = await hub.host("one")
    client = await hub.client()
    name = await client.start(chain, input=2)
    await client.wait_for_completion(name, timeout=60)
    store = hub._stores[0]
    row = await store._access.instances_row(name)
    assert row is not None and row.values["RuntimeStatus"] == "Completed"
    await store._service.tables.write(
        "HubInstances", Operation(do=Do.MERGE, partition=row.partition, key="", values={"RuntimeStatus": said})
    )
    status = await client.get_status(name)
    assert status is not None and status.runtime_status is Status.COMPLETED and status.output == 2
    assert not (await client.query_page(statuses=[Status.RUNNING, Status.TERMINATED])).items
    assert [item.instance_id for item in (await client.query_page(statuses=[Status.COMPLETED])).items] == [name]
    while True:
        # Nothing comes for it, and it is mended all the same.
        mended = await store._access.instances_row(name)
        assert mended is not None
        if mended.values["RuntimeStatus"] == "Completed":
            break
        await asyncio.sleep(0.2)
    again = await client.start(chain, input=1, instance_id=name, reuse="default")
    assert (await client.wait_for_completion(again, timeout=60)).output == 1
    assert host is not None
