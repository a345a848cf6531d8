"""Clients of one side while the other side's workers run."""

import asyncio
import json
from typing import Any

from holdtrue.core.projection import Status
from tests.dotnet import peer
from tests.dotnet.sides import DONE_SECONDS, Sides, begun, on, outcome
from tools.azurite import Azurite

pytestmark = peer.needed

TIMES = 20


def test_a_dotnet_client_beside_our_worker(azurite: Azurite) -> None:
    on(azurite, dotnet_client)


async def dotnet_client(sides: Sides) -> None:
    """It starts, reads, raises, suspends, terminates, rewinds and purges."""
    await sides.dotnet("create-hub")
    await sides.worker("ours")
    client = await sides.client()

    await sides.dotnet("start", "Chain", "chain", "3")
    assert _shows(await sides.dotnet("wait", "chain", "120"), "Completed", "3")

    await sides.dotnet("start", "Event", "event")
    await begun(sides, "event")
    await sides.dotnet("suspend", "event", "a while")
    while (await client.get_status("event")).runtime_status is not Status.SUSPENDED:
        await asyncio.sleep(0.2)
    await sides.dotnet("raise", "event", "go", json.dumps("hello"))
    await sides.dotnet("resume", "event", "on")
    assert _shows(await sides.dotnet("wait", "event", "120"), "Completed", "hello")

    await sides.dotnet("start", "Event", "ended")
    await begun(sides, "ended")
    await sides.dotnet("terminate", "ended", "enough")
    assert _shows(await sides.dotnet("wait", "ended", "120"), "Terminated", "enough")

    await sides.dotnet("start", "Rewindable", "rewound")
    for attempt in range(2):
        while f"flaky {attempt}" not in json.dumps(await sides.dotnet("status", "rewound")):
            await asyncio.sleep(0.2)
        await sides.dotnet("rewind", "rewound", "once more")
    while (await client.get_status("rewound")).runtime_status is not Status.COMPLETED:
        await asyncio.sleep(0.2)
    assert (await outcome(sides, "rewound")) == ("Completed", 4)

    await sides.dotnet("purge", "chain")
    assert await client.get_status("chain") is None


def test_our_client_beside_a_dotnet_worker(azurite: Azurite) -> None:
    on(azurite, our_client)


async def our_client(sides: Sides) -> None:
    """It does the same."""
    await sides.dotnet("create-hub")
    await sides.worker("dotnet")
    client = await sides.client()

    await client.start("Chain", input=3, instance_id="chain")
    assert (await outcome(sides, "chain")) == ("Completed", 3)

    await client.start("Event", instance_id="event")
    await begun(sides, "event")
    await client.suspend("event", "a while")
    while (await client.get_status("event")).runtime_status is not Status.SUSPENDED:
        await asyncio.sleep(0.2)
    await client.raise_event("event", "go", data="hello")
    await client.resume("event", "on")
    assert (await outcome(sides, "event")) == ("Completed", "hello")

    await client.start("Event", instance_id="ended")
    await begun(sides, "ended")
    await client.terminate("ended", output="enough")
    how, _ = await outcome(sides, "ended")
    assert how == "Terminated"

    await client.start("Rewindable", instance_id="rewound")
    for attempt in range(2):
        while not _failed_so(await client.get_status("rewound"), f"flaky {attempt}"):
            await asyncio.sleep(0.2)
        await client.rewind("rewound", "once more")
    assert (await outcome(sides, "rewound")) == ("Completed", 4)

    await client.purge("chain")
    assert await client.get_status("chain") is None
    assert await sides.dotnet("status", "chain") is None


def test_our_client_starts_anew_what_dotnet_has_just_ended(azurite: Azurite) -> None:
    """At that moment .NET has yet to write the row of the end, which must not stand over the new start."""
    on(azurite, started_anew)


async def started_anew(sides: Sides) -> None:
    """Each start runs, and none is run twice."""
    await sides.dotnet("create-hub")
    await sides.worker("dotnet")
    client = await sides.client()
    for number in range(TIMES):
        await client.start("Singleton", input=str(number), instance_id="job")
        async with asyncio.timeout(DONE_SECONDS):
            while (status := await client.get_status("job")).runtime_status is not Status.COMPLETED:
                await asyncio.sleep(0.01)
        assert status.output == f"worked {number}"


def _failed_so(status: Any, text: str) -> bool:
    return status.runtime_status is Status.FAILED and text in status.failure.message


def _shows(state: Any, status: str, text: str) -> bool:
    """Whether a state of the .NET client's says so."""
    shown = json.dumps(state)
    assert status in shown, shown
    assert text in shown, shown
    return True
