"""Creating instances: ids of every kind, the same start twice, reuse of ids, starts that are put off."""

import pytest

from holdtrue.core import events as ev
from holdtrue.core.messages import DEADLINE_EVENT
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.stores.protocol import CreateResult
from tests.conformance.acting import (
    EVERY,
    NONE,
    SECOND,
    Hub,
    begin,
    child,
    create,
    end,
    ended,
    fail,
    history_of,
    in_hub,
    lock,
    lock_one,
    names,
    raised,
    record_of,
    send,
    stand,
    start,
    status_of,
    taken,
    terminate,
    terminated,
)

ODD_IDS = [
    "plain",
    "with 'quotes' and \"double\"",
    "percent%and_underscore",
    "a;drop table instances;--",
    "ünïcödé-Ωλ-日本語",
    "\U0001f680 rocket",
    "nul\x00within",
    "line\nbreak\ttab\x7f",
    "slash/back\\slash#question?caret^",
    "^0^1",
    " leading and trailing ",
    "UPPER",
    "upper",
    "é",
    "e\u0301",
    "ends with nul\x00",
    "x" * 500,
    "null",
    "0",
]


@in_hub
async def test_an_accepted_start_stands_with_all_its_members(hub: Hub) -> None:
    store = await hub.open()
    request = start(
        "a", input='{"n": 1}', tags={"team": "red", "Ω": "'%"}, version="2.1", deadline=5 * SECOND, dialect="python",
        start_id="mine",
    )  # fmt: skip
    (outcome,) = await store.create([request])
    assert (outcome.result, outcome.instance_id) == (CreateResult.CREATED, "a")
    assert outcome.execution_id == request.start.started.execution_id and outcome.taken is None
    record = await record_of(store, "a")
    p = record.projection
    assert (p.instance_id, p.execution_id, p.name, p.version) == ("a", outcome.execution_id, "code", "2.1")
    assert (p.status, p.input, p.output, p.failure) == (Status.PENDING, '{"n": 1}', None, None)
    assert p.tags == {"team": "red", "Ω": "'%"}
    assert p.created_at == p.last_updated_at == 1_000 * SECOND and p.completed_at is None
    assert (record.dialect, record.start_id, record.deadline, record.length) == ("python", "mine", 5 * SECOND, 0)
    assert record.started == request.start.started and record.condition is None
    assert await history_of(store, "a") == []


@in_hub
async def test_it_is_there_for_another_process_and_after_a_restart(hub: Hub) -> None:
    store = await hub.open()
    await create(store, start("a"))
    other = await hub.open()
    assert await status_of(other, "a") is Status.PENDING
    await hub.close()
    assert await status_of(await hub.open(), "a") is Status.PENDING


@in_hub
async def test_ids_of_every_kind_are_kept_apart_and_come_back_as_they_were(hub: Hub) -> None:
    store = await hub.host()
    outcomes = await create(store, *(start(i, input=f'"{n}"') for n, i in enumerate(ODD_IDS)))
    assert [o.instance_id for o in outcomes] == ODD_IDS
    held = await lock(hub, store)
    assert sorted(held) == sorted(ODD_IDS)
    for n, instance_id in enumerate(ODD_IDS):
        record = await record_of(store, instance_id)
        assert (record.projection.instance_id, record.projection.input) == (instance_id, f'"{n}"')
        (outcome,) = await send(store, raised(instance_id, "e", n))
        (event,) = await held[instance_id].hear(outcome.delivery)
        assert event.input == str(n)  # type: ignore[attr-defined]
        await held[instance_id].step(end(output=str(n)))
    for n, instance_id in enumerate(ODD_IDS):
        assert (await record_of(store, instance_id)).projection.output == str(n)
        purged = await store.purge([instance_id])
        assert purged.instances == 1
    assert await store.status(ODD_IDS) == [None] * len(ODD_IDS)


@in_hub
async def test_nobody_is_nobody(hub: Hub) -> None:
    store = await hub.host()
    await create(store, start("a"))
    assert await store.status(["A", "a ", "", "b", "%", "_"]) == [None] * 6
    assert await store.status([]) == [] and await store.create([]) == []
    assert await history_of(store, "nobody") == []
    assert await store.children("nobody") == [] and await store.activities_of("nobody") == []


@in_hub
async def test_statuses_come_in_the_order_asked_for_doubles_too(hub: Hub) -> None:
    store = await hub.open()
    await create(store, start("a"), start("b"))
    found = await store.status(["b", "no", "a", "b"])
    assert [None if r is None else r.projection.instance_id for r in found] == ["b", None, "a", "b"]


