"""Whole hosts that come to a hub on the emulator and leave it, while instances go on."""

import asyncio

import msgspec

from tests.azurite.test_store import SETTINGS, Hub, chain, on_hub


def shares(hub: Hub) -> list[int]:
    """How many of the two partitions each host has."""
    return [sum(map(host.store._is_mine, range(2))) for host in hub._hosts]  # type: ignore[attr-defined]


async def shared(hub: Hub, *wanted: int) -> None:
    while sorted(shares(hub)) != sorted(wanted):
        await asyncio.sleep(0.1)


@on_hub
async def test_hosts_come_and_go(hub: Hub) -> None:
    client = await hub.client()
    await hub.host("one")
    started = [await client.start(chain, input=30, instance_id=f"i{number}") for number in range(8)]
    await shared(hub, 2)
    await hub.host("two")
    await shared(hub, 1, 1)
    await hub.host("three")
    await asyncio.sleep(3)
    await shared(hub, 0, 1, 1)
    await hub._hosts.pop(0).stop()
    await shared(hub, 1, 1)
    await hub._hosts.pop(0).stop()
    await shared(hub, 2)
    for instance_id in started:
        assert (await client.wait_for_completion(instance_id, timeout=60)).output == 30


@on_hub
async def test_hosts_whose_processes_renew_leases_on_blobs(hub: Hub) -> None:
    """For longer than such a lease lasts: it is renewed by what runs beside each host."""
    hub.settings = msgspec.structs.replace(
        SETTINGS, use_table_partition_management=False, lease_interval=15.0, lease_acquire_interval=1.0
    )
    hub.renewed_by_process = True
    client = await hub.client()
    await hub.host("one")
    await shared(hub, 2)
    await hub.host("two")
    await shared(hub, 1, 1)
    started = [await client.start(chain, input=30, instance_id=f"i{number}") for number in range(8)]
    ends = asyncio.get_running_loop().time() + 16
    while asyncio.get_running_loop().time() < ends:
        assert shares(hub) == [1, 1]
        await asyncio.sleep(0.5)
    await hub._hosts.pop(0).stop()
    await shared(hub, 2)
    for instance_id in started:
        assert (await client.wait_for_completion(instance_id, timeout=60)).output == 30
