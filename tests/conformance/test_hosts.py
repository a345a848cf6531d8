"""Several hosts on one hub: joining, leaving, dying, hearing of each other."""

import asyncio

import pytest

from holdtrue.core.projection import Status
from holdtrue.stores.errors import StoreError
from holdtrue.stores.protocol import Notice
from tests.conformance.acting import (
    SECOND,
    Hub,
    act,
    begin,
    create,
    end,
    in_hub,
    lock,
    lock_one,
    raised,
    record_of,
    send,
    start,
    status_of,
    timer,
    where,
    where_not,
)


@in_hub
async def test_each_gets_a_number_of_its_own_and_is_listed_while_it_lives(hub: Hub) -> None:
    one, two = await hub.open(), await hub.open()
    numbers = [await one.join("one", ["code"], ["act"]), await two.join("two", ["code"], ["act"])]
    assert len(set(numbers)) == 2
    assert sorted((await one.info()).hosts) == ["one", "two"]
    await two.leave()
    await two.leave()
    assert (await one.info()).hosts == ["one"]


@in_hub
async def test_two_of_one_name_are_two(hub: Hub) -> None:
    one, two = await hub.host("same"), await hub.host("same")
    await create(one, start("a"))
    held = await lock_one(hub, one, "a")
    assert await lock(hub, two) == {}
    await two.leave()
    await held.step(end())


@in_hub
async def test_joining_again_brings_other_code_and_keeps_what_is_held(hub: Hub) -> None:
    store = await hub.host(code=["code"])
    held = await begin(hub, store, "a")
    await create(store, start("b", name="new code"))
    assert await lock(hub, store) == {}
    await store.join("host", ["code", "new code"], ["act"])
    assert list(await lock(hub, store)) == ["b"]
    await held.step(end())
    assert await status_of(store, "a") is Status.COMPLETED


@in_hub
async def test_work_made_by_one_calls_the_others(hub: Hub) -> None:
    worker, client = await hub.host("worker"), await hub.open()
    notices: asyncio.Queue[Notice] = asyncio.Queue()
    worker.listen(notices.put_nowait)
    await create(client, start("a"))
    await until(notices, lambda n: n.work)
    held = await lock_one(hub, worker, "a")
    await held.step(act(0))
    await send(client, raised("a", "e"))
    await until(notices, lambda n: n.work)
    await held.fetch()
    assert len(held.inbox) == 1


@where_not("calls_others")
@in_hub
async def test_who_is_not_called_sees_changes_when_it_looks(hub: Hub) -> None:
    worker, client = await hub.host("worker"), await hub.open()
    client.listen(lambda notice: None)
    held = await begin(hub, worker, "a")
    assert await status_of(client, "a") is Status.RUNNING
    await held.step(end())
    assert await status_of(client, "a") is Status.COMPLETED


@where("calls_others")
@in_hub
async def test_changes_made_by_one_are_told_to_the_others(hub: Hub) -> None:
    worker, client = await hub.host("worker"), await hub.open()
    notices: asyncio.Queue[Notice] = asyncio.Queue()
    client.listen(notices.put_nowait)
    await create(worker, start("a"))
    held = await lock_one(hub, worker, "a")
    await held.step(end())
    # Either the id is named, or the notice says that anything may have changed.
    await until(notices, lambda n: "a" in n.changed or not n.changed)
    while await status_of(client, "a") is not Status.COMPLETED:
        await until(notices, lambda n: True)


async def until(notices: "asyncio.Queue[Notice]", wanted) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(20):
        while not wanted(await notices.get()):
            pass


@in_hub
async def test_who_closed_left_its_work_to_others_at_once(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    await create(one, start("a"))
    await lock_one(hub, one, "a")
    await one.close()
    await two.renew()
    held = await lock_one(hub, two, "a")
    assert held.record.projection.status is Status.PENDING


@in_hub
async def test_a_closed_store_says_so(hub: Hub) -> None:
    store = await hub.host()
    await create(store, start("a"))
    await store.close()
    with pytest.raises(StoreError):
        await store.create([start("b")])
    with pytest.raises(StoreError):
        await store.status(["a"])


@in_hub
async def test_the_hub_is_as_it_was_after_all_have_left(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "a", act(0), custom='"c"')
    await hub.close()
    store = await hub.host()
    record = await record_of(store, "a")
    assert (record.projection.status, record.projection.custom_status) == (Status.RUNNING, '"c"')
    assert len(await store.lock_activities(1)) == 1


@in_hub
async def test_figures(hub: Hub) -> None:
    store = await hub.host("me")
    await begin(hub, store, "a", act(0), act(1))
    await begin(hub, store, "b", end())
    await send(store, raised("a", "e"))
    info = await store.info()
    assert {k.upper(): v for k, v in info.instances.items() if v} == {"RUNNING": 1, "COMPLETED": 1}
    assert (info.messages, info.activities, info.dead_letters, info.hosts) == (1, 2, 0, ["me"])
    assert (info.size > 0) == hub.traits.counts and info.schema_version >= 1


@where_not("counts")
@in_hub
async def test_figures_count_what_was_called_off_until_it_is_gone(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", timer(0, hub.now() + 60 * SECOND))
    await held.step(end())
    assert (await store.info()).messages == 1
    hub.clock.ahead = 61
    assert await lock(hub, store) == {}
    assert (await store.info()).messages == 0


@in_hub
async def test_upkeep_may_be_done_at_any_time(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0))
    await store.upkeep()
    await held.step(end())
    await store.purge(["a"])
    await store.upkeep()
    assert await status_of(store, "a") is None
