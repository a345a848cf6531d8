"""A terminate; a recursive one goes down a tree to exactly what is under the instance, whatever it does meanwhile."""

import itertools
import random
from collections.abc import Sequence

import pytest

from holdtrue.core import events as ev
from holdtrue.core.actions import Action
from holdtrue.core.messages import Dropped
from holdtrue.core.projection import TERMINAL, Condition, Status
from holdtrue.stores.protocol import CommitResult, InstanceQuery, SendResult, TaskHubStore
from tests.conformance.acting import (
    EVERY,
    Held,
    Hub,
    again,
    begin,
    child,
    create,
    end,
    fail,
    in_hub,
    lock,
    send,
    start,
    suspend,
    terminate,
    terminated,
)


def is_told(held: Held) -> bool:
    """True where a terminate is in its inbox."""
    return any(isinstance(message.event, ev.ExecutionTerminated) for message in held.inbox)


async def handle_all(hub: Hub, *stores: TaskHubStore) -> None:
    """Episodes without actions until nothing has work; whoever is told to end ends."""
    while any([await _handle(hub, store) for store in stores]):
        pass


async def _handle(hub: Hub, store: TaskHubStore) -> bool:
    locked = await lock(hub, store)
    for held in locked.values():
        await take_step(held, [])
    return bool(locked)


async def take_step(held: Held, actions: Sequence[Action]) -> None:
    """An episode as an engine does it: told to end, it ends, whatever its code would have done."""
    await held.commit(held.episode(*([terminated()] if is_told(held) else actions)), keep=False)


async def statuses(store: TaskHubStore) -> dict[str, Status]:
    page = await store.query(InstanceQuery(page_size=1_000))
    return {one.projection.instance_id: one.projection.status for one in page.records}


@in_hub
async def test_a_terminate_ends_children_that_are_pending_suspended_held_or_without_code(hub: Hub) -> None:
    store = await hub.host()
    other = await hub.host("other", code=["other"])
    names = {"pending": "child", "suspended": "child", "held": "child", "unknown": "other"}
    if hub.traits.any_host:
        names["begun"] = "other"
    for root in ("p", "q"):
        children = [child(n, f"{root} {i}", name=name) for n, (i, name) in enumerate(names.items())]
        parent = await begin(hub, store, root, *children)
        locked = await lock(hub, store)
        await send(store, suspend(f"{root} suspended"))
        suspended = locked[f"{root} suspended"]
        await suspended.fetch()
        await suspended.step(keep=False)
        await locked[f"{root} held"].step()
        await store.park([locked[f"{root} held"].lease], Condition(kind="held", reason="the code does not fit"))
        await locked[f"{root} pending"].put_back()
        if hub.traits.any_host:
            elsewhere = await lock(hub, other)
            await elsewhere[f"{root} begun"].step(keep=False)
            await elsewhere[f"{root} unknown"].put_back()
        await parent.put_back()
        await lock(hub, store)  # out of the way
    await send(store, terminate("p", recurse=True), terminate("q"))
    await store.leave()
    await other.leave()
    await handle_all(hub, await hub.host("late", code=["code"]))
    ended = {i for i, status in (await statuses(store)).items() if status in TERMINAL}
    assert ended == {"q", "p", *(f"p {i}" for i in names)}


@in_hub
async def test_a_terminate_reaches_a_child_that_its_own_step_starts(hub: Hub) -> None:
    store = await hub.host()
    parent = await begin(hub, store, "p", child(0, "before"))
    (sent,) = await send(store, terminate("p", '"enough"', recurse=True))
    assert len(await parent.hear(sent.delivery)) == 1
    await parent.step(child(1, "within"), terminated(output='"enough"'))
    await handle_all(hub, store)
    assert set((await statuses(store)).values()) == {Status.TERMINATED}
    assert len(await statuses(store)) == 3


@pytest.mark.parametrize("told", [True, False])
@in_hub
async def test_a_terminate_that_comes_while_the_code_ends_goes_on_all_the_same(hub: Hub, told: bool) -> None:
    store = await hub.host()
    parent = await begin(hub, store, "p", child(0, "before"))
    commit = parent.episode(child(1, "within"), end())
    (sent,) = await send(store, terminate("p", recurse=True))  # durable, and its episode does not know it
    assert sent.result is SendResult.ACCEPTED
    await parent.hear(sent.delivery)
    (message,) = parent.inbox
    if told:
        # In the same batch, after what ended the code.
        commit.consumed.append(message.key or 0)
        commit.dropped.append(Dropped("the instance has ended", message.event))
    await parent.commit(commit)
    await handle_all(hub, store)
    assert await statuses(store) == {"p": Status.COMPLETED, "before": Status.TERMINATED, "within": Status.TERMINATED}


