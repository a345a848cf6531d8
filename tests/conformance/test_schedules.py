"""Schedules: versioned writes, ticks that are decided once, records that stay."""

import asyncio

import pytest

from holdtrue.core.projection import TERMINAL, Condition, Status
from holdtrue.stores.protocol import CreateOutcome, CreateResult, StoredSchedule, TaskHubStore, Tick, TickCommit
from tests.conformance.acting import (
    EVERY,
    NONE,
    SECOND,
    Hub,
    begin,
    end,
    ended,
    in_hub,
    lock,
    lock_one,
    names,
    raised,
    record_of,
    start,
    status_of,
    taken,
)


def schedule(schedule_id: str, due: int | None = 10 * SECOND, state: str = '{"n":0}') -> StoredSchedule:
    return StoredSchedule(schedule_id=schedule_id, definition='{"cron":"* * * * *"}', state=state, due=due, etag=0)


def tick(due: int, **members: object) -> Tick:
    return Tick(schedule_id="s", due=due, decided_at=due + 1, decision="started", **members)  # type: ignore[arg-type]


async def put(store: TaskHubStore, *schedules: StoredSchedule) -> list[int]:
    etags = [await store.put_schedule(one, expect=None) for one in schedules]
    assert None not in etags
    return [etag for etag in etags if etag is not None]


@in_hub
async def test_written_under_their_version(hub: Hub) -> None:
    store, other = await hub.open(), await hub.open()
    (etag,) = await put(store, schedule("s"))
    assert await other.put_schedule(schedule("s"), expect=None) is None
    assert await other.put_schedule(schedule("s", state="mine"), expect=etag + 7) is None
    newer = await other.put_schedule(schedule("s", due=None, state="newer"), expect=etag)
    assert newer is not None and newer != etag
    assert await store.put_schedule(schedule("s", state="late"), expect=etag) is None
    (stored,) = await store.get_schedules()
    assert (stored.state, stored.due, stored.etag) == ("newer", None, newer)
    assert await store.put_schedule(schedule("nobody"), expect=1) is None


@in_hub
async def test_listed_by_id_and_by_what_is_due(hub: Hub) -> None:
    store = await hub.open()
    await put(store, schedule("b", 30), schedule("a'%\x00ü", 10), schedule("c", None), schedule("d", 20))
    assert [s.schedule_id for s in await store.get_schedules()] == ["a'%\x00ü", "b", "c", "d"]
    assert [s.schedule_id for s in await store.get_schedules(20)] == ["a'%\x00ü", "d"]
    # Those due come in the order of their time.
    assert [s.schedule_id for s in await store.get_schedules(30)] == ["a'%\x00ü", "d", "b"]
    assert await store.get_schedules(9) == []


@in_hub
async def test_deleted_with_its_ticks(hub: Hub) -> None:
    store = await hub.host()
    (etag,) = await put(store, schedule("s"))
    await store.commit_tick(TickCommit(schedule_id="s", etag=etag, state="1", due=20, tick=tick(10)))
    assert await store.delete_schedule("s") is True
    assert await store.delete_schedule("s") is False
    assert await store.get_schedules() == [] and await store.ticks("s") == []
    assert await store.commit_tick(TickCommit(schedule_id="s", etag=etag, state="1", due=20)) is False


@in_hub
async def test_one_made_anew_is_another(hub: Hub) -> None:
    store = await hub.host()
    (old,) = await put(store, schedule("s", state="old"))
    hub.clock.ahead = 1
    assert await store.delete_schedule("s")
    (new,) = await put(store, schedule("s", state="new"))
    assert new != old
    late = TickCommit(schedule_id="s", etag=old, state="late", due=20, tick=tick(10), request=start("run"))
    assert await store.commit_tick(late) is False
    assert await store.put_schedule(schedule("s", state="late"), expect=old) is None
    assert [s.state for s in await store.get_schedules()] == ["new"] and await status_of(store, "run") is None


