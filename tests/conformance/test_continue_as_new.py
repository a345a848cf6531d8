"""An execution that gives way to its next: the history is replaced, and nothing stale reaches the new one."""

from holdtrue.core import events as ev
from holdtrue.core.episode import GENERATIONS_PER_EPISODE
from holdtrue.core.projection import Status
from holdtrue.stores.protocol import ActivityResult, CommitResult
from tests.conformance.acting import (
    SECOND,
    Hub,
    act,
    again,
    begin,
    check_whole,
    child,
    create,
    done,
    effective,
    end,
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
    terminate,
    with_work,
)


@in_hub
async def test_the_history_is_the_new_executions_alone(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", *(act(n) for n in range(20)), input='"one"', tags={"k": "v"})
    old = held.state.projection
    await held.step(again(input='"two"'), then=[act(0)])
    p = (await record_of(store, "a")).projection
    assert p.execution_id != old.execution_id and p.generation == 1
    assert (p.status, p.input, p.tags, p.created_at) == (Status.RUNNING, '"two"', {"k": "v"}, old.created_at)
    history = await history_of(store, "a")
    assert [e.execution_id for e in history if isinstance(e, ev.ExecutionStarted)] == [p.execution_id]
    assert kinds(history).count("TaskScheduled") == 1
    await check_whole(store, "a")
    await held.step(end(output='"o"'))
    await check_whole(store, "a")


@in_hub
async def test_results_of_the_old_execution_are_not_the_new_ones(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0), act(1))
    zero, one = await store.lock_activities(2)
    await held.step(again(), then=[act(0), act(1)])
    (outcome,) = await store.complete([ActivityResult(ref=zero.ref, event=done(zero, '"old"'))])
    await held.hear(outcome.delivery)
    held.inbox.append(with_work(one, done(one, '"old"')))
    await held.step()
    assert set(held.state.open) == {0, 1}
    items = [i for i in await store.lock_activities(10) if i.task.execution_id == held.state.projection.execution_id]
    assert [i.task.task_id for i in items] == [0, 1]
    held.inbox += [with_work(i, done(i, '"new"')) for i in items]
    await held.step()
    history = await history_of(store, "a")
    assert [e.result for e in history if isinstance(e, ev.TaskCompleted)] == ['"new"', '"new"']


@in_hub
async def test_messages_not_yet_seen_are_carried_over_in_order(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", keep=False)
    await send(store, *(raised("a", f"e{n}") for n in range(3)))
    held = await lock_one(hub, store, "a")
    batch, held.inbox = held.inbox, []
    await send(store, raised("a", "after the lock"))
    await held.commit(held.episode(again(keep=(("e0", "0"),)), messages=batch[:1]), keep=False)
    new = await lock_one(hub, store, "a")
    assert names(new.inbox) == ["e1", "e2", "after the lock"]
    history = await new.load()
    assert [e.name for e in history if isinstance(e, ev.EventRaised)] == ["e0"]


@in_hub
async def test_an_end_not_yet_seen_is_carried_over_and_needs_no_code(hub: Hub) -> None:
    store, other = await hub.host(), await hub.host("other", code=["other"])
    held = await begin(hub, store, "a")
    commit = held.episode(again())
    await send(other, terminate("a"))
    await held.commit(commit, keep=False)
    ending = await lock_by(hub, "a", other, store)
    assert kinds([m.event for m in ending.inbox]) == ["ExecutionTerminated"]


@in_hub
async def test_many_generations_in_one_commit(hub: Hub) -> None:
    store = await hub.host()
    await create(store, start("a"))
    held = await lock_one(hub, store, "a")
    await held.step(again(), then=[again()], keep=False)
    record = await record_of(store, "a")
    assert record.projection.generation == GENERATIONS_PER_EPISODE
    # Its code has not begun: it is woken for that.
    woken = await lock_one(hub, store, "a")
    assert effective(woken.inbox) == []
    await woken.step(end(), keep=False)
    assert (await record_of(store, "a")).projection.status is Status.COMPLETED


@in_hub
async def test_hundreds_of_generations_leave_nothing_behind(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0), timer_in(hub))
    for n in range(150):
        await held.step(again(input=f'"{n}"'), then=[act(0), timer_in(hub)])
    record = await record_of(store, "a")
    assert record.projection.generation == 150 and record.length < 12
    info = await store.info()
    assert not hub.traits.counts or info.messages <= 1
    items = await store.lock_activities(1_000)
    current = [i for i in items if i.task.execution_id == record.projection.execution_id]
    assert [i.task.task_id for i in current] == [0]
    await held.step(end())
    await store.purge(["a"])
    info = await store.info()
    assert not hub.traits.counts or (info.messages, info.activities) == (0, 0)


def timer_in(hub: Hub):  # type: ignore[no-untyped-def]
    from tests.conformance.acting import timer

    return timer(1, hub.now() + 1_000 * SECOND)


@in_hub
async def test_a_late_writer_of_the_old_execution_loses(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    held = await begin(hub, one, "a")
    stale = held.episode(act(0))
    await held.put_back()
    await send(one, raised("a", "e"))
    new = await lock_by(hub, "a", two, one)
    await new.step(again(), then=[act(5)])
    await held.commit(stale, expect=CommitResult.LEASE_LOST)
    assert [e.event_id for e in await history_of(one, "a") if isinstance(e, ev.TaskScheduled)] == [5]


@in_hub
async def test_a_child_of_the_old_execution_does_not_answer_the_new_one(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "p", child(0, "c"))
    await held.step(again(), then=[act(0)])
    c = await lock_one(hub, store, "c")
    outcome = await c.step(end(output='"late"'))
    await held.hear(*outcome.deliveries)
    await held.step()
    assert set(held.state.open) == {0}
    assert not any(isinstance(e, ev.SubOrchestrationInstanceCompleted) for e in await history_of(store, "p"))


@in_hub
async def test_a_continued_child_still_answers_its_parent(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "p", child(0, "c"))
    c = await lock_one(hub, store, "c")
    await c.step(again(input='"2"'))
    outcome = await c.step(end(output='"o"'))
    (answer,) = await held.hear(*outcome.deliveries)
    assert isinstance(answer, ev.SubOrchestrationInstanceCompleted) and answer.result == '"o"'
    await held.step(end())
    assert await store.children("p") == ["c"]
    assert await lock(hub, store) == {}
