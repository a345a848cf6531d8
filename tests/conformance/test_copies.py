"""Instances as wholes: read with all that belongs to them, and put there as they stood elsewhere."""

import pytest

from holdtrue.core import events as ev
from holdtrue.core.projection import Condition, Status
from holdtrue.stores.errors import StoreError
from holdtrue.stores.protocol import InstanceCopy, InstanceQuery, TaskHubStore
from tests.conformance.acting import (
    SECOND,
    Hub,
    act,
    again,
    begin,
    create,
    end,
    ended,
    fail,
    history_of,
    in_hub,
    lock,
    lock_one,
    raised,
    rewind,
    send,
    start,
    terminate,
    timer,
    where,
    where_not,
)

BIG = '"' + "x" * 20_000 + '"'
"""An input of a size that stores keep apart from the instance's row."""


async def _one_of_each(hub: Hub, store: TaskHubStore) -> list[str]:
    """Instances in every state that there is, with whatever can belong to one."""
    far = hub.now() + 1_000_000 * SECOND
    await ended(hub, store, "completed", how=end(output='"done"'), input=BIG, tags={"team": "red"})
    await ended(hub, store, "failed", how=fail())
    working = await begin(hub, store, "working", act(0, tag="gpu"), act(1, "other"), timer(2, far), custom='"half"')
    items = await store.lock_activities(1, ["act\x1fgpu"])
    await store.report(items[0].ref, '"70 %"', '{"row": 7}')
    await send(store, raised("working", "go", 1), raised("working", "go", 2))
    held = await begin(hub, store, "held", act(0))
    await store.park([held.lease], Condition(kind="held", reason="no longer fits", since=5))
    await send(store, raised("held", "later"))
    renewed = await begin(hub, store, "renewed", act(0, "other"))
    await renewed.step(again(1, "2"), then=[act(0), act(1)])
    await ended(hub, store, "rewinding", how=fail())
    parent = ev.ParentInstance(instance_id="working", execution_id="x", task_id=9, scheduled=3)
    await ended(hub, store, "child", how=end(), parent=parent)
    fresh = start("fresh", event=ev.EventRaised(timestamp=1, name="go"))
    await create(store, start("waits", begins=far, deadline=far + 1), fresh)
    await send(store, rewind("rewinding"))
    await working.put_back()
    await renewed.put_back()
    return ["completed", "failed", "working", "held", "renewed", "rewinding", "child", "waits", "fresh"]


async def _copies(store: TaskHubStore, ids: list[str]) -> list[InstanceCopy]:
    found = await store.copies(ids)
    assert None not in found
    return [copy for copy in found if copy is not None]


def _plain(copies: list[InstanceCopy]) -> list[InstanceCopy]:
    """Without what a store derives."""
    for copy in copies:
        copy.record.size = 0
        copy.record.at_rest = copy.record.waits_for_worker = False
    return copies


@where("copies")
@in_hub
async def test_a_copy_holds_what_belongs_to_the_instance(hub: Hub) -> None:
    store = await hub.host()
    await _one_of_each(hub, store)
    (working,) = await _copies(store, ["working"])
    record = (await store.status(["working"]))[0]
    assert record is not None and working.record.projection == record.projection
    assert working.history == await history_of(store, "working")
    assert [message.event.name for message in working.messages[:2]] == ["go", "go"]  # type: ignore[union-attr]
    assert [message.due is None for message in working.messages] == [True, True, False]
    gpu, other = working.activities
    assert (gpu.task.options.tag, gpu.run, gpu.progress, gpu.details) == ("gpu", 1, '"70 %"', '{"row": 7}')  # type: ignore[union-attr]
    assert gpu.heartbeat_at is not None and (other.run, other.progress, other.heartbeat_at) == (0, None, None)
    (renewed,) = await _copies(store, ["renewed"])
    assert len({one.task.execution_id for one in renewed.activities}) == 2
    assert await store.copies(["nobody", "held"]) == [None, *await store.copies(["held"])]


@pytest.mark.parametrize("run", [False, True])
@where("copies")
@in_hub
async def test_what_is_put_is_what_was_read(hub: Hub, run: bool) -> None:
    store = await hub.host()
    ids = await _one_of_each(hub, store)
    before = _plain(await _copies(store, ids))
    assert await store.put_copies(before, replace=True, run=run) == []
    assert _plain(await _copies(store, ids)) == before
    page = await store.query(InstanceQuery())
    assert [record.projection.instance_id for record in page.records] == ids
    assert await store.children("working") == ["child"]


@where("copies")
@in_hub
async def test_what_stands_there_is_not_lost_unasked(hub: Hub) -> None:
    store = await hub.host()
    ids = await _one_of_each(hub, store)
    copies = await _copies(store, ids)
    assert (await store.purge(["completed"])).instances == 1
    before = await _copies(store, ids[1:])
    assert sorted(await store.put_copies(copies)) == sorted(ids[1:])
    assert (await store.status(["completed"])) == [None], "nothing of it may be written"
    assert await _copies(store, ids[1:]) == before


