"""What is due later: timers, and what happens to them when they are not wanted any more."""

from holdtrue.core import events as ev
from holdtrue.core.projection import Status
from tests.conformance.acting import (
    SECOND,
    Hub,
    again,
    begin,
    end,
    in_hub,
    lock,
    lock_one,
    raised,
    send,
    status_of,
    suspend,
    timer,
    where,
    where_not,
)

DAY = 86_400 * SECOND


def timers(events: list[ev.HistoryEvent]) -> list[int]:
    return [e.timer_id for e in events if isinstance(e, ev.TimerFired)]


@in_hub
async def test_they_fire_at_their_time_in_order_and_the_next_is_told(hub: Hub) -> None:
    store = await hub.host()
    now = hub.now()
    held = await begin(
        hub, store, "a", timer(0, now + 30 * SECOND), timer(1, now + 10 * SECOND), timer(2, now + 20 * SECOND)
    )
    due = await store.fire_due(now)
    assert (due.deliveries, due.ready) == ([], False)
    assert due.next_due == (now + 10 * SECOND if hub.traits.knows_due else None)
    hub.clock.ahead = 21
    due = await store.fire_due(hub.now())
    assert timers(await held.hear(*due.deliveries)) == [1, 2]
    assert due.next_due == (now + 30 * SECOND if hub.traits.knows_due else None)
    assert held.inbox[0].scheduled is not None
    await held.step()
    hub.clock.ahead = 31
    due = await store.fire_due(hub.now())
    assert timers(await held.hear(*due.deliveries)) == [0] and due.next_due is None


