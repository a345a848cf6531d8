"""History rows: events to columns, in .NET's order and types, and back.

What of an event .NET has no column for stands in one of ours, `HoldtrueMore`.  Columns of strangers are left alone,
those that older versions did not write may be missing.  Pure.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from holdtrue.core import events as ev
from holdtrue.core.actions import ActivityOptions
from holdtrue.core.events import MAX_TICKS, FailureDetails, Ticks
from holdtrue.core.projection import Status

from .beyond import (
    Beyond,
    beyond_of,
    end_of,
    failure_of,
    shown_end,
    shown_failure,
    shown_trace,
    version_from,
)
from .dotnet_json import (
    Failure,
    FormatError,
    OrchestrationInstance,
    Parent,
    dump,
    failure_as,
    failure_from,
    from_time_text,
    load,
    parent_from,
    shown_tags,
    too_deep,
)
from .large import MORE
from .owing import RowExtra
from .service import Instant, Typed, Value

FIRST_TICKS: Ticks = -11_644_473_600 * ev.TICKS_PER_SECOND
"""The year 1601: the service refuses earlier times in tables."""

Values = dict[str, Value | None]

STATUS_NAMES = {
    Status.RUNNING: "Running",
    Status.COMPLETED: "Completed",
    Status.CONTINUED_AS_NEW: "ContinuedAsNew",
    Status.FAILED: "Failed",
    Status.CANCELED: "Canceled",
    Status.TERMINATED: "Terminated",
    Status.PENDING: "Pending",
    Status.SUSPENDED: "Suspended",
}
"""The statuses as rows have them."""
STATUSES = {name: status for status, name in STATUS_NAMES.items()}


class More(Beyond, omit_defaults=True, kw_only=True, gc=False):
    """Our column: what is noted of the event, an activity's options, a child's execution, the start's generation."""

    options: ActivityOptions | None = None
    execution: str | None = None
    generation: int | None = None


_NO_MORE = More()
_NO_EXTRA = RowExtra()
_decode_more = msgspec.json.Decoder(More).decode
_decode_failure = msgspec.json.Decoder(Failure | None).decode
_decode_tags = msgspec.json.Decoder(dict[str, str | None] | None).decode
_decode_parent = msgspec.json.Decoder(Parent | None).decode
_decode_instance = msgspec.json.Decoder(OrchestrationInstance | None).decode
_decode_object = msgspec.json.Decoder(dict[str, Any] | None).decode


# -- from events to rows -------------------------------------------------------------------------------


def event_values(
    event: ev.AnyEvent,
    execution_id: str,
    extra: RowExtra = _NO_EXTRA,
    *,
    place: str = "history row",
    played: bool | None = None,
    continued: bool = False,
) -> Values:
    """The columns of an event's row, in .NET's order; None stands for none.

    `played` is IsPlayed where it is not what its type says; `continued` tells of a start that it is that of a
    continue-as-new, which has no generation in .NET.  Large texts are still in their columns (`large`).
    Raises FormatError for an event that no row can hold, naming `place`.
    """
    kind = type(event)
    try:
        beyond = beyond_of(event)
        values: Values = _WRITERS[kind](event, beyond, place)
    except RecursionError as error:
        raise too_deep(place) from error
    if continued and isinstance(event, ev.ExecutionStarted):
        values["Generation"] = None
        if event.generation:
            beyond["generation"] = event.generation
    values["EventId"] = event.event_id
    values["IsPlayed"] = kind in _PLAYED if played is None else played
    values["_Timestamp"] = _instant(event.timestamp, "at", beyond, place)
    values["EventType"] = kind.__name__
    values["ExecutionId"] = execution_id
    if extra.options is not None:
        beyond["options"] = extra.options
    if extra.execution is not None:
        beyond["execution"] = extra.execution
    if beyond:
        values[MORE] = dump(More(**beyond), place)
    return values


def _instant(at: Ticks, name: str, beyond: dict[str, Any], place: str) -> Instant:
    if at < FIRST_TICKS:
        beyond[name] = at
        return Instant(FIRST_TICKS)
    if at > MAX_TICKS:
        raise FormatError(place, f"{at} is a time after the year 9999")
    return Instant(at)


def tags_text(tags: Mapping[str, str] | None, place: str) -> str:
    """The column `Tags`."""
    return "null" if tags is None else dump(shown_tags(tags), place)


def _trace_text(trace: str | None) -> str:
    return trace if trace is not None and shown_trace(trace) is not None else "null"


