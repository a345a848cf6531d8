"""Work items: at least once, one result each, routed by queue, alive while they run."""

import asyncio

import pytest

from holdtrue.core import events as ev
from holdtrue.core.messages import WorkRef
from holdtrue.core.projection import Status
from holdtrue.stores.protocol import ActivityResult, queue_name
from tests.conformance.acting import (
    EVERY,
    Hub,
    act,
    begin,
    create,
    done,
    end,
    in_hub,
    lock,
    lock_by,
    lock_one,
    offered,
    start,
    status_of,
    went_wrong,
    where,
    where_not,
    with_work,
    work_of,
)


@in_hub
async def test_a_work_item_has_all_that_was_asked_for(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(
        hub, store, "a", act(4, input='{"x": 1}', start_to_close=2.5, heartbeat=1.0, schedule_to_start=9.0, attempt=3)
    )
    (item,) = await store.lock_activities(10)
    task = item.task
    assert (task.instance_id, task.execution_id) == ("a", held.record.projection.execution_id)
    assert (task.task_id, task.scheduled, task.name, task.input) == (4, 2, "act", '{"x": 1}')
    assert task.options is not None
    assert (task.options.start_to_close, task.options.heartbeat, task.options.attempt) == (2.5, 1.0, 3)
    assert (item.run, item.details, item.instance) == (1, None, held.lease.key)
    assert item.scheduled_at > 0
    assert task.idempotency_key == f"{task.execution_id}:2"


@in_hub
async def test_taken_along_with_the_commit(hub: Hub) -> None:
    store, other = await hub.host("one"), await hub.host("two")
    await create(store, start("a"))
    held = await lock_one(hub, store, "a")
    outcome = await held.step(act(0), act(1), act(2), take_activities=2)
    mine = await work_of(hub, store, outcome.activities, 2)
    assert [i.task.task_id for i in mine] == [0, 1]
    (left,) = await other.lock_activities(10)
    assert left.task.task_id == 2
    held.inbox += [with_work(i) for i in mine]
    await held.step()
    assert [i.task_id for i in await store.activities_of("a")] == [2]
    (answer,) = await other.complete([ActivityResult(ref=left.ref, event=done(left))])
    assert answer.accepted and answer.delivery is None
    (event,) = await held.fetch()
    assert isinstance(event, ev.TaskCompleted) and event.task_scheduled_id == 2


@in_hub
async def test_a_result_handed_in_for_an_instance_of_this_host_is_delivered(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0))
    (item,) = await store.lock_activities(1)
    (answer,) = await store.complete([ActivityResult(ref=item.ref, event=went_wrong(item, "so so"))])
    assert answer.accepted
    (event,) = await held.hear(answer.delivery)
    assert isinstance(event, ev.TaskFailed) and event.failure is not None and event.failure.message == "so so"
    assert held.inbox[0].scheduled == item.task.scheduled and held.inbox[0].execution_id == item.task.execution_id


@in_hub
async def test_a_result_for_an_instance_that_nobody_holds_makes_it_ready(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "a", act(0), keep=False)
    (item,) = await store.lock_activities(1)
    (answer,) = await store.complete([ActivityResult(ref=item.ref, event=done(item, '"r"'))])
    assert answer.accepted and answer.delivery is None
    held = await lock_one(hub, store, "a")
    (message,) = held.inbox
    assert message.event == done(item, '"r"')
    await held.step(end())
    assert await status_of(store, "a") is Status.COMPLETED


@in_hub
async def test_one_result_counts_and_the_second_is_not_accepted(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "a", act(0), keep=False)
    (item,) = await store.lock_activities(1)
    results = await store.complete([ActivityResult(ref=item.ref, event=done(item, str(n))) for n in range(2)])
    assert [r.accepted for r in results] == [True, False]
    (third,) = await store.complete([ActivityResult(ref=item.ref, event=done(item, "3"))])
    assert not third.accepted
    held = await lock_one(hub, store, "a")
    assert [m.event for m in held.inbox] == [done(item, "0")]


