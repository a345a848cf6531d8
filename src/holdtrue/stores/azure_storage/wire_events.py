"""Events in messages: to .NET's types and back.  Pure."""

from collections.abc import Callable
from typing import Any

from holdtrue.core import events as ev
from holdtrue.core.events import FailureDetails

from .beyond import Beyond, end_of, failure_of, generation_of, shown_end, shown_failure, shown_trace, version_from
from .columns import STATUS_NAMES, STATUSES
from .dotnet_json import (
    CORE,
    STRINGS,
    TYPE,
    FormatError,
    TypedFailure,
    TypedInstance,
    TypedParent,
    dump,
    failure_as,
    failure_from,
    from_time_text,
    parent_from,
    shown_tags,
    time_text,
)
from .wire_types import EVENT_OF, KINDS

TRACE = CORE + "Tracing.DistributedTraceContext"


# -- from events -----------------------------------------------------------------------------------------


def to_wire(event: ev.AnyEvent, beyond: dict[str, Any], place: str) -> Any:
    """An event as it stands in a message; `beyond` is what is noted of it beside.  Raises FormatError."""
    kind = type(event)
    return KINDS[kind](
        **_WRITERS[kind](event, beyond, place),
        EventId=event.event_id,
        Timestamp=time_text(event.timestamp, place),
    )


def typed_tags(tags: dict[str, str] | None) -> Any:
    """Tags as an object in a message."""
    return None if tags is None else {TYPE: STRINGS, **shown_tags(tags)}


def tags_from(found: dict[str, str | None] | None, noted: dict[str, str] | None = None) -> dict[str, str] | None:
    """Tags of ours from such an object."""
    if noted is not None or found is None:
        return noted
    return {key: value or "" for key, value in found.items() if key != TYPE}


def _trace(event: Any) -> Any:
    trace = event.parent_trace_context
    shown = None if trace is None else shown_trace(trace)
    return None if shown is None else {TYPE: TRACE, **shown}


def _write_started(event: ev.ExecutionStarted, beyond: dict[str, Any], place: str) -> dict[str, Any]:
    parent, start = event.parent, event.scheduled_start
    wire_parent = None
    if parent is not None:
        instance = TypedInstance(parent.instance_id, parent.execution_id)
        wire_parent = TypedParent(parent.name, instance, parent.task_id, parent.version or "")
    return {
        "OrchestrationInstance": TypedInstance(event.instance_id, event.execution_id),
        "ParentInstance": wire_parent,
        "Name": event.name,
        "Version": event.version or "",
        "Input": event.input,
        "Tags": typed_tags(event.tags),
        "Correlation": event.correlation,
        "ParentTraceContext": _trace(event),
        "ScheduledStartTime": None if start is None else time_text(start, place),
        "Generation": generation_of(event),
    }


def _write_completed(event: ev.ExecutionCompleted, beyond: dict[str, Any], place: str) -> dict[str, Any]:
    result, failure = shown_end(event, beyond)
    return {
        "OrchestrationStatus": event.status,
        "Result": result,
        "FailureDetails": None if failure is None else failure_as(TypedFailure, failure),
    }


def _write_failure(event: Any, beyond: dict[str, Any], place: str) -> dict[str, Any]:
    failure: FailureDetails | None = event.failure
    whole = shown_failure(failure, beyond)
    return {
        "Reason": None if failure is None else failure.message,
        "Details": failure.stack_trace if failure is not None and whole is None else None,
        "FailureDetails": None if whole is None else failure_as(TypedFailure, whole),
    }


def _write_failed(event: Any, beyond: dict[str, Any], place: str) -> dict[str, Any]:
    return {"TaskScheduledId": event.task_scheduled_id, **_write_failure(event, beyond, place)}


def _write_call(event: Any, beyond: dict[str, Any], place: str) -> dict[str, Any]:
    return {
        "Name": event.name,
        "Version": event.version or "",
        "Input": event.input,
        "Tags": typed_tags(event.tags),
    }


def _write_child(event: ev.SubOrchestrationInstanceCreated, beyond: dict[str, Any], place: str) -> dict[str, Any]:
    return {**_write_call(event, beyond, place), "InstanceId": event.instance_id}


def _write_succeeded(event: Any, beyond: dict[str, Any], place: str) -> dict[str, Any]:
    return {"TaskScheduledId": event.task_scheduled_id, "Result": event.result}


