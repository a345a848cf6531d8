"""History rows: columns to events (`rows` has the way there).

Columns of strangers are left alone, those that older versions did not write may be missing.  Pure.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from holdtrue.core import events as ev
from holdtrue.core.events import FailureDetails

from .beyond import Beyond, end_of, failure_of, version_from
from .columns import STATUSES, Columns, More, tags_of
from .dotnet_json import Failure, FormatError, OrchestrationInstance, Parent, failure_from, parent_from, too_deep
from .large import MORE
from .owing import RowExtra
from .service import Row, Value

_NO_MORE = More()
_NO_EXTRA = RowExtra()
_decode_more = msgspec.json.Decoder(More).decode
_decode_failure = msgspec.json.Decoder(Failure | None).decode
_decode_parent = msgspec.json.Decoder(Parent | None).decode
_decode_instance = msgspec.json.Decoder(OrchestrationInstance | None).decode
_decode_object = msgspec.json.Decoder(dict[str, Any] | None).decode


def read_event(
    values: Mapping[str, Value | None], instance_id: str, *, place: str = "history row"
) -> tuple[ev.AnyEvent, RowExtra]:
    """The event of a row whose blobs are put in, and what its row asks for beyond.

    What only ours say is -1 for a stranger's (the ordinal in ParentInstance).  Raises FormatError, naming `place`,
    for a row that is no event's.
    """
    columns = Columns(values, place)
    kind = columns.known_text("EventType")
    reader = _READERS.get(kind)
    if reader is None:
        raise FormatError(place, f"its EventType {kind[:60]!r} is unknown")
    more: More = columns.json(MORE, _decode_more) or _NO_MORE
    base = {
        "timestamp": columns.known_time("_Timestamp", more.at),
        "event_id": columns.number("EventId", -1),
    }
    try:
        event = reader(columns, base, more, instance_id)
    except RecursionError as error:
        raise too_deep(place) from error
    extra = _NO_EXTRA if more is _NO_MORE else RowExtra(options=more.options, execution=more.execution)
    return event, extra


def _trace_of(columns: Columns, beyond: Beyond) -> str | None:
    if beyond.trace is not None:
        return beyond.trace
    text = columns.text("ParentTraceContext")
    if not text or text == "null":
        return None
    columns.json("ParentTraceContext", _decode_object)
    return text


def _failure_in(columns: Columns) -> FailureDetails | None:
    found = columns.json("FailureDetails", _decode_failure)
    return None if found is None else failure_from(found)


def _call(columns: Columns, more: More) -> dict[str, Any]:
    return {
        "name": columns.known_text("Name"),
        "version": version_from(columns.text("Version"), more.blank),
        "input": columns.text("Input"),
        "tags": tags_of(columns, more.tags),
    }


def _read_started(columns: Columns, base: dict[str, Any], more: More, instance_id: str) -> ev.AnyEvent:
    instance = columns.json("OrchestrationInstance", _decode_instance)
    parent = columns.json("ParentInstance", _decode_parent)
    start = columns.time("ScheduledStartTime")
    execution = instance.execution_id if instance is not None else None
    return ev.ExecutionStarted(
        **base,
        **_call(columns, more),
        instance_id=instance.instance_id if instance is not None and instance.instance_id else instance_id,
        execution_id=execution or columns.text("ExecutionId") or "",
        parent=None if parent is None else parent_from(parent, more.scheduled, "" if more.parent_blank else None),
        scheduled_start=start if more.start is None else more.start,
        generation=columns.number("Generation", 0) if more.generation is None else more.generation,
        correlation=columns.text("Correlation"),
        parent_trace_context=_trace_of(columns, more),
    )


def _read_completed(columns: Columns, base: dict[str, Any], more: More, instance_id: str) -> ev.AnyEvent:
    status = STATUSES.get(columns.known_text("OrchestrationStatus"))
    if status is None:
        raise columns.wrong("OrchestrationStatus", "status")
    result, failure = end_of(int(status), columns.text("Result"), _failure_in(columns), more)
    return ev.ExecutionCompleted(**base, status=int(status), result=result, failure=failure)


def _read_failure(columns: Columns, more: More) -> FailureDetails | None:
    return failure_of(_failure_in(columns), columns.text("Reason"), columns.text("Details"), more)


def _read_failed(kind: type) -> Callable[..., ev.AnyEvent]:
    def read(columns: Columns, base: dict[str, Any], more: More, instance_id: str) -> ev.AnyEvent:
        task = columns.number("TaskScheduledId")
        return kind(**base, task_scheduled_id=task, failure=_read_failure(columns, more))  # type: ignore[no-any-return]

    return read


def _read_succeeded(kind: type) -> Callable[..., ev.AnyEvent]:
    def read(columns: Columns, base: dict[str, Any], more: More, instance_id: str) -> ev.AnyEvent:
        task = columns.number("TaskScheduledId")
        return kind(**base, task_scheduled_id=task, result=columns.text("Result"))  # type: ignore[no-any-return]

    return read


def _read_bare(kind: type, **names: str) -> Callable[..., ev.AnyEvent]:
    """The reader of an event that has nothing but texts: field to column."""

    def read(columns: Columns, base: dict[str, Any], more: More, instance_id: str) -> ev.AnyEvent:
        texts = {field: columns.text(column) for field, column in names.items()}
        return kind(**base, **texts)  # type: ignore[no-any-return]

    return read


_READERS: dict[str, Callable[[Columns, dict[str, Any], More, str], ev.AnyEvent]] = {
    "ExecutionStarted": _read_started,
    "ExecutionCompleted": _read_completed,
    "ExecutionFailed": lambda columns, base, more, _: ev.ExecutionFailed(**base, failure=_read_failure(columns, more)),
    "ExecutionTerminated": lambda columns, base, more, _: ev.ExecutionTerminated(
        **base, input=columns.text("Input"), recurse=more.recurse, parent_execution=more.parent_execution
    ),
    "TaskScheduled": lambda columns, base, more, _: ev.TaskScheduled(**base, **_call(columns, more)),
    "TaskCompleted": _read_succeeded(ev.TaskCompleted),
    "TaskFailed": _read_failed(ev.TaskFailed),
    "SubOrchestrationInstanceCreated": lambda columns, base, more, _: ev.SubOrchestrationInstanceCreated(
        **base, **_call(columns, more), instance_id=columns.known_text("InstanceId")
    ),
    "SubOrchestrationInstanceCompleted": _read_succeeded(ev.SubOrchestrationInstanceCompleted),
    "SubOrchestrationInstanceFailed": _read_failed(ev.SubOrchestrationInstanceFailed),
    "TimerCreated": lambda columns, base, more, _: ev.TimerCreated(
        **base, fire_at=columns.known_time("FireAt", more.fire_at)
    ),
    "TimerFired": lambda columns, base, more, _: ev.TimerFired(
        **base, timer_id=columns.number("TimerId"), fire_at=columns.known_time("FireAt", more.fire_at)
    ),
    "OrchestratorStarted": _read_bare(ev.OrchestratorStarted),
    "OrchestratorCompleted": _read_bare(ev.OrchestratorCompleted),
    "EventSent": lambda columns, base, more, _: ev.EventSent(
        **base,
        instance_id=columns.known_text("InstanceId"),
        name=columns.known_text("Name"),
        input=columns.text("Input"),
    ),
    "EventRaised": lambda columns, base, more, _: ev.EventRaised(
        **base,
        name=columns.known_text("Name"),
        input=columns.text("Input"),
        parent_trace_context=_trace_of(columns, more),
    ),
    "ContinueAsNew": _read_bare(ev.ContinueAsNew, input="Result"),
    "GenericEvent": _read_bare(ev.GenericEvent, data="Data"),
    "HistoryState": _read_bare(ev.HistoryState, state="State"),
    "ExecutionSuspended": _read_bare(ev.ExecutionSuspended, reason="Reason"),
    "ExecutionResumed": _read_bare(ev.ExecutionResumed, reason="Reason"),
    "ExecutionRewound": lambda columns, base, more, _: ev.ExecutionRewound(
        **base,
        reason=columns.text("Reason"),
        parent_execution_id=columns.text("ParentExecutionId"),
        instance_id=columns.text("InstanceId"),
        parent_trace_context=_trace_of(columns, more),
    ),
}


def rewound_from(values: Mapping[str, Value | None]) -> str | None:
    """The EventType that a row had before .NET's rewind turned it into a GenericEvent; None for any other row."""
    reason = values.get("Reason")
    if values.get("EventType") != "GenericEvent" or not isinstance(reason, str):
        return None
    kind = reason.removeprefix("Rewound: ")
    if kind == "GenericEvent" and "OrchestrationStatus" in values:
        # Turned twice: .NET asks for ends by this column, which stays, and notes the type that it finds.
        kind = "ExecutionCompleted"
    return kind if kind != reason and kind in _READERS else None


def turned_back(row: Row) -> Row:
    """A row as it was before .NET's rewind turned it (the text of its failure is gone); any other as it is."""
    kind = rewound_from(row.values)
    if kind is None:
        return row
    return msgspec.structs.replace(row, values={**row.values, "EventType": kind, "Reason": "rewound"})
