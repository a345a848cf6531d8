"""Episodes: applied whole or not at all, in batches, with everything that they carry."""

import asyncio

from holdtrue.core import events as ev
from holdtrue.core.projection import Status
from holdtrue.stores.protocol import CommitResult
from tests.conformance.acting import (
    SECOND,
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
    names,
    raised,
    record_of,
    send,
    start,
    status_of,
    tell,
    timer,
    where,
    with_work,
)


@in_hub
async def test_everything_of_an_episode_is_there_after_it(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "other", keep=False)
    held = await begin(
        hub, store, "a", act(0, input="1"), timer(1, hub.now() + 60 * SECOND), child(2, "c", "2"),
        tell(3, "other", "e", "3"), custom='{"step": 1}',
    )  # fmt: skip
    record = await record_of(store, "a")
    assert record.projection.status is Status.RUNNING
    assert record.projection.custom_status == '{"step": 1}'
    assert record.length == held.state.length and record.size > 0
    assert kinds(await history_of(store, "a")) == [
        "OrchestratorStarted", "ExecutionStarted", "TaskScheduled", "TimerCreated",
        "SubOrchestrationInstanceCreated", "EventSent", "OrchestratorCompleted",
    ]  # fmt: skip
    (item,) = await store.lock_activities(10)
    assert (item.task.name, item.task.input, item.run, item.instance) == ("act", "1", 1, held.lease.key)
    assert ((await store.fire_due(hub.now())).next_due is not None) == hub.traits.knows_due
    taken = await lock(hub, store)
    assert sorted(taken) == ["c", "other"]
    assert names(taken["other"].inbox) == ["e"]
    assert taken["c"].record.projection.input == "2"
    await check_whole(store, "a")