def _failure_text(failure: FailureDetails | None, place: str) -> str:
    return "null" if failure is None else dump(failure_as(Failure, failure), place)


def _started(event: ev.ExecutionStarted, beyond: dict[str, Any], place: str) -> Values:
    parent, start = event.parent, event.scheduled_start
    parent_text = "null"
    if parent is not None:
        instance = OrchestrationInstance(parent.instance_id, parent.execution_id)
        parent_text = dump(Parent(parent.name, instance, parent.task_id, parent.version or ""), place)
    return {
        "ParentInstance": parent_text,
        "Name": event.name,
        "Version": event.version or "",
        "Input": event.input,
        "Tags": tags_text(event.tags, place),
        "Correlation": event.correlation,
        "ParentTraceContext": _trace_text(event.parent_trace_context),
        "ScheduledStartTime": None if start is None else _instant(start, "start", beyond, place),
        "Generation": generation_of(event),
        "GenerateNewTrace": False,
        "OrchestrationInstance": dump(OrchestrationInstance(event.instance_id, event.execution_id), place),
    }


def generation_of(event: ev.ExecutionStarted) -> int | None:
    """The generation as .NET writes it: a child's first execution has none."""
    return None if event.parent is not None and event.generation == 0 else event.generation


def _completed(event: ev.ExecutionCompleted, beyond: dict[str, Any], place: str) -> Values:
    result, failure = shown_end(event, beyond)
    try:
        status = STATUS_NAMES[Status(event.status)]
    except ValueError as error:
        raise FormatError(place, f"{event.status} is no status") from error
    return {"OrchestrationStatus": status, "Result": result, "FailureDetails": _failure_text(failure, place)}


def _failure_values(failure: FailureDetails | None, beyond: dict[str, Any], place: str) -> Values:
    whole = shown_failure(failure, beyond)
    return {
        "Reason": None if failure is None else failure.message,
        "Details": failure.stack_trace if failure is not None and whole is None else None,
        "FailureDetails": _failure_text(whole, place),
    }


def _execution_failed(event: ev.ExecutionFailed, beyond: dict[str, Any], place: str) -> Values:
    return _failure_values(event.failure, beyond, place)


def _failed(event: Any, beyond: dict[str, Any], place: str) -> Values:
    return {"TaskScheduledId": event.task_scheduled_id, **_failure_values(event.failure, beyond, place)}


def _succeeded(event: Any, beyond: dict[str, Any], place: str) -> Values:
    return {"TaskScheduledId": event.task_scheduled_id, "Result": event.result}


def _terminated(event: ev.ExecutionTerminated, beyond: dict[str, Any], place: str) -> Values:
    return {"Input": event.input}


def _scheduled(event: ev.TaskScheduled, beyond: dict[str, Any], place: str) -> Values:
    return {
        "Name": event.name,
        "Version": event.version or "",
        "Input": event.input,
        "ParentTraceContext": "null",
        "Tags": tags_text(event.tags, place),
    }


def _child(event: ev.SubOrchestrationInstanceCreated, beyond: dict[str, Any], place: str) -> Values:
    return {
        "Name": event.name,
        "Version": event.version or "",
        "InstanceId": event.instance_id,
        "Input": event.input,
        "ClientSpanId": None,
        "Tags": tags_text(event.tags, place),
    }


def _timer(event: ev.TimerCreated, beyond: dict[str, Any], place: str) -> Values:
    return {"FireAt": _instant(event.fire_at, "fire_at", beyond, place)}


def _fired(event: ev.TimerFired, beyond: dict[str, Any], place: str) -> Values:
    return {"TimerId": event.timer_id, "FireAt": _instant(event.fire_at, "fire_at", beyond, place)}


def _sent(event: ev.EventSent, beyond: dict[str, Any], place: str) -> Values:
    return {"InstanceId": event.instance_id, "Name": event.name, "Input": event.input}


def _raised(event: ev.EventRaised, beyond: dict[str, Any], place: str) -> Values:
    trace = _trace_text(event.parent_trace_context)
    return {"Name": event.name, "Input": event.input, "ParentTraceContext": trace}


def _reason(event: Any, beyond: dict[str, Any], place: str) -> Values:
    return {"Reason": event.reason}


def _rewound(event: ev.ExecutionRewound, beyond: dict[str, Any], place: str) -> Values:
    return {
        "Reason": event.reason,
        "ParentExecutionId": event.parent_execution_id,
        "InstanceId": event.instance_id,
        "ParentTraceContext": _trace_text(event.parent_trace_context),
    }


