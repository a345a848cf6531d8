"""Hubs that the .NET code of June 2025 left behind with wrong rows: read true at once, mended without any message."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

import holdtrue
from examples.stale_running import recorded_hubs
from examples.stale_running.old_order import OldOrder
from holdtrue.client.status import InstanceStatus
from holdtrue.core.projection import Status
from holdtrue.engine.settings import HostSettings
from holdtrue.environment import REAL
from holdtrue.stores.azure_storage.creating import create_hub
from holdtrue.stores.azure_storage.http.connection import Connection, from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.instances_row import InstancesRow, read_row
from holdtrue.stores.azure_storage.names import HubNames
from holdtrue.stores.azure_storage.reconciling import Pace
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing.storage_proxy import ANSWER_LOST, Seen, StorageProxy
from tools.azurite import Azurite

PACE = Pace(every_seconds=0.3, requests_a_minute=60_000.0, fresh_seconds=1.0)
SETTINGS = AzureStorageSettings(max_queue_polling_interval=0.5, lease_interval=6.0, lease_acquire_interval=1.0)

WORKED = '"worked {{\\n  \\"minute\\": {}\\n}}"'
TRUE: dict[str, dict[str, tuple[Status, str | None]]] = {
    "StuckRunning": {"job": (Status.COMPLETED, WORKED.format(1))},
    "StuckHelpless": {"job": (Status.COMPLETED, WORKED.format(1))},
    "StuckAgain": {"job": (Status.COMPLETED, WORKED.format(2))},
    "StuckFailed": {"job": (Status.FAILED, "boom x")},
    "StuckTerminated": {"job": (Status.TERMINATED, "stop")},
    "StuckChild": {
        "parent": (Status.COMPLETED, "6"),
        "parent:child:0": (Status.COMPLETED, "3"),
        "parent:child:1": (Status.COMPLETED, "3"),
    },
    "SplitMiddle": {"job": (Status.COMPLETED, "3")},
}
"""What the histories say: how each instance ended, and with what."""
WRONG = {
    name: "parent:child:1" if name == "StuckChild" else "job"
    for name in TRUE
    if name not in ("StuckAgain", "SplitMiddle")
}
"""The instance whose row says Running."""


class Left(msgspec.Struct):
    """A hub that was left behind: what Holdtrue read, its rows as they were, and as it mended them."""

    read: dict[str, InstanceStatus]
    listed_as_running: list[str]
    before: dict[str, InstancesRow]
    after: dict[str, InstancesRow]


@asynccontextmanager
async def opened(connection: Connection, hub: str, **given: Any) -> AsyncIterator[AzureStorageStore]:
    store = AzureStorageStore(HttpService(connection), hub, **given)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def rows_of(service: HttpService, hub: str) -> dict[str, InstancesRow]:
    rows = (await service.tables.query(f"{hub}Instances")).rows
    return {row.partition: read_row(row.values) for row in rows}


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(90):
        while not await holds():
            await asyncio.sleep(0.1)


async def taken_over(azurite: Azurite, name: str) -> Left:
    """Put a recorded hub into an account; read it; then let a host mend it, which has no code of anything."""
    connection = from_connection_string(azurite.connection_string(azurite.new_account()))
    service, hub = HttpService(connection), recorded_hubs.hub_of(name)
    await service.open()
    try:
        await recorded_hubs.put(service, name)
        before = await rows_of(service, hub)
        async with opened(connection, hub) as store:
            client = holdtrue.Client(store)
            read = {row: await client.get_status(row) for row in before}
            running = await client.query_page(statuses=[Status.RUNNING])
        async with (
            opened(connection, hub, settings=SETTINGS, pace=PACE) as store,
            holdtrue.Host(holdtrue.App(), store, settings=HostSettings(name="mender", retention=False)),
        ):

            async def mended() -> bool:
                rows = await rows_of(service, hub)
                return all(row.status is TRUE[name][of][0] for of, row in rows.items())

            await until(mended)
        return Left(
            read={row: status for row, status in read.items() if status is not None},
            listed_as_running=[item.instance_id for item in running.items],
            before=before,
            after=await rows_of(service, hub),
        )
    finally:
        await service.close()


@pytest.fixture(scope="module")
def left(azurite: Azurite) -> dict[str, Left]:
    async def main() -> dict[str, Left]:
        return dict(zip(TRUE, await asyncio.gather(*(taken_over(azurite, name) for name in TRUE)), strict=True))

    return asyncio.run(main())


@pytest.mark.parametrize("name", TRUE)
def test_it_reads_true_before_any_host_is_there(left: dict[str, Left], name: str) -> None:
    found = left[name]
    told = {
        row: (status.runtime_status, status.failure.message if status.failure else status.serialized_output)
        for row, status in found.read.items()
    }
    assert told == TRUE[name]
    assert not found.listed_as_running
    wrong = [row for row, values in found.before.items() if values.status is not TRUE[name][row][0]]
    assert wrong == [WRONG[name]] if name in WRONG else not wrong


@pytest.mark.parametrize("name", TRUE)
def test_it_is_mended_without_a_message_and_whole(left: dict[str, Left], name: str) -> None:
    """A mended row says all that .NET would have written at the end; the others are left alone."""
    found = left[name]
    for instance_id, row in found.after.items():
        before = found.before[instance_id]
        if instance_id != WRONG.get(name):
            assert row == before
            continue
        status = found.read[instance_id]
        assert status.completed_at is not None
        expected = msgspec.structs.replace(
            before,
            status=TRUE[name][instance_id][0],
            output=TRUE[name][instance_id][1],
            last_updated_at=row.last_updated_at,
            completed_at=row.completed_at,
            parent_id="parent" if name == "StuckChild" else None,
            start_id=row.start_id,
        )
        assert row == expected
        assert row.completed_at is not None and before.last_updated_at < row.completed_at <= row.last_updated_at


def test_an_instance_in_flight_that_has_an_answer_twice_goes_on(azurite: Azurite) -> None:
    """The failure in the middle of a run mends itself, with an answer written twice; Holdtrue goes on from it."""
    app = holdtrue.App()

    @app.activity(name="AddOne")
    async def add_one(ctx: holdtrue.ActivityContext, number: list[int]) -> int:
        return number[0] + 1

    @app.orchestrator(name="Chain")
    async def chain(ctx: holdtrue.OrchestrationContext, count: int) -> int:
        number = 0
        for _ in range(count):
            number = await ctx.call_activity(add_one, input=[number])
        return number

    async def main() -> int:
        account, hub = azurite.new_account(), "Middle"
        connection = from_connection_string(azurite.connection_string(account))
        direct = HttpService(connection)
        await direct.open()
        async with StorageProxy(azurite.ports) as proxy:
            spoiled = HttpService(from_connection_string(azurite.connection_string(account, proxy.ports)))
            await spoiled.open()
            await create_hub(direct, HubNames(hub), 4, REAL)
            proxy.spoil(_second_commit, ANSWER_LOST)
            old = OldOrder(spoiled, hub, back_off=3.0)
            await old.start("Chain", "job", "6")

            async def twice() -> bool:
                await old.step()
                rows = (await direct.tables.query(f"{hub}History")).rows
                return [row.values.get("TaskScheduledId") for row in rows].count(0) == 2

            await until(twice)
            await spoiled.close()
        async with (
            opened(connection, hub, settings=SETTINGS, pace=PACE) as store,
            holdtrue.Host(app, store, settings=HostSettings(name="next", retention=False, drain_seconds=1.0)) as host,
        ):
            status = await host.client.wait_for_completion("job", timeout=90)
        await direct.close()
        return int(status.output)

    assert asyncio.run(main()) == 6


def _second_commit(seen: Seen) -> bool:
    return seen.about.kind == "table transact history" and b"0000000000000004" in seen.request.body


def test_an_end_that_was_replayed_is_still_the_first_one(azurite: Azurite) -> None:
    """With allowReplayingTerminalInstances a terminate request writes a second end behind the first, and its row."""

    async def main() -> tuple[Any, Status, list[Any]]:
        connection = from_connection_string(azurite.connection_string(azurite.new_account()))
        service, hub = HttpService(connection), recorded_hubs.hub_of("StuckRunning")
        await service.open()
        await recorded_hubs.put(service, "StuckRunning")
        old = OldOrder(service, hub, replay_terminal=True)
        await old.terminate("job", "stop")

        async def ended() -> bool:
            await old.step()
            return await old.status("job") == "Terminated"

        await until(ended)
        row = (await rows_of(service, hub))["job"]
        async with opened(connection, hub) as store:
            client = holdtrue.Client(store)
            status = await client.get_status("job")
            history = [event async for event in client.history("job")]
        await service.close()
        return status, row.status, history

    status, row, history = asyncio.run(main())
    assert row is Status.TERMINATED
    assert (status.runtime_status, status.serialized_output) == (Status.COMPLETED, WORKED.format(1))
    assert len(history) == 8