@in_hub
async def test_an_episode_over_nothing_changes_nothing(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    before = await record_of(store, "a")
    await held.commit(held.episode())
    assert await record_of(store, "a") == before
    assert await store.commit([]) == []


@in_hub
async def test_an_episode_that_only_uses_messages_up(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    stale = ev.TaskCompleted(timestamp=1, task_scheduled_id=7, result="1")
    from holdtrue.core.messages import OutboundMessage

    (outcome,) = await send(store, OutboundMessage(instance_id="a", event=stale))
    await held.hear(outcome.delivery)
    commit = held.episode()
    assert [d.reason for d in commit.dropped] == ["nobody waits for it any more"] and commit.events == []
    await held.commit(commit, keep=False)
    assert await lock(hub, store) == {}


@in_hub
async def test_a_batch_of_many_instances_and_each_is_answered(hub: Hub) -> None:
    store = await hub.host()
    await create(store, *(start(f"i{n}") for n in range(200)))
    held = list((await lock(hub, store, 200)).values())
    committing = [h.committing(h.episode(act(0, input=h.id), custom=f'"{h.id}"'), keep=False) for h in held]
    outcomes = await store.commit(committing)
    assert [o.result for o in outcomes] == [CommitResult.COMMITTED] * 200
    for h in held:
        assert (await record_of(store, h.id)).projection.custom_status == f'"{h.id}"'
    items = await store.lock_activities(1_000)
    assert sorted(i.task.input or "" for i in items) == sorted(h.id for h in held)


@in_hub
async def test_one_bad_episode_in_a_batch_does_not_keep_the_others(hub: Hub) -> None:
    store, other = await hub.host("one"), await hub.host("two")
    await create(store, *(start(f"i{n}") for n in range(9)))
    held = await lock(hub, store)
    lost = held["i4"]
    await lost.put_back()
    thief = await lock_by(hub, "i4", other, store)
    batch = [h.committing(h.episode(act(0), end(1, '"done"'))) for h in held.values()]
    outcomes = dict(zip(held, await store.commit(batch), strict=True))
    assert outcomes.pop("i4").result is CommitResult.LEASE_LOST
    assert {o.result for o in outcomes.values()} == {CommitResult.COMMITTED}
    assert await status_of(store, "i4") is Status.PENDING
    await thief.step(end(output='"the thief"'))
    assert (await record_of(store, "i4")).projection.output == '"the thief"'
    assert await status_of(store, "i3") is Status.COMPLETED


@where("any_host")
@in_hub
async def test_commits_of_many_at_once_from_two_processes(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    await create(one, *(start(f"i{n}") for n in range(60)))
    mine, theirs = await lock(hub, one, 30), await lock(hub, two, 30)
    assert not set(mine) & set(theirs) and len(mine) + len(theirs) == 60
    await asyncio.gather(*(h.step(act(0), end(1, f'"{h.id}"')) for h in (*mine.values(), *theirs.values())))
    records = await two.status([f"i{n}" for n in range(60)])
    assert [r.projection.output for r in records if r] == [f'"i{n}"' for n in range(60)]


@in_hub
async def test_one_episode_that_touches_itself_and_its_own_child(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", tell(0, "a", "mine"), child(1, "c"), tell(2, "c", "to the child"))
    assert names(held.inbox) == ["mine"]
    # The child was started in the same commit: what is sent to it comes after its start.
    taken = await lock_one(hub, store, "c")
    assert type(taken.inbox[0].event) is ev.ExecutionStarted
    assert names(taken.inbox) == ["to the child"] and await store.dead_letters() == []


@in_hub
async def test_two_episodes_in_one_batch_that_write_to_each_other(hub: Hub) -> None:
    store = await hub.host()
    a, b = await begin(hub, store, "a"), await begin(hub, store, "b")
    outcomes = await store.commit(
        [a.committing(a.episode(tell(0, "b", "from a"))), b.committing(b.episode(tell(0, "a", "from b")))]
    )
    for outcome in outcomes:
        assert outcome.result is CommitResult.COMMITTED
        await a.hear(*outcome.deliveries)
        await b.hear(*outcome.deliveries)
    assert names(a.inbox) == ["from b"] and names(b.inbox) == ["from a"]


@in_hub
async def test_one_ends_in_the_batch_in_which_another_writes_to_it(hub: Hub) -> None:
    store = await hub.host()
    for order in (False, True):
        a, b = await begin(hub, store, f"a{order}"), await begin(hub, store, f"b{order}")
        batch = [a.committing(a.episode(end())), b.committing(b.episode(tell(0, a.id, "late")))]
        outcomes = await store.commit(batch[::-1] if order else batch)
        assert [o.result for o in outcomes] == [CommitResult.COMMITTED] * 2
        assert all(d.instance != a.lease.key for o in outcomes for d in o.deliveries)
        assert await status_of(store, a.id) is Status.COMPLETED
        assert not hub.traits.counts or (await store.info()).messages == 0
        assert await lock(hub, store) == {}
        await b.put_back()


@in_hub
async def test_keep_false_gives_the_lock_back_with_the_commit(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    held = await begin(hub, one, "a", keep=False)
    assert await lock(hub, two) == {}
    await send(one, raised("a", "e"))
    taken = await lock_by(hub, "a", two, one)
    await held.commit(held.episode(end()), expect=CommitResult.LEASE_LOST)
    await taken.step(keep=False)
    assert kinds(await history_of(two, "a"))[-2:] == ["EventRaised", "OrchestratorCompleted"]


@in_hub
async def test_keep_false_with_a_message_that_came_meanwhile_makes_it_ready(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    held = await begin(hub, one, "a")
    await send(two, raised("a", "meanwhile"))
    await held.step(act(0), keep=False)
    taken = await lock_by(hub, "a", two, one)
    assert names(taken.inbox) == ["meanwhile"]


@in_hub
async def test_a_wake_offers_the_instance_again_without_any_message(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    commit = held.episode(act(0))
    commit.wake = True
    await held.commit(commit, keep=False)
    woken = await lock_one(hub, store, "a")
    assert effective(woken.inbox) == []
    await woken.step(act(1), keep=False)
    assert await lock(hub, store) == {}


@in_hub
async def test_an_end_gives_the_lock_back_and_takes_everything_outstanding(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0), act(1), timer(2, hub.now() + SECOND))
    (item,) = await store.lock_activities(1)
    await held.step(fail())
    assert await store.lock_activities(10) == []
    assert await store.cancelled([item.ref]) == [item.ref]
    hub.clock.ahead = 5
    due = await store.fire_due(hub.now())
    assert (due.deliveries, due.ready, due.next_due) == ([], False, None)
    from holdtrue.stores.protocol import ActivityResult

    (late,) = await store.complete([ActivityResult(ref=item.ref, event=done(item))])
    assert late.delivery is None
    assert await lock(hub, store) == {}
    info = await store.info()
    assert (info.messages, info.activities, info.dead_letters) == (0, 0, 0)
    await check_whole(store, "a")


@in_hub
async def test_a_result_and_the_episode_that_it_triggers_are_one_commit(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0), act(1))
    one, two = await store.lock_activities(2)
    held.inbox.append(with_work(one))
    await held.step(act(2))
    assert {i.task_id for i in await store.activities_of("a")} == {1, 2}
    held.inbox.append(with_work(two))
    commit = held.episode(end(output='"both"'))
    assert len(commit.finished) == 1
    await held.commit(commit)
    assert (await record_of(store, "a")).projection.output == '"both"'
    assert await store.activities_of("a") == []
    assert not hub.traits.counts or (await store.info()).activities == 0


@in_hub
async def test_ten_thousand_actions_in_one_commit(hub: Hub) -> None:
    store = await hub.host()
    await create(store, start("a"))
    held = await lock_one(hub, store, "a")
    many = hub.many(10_000)
    actions = [act(n, input=str(n)) if n % 4 else timer(n, hub.now() + n * SECOND) for n in range(many)]
    await held.step(*actions)
    record = await record_of(store, "a")
    assert record.length == many + 3
    assert len(await history_of(store, "a")) == many + 3
    seen: set[int] = set()
    while items := await store.lock_activities(1_000):
        assert len(items) <= 1_000
        seen.update(i.task.task_id for i in items)
    assert len(seen) == many * 3 // 4
    await check_whole(store, "a")


@in_hub
async def test_a_thousand_children_in_one_commit(hub: Hub) -> None:
    store = await hub.host()
    many = hub.many(1_000)
    held = await begin(hub, store, "p", *(child(n, f"c{n}") for n in range(many)))
    assert len(await store.children("p")) == many
    taken = await lock(hub, store, 2_000)
    assert len(taken) == many
    await store.commit([c.committing(c.episode(end(output=c.id[1:]))) for c in taken.values()])
    await held.fetch()
    await held.put_back()
    (parent,) = (await lock(hub, store)).values()
    answers = [m.event for m in parent.inbox]
    assert sorted(e.task_scheduled_id for e in answers) == list(range(many))  # type: ignore[attr-defined]
