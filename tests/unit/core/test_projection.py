"""The table of events and statuses, and the fold that follows it."""

from typing import Any

import msgspec
import pytest

from holdtrue.core import events as ev
from holdtrue.core.errors import InvariantBroken
from holdtrue.core.projection import TERMINAL, TRANSITIONS, Projection, Status, initial, project

LIVE = {Status.RUNNING, Status.SUSPENDED}

STARTED = ev.ExecutionStarted(
    timestamp=5,
    instance_id="i",
    execution_id="x",
    name="code",
    version="2",
    input="1",
    tags={"a": "b"},
    scheduled_start=77,
    generation=3,
    parent=ev.ParentInstance(instance_id="p", execution_id="px", task_id=7, scheduled=9),
)

MEMBERS: dict[type, dict[str, Any]] = {
    ev.ExecutionStarted: msgspec.structs.asdict(STARTED),
    ev.ExecutionCompleted: {"status": Status.TERMINATED, "result": '"o"'},
    ev.ExecutionFailed: {"failure": ev.FailureDetails(message="m", error_type="t")},
}
SAMPLES = {"name": "n", "instance_id": "o", "task_scheduled_id": 1, "timer_id": 1, "fire_at": 1}


def event(kind: type[ev.HistoryEvent]) -> Any:
    needed = {f.name for f in msgspec.structs.fields(kind) if f.required}
    members = MEMBERS.get(kind) or {name: value for name, value in SAMPLES.items() if name in needed}
    return kind(**{**members, "timestamp": 9})


def at(status: Status) -> Projection:
    return Projection(
        instance_id="other",
        execution_id="old",
        name="gone",
        status=status,
        output='"old"',
        custom_status='"c"',
        created_at=1,
        last_updated_at=2,
        completed_at=3,
    )


def test_every_event_of_the_family_has_its_row() -> None:
    assert set(TRANSITIONS) == set(ev.EVENT_TYPES)


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("kind", ev.EVENT_TYPES, ids=lambda kind: kind.__name__)
def test_an_event_makes_the_status_that_the_table_says_or_cannot_come(
    kind: type[ev.HistoryEvent], status: Status
) -> None:
    before = at(status)
    copy = msgspec.structs.replace(before)
    one = event(kind)
    row = TRANSITIONS[kind]
    if status not in row:
        with pytest.raises(
            InvariantBroken, match=f"'other'.*{kind.__name__} cannot come while the status is {status.name}"
        ):
            project(before, [one])
    else:
        after = project(before, [one])
        assert after.status is (Status(one.status) if kind is ev.ExecutionCompleted else row[status])
        assert after.last_updated_at == 9
        moved = after.status is not status
        assert moved is (
            kind
            in {
                ev.ExecutionStarted,
                ev.ExecutionCompleted,
                ev.ExecutionFailed,
                *([ev.ExecutionSuspended] if status is Status.RUNNING else [ev.ExecutionResumed]),
            }
        )
    assert before == copy


def test_what_has_ended_takes_nothing_but_what_says_nothing() -> None:
    for status in (*TERMINAL, Status.CONTINUED_AS_NEW):
        kinds = {kind for kind, row in TRANSITIONS.items() if status in row}
        assert kinds == {ev.GenericEvent, ev.HistoryState, ev.OrchestratorCompleted}
        assert status.is_terminal is (status in TERMINAL)
    for status in LIVE:
        assert {kind for kind, row in TRANSITIONS.items() if status not in row} == {
            ev.ExecutionStarted,
            ev.ExecutionResumed if status is Status.RUNNING else ev.ExecutionSuspended,
        }
        assert not status.is_terminal


def test_a_start_makes_all_members_its_own_and_keeps_what_is_the_instances() -> None:
    after = project(at(Status.PENDING), [STARTED])
    expected = initial(STARTED)
    for member in ("created_at", "custom_status"):
        assert getattr(after, member) == getattr(at(Status.PENDING), member)
        setattr(expected, member, getattr(after, member))
    expected.status = Status.RUNNING
    assert after == expected


def test_an_end_is_told_with_its_time_and_failure() -> None:
    failure = ev.FailureDetails(message="m", error_type="t")
    after = project(
        initial(STARTED),
        [STARTED, ev.ExecutionCompleted(timestamp=8, status=Status.FAILED, result=None, failure=failure)],
    )
    assert (after.status, after.failure, after.output, after.completed_at) == (Status.FAILED, failure, None, 8)
    after = project(initial(STARTED), [STARTED, ev.ExecutionFailed(timestamp=8, failure=failure)])
    assert (after.status, after.failure, after.completed_at) == (Status.FAILED, failure, 8)


def test_nothing_changes_nothing() -> None:
    assert project(at(Status.RUNNING), []) == at(Status.RUNNING)