def _write_rewound(event: ev.ExecutionRewound, beyond: dict[str, Any], place: str) -> dict[str, Any]:
    return {
        "Reason": event.reason,
        "ParentExecutionId": event.parent_execution_id,
        "InstanceId": event.instance_id,
        "ParentTraceContext": _trace(event),
    }


_Writer = Callable[[Any, dict[str, Any], str], dict[str, Any]]

_WRITERS: dict[type, _Writer] = {
    ev.ExecutionStarted: _write_started,
    ev.ExecutionCompleted: _write_completed,
    ev.ExecutionFailed: _write_failure,
    ev.ExecutionTerminated: lambda event, beyond, place: {"Input": event.input},
    ev.TaskScheduled: _write_call,
    ev.TaskCompleted: _write_succeeded,
    ev.TaskFailed: _write_failed,
    ev.SubOrchestrationInstanceCreated: _write_child,
    ev.SubOrchestrationInstanceCompleted: _write_succeeded,
    ev.SubOrchestrationInstanceFailed: _write_failed,
    ev.TimerCreated: lambda event, beyond, place: {"FireAt": time_text(event.fire_at, place)},
    ev.TimerFired: lambda event, beyond, place: {
        "TimerId": event.timer_id,
        "FireAt": time_text(event.fire_at, place),
    },
    ev.OrchestratorStarted: lambda event, beyond, place: {},
    ev.OrchestratorCompleted: lambda event, beyond, place: {},
    ev.EventSent: lambda event, beyond, place: {
        "InstanceId": event.instance_id,
        "Name": event.name,
        "Input": event.input,
    },
    ev.EventRaised: lambda event, beyond, place: {
        "Name": event.name,
        "Input": event.input,
        "ParentTraceContext": _trace(event),
    },
    ev.ContinueAsNew: lambda event, beyond, place: {"Result": event.input},
    ev.GenericEvent: lambda event, beyond, place: {"Data": event.data},
    ev.HistoryState: lambda event, beyond, place: {"State": event.state},
    ev.ExecutionSuspended: lambda event, beyond, place: {"Reason": event.reason},
    ev.ExecutionResumed: lambda event, beyond, place: {"Reason": event.reason},
    ev.ExecutionRewound: _write_rewound,
}


# -- to events -------------------------------------------------------------------------------------------


def from_wire(found: Any, instance_id: str, execution_id: str | None, beyond: Beyond, place: str) -> ev.AnyEvent:
    """The event in a message to an instance.  Raises FormatError."""
    kind = EVENT_OF[type(found)]
    return kind(
        timestamp=from_time_text(found.Timestamp, place),
        event_id=found.EventId,
        **_READERS[kind](found, beyond, place, instance_id, execution_id),
    )  # type: ignore[return-value]


def _known(text: str | None, member: str, place: str) -> str:
    if text is None:
        raise FormatError(place, f"its {member} is missing")
    return text


def _trace_in(found: Any, beyond: Beyond, place: str) -> str | None:
    trace = found.ParentTraceContext
    if beyond.trace is not None or trace is None:
        return beyond.trace
    return dump({key: value for key, value in trace.items() if key != TYPE}, place)


def _failure_in(found: Any) -> FailureDetails | None:
    failure = found.FailureDetails
    return None if failure is None else failure_from(failure)


def _read_call(found: Any, beyond: Beyond, place: str, *_: Any) -> dict[str, Any]:
    return {
        "name": _known(found.Name, "Name", place),
        "version": version_from(found.Version, beyond.blank),
        "input": found.Input,
        "tags": tags_from(found.Tags, beyond.tags),
    }


def _read_started(found: Any, beyond: Beyond, place: str, instance_id: str, execution_id: str | None) -> dict[str, Any]:
    instance, parent, start = found.OrchestrationInstance, found.ParentInstance, found.ScheduledStartTime
    own = instance is not None
    return {
        **_read_call(found, beyond, place),
        "instance_id": instance.instance_id if own and instance.instance_id else instance_id,
        "execution_id": (instance.execution_id if own else None) or execution_id or "",
        "parent": None
        if parent is None
        else parent_from(parent, beyond.scheduled, "" if beyond.parent_blank else None),
        "scheduled_start": None if start is None else from_time_text(start, place),
        "generation": found.Generation or 0,
        "correlation": found.Correlation,
        "parent_trace_context": _trace_in(found, beyond, place),
    }


