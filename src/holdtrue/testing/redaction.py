"""Takes payloads out of a recorded instance, and leaves their form: a bug report need not tell whose order it was.

In a payload (an input, an output, a result, a custom status, what an activity reported) every text becomes as many
`x`, every number 0; null, true and false, the names of members and the lengths of lists stay, so that a fan-out is
as wide as it was.  Messages and traces of errors, reasons and values of tags become `x`, too.  What stays whole:
ids, names, versions, types of errors, times.  Code that decides by a value may decide otherwise on the redacted one.
"""

import json
from typing import Any

import msgspec

from holdtrue.core.events import FailureDetails
from holdtrue.core.messages import CANCEL_EVENT, RESERVED_PREFIX
from holdtrue.stores.protocol import ActivityCopy, InstanceCopy

PAYLOADS = frozenset(("input", "result", "output", "custom_status", "progress", "details", "data", "state"))
"""Members that hold a payload."""
TEXTS = frozenset(("reason", "message", "stack_trace"))
"""Members that hold a text of somebody's."""
KEPT = frozenset(
    ("instance_id", "execution_id", "name", "version", "kind", "tag", "error_type", "task_id", "start_id", "dialect")
    + ("parent_execution", "parent_execution_id", "correlation", "parent_trace_context", "sender")
)
"""Members with a text that stays: who and what it is, nothing that was computed."""


def redacted(copy: InstanceCopy) -> InstanceCopy:
    """The same instance without its payloads."""
    record = copy.record
    return InstanceCopy(
        record=msgspec.structs.replace(
            record,
            projection=_struct(record.projection),
            started=_struct(record.started),
            condition=None if record.condition is None else _struct(record.condition),
        ),
        history=[_struct(event) for event in copy.history],
        messages=[msgspec.structs.replace(one, event=_struct(one.event)) for one in copy.messages],
        activities=[_activity(one) for one in copy.activities],
        wake=copy.wake,
    )


def _activity(one: ActivityCopy) -> ActivityCopy:
    one = _struct(one)
    task = _struct(one.task)
    if task.options is not None:
        task = msgspec.structs.replace(task, options=_struct(task.options))
    return msgspec.structs.replace(one, task=task)


def _struct(value: Any) -> Any:
    """A struct with what it holds itself redacted."""
    changed: dict[str, Any] = {}
    name = getattr(value, "name", None)
    if isinstance(name, str) and name.startswith(RESERVED_PREFIX) and name != CANCEL_EVENT:
        return value  # our own: its input is a time
    for member in type(value).__struct_fields__:
        found = getattr(value, member)
        if found is None:
            continue
        if member in PAYLOADS:
            changed[member] = payload(found)
        elif member in TEXTS:
            changed[member] = _text(found)
        elif member == "tags":
            changed[member] = {key: _text(text) for key, text in found.items()}
        elif member == "properties":
            changed[member] = _shape(found)
        elif isinstance(found, FailureDetails):
            changed[member] = _struct(found)
    return msgspec.structs.replace(value, **changed)


def payload(text: str) -> str:
    """A payload of the same form; what is no JSON becomes a text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return json.dumps(_text(text))
    return json.dumps(_shape(value), separators=(",", ":"), ensure_ascii=False)


def _shape(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, dict):
        return {key: _shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_shape(one) for one in value]
    return 0 if isinstance(value, int) else 0.0


def _text(text: str) -> str:
    return "x" * len(text)
