"""Only one engine serves a hub (rule 15): each keeps the other out while it lives, and takes over when it stopped."""

import asyncio
import subprocess
from typing import Any

import pytest

from holdtrue.stores.azure_storage.app_lease import dotnet_lease_id, own_lease_id
from holdtrue.stores.azure_storage.http.connection import from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.names import HubNames
from holdtrue.stores.azure_storage.partitions import OUR_PREFIX, HubServed, HubServedByDotNet, is_lease
from tests.dotnet import peer
from tests.dotnet.sides import Sides, on, outcome
from tests.dotnet.worker import open_store
from tools.azurite import Azurite

pytestmark = peer.needed

LOOKS = 10
"""So often a .NET worker that is kept out of the partitions would have looked for them; one a second."""
PROBE = "00000000-0000-0000-0000-000000000001"


async def owners(sides: Sides) -> set[Any]:
    """The owners in the partitions table."""
    store = await sides.store()
    rows = (await store._service.tables.query(f"{sides.hub}Partitions")).rows
    return {row.values.get("CurrentOwner") for row in rows if is_lease(row)}


async def all_owned(sides: Sides) -> set[Any]:
    """The same, when all have one."""
    while None in (found := await owners(sides)):
        await asyncio.sleep(0.2)
    return found


def test_ours_refuses_beside_a_live_dotnet_worker(azurite: Azurite) -> None:
    on(azurite, ours_refuses)


async def ours_refuses(sides: Sides) -> None:
    """The error says whose worker it is; that one is not disturbed."""
    await sides.dotnet("create-hub")
    await sides.worker("dotnet")
    (owner,) = await all_owned(sides)
    store = open_store(sides.connection, sides.hub)
    await store.open()
    with pytest.raises(HubServedByDotNet, match=f"'{owner}' serves '{sides.hub.lower()}-control-0"):
        await store.join("h", [], [])
    await store.close()
    with pytest.raises(HubServed, match=str(owner)):
        await sides.settle()
    await sides.dotnet("start", "Chain", "chain", "2")
    assert await outcome(sides, "chain") == ("Completed", 2)
    assert await owners(sides) == {owner}


def test_dotnet_is_kept_out_while_ours_serves(azurite: Azurite) -> None:
    on(azurite, dotnet_is_kept_out)


async def dotnet_is_kept_out(sides: Sides) -> None:
    """By the app lease: it owns nothing, and takes nothing."""
    await sides.dotnet("create-hub")
    await sides.worker("ours")
    await all_owned(sides)
    command = [str(peer.PROGRAM), "worker", "--hub", sides.hub, "--conn", sides.connection, *peer.options()]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for number in range(LOOKS):
            await sides.dotnet("start", "Chain", f"chain{number}", "2")
            assert await outcome(sides, f"chain{number}") == ("Completed", 2)
            await asyncio.sleep(1.0)
            assert all(owner.startswith(OUR_PREFIX) for owner in await all_owned(sides))
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_the_lease_of_a_stopped_dotnet_worker_is_taken_over(azurite: Azurite) -> None:
    on(azurite, lease_taken_over)


async def lease_taken_over(sides: Sides) -> None:
    """It is held for up to a minute after that, under .NET's id; ours changes the id, and needs not wait."""
    await sides.dotnet("create-hub")
    worker = await sides.worker("dotnet")
    await all_owned(sides)
    await sides.end(worker, kill=False)
    service, names = HttpService(from_connection_string(sides.connection)), HubNames(sides.hub)
    await service.open()
    assert not await service.blobs.acquire_lease(names.app_lease, None, 15, PROBE), "the worker has released it"
    store = open_store(sides.connection, sides.hub)
    await store.open()
    await store.join("h", [], [])
    assert not await service.blobs.renew_lease(names.app_lease, None, dotnet_lease_id(""))
    assert await service.blobs.renew_lease(names.app_lease, None, own_lease_id(""))
    await store.close()
    assert await service.blobs.acquire_lease(names.app_lease, None, 15, PROBE)
    await service.close()
