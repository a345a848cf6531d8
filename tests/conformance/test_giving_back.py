"""Giving back: by whatever way an instance becomes nobody's, it is offered again if it has something to do, else not.

An instance that rests and is offered all the same costs an episode over nothing; one that has work and is not offered
stays as it is.
"""

from collections.abc import Awaitable, Callable

import pytest

from holdtrue.core.projection import Condition
from holdtrue.stores.protocol import TaskHubStore
from tests.conformance.acting import (
    SECOND,
    Held,
    Hub,
    act,
    again,
    begin,
    create,
    end,
    fail,
    in_hub,
    lock_anywhere,
    lock_one,
    raised,
    rewind,
    send,
    start,
    timer,
)

HELD = Condition(kind="held", reason="the code asks for something else", since=7)

Situation = Callable[[Hub, TaskHubStore], Awaitable[Held]]

# -- what the instance "a" has to do while `store` holds it ------------------------------------------------


async def nothing(hub: Hub, store: TaskHubStore) -> Held:
    return await begin(hub, store, "a", act(0))


async def a_timer_to_come(hub: Hub, store: TaskHubStore) -> Held:
    return await begin(hub, store, "a", timer(0, hub.now() + 100_000 * SECOND))


async def a_deadline_to_come(hub: Hub, store: TaskHubStore) -> Held:
    return await begin(hub, store, "a", deadline=hub.now() + 100_000 * SECOND)


async def its_end(hub: Hub, store: TaskHubStore) -> Held:
    return await begin(hub, store, "a", end())


async def its_first_step(hub: Hub, store: TaskHubStore) -> Held:
    await create(store, start("a"))
    return await lock_one(hub, store, "a")


async def a_message(hub: Hub, store: TaskHubStore) -> Held:
    held = await begin(hub, store, "a")
    await send(store, raised("a", "e"))
    return held


async def a_message_and_a_timer(hub: Hub, store: TaskHubStore) -> Held:
    held = await begin(hub, store, "a", timer(0, hub.now() + 100_000 * SECOND))
    await send(store, raised("a", "e"))
    return held


async def a_timer_that_fired(hub: Hub, store: TaskHubStore) -> Held:
    held = await begin(hub, store, "a", timer(0, hub.now() + SECOND))
    hub.clock.ahead += 2
    await store.fire_due(hub.now())
    return held


async def a_step_that_it_asked_for(hub: Hub, store: TaskHubStore) -> Held:
    await create(store, start("a"))
    held = await lock_one(hub, store, "a")
    made = held.episode(again(), then=[again()])
    assert made.wake
    await held.commit(made)
    return held


async def its_code_to_be_tried(hub: Hub, store: TaskHubStore) -> Held:
    unfit = await hub.host("unfit") if hub.traits.any_host else store
    held = await begin(hub, unfit, "a")
    await unfit.park([held.lease], HELD)
    if not hub.traits.any_host:
        await hub.host("fit")
    return await lock_one(hub, store, "a")


async def its_rewind(hub: Hub, store: TaskHubStore) -> Held:
    await begin(hub, store, "a", fail())
    await send(store, rewind("a"))
    return await lock_one(hub, store, "a")


# A store's own ways, those out of a backup, are tried with the same situations by its unit tests.
RESTS: list[Situation] = [nothing, a_timer_to_come, a_deadline_to_come, its_end]
WORKS: list[Situation] = [
    its_first_step,
    a_message,
    a_message_and_a_timer,
    a_timer_that_fired,
    a_step_that_it_asked_for,
    its_code_to_be_tried,
    its_rewind,
]

# -- how it becomes nobody's -------------------------------------------------------------------------------


async def by_putting_back(hub: Hub, store: TaskHubStore, held: Held) -> None:
    await held.put_back()


async def by_leaving(hub: Hub, store: TaskHubStore, held: Held) -> None:
    await store.leave()


async def by_closing(hub: Hub, store: TaskHubStore, held: Held) -> None:
    await store.close()


async def by_its_lease(hub: Hub, store: TaskHubStore, held: Held) -> None:
    if hub.traits.any_host:
        hub.clock.ahead += 1_000
    else:
        await hub.stops(store, 200)


WAYS = [by_putting_back, by_leaving, by_closing, by_its_lease]

NAMED = {"ids": lambda each: each.__name__}


@pytest.mark.parametrize("way", WAYS, **NAMED)
@pytest.mark.parametrize("situation", [*RESTS, *WORKS], **NAMED)
@in_hub
async def test_offered_again_if_it_has_something_to_do(
    hub: Hub, situation: Situation, way: Callable[[Hub, TaskHubStore, Held], Awaitable[None]]
) -> None:
    store, other = await hub.host("one"), await hub.host("two", lease=100_000.0)
    assert await other.renew() == []
    await way(hub, store, await situation(hub, store))
    await other.renew()
    offered = await lock_anywhere(hub, other)
    assert list(offered) == (["a"] if situation in WORKS else [])
    # Once only, whoever asks.
    assert await lock_anywhere(hub, other) == {}
