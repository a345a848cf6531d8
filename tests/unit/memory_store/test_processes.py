"""Stores on one hub in memory are to each other as processes: they die, lose their leases, and hear of each other."""

import asyncio
import contextvars

import pytest

from holdtrue.core.projection import Status
from holdtrue.stores.errors import LeaseLost, StoreUnavailable
from holdtrue.stores.memory import MemoryHub, MemoryStore
from holdtrue.stores.protocol import ActivityResult, CommitResult, Notice
from tests.conformance.acting import (
    Hub,
    act,
    begin,
    create,
    done,
    end,
    in_hub,
    lock,
    lock_one,
    raised,
    record_of,
    send,
    start,
    status_of,
)
from tests.unit.memory_store.twins import SetClock


@pytest.fixture
def memory() -> MemoryHub:
    return MemoryHub("memory:test")


@pytest.fixture
def hub(memory: MemoryHub, tmp_path) -> Hub:  # type: ignore[no-untyped-def]
    return Hub(lambda place, clock, lease: MemoryStore(memory, environment=clock, lease_seconds=lease), tmp_path)


@in_hub
async def test_a_dead_one_is_found_at_the_next_renewal_and_not_before(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    held = await begin(hub, one, "a", act(0), act(1))
    (item,) = await one.lock_activities(1)
    await send(two, raised("a", "e"))
    assert isinstance(one, MemoryStore)
    one.die()
    assert await lock(hub, two) == {}
    assert await two.renew() == ["one"]
    heir = await lock_one(hub, two, "a")
    assert sorted(i.run for i in await two.lock_activities(10)) == [1, 2]
    # A request of the dead one's that was on its way arrives now.
    (late,) = await one.commit([held.committing(held.episode(end(output='"dead"')))])
    assert late.result is CommitResult.LEASE_LOST
    (answer,) = await one.complete([ActivityResult(ref=item.ref, event=done(item))])
    assert not answer.accepted
    with pytest.raises(LeaseLost):
        await one.renew()
    await heir.step(end(output='"heir"'))
    assert (await record_of(two, "a")).projection.output == '"heir"'
    assert await two.renew() == [] and (await two.info()).hosts == ["two"]


@in_hub
async def test_a_request_on_its_way_when_its_sender_died_still_counts_until_that_is_found(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    held = await begin(hub, one, "a")
    assert isinstance(one, MemoryStore)
    one.die()
    await held.step(end())
    assert await status_of(two, "a") is Status.COMPLETED


@in_hub
async def test_a_dead_one_tidies_nothing_up(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    await create(one, start("a"))
    await lock_one(hub, one, "a")
    assert isinstance(one, MemoryStore)
    one.die()
    await one.close()
    assert await lock(hub, two) == {}
    await two.renew()
    assert list(await lock(hub, two)) == ["a"]


@in_hub
async def test_notices_come_as_the_listener_and_not_to_the_dead(hub: Hub, memory: MemoryHub) -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")
    one, two = await hub.open(), await hub.open()
    heard: list[tuple[str, Notice]] = []
    who.set("listener")
    two.listen(lambda notice: heard.append((who.get(), notice)))
    who.set("actor")
    await create(one, start("a"))
    assert heard == []
    await asyncio.sleep(0)
    assert heard == [("listener", Notice(work=True))]
    await create(one, start("b"))
    assert isinstance(two, MemoryStore)
    two.die()
    await create(one, start("c"))
    await asyncio.sleep(0)
    assert len(heard) == 1


@in_hub
async def test_notices_can_be_held_up_and_dropped(hub: Hub, memory: MemoryHub) -> None:
    one, two = await hub.open(), await hub.open()
    heard: list[Notice] = []
    two.listen(heard.append)
    kept: list[tuple[MemoryStore, Notice]] = []
    memory.announce = lambda store, notice: kept.append((store, notice))
    await create(one, start("a"))
    await create(one, start("b"))
    await asyncio.sleep(0)
    assert heard == [] and [store for store, _ in kept] == [two, two]
    store, notice = kept[1]
    store.tell_soon(notice)
    await asyncio.sleep(0)
    assert heard == [notice]


def test_one_loop_at_a_time(memory: MemoryHub) -> None:
    async def open_one() -> MemoryStore:
        store = MemoryStore(memory)
        await store.open()
        return store

    other = asyncio.new_event_loop()
    first = other.run_until_complete(open_one())
    with pytest.raises(StoreUnavailable, match="memory:test"):
        asyncio.run(open_one())
    other.run_until_complete(first.close())
    asyncio.run(open_one())
    # That loop is over, though nobody closed its store.
    other.run_until_complete(open_one())
    other.close()


def test_the_same_deeds_make_the_same_hub(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Nothing depends on hashes, on a clock or on chance: copies of two hubs are the same bytes."""
    import itertools
    import random

    from tests.conformance import acting
    from tests.unit.memory_store.twins import Side, any_deed

    async def live(target: str) -> None:
        clock, hub, chance = SetClock(), MemoryHub(), random.Random(7)
        side = Side(clock, [MemoryStore(hub, environment=clock) for _ in range(2)])
        await side.open()
        for number in range(200):
            acting._numbers = itertools.count(number * 1_000)
            clock.ticks += chance.choice([1, acting.SECOND])
            await any_deed(chance)[1](side)
        await side.stores[0].backup(target)

    for name in ("one", "two"):
        asyncio.run(live(str(tmp_path / name)))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert len((tmp_path / "one").read_bytes()) > 2_000