@in_hub
async def test_one_in_the_past_fires_at_once(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", timer(0, 5), timer(1, 0))
    if not held.inbox:
        await held.hear(*(await store.fire_due(hub.now())).deliveries)
    assert sorted(timers([m.event for m in held.inbox])) == [0, 1]


@where("knows_due")
@in_hub
async def test_one_at_the_end_of_all_times(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "a", timer(0, ev.MAX_TICKS))
    assert (await store.fire_due(hub.now())).next_due == ev.MAX_TICKS


@where_not("knows_due")
@in_hub
async def test_one_so_far_that_no_delay_reaches_it_comes_at_its_time_all_the_same(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", timer(0, hub.now() + 8 * DAY), timer(1, ev.MAX_TICKS))
    for _ in range(7):
        hub.clock.ahead += 86_400
        await hub.later(30)
        assert await held.fetch() == []
        held = (await lock(hub, store)).get("a", held)
    hub.clock.ahead += 86_400
    await hub.later(30)
    fired = timers([m.event for one in (await lock(hub, store)).values() for m in one.inbox])
    assert (fired or timers(await held.fetch())) == [0]


@in_hub
async def test_for_an_instance_that_nobody_holds_they_make_it_ready(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "a", timer(0, hub.now() + 10 * SECOND), keep=False)
    assert await lock(hub, store) == {}
    hub.clock.ahead = 11
    await hub.settle()
    due = await store.fire_due(hub.now())
    assert due.ready and due.deliveries == []
    held = await lock_one(hub, store, "a")
    assert timers([m.event for m in held.inbox]) == [0]


@in_hub
async def test_for_an_instance_of_another_process_that_one_fetches_them(hub: Hub) -> None:
    holder, other = await hub.host("holder"), await hub.host("other")
    held = await begin(hub, holder, "a", timer(0, hub.now() + 10 * SECOND))
    hub.clock.ahead = 11
    assert (await other.fire_due(hub.now())).deliveries == []
    assert timers(await held.fetch()) == [0]
    assert (await holder.fire_due(hub.now())).deliveries == []


@in_hub
async def test_each_fires_once_however_many_look_at_the_clock(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    held = await begin(hub, one, "a", timer(0, hub.now() + SECOND))
    hub.clock.ahead = 5
    for _ in range(3):
        await held.hear(*(await one.fire_due(hub.now())).deliveries)
        assert (await two.fire_due(hub.now())).deliveries == []
        await held.fetch()
    assert timers([m.event for m in held.inbox]) == [0]


@in_hub
async def test_a_cancelled_one_does_not_fire(hub: Hub) -> None:
    store = await hub.host()
    now = hub.now()
    held = await begin(hub, store, "a", timer(0, now + SECOND), timer(1, now + 2 * SECOND))
    await held.step(cancel=(0,))
    assert (await store.fire_due(now)).next_due == (now + 2 * SECOND if hub.traits.knows_due else None)
    hub.clock.ahead = 5
    fired = timers(await held.hear(*(await store.fire_due(hub.now())).deliveries))
    assert fired == ([1] if hub.traits.recalls else [0, 1])
    assert not hub.traits.counts or (await store.info()).messages == 1


@in_hub
async def test_one_that_fires_as_it_is_cancelled_is_dropped(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", timer(0, hub.now() + SECOND), keep=False)
    hub.clock.ahead = 5
    await store.fire_due(hub.now())
    await send(store, raised("a", "e"))
    held = await lock_one(hub, store, "a")
    (fired, event) = held.inbox
    held.inbox = []
    # The event is decided first, the timer is cancelled while its firing lies in the inbox.
    await held.commit(held.episode(cancel=(0,), messages=[event]))
    await held.commit(held.episode(messages=[fired]), keep=False)
    assert await lock(hub, store) == {}
    assert not hub.traits.counts or (await store.info()).messages == 0


@in_hub
async def test_the_timer_of_a_new_execution_is_not_the_old_ones(hub: Hub) -> None:
    store = await hub.host()
    now = hub.now()
    held = await begin(hub, store, "a", timer(0, now + 10 * SECOND))
    await held.step(again(), then=[timer(0, now + 20 * SECOND)])
    assert (await store.fire_due(now)).next_due == (now + 20 * SECOND if hub.traits.knows_due else None)
    hub.clock.ahead = 11
    assert (await store.fire_due(hub.now())).deliveries == []
    hub.clock.ahead = 21
    assert timers(await held.hear(*(await store.fire_due(hub.now())).deliveries)) == [0]
    await held.step(end())
    assert await status_of(store, "a") is Status.COMPLETED


@in_hub
async def test_they_fire_while_it_is_suspended_and_wait_in_the_history(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", timer(0, hub.now() + SECOND))
    (outcome,) = await send(store, suspend("a"))
    await held.hear(outcome.delivery)
    await held.step()
    hub.clock.ahead = 2
    await held.hear(*(await store.fire_due(hub.now())).deliveries)
    await held.step()
    assert await status_of(store, "a") is Status.SUSPENDED
    assert timers(list(await store.load(held.lease))) == [0]


@in_hub
async def test_what_came_before_a_timers_time_comes_before_it(hub: Hub) -> None:
    """An approval that came in time wins against its time-out, though nobody was there to see either."""
    store = await hub.host()
    await begin(hub, store, "a", timer(0, hub.now() + 10 * SECOND), keep=False)
    await send(store, raised("a", "in time"))
    hub.clock.ahead = 11
    await store.fire_due(hub.now())
    await send(store, raised("a", "too late"))
    held = await lock_one(hub, store, "a")
    order = [e.name if isinstance(e, ev.EventRaised) else "timer" for e in (m.event for m in held.inbox)]
    assert order == ["in time", "timer", "too late"]


@in_hub
async def test_many_of_one_moment(hub: Hub) -> None:
    store = await hub.host()
    at, many = hub.now() + SECOND, hub.many(3_000)
    held = await begin(hub, store, "a", *(timer(n, at) for n in range(many)))
    hub.clock.ahead = 2
    for _ in range(10):
        due = await store.fire_due(hub.now())
        await held.hear(*due.deliveries)
        if due.next_due is None:
            break
    assert sorted(timers([m.event for m in held.inbox])) == list(range(many))