@in_hub
async def test_two_workers_that_complete_the_same_item_one_wins(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    await begin(hub, one, "a", act(0), keep=False)
    (first,) = await one.lock_activities(1)
    await one.put_back_activities([first.ref])
    (second,) = await two.lock_activities(1)
    assert second.run == 2 and second.task == first.task
    (late,) = await one.complete([ActivityResult(ref=first.ref, event=done(first, '"late"'))])
    assert not late.accepted
    (good,) = await two.complete([ActivityResult(ref=second.ref, event=done(second, '"good"'))])
    assert good.accepted
    held = await lock_by(hub, "a", two, one)
    assert [m.event.result for m in held.inbox] == ['"good"']  # type: ignore[attr-defined]


@in_hub
async def test_a_result_committed_with_a_lost_item_brings_no_second_one(hub: Hub) -> None:
    """The host that ran it was thought dead: its instance is still its own, its work item is not."""
    one, two = await hub.host("one"), await hub.host("two")
    held = await begin(hub, one, "a", act(0), act(1))
    items = {i.task.task_id: i for i in await one.lock_activities(2)}
    await one.put_back_activities([items[0].ref])
    (taken,) = await two.lock_activities(1)
    held.inbox.append(with_work(items[0]))
    await held.step()
    # The first result stands in the history; the one of the other run is dropped wherever it arrives.
    await two.complete([ActivityResult(ref=taken.ref, event=done(taken, '"second"'))])
    await held.fetch()
    await held.step()
    history = await one.load(held.lease)
    assert [e.result for e in history if isinstance(e, ev.TaskCompleted)] == ["1"]


@in_hub
async def test_unknown_items_are_not_accepted(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "a", act(0))
    (item,) = await store.lock_activities(1)
    for ref in (WorkRef(item.ref.key + 77, item.ref.token), WorkRef(item.ref.key, item.ref.token + 1), WorkRef(0, 0)):
        (outcome,) = await store.complete([ActivityResult(ref=ref, event=done(item))])
        assert not outcome.accepted
        assert not await store.report(ref, None, None)
    await store.put_back_activities([WorkRef(12345, 1)])
    (good,) = await store.complete([ActivityResult(ref=item.ref, event=done(item))])
    assert good.accepted
    assert await store.complete([]) == []


@in_hub
async def test_put_back_items_are_offered_again_with_what_they_reported(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "a", act(0))
    (item,) = await store.lock_activities(1)
    assert await store.report(item.ref, '{"percent": 50}', '{"offset": 7}')
    await store.put_back_activities([item.ref])
    assert not await store.report(item.ref, None, None)
    (again,) = await store.lock_activities(1)
    assert (again.run, again.details) == (2, '{"offset": 7}')
    assert again.task.idempotency_key == item.task.idempotency_key


@in_hub
async def test_progress_and_heartbeats_are_seen_and_touch_no_commit(hub: Hub) -> None:
    store, reader = await hub.host(), await hub.open()
    held = await begin(hub, store, "a", act(0), act(1, "unserved"))
    (before,) = await store.status(["a"])
    (item,) = await store.lock_activities(1)
    hub.clock.ahead = 5
    assert await store.report(item.ref, '"half"', None)
    infos = {i.task_id: i for i in await reader.activities_of("a")}
    assert (infos[0].running, infos[0].run, infos[0].progress, infos[0].name) == (True, 1, '"half"', "act")
    assert infos[0].heartbeat_at is not None and infos[0].heartbeat_at > item.scheduled_at
    assert (infos[1].running, infos[1].run, infos[1].progress) == (False, 0, None)
    assert infos[1].waits_for_worker and not infos[0].waits_for_worker
    assert (await store.status(["a"]))[0] == before
    held.inbox.append(with_work(item))
    await held.step(end())
    assert await reader.activities_of("a") == []


@in_hub
async def test_a_sign_of_life_without_progress_keeps_the_last_one(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "a", act(0))
    (item,) = await store.lock_activities(1)
    await store.report(item.ref, '"half"', '"here"')
    await store.report(item.ref, None, None)
    (info,) = await store.activities_of("a")
    assert info.progress == '"half"'
    await store.put_back_activities([item.ref])
    (again,) = await store.lock_activities(1)
    assert again.details == '"here"'


@in_hub
async def test_by_queue_and_tag(hub: Hub) -> None:
    gpu = queue_name("act", "gpu")
    store = await hub.host(queues=["act"])
    await begin(hub, store, "a", act(0), act(1, tag="gpu"), act(2, "unknown"))
    assert [i.task.task_id for i in await store.lock_activities(10)] == [0]
    special = await hub.host("special", queues=["act", gpu])
    assert await special.lock_activities(10, ["act"]) == []
    assert [i.task.task_id for i in await hub.some(lambda: special.lock_activities(10, [gpu]))] == [1]
    assert await special.lock_activities(10, []) == []


@where_not("keeps_activities")
@in_hub
async def test_no_more_than_asked_for_and_none_twice(hub: Hub) -> None:
    stores = [await hub.host(f"h{n}") for n in range(2)]
    await begin(hub, stores[0], "a", *(act(n) for n in range(50)))
    taken = await asyncio.gather(*(s.lock_activities(3) for _ in range(10) for s in stores))
    assert all(len(t) <= 3 for t in taken)
    ids = [i.task.task_id for t in taken for i in t]
    assert len(ids) == len(set(ids)) == 50
    assert await stores[0].lock_activities(0) == []


@where("fair")
@in_hub
async def test_one_queue_with_much_work_does_not_keep_others_waiting(hub: Hub) -> None:
    store = await hub.host(queues=["act", "rare"])
    await begin(hub, store, "a", *(act(n) for n in range(200)), act(200, "rare"))
    found: list[str] = []
    for _ in range(3):
        found += [i.task.name for i in await store.lock_activities(10)]
    assert "rare" in found


@where_not("fair")
@in_hub
async def test_of_one_queue_all_comes_in_its_turn(hub: Hub) -> None:
    store = await hub.host(queues=["act", "rare"])
    await begin(hub, store, "a", *(act(n) for n in range(200)), act(200, "rare"))
    found: list[str] = []
    for _ in range(21):
        found += [i.task.name for i in await store.lock_activities(10)]
    assert sorted(found) == ["act"] * 200 + ["rare"]


@in_hub
async def test_cancelled_items_are_told_and_gone(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0), act(1), act(2))
    items = {i.task.task_id: i for i in await store.lock_activities(2)}
    assert await store.cancelled([i.ref for i in items.values()]) == []
    await held.step(act(3), cancel=(0, 2))
    assert await store.cancelled([i.ref for i in items.values()]) == [items[0].ref]
    assert not await store.report(items[0].ref, None, None)
    assert await store.report(items[1].ref, None, None)
    (late,) = await store.complete([ActivityResult(ref=items[0].ref, event=done(items[0]))])
    assert not late.accepted
    assert [i.task.task_id for i in await store.lock_activities(10)] == [3]