@in_hub
async def test_the_same_start_again_is_the_same_start(hub: Hub) -> None:
    store = await hub.host()
    request = start("a", start_id="mine", over=EVERY)
    (first,) = await create(store, request)
    for over in (NONE, TERMINAL, EVERY):
        repeated = start("a", start_id="mine", over=over)
        (outcome,) = await store.create([repeated])
        assert (outcome.result, outcome.execution_id) == (CreateResult.ALREADY, first.execution_id)
    held = await lock_one(hub, store, "a")
    await held.step(end())
    (outcome,) = await store.create([start("a", start_id="mine", over=EVERY)])
    assert outcome.result is CreateResult.ALREADY
    assert await status_of(store, "a") is Status.COMPLETED
    assert await lock(hub, store) == {}


@in_hub
async def test_the_same_start_twice_in_one_call_is_done_once(hub: Hub) -> None:
    store = await hub.open()
    outcomes = await store.create([start("a", start_id="mine"), start("a", start_id="mine"), start("a", over=NONE)])
    assert [o.result for o in outcomes] == [CreateResult.CREATED, CreateResult.ALREADY, CreateResult.REFUSED]
    assert outcomes[0].execution_id == outcomes[1].execution_id


@in_hub
async def test_another_start_of_that_id_is_refused_and_told_what_stands_there(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    execution = held.record.projection.execution_id
    for over in (NONE, TERMINAL):
        (outcome,) = await store.create([start("a", over=over)])
        assert (outcome.result, outcome.status) == (CreateResult.REFUSED, Status.RUNNING)
        assert outcome.execution_id == execution and outcome.taken is None
    assert (await record_of(store, "a")).projection.execution_id == execution


@pytest.mark.parametrize("how", [end(output="1"), fail(), terminated(output="2")])
@in_hub
async def test_an_ended_one_is_replaced_and_nothing_of_it_is_left(hub: Hub, how: object) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", custom='"busy"', tags={"old": "1"}, input='"old"')
    await held.step(how)  # type: ignore[arg-type]
    before = await status_of(store, "a")
    assert before in TERMINAL
    (outcome,) = await store.create([start("a", over=frozenset((before,)))])
    assert outcome.result is CreateResult.REPLACED
    p = (await record_of(store, "a")).projection
    assert (p.status, p.input, p.output, p.failure, p.completed_at) == (Status.PENDING, None, None, None, None)
    assert p.custom_status is None and p.tags is None
    assert await history_of(store, "a") == []
    again = await lock_one(hub, store, "a")
    await again.step(end(output="3"))
    assert (await record_of(store, "a")).projection.output == "3"


@in_hub
async def test_only_the_statuses_named_are_replaced(hub: Hub) -> None:
    store = await hub.host()
    await ended(hub, store, "a", how=fail())
    (refused,) = await store.create([start("a", over=frozenset((Status.COMPLETED,)))])
    assert (refused.result, refused.status) == (CreateResult.REFUSED, Status.FAILED)
    (replaced,) = await store.create([start("a", over=frozenset((Status.FAILED,)))])
    assert replaced.result is CreateResult.REPLACED


@in_hub
async def test_a_replaced_running_one_has_no_effect_any_more(hub: Hub) -> None:
    store = await hub.host()
    from tests.conformance.acting import act, timer

    old = await begin(hub, store, "a", act(0), timer(1, hub.now() + SECOND))
    await send(store, raised("a", "for the old one"))
    (outcome,) = await store.create([start("a", over=EVERY)])
    assert outcome.result is CreateResult.REPLACED
    new = await lock_one(hub, store, "a")
    if hub.traits.recalls:
        assert await store.lock_activities(10) == []
    assert names(new.inbox) == ([] if hub.traits.ends_mail else ["for the old one"])
    from holdtrue.stores.protocol import CommitResult

    await old.commit(old.episode(end(output='"old"')), expect=CommitResult.LEASE_LOST)
    hub.clock.ahead = 10
    due = await store.fire_due(hub.now())
    assert due.deliveries == [] and due.next_due is None
    await new.step(end(output='"new"'))
    assert (await record_of(store, "a")).projection.output == '"new"'


@in_hub
async def test_replacing_a_running_child_answers_its_parent(hub: Hub) -> None:
    store = await hub.host()
    parent = await begin(hub, store, "p", child(0, "c"))
    await stand(hub, store, "c")
    (outcome,) = await store.create([start("c", name="child", over=EVERY)])
    assert outcome.result is CreateResult.REPLACED
    await stand(hub, store, "c")
    # The parent is held by this host and hears of it by `fetch` or at its next lock, whichever the store has.
    await parent.put_back()
    held = await lock(hub, store)
    (answer,) = [m.event for m in held["p"].inbox]
    assert isinstance(answer, ev.SubOrchestrationInstanceFailed) and answer.task_scheduled_id == 0
    assert (await record_of(store, "c")).projection.parent is None


@in_hub
async def test_taken_along_with_its_creation(hub: Hub) -> None:
    store, other = await hub.host("one"), await hub.host("two")
    event = ev.EventRaised(timestamp=1, name="first", input="1")
    (outcome,) = await create(store, start("a", take=True, event=event))
    (held,) = await taken(hub, store, outcome.taken)
    assert [type(m.event) for m in held.inbox] == [ev.ExecutionStarted, ev.EventRaised]
    assert await lock(hub, other) == {} and await lock(hub, store) == {}
    await held.step(end())
    assert await status_of(other, "a") is Status.COMPLETED


@in_hub
async def test_one_that_takes_a_place_can_be_taken_along(hub: Hub) -> None:
    store = await hub.host()
    await ended(hub, store, "a")
    (outcome,) = await store.create([start("a", take=True)])
    assert (outcome.result, outcome.status) == (CreateResult.REPLACED, Status.COMPLETED)
    (held,) = await taken(hub, store, outcome.taken)
    assert await lock(hub, store) == {}
    await held.step(end(output='"new"'))
    assert (await record_of(store, "a")).projection.output == '"new"'


@in_hub
async def test_a_client_that_has_not_joined_takes_nothing(hub: Hub) -> None:
    client, host = await hub.open(), await hub.host()
    (outcome,) = await create(client, start("a", take=True))
    assert outcome.taken is None
    assert list(await lock(hub, host)) == ["a"]


@in_hub
async def test_an_event_given_with_the_start_comes_after_it(hub: Hub) -> None:
    store = await hub.host()
    await create(store, start("a", event=ev.EventRaised(timestamp=1, name="first", input="null")))
    await send(store, raised("a", "second"))
    held = await lock_one(hub, store, "a")
    assert type(held.inbox[0].event) is ev.ExecutionStarted
    assert names(held.inbox) == ["first", "second"]


@in_hub
async def test_a_start_in_the_future_waits_for_its_time_and_can_be_ended_before(hub: Hub) -> None:
    store = await hub.host()
    at = hub.now() + 60 * SECOND
    await create(store, start("later", begins=at, take=True), start("never", begins=at), start("now", begins=1))
    assert list(await lock(hub, store)) == ["now"]
    assert (await record_of(store, "later")).projection.scheduled_start == at
    assert (await store.fire_due(hub.now())).next_due == (at if hub.traits.knows_due else None)
    await send(store, terminate("never", '"enough"'))
    held = await lock_one(hub, store, "never")
    await held.step(terminated(output='"enough"'))
    assert await status_of(store, "never") is Status.TERMINATED
    hub.clock.ahead = 61
    await hub.settle()
    due = await store.fire_due(hub.now())
    assert due.ready
    later = await lock_one(hub, store, "later")
    assert type(later.inbox[0].event) is ev.ExecutionStarted
    await later.step(end())
    assert (await store.fire_due(hub.now())).next_due is None


@in_hub
async def test_an_event_to_one_that_has_yet_to_start_does_not_begin_it_early(hub: Hub) -> None:
    store = await hub.host()
    await create(store, start("later", begins=hub.now() + 60 * SECOND))
    await send(store, raised("later", "early"))
    assert await lock(hub, store) == {}
    hub.clock.ahead = 61
    await store.fire_due(hub.now())
    held = await lock_one(hub, store, "later")
    assert type(held.inbox[0].event) is ev.ExecutionStarted and names(held.inbox) == ["early"]


@in_hub
async def test_the_deadline_comes_as_a_message_at_its_time(hub: Hub) -> None:
    store = await hub.host()
    deadline = hub.now() + 30 * SECOND
    held = await begin(hub, store, "a", deadline=deadline)
    assert (await store.fire_due(hub.now())).next_due == (deadline if hub.traits.knows_due else None)
    hub.clock.ahead = 31
    (event,) = await held.hear(*(await store.fire_due(hub.now())).deliveries)
    assert isinstance(event, ev.EventRaised) and (event.name, event.input) == (DEADLINE_EVENT, str(deadline))


@in_hub
async def test_a_thousand_in_one_call(hub: Hub) -> None:
    store = await hub.host()
    many = hub.many(1_000)
    outcomes = await create(store, *(start(f"i{n}") for n in range(many)))
    assert [o.instance_id for o in outcomes] == [f"i{n}" for n in range(many)]
    held = await lock(hub, store, many // 2)
    assert len(held) == many // 2
    assert len(await lock(hub, store, many)) == many - many // 2


@in_hub
async def test_many_starts_of_one_id_at_once_make_one_instance(hub: Hub) -> None:
    import asyncio

    stores = [await hub.open() for _ in range(3)]
    outcomes = await asyncio.gather(*(store.create([start("a", over=NONE)]) for store in stores * 5))
    results = [o.result for (o,) in outcomes]
    assert sorted(results) == sorted([CreateResult.CREATED] + [CreateResult.REFUSED] * 14)
    (winner,) = [o for (o,) in outcomes if o.result is CreateResult.CREATED]
    assert {o.execution_id for (o,) in outcomes} == {winner.execution_id}
