"""A late writer loses, in every way in which it can be late, and an ordinary outcome tells it so."""

import msgspec
import pytest

from holdtrue.core.projection import Condition, Status
from holdtrue.stores.errors import LeaseLost
from holdtrue.stores.protocol import ActivityResult, CommitOutcome, CommitResult, Committing, Lease, TaskHubStore
from tests.conformance.acting import (
    EVERY,
    SECOND,
    Clock,
    Hub,
    act,
    again,
    begin,
    check_whole,
    child,
    create,
    done,
    end,
    ended,
    history_of,
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
    tell,
    timer,
    where,
    where_not,
    with_work,
)


@in_hub
async def test_after_the_lock_was_given_back(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    commit = held.episode(act(0), tell(1, "b", "e"), child(2, "c"), custom='"late"')
    await held.put_back()
    before = await record_of(store, "a")
    await held.commit(commit, expect=CommitResult.LEASE_LOST)
    assert await record_of(store, "a") == before
    assert await store.lock_activities(10) == [] and await status_of(store, "c") is None
    assert await store.dead_letters() == []
    await check_whole(store, "a")


@in_hub
async def test_a_history_is_not_given_to_who_has_lost_the_lock(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    old = await begin(hub, one, "a", keep=False)
    await send(one, raised("a", "e"))
    old = await lock_one(hub, one, "a")
    assert await one.load(old.lease) is not None
    await old.put_back()
    assert await one.load(old.lease) is None
    new = await lock_by(hub, "a", two, one)
    assert await one.load(old.lease) is None and await new.store.load(new.lease) is not None
    await new.load()
    await new.step(end())
    assert await one.load(old.lease) is None


@in_hub
async def test_after_another_took_it_and_wrote(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    old = await begin(hub, one, "a", keep=False)
    await send(one, raised("a", "e"))
    old = await lock_one(hub, one, "a")
    late = old.episode(end(output='"late"'))
    await old.put_back()
    new = await lock_by(hub, "a", two, one)
    await new.step(act(7))
    await old.commit(late, expect=CommitResult.LEASE_LOST)
    await new.step(end(output='"first"'))
    await old.commit(late, expect=CommitResult.LEASE_LOST)
    assert (await record_of(one, "a")).projection.output == '"first"'
    await check_whole(one, "a")


@in_hub
async def test_after_it_was_replaced_or_purged(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    await create(store, start("a", over=EVERY))
    await hub.settle()
    await held.commit(held.episode(end()), expect=CommitResult.LEASE_LOST)
    assert await status_of(store, "a") is Status.PENDING
    other = await lock_one(hub, store, "a")
    late = other.episode(act(1), end())
    await other.commit(late)
    await store.purge(["a"])
    await other.commit(late, expect=CommitResult.LEASE_LOST)
    assert await status_of(store, "a") is None and await store.lock_activities(1) == []


@in_hub
async def test_a_made_up_lease_is_none(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    commit = held.episode(end())
    for lease in (
        Lease(held.lease.key, held.lease.token + 1),
        Lease(held.lease.key, 0),
        Lease(held.lease.key + 1, held.lease.token),
        Lease(0, 0),
    ):
        made = held.committing(commit)
        made.lease = lease
        (outcome,) = await store.commit([made])
        assert outcome.result is CommitResult.LEASE_LOST
        await store.put_back([lease])
    assert await status_of(store, "a") is Status.RUNNING
    await held.commit(commit)


@in_hub
async def test_the_same_episode_twice_takes_effect_once(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    commit = held.episode(act(0))
    await held.commit(commit)
    (again_,) = await store.commit([held.committing(commit)])
    assert again_.result in (CommitResult.STALE, CommitResult.LEASE_LOST)
    assert len(await store.lock_activities(10)) == 1
    await check_whole(store, "a")
    await held.step(end())


@in_hub
async def test_an_episode_made_from_an_old_history_is_stale(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    await held.step(act(0))
    commit = held.episode(act(1))
    commit.first -= 2
    (outcome,) = await store.commit([held.committing(commit)])
    assert outcome.result is CommitResult.STALE
    # The lock is still its own: it loads again and goes on.
    await held.load()
    await held.step(end())
    await check_whole(store, "a")


@in_hub
async def test_two_episodes_of_one_instance_in_one_batch(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    first = held.episode(act(0))
    second = held.episode(act(1))
    outcomes = await store.commit([held.committing(first), held.committing(second)])
    # In order they fit one another; whatever the store makes of it, each is whole or has no effect.
    taken = len([o for o in outcomes if o.result is CommitResult.COMMITTED])
    assert outcomes[0].result is CommitResult.COMMITTED
    assert len(await store.lock_activities(10)) == taken
    await check_whole(store, "a")


async def stopped_host(hub: Hub) -> tuple[TaskHubStore, Clock, TaskHubStore]:
    """A host that is stopped (its clock stands), its clock, and one that will take over."""
    clock = Clock()
    zombie = await hub.host("zombie", clock=clock, lease=10.0)
    heir = await hub.host("heir", lease=10.0)
    assert await heir.renew() == []
    return zombie, clock, heir


@where("any_host")
@in_hub
async def test_a_host_stopped_past_its_lease_loses_what_it_held(hub: Hub) -> None:
    zombie, clock, heir = await stopped_host(hub)
    held = await begin(hub, zombie, "a", act(0))
    (item,) = await zombie.lock_activities(1)
    await send(heir, raised("a", "e"))
    assert await heir.renew() == []
    hub.clock.ahead = 60
    assert await heir.renew() == ["zombie"]
    new = await lock_one(hub, heir, "a")
    (again_item,) = await heir.lock_activities(1)
    assert again_item.run == 2
    # It wakes up and writes, not knowing yet.
    clock.ahead = 60
    with_result = held.episode(end(output='"zombie"'), messages=[with_work(item)])
    try:
        (outcome,) = await zombie.commit([held.committing(with_result)])
        assert outcome.result is CommitResult.LEASE_LOST
    except LeaseLost:
        pass
    try:
        (answer,) = await zombie.complete([ActivityResult(ref=item.ref, event=done(item, '"zombie"'))])
        assert not answer.accepted
    except LeaseLost:
        pass
    with pytest.raises(LeaseLost):
        await zombie.renew()
    new.inbox.append(with_work(again_item))
    await new.step(end(output='"heir"'))
    assert (await record_of(heir, "a")).projection.output == '"heir"'
    await check_whole(heir, "a")
    # It may join again and work on.
    await zombie.join("reborn", ["code"], ["act"])
    await create(zombie, start("b"))
    fresh = await lock_one(hub, zombie, "b")
    await fresh.step(end())


@where("any_host")
@in_hub
async def test_no_verb_of_a_late_writer_has_an_effect_on_what_others_hold(hub: Hub) -> None:
    zombie, clock, heir = await stopped_host(hub)
    held = await begin(hub, zombie, "a", act(0), act(1), tell(2, "a", "own"))
    await create(zombie, start("b"))
    parked = await lock_one(hub, zombie, "b")
    items = await zombie.lock_activities(2)
    hub.clock.ahead = 60
    assert await heir.renew() == ["zombie"]
    new = await lock(hub, heir)
    new_items = await heir.lock_activities(2)
    assert sorted(new) == ["a", "b"] and len(new_items) == 2
    due = hub.now() + SECOND
    await new["a"].step(timer(3, due), custom='"heir"')

    async def look() -> list[object]:
        records = [await record_of(heir, instance_id) for instance_id in ("a", "b")]
        return [*records, await heir.activities_of("a"), msgspec.structs.replace(await heir.info(), size=0)]

    before = await look()
    clock.ahead = hub.clock.ahead = 62
    late = Committing(lease=held.lease, commit=held.episode(end(), child(4, "c"), tell(5, "b", "e")), keep=False)
    condition = Condition(kind="held", reason="late")
    calls = [
        lambda: zombie.commit([late]),
        lambda: zombie.park([held.lease, parked.lease], condition),
        lambda: zombie.put_back([held.lease, parked.lease]),
        lambda: zombie.complete([ActivityResult(ref=item.ref, event=done(item)) for item in items]),
        lambda: zombie.put_back_activities([item.ref for item in items]),
        lambda: zombie.report(items[0].ref, '"late"', '"late"'),
        lambda: zombie.fetch(),
        lambda: zombie.lock(10),
        lambda: zombie.lock_activities(10),
        lambda: zombie.renew(),
        lambda: zombie.leave(),
    ]
    for call in calls:
        try:
            answer = await call()
        except LeaseLost:
            continue
        if isinstance(answer, list) and answer and isinstance(answer[0], CommitOutcome):
            assert answer[0].result is CommitResult.LEASE_LOST
        elif isinstance(answer, list) and answer:
            assert [one.accepted for one in answer] == [False, False]
        else:
            assert not answer
    assert sorted(await zombie.cancelled([item.ref for item in items]), key=lambda ref: ref.key) == sorted(
        (item.ref for item in items), key=lambda ref: ref.key
    )
    assert await look() == before
    # A start that it makes stands, and is not its own; a timer that it fires is the heir's.
    (outcome,) = await create(zombie, start("d", take=True))
    assert outcome.taken is None and list(await lock(hub, heir)) == ["d"]
    assert (await zombie.fire_due(hub.now())).deliveries == []
    assert [type(d.message.event).__name__ for d in await heir.fetch()] == ["TimerFired"]
    await new["a"].step(end())
    await new["b"].step(end())


@where_not("any_host")
@in_hub
async def test_the_partitions_of_a_stopped_host_go_to_another(hub: Hub) -> None:
    zombie, heir = await hub.host("zombie", lease=10.0), await hub.host("heir", lease=10.0)
    held = await begin(hub, zombie, "a", act(0))
    (item,) = await zombie.lock_activities(1)
    await send(heir, raised("a", "e"))
    assert await lock(hub, heir) == {}
    await hub.stops(zombie, 60)
    assert await heir.renew() == []
    new = await lock_one(hub, heir, "a")
    assert names(new.inbox) == ["e"]
    (again_item,) = await heir.lock_activities(1)
    assert again_item.run == 2
    # It wakes up and writes, not knowing yet.
    late = held.episode(end(output='"zombie"'), messages=[with_work(item)])
    (outcome,) = await zombie.commit([held.committing(late)])
    assert outcome.result is CommitResult.LEASE_LOST
    await zombie.put_back([held.lease])
    assert await zombie.load(held.lease) is None and await zombie.lock(10) == []
    hub.wakes(zombie)
    # A result that it hands in is one of two runs of the activity; the first that comes counts.
    await zombie.complete([ActivityResult(ref=item.ref, event=done(item, '"zombie"'))])
    await new.fetch()
    new.inbox.append(with_work(again_item))
    await new.step(end(output='"heir"'))
    assert (await record_of(heir, "a")).projection.output == '"heir"'
    await check_whole(heir, "a")


@in_hub
async def test_a_host_that_renews_keeps_what_it_holds(hub: Hub) -> None:
    one, two = await hub.host("one", lease=10.0), await hub.host("two", lease=10.0)
    held = await begin(hub, one, "a")
    for _ in range(12):
        hub.clock.ahead += 4
        await hub.settle()
        assert await one.renew() == [] and await two.renew() == []
    await held.step(end())
    assert await status_of(two, "a") is Status.COMPLETED


@in_hub
async def test_a_continue_as_new_that_comes_twice_is_taken_once(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0), act(1))
    committing = held.committing(held.episode(again(), then=[act(0)]))
    (outcome,) = await store.commit([committing])
    assert outcome.result is CommitResult.COMMITTED
    before = await history_of(store, "a")
    assert len(before) == committing.commit.old_length
    (outcome,) = await store.commit([committing])
    assert outcome.result is CommitResult.STALE
    assert await history_of(store, "a") == before


@in_hub
async def test_a_wall_clock_that_is_wrong_or_set_costs_nobody_a_lease(hub: Hub) -> None:
    clock = hub.new_clock()
    one, two = await hub.host("one", lease=10.0), await hub.host("two", clock=clock, lease=10.0)
    held = await begin(hub, one, "a")
    for wrong in (0.0, 3_600.0, -3_600.0, 0.0):
        hub.clock.wrong, clock.wrong = wrong, -wrong
        for _ in range(4):
            hub.clock.ahead += 4
            clock.ahead += 4
            await hub.settle()
            assert await one.renew() == [] and await two.renew() == []
    await held.step(end())
    assert await status_of(two, "a") is Status.COMPLETED


@where("any_host")
@in_hub
async def test_a_stopped_host_loses_its_lease_also_where_the_wall_clock_is_set_back(hub: Hub) -> None:
    zombie, _, heir = await stopped_host(hub)
    await begin(hub, zombie, "a", act(0))
    hub.clock.wrong = -3_600.0
    hub.clock.ahead = 60
    assert await heir.renew() == ["zombie"]


@where("any_host")
@in_hub
async def test_a_lease_is_as_long_as_its_own_host_has_said(hub: Hub) -> None:
    clock = Clock()
    await hub.host("patient", clock=clock, lease=100.0)
    heir = await hub.host("heir", lease=10.0)
    assert await heir.renew() == []
    hub.clock.ahead = 60
    assert await heir.renew() == []
    hub.clock.ahead = 101
    assert await heir.renew() == ["patient"]


@in_hub
async def test_a_continue_as_new_by_a_late_writer_loses(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0))
    late = held.episode(again(), then=[act(0)])
    await held.put_back()
    before = await history_of(store, "a")
    await held.commit(late, expect=CommitResult.LEASE_LOST)
    assert await history_of(store, "a") == before
    assert [i.task.execution_id for i in await store.lock_activities(10)] == [held.record.projection.execution_id]


@in_hub
async def test_an_ended_one_is_not_ended_again(hub: Hub) -> None:
    store = await hub.host()
    await ended(hub, store, "a", how=end(output='"first"'))
    assert await lock(hub, store) == {}
    assert (await record_of(store, "a")).projection.output == '"first"'
