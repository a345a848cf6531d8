"""A hub in memory shares nothing that can be changed: what goes in and what comes out are the caller's own."""

from typing import Any

import pytest

from holdtrue.core.projection import Status
from holdtrue.stores.memory import MemoryHub, MemoryStore
from holdtrue.stores.protocol import InstanceQuery, StoredSchedule, TickCommit
from tests.conformance.acting import (
    EVERY,
    Hub,
    act,
    begin,
    create,
    end,
    history_of,
    in_hub,
    lock_one,
    raised,
    record_of,
    send,
    start,
    tell,
)


@pytest.fixture
def hub(tmp_path) -> Hub:  # type: ignore[no-untyped-def]
    memory = MemoryHub()
    return Hub(lambda place, clock, lease: MemoryStore(memory, environment=clock, lease_seconds=lease), tmp_path)


def spoil(record: Any) -> None:
    """Change whatever can be changed of it."""
    record.projection.status = Status.TERMINATED
    record.projection.custom_status = "spoilt"
    record.length = record.size = 99
    record.condition = None


@in_hub
async def test_what_comes_out(hub: Hub) -> None:
    store = await hub.host()
    (outcome,) = await create(store, start("a", take=True))
    assert outcome.taken is not None
    outcome.taken.messages.clear()
    spoil(outcome.taken.record)
    await store.put_back([outcome.taken.lease])
    await send(store, raised("a", "e"))
    held = await lock_one(hub, store, "a")
    assert len(held.locked.messages) == 2
    held.locked.messages.clear()
    await held.step(act(0), tell(1, "nobody", "e"), custom='"c"')
    before = await record_of(store, "a")
    spoil(held.locked.record)
    spoil((await store.status(["a"]))[0])
    spoil((await store.query(InstanceQuery())).records[0])
    (await store.load(held.lease)).clear()
    async for piece in store.history("a"):
        piece.clear()  # type: ignore[attr-defined]
    (letter,) = await store.dead_letters()
    letter.number = 99
    assert await record_of(store, "a") == before
    assert len(await history_of(store, "a")) == len(await store.load(held.lease)) == before.length
    assert (await store.dead_letters())[0].number != 99


@in_hub
async def test_what_goes_in(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    commit = held.episode(act(0), custom='"c"')
    await held.commit(commit)
    before, history = await record_of(store, "a"), await history_of(store, "a")
    commit.projection.status = Status.FAILED
    commit.projection.custom_status = "spoilt"
    commit.events.clear()
    commit.activities.clear()
    assert await record_of(store, "a") == before and await history_of(store, "a") == history
    assert len(await store.activities_of("a")) == 1


@in_hub
async def test_schedules_both_ways(hub: Hub) -> None:
    store = await hub.open()
    mine = StoredSchedule(schedule_id="s", definition="{}", state="1", due=1, etag=0)
    etag = await store.put_schedule(mine, expect=None)
    assert etag is not None
    mine.state = "spoilt"
    (stored,) = await store.get_schedules()
    stored.state = "spoilt"
    (due,) = await store.get_schedules(5)
    assert due.state == "1"
    assert await store.commit_tick(TickCommit(schedule_id="s", etag=etag, state="2", due=None)) is None
    assert (due.state, [s.state for s in await store.get_schedules()]) == ("1", ["2"])


@in_hub
async def test_a_batch_that_cannot_be_applied_changes_nothing(hub: Hub) -> None:
    store = await hub.host()
    a, b = await begin(hub, store, "a"), await begin(hub, store, "b")
    good, bad = a.episode(end()), b.episode(act(0))
    bad.replace = True
    bad.events = bad.events[-1:]
    with pytest.raises(ValueError, match="'b'"):
        await store.commit([a.committing(good), b.committing(bad)])
    assert (await record_of(store, "a")).projection.status is Status.RUNNING
    await a.commit(good)


@in_hub
async def test_cancelled_timers_leave_nothing_behind(hub: Hub) -> None:
    from tests.conformance.acting import SECOND, timer

    store = await hub.host()
    assert isinstance(store, MemoryStore)
    held = await begin(hub, store, "a")
    for n in range(1_000):
        await held.step(timer(n, hub.now() + (2_000 - n) * SECOND))
        await held.step(cancel=(n,))
    assert (await store.fire_due(hub.now())).next_due is None
    assert len(store.hub._due) < 200
    await create(store, start("a", over=EVERY))
    assert (await store.info()).messages == 0
