"""A failed instance takes a rewind: it is locked, its history replaced under the lease, and it goes on."""

import pytest

from holdtrue.core import events as ev
from holdtrue.core.projection import Status
from holdtrue.core.rewind import children_of, rewind_commit
from holdtrue.stores.protocol import ActivityResult, CommitOutcome, CommitResult, SendResult, TaskHubStore
from tests.conformance.acting import (
    SECOND,
    Held,
    Hub,
    act,
    begin,
    check_whole,
    child,
    done,
    end,
    fail,
    history_of,
    in_hub,
    kinds,
    lock,
    lock_one,
    new_id,
    raised,
    record_of,
    rewind,
    send,
    status_of,
    terminated,
    timer,
    went_wrong,
    with_work,
)


async def failed(hub: Hub, store: TaskHubStore) -> ev.HistoryEvent:
    """An instance with a good result, a timer, and a failed activity that ended it; the good activity's event."""
    held = await begin(
        hub, store, "a", act(0, input='"good"'), act(1, input='"bad"'), timer(2, hub.now() + 100 * SECOND)
    )
    good, bad = await store.lock_activities(2)
    held.inbox += [with_work(good), with_work(bad, went_wrong(bad, "down"))]
    await held.step(fail(message="a: Activity task #1 failed: down"))
    assert await status_of(store, "a") is Status.FAILED
    return done(good)


async def rewound(hub: Hub, held: Held) -> CommitOutcome:
    """Rewind the instance in hand, without its code."""
    history = await held.load()
    records = await held.store.status(children_of(history))
    commit = rewind_commit(
        held.state,
        history,
        held.inbox,
        now=hub.now(),
        new_id=new_id,
        children={i: None if r is None else r.projection for i, r in zip(children_of(history), records, strict=True)},
    )
    return (await held.store.commit([held.committing(commit, keep=False)]))[0]


@in_hub
async def test_it_runs_again_with_what_was_good(hub: Hub) -> None:
    store = await hub.host()
    good = await failed(hub, store)
    before = await history_of(store, "a")
    (sent,) = await send(store, rewind("a"))
    assert sent.result is SendResult.ACCEPTED
    held = await lock_one(hub, store, "a")
    assert held.record.projection.status is Status.FAILED
    assert kinds([m.event for m in held.inbox]) == ["ExecutionRewound"]
    outcome = await rewound(hub, held)
    assert outcome.result is CommitResult.COMMITTED
    p = (await record_of(store, "a")).projection
    assert (p.status, p.failure, p.output, p.completed_at) == (Status.RUNNING, None, None, None)
    await check_whole(store, "a")
    history = await history_of(store, "a")
    assert len(history) == len(before) + 1 and good in history
    (item,) = await store.lock_activities(10)
    assert item.task.input == '"bad"'
    assert (await store.fire_due(hub.now())).next_due is not None
    again = await lock_one(hub, store, "a")
    assert again.inbox == []
    await again.step()
    again.inbox.append(with_work(item))
    await again.step(end(output='"mended"'))
    assert (await record_of(store, "a")).projection.output == '"mended"'
    assert await lock(hub, store) == {}


@in_hub
async def test_twice_asked_for_is_done_once(hub: Hub) -> None:
    store = await hub.host()
    await failed(hub, store)
    await send(store, rewind("a"), rewind("a"))
    held = await lock_one(hub, store, "a")
    await rewound(hub, held)
    again = await lock_one(hub, store, "a")
    commit = again.episode()
    assert commit.events == []
    await again.commit(commit, keep=False)
    assert await status_of(store, "a") is Status.RUNNING


@pytest.mark.parametrize("how", [end(), terminated()])
@in_hub
async def test_only_a_failed_one_takes_it(hub: Hub, how: object) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    await held.step(how)  # type: ignore[arg-type]
    (sent, nobody) = await send(store, rewind("a"), rewind("nobody"))
    assert (sent.result, nobody.result) == (SendResult.ENDED, SendResult.NOT_FOUND)
    assert await lock(hub, store) == {}


@in_hub
async def test_other_messages_do_not_wake_a_failed_one(hub: Hub) -> None:
    store = await hub.host()
    await failed(hub, store)
    (sent,) = await send(store, raised("a", "e"))
    assert sent.result is SendResult.ENDED
    assert await lock(hub, store) == {}


@in_hub
async def test_it_waits_for_a_host_that_has_the_code(hub: Hub) -> None:
    store = await hub.host()
    await failed(hub, store)
    other = await hub.host("other", code=["child"])
    await send(other, rewind("a"))
    assert await lock(hub, other) == {}
    assert list(await lock(hub, store)) == ["a"]


@in_hub
async def test_a_late_rewind_has_no_effect(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    await failed(hub, one)
    await send(one, rewind("a"))
    held = await lock_one(hub, one, "a")
    await held.put_back()
    taken = await lock_one(hub, two, "a")
    assert (await rewound(hub, held)).result is CommitResult.LEASE_LOST
    assert await status_of(one, "a") is Status.FAILED
    assert (await rewound(hub, taken)).result is CommitResult.COMMITTED
    assert await status_of(one, "a") is Status.RUNNING


@in_hub
async def test_a_failed_child_is_told_by_its_parents_rewind(hub: Hub) -> None:
    store = await hub.host()
    parent = await begin(hub, store, "p", child(0, "c"), child(1, "d"))
    held = await lock(hub, store)
    await held["d"].step(end(output='"d"'))
    outcome = await held["c"].step(act(0))
    (item,) = await store.lock_activities(1)
    held["c"].inbox.append(with_work(item, went_wrong(item, "down")))
    await held["c"].step(fail(message="Activity task #0 failed: down"))
    parent.take(await store.fetch())
    await parent.put_back()
    parent = await lock_one(hub, store, "p")
    assert len(parent.inbox) == 2, outcome
    await parent.step(fail(message="Sub-orchestration task #0 failed: Activity task #0 failed: down"))
    await send(store, rewind("p"))
    await rewound(hub, await lock_one(hub, store, "p"))
    locked = await lock(hub, store)
    assert kinds([m.event for m in locked["c"].inbox]) == ["ExecutionRewound"]
    await rewound(hub, locked["c"])
    (item,) = await store.lock_activities(10)
    (accepted,) = await store.complete([ActivityResult(ref=item.ref, event=done(item))])
    assert accepted.accepted
    if "p" in locked:
        await locked["p"].put_back()
    locked = await lock(hub, store)
    outcome = await locked["c"].step(end(output='"c"'), keep=False)
    parent = locked.get("p") or (await lock(hub, store))["p"]
    parent.take(outcome.deliveries)
    await parent.step(end())
    answers = [e for e in await history_of(store, "p") if isinstance(e, ev.SubOrchestrationInstanceCompleted)]
    assert sorted(str(e.result) for e in answers) == ['"c"', '"d"']


@in_hub
async def test_purge_and_replace_still_work_on_one_that_was_asked(hub: Hub) -> None:
    from tests.conformance.acting import create, start

    store = await hub.host()
    await failed(hub, store)
    await send(store, rewind("a"))
    await create(store, start("a"))
    held = await lock_one(hub, store, "a")
    assert kinds([m.event for m in held.inbox]) == ["ExecutionStarted"]
    await held.step(fail())
    await send(store, rewind("a"))
    assert (await store.purge(["a"])).instances == 1
    assert await lock(hub, store) == {}
