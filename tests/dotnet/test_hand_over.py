"""Instances in flight are handed from .NET to Holdtrue and back: all of its orchestrations in one hub, and with
`--whole` (`make soak`) each of them alone too."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.dotnet import peer
from tests.dotnet.sides import Sides, begun, on, outcome, serves, some_time, there
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
STARTED_BY = {"sender": "sent", "fired": "fire"}
"""What stands and falls with another."""
ROUTES = (("dotnet", "ours"), ("ours", "dotnet"), ("dotnet", "ours", "dotnet"))
WAYS = [(route, kill) for route in ROUTES for kill in (False, True)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each way to hand over, and for each all at once; with `--whole` each orchestration alone too."""
    groups: dict[str, tuple[str, ...]] = {"all": tuple(STARTS)}
    if metafunc.config.getoption("--whole"):
        groups |= {name: (name,) for name in STARTS}
    metafunc.parametrize("names", [pytest.param(names, id=id) for id, names in groups.items()])
    ways = [pytest.param(*way, id="-".join((*way[0], "killed" if way[1] else "stopped"))) for way in WAYS]
    metafunc.parametrize(("route", "kill"), ways)


async def start(sides: Sides, names: Sequence[str]) -> None:
    """Start one of each, as a .NET client does."""
    for name in names:
        orchestration, given = STARTS[name]
        await sides.dotnet("start", orchestration, name, *(() if given is None else (json.dumps(given),)))
    if "sent" in names:
        await begun(sides, "sent")  # by whichever worker is there: what comes before its start, .NET loses
        await sides.dotnet("start", "Sender", "sender", json.dumps({"to": "sent", "data": "from sender"}))


def test_they_go_on_where_the_other_left_them(
    azurite: Azurite, names: tuple[str, ...], route: tuple[str, ...], kill: bool
) -> None:
    on(azurite, lambda sides: handed_over(sides, names, route, kill))


async def handed_over(sides: Sides, names: Sequence[str], route: tuple[str, ...], kill: bool) -> None:
    """Some of them, along a route."""
    await sides.dotnet("create-hub")
    entity = route[0] == "dotnet" and len(names) > 1
    worker = await sides.worker(route[0])
    starting = asyncio.ensure_future(start(sides, names))
    if entity:
        await sides.dotnet("signal", "counter@k", "add", "3")
    for side in route[1:]:
        await asyncio.sleep(some_time(4.0 if len(names) > 1 else 1.5))
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
    for name, data in [event for event in EVENTS if event[0] in names]:
        await begun(sides, name)
        await sides.dotnet("raise", name, "go", json.dumps(data))
    for name, (how, wanted) in WANTED.items():
        if STARTED_BY.get(name, name) not in names:
            continue
        await there(sides, name)
        ended, output = await outcome(sides, name)
        if isinstance(output, str) and isinstance(wanted, str):
            output = output[-len(wanted) :]  # ours tells before it which activity failed
        assert (name, ended, output) == (name, how, wanted)
    if "retrying" in names:
        how, attempts = await outcome(sides, "retrying")  # the activity fails twice in each process
        assert how == "Completed" or (len(route) == 3 and "flaky" in attempts)
    if "rewindable" in names:
        await serves(sides, route[-1])
        await rewound_until_it_completes(sides)
    if "large" in names:
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
