"""A hub whose partitions leases on blobs share out is handed over, and shared, between .NET and Holdtrue."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from holdtrue.stores.azure_storage.partitions import HubServedByDotNet
from tests.dotnet import peer
from tests.dotnet.sides import DONE_SECONDS, Sides, begun, on, outcome
from tests.dotnet.worker import open_store
from tools.azurite import Azurite

pytestmark = peer.needed

STARTS = {"hand-over": ("HandOver", 3), "chain": ("Chain", 12), "parent": ("Parent", 3), "adder": ("Adder", 5)}


async def leases(sides: Sides) -> dict[str, dict[str, object]]:
    """What the blobs say by their names, but for `taskhub.json`."""
    blobs = (await sides.store())._service.blobs
    container = "shared-leases"
    page, _ = await blobs.list_blobs(container, "")
    names = [info.name for info in page if "/" in info.name]
    return {name: json.loads(await blobs.get_blob(container, name) or b"") for name in names}


async def started(sides: Sides) -> None:
    await sides.dotnet("create-hub")
    for name, (orchestration, given) in STARTS.items():
        await sides.dotnet("start", orchestration, name, json.dumps(given))


async def refused(sides: Sides, by_table: bool) -> None:
    """A host of ours is, of either kind."""
    store = open_store(sides.connection, sides.hub, by_table=by_table)
    await store.open()
    with pytest.raises(HubServedByDotNet, match=r"the \.NET worker"):
        async with asyncio.timeout(DONE_SECONDS):
            await store.join("beside", [], [])
    await store.close()


async def ended(sides: Sides) -> None:
    for name, data in (("hand-over", 10), ("adder", 7), ("adder", 0)):
        await begun(sides, name)
        await sides.dotnet("raise", name, "go", json.dumps(data))
    wanted = {"hand-over": 13, "chain": 12, "parent": 9, "adder": 12}
    for name, output in wanted.items():
        assert (name, *await outcome(sides, name)) == (name, "Completed", output)


async def stopped(sides: Sides, before: str, after: str) -> None:
    """What one leaves after its stop the other ends."""
    first = await sides.worker(before)
    await begun(sides, "adder")
    await sides.end(first, kill=False)
    left = await leases(sides)
    assert len(left) == 4 and all(one["Owner"] is one["Token"] is None for one in left.values()), left
    assert all(one["Epoch"] == 1 for one in left.values())
    await sides.worker(after)
    await ended(sides)
    held = await leases(sides)
    assert {str(one["Owner"]).startswith("holdtrue-") for one in held.values()} == {after == "ours"}
    assert all(one["Epoch"] == 2 for one in held.values())


async def killed(sides: Sides) -> None:
    """Ours refuses beside a live one, waits for what a killed one has left, and is killed and settled itself."""
    theirs = await sides.worker("dotnet")
    await begun(sides, "adder")
    await asyncio.gather(*(refused(sides, by_table) for by_table in (False, True)))
    await sides.end(theirs, kill=True)
    ours = await sides.worker("ours")
    await sides.end(ours, kill=True)
    settled = await sides.settle()
    assert settled.done, settled.obstacles
    await sides.worker("dotnet")
    await ended(sides)


SCENARIOS: dict[str, Callable[[Sides], Awaitable[None]]] = {
    "dotnet-ours": lambda sides: stopped(sides, "dotnet", "ours"),
    "ours-dotnet": lambda sides: stopped(sides, "ours", "dotnet"),
    "killed": killed,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One of them, or all with `--whole` (`make soak`)."""
    metafunc.parametrize("name", list(SCENARIOS)[: None if metafunc.config.getoption("--whole") else 1])


def test_a_hub_is_handed_over(azurite: Azurite, name: str) -> None:
    async def scenario(sides: Sides) -> None:
        await started(sides)
        await SCENARIOS[name](sides)

    on(azurite, scenario, by_table=False)