_WRITERS: dict[type, Callable[[Any, dict[str, Any], str], Values]] = {
    ev.ExecutionStarted: _started,
    ev.ExecutionCompleted: _completed,
    ev.ExecutionFailed: _execution_failed,
    ev.ExecutionTerminated: _terminated,
    ev.TaskScheduled: _scheduled,
    ev.TaskCompleted: _succeeded,
    ev.TaskFailed: _failed,
    ev.SubOrchestrationInstanceCreated: _child,
    ev.SubOrchestrationInstanceCompleted: _succeeded,
    ev.SubOrchestrationInstanceFailed: _failed,
    ev.TimerCreated: _timer,
    ev.TimerFired: _fired,
    ev.OrchestratorStarted: lambda event, beyond, place: {},
    ev.OrchestratorCompleted: lambda event, beyond, place: {},
    ev.EventSent: _sent,
    ev.EventRaised: _raised,
    ev.ContinueAsNew: lambda event, beyond, place: {"Result": event.input},
    ev.GenericEvent: lambda event, beyond, place: {"Data": event.data},
    ev.HistoryState: lambda event, beyond, place: {"State": event.state},
    ev.ExecutionSuspended: _reason,
    ev.ExecutionResumed: _reason,
    ev.ExecutionRewound: _rewound,
}

_PLAYED = frozenset(
    (
        ev.ExecutionStarted,
        ev.ExecutionTerminated,
        ev.TaskCompleted,
        ev.TaskFailed,
        ev.SubOrchestrationInstanceCompleted,
        ev.SubOrchestrationInstanceFailed,
        ev.TimerFired,
        ev.EventRaised,
        ev.GenericEvent,
        ev.ExecutionSuspended,
        ev.ExecutionResumed,
        ev.ExecutionRewound,
    )
)
"""What comes as a message, and is played when its row is written."""


# -- from rows to events -------------------------------------------------------------------------------


class Columns:
    """A row's columns as they are asked for; each refusal is a FormatError that names the row and the column."""

    __slots__ = ("place", "values")

    def __init__(self, values: Mapping[str, Value | None], place: str) -> None:
        self.values = values
        self.place = place

    def wrong(self, name: str, what: str) -> FormatError:
        """A column is not what it should be."""
        value = self.values.get(name)
        if value is None:
            return FormatError(self.place, f"it has no column {name}")
        return FormatError(self.place, f"its column {name} is no {what}: {str(value)[:60]!r}")

    def text(self, name: str) -> str | None:
        """A text, None where there is none."""
        value = self.values.get(name)
        if value is None or type(value) is str:
            return value
        raise self.wrong(name, "text")

    def known_text(self, name: str) -> str:
        """A text that must be there."""
        value = self.values.get(name)
        if type(value) is str:
            return value
        raise self.wrong(name, "text")

    def number(self, name: str, missing: int | None = None) -> int:
        """A whole number; `missing` stands for an absent one, which is refused without."""
        value = self.values.get(name)
        if type(value) is int:
            return value
        if value is None and missing is not None:
            return missing
        if isinstance(value, Typed) and value.text.lstrip("-").isdecimal() and len(value.text) < 20:
            return int(value.text)
        raise self.wrong(name, "whole number")

    def time(self, name: str) -> Ticks | None:
        """A time, None where there is none."""
        value = self.values.get(name)
        if isinstance(value, Instant):
            return value.ticks
        if value is None:
            return None
        if type(value) is str:
            return from_time_text(value, self.place)
        raise self.wrong(name, "time")

    def known_time(self, name: str, noted: Ticks | None = None) -> Ticks:
        """A time that must be there, or the one that was noted."""
        found = self.time(name)
        if found is None:
            raise self.wrong(name, "time")
        return found if noted is None else noted

    def json(self, name: str, decode: Callable[[str], Any]) -> Any:
        """What a column's JSON text holds; the text `null`, an empty one and none are None."""
        text = self.text(name)
        return load(decode, text, f"{self.place}, column {name}") if text else None


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


def tags_of(columns: Columns, noted: dict[str, str] | None = None) -> dict[str, str] | None:
    """The column `Tags`."""
    found = columns.json("Tags", _decode_tags)
    if noted is not None:
        return noted
    return None if found is None else {key: value or "" for key, value in found.items() if key != "$type"}


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
    return kind if kind != reason and kind in _READERS else None
