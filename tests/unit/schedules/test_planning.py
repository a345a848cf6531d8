"""What is due, what was missed, what stays on the grid: decisions alone."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core.dialect import to_ticks
from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.schedules.planning import (
    COUNTED,
    RECORDED_ONE_BY_ONE,
    Plan,
    QueuedRun,
    ScheduleState,
    changed_state,
    decode_state,
    encode_state,
    initial_state,
    next_due,
    next_ticks,
    plan,
    plan_queued,
    plan_trigger,
    waits_for,
)
from holdtrue.schedules.specification import ScheduleSpec

NOON = to_ticks(datetime(2026, 3, 2, 12, 0, 0))
MINUTE = 60 * TICKS_PER_SECOND


def spec(**members: Any) -> ScheduleSpec:
    values: dict[str, Any] = {"schedule_id": "s", "orchestrator": "load", **members}
    if "interval" not in values:
        values.setdefault("cron", "* * * * *")
    return ScheduleSpec(**values)


def decided(made: ScheduleSpec, state: ScheduleState, now: Ticks) -> tuple[list[Ticks], list[Ticks], ScheduleState]:
    """All decisions at one time: the ticks started, those missed (the older ones by their last), and the state."""
    fired: list[Ticks] = []
    missed: list[Ticks] = []
    for _ in range(2_000):
        decision = plan(made, state, now)
        if not decision.acts:
            assert decision.state == state
            return fired, missed, state
        if decision.missed is not None:
            missed.extend([decision.missed.older_until] if decision.missed.older else [])
            missed.extend(decision.missed.newest)
        if decision.start is not None:
            fired.append(decision.start.due)
        assert decision.due == next_due(made, decision.state)
        state = decision.state
    raise AssertionError("no end of it")


def minutes(*numbers: int) -> list[Ticks]:
    return [NOON + number * MINUTE for number in numbers]


def test_nothing_is_due_before_its_time() -> None:
    made = spec()
    state = initial_state(made, NOON)
    decision = plan(made, state, NOON + MINUTE - 1)
    assert not decision.acts
    assert decision.due == NOON + MINUTE


def test_a_tick_on_time() -> None:
    made = spec()
    decision = plan(made, initial_state(made, NOON), NOON + MINUTE + 5)
    assert decision.start is not None
    assert decision.start.due == NOON + MINUTE
    assert decision.start.instance_id == "s:2026-03-02T12:01:00Z"
    assert decision.start.replaceable == TERMINAL
    assert decision.start.reason is None
    assert decision.missed is None
    assert decision.due == NOON + 2 * MINUTE


@pytest.mark.parametrize(
    ("policy", "late", "fired", "missed"),
    [
        # 5 minutes and a little without a host: the newest tick is on time, within its grace.
        ("skip", 5, [5], [1, 2, 3, 4]),
        ("one", 5, [5], [1, 2, 3, 4]),
        ("all", 5, [2, 3, 4, 5], [1]),
    ],
)
def test_missed_ticks(policy: str, late: int, fired: list[int], missed: list[int]) -> None:
    made = spec(missed=policy, missed_limit=3)
    got_fired, got_missed, state = decided(made, initial_state(made, NOON), NOON + late * MINUTE + 1)
    assert got_fired == minutes(*fired)
    assert got_missed == minutes(*missed)
    assert next_due(made, state) == NOON + (late + 1) * MINUTE


@pytest.mark.parametrize(
    ("policy", "fired", "missed"), [("skip", [], [60, 120]), ("one", [120], [60]), ("all", [60, 120], [])]
)
def test_a_tick_later_than_its_grace_is_missed(policy: str, fired: list[int], missed: list[int]) -> None:
    made = spec(cron="0 * * * *", missed=policy, grace=timedelta(minutes=10))
    got_fired, got_missed, state = decided(made, initial_state(made, NOON), NOON + 131 * MINUTE)
    assert got_fired == minutes(*fired)
    assert got_missed == minutes(*missed)
    assert next_due(made, state) == NOON + 180 * MINUTE


def test_the_limit_counts_the_late_ones_only() -> None:
    made = spec(cron="0 * * * *", missed="all", missed_limit=2, grace=timedelta(minutes=10))
    assert decided(made, initial_state(made, NOON), NOON + 251 * MINUTE)[:2] == (minutes(180, 240), minutes(60, 120))
    assert decided(made, initial_state(made, NOON), NOON + 241 * MINUTE)[:2] == (minutes(120, 180, 240), minutes(60))


def test_a_long_outage_leaves_few_records_and_takes_no_time() -> None:
    made = spec(cron="* * * * * *", missed="skip")
    later = NOON + 90 * 86_400 * TICKS_PER_SECOND
    decision = plan(made, initial_state(made, NOON), later)
    assert decision.start is not None
    assert decision.start.due == later
    assert decision.missed is not None
    assert len(decision.missed.newest) == RECORDED_ONE_BY_ONE
    assert decision.missed.newest[-1] == later - TICKS_PER_SECOND
    assert decision.missed.older_until == decision.missed.newest[0] - TICKS_PER_SECOND
    assert decision.missed.older >= COUNTED
    assert not decision.missed.exact


@pytest.mark.parametrize("limit", [1, 2, 50])
@pytest.mark.parametrize("policy", ["skip", "one", "all"])
@pytest.mark.parametrize("grace", [0, 60])
def test_so_many_of_the_missed_ones_are_recorded_one_by_one_whatever_runs(policy: str, limit: int, grace: int) -> None:
    made = spec(missed=policy, missed_limit=limit, grace=timedelta(seconds=grace))
    for many in (RECORDED_ONE_BY_ONE, 400, COUNTED + 100):
        decision = plan(made, initial_state(made, NOON), NOON + many * MINUTE + 1)
        assert decision.missed is not None
        running = 0 if decision.start is None else 1 + round((NOON + many * MINUTE - decision.start.due) / MINUTE)
        passed = many - running
        assert len(decision.missed.newest) == min(passed, RECORDED_ONE_BY_ONE)
        assert decision.missed.newest[-1] == NOON + passed * MINUTE
        if decision.missed.exact:
            assert len(decision.missed.newest) + decision.missed.older == passed
        assert (decision.missed.older > 0) is (passed > RECORDED_ONE_BY_ONE)


def test_missed_ticks_are_counted_exactly_where_it_is_cheap() -> None:
    made = spec(cron="* * * * * *")
    decision = plan(made, initial_state(made, NOON), NOON + 1_000 * TICKS_PER_SECOND)
    assert decision.missed is not None
    assert decision.missed.exact
    assert decision.missed.older + len(decision.missed.newest) == 999
    assert decision.start is not None
    assert decision.start.reason == "999 missed before it"


def test_a_pause_fires_nothing_and_keeps_the_grid() -> None:
    made = spec(interval=timedelta(seconds=7), cron=None, missed="skip", grace=timedelta(0))
    state = initial_state(made, NOON)
    paused = msgspec.structs.replace(state, paused=True)
    assert next_due(made, paused) is None
    assert not plan(made, paused, NOON + 100 * MINUTE).acts
    now = NOON + 50 * TICKS_PER_SECOND
    fired, missed, after = decided(made, msgspec.structs.replace(paused, paused=False), now)
    assert fired == []
    assert missed == [NOON + 7 * n * TICKS_PER_SECOND for n in range(1, 8)]
    assert next_due(made, after) == NOON + 56 * TICKS_PER_SECOND


def test_created_with_a_start_in_the_past_nothing_was_missed() -> None:
    made = spec(interval=timedelta(minutes=10), cron=None, start_at=datetime(2026, 3, 1, 0, 5))
    state = initial_state(made, NOON)
    assert next_due(made, state) == NOON + 5 * MINUTE
    assert initial_state(made, NOON + 5 * MINUTE).decided == NOON + 5 * MINUTE - 1


def test_the_first_tick_is_at_a_start_to_come() -> None:
    made = spec(interval=timedelta(minutes=10), cron=None, start_at=datetime(2026, 3, 2, 13, 0))
    assert next_due(made, initial_state(made, NOON)) == NOON + 60 * MINUTE


def test_without_a_start_the_first_interval_passes_first() -> None:
    made = spec(interval=timedelta(minutes=10), cron=None)
    assert next_due(made, initial_state(made, NOON + 1)) == NOON + 10 * MINUTE


def test_it_is_over_after_its_end() -> None:
    made = spec(end_at=datetime(2026, 3, 2, 12, 2))
    fired, missed, state = decided(made, initial_state(made, NOON), NOON + MINUTE)
    assert (fired, missed) == (minutes(1), [])
    fired, missed, state = decided(made, state, NOON + 2 * MINUTE)
    assert (fired, missed) == (minutes(2), [])
    assert next_due(made, state) is None
    assert not plan(made, state, NOON + 60 * MINUTE).acts


def test_jitter_delays_the_decision_and_not_the_tick() -> None:
    made = spec(jitter=timedelta(seconds=30))
    state = initial_state(made, NOON)
    due = next_due(made, state)
    assert due is not None
    assert NOON + MINUTE < due < NOON + MINUTE + 30 * TICKS_PER_SECOND
    assert not plan(made, state, due - 1).acts
    decision = plan(made, state, due)
    assert decision.start is not None
    assert decision.start.due == NOON + MINUTE


def start_of(decision: Plan) -> tuple[str, str | None, str | None]:
    assert decision.start is not None
    return decision.start.decision_if_refused, decision.start.guard, decision.start.terminate


def test_overlap_with_an_id_for_each_tick() -> None:
    before = ScheduleState(anchor=NOON, decided=NOON, last_run="s:before")
    now = NOON + MINUTE
    assert start_of(plan(spec(), before, now)) == ("skipped", "s:before", None)
    assert start_of(plan(spec(overlap="queue"), before, now)) == ("queued", "s:before", None)
    assert start_of(plan(spec(overlap="allow"), before, now)) == ("skipped", None, None)
    assert start_of(plan(spec(overlap="replace"), before, now)) == ("skipped", None, "s:before")


def test_overlap_with_one_id() -> None:
    before = ScheduleState(anchor=NOON, decided=NOON, last_run="one")
    now = NOON + MINUTE
    for overlap, decision, replaceable in (
        ("skip", "skipped", TERMINAL),
        ("queue", "queued", TERMINAL),
        ("replace", "skipped", frozenset(Status)),
    ):
        made = plan(spec(instance_id="one", overlap=overlap), before, now)
        assert start_of(made) == (decision, None, None)
        assert made.start is not None
        assert made.start.replaceable == replaceable


def test_one_run_is_queued_and_no_more() -> None:
    made = spec(instance_id="one", overlap="queue")
    first = plan(made, initial_state(made, NOON), NOON + MINUTE)
    assert first.state.queued is None
    state = first.state_if_refused
    assert state is not None
    assert state.queued == QueuedRun(NOON + MINUTE)
    assert waits_for(made, state) == "one"
    second = plan(made, state, NOON + 2 * MINUTE)
    assert second.start is not None
    assert second.start.decision_if_refused == "skipped"
    assert second.state_if_refused is not None
    assert second.state_if_refused.queued == QueuedRun(NOON + MINUTE)
    turn = plan_queued(made, state, NOON + 90 * TICKS_PER_SECOND)
    assert turn.start is not None
    assert turn.start.reason == "queued since 2026-03-02T12:01:00Z"
    assert turn.state.queued is None
    assert turn.state.decided == state.decided
    assert turn.state_if_refused is not None
    assert turn.state_if_refused.queued == state.queued


def test_a_queued_run_rests_with_its_schedule() -> None:
    made = spec(overlap="queue")
    state = ScheduleState(anchor=NOON, decided=NOON, last_run="a", queued=QueuedRun(NOON), paused=True)
    assert waits_for(made, state) is None
    assert not plan_queued(made, state, NOON + MINUTE).acts
    assert waits_for(made, msgspec.structs.replace(state, paused=False)) == "a"


def test_a_trigger_leaves_the_grid_alone_and_has_a_time_of_its_own() -> None:
    made = spec()
    state = initial_state(made, NOON)
    seen = set()
    for _ in range(3):
        decision = plan_trigger(made, state, NOON + MINUTE)
        assert decision.start is not None
        assert decision.due == NOON + MINUTE
        assert decision.state.decided == state.decided
        seen.add(decision.start.due)
        state = decision.state
    assert len(seen) == 3
    assert all(moment % 2 == 1 for moment in seen)
    assert plan_trigger(made, msgspec.structs.replace(state, paused=True), NOON).due is None


def test_a_changed_grid_begins_now_and_an_unchanged_one_goes_on() -> None:
    made = spec()
    state = ScheduleState(anchor=NOON, decided=NOON, last_run="a", paused=True, queued=QueuedRun(NOON))
    later = NOON + 10 * MINUTE
    assert changed_state(made, state, spec(input="1", overlap="queue"), later) == state
    moved = changed_state(made, state, spec(cron="*/5 * * * *"), later)
    assert (moved.decided, moved.paused, moved.queued, moved.last_run) == (later, True, QueuedRun(NOON), "a")
    ahead = msgspec.structs.replace(state, decided=later + MINUTE)
    assert changed_state(made, ahead, spec(cron="*/5 * * * *"), later).decided == later + MINUTE


def test_next_ticks() -> None:
    made = spec(end_at=datetime(2026, 3, 2, 12, 4))
    state = initial_state(made, NOON)
    assert next_ticks(made, state, NOON, 3) == minutes(1, 2, 3)
    assert next_ticks(made, state, NOON + 2 * MINUTE, 9) == minutes(2, 3, 4)
    assert next_ticks(made, msgspec.structs.replace(state, paused=True), NOON, 3) == []


def test_the_state_survives_its_text() -> None:
    state = ScheduleState(anchor=1, decided=2, paused=True, queued=QueuedRun(3), last_run="x", moment=5)
    assert decode_state(encode_state(state)) == state
    assert decode_state(encode_state(ScheduleState(anchor=1, decided=2))) == ScheduleState(anchor=1, decided=2)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["skip", "one", "all"]),
    st.sampled_from([1, 3, 10]),
    st.sampled_from([0, 5, 60, 600]),
    st.sampled_from([0, 20, 500]),
    st.one_of(
        st.sampled_from(["* * * * *", "*/7 * * * *", "*/20 * * * * *", "0 * * * *"]).map(lambda cron: {"cron": cron}),
        st.integers(1, 900).map(lambda seconds: {"cron": None, "interval": timedelta(seconds=seconds)}),
    ),
    st.lists(st.integers(0, 4_000), min_size=1, max_size=8),
)
def test_every_tick_is_decided_once_and_the_grid_is_kept(
    policy: str, limit: int, grace: int, jitter: int, when: dict[str, Any], waits: list[int]
) -> None:
    made = spec(
        missed=policy,
        missed_limit=limit,
        grace=timedelta(seconds=grace),
        jitter=timedelta(seconds=jitter),
        overlap="allow",
        **when,
    )
    state = initial_state(made, NOON)
    line = made.timeline(state.anchor)
    now, seen = NOON, []
    for wait in waits:
        now += wait * TICKS_PER_SECOND
        fired, missed, state = decided(made, state, now)
        assert len(fired) <= {"skip": 1, "one": 1, "all": limit + 1}[policy]
        seen += [*fired, *missed]
        due = next_due(made, state)
        assert due is not None
        assert due > now
    expected = list(line.between(NOON, now))
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(expected)
    if len(expected) <= RECORDED_ONE_BY_ONE:
        assert sorted(seen) == expected
