"""Calls of one host that come together: each gets its own answer, and what there is to hand out goes to one of them."""

import asyncio

import pytest

from holdtrue.core import events as ev
from holdtrue.stores.protocol import ActivityResult, CommitResult
from tests.conformance.acting import (
    SECOND,
    Hub,
    act,
    begin,
    child,
    create,
    done,
    end,
    in_hub,
    kinds,
    lock,
    lock_one,
    names,
    raised,
    record_of,
    send,
    start,
    tell,
    timer,
)

TIMES = 3


@pytest.mark.parametrize("held", [True, False])
@in_hub
async def test_looks_at_the_clock(hub: Hub, held: bool) -> None:
    store = await hub.host()
    due, later = hub.now() + SECOND, hub.now() + 1_000 * SECOND
    await begin(hub, store, "a", timer(0, due), timer(1, due), timer(2, later), keep=held)
    hub.clock.ahead = 2
    await hub.settle()
    looks = await asyncio.gather(*(store.fire_due(hub.now()) for _ in range(TIMES)))
    assert [each.next_due for each in looks] == [later if hub.traits.knows_due else None] * TIMES
    delivered = [delivery.message.event for each in looks for delivery in each.deliveries]
    if held:
        assert kinds(delivered) == ["TimerFired"] * 2
        assert not any(each.ready for each in looks)
    else:
        assert delivered == [] and any(each.ready for each in looks)
        assert kinds([m.event for m in (await lock_one(hub, store, "a")).inbox]) == ["TimerFired"] * 2


@in_hub
async def test_fetches(hub: Hub) -> None:
    store, client = await hub.host(), await hub.open()
    await begin(hub, store, "a")
    await send(client, raised("a", "one"), raised("a", "two"))
    await hub.settle()
    found = await asyncio.gather(*(store.fetch() for _ in range(TIMES)))
    assert names([delivery.message for each in found for delivery in each]) == ["one", "two"]


@in_hub
async def test_work_items(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "a", *(act(n) for n in range(7)), keep=False)
    taken = await asyncio.gather(*(store.lock_activities(3) for _ in range(TIMES)))
    assert sorted(item.task.task_id for each in taken for item in each) == list(range(7))
    assert all(len(each) <= 3 for each in taken)
    items = [item for each in taken for item in each]
    told = await asyncio.gather(*(store.report(item.ref, f'"{n}"', None) for n, item in enumerate(items)))
    assert told == [True] * 7
    assert {info.progress for info in await store.activities_of("a")} == {f'"{n}"' for n in range(7)}
    results = [ActivityResult(ref=item.ref, event=done(item, str(item.task.task_id))) for item in items]
    twice = await asyncio.gather(*(store.complete([result]) for result in (*results, *results)))
    assert [outcome.accepted for (outcome,) in twice] == [True] * 7 + [False] * 7
    held = await lock_one(hub, store, "a")
    assert sorted(m.event.result for m in held.inbox if type(m.event) is ev.TaskCompleted) == [str(n) for n in range(7)]


@in_hub
async def test_commits_of_one_instance(hub: Hub) -> None:
    """Only the first counts; the others say that they came too late, and leave nothing."""
    store = await hub.host()
    await create(store, start("a"))
    held = await lock_one(hub, store, "a")
    commit = held.episode(act(0), timer(1, hub.now() + SECOND), child(2, "c"), tell(3, "a", "e"))
    outcomes = await asyncio.gather(*(store.commit([held.committing(commit)]) for _ in range(TIMES)))
    results = [outcome.result for (outcome,) in outcomes]
    assert results == [CommitResult.COMMITTED] + [CommitResult.STALE] * (TIMES - 1)
    for (late,) in outcomes[1:]:
        assert (late.activities, late.taken, late.deliveries, late.dead) == ([], [], [], [])
    assert (await record_of(store, "a")).length == len(commit.events)
    assert len(await store.lock_activities(10)) == 1 and list(await lock(hub, store)) == ["c"]
    if hub.traits.counts:
        info = await store.info()
        assert (info.messages, sum(info.instances.values())) == (2, 2)


@in_hub
async def test_everything_that_a_commit_delivers_to_its_own_host_comes_with_it(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "taken")
    other = await begin(hub, store, "other")
    await create(store, start("a"))
    held = await lock_one(hub, store, "a")
    outcome = await held.step(
        tell(0, "other", "to another"), tell(1, "a", "to itself"), child(2, "taken"), timer(3, 1), child(4, "taken")
    )
    assert names(held.inbox) == ["to itself"]
    assert sorted(kinds([m.event for m in held.inbox])) == [
        "EventRaised",
        "SubOrchestrationInstanceFailed",
        "SubOrchestrationInstanceFailed",
        "TimerFired",
    ]
    await other.hear(*outcome.deliveries)
    assert names(other.inbox) == ["to another"]
    # What was delivered is what waits in the hub: nothing came twice, nothing is missing.
    await held.put_back()
    assert len((await lock_one(hub, store, "a")).inbox) == 4
    await other.step(end())
