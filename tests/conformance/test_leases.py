"""Locks: who gets what, given back, shared out fairly, never twice."""

import asyncio

from holdtrue.core.outgoing import cancel_message
from holdtrue.core.projection import Status
from tests.conformance.acting import (
    SECOND,
    Hub,
    act,
    begin,
    create,
    end,
    in_hub,
    lock,
    lock_by,
    lock_one,
    names,
    raised,
    record_of,
    send,
    start,
    status_of,
    terminate,
    where,
    where_not,
)


@in_hub
async def test_no_more_than_asked_for_and_the_oldest_work_first(hub: Hub) -> None:
    store = await hub.host()
    for n in range(6):
        await create(store, start(f"i{n}"))
    assert await store.lock(0) == []
    first = await lock(hub, store, 2)
    assert list(first) == ["i0", "i1"]
    assert list(await lock(hub, store, 100)) == ["i2", "i3", "i4", "i5"]
    assert await store.lock(100) == []


@in_hub
async def test_nothing_is_locked_twice_however_many_ask(hub: Hub) -> None:
    hosts = [await hub.host(f"h{n}") for n in range(3)]
    await create(hosts[0], *(start(f"i{n}") for n in range(90)))
    await hub.settle()
    taken = await asyncio.gather(*(host.lock(7) for _ in range(10) for host in hosts))
    if not hub.traits.any_host:
        taken += [await host.lock(90) for host in hosts]
    ids = [one.record.projection.instance_id for locked in taken for one in locked]
    assert len(ids) == len(set(ids)) == 90


@in_hub
async def test_only_code_that_this_host_has(hub: Hub) -> None:
    store = await hub.host(code=["code"])
    await create(store, start("a"), start("b", name="other"), start("c", name="CODE"), start("d", name="code2"))
    assert list(await lock(hub, store)) == ["a"]
    waiting = [r.projection.instance_id for r in await store.status(["a", "b", "c", "d"]) if r and r.waits_for_worker]
    assert waiting == ["b", "c", "d"]
    if not hub.traits.any_host:
        await store.leave()  # its partition goes to who comes
    other = await hub.host("other", code=["other", "code2"])
    assert sorted(await lock(hub, other)) == ["b", "d"]


@in_hub
async def test_a_host_without_code_locks_nothing(hub: Hub) -> None:
    store = await hub.host(code=[], queues=[])
    await create(store, start("a"))
    assert await store.lock(10) == [] and await store.lock_activities(10) == []


@in_hub
async def test_waiting_for_a_worker_ends_when_one_comes_and_comes_back_when_it_leaves(hub: Hub) -> None:
    client = await hub.open()
    await create(client, start("a"))
    assert (await record_of(client, "a")).waits_for_worker
    host = await hub.host()
    await hub.settle()
    assert not (await record_of(client, "a")).waits_for_worker
    await host.leave()
    await hub.settle()
    assert (await record_of(client, "a")).waits_for_worker


@in_hub
async def test_one_that_has_begun_waits_for_its_code_when_something_comes(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "a", keep=False)
    await store.leave()
    other = await hub.host("other", code=["else"])
    assert not (await record_of(other, "a")).waits_for_worker
    await send(other, raised("a", "e"))
    assert await lock(hub, other) == {}
    assert (await record_of(other, "a")).waits_for_worker
    await other.leave()
    again = await hub.host("again")
    held = await lock_one(hub, again, "a")
    assert names(held.inbox) == ["e"]
    await held.step()
    assert not (await record_of(again, "a")).waits_for_worker


@where("fair")
@in_hub
async def test_one_name_with_much_work_does_not_keep_others_waiting(hub: Hub) -> None:
    store = await hub.host()
    await create(store, *(start(f"many{n}") for n in range(300)), start("rare", name="child"))
    found: list[str] = []
    for _ in range(3):
        found += [one.record.projection.instance_id for one in await store.lock(10)]
    assert "rare" in found


@where_not("fair")
@in_hub
async def test_each_comes_in_its_turn(hub: Hub) -> None:
    store = await hub.host()
    await create(store, *(start(f"many{n}") for n in range(300)), start("rare", name="child"))
    found: list[str] = []
    for _ in range(31):
        found += await lock(hub, store, 10)
    assert found == [*(f"many{n}" for n in range(300)), "rare"]