@in_hub
async def test_a_tick_starts_records_and_moves_on_in_one(hub: Hub) -> None:
    store = await hub.host()
    (etag,) = await put(store, schedule("s"))
    request = start("run", input='"i"', over=TERMINAL)
    outcome = await store.commit_tick(
        TickCommit(
            schedule_id="s", etag=etag, state='{"n":1}', due=20 * SECOND, tick=tick(10 * SECOND), request=request
        )
    )
    assert isinstance(outcome, CreateOutcome) and outcome.result is CreateResult.CREATED
    (stored,) = await store.get_schedules()
    assert (stored.state, stored.due) == ('{"n":1}', 20 * SECOND) and stored.etag != etag
    (kept,) = await store.ticks("s")
    assert (kept.due, kept.decision, kept.instance_id) == (10 * SECOND, "started", "run")
    assert kept.execution_id == request.start.started.execution_id
    held = await lock_one(hub, store, "run")
    assert held.record.projection.input == '"i"'


@in_hub
async def test_one_tick_is_decided_once_however_many_try(hub: Hub) -> None:
    stores = [await hub.host(f"h{n}") for n in range(3)]
    (etag,) = await put(stores[0], schedule("s"))
    commits = [
        store.commit_tick(
            TickCommit(
                schedule_id="s", etag=etag, state=str(n), due=20, tick=tick(10), request=start(f"run{n}", over=NONE)
            )
        )
        for n, store in enumerate(stores * 4)
    ]
    outcomes = await asyncio.gather(*commits)
    assert len([o for o in outcomes if isinstance(o, CreateOutcome)]) == 1
    assert [o for o in outcomes if not isinstance(o, CreateOutcome)] == [False] * 11
    assert len(await stores[0].ticks("s")) == 1
    assert sum((await stores[0].info()).instances.values()) == 1


@in_hub
async def test_a_refused_start_is_recorded_and_its_other_state_written(hub: Hub) -> None:
    store = await hub.host()
    (etag,) = await put(store, schedule("s"))
    running = await begin(hub, store, "run")
    outcome = await store.commit_tick(
        TickCommit(
            schedule_id="s", etag=etag, state="started", due=20, tick=tick(10), request=start("run"),
            state_if_refused="queued", due_if_refused=15, decision_if_refused="queued",
        )
    )  # fmt: skip
    assert isinstance(outcome, CreateOutcome)
    assert (outcome.result, outcome.status) == (CreateResult.REFUSED, Status.RUNNING)
    (stored,) = await store.get_schedules()
    assert (stored.state, stored.due) == ("queued", 15)
    (kept,) = await store.ticks("s")
    assert (kept.decision, kept.status, kept.instance_id) == ("queued", "RUNNING", "run")
    assert kept.execution_id == running.record.projection.execution_id


@in_hub
async def test_a_held_one_in_its_way_is_told_as_held_with_the_reason(hub: Hub) -> None:
    store = await hub.host()
    (etag,) = await put(store, schedule("s"))
    held = await begin(hub, store, "run")
    await store.park([held.lease], Condition(kind="held", reason="the code does not fit"))
    outcome = await store.commit_tick(
        TickCommit(schedule_id="s", etag=etag, state="x", due=20, tick=tick(10), request=start("run"))
    )
    assert isinstance(outcome, CreateOutcome) and outcome.result is CreateResult.REFUSED
    (kept,) = await store.ticks("s")
    assert kept.decision == "held" and kept.reason is not None and "the code does not fit" in kept.reason
    (stored,) = await store.get_schedules()
    assert (stored.state, stored.due) == ("x", 20)