@where_not("recalls")
@in_hub
async def test_what_nobody_wants_any_more_may_run_elsewhere_and_reaches_nobody(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "a", act(0))
    await create(store, start("a", over=EVERY))
    new = await lock_one(hub, store, "a")
    await new.step(act(0))
    items = await store.lock_activities(10)
    executions = [item.task.execution_id for item in items]
    assert len(items) == 2 and new.record.projection.execution_id in executions
    for item in items:
        (answer,) = await store.complete(
            [ActivityResult(ref=item.ref, event=done(item, f'"{item.task.execution_id}"'))]
        )
        assert answer.accepted
    (event,) = await new.fetch()
    assert event.result == f'"{new.record.projection.execution_id}"'  # type: ignore[attr-defined]


@pytest.mark.parametrize("kept", [True, False])
@in_hub
async def test_a_dead_hosts_items_come_back(hub: Hub, kept: bool) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    await begin(hub, one, "a", act(0), keep=kept)
    (item,) = await one.lock_activities(1)
    await one.report(item.ref, None, '"resume here"')
    await one.close()
    (again,) = await offered(hub, two, 1)
    assert (again.task, again.run, again.details) == (item.task, 2, '"resume here"')


@in_hub
async def test_results_of_a_large_fan_out_are_all_there(hub: Hub) -> None:
    store = await hub.host()
    many = hub.many(3_000)
    await begin(hub, store, "a", *(act(n) for n in range(many)), keep=False)
    while items := await store.lock_activities(500):
        outcomes = await store.complete([ActivityResult(ref=i.ref, event=done(i, str(i.task.task_id))) for i in items])
        assert all(o.accepted for o in outcomes)
    held = await lock_one(hub, store, "a")
    assert sorted(m.event.task_scheduled_id for m in held.inbox) == list(range(many))  # type: ignore[attr-defined]
    assert len({m.key for m in held.inbox}) == many
    await held.step(end())
    assert await lock(hub, store) == {}


@in_hub
async def test_a_further_attempt_knows_the_first_and_what_the_one_before_reported(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(4, attempt=2, details='{"row": 7}', first=0))
    (item,) = await store.lock_activities(1)
    assert item.task.options is not None and (item.task.options.attempt, item.task.options.first) == (2, 0)
    assert item.resume == '{"row": 7}' and item.details is None
    assert item.task.idempotency_key == f"{held.record.projection.execution_id}:0"
    # What a run of its own reported is newer.
    assert await store.report(item.ref, None, '{"row": 8}')
    await store.put_back_activities([item.ref])
    (again,) = await store.lock_activities(1)
    assert again.resume == '{"row": 8}' and again.task.idempotency_key == item.task.idempotency_key
