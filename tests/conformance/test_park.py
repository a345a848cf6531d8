"""Held instances: they keep what they got, take no step, and are offered again when code comes."""

from holdtrue.core import events as ev
from holdtrue.core.projection import Condition, Status
from holdtrue.stores.protocol import CreateResult
from tests.conformance.acting import (
    EVERY,
    SECOND,
    Held,
    Hub,
    act,
    begin,
    create,
    effective,
    end,
    in_hub,
    kinds,
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
    timer,
)

REASON = Condition(kind="held", reason="history has an activity 'a', the code asks for 'b'", since=7)


async def parked(hub: Hub, store, instance_id: str = "a", **options) -> Held:  # type: ignore[no-untyped-def]
    """An instance that runs, gets a message, and is held."""
    await begin(hub, store, instance_id, keep=False, **options)
    await send(store, raised(instance_id, "one"))
    held = await lock_one(hub, store, instance_id)
    await store.park([held.lease], REASON)
    return held


@in_hub
async def test_a_held_one_says_so_keeps_its_messages_and_is_not_offered(hub: Hub) -> None:
    store = await hub.host()
    held = await parked(hub, store, custom='"c"')
    record = await record_of(store, "a")
    assert record.condition == REASON
    assert (record.projection.status, record.projection.custom_status) == (Status.RUNNING, '"c"')
    assert record.length == held.record.length
    assert await lock(hub, store) == {}
    await send(store, raised("a", "two"))
    assert await lock(hub, store) == {}
    hub.clock.ahead = 10_000
    await store.renew()
    await store.fire_due(hub.now())
    assert await lock(hub, store) == {}
    assert (await record_of(store, "a")).length == held.record.length


@in_hub
async def test_a_late_commit_of_who_parked_it_has_no_effect(hub: Hub) -> None:
    from holdtrue.stores.protocol import CommitResult

    store = await hub.host()
    held = await parked(hub, store)
    await held.commit(held.episode(end()), expect=CommitResult.LEASE_LOST)
    assert await status_of(store, "a") is Status.RUNNING


@in_hub
async def test_a_join_offers_it_again_with_everything_that_came(hub: Hub) -> None:
    store = await hub.host("one")
    await parked(hub, store)
    await send(store, raised("a", "two"))
    other = await hub.host("two")
    held = await lock_by(hub, "a", other, store)
    assert names(held.inbox) == ["one", "two"]
    assert held.record.condition == REASON
    commit = held.episode()
    assert commit.condition_changed and commit.condition is None
    await held.commit(commit, keep=False)
    assert (await record_of(store, "a")).condition is None
    await send(store, raised("a", "three"))
    assert await lock(hub, store) != {}


@in_hub
async def test_a_join_without_its_code_does_not_offer_it(hub: Hub) -> None:
    store = await hub.host("one")
    await parked(hub, store)
    other = await hub.host("two", code=["child"])
    assert await lock(hub, other) == {} and await lock(hub, store) == {}


@in_hub
async def test_held_again_after_each_join_and_tried_once_each(hub: Hub) -> None:
    store = await hub.host("one")
    await parked(hub, store)
    for n in range(3):
        other = await hub.host(f"later{n}")
        tries = 0
        while held := await lock(hub, other) or (not hub.traits.any_host and await lock(hub, store)):
            tries += 1
            assert tries < 3, "offered over and over"
            await held["a"].store.park([held["a"].lease], REASON)
        assert tries == 1
        assert await lock(hub, store) == {}
    assert (await record_of(store, "a")).condition == REASON


@in_hub
async def test_a_terminate_still_acts(hub: Hub) -> None:
    store = await hub.host()
    await parked(hub, store)
    await send(store, terminate("a", '"enough"'))
    held = await lock_one(hub, store, "a")
    assert kinds([m.event for m in held.inbox]) == ["EventRaised", "ExecutionTerminated"]
    from tests.conformance.acting import terminated

    await held.step(terminated(output='"enough"'))
    record = await record_of(store, "a")
    assert (record.projection.status, record.condition) == (Status.TERMINATED, None)


@in_hub
async def test_a_terminate_also_acts_by_the_host_that_could_not_go_on_while_another_has_yet_to_try(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    await parked(hub, one)
    assert await lock(hub, one) == {}
    await send(two, terminate("a"))
    assert list(await lock(hub, one)) == ["a"]
    assert await lock(hub, two) == {}


@in_hub
async def test_a_terminate_that_was_there_before_it_was_held_acts(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    await send(store, terminate("a"))
    await store.park([held.lease], REASON)
    assert list(await lock(hub, store)) == ["a"]


@in_hub
async def test_the_deadline_still_acts(hub: Hub) -> None:
    store = await hub.host()
    await parked(hub, store, deadline=hub.now() + 60 * SECOND)
    hub.clock.ahead = 61
    await hub.settle()
    due = await store.fire_due(hub.now())
    assert due.ready
    held = await lock_one(hub, store, "a")
    assert names(held.inbox)[-1] == "holdtrue:deadline"


@in_hub
async def test_a_replacing_start_still_acts_and_a_refused_one_is_told(hub: Hub) -> None:
    store = await hub.host()
    await parked(hub, store)
    (refused,) = await store.create([start("a")])
    assert (refused.result, refused.status, refused.condition) == (CreateResult.REFUSED, Status.RUNNING, REASON)
    (outcome,) = await store.create([start("a", over=EVERY)])
    assert outcome.result is CreateResult.REPLACED
    held = await lock_one(hub, store, "a")
    assert names(held.inbox) == ([] if hub.traits.ends_mail else ["one"]) and held.record.condition is None
    await held.step(end())


@in_hub
async def test_one_held_before_its_first_step(hub: Hub) -> None:
    store = await hub.host("one")
    await create(store, start("a"))
    held = await lock_one(hub, store, "a")
    await store.park([held.lease], REASON)
    assert await lock(hub, store) == {}
    record = await record_of(store, "a")
    assert (record.projection.status, record.condition, record.length) == (Status.PENDING, REASON, 0)
    other = await hub.host("two")
    again = await lock_by(hub, "a", other, store)
    assert type(again.inbox[0].event) is ev.ExecutionStarted
    await again.step(end())
    assert await status_of(store, "a") is Status.COMPLETED


@in_hub
async def test_timers_and_results_come_meanwhile_and_wait(hub: Hub) -> None:
    from holdtrue.stores.protocol import ActivityResult
    from tests.conformance.acting import done

    store = await hub.host("one")
    held = await begin(hub, store, "a", act(0), timer(1, hub.now() + SECOND))
    (item,) = await store.lock_activities(1)
    await store.park([held.lease], REASON)
    (outcome,) = await store.complete([ActivityResult(ref=item.ref, event=done(item))])
    assert outcome.accepted
    hub.clock.ahead = 2
    await store.fire_due(hub.now())
    assert await lock(hub, store) == {}
    again = await lock_by(hub, "a", await hub.host("two"), store)
    assert sorted(kinds([m.event for m in effective(again.inbox)])) == ["TaskCompleted", "TimerFired"]


@in_hub
async def test_parking_what_one_does_not_hold_any_more_does_nothing(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    held = await begin(hub, one, "a", keep=False)
    await send(one, raised("a", "e"))
    taken = await lock_by(hub, "a", two, one)
    await one.park([held.lease], REASON)
    assert (await record_of(one, "a")).condition is None
    await taken.step(end())
    assert await status_of(one, "a") is Status.COMPLETED
