"""Copies of a hub in memory, and where hubs in memory are found."""

import json
from pathlib import Path

import pytest

from holdtrue.core import events as ev
from holdtrue.core.messages import OutboundMessage
from holdtrue.core.projection import Condition
from holdtrue.stores.errors import SchemaTooNew, StoreCorrupt, StoreError, StoreMissing, StoreUnavailable
from holdtrue.stores.locate import open_store
from holdtrue.stores.memory import MemoryHub, MemoryStore, read_backup
from holdtrue.stores.protocol import StoredSchedule, Tick, TickCommit
from tests.conformance.acting import (
    SECOND,
    Hub,
    act,
    begin,
    child,
    create,
    end,
    fail,
    history_of,
    in_hub,
    kinds,
    lock,
    raised,
    record_of,
    rewind,
    send,
    start,
    tell,
    terminate,
    timer,
)


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    memory = MemoryHub()
    return Hub(lambda place, clock, lease: MemoryStore(memory, environment=clock, lease_seconds=lease), tmp_path)


@in_hub
async def test_everything_is_in_a_copy_and_nobody_holds_anything(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "bad", fail(), input='"in"', tags={"k": "v"})
    await begin(hub, store, "busy", act(0), timer(1, hub.now() + 50 * SECOND), child(2, "c"), tell(3, "nobody", "e"))
    (item,) = await store.lock_activities(1)
    await store.report(item.ref, '"half"', '"here"')
    await send(store, raised("busy", "one"), raised("busy", "two"))
    await send(store, rewind("bad"))
    held = (await lock(hub, store))["c"]
    await send(store, terminate("c"))
    await store.park([held.lease], Condition(kind="held", reason="why"))
    late = OutboundMessage(instance_id="busy", event=ev.EventRaised(timestamp=1, name="late"), due=hub.now() + SECOND)
    await send(store, late)
    etag = await store.put_schedule(
        StoredSchedule(schedule_id="s", definition="{}", state="1", due=7, etag=0), expect=None
    )
    assert etag is not None
    tick = Tick(schedule_id="s", due=7, decided_at=8, decision="started")
    await store.commit_tick(TickCommit(schedule_id="s", etag=etag, state="2", due=9, tick=tick))
    target = str(hub._place / "copy.json")
    await store.backup(target)

    memory = read_backup(target)
    other = MemoryStore(memory, environment=hub.clock)
    await other.open()
    try:
        for instance_id in ("busy", "bad", "c"):
            found, first = await record_of(other, instance_id), await record_of(store, instance_id)
            found.waits_for_worker = first.waits_for_worker
            assert found == first
            assert await history_of(other, instance_id) == await history_of(store, instance_id)
        assert await other.children("busy") == ["c"]
        assert await other.dead_letters() == await store.dead_letters()
        assert await other.get_schedules() == await store.get_schedules()
        assert await other.ticks("s") == [tick]
        figures, before = await other.info(), await store.info()
        assert figures.hosts == []
        assert (figures.instances, figures.messages, figures.activities) == (
            before.instances, before.messages, before.activities,
        )  # fmt: skip
        await other.join("other", ["code", "child"], ["act"])
        held_there = await lock(hub, other)
        assert sorted(held_there) == ["bad", "busy", "c"]
        assert [m.event.name for m in held_there["busy"].inbox] == ["one", "two"]  # type: ignore[attr-defined]
        assert kinds([m.event for m in held_there["bad"].inbox]) == ["ExecutionRewound"]
        (again,) = await other.lock_activities(5)
        assert (again.task, again.run, again.details) == (item.task, 2, '"here"')
        hub.clock.ahead = 60
        fired = [d.message.event for d in (await other.fire_due(hub.now())).deliveries]
        assert kinds(fired) == ["EventRaised", "TimerFired"]
        # Nothing of the one is the other's.
        await held_there["busy"].step(end())
        assert (await record_of(store, "busy")).projection.completed_at is None
    finally:
        await other.close()


@in_hub
async def test_a_copy_takes_no_files_place_and_says_where_it_cannot_be(hub: Hub) -> None:
    store = await hub.open()
    target = hub._place / "copy.json"
    target.write_text("mine")
    with pytest.raises(StoreError, match=r"copy\.json"):
        await store.backup(str(target))
    assert target.read_text() == "mine"
    with pytest.raises(StoreUnavailable, match="nowhere"):
        await store.backup(str(hub._place / "nowhere" / "copy.json"))


@in_hub
async def test_what_is_no_copy_is_told(hub: Hub) -> None:
    store = await hub.host()
    await create(store, start("a"))
    target = hub._place / "copy.json"
    await store.backup(str(target))
    text = target.read_text()
    with pytest.raises(StoreMissing):
        read_backup(str(hub._place / "other.json"))
    for broken in ("", "{}", text[: len(text) // 2], text.replace('"instances"', '"instance"')):
        target.write_text(broken)
        with pytest.raises(StoreCorrupt, match=r"copy\.json"):
            read_backup(str(target))
    newer = json.loads(text)
    newer["version"] += 1
    target.write_text(json.dumps(newer))
    with pytest.raises(SchemaTooNew):
        read_backup(str(target))


def test_where_hubs_in_memory_are_found() -> None:
    alone, beside = open_store("memory:"), open_store("memory:")
    shared, same, other = (open_store(f"memory:{name}") for name in ("jobs", "jobs", "others"))
    found = [alone, beside, shared, same, other]
    hubs = [store.hub for store in found if isinstance(store, MemoryStore)]
    assert len(hubs) == 5
    assert hubs[0] is not hubs[1] and hubs[2] is hubs[3] and hubs[3] is not hubs[4]
    assert hubs[2].name == "memory:jobs" and alone.location is None
