"""`hub settle` on the model account: whenever the host died, whenever the settling itself dies."""

import asyncio
from datetime import timedelta
from functools import cache
from itertools import groupby
from typing import Any

import pytest
from settled_hub import NAMES, WANTED, World, completed, died, difference, held

from holdtrue.stores.azure_storage.settling import Obstacle
from holdtrue.testing.storage_faults import OF_WRITES, READS, Call, CallFault, Mishap
from holdtrue.testing.virtual_time import as_part

EARLY = [Obstacle("later", "it has not begun, and 1 messages wait for it, which .NET would lose")]
ALIKE = 2
"""Of more calls in a row to one place only the first and the last so many are disturbed."""


HOSTS_DIED_AT = range(10, 310, 25)
"""Calls of the account."""


@pytest.mark.parametrize("at", HOSTS_DIED_AT)
@pytest.mark.parametrize("mishap", [Mishap.CRASH_BEFORE, Mishap.CRASH_AFTER])
def test_who_knows_only_what_dotnet_knows_goes_on(at: int, mishap: Mishap) -> None:
    world = died(at, at, mishap)
    settled = world.in_time(world.settle())
    assert settled is not None
    assert settled.done
    assert settled.obstacles == EARLY
    left = {one.instance_id for one in settled.obstacles}
    for partition, key, values in held(world)[NAMES.history]:
        if partition in settled.ready:
            assert key != "sentinel" or "Holdtrue" not in values
            assert not key.startswith("~")
        elif partition in left:
            assert "Holdtrue" in values
    outputs = completed(world)
    assert sorted(outputs.pop("listener")) == WANTED["listener"]  # the account gives messages in any order
    assert outputs.pop("again") in ("1", "2", "3")
    assert outputs == {name: WANTED[name] for name in outputs}


DIED_AT = (130, 240)
"""While a large fan-out is being written, and while its results come in."""


@cache
def after(at: int) -> tuple[World, dict[str, Any], list[Call]]:
    """The hub as the host left it, as one settling leaves it, and the calls of that."""
    world = died(at, at, Mishap.CRASH_AFTER)
    settled = world.copy()
    assert settled.in_time(settled.settle()) is not None
    calls = [call for call in settled.calls if call.part == "settle"]
    return world, held(settled), calls


def some(calls: list[Call], mishap: Mishap, whole: bool) -> list[Call]:
    """The calls, but of many alike in a row the first and the last; not the `whole`: every third, others by mishap."""
    found: list[Call] = []
    for _, alike in groupby(calls, lambda call: call.kind):
        group = list(alike)
        found += group if len(group) <= 2 * ALIKE else [*group[:ALIKE], *group[-ALIKE:]]
    return found if whole else found[list(Mishap).index(mishap) % 3 :: 3]


@pytest.fixture
def whole(request: pytest.FixtureRequest) -> bool:
    """Whether there is time for all of it."""
    return bool(request.config.getoption("--whole"))


@pytest.mark.parametrize("at", DIED_AT)
@pytest.mark.parametrize("mishap", [Mishap.CRASH_BEFORE, Mishap.CRASH_AFTER])
def test_killed_at_any_call_and_run_again_it_ends_the_same(at: int, mishap: Mishap, whole: bool) -> None:
    world, wanted, calls = after(at)
    for call in some(calls, mishap, whole):
        if mishap is Mishap.CRASH_BEFORE and call.verb in READS:
            continue
        again = world.copy()

        async def twice(again: World = again, point: int = call.point) -> None:
            assert await again.settle([CallFault(part="settle", point=point, mishap=mishap)]) is None
            assert await again.settle(name="second") is not None

        again.in_time(twice())
        assert difference(held(again), wanted) == [], f"{mishap} at call {call.point}, {call.kind}"


@pytest.mark.parametrize("mishap", [Mishap.REFUSED, Mishap.LOST, Mishap.RESENT])
def test_whatever_is_answered_it_ends_the_same(mishap: Mishap, whole: bool) -> None:
    world, wanted, calls = after(DIED_AT[0])
    for call in some(calls, mishap, whole):
        if call.verb in READS and mishap in OF_WRITES:
            continue
        again = world.copy()

        async def until_done(again: World = again, point: int = call.point) -> None:
            fault = [CallFault(part="settle", point=point, mishap=mishap)]
            assert await again.settle(fault) is not None or await again.settle(name="second") is not None

        again.in_time(until_done())
        assert difference(held(again), wanted) == [], f"{mishap} at call {call.point}, {call.kind}"


def test_nothing_is_handed_over_beside_an_obstacle_unless_it_may_be_left() -> None:
    world = died(1, 150, Mishap.CRASH_AFTER)
    settled = world.in_time(world.settle(leave=False))
    assert settled is not None
    assert not settled.done
    assert settled.obstacles == EARLY
    rows = held(world)[NAMES.history]
    assert all("Holdtrue" in values for _, key, values in rows if key == "sentinel")
    assert {name for name, *_ in rows} >= {"chain", "fan", "listener"}


@pytest.mark.parametrize("early", [False, True])
def test_a_drain_says_whether_dotnet_would_miss_anything(early: bool, caplog: pytest.LogCaptureFixture) -> None:
    world = World(1)

    async def main() -> None:
        part, host = await world.host()
        client = await world.client()
        await client.start("chain", input=1, instance_id="chain")
        await client.wait_for_completion("chain", timeout=60)
        if early:
            await client.start("listener", input=1, instance_id="later", start_at=timedelta(seconds=600))
            await client.raise_event("later", "Go", data="early")
            await asyncio.sleep(5.0)
        with as_part(part):
            await asyncio.ensure_future(host.stop())

    with caplog.at_level("INFO", "holdtrue.azure_storage"):
        world.in_time(main())
    said = [one.getMessage() for one in caplog.records if ".NET workers" in one.getMessage()]
    assert len(said) == 1
    assert ("'later'" in said[0] and "hub settle" in said[0]) == early
