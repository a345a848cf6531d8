"""Commits of calls that come together are one transaction: each has the effect that it has alone."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from holdtrue.core import events as ev
from holdtrue.core.messages import InboundMessage
from holdtrue.stores.protocol import CommitResult, Committing, TaskHubStore
from holdtrue.stores.sqlite import SqliteStore, writer
from tests.conformance.acting import (
    SECOND,
    Held,
    Hub,
    act,
    again,
    begin,
    check_whole,
    child,
    end,
    fail,
    in_hub,
    lock,
    raised,
    record_of,
    send,
    tell,
    timer,
    with_work,
)

Make = Callable[[Hub, TaskHubStore, Held], Awaitable[Committing]]
LATER = 40_000_000_000 * SECOND


async def ordinary(hub: Hub, store: TaskHubStore, held: Held) -> Committing:
    held.inbox.append(InboundMessage(event=ev.EventRaised(timestamp=1, name="e")))
    return held.committing(held.episode(now=LATER))


async def with_a_custom_status(hub: Hub, store: TaskHubStore, held: Held) -> Committing:
    return held.committing(held.episode(custom='"c"', now=LATER))


async def with_work_items(hub: Hub, store: TaskHubStore, held: Held) -> Committing:
    return held.committing(held.episode(act(5), act(6), now=LATER), take_activities=1)


async def with_a_result(hub: Hub, store: TaskHubStore, held: Held) -> Committing:
    held.inbox += [with_work(item) for item in await store.lock_activities(1, [held.id])]
    assert held.inbox
    return held.committing(held.episode(now=LATER))


async def with_a_message_used_up(hub: Hub, store: TaskHubStore, held: Held) -> Committing:
    (sent,) = await send(store, raised(held.id, "e"))
    assert sent.delivery is not None
    held.take([sent.delivery])
    return held.committing(held.episode(now=LATER))


async def with_timers_events_and_children(hub: Hub, store: TaskHubStore, held: Held) -> Committing:
    commit = held.episode(
        timer(5, LATER * 2), timer(6, 1), tell(7, held.id, "me"), tell(8, "nobody", "e"), child(9, f"{held.id} c1"),
        child(10, f"{held.id} c2"), now=LATER,
    )  # fmt: skip
    return held.committing(commit, take_starts=1)


async def with_something_taken_back(hub: Hub, store: TaskHubStore, held: Held) -> Committing:
    return held.committing(held.episode(cancel=(0, 1), now=LATER))


async def ending(hub: Hub, store: TaskHubStore, held: Held) -> Committing:
    return held.committing(held.episode(end(output='"o"'), now=LATER))


async def failing(hub: Hub, store: TaskHubStore, held: Held) -> Committing:
    return held.committing(held.episode(fail(), now=LATER))


async def continuing(hub: Hub, store: TaskHubStore, held: Held) -> Committing:
    return held.committing(held.episode(again('"i"'), then=[act(0), timer(1, LATER * 2)], now=LATER))


async def giving_back(hub: Hub, store: TaskHubStore, held: Held) -> Committing:
    return held.committing(held.episode(act(5), now=LATER), keep=False)


KINDS: list[Make] = [
    ordinary,
    with_a_custom_status,
    with_work_items,
    with_a_result,
    with_a_message_used_up,
    with_timers_events_and_children,
    with_something_taken_back,
    ending,
    failing,
    continuing,
    giving_back,
]


async def held_for(hub: Hub, store: TaskHubStore, instance_id: str, make: Make) -> Committing:
    held = await begin(hub, store, instance_id, act(0, instance_id), timer(1, LATER * 3))
    return await make(hub, store, held)


async def seen(hub: Hub, store: TaskHubStore, instance_id: str) -> str:
    """All that the hub tells of an instance, as text without what is each instance's own."""
    await check_whole(store, instance_id)
    record = await record_of(store, instance_id)
    history = [event async for piece in store.history(instance_id) for event in piece]
    told = [encoded(each) for each in (record, history, await store.activities_of(instance_id))]
    told += sorted(await store.children(instance_id))
    return bare(" ".join(told), instance_id)


def bare(text: str, instance_id: str) -> str:
    text = re.sub(r'"x\d+"', '"x"', text.replace(instance_id, "i"))
    return re.sub(r'"(key|token|instance|at|created_at|size)":\d+', r'"\1":0', text)


def encoded(value: Any) -> str:
    return msgspec.json.encode(value).decode()


async def together_as_alone(hub: Hub, kinds: list[Make], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_QUICK_SECONDS", 1e9)
    store = await hub.host()
    assert isinstance(store, SqliteStore) and store._writer is not None
    alone = [await held_for(hub, store, f"one{n}", kind) for n, kind in enumerate(kinds)]
    together = [await held_for(hub, store, f"two{n}", kind) for n, kind in enumerate(kinds)]
    before = store._writer._marks
    outcomes = await asyncio.gather(*(store.commit([committing]) for committing in together))
    assert store._writer._marks - before == 1
    for n, (outcome,) in enumerate(outcomes):
        (expected,) = await store.commit([alone[n]])
        assert outcome.result is expected.result is CommitResult.COMMITTED
        assert bare(encoded(outcome), f"two{n}") == bare(encoded(expected), f"one{n}"), kinds[n]
    for n, kind in enumerate(kinds):
        assert await seen(hub, store, f"two{n}") == await seen(hub, store, f"one{n}"), kind


@pytest.mark.parametrize("kind", KINDS, ids=lambda make: make.__name__)
@in_hub
async def test_two_of_a_kind(hub: Hub, monkeypatch: pytest.MonkeyPatch, kind: Make) -> None:
    await together_as_alone(hub, [kind, kind], monkeypatch)


@in_hub
async def test_all_kinds_at_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    await together_as_alone(hub, KINDS, monkeypatch)


@pytest.mark.parametrize("first", ["sender", "receiver"])
@pytest.mark.parametrize("goes", ["ends", "is given back"])
@in_hub
async def test_nothing_is_delivered_for_one_that_this_host_does_not_hold_any_more(
    hub: Hub, first: str, goes: str
) -> None:
    store = await hub.host()
    receiver = await begin(hub, store, "receiver")
    sender = await begin(hub, store, "sender")
    made = {
        "sender": sender.committing(sender.episode(tell(0, "receiver", "e"), now=LATER)),
        "receiver": receiver.committing(
            receiver.episode(*([end()] if goes == "ends" else [act(0)]), now=LATER), keep=goes == "ends"
        ),
    }
    order = sorted(made, key=lambda name: name != first)
    outcomes = await store.commit([made[name] for name in order])
    assert [outcome.deliveries for outcome in outcomes] == [[], []]
    # It lies in the hub for who comes next, or is gone with the end.
    offered = {held.id: len(held.inbox) for held in (await lock(hub, store)).values()}
    assert offered == ({} if goes == "ends" else {"receiver": 1})
    assert (await store.info()).messages == len(offered)