def _read_completed(found: Any, beyond: Beyond, place: str, *_: Any) -> dict[str, Any]:
    status = found.OrchestrationStatus
    if isinstance(status, str):
        status = STATUSES.get(status)
    if status not in _STATUS_NUMBERS:
        raise FormatError(place, f"its OrchestrationStatus {found.OrchestrationStatus!r} is unknown")
    result, failure = end_of(int(status), found.Result, _failure_in(found), beyond)
    return {"status": int(status), "result": result, "failure": failure}


_STATUS_NUMBERS = frozenset(int(status) for status in STATUS_NAMES)


def _read_failure(found: Any, beyond: Beyond, place: str, *_: Any) -> dict[str, Any]:
    return {"failure": failure_of(_failure_in(found), found.Reason, found.Details, beyond)}


def _read_failed(found: Any, beyond: Beyond, place: str, *_: Any) -> dict[str, Any]:
    return {"task_scheduled_id": found.TaskScheduledId, **_read_failure(found, beyond, place)}


def _read_succeeded(found: Any, *_: Any) -> dict[str, Any]:
    return {"task_scheduled_id": found.TaskScheduledId, "result": found.Result}


def _read_terminated(found: Any, beyond: Beyond, *_: Any) -> dict[str, Any]:
    return {"input": found.Input, "recurse": beyond.recurse, "parent_execution": beyond.parent_execution}


def _read_child(found: Any, beyond: Beyond, place: str, *_: Any) -> dict[str, Any]:
    return {
        **_read_call(found, beyond, place),
        "instance_id": _known(found.InstanceId, "InstanceId", place),
    }


def _read_sent(found: Any, beyond: Beyond, place: str, *_: Any) -> dict[str, Any]:
    return {
        "instance_id": _known(found.InstanceId, "InstanceId", place),
        "name": _known(found.Name, "Name", place),
        "input": found.Input,
    }


def _read_raised(found: Any, beyond: Beyond, place: str, *_: Any) -> dict[str, Any]:
    return {
        "name": _known(found.Name, "Name", place),
        "input": found.Input,
        "parent_trace_context": _trace_in(found, beyond, place),
    }


def _read_state(found: Any, beyond: Beyond, place: str, *_: Any) -> dict[str, Any]:
    state = found.State
    return {"state": state if state is None or isinstance(state, str) else dump(state, place)}


def _read_rewound(found: Any, beyond: Beyond, place: str, *_: Any) -> dict[str, Any]:
    return {
        "reason": found.Reason,
        "parent_execution_id": found.ParentExecutionId,
        "instance_id": found.InstanceId,
        "parent_trace_context": _trace_in(found, beyond, place),
    }


_READERS: dict[type, Callable[..., dict[str, Any]]] = {
    ev.ExecutionStarted: _read_started,
    ev.ExecutionCompleted: _read_completed,
    ev.ExecutionFailed: _read_failure,
    ev.ExecutionTerminated: _read_terminated,
    ev.TaskScheduled: _read_call,
    ev.TaskCompleted: _read_succeeded,
    ev.TaskFailed: _read_failed,
    ev.SubOrchestrationInstanceCreated: _read_child,
    ev.SubOrchestrationInstanceCompleted: _read_succeeded,
    ev.SubOrchestrationInstanceFailed: _read_failed,
    ev.TimerCreated: lambda found, beyond, place, *_: {"fire_at": from_time_text(found.FireAt, place)},
    ev.TimerFired: lambda found, beyond, place, *_: {
        "timer_id": found.TimerId,
        "fire_at": from_time_text(found.FireAt, place),
    },
    ev.OrchestratorStarted: lambda *_: {},
    ev.OrchestratorCompleted: lambda *_: {},
    ev.EventSent: _read_sent,
    ev.EventRaised: _read_raised,
    ev.ContinueAsNew: lambda found, *_: {"input": found.Result},
    ev.GenericEvent: lambda found, *_: {"data": found.Data},
    ev.HistoryState: _read_state,
    ev.ExecutionSuspended: lambda found, *_: {"reason": found.Reason},
    ev.ExecutionResumed: lambda found, *_: {"reason": found.Reason},
    ev.ExecutionRewound: _read_rewound,
}
