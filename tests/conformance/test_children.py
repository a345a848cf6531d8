"""Sub-orchestrations: started with their parent's commit, answering it once."""

from holdtrue.core import events as ev
from holdtrue.core.projection import Status
from tests.conformance.acting import (
    EVERY,
    Hub,
    act,
    begin,
    child,
    create,
    end,
    fail,
    in_hub,
    kinds,
    lock,
    lock_by,
    lock_one,
    record_of,
    start,
    status_of,
    taken,
    terminated,
    where_not,
)


@in_hub
async def test_a_child_knows_its_parent_and_answers_it(hub: Hub) -> None:
    store = await hub.host()
    parent = await begin(hub, store, "p", act(0), child(1, "c", '"in"'))
    c = await lock_one(hub, store, "c")
    known = c.record.projection.parent
    assert known is not None
    assert (known.instance_id, known.task_id, known.scheduled) == ("p", 1, parent.state.open[1].ordinal)
    assert known.execution_id == parent.record.projection.execution_id
    assert c.record.dialect == parent.record.dialect
    outcome = await c.step(end(output='"out"'))
    (answer,) = await parent.hear(*outcome.deliveries)
    assert answer == ev.SubOrchestrationInstanceCompleted(
        timestamp=answer.timestamp, task_scheduled_id=1, result='"out"'
    )
    await parent.step(end())
    assert await store.children("p") == ["c"] and await store.children("c") == []


@in_hub
async def test_taken_along_with_the_commit(hub: Hub) -> None:
    store, other = await hub.host("one"), await hub.host("two")
    await create(store, start("p"))
    parent = await lock_one(hub, store, "p")
    outcome = await parent.step(child(0, "c0"), child(1, "c1"), child(2, "c2"), take_starts=2)
    mine = await taken(hub, store, *(outcome.taken or [None, None]))
    assert [one.id for one in mine] == ["c0", "c1"]
    assert (await lock_by(hub, "c2", other, store)).id == "c2"
    for one in mine:
        assert kinds([m.event for m in one.inbox]) == ["ExecutionStarted"]
        got = await one.step(end())
        assert len(await parent.hear(*got.deliveries)) == 1


@in_hub
async def test_how_it_ended_reaches_the_parent(hub: Hub) -> None:
    store = await hub.host()
    parent = await begin(hub, store, "p", child(0, "c0"), child(1, "c1"), keep=False)
    held = await lock(hub, store)
    await held["c0"].step(fail(message="so", error_type="shop.Wrong"))
    await held["c1"].step(terminated(output='"stop"'))
    parent = await lock_one(hub, store, "p")
    answers = {e.task_scheduled_id: e for e in (m.event for m in parent.inbox)}  # type: ignore[attr-defined]
    assert answers[0].failure.message == "so" and answers[0].failure.error_type == "shop.Wrong"
    assert isinstance(answers[1], ev.SubOrchestrationInstanceFailed)


@in_hub
async def test_a_child_whose_id_is_taken_by_a_running_one_does_not_leave_the_parent_waiting(hub: Hub) -> None:
    store = await hub.host()
    stranger = await begin(hub, store, "c")
    parent = await begin(hub, store, "p", child(0, "c"))
    if not parent.inbox:
        await parent.put_back()
        parent = (await lock(hub, store))["p"]
    (answer,) = [m.event for m in parent.inbox]
    assert isinstance(answer, ev.SubOrchestrationInstanceFailed) and answer.failure is not None
    assert "'c'" in answer.failure.message
    await stranger.step(end())
    assert await status_of(store, "c") is Status.COMPLETED


@in_hub
async def test_a_child_takes_the_place_of_an_ended_one_of_its_id(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "c", end(output='"old"'))
    await begin(hub, store, "p", child(0, "c"), keep=False)
    c = await lock_one(hub, store, "c")
    assert c.record.projection.parent is not None and c.record.length == 0
    await c.step(end(output='"new"'))
    parent = await lock_one(hub, store, "p")
    assert [m.event.result for m in parent.inbox] == ['"new"']  # type: ignore[attr-defined]


@in_hub
async def test_two_children_of_one_id_in_one_commit(hub: Hub) -> None:
    store = await hub.host()
    parent = await begin(hub, store, "p", child(0, "c"), child(1, "c"), keep=False)
    held = await lock(hub, store)
    await held["c"].step(end(output='"o"'))
    if "p" in held:
        await held["p"].put_back()
    parent = (await lock(hub, store))["p"]
    # One ran, the other failed or ran after it; both are answered.
    assert sorted(e.task_scheduled_id for e in (m.event for m in parent.inbox)) == [0, 1]  # type: ignore[attr-defined]


@in_hub
async def test_the_end_of_a_child_whose_parent_has_ended_or_gone_is_no_matter(hub: Hub) -> None:
    store = await hub.host()
    parent = await begin(hub, store, "p", child(0, "c0"), child(1, "c1"))
    held = await lock(hub, store)
    await parent.step(end())
    await held["c0"].step(end())
    await store.purge(["p"], recursive=False)
    await held["c1"].step(end())
    assert await store.dead_letters() == []
    assert await lock(hub, store) == {}


@in_hub
async def test_children_are_those_that_are_it_now(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "p", child(0, "b"), child(1, "c"), child(2, "a%"))
    await create(store, start("c", over=EVERY), start("P"), start("p2"))
    assert sorted(await store.children("p")) == ["a%", "b"]
    assert await store.children("P") == []


@where_not("children_stand")
@in_hub
async def test_a_child_that_has_not_begun_is_known_by_its_parent_alone(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "p", child(0, "c"))
    assert await store.status(["c"]) == [None] and await store.children("p") == ["c"]
    held = await lock_one(hub, store, "c")
    await held.step()
    assert await status_of(store, "c") is Status.RUNNING and await store.children("p") == ["c"]
    await held.step(end())
    assert await store.children("p") == ["c"]


@in_hub
async def test_three_deep(hub: Hub) -> None:
    store = await hub.host()
    chain = [await begin(hub, store, "i0", child(0, "i1"))]
    for n in range(1, 4):
        held = await lock_one(hub, store, f"i{n}")
        await held.step(child(0, f"i{n + 1}")) if n < 3 else None
        chain.append(held)
    for n in range(3, -1, -1):
        outcome = await chain[n].step(end(output=f'"{n}"'))
        if n:
            (answer,) = await chain[n - 1].hear(*outcome.deliveries)
            assert answer.result == f'"{n}"'  # type: ignore[attr-defined]
    assert (await record_of(store, "i0")).projection.output == '"0"'
