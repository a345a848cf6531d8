"""A failed instance takes a rewind: it is locked, its history replaced under the lease, and it goes on."""

import msgspec
import pytest

from holdtrue.core import events as ev
from holdtrue.core.episode import EpisodeCommit
from holdtrue.core.projection import Condition, Status, rewinding
from holdtrue.core.rewind import children_of, rewind_commit
from holdtrue.stores.protocol import (
    ActivityResult,
    CommitOutcome,
    CommitResult,
    CreateResult,
    InstanceQuery,
    SendResult,
    TaskHubStore,
    is_rewinding,
)
from tests.conformance.acting import (
    EVERY,
    SECOND,
    Held,
    Hub,
    act,
    begin,
    check_whole,
    child,
    create,
    done,
    effective,
    end,
    fail,
    history_of,
    in_hub,
    kinds,
    lock,
    lock_by,
    lock_one,
    new_id,
    raised,
    record_of,
    rewind,
    send,
    start,
    status_of,
    terminate,
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


async def rewind_of(hub: Hub, held: Held) -> EpisodeCommit:
    """The rewind of the instance in hand, without its code."""
    history = await held.load()
    records = await held.store.status(children_of(history))
    return rewind_commit(
        held.state,
        history,
        held.inbox,
        now=hub.now(),
        new_id=new_id,
        children={i: None if r is None else r.projection for i, r in zip(children_of(history), records, strict=True)},
    )


async def rewound(hub: Hub, held: Held) -> CommitOutcome:
    """Rewind it and give it back."""
    return (await held.store.commit([held.committing(await rewind_of(hub, held), keep=False)]))[0]


@in_hub
async def test_it_runs_again_with_what_was_good(hub: Hub) -> None:
    store = await hub.host()
    good = await failed(hub, store)
    before = await history_of(store, "a")
    (sent,) = await send(store, rewind("a"))
    assert sent.result is SendResult.ACCEPTED
    held = await lock_one(hub, store, "a")
    assert held.record.projection.status is Status.PENDING and is_rewinding(held.record)
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
    assert ((await store.fire_due(hub.now())).next_due is not None) == hub.traits.knows_due
    again = await lock_one(hub, store, "a")
    assert effective(again.inbox) == []
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
async def test_a_host_that_could_not_go_on_with_it_before_it_failed_gets_it(hub: Hub) -> None:
    one = await hub.host("one")
    held = await begin(hub, one, "a")
    await one.park([held.lease], Condition(kind="held", reason="the code does not fit"))
    two = await hub.host("two")
    held = await lock_by(hub, "a", two, one)
    await held.step(fail())
    await two.leave()
    await send(one, rewind("a"))
    assert list(await lock(hub, one)) == ["a"]


@in_hub
async def test_a_late_rewind_has_no_effect(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    await failed(hub, one)
    await send(one, rewind("a"))
    held = await lock_one(hub, one, "a")
    late = await rewind_of(hub, held)
    await held.put_back()
    taken = await lock_by(hub, "a", two, one)
    await held.commit(late, expect=CommitResult.LEASE_LOST)
    assert await status_of(one, "a") is Status.PENDING
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
    await parent.fetch()
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
    await parent.hear(*outcome.deliveries)
    await parent.step(end())
    answers = [e for e in await history_of(store, "p") if isinstance(e, ev.SubOrchestrationInstanceCompleted)]
    assert sorted(str(e.result) for e in answers) == ['"c"', '"d"']


@in_hub
async def test_it_is_pending_from_the_request_on_and_has_not_ended(hub: Hub) -> None:
    store = await hub.host()
    await failed(hub, store)
    before = (await record_of(store, "a")).projection
    hub.clock.ahead += 5
    now = hub.now()
    await send(store, rewind("a"))
    record = await record_of(store, "a")
    p = record.projection
    assert (p.status, p.failure, p.output, p.completed_at) == (Status.PENDING, None, None, None)
    assert p.last_updated_at >= now and is_rewinding(record)
    assert msgspec.structs.replace(p, last_updated_at=0) == rewinding(before, 0)
    pending = await store.query(InstanceQuery(statuses=frozenset([Status.PENDING])))
    assert [one.projection.instance_id for one in pending.records] == ["a"]
    assert (await store.query(InstanceQuery(statuses=frozenset([Status.FAILED])))).records == []
    assert await store.expired(None, hub.now() + SECOND, None, 10) == []
    assert (await store.purge(["a"])).refused == ["a"]
    (refused,) = await store.create([start("a")])
    assert (refused.result, refused.status) == (CreateResult.REFUSED, Status.PENDING)
    await hub.close()
    assert await status_of(await hub.open(), "a") is Status.PENDING


@in_hub
async def test_a_replacing_start_takes_its_place(hub: Hub) -> None:
    store = await hub.host()
    await failed(hub, store)
    await send(store, rewind("a"))
    await create(store, start("a", over=EVERY))
    held = await lock_one(hub, store, "a")
    assert kinds([m.event for m in held.inbox]) == ["ExecutionStarted"]


@in_hub
async def test_what_comes_after_the_request_is_kept_in_order(hub: Hub) -> None:
    store = await hub.host()
    await failed(hub, store)
    outcomes = await send(store, rewind("a"), raised("a", "e", 1), terminate("a", '"enough"'))
    assert {outcome.result for outcome in outcomes} == {SendResult.ACCEPTED}
    await rewound(hub, await lock_one(hub, store, "a"))
    again = await lock_one(hub, store, "a")
    assert kinds([m.event for m in effective(again.inbox)]) == ["EventRaised", "ExecutionTerminated"]
    await again.step(terminated(output='"enough"'))
    assert await status_of(store, "a") is Status.TERMINATED


@in_hub
async def test_a_request_for_an_execution_that_is_gone_changes_nothing(hub: Hub) -> None:
    store = await hub.host()
    await failed(hub, store)
    gone = (await record_of(store, "a")).projection.execution_id
    await begin(hub, store, "a", fail())
    (sent,) = await send(store, msgspec.structs.replace(rewind("a"), execution_id=gone))
    assert sent.result is SendResult.ENDED
    assert await status_of(store, "a") is Status.FAILED and await lock(hub, store) == {}


@in_hub
async def test_a_host_that_goes_before_it_rewinds_leaves_it_to_the_next(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    await failed(hub, one)
    await send(one, rewind("a"))
    await lock_one(hub, one, "a")
    await one.leave()
    assert (await rewound(hub, await lock_one(hub, two, "a"))).result is CommitResult.COMMITTED
