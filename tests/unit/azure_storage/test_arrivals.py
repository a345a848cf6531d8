"""Rules 3, 10 and 11: what is done with the messages that came for an instance."""

from typing import Any

import msgspec

from holdtrue.core import events as ev
from holdtrue.core.projection import Projection, Status
from holdtrue.stores.azure_storage.arrivals import (
    NOBODY_TICKS,
    STRANGER_DELIVERIES,
    WAKE,
    Arrived,
    Decided,
    Run,
    decide,
)
from holdtrue.stores.azure_storage.sentinel import Mark, Seen, Sentinel, State, Used
from holdtrue.stores.azure_storage.verdicts import RowView

PARENT = ev.ParentInstance(instance_id="p", execution_id="px", task_id=0, scheduled=2)
NOW = 10 * NOBODY_TICKS


def message(key: int, event: ev.AnyEvent, execution: str | None = None, **more: Any) -> Arrived:
    return Arrived(key=key, id=more.pop("id", f"id{key}"), event=event, execution_id=execution, **more)


def start(key: int, execution: str, *, child: bool = False, **more: Any) -> Arrived:
    event = ev.ExecutionStarted(
        timestamp=1, instance_id="i", execution_id=execution, name="code", parent=PARENT if child else None
    )
    return message(key, event, execution, **more)


def raised(key: int, **more: Any) -> Arrived:
    return message(key, ev.EventRaised(timestamp=1, name="e", input=str(key)), **more)


def done(key: int, execution: str) -> Arrived:
    return message(key, ev.TaskCompleted(timestamp=1, task_scheduled_id=0), execution)


def row(execution: str, status: Status = Status.PENDING, **more: Any) -> RowView:
    return RowView(execution_id=execution, status=status, **more)


def sentinel(execution: str = "x", status: Status = Status.RUNNING, *, rows: int = 4, **more: Any) -> Sentinel:
    projection = Projection(instance_id="i", execution_id=execution, name="code", status=status)
    state = State(rows=rows, projection=projection, start_id=execution, mark=Mark(execution, True, 5), **more)
    return Sentinel(execution_id=execution, complete=True, completed_at=5, etag="e", timestamp=9, state=state)


def keys(decided: Decided) -> dict[str, list[int]]:
    found = {
        "give": [one.key for one in decided.give],
        "drop": [one.key for one, _ in decided.drop],
        "keep": [one.key for one in decided.keep],
        "back": [one.key for one in decided.back],
        "dead": [one.key for one, _ in decided.dead],
        "refuse": [one.key for one in decided.refuse],
    }
    return {name: list_ for name, list_ in found.items() if list_}


RUNNING, COMPLETED, FAILED = Status.RUNNING, Status.COMPLETED, Status.FAILED


def test_a_start_that_the_row_names_comes_first_and_the_rest_after_it() -> None:
    decided = decide(row("x"), None, None, [raised(1), start(2, "x"), done(3, "old"), raised(4)], now=NOW)
    assert decided.run is Run.START and keys(decided) == {"give": [2, 1, 4], "drop": [3]}


def test_a_start_that_no_row_names_is_put_back_and_at_last_buried() -> None:
    assert keys(decide(None, None, None, [start(1, "x")], now=NOW)) == {"back": [1]}
    assert keys(decide(row("y"), None, None, [start(1, "x")], now=NOW)) == {"back": [1]}
    late = start(1, "x", delivery=STRANGER_DELIVERIES)
    assert keys(decide(None, None, None, [late], now=NOW)) == {"dead": [1]}


def test_a_start_older_than_what_stands_is_a_late_double() -> None:
    """It was put twice; what it began has ended since, and another start has taken the place."""
    newer = row("y", RUNNING, start_id="y", created_at=2)
    for delivery in (1, STRANGER_DELIVERIES):
        double = start(1, "x", delivery=delivery)
        assert keys(decide(newer, sentinel("y"), RUNNING, [double], now=NOW)) == {"drop": [1]}
        assert keys(decide(row("y", created_at=2), None, None, [double], now=NOW)) == {"drop": [1]}
    assert keys(decide(row("y", RUNNING, created_at=1), sentinel("y"), RUNNING, [start(1, "x")], now=NOW)) == {
        "back": [1]
    }


def test_what_comes_before_the_start_waits_beside_the_history() -> None:
    decided = decide(row("x"), None, None, [raised(1), done(2, "old")], now=NOW)
    assert decided.run is Run.NOTHING and keys(decided) == {"keep": [1], "drop": [2]}


def test_what_was_kept_comes_with_the_start_and_is_not_kept_again() -> None:
    kept = raised(1, kept="~kept-1")
    assert keys(decide(row("x"), sentinel(rows=0), None, [kept], now=NOW)) == {}
    assert keys(decide(row("x"), sentinel(rows=0), None, [kept, start(2, "x")], now=NOW)) == {"give": [2, 1]}


def test_doubles_are_known_by_consumed_by_seen_and_by_what_came_with_them() -> None:
    stands = sentinel(consumed=[Used("id1", 1)], seen=[Seen("id2", 1)])
    messages = [raised(1), raised(2), raised(3), raised(4, id="id3"), raised(5)]
    assert keys(decide(row("x", RUNNING), stands, RUNNING, messages, now=NOW)) == {"give": [3, 5], "drop": [1, 2, 4]}


def test_a_start_whose_history_stands_is_a_double() -> None:
    assert keys(decide(row("x", RUNNING), sentinel(), RUNNING, [start(1, "x")], now=NOW)) == {"drop": [1]}
    # It has continued as new since: another execution, the same start.
    again = start(1, "first", start_id="x")
    assert keys(decide(row("x", RUNNING), sentinel(), RUNNING, [again], now=NOW)) == {"drop": [1]}