@in_hub
async def test_put_back_and_locked_again_with_the_same_messages(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    await create(one, start("a"))
    await send(one, raised("a", "e"))
    held = await lock_one(hub, one, "a")
    await held.put_back()
    again = await lock_by(hub, "a", two, one)
    assert [type(m.event) for m in again.inbox] == [type(m.event) for m in held.inbox]
    assert again.lease.token != held.lease.token and again.lease.key == held.lease.key
    # Giving back what one has no longer is harmless.
    await held.put_back()
    assert await lock(hub, one) == {}
    await again.step(end())


@in_hub
async def test_put_back_without_work_rests(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0))
    await held.put_back()
    rested = await lock(hub, store)
    for one in rested.values():
        # A store may offer it once more; an episode over nothing then settles it.
        assert one.inbox == []
        await one.commit(one.episode(), keep=False)
    assert await lock(hub, store) == {}
    await send(store, raised("a", "e"))
    assert names((await lock_one(hub, store, "a")).inbox) == ["e"]


@in_hub
async def test_the_record_that_comes_with_a_lock_is_the_committed_one(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0), custom='"x"', tags={"k": "v"}, input='"in"', version="3", keep=False)
    await send(store, raised("a", "e"))
    again = await lock_one(hub, store, "a")
    assert again.record == await record_of(store, "a")
    assert again.record.projection == held.state.projection
    history = await again.load()
    assert len(history) == again.record.length
    assert again.state.open[0].name == "act"


@in_hub
async def test_leaving_gives_everything_back(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    await create(one, start("a"), start("b"))
    await begin_all(hub, one)
    assert len(await one.lock_activities(10)) == 2
    await send(one, raised("a", "e"))
    assert await lock(hub, two) == {} and await two.lock_activities(10) == []
    await one.leave()
    assert "a" in await lock(hub, two)
    items = await two.lock_activities(10)
    assert len(items) == 2 and all(i.run == 2 for i in items)


async def begin_all(hub: Hub, store: object) -> None:
    for held in (await lock(hub, store)).values():  # type: ignore[arg-type]
        await held.step(act(0))


@in_hub
async def test_closing_is_leaving_and_may_be_repeated(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    await create(one, start("a"))
    await lock_one(hub, one, "a")
    await one.close()
    await one.close()
    held = await lock_one(hub, two, "a")
    await held.step(end())
    assert (await record_of(two, "a")).projection.status is Status.COMPLETED


@in_hub
async def test_what_needs_no_code_is_for_any_host(hub: Hub) -> None:
    """A terminate, a deadline, and a cancel before the first step end an instance, whoever has its code."""
    client = await hub.open()
    deadline = hub.now() + 10 * SECOND
    await create(
        client,
        start("new", name="gone"),
        start("later", name="gone", begins=hub.now() + 3600 * SECOND),
        start("never begun", name="gone"),
        start("late", name="gone", deadline=deadline),
        start("untouched", name="gone"),
    )
    other = await hub.host("other", code=["else"])
    assert await lock(hub, other) == {}
    await send(client, terminate("new"), terminate("later"), cancel_message("never begun", "no need", hub.now()))
    await send(client, raised("untouched", "e"))
    hub.clock.ahead += 11
    await other.fire_due(hub.now())
    held = await lock(hub, other)
    assert sorted(held) == ["late", "later", "never begun", "new"]
    for one in held.values():
        await one.step()
    statuses = [await status_of(client, i) for i in ("late", "later", "never begun", "new", "untouched")]
    assert statuses == [Status.FAILED, *[Status.TERMINATED] * 3, Status.PENDING]
    assert await lock(hub, other) == {}


@where("any_host")
@in_hub
async def test_an_end_that_its_holder_did_not_come_to_is_for_any_host(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two", code=["else"])
    await begin(hub, one, "a", act(0))
    await send(two, cancel_message("a", "it may be caught", hub.now()))
    await one.leave()
    assert await lock(hub, two) == {}
    one = await hub.host("one")
    await lock_one(hub, one, "a")
    await send(two, terminate("a"))
    await one.leave()
    assert list(await lock(hub, two)) == ["a"]
