"""Instances whose rows cannot be read, on the model: a user can be rid of them."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import holdtrue
from holdtrue.core.projection import Status
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.service import ANY, Do, Operation, Value
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.errors import StoreCorrupt
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import run

SETTINGS = AzureStorageSettings(
    partition_count=1, max_queue_polling_interval=0.2, lease_acquire_interval=1.0, local_activities=False
)
"""Activities through the queue: their messages leave blobs, which must go too."""
LARGE = "x" * 100_000

app = holdtrue.App()


@app.activity
async def echo(ctx: holdtrue.ActivityContext, text: str) -> str:
    return text


@app.orchestrator
async def waits(ctx: holdtrue.OrchestrationContext, text: str) -> str:
    await ctx.call_activity(echo, input=text)
    ctx.set_custom_status("waits")
    return await ctx.wait_for_external_event("go")


@app.orchestrator
async def parent(ctx: holdtrue.OrchestrationContext, child: str) -> str:
    ctx.set_custom_status("waits")
    try:
        return await ctx.call_sub_orchestrator(waits, input=LARGE, instance_id=child)
    except holdtrue.TaskFailedError as error:
        return f"its child: {error}"


class Stage:
    """A hub on a model account."""

    def __init__(self) -> None:
        self.account = StorageModel(SimulatedEnvironment(1))
        self._seed = 10
        self._hosts: list[holdtrue.Host] = []

    async def host(self) -> holdtrue.Client:
        """A new host in the place of the one before, so that nothing is in hand; its client."""
        await self.stop()
        self._seed += 1
        environment = SimulatedEnvironment(self._seed)
        store = AzureStorageStore(self.account, "Hub", environment=environment, settings=SETTINGS)
        await store.open()
        settings = HostSettings(name="h", retention=False, schedules=False)
        host = holdtrue.Host(app, store, settings=settings, environment=environment)
        await host.start()
        self._hosts.append(host)
        return host.client

    async def stop(self) -> None:
        while self._hosts:
            await self._hosts.pop().stop()

    async def rows(self, table: str, instance_id: str) -> list[str]:
        return [row.key for row in self.account.tables.look(table, instance_id)]

    async def blobs(self) -> list[str]:
        return list(self.account.blobs.names("hub-largemessages"))

    async def spoil(self, table: str, instance_id: str, key: str, change: dict[str, Value] | str | None) -> None:
        """A row without a column of this name, with other values, or (None) away with it."""
        row = await self.account.tables.get(table, instance_id, key)
        assert row is not None
        values = dict(row.values)
        if isinstance(change, str):
            del values[change]
        elif change is not None:
            values |= change
        do, etag = (Do.DELETE, ANY) if change is None else (Do.REPLACE, None)
        await self.account.tables.write(
            table, Operation(do=do, partition=instance_id, key=key, values={} if change is None else values, etag=etag)
        )


def on_stage(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    def play(**given: object) -> None:
        async def main() -> None:
            stage = Stage()
            async with asyncio.timeout(3_600):
                await test(stage, **given)
            await stage.stop()

        run(main())

    _, *rest = inspect.signature(test).parameters.values()
    play.__signature__ = inspect.Signature(rest)  # type: ignore[attr-defined]
    play.__name__, play.__doc__ = test.__name__, test.__doc__
    return play


async def until_it_waits(client: holdtrue.Client, *names: str) -> None:
    for name in names:
        while (status := await client.get_status(name)) is None or status.custom_status is None:
            await asyncio.sleep(1)


HISTORY: dict[str, tuple[str, dict[str, Value] | str | None]] = {
    "no EventType": ("0000000000000002", "EventType"),
    "another type": ("0000000000000002", {"EventType": 4}),
    "no name": ("0000000000000001", "Name"),
    "a row is gone": ("0000000000000003", None),
}


@pytest.mark.parametrize("damage", HISTORY)
@on_stage
async def test_an_instance_with_a_damaged_history_is_terminated_and_purged(stage: Stage, damage: str) -> None:
    client = await stage.host()
    await client.start(parent, input="a", instance_id="p")
    await client.start(waits, input="good", instance_id="good")
    await until_it_waits(client, "p", "a", "good")
    await stage.stop()
    await stage.spoil("HubHistory", "a", *HISTORY[damage])
    client = await stage.host()
    await client.raise_event("a", "go", "on")
    while (status := await client.get_status("a")) is None or status.condition is None:
        await asyncio.sleep(1)
    assert status.condition.kind == "held" and "terminate" in status.condition.reason
    await client.terminate("a", "no use")
    ended = await client.wait_for_completion("a")
    assert ended.runtime_status is Status.TERMINATED and ended.output == "no use" and ended.condition is None
    done = await client.wait_for_completion("p")
    assert done.runtime_status is Status.COMPLETED and "terminated" in str(done.output)
    row = await stage.account.tables.get("HubInstances", "a", "")
    assert row is not None and row.values["RuntimeStatus"] == "Terminated"
    # What comes for it now is dropped, as for any that has ended.
    client = await stage.host()
    await asyncio.sleep(60)
    status = await client.get_status("a")
    assert status is not None and status.runtime_status is Status.TERMINATED and status.condition is None
    assert (await client.purge("a")).instances == 1
    assert await stage.rows("HubHistory", "a") == await stage.rows("HubInstances", "a") == []
    assert not [name for name in await stage.blobs() if name.startswith("a/")]
    await client.start(waits, input="anew", instance_id="a")
    for name in ("a", "good"):
        await client.raise_event(name, "go", name)
        assert (await client.wait_for_completion(name)).output == name


UNREADABLE: dict[str, tuple[str, str, dict[str, Value] | str]] = {
    "garbage on the sentinel": ("HubHistory", "sentinel", {"Holdtrue": "0:{garbage"}),
    "a sentinel of a stranger": ("HubHistory", "sentinel", {"Holdtrue": "9:{}"}),
    "a row without a status": ("HubInstances", "", "RuntimeStatus"),
    "a row of an odd status": ("HubInstances", "", {"RuntimeStatus": "Odd"}),
}


@pytest.mark.parametrize("damage", UNREADABLE)
@pytest.mark.parametrize("is_served", [True, False], ids=["served", "no host"])
@on_stage
async def test_an_instance_whose_status_cannot_be_read_is_purged_as_it_is(
    stage: Stage, damage: str, is_served: bool
) -> None:
    client = await stage.host()
    await client.start(waits, input=LARGE, instance_id="a")
    await client.start(waits, input=LARGE, instance_id="good")
    await until_it_waits(client, "a", "good")
    table, key, change = UNREADABLE[damage]
    await stage.spoil("HubHistory", "a", "0000000000000002", "EventType")
    await stage.spoil(table, "a", key, change)
    if is_served:
        client = await stage.host()
    with pytest.raises(StoreCorrupt, match="'a'"):
        await client.get_status("a")
    assert (await client.purge("a")).instances == 1
    assert await client.get_status("a") is None
    assert await stage.rows("HubHistory", "a") == await stage.rows("HubInstances", "a") == []
    assert {name.partition("/")[0] for name in await stage.blobs()} == {"good"}
    client = await stage.host()
    await client.start(waits, input="anew", instance_id="a")
    for name in ("a", "good"):
        await client.raise_event(name, "go", name)
        assert (await client.wait_for_completion(name)).output == name


@on_stage
async def test_a_child_that_cannot_be_read_is_not_purged_with_its_parent(stage: Stage) -> None:
    """Nobody has named it: it may be mended yet."""
    client = await stage.host()
    await client.start(parent, input="child", instance_id="p")
    await until_it_waits(client, "p", "child")
    await client.terminate("p")
    await client.wait_for_completion("p")
    await stage.spoil("HubHistory", "child", "sentinel", {"Holdtrue": "0:{garbage"})
    purged = await client.purge("p")
    assert purged.instances == 1 and purged.children == 0 and purged.refused == ["child"]
    assert await stage.rows("HubHistory", "child")
    assert (await client.purge("child")).instances == 1


@on_stage
async def test_a_start_that_waits_and_cannot_be_read(stage: Stage) -> None:
    client = await stage.host()
    store = client.store
    await stage.stop()
    await store.open()
    await client.start("waits", instance_id="a")
    await stage.spoil("HubInstances", "a", "", {"HoldtrueStart": "{garbage"})
    with pytest.raises(StoreCorrupt, match="'a'"):
        await client.get_status("a")
    assert (await client.purge("a")).instances == 1
    assert await client.get_status("a") is None
    await store.close()


@on_stage
async def test_a_start_whose_input_is_lost_does_not_begin_without_it(stage: Stage) -> None:
    client = await stage.host()
    store = client.store
    await stage.stop()
    await store.open()
    await client.start("waits", input=LARGE, instance_id="a")
    for name in await stage.blobs():
        await stage.account.blobs.delete_blob("hub-largemessages", name)
    served = await stage.host()
    await asyncio.sleep(900)  # the reconciler puts again what waits for its start message
    assert await stage.rows("HubHistory", "a") == []
    with pytest.raises(StoreCorrupt, match=r"'a'.*blob of its input is gone"):
        await served.get_status("a")
    assert (await client.purge("a")).instances == 1
    assert await client.get_status("a") is None
    await store.close()


@on_stage
async def test_a_start_that_waits_and_is_purged_while_it_is_read(stage: Stage) -> None:
    """Its input was read as none."""
    client = await stage.host()
    store = client.store
    await stage.stop()
    await store.open()
    await client.start("waits", input=LARGE, instance_id="a")
    blobs = stage.account.blobs
    read = blobs.get_blob

    async def purged_first(container: str, name: str, **named: Any) -> bytes:
        blobs.get_blob = read  # type: ignore[method-assign]
        for blob in await stage.blobs():
            await blobs.delete_blob(container, blob)
        await stage.spoil("HubInstances", "a", "", None)
        return await read(container, name, **named)

    blobs.get_blob = purged_first  # type: ignore[method-assign]
    assert await client.get_status("a") is None
    await store.close()
