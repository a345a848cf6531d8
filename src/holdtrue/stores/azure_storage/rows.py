"""History rows: events to columns, in .NET's order and types (`row_reading` has the way back).

What of an event .NET has no column for stands in one of ours, `HoldtrueMore`.  Pure.
"""

from collections.abc import Callable
from typing import Any

from holdtrue.core import events as ev
from holdtrue.core.events import MAX_TICKS, FailureDetails, Ticks
from holdtrue.core.projection import Status

from .beyond import beyond_of, generation_of, shown_end, shown_failure, shown_trace
from .columns import FIRST_TICKS, STATUS_NAMES, More, Values, tags_text
from .dotnet_json import Failure, FormatError, OrchestrationInstance, Parent, dump, failure_as, too_deep
from .large import MORE
from .owing import RowExtra
from .service import Instant

_NO_EXTRA = RowExtra()


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

    `played` is IsPlayed where it is not what its type says; `continued` tells of one of the rows with which an
    execution goes on from the one before: in .NET its start has no generation, and all but the first are played.
    Large texts are still in their columns (`large`).
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
    carried = continued and kind is ev.OrchestratorCompleted
    values["IsPlayed"] = (carried or kind in _PLAYED) if played is None else played
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