@where("copies")
@in_hub
async def test_at_rest_nobody_gets_it(hub: Hub) -> None:
    """Neither a host that is there, nor one that joins, nor one that looks after messages and times."""
    store = await hub.host(queues=("act", "other", "act\x1fgpu"))
    ids = await _one_of_each(hub, store)
    copies = await _copies(store, ids)
    assert await store.put_copies(copies, replace=True) == []
    again_there = await hub.host("second", queues=("act", "other", "act\x1fgpu"))
    await send(store, raised("working", "more"), terminate("held"))
    hub.clock.ahead = 2_000_000
    for one in (store, again_there):
        due = await one.fire_due(hub.now())
        assert (due.deliveries, due.ready) == ([], False)
        assert await one.lock(100) == []
        assert await one.lock_activities(100) == []
        assert await one.fetch() == []
    for record in await store.status(ids):
        assert record is not None
        assert record.at_rest is not record.projection.status.is_terminal
        assert not record.waits_for_worker
    assert not any(item.running for item in await store.activities_of("working"))
    # It can go: nobody works on it.
    purged = await store.purge(ids)
    assert (purged.instances, purged.refused) == (len(ids), [])
    assert (await store.info()).activities == (await store.info()).messages == 0


@where("copies")
@in_hub
async def test_what_is_to_run_goes_on(hub: Hub) -> None:
    store = await hub.host(queues=("act", "other"))
    ids = await _one_of_each(hub, store)
    assert await store.put_copies(await _copies(store, ids), replace=True, run=True) == []
    held = await lock(hub, store)
    assert sorted(held) == ["fresh", "held", "rewinding", "working"]
    assert [message.event.name for message in held["working"].inbox] == ["go", "go"]  # type: ignore[attr-defined]
    assert [type(message.event) for message in held["fresh"].inbox] == [ev.ExecutionStarted, ev.EventRaised]
    items = [(item.task.instance_id, item.task.name, item.run) for item in await store.lock_activities(100)]
    renewed = [("renewed", "act", 1), ("renewed", "act", 1), ("renewed", "other", 1)]
    assert sorted(items) == [("held", "act", 1), *renewed, ("working", "other", 1)]
    await held["working"].step(end())
    (record,) = await store.status(["working"])
    assert record is not None and record.projection.status is Status.COMPLETED
    assert await store.activities_of("working") == []
    hub.clock.ahead = 2_000_000
    assert (await store.fire_due(hub.now())).ready
    begun = await lock_one(hub, store, "waits")
    assert type(begun.inbox[0].event) is ev.ExecutionStarted


@where("copies")
@in_hub
async def test_a_held_lock_is_lost_when_another_takes_the_place(hub: Hub) -> None:
    store = await hub.host()
    one = await begin(hub, store, "one", act(0))
    (copy,) = await _copies(store, ["one"])
    assert await store.put_copies([copy], replace=True) == []
    assert await store.load(one.lease) is None


@where("copies")
@in_hub
async def test_a_terminate_that_waits_ends_what_goes_on(hub: Hub) -> None:
    """Also where no host has the code: the copy keeps that a message ends it."""
    client = await hub.open()
    await create(client, start("gone", name="nobody has it"))
    await send(client, terminate("gone"))
    (copy,) = await _copies(client, ["gone"])
    store = await hub.host()
    assert await store.put_copies([copy], replace=True, run=True) == []
    assert list(await lock(hub, store)) == ["gone"]


@where("copies")
@in_hub
async def test_one_that_was_woken_stays_so(hub: Hub) -> None:
    """It asks for an episode without any message, where it was read and where it was put."""
    store = await hub.host()
    one = await begin(hub, store, "one", act(0), keep=False)
    (copy,) = await _copies(store, [one.id])
    assert await lock(hub, store) == {} and not copy.wake
    copy.wake = True
    assert await store.put_copies([copy], replace=True, run=True) == []
    assert [found.wake for found in await _copies(store, ["one"])] == [True]
    assert list(await lock(hub, store)) == ["one"]


@where_not("copies")
@in_hub
async def test_what_stands_there_is_read_and_nothing_is_put_in_its_place(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0), act(1), input=BIG, custom='"half"')
    (item,) = await store.lock_activities(1)
    await store.report(item.ref, '"70 %"', '{"row": 7}')
    (found, nobody) = await store.copies(["a", "nobody"])
    assert nobody is None and found is not None
    assert found.record == (await store.status(["a"]))[0] and found.history == await history_of(store, "a")
    assert [one.task.task_id for one in found.activities] == [0, 1]
    assert (found.activities[0].run, found.activities[0].progress) == (1, '"70 %"')
    with pytest.raises(StoreError, match="from elsewhere"):
        await store.put_copies([found], replace=True)
    await held.step(end())
