"""From a plan to what is applied, member by member; and what the plan that fires says of why and how late."""

import asyncio
import json
import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from holdtrue.core.dialect import to_ticks
from holdtrue.core.events import TICKS_PER_SECOND, ExecutionStarted, ExecutionTerminated
from holdtrue.core.messages import Start
from holdtrue.core.projection import TERMINAL, Status, initial
from holdtrue.schedules.commits import end_replaced, tick_commit
from holdtrue.schedules.planning import (
    COUNTED,
    MissedTicks,
    Plan,
    QueuedRun,
    ScheduleState,
    StartPlan,
    encode_state,
    initial_state,
    plan,
    plan_trigger,
)
from holdtrue.schedules.specification import ScheduleSpec
from holdtrue.stores.protocol import CreateRequest, Tick, TickCommit
from tests.unit.schedules.virtual import FakeHub, Instance

NOON = to_ticks(datetime(2026, 3, 2, 12, 0, 0))
SECOND = TICKS_PER_SECOND
SPEC = ScheduleSpec(
    schedule_id="s", orchestrator="load", cron="* * * * *", input='"i"', version="3", tags={"team": "red"}
)
BEFORE = ScheduleState(anchor=NOON, decided=NOON)
AFTER = ScheduleState(anchor=NOON, decided=NOON + 60 * SECOND, last_run="run")
REFUSED = ScheduleState(anchor=NOON, decided=NOON + 60 * SECOND, queued=QueuedRun(NOON + 60 * SECOND))


def a_plan(**members: Any) -> Plan:
    start = {"due": NOON + 60 * SECOND, "instance_id": "run", "replaceable": frozenset(TERMINAL), **members}
    return Plan(
        state=AFTER,
        due=NOON + 120 * SECOND,
        start=StartPlan(**start),
        state_if_refused=REFUSED,
        due_if_refused=NOON + 121 * SECOND,
    )


def commit(made: Plan, **members: Any) -> TickCommit:
    return tick_commit(SPEC, made, 7, NOON + 61 * SECOND, execution_id="x", start_id="y", **members)


@pytest.mark.parametrize("take", [False, True])
def test_a_start_with_all_that_belongs_to_it(take: bool) -> None:
    made = a_plan(guard="before", decision_if_refused="queued", reason="triggered")
    assert commit(made, take=take) == TickCommit(
        schedule_id="s",
        etag=7,
        state=encode_state(AFTER),
        due=NOON + 120 * SECOND,
        tick=Tick(
            schedule_id="s",
            due=NOON + 60 * SECOND,
            decided_at=NOON + 61 * SECOND,
            decision="started",
            instance_id="run",
            execution_id="x",
            reason="triggered",
        ),
        request=CreateRequest(
            start=Start(
                started=ExecutionStarted(
                    timestamp=NOON + 61 * SECOND,
                    instance_id="run",
                    execution_id="x",
                    name="load",
                    input='"i"',
                    version="3",
                    tags={"team": "red"},
                ),
                start_id="y",
            ),
            replaceable=frozenset(TERMINAL),
            take=take,
        ),
        guard="before",
        state_if_refused=encode_state(REFUSED),
        due_if_refused=NOON + 121 * SECOND,
        decision_if_refused="queued",
    )


@pytest.mark.parametrize(("reason", "told"), [(None, "old was RUNNING"), ("late", "late; old was RUNNING")])
def test_one_that_takes_a_place_says_whose_and_how_it_stood(reason: str | None, told: str) -> None:
    tick = commit(a_plan(terminate="old", reason=reason), running=Status.RUNNING).tick
    assert tick is not None
    assert (tick.decision, tick.reason) == ("replaced", told)


def test_ticks_passed_over_without_a_start() -> None:
    made = Plan(state=AFTER, due=None, missed=MissedTicks((NOON, NOON + SECOND)))
    assert commit(made) == TickCommit(
        schedule_id="s",
        etag=7,
        state=encode_state(AFTER),
        due=None,
        missed=[
            Tick(schedule_id="s", due=due, decided_at=NOON + 61 * SECOND, decision="missed")
            for due in (NOON, NOON + SECOND)
        ],
    )