def test_what_would_take_effect_a_second_time_is_remembered() -> None:
    for event in (
        ev.EventRaised(timestamp=1, name="e"),
        ev.ExecutionSuspended(timestamp=1),
        ev.ExecutionResumed(timestamp=1),
        ev.ExecutionRewound(timestamp=1),
    ):
        assert message(1, event).seen == Seen("id1", 0)
    for event in (ev.TaskCompleted(timestamp=1, task_scheduled_id=0), ev.ExecutionTerminated(timestamp=1)):
        assert message(1, event).seen is None


def test_a_newer_start_replaces_what_stands_also_while_it_runs() -> None:
    for status in (RUNNING, COMPLETED):
        decided = decide(row("y", start_id="y"), sentinel(status=status), status, [start(1, "y")], now=NOW)
        assert decided.run is Run.START and keys(decided) == {"give": [1]}


def test_while_a_newer_start_waits_events_are_its_own() -> None:
    decided = decide(row("y", start_id="y"), sentinel(status=COMPLETED), COMPLETED, [raised(1), done(2, "x")], now=NOW)
    assert decided.run is Run.NOTHING and keys(decided) == {"keep": [1], "drop": [2]}


def test_a_child_runs_over_an_ended_one_and_is_refused_over_a_live_one() -> None:
    child = start(1, "c", child=True)
    assert decide(None, None, None, [child], now=NOW).run is Run.START
    assert decide(row("x", COMPLETED), sentinel(status=COMPLETED), COMPLETED, [child], now=NOW).run is Run.START
    assert keys(decide(row("x", RUNNING), sentinel(), RUNNING, [child], now=NOW)) == {"refuse": [1]}
    assert keys(decide(row("w"), None, None, [child], now=NOW)) == {"refuse": [1]}
    assert child.seen is not None and start(1, "x").seen is None


def test_a_child_that_its_parent_starts_again_under_another_execution_has_started() -> None:
    """Another worker died between what it sent and its commit: its message and the next one's are of one task."""
    again = start(2, "c2", child=True)
    for parent in (PARENT, msgspec.structs.replace(PARENT, scheduled=-1)):
        first = ev.ExecutionStarted(timestamp=1, instance_id="i", execution_id="c1", name="code", parent=parent)
        for status in (RUNNING, COMPLETED, FAILED, Status.SUSPENDED):
            view, stands = row("c1", status), sentinel("c1", status)
            assert keys(decide(view, stands, status, [again], now=NOW, started=first)) == {"drop": [2]}
        both = decide(None, None, None, [message(1, first, "c1"), again], now=NOW)
        assert both.run is Run.START and keys(both) == {"give": [1], "drop": [2]}
    for change in ({"task_id": 1}, {"execution_id": "py"}, {"instance_id": "q"}, {"scheduled": 9}):
        other = msgspec.structs.replace(first, parent=msgspec.structs.replace(PARENT, **change))
        decided = decide(row("c1", RUNNING), sentinel("c1"), RUNNING, [again], now=NOW, started=other)
        assert keys(decided) == {"refuse": [2]}
        assert keys(decide(None, None, None, [message(1, other, "c1"), again], now=NOW)) == {"give": [1], "refuse": [2]}


def test_to_an_ended_one_only_a_rewind_of_a_failure_matters() -> None:
    rewind = message(2, ev.ExecutionRewound(timestamp=1))
    assert keys(decide(row("x", COMPLETED), sentinel(status=COMPLETED), COMPLETED, [raised(1), rewind], now=NOW)) == {
        "drop": [1, 2]
    }
    decided = decide(row("x", FAILED), sentinel(status=FAILED), FAILED, [raised(1), rewind], now=NOW)
    assert decided.run is Run.REWIND and keys(decided) == {"give": [1, 2]}


def test_a_held_one_keeps_what_comes_but_for_what_ends_or_wakes_it() -> None:
    stands, view = sentinel(), row("x", RUNNING)
    assert keys(decide(view, stands, RUNNING, [raised(1), done(2, "x")], now=NOW, held=True)) == {"keep": [1, 2]}
    for event in (ev.ExecutionTerminated(timestamp=1), ev.GenericEvent(timestamp=1, data=WAKE)):
        decided = decide(view, stands, RUNNING, [raised(1), message(2, event)], now=NOW, held=True)
        assert decided.run is Run.EXISTING and keys(decided) == {"give": [1, 2]}


def test_to_nobody_it_is_put_back_for_five_minutes_and_then_buried() -> None:
    young, old = raised(1, inserted=NOW - NOBODY_TICKS + 1), raised(2, inserted=NOW - NOBODY_TICKS)
    end = message(3, ev.ExecutionTerminated(timestamp=1))
    assert keys(decide(None, None, None, [young, old, end, done(4, "x")], now=NOW)) == {
        "back": [1],
        "dead": [2],
        "drop": [3, 4],
    }


def test_a_start_that_dotnet_terminated_while_it_waited() -> None:
    decided = decide(row("x", Status.TERMINATED), None, None, [start(1, "x")], now=NOW)
    assert decided.run is Run.START and decided.terminated


def test_a_copy_of_what_is_kept_and_not_given_yet_is_a_double() -> None:
    decided = decide(row("x", Status.RUNNING), sentinel(), Status.RUNNING, [raised(1), raised(2)], now=NOW)
    assert keys(decided)["give"] == [1, 2]
    some = decide(
        row("x", Status.RUNNING),
        sentinel(),
        Status.RUNNING,
        [raised(1), raised(2)],
        now=NOW,
        kept_later=frozenset({"id2"}),
    )
    assert (keys(some)["give"], keys(some)["drop"]) == ([1], [2])
