"""Calling the others: whatever leaves work that another host may do calls it, and what leaves none calls nobody.

A host that is not called finds the work all the same when it looks by itself, but late: a lost call is a delay that
nothing else shows.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from holdtrue.core.projection import Condition
from holdtrue.stores.protocol import ActivityResult, Notice, StoredSchedule, TaskHubStore
from tests.conformance.acting import (
    SECOND,
    Held,
    Hub,
    act,
    begin,
    child,
    create,
    done,
    end,
    ended,
    in_hub,
    letters_of,
    lock,
    lock_one,
    raised,
    send,
    start,
    taken,
    tell,
    terminate,
    timer,
    where,
    where_not,
)

LONG = 20.0
HELD = Condition(kind="held", reason="the code asks for something else", since=7)

Do = Callable[[], Awaitable[Any]]
Case = Callable[[Hub, TaskHubStore, TaskHubStore], Awaitable[Do]]


class Watched:
    """What a host is called for; `settled` ends with a call of its own making, so that all before it have come."""

    def __init__(self, store: TaskHubStore) -> None:
        self._notices: asyncio.Queue[Notice] = asyncio.Queue()
        store.listen(self._notices.put_nowait)

    async def work(self) -> None:
        async with asyncio.timeout(LONG):
            while not (await self._notices.get()).work:
                pass

    async def settled(self, by: TaskHubStore, mark: str) -> bool:
        """Whether it was called for work up to now."""
        new = StoredSchedule(schedule_id=mark, definition="{}", state="{}", due=None, etag=0)
        assert await by.put_schedule(new, expect=None) is not None
        called = False
        async with asyncio.timeout(LONG):
            while True:
                notice = await self._notices.get()
                called = called or notice.work
                if notice.schedules:
                    return called


# Each makes ready, and gives what is to be done by `one`, of which `two` is to hear.


async def a_start(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    return lambda: create(one, start("a"))


async def an_event(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    await begin(hub, one, "a", keep=False)
    return lambda: send(one, raised("a", "e"))


async def an_event_to_one_that_it_holds(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    await begin(hub, two, "a")
    return lambda: send(one, raised("a", "e"))


async def an_event_by_an_orchestration(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    await begin(hub, one, "a", keep=False)
    sender = await begin(hub, one, "b")
    return lambda: sender.step(tell(0, "a", "e"))


async def a_second_event_to_one_that_is_ready(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    await begin(hub, one, "a", keep=False)
    await send(one, raised("a", "e"))
    return lambda: send(one, raised("a", "e"))


async def an_instance_put_back(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    held = await _taken(hub, one)
    return held.put_back


async def a_work_item_put_back(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    await begin(hub, one, "a", act(0))
    (item,) = await one.lock_activities(1)
    return lambda: one.put_back_activities([item.ref])


async def a_work_item_left_by_a_commit(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    held = await _taken(hub, one)
    return lambda: held.step(act(0), act(1), take_activities=1)


async def a_child_left_by_a_commit(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    held = await _taken(hub, one)
    return lambda: held.step(child(0, "b"), child(1, "c"), take_starts=1)


async def a_lock_given_back_with_a_commit(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    held = await _taken(hub, one)
    await send(one, raised("a", "e"))
    return lambda: held.step(keep=False)


async def a_result_of_an_instance_that_nobody_holds(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    await begin(hub, one, "a", act(0), keep=False)
    (item,) = await one.lock_activities(1)
    return lambda: one.complete([ActivityResult(ref=item.ref, event=done(item))])


async def a_child_that_ends(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    held = await _taken(hub, one)
    outcome = await held.step(child(0, "b"), take_starts=1, keep=False)
    (inner,) = await taken(hub, one, *(outcome.taken or [None]))
    return lambda: inner.step(end())


async def a_timer_that_is_due(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    await begin(hub, one, "a", timer(0, hub.now() + SECOND), keep=False)
    hub.clock.ahead = 2
    return lambda: one.fire_due(hub.now())


async def a_timer_of_one_that_it_holds(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    await begin(hub, two, "a", timer(0, hub.now() + SECOND))
    hub.clock.ahead = 2
    return lambda: one.fire_due(hub.now())


async def the_deadline_of_a_held_one(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    held = await begin(hub, one, "a", deadline=hub.now() + SECOND)
    await one.park([held.lease], HELD)
    await _tried_by(hub, two)
    hub.clock.ahead = 2
    return lambda: one.fire_due(hub.now())


async def one_held_that_it_has_not_tried(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    held = await _taken(hub, one)
    return lambda: one.park([held.lease], HELD)


async def the_end_of_a_held_one(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    held = await begin(hub, one, "a")
    await one.park([held.lease], HELD)
    await _tried_by(hub, two)
    return lambda: send(one, terminate("a"))


async def a_dead_letter_sent_again(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    sender = await begin(hub, one, "b")
    await sender.step(tell(0, "a", "e"))
    (letter,) = await letters_of(hub, one, 1)
    await begin(hub, one, "a", keep=False)
    return lambda: one.resend([letter.number])


async def a_host_that_leaves(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    await _taken(hub, one)
    return one.leave


WORK: list[Case] = [
    a_start,
    an_event,
    an_event_to_one_that_it_holds,
    an_event_by_an_orchestration,
    a_second_event_to_one_that_is_ready,
    an_instance_put_back,
    a_work_item_put_back,
    a_work_item_left_by_a_commit,
    a_child_left_by_a_commit,
    a_lock_given_back_with_a_commit,
    a_result_of_an_instance_that_nobody_holds,
    a_child_that_ends,
    a_timer_that_is_due,
    a_timer_of_one_that_it_holds,
    the_deadline_of_a_held_one,
    one_held_that_it_has_not_tried,
    the_end_of_a_held_one,
    a_dead_letter_sent_again,
    a_host_that_leaves,
]


FOR_OTHERS = [one_held_that_it_has_not_tried]
"""What is no work for who left it."""


async def a_start_that_is_taken(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    return lambda: create(one, start("a", take=True))


async def an_event_to_an_instance_in_hand(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    await begin(hub, one, "a")
    return lambda: send(one, raised("a", "e"))


async def an_event_to_an_ended_one(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    await ended(hub, one, "a")
    return lambda: send(one, raised("a", "e"), raised("none", "e"))


async def an_event_to_a_held_one(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    held = await begin(hub, one, "a")
    await one.park([held.lease], HELD)
    await _tried_by(hub, two)
    return lambda: send(one, raised("a", "e"))


async def a_step_whose_work_is_taken(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    held = await _taken(hub, one)
    return lambda: held.step(act(0), child(1, "b"), take_activities=1, take_starts=1)


async def a_look_at_the_clock_with_nothing_due(hub: Hub, one: TaskHubStore, two: TaskHubStore) -> Do:
    await begin(hub, one, "a", timer(0, hub.now() + 1_000 * SECOND), keep=False)
    return lambda: one.fire_due(hub.now())


NO_WORK: list[Case] = [
    a_start_that_is_taken,
    an_event_to_an_instance_in_hand,
    an_event_to_an_ended_one,
    an_event_to_a_held_one,
    a_step_whose_work_is_taken,
    a_look_at_the_clock_with_nothing_due,
]


async def _taken(hub: Hub, store: TaskHubStore) -> Held:
    await create(store, start("a"))
    return await lock_one(hub, store, "a")


async def _tried_by(hub: Hub, store: TaskHubStore) -> None:
    """The held instance could not go on there either."""
    if hub.traits.any_host:
        other = await lock_one(hub, store, "a")
        await store.park([other.lease], HELD)


@where_not("calls_others")
@pytest.mark.parametrize("case", [case for case in WORK if case not in FOR_OTHERS], ids=lambda case: case.__name__)
@in_hub
async def test_what_leaves_work_is_found_by_who_looks(hub: Hub, case: Case) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    do = await case(hub, one, one)
    await do()

    async def look() -> bool:
        return any(
            [await lock(hub, store) or await store.lock_activities(1) or await store.fetch() for store in (one, two)]
        )

    assert await look()


@where("calls_others")
@pytest.mark.parametrize("case", WORK, ids=lambda case: case.__name__)
@in_hub
async def test_what_leaves_work_calls_the_other(hub: Hub, case: Case) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    one.listen(lambda notice: None)
    watched = Watched(two)
    do = await case(hub, one, two)
    for mark in ("once", "twice"):
        await watched.settled(one, mark)
    await do()
    await watched.work()


@where("calls_others")
@pytest.mark.parametrize("case", NO_WORK, ids=lambda case: case.__name__)
@in_hub
async def test_what_leaves_no_work_calls_nobody(hub: Hub, case: Case) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    one.listen(lambda notice: None)
    watched = Watched(two)
    do = await case(hub, one, two)
    for mark in ("once", "twice"):
        await watched.settled(one, mark)
    await do()
    assert not await watched.settled(one, "after")