@pytest.mark.parametrize(("exact", "told"), [(True, "12 ticks up to"), (False, "over 12 ticks up to")])
@pytest.mark.parametrize("with_start", [False, True])
def test_one_record_stands_for_many_and_says_so(exact: bool, told: str, with_start: bool) -> None:
    missed = MissedTicks((NOON,), 12, NOON - SECOND, exact)
    made = Plan(state=AFTER, due=None, missed=missed, start=a_plan().start if with_start else None)
    many, one = commit(made).missed
    assert (many.due, many.count, many.decision) == (NOON - SECOND, 12, "missed")
    assert (many.schedule_id, many.decided_at) == ("s", NOON + 61 * SECOND)
    assert many.reason == f"{told} 2026-03-02T11:59:59Z"
    assert (one.due, one.count, one.reason) == (NOON, 1, None)


@pytest.mark.parametrize("status", [*Status, None])
def test_only_a_run_that_has_not_ended_is_asked_to_end_and_it_learns_why(status: Status | None) -> None:
    async def main() -> None:
        hub: Any = FakeHub()
        if status is not None:
            started = ExecutionStarted(timestamp=NOON, instance_id="old", execution_id="o", name="load")
            hub.instances["old"] = Instance(initial(started), started, "o")
            hub.end("old", status)
        running, delivery = await end_replaced(hub, SPEC, a_plan(terminate="old"), NOON + SECOND)
        if status is None or status.is_terminal:
            assert (running, delivery, hub.sent) == (None, None, [])
            return
        assert running is status
        (sent,) = hub.sent
        assert sent.instance_id == "old" and sent.event.timestamp == NOON + SECOND
        assert type(sent.event) is ExecutionTerminated
        assert "replaced by a later run of schedule 's'" in json.loads(sent.event.input)
        for nothing in (a_plan(), Plan(state=AFTER, due=None)):
            assert await end_replaced(hub, SPEC, nothing, NOON) == (None, None)

    asyncio.run(main())


def reason(late: float, **members: Any) -> str | None:
    """Why the first start after so many seconds without a host is made, as its record says."""
    made = ScheduleSpec(schedule_id="s", orchestrator="load", cron="0 * * * *", **members)
    decision = plan(made, initial_state(made, NOON), NOON + 3_600 * SECOND + round(late * SECOND))
    assert decision.start is not None
    return decision.start.reason


def test_a_late_start_says_how_late() -> None:
    assert reason(0) is None
    assert reason(60) is None
    assert reason(61) == "missed: 0:01:01 late"
    assert reason(9.9, grace=timedelta(0)) == "missed: 0:00:09 late"
    assert reason(27 * 3_600 + 62, missed="all", missed_limit=50) == "missed: 27:01:02 late"
    assert reason(11 * 3_600 + 1_201) == "missed: 0:20:01 late"


def test_a_start_on_time_says_how_many_were_missed_before_it() -> None:
    assert reason(3_600) == "1 missed before it"
    assert reason(5 * 3_600) == "5 missed before it"
    many = re.fullmatch(r"over (\d+) missed before it", str(reason(3_000 * 3_600)))
    assert many is not None and COUNTED <= int(many[1]) <= 3_000


def test_a_start_while_one_is_queued_says_so_beside_its_own_reason() -> None:
    made = ScheduleSpec(schedule_id="s", orchestrator="load", cron="* * * * *", overlap="queue")  # type: ignore[arg-type]
    decision = plan_trigger(made, REFUSED, NOON + 61 * SECOND)
    assert decision.start is not None
    assert decision.start.reason == "triggered; a run is queued since 2026-03-02T12:01:00Z"
    assert decision.start.decision_if_refused == "skipped"
    assert decision.state_if_refused is not None and decision.state_if_refused.queued == REFUSED.queued
