"""Purging: everything of an instance goes, nothing of another's, and the counts are true."""

from holdtrue.core.projection import Status
from holdtrue.stores.protocol import InstanceQuery, TaskHubStore
from tests.conformance.acting import (
    EVERY,
    SECOND,
    Hub,
    act,
    begin,
    child,
    create,
    end,
    ended,
    history_of,
    in_hub,
    lock,
    lock_one,
    record_of,
    start,
    status_of,
    timer,
)


async def family(hub: Hub, store: TaskHubStore, *, running: tuple[str, ...] = ()) -> None:
    """p -> c1 -> g1, p -> c2; all ended, but those named."""
    p = await begin(hub, store, "p", child(0, "c1"), child(1, "c2"))
    held = await lock(hub, store)
    await held["c1"].step(child(0, "g1"))
    held |= await lock(hub, store)
    held["p"] = p
    for name in ("g1", "c2", "c1", "p"):
        await held[name].step(act(9) if name in running else end())


@in_hub
async def test_an_ended_one_goes_with_all_that_belongs_to_it(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", *(act(n) for n in range(300)), timer(300, hub.now() + SECOND), custom='"c"')
    await held.step(end(output='"' + "x" * 200_000 + '"'))
    purged = await store.purge(["a"])
    assert (purged.instances, purged.children, purged.refused) == (1, 0, [])
    assert await store.status(["a"]) == [None] and await history_of(store, "a") == []
    assert (await store.query(InstanceQuery())).records == []
    info = await store.info()
    assert sum(info.instances.values()) == 0
    assert not hub.traits.counts or (info.messages, info.activities) == (0, 0)


@in_hub
async def test_again_and_of_nobody_is_no_error_and_counts_nothing(hub: Hub) -> None:
    store = await hub.host()
    await ended(hub, store, "a")
    assert (await store.purge(["a", "a", "nobody"])).instances == 1
    purged = await store.purge(["a"])
    assert (purged.instances, purged.refused) == (0, [])
    assert (await store.purge([])).instances == 0


@in_hub
async def test_one_that_has_not_ended_is_refused(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "busy")
    await create(store, start("new"))
    await ended_beside(hub, store)
    purged = await store.purge(["busy", "done", "new"])
    assert (purged.instances, sorted(purged.refused)) == (1, ["busy", "new"])
    assert await status_of(store, "busy") is Status.RUNNING
    await held.step(end())


async def ended_beside(hub: Hub, store: TaskHubStore) -> None:
    await create(store, start("done"))
    held = await lock(hub, store)
    await held["done"].step(end())
    await held["new"].put_back()


@in_hub
async def test_recursive_takes_the_whole_family_and_counts_it(hub: Hub) -> None:
    store = await hub.host()
    await family(hub, store)
    await ended(hub, store, "stranger")
    purged = await store.purge(["p"], recursive=True)
    assert (purged.instances, purged.children, purged.refused) == (4, 3, [])
    assert await store.status(["p", "c1", "c2", "g1"]) == [None] * 4
    assert await status_of(store, "stranger") is Status.COMPLETED


@in_hub
async def test_not_recursive_takes_the_one(hub: Hub) -> None:
    store = await hub.host()
    await family(hub, store)
    purged = await store.purge(["p"], recursive=False)
    assert (purged.instances, purged.children) == (1, 0)
    assert [r is not None for r in await store.status(["c1", "c2", "g1"])] == [True] * 3
    # The middle one takes what is below it.
    assert (await store.purge(["c1"], recursive=True)).instances == 2
    assert await status_of(store, "c2") is Status.COMPLETED


@in_hub
async def test_a_running_child_stays_and_is_named(hub: Hub) -> None:
    store = await hub.host()
    await family(hub, store, running=("c2",))
    purged = await store.purge(["p"], recursive=True)
    assert purged.refused == ["c2"] and purged.instances == 3
    assert await status_of(store, "c2") is Status.RUNNING


@in_hub
async def test_a_child_named_beside_its_parent_is_counted_once(hub: Hub) -> None:
    store = await hub.host()
    await family(hub, store)
    purged = await store.purge(["c1", "p", "g1", "p"], recursive=True)
    assert purged.instances == 4 and await store.status(["p", "c1", "c2", "g1"]) == [None] * 4


@in_hub
async def test_an_id_that_is_no_child_any_more_is_spared(hub: Hub) -> None:
    store = await hub.host()
    await family(hub, store)
    await create(store, start("c2", over=EVERY))
    await (await lock_one(hub, store, "c2")).step(end())
    purged = await store.purge(["p"], recursive=True)
    assert purged.instances == 3
    assert await status_of(store, "c2") is Status.COMPLETED


@in_hub
async def test_an_id_can_be_used_again_and_knows_nothing_of_before(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0), timer(1, hub.now() + SECOND), child(2, "c"))
    (item,) = await store.lock_activities(1)
    await held.step(end())
    await store.purge(["a"])
    new = await begin_again(hub, store)
    assert (await record_of(store, "a")).length == 4
    from holdtrue.stores.protocol import ActivityResult
    from tests.conformance.acting import done

    (late,) = await store.complete([ActivityResult(ref=item.ref, event=done(item))])
    assert late.delivery is None and not (late.accepted and hub.traits.recalls)
    hub.clock.ahead = 5
    assert await new.hear(*(await store.fire_due(hub.now())).deliveries) == []
    # The old one's child is still at work; its answer is not the new one's.
    c = (await lock(hub, store))["c"]
    await c.step(end(output='"old"'))
    await new.fetch()
    await new.step()
    assert new.state.open.keys() == {0}
    await store.put_back([new.lease])


async def begin_again(hub: Hub, store: TaskHubStore):  # type: ignore[no-untyped-def]
    await create(store, start("a"))
    held = await lock(hub, store)
    if "c" in held:
        await held["c"].put_back()
    await held["a"].step(act(0))
    return held["a"]


@in_hub
async def test_hundreds_at_once(hub: Hub) -> None:
    store = await hub.host()
    await create(store, *(start(f"i{n}") for n in range(450)))
    held = await lock(hub, store, 450)
    await store.commit([h.committing(h.episode(end())) for h in held.values()])
    purged = await store.purge([f"i{n}" for n in range(500)])
    assert purged.instances == 450 and purged.refused == []
    assert (await store.info()).instances == {} or sum((await store.info()).instances.values()) == 0
