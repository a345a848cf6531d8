"""The types of events in messages: .NET's, each with its members in the order in which they are written.

A `$type` is compared with the names that stand here, and never means anything else.  Pure.
"""

from typing import Any

import msgspec

from holdtrue.core import events as ev

from .dotnet_json import CORE, TYPE, TypedFailure, TypedInstance, TypedParent

_TAGS = dict[str, str | None] | None
_OBJECT = dict[str, Any] | None
_Text = str | None
_NUMBER: Any = ("EventType", int | str, 0)
_TRACED: Any = ("ParentTraceContext", _OBJECT, None)
_NAMED: list[Any] = [("Name", _Text, None), ("Version", _Text, None), ("Input", _Text, None)]
_FAILED: list[Any] = [
    _NUMBER,
    ("TaskScheduledId", int),
    ("Reason", _Text, None),
    ("Details", _Text, None),
    ("FailureDetails", TypedFailure | None, None),
]
_SUCCEEDED: list[Any] = [_NUMBER, ("TaskScheduledId", int), ("Result", _Text, None)]
_REASON: list[Any] = [_NUMBER, ("Reason", _Text, None)]

_MEMBERS: dict[type[ev.HistoryEvent], list[Any]] = {
    ev.ExecutionStarted: [
        ("OrchestrationInstance", TypedInstance | None, None),
        _NUMBER,
        ("ParentInstance", TypedParent | None, None),
        *_NAMED,
        ("Tags", _TAGS, None),
        ("Correlation", _Text, None),
        _TRACED,
        ("ScheduledStartTime", _Text, None),
        ("Generation", int | None, None),
        ("GenerateNewTrace", bool, False),
    ],
    ev.ExecutionCompleted: [
        _NUMBER,
        ("OrchestrationStatus", int | str, 0),
        ("Result", _Text, None),
        ("FailureDetails", TypedFailure | None, None),
    ],
    ev.ExecutionFailed: [
        _NUMBER,
        ("Reason", _Text, None),
        ("Details", _Text, None),
        ("FailureDetails", TypedFailure | None, None),
    ],
    ev.ExecutionTerminated: [_NUMBER, ("Input", _Text, None)],
    ev.TaskScheduled: [_NUMBER, *_NAMED, _TRACED, ("Tags", _TAGS, None)],
    ev.TaskCompleted: _SUCCEEDED,
    ev.TaskFailed: _FAILED,
    ev.SubOrchestrationInstanceCreated: [
        _NUMBER,
        ("Name", _Text, None),
        ("Version", _Text, None),
        ("InstanceId", _Text, None),
        ("Input", _Text, None),
        ("ClientSpanId", _Text, None),
        ("Tags", _TAGS, None),
    ],
    ev.SubOrchestrationInstanceCompleted: _SUCCEEDED,
    ev.SubOrchestrationInstanceFailed: _FAILED,
    ev.TimerCreated: [_NUMBER, ("FireAt", str)],
    ev.TimerFired: [_NUMBER, ("TimerId", int), ("FireAt", str)],
    ev.OrchestratorStarted: [_NUMBER],
    ev.OrchestratorCompleted: [_NUMBER],
    ev.EventSent: [_NUMBER, ("InstanceId", _Text, None), ("Name", _Text, None), ("Input", _Text, None)],
    ev.EventRaised: [_NUMBER, ("Name", _Text, None), ("Input", _Text, None), _TRACED],
    ev.ContinueAsNew: [_NUMBER, ("Result", _Text, None)],
    ev.GenericEvent: [("Data", _Text, None), _NUMBER],
    ev.HistoryState: [_NUMBER, ("State", Any, None)],
    ev.ExecutionSuspended: _REASON,
    ev.ExecutionResumed: _REASON,
    ev.ExecutionRewound: [
        *_REASON,
        ("ParentExecutionId", _Text, None),
        ("InstanceId", _Text, None),
        _TRACED,
    ],
}
"""The members of each type; behind them always EventId, IsPlayed, Timestamp."""


def _wire_struct(kind: type[ev.HistoryEvent], members: list[Any]) -> Any:
    name = kind.__name__ if kind is ev.GenericEvent else f"{kind.__name__}Event"
    number = ev.EVENT_TYPES.index(kind)
    own = [("EventType", int | str, number) if member is _NUMBER else member for member in members]
    tail: list[Any] = [("EventId", int, -1), ("IsPlayed", bool, False), ("Timestamp", str)]
    return msgspec.defstruct(
        name, [*own, *tail], kw_only=True, gc=False, tag_field=TYPE, tag=f"{CORE}History.{name}", module=__name__
    )


KINDS: dict[type[ev.HistoryEvent], Any] = {kind: _wire_struct(kind, members) for kind, members in _MEMBERS.items()}
"""The struct of each type of event."""
EVENT_OF: dict[Any, type[ev.HistoryEvent]] = {struct: kind for kind, struct in KINDS.items()}
"""And the way back."""
TYPE_NAMES: tuple[str, ...] = tuple(KINDS[kind].__struct_config__.tag for kind in ev.EVENT_TYPES)
"""The `$type` of each event, by the family's number."""


def _union() -> Any:
    found: Any = None
    for struct in KINDS.values():
        found = struct if found is None else found | struct
    return found


WIRE_EVENT = _union()
"""An event in a message, whichever."""