@in_hub
async def test_replacing_a_running_one_is_told(hub: Hub) -> None:
    store = await hub.host()
    (etag,) = await put(store, schedule("s"))
    await begin(hub, store, "run")
    await store.commit_tick(
        TickCommit(schedule_id="s", etag=etag, state="x", due=20, tick=tick(10), request=start("run", over=EVERY))
    )
    (kept,) = await store.ticks("s")
    assert (kept.decision, kept.status) == ("replaced", "RUNNING")
    assert await status_of(store, "run") is Status.PENDING


@pytest.mark.parametrize("over", [True, False])
@in_hub
async def test_a_guard_that_has_not_ended_refuses_the_start(hub: Hub, over: bool) -> None:
    store = await hub.host()
    (etag,) = await put(store, schedule("s"))
    if over:
        await ended(hub, store, "last")
    else:
        await begin(hub, store, "last")
    outcome = await store.commit_tick(
        TickCommit(schedule_id="s", etag=etag, state="x", due=20, tick=tick(10), request=start("next"), guard="last")
    )
    assert isinstance(outcome, CreateOutcome)
    (kept,) = await store.ticks("s")
    if over:
        assert outcome.result is CreateResult.CREATED and kept.instance_id == "next"
    else:
        assert (outcome.result, outcome.instance_id) == (CreateResult.REFUSED, "last")
        assert (kept.decision, kept.instance_id) == ("skipped", "last")
        assert await status_of(store, "next") is None


@in_hub
async def test_missed_ticks_and_messages_go_along(hub: Hub) -> None:
    store = await hub.host()
    (etag,) = await put(store, schedule("s"))
    await begin(hub, store, "other", keep=False)
    missed = Tick(schedule_id="s", due=5, decided_at=11, decision="missed", count=4, reason="nobody was there")
    outcome = await store.commit_tick(
        TickCommit(
            schedule_id="s", etag=etag, state="x", due=20, tick=tick(10), request=start("run"), missed=[missed],
            messages=[raised("other", "tick"), raised("nobody", "tick")],
        )
    )  # fmt: skip
    assert isinstance(outcome, CreateOutcome)
    first, second = await store.ticks("s")
    assert first == missed and second.due == 10
    held = await lock(hub, store)
    assert names(held["other"].inbox) == ["tick"] and "run" in held


@in_hub
async def test_without_a_request_it_only_moves_on(hub: Hub) -> None:
    store = await hub.host()
    (etag,) = await put(store, schedule("s"))
    assert await store.commit_tick(TickCommit(schedule_id="s", etag=etag, state="x", due=None)) is None
    (stored,) = await store.get_schedules()
    assert (stored.state, stored.due) == ("x", None) and await store.ticks("s") == []


@in_hub
async def test_records_are_read_in_order_and_trimmed(hub: Hub) -> None:
    store = await hub.host()
    (etag,) = await put(store, schedule("s"))
    for n in (30, 10, 20):
        await store.commit_tick(TickCommit(schedule_id="s", etag=etag, state="x", due=n, tick=tick(n)))
        (stored,) = await store.get_schedules()
        etag = stored.etag
    assert [t.due for t in await store.ticks("s")] == [10, 20, 30]
    assert [t.due for t in await store.ticks("s", after=10, limit=1)] == [20]
    assert await store.ticks("t") == []
    assert await store.trim_ticks(5, "s") == 0 and await store.trim_ticks(25, "t") == 0
    assert await store.trim_ticks(25) == 2
    assert [t.due for t in await store.ticks("s")] == [30]


@in_hub
async def test_a_start_of_a_tick_can_be_taken_along(hub: Hub) -> None:
    store = await hub.host()
    (etag,) = await put(store, schedule("s"))
    outcome = await store.commit_tick(
        TickCommit(schedule_id="s", etag=etag, state="x", due=20, tick=tick(10), request=start("run", take=True))
    )
    assert isinstance(outcome, CreateOutcome)
    (held,) = await taken(hub, store, outcome.taken)
    await held.step(end())
    assert (await record_of(store, "run")).projection.status is Status.COMPLETED
