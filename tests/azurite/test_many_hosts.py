"""Whole hosts that come to a hub on the emulator and leave it, while instances go on."""

import asyncio

from tests.azurite.test_store import Hub, chain, on_hub


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