@in_hub
async def test_a_terminate_of_an_ended_one_reaches_those_under_it_through_ended_ones(hub: Hub) -> None:
    store = await hub.host()
    parent = await begin(hub, store, "p", child(0, "a"), child(1, "b"))
    locked = await lock(hub, store)
    await locked["a"].step(child(0, "a1"))
    await locked["a"].step(end())
    await parent.step(fail())
    (sent,) = await send(store, terminate("p"))
    await handle_all(hub, store)
    assert sent.result is SendResult.ENDED and (await statuses(store)).get("b") is (
        Status.PENDING if hub.traits.children_stand else None
    )
    await locked["b"].put_back()
    (sent,) = await send(store, terminate("p", recurse=True))
    assert sent.result is SendResult.ENDED
    await handle_all(hub, store)
    assert await statuses(store) == {
        "p": Status.FAILED,
        "a": Status.COMPLETED,
        "a1": Status.TERMINATED,
        "b": Status.TERMINATED,
    }


@in_hub
async def test_a_terminate_is_for_children_only_whatever_has_their_ids(hub: Hub) -> None:
    store = await hub.host()
    await create(store, start("c"))
    locked = await lock(hub, store)
    await create(store, start("p"))
    parent = (await lock(hub, store))["p"]
    await parent.step(child(0, "c"), child(1, "d"))  # the first is refused: an instance of that id stands
    await create(store, start("d", over=EVERY))
    (sent,) = await send(store, terminate("p", recurse=True))
    assert len(await parent.hear(sent.delivery)) == 1
    await take_step(parent, [])
    await locked["c"].put_back()
    await handle_all(hub, store)
    assert await statuses(store) == {"p": Status.TERMINATED, "c": Status.RUNNING, "d": Status.RUNNING}


@in_hub
async def test_children_of_earlier_executions_are_reached(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "p", child(0, "old"), again(), keep=False)
    await send(store, terminate("p", recurse=True))
    await handle_all(hub, store)
    assert await statuses(store) == {"p": Status.TERMINATED, "old": Status.TERMINATED}


@pytest.mark.parametrize("seed", range(25))
@in_hub
async def test_after_a_terminate_nothing_of_a_random_tree_goes_on(hub: Hub, seed: int) -> None:
    """Trees that grow while it is under way, in the hands of two hosts that put back, park, lose and go."""
    chance = random.Random(seed)
    hosts = [await hub.host(f"host {n}") for n in range(2)]
    await create(hosts[0], start("root"), start("bystander"))
    numbers = itertools.count(1)
    at = chance.randrange(60)
    held: list[tuple[int, Held]] = []
    for turn in range(90):
        if turn == at:
            client = await hub.open()
            (sent,) = await send(client, terminate("root", recurse=True))
            assert sent.result is not SendResult.NOT_FOUND
        host = chance.randrange(2)
        store = hosts[host]
        for locked in await store.lock(chance.randrange(3)):
            one = Held(store, locked, hub)
            if one.record.length:
                await one.load()
            held.append((host, one))
        for whose, one in held:
            if whose == host:
                await one.fetch()
        if not held:
            continue
        whose, one = held.pop(chance.randrange(len(held)))
        free = max(one.state.open, default=-1) + 1
        lot = chance.random()
        if lot < 0.1:
            await one.put_back()
        elif lot < 0.2 and one.record.length:
            await hosts[whose].park([one.lease], Condition(kind="held", reason="no fit"))
        elif lot < 0.25:
            await hosts[whose].leave()
            held = [(each, other) for each, other in held if each != whose]
            await hosts[whose].join(f"host {whose} again", ["code", "child"], ["act"])
        else:
            name = chance.choice(["child", "child", "nobody's"])
            new = [child(free + n, f"i{next(numbers)}", name=name) for n in range(chance.randrange(3))]
            last = chance.choice([[], [], [], [end()], [fail()], [again()]]) if one.id != "bystander" else []
            takes = chance.randrange(2)
            made = [terminated()] if is_told(one) else [*new, *last]
            (outcome,) = await one.store.commit([one.committing(one.episode(*made), False, 0, takes)])
            assert outcome.result is CommitResult.COMMITTED
            held += [(whose, Held(one.store, taken, hub)) for taken in outcome.taken]
            for each, other in held:
                if each == whose:
                    await other.hear(*outcome.deliveries)
    for store in hosts:
        await store.leave()
    await handle_all(hub, await hub.host("last"))
    living = {i for i, status in (await statuses(hosts[0])).items() if status not in TERMINAL}
    below = {"bystander"}
    while more := {one for parent in below for one in await hosts[0].children(parent)} - below:
        below |= more
    assert living <= below and "bystander" in living
