"""Instances in flight are handed from .NET to Holdtrue and back, all of its orchestrations in one hub."""

import asyncio
import json
from typing import Any

import pytest

from tests.dotnet import peer
from tests.dotnet.sides import Sides, begun, on, outcome, some_time
from tools.azurite import Azurite

pytestmark = peer.needed

STARTS: dict[str, tuple[str, Any]] = {
    "chain": ("Chain", 20),
    "fan": ("FanOut", 30),
    "timer": ("Timer", 5),
    "event": ("Event", None),
    "sent": ("Event", None),
    "race-won": ("Race", 600),
    "race-late": ("Race", 6),
    "parent": ("Parent", 4),
    "parent-catch": ("ParentCatch", None),
    "parent-anonymous": ("ParentAnonymous", None),
    "fire": ("FireAndForget", "fired"),
    "loop": ("Loop", 15),
    "adder": ("Adder", 5),
    "failing": ("Failing", "x"),
    "handling": ("Handling", "x"),
    "throwing": ("Throwing", None),
    "large": ("Large", 100),
    "reporting": ("Reporting", {"step": 1}),
    "nothing": ("Nothing", None),
    "hand-over": ("HandOver", 4),
    "singleton": ("Singleton", "m"),
    "retrying": ("Retrying", 1),
    "rewindable": ("Rewindable", None),
}
EVENTS = [
    ("event", "hello"),
    ("race-won", 1),
    ("adder", 7),
    ("adder", 0),
    ("reporting", 1),
    ("hand-over", 10),
]
"""Raised when the last side works."""
WANTED: dict[str, tuple[str, Any]] = {
    "chain": ("Completed", 20),
    "fan": ("Completed", sum(n * n for n in range(30))),
    "timer": ("Completed", 2),
    "event": ("Completed", "hello"),
    "sent": ("Completed", "from sender"),
    "sender": ("Completed", "sent"),
    "race-won": ("Completed", "1"),
    "race-late": ("Completed", "late"),
    "parent": ("Completed", 12),
    "parent-catch": ("Completed", "boom c"),
    "parent-anonymous": ("Completed", 2),
    "fire": ("Completed", "started"),
    "fired": ("Completed", 2),
    "loop": ("Completed", "done"),
    "adder": ("Completed", 12),
    "failing": ("Failed", "boom x"),
    "handling": ("Completed", "boom x"),
    "throwing": ("Failed", "thrown by the orchestration"),
    "reporting": ("Completed", "reported"),
    "nothing": ("Completed", None),
    "hand-over": ("Completed", 13),
    "singleton": ("Completed", "worked m"),
}
ROUTES = (("dotnet", "ours"), ("ours", "dotnet"), ("dotnet", "ours", "dotnet"))


async def start_all(sides: Sides) -> None:
    """Start one of each, as a .NET client does."""
    for name, (orchestration, given) in STARTS.items():
        await sides.dotnet("start", orchestration, name, *(() if given is None else (json.dumps(given),)))
    await sides.dotnet("start", "Sender", "sender", json.dumps({"to": "sent", "data": "from sender"}))


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
@pytest.mark.parametrize("route", ROUTES, ids="-".join)
def test_all_go_on_where_the_other_left_them(azurite: Azurite, route: tuple[str, ...], kill: bool) -> None:
    on(azurite, lambda sides: handed_over(sides, route, kill))


async def handed_over(sides: Sides, route: tuple[str, ...], kill: bool) -> None:
    """All of them, along a route."""
    await sides.dotnet("create-hub")
    entity = route[0] == "dotnet"
    worker = await sides.worker(route[0])
    starting = asyncio.ensure_future(start_all(sides))
    if entity:
        await sides.dotnet("signal", "counter@k", "add", "3")
    for side in route[1:]:
        await asyncio.sleep(some_time(4.0))
        ours = side == "dotnet"
        if side == route[-1] or not ours:
            await starting  # all of them are in flight, or have ended
        await sides.end(worker, kill=kill)
        if entity and ours:
            await sides.dotnet("signal", "counter@k", "add", "4")
        if ours and kill:
            settled = await sides.settle()
            assert settled.done, settled.obstacles
        worker = await sides.worker(side)
    for name, data in EVENTS:
        await begun(sides, name)
        await sides.dotnet("raise", name, "go", json.dumps(data))
    for name, (how, wanted) in WANTED.items():
        ended, output = await outcome(sides, name)
        if isinstance(output, str) and isinstance(wanted, str):
            output = output[-len(wanted) :]  # ours tells before it which activity failed
        assert (name, ended, output) == (name, how, wanted)
    how, attempts = await outcome(sides, "retrying")  # the activity fails twice in each process
    assert how == "Completed" or (len(route) == 3 and "flaky" in attempts)
    await rewound_until_it_completes(sides)
    how, text = await outcome(sides, "large")
    assert (how, len(text)) == ("Completed", 100 * 1024)
    if entity and route[-1] == "dotnet":
        assert "7" in json.dumps(await sides.dotnet("entity", "counter", "k"))


async def rewound_until_it_completes(sides: Sides) -> None:
    """Its activity fails twice in each process: once before a hand-over perhaps, and then twice here."""
    client = await sides.client()
    for _ in range(3):
        how, output = await outcome(sides, "rewindable")
        if how == "Completed":
            return
        assert "flaky" in output
        await client.rewind("rewindable", "once more")
    assert (await outcome(sides, "rewindable"))[0] == "Completed"
