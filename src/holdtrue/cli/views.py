"""How an instance looks: its status and history as JSON documents, as fields, as lines of a tree.

From values to values; nothing here asks a hub or prints.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from holdtrue.cli.output import Cell, exact, instant, shorten
from holdtrue.core import events as ev
from holdtrue.core.dialect import to_datetime
from holdtrue.core.projection import Status

if TYPE_CHECKING:
    from holdtrue.client.status import ActivityProgress, InstanceStatus

STATUS_NAMES: dict[Status, str] = {
    Status.RUNNING: "Running",
    Status.COMPLETED: "Completed",
    Status.CONTINUED_AS_NEW: "ContinuedAsNew",
    Status.FAILED: "Failed",
    Status.CANCELED: "Canceled",
    Status.TERMINATED: "Terminated",
    Status.PENDING: "Pending",
    Status.SUSPENDED: "Suspended",
}
"""The family's spelling of the runtime statuses."""

_STYLES = {
    Status.RUNNING: "cyan",
    Status.COMPLETED: "green",
    Status.FAILED: "red",
    Status.TERMINATED: "yellow",
    Status.CANCELED: "yellow",
    Status.SUSPENDED: "magenta",
}

WAITS_SHOWN = 20
"""Open waits that are shown without `--full`."""

PAYLOAD_WIDTH = 100
"""Characters of a payload that are shown without `--full`."""

_TICK_MEMBERS = frozenset(("timestamp", "fire_at", "scheduled_start"))
_PAYLOAD_MEMBERS = frozenset(("input", "result"))
_QUIET_EVENTS = (ev.OrchestratorStarted, ev.OrchestratorCompleted)


def payload(text: str | None) -> Any:
    """A payload for a JSON document: its JSON exactly as it stands; a text that is not JSON, as a string."""
    if text is None:
        return None
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    # A document is one line; line breaks in JSON stand only between its parts.
    return msgspec.Raw(text.replace("\r", " ").replace("\n", " ").encode())


def failure_document(failure: ev.FailureDetails | None) -> dict[str, Any] | None:
    """A failure with its causes."""
    if failure is None:
        return None
    return {
        "type": failure.error_type,
        "message": failure.message,
        "stack_trace": failure.stack_trace,
        "non_retriable": failure.is_non_retriable,
        "properties": failure.properties,
        "cause": failure_document(failure.inner_failure),
    }


def status_document(status: "InstanceStatus", *, waits: bool = False) -> dict[str, Any]:
    """An instance's status; `waits` adds what it waits for, and its outstanding activities."""
    condition = status.condition
    document: dict[str, Any] = {
        "instance_id": status.instance_id,
        "execution_id": status.execution_id,
        "name": status.name,
        "version": status.version,
        "status": STATUS_NAMES[status.runtime_status],
        "condition": None
        if condition is None
        else {
            "kind": condition.kind,
            "reason": condition.reason,
            "since": exact(to_datetime(condition.since)) if condition.since else None,
        },
        "created_at": exact(status.created_at),
        "last_updated_at": exact(status.last_updated_at),
        "completed_at": exact(status.completed_at),
        "scheduled_start": exact(status.scheduled_start),
        "deadline": exact(status.deadline),
        "input": payload(status.serialized_input),
        "output": payload(status.serialized_output),
        "custom_status": payload(status.serialized_custom_status),
        "failure": failure_document(status.failure),
        "tags": status.tags or {},
        "parent_instance_id": status.parent_instance_id,
        "history_size": status.history_size,
    }
    if waits:
        document["waits_for"] = list(status.waits_for)
        document["activities"] = [
            {
                "task_id": activity.task_id,
                "name": activity.name,
                "running": activity.running,
                "run": activity.run,
                "progress": activity.progress,
                "heartbeat_at": exact(activity.heartbeat_at),
            }
            for activity in status.progress
        ]
    return document


def status_cell(status: "InstanceStatus") -> Cell:
    """The runtime status with its condition, as in `Running (held)`."""
    text = STATUS_NAMES[status.runtime_status]
    if status.condition is not None:
        return f"{text} ({status.condition.kind})", "bold yellow"
    return text, _STYLES.get(status.runtime_status, "")


def status_fields(status: "InstanceStatus", *, full: bool) -> list[tuple[str, Cell]]:
    """An instance's status as names and values; payloads whole with `full`."""

    def shown(text: str | None) -> str:
        return "" if text is None else text if full else shorten(text, PAYLOAD_WIDTH)

    fields: list[tuple[str, Cell]] = [
        ("Instance", (status.instance_id, "bold")),
        ("Execution", status.execution_id),
        ("Orchestration", status.name + (f" (version {status.version})" if status.version else "")),
        ("Status", status_cell(status)),
    ]
    if status.condition is not None:
        since = f" (since {instant(to_datetime(status.condition.since))})" if status.condition.since else ""
        fields.append(("Condition", f"{status.condition.kind}: {status.condition.reason}{since}"))
    fields += [
        ("Created", instant(status.created_at)),
        ("Starts", instant(status.scheduled_start)),
        ("Updated", instant(status.last_updated_at)),
        ("Ended", instant(status.completed_at)),
        ("Deadline", instant(status.deadline)),
        ("Parent", status.parent_instance_id or ""),
        ("Tags", ", ".join(f"{key}={value}" for key, value in (status.tags or {}).items())),
        ("Input", shown(status.serialized_input)),
        ("Output", shown(status.serialized_output)),
        ("Custom status", shown(status.serialized_custom_status)),
    ]
    failure, label = status.failure, "Failure"
    while failure is not None:
        fields.append((label, (f"{failure.error_type}: {failure.message}", "red")))
        if full and failure.stack_trace:
            fields += [("Trace" if not i else "", line) for i, line in enumerate(failure.stack_trace.splitlines())]
        failure, label = failure.inner_failure, "Cause"
    most = None if full else WAITS_SHOWN
    fields += [("Waits for", wait) for wait in status.waits_for[:most]]
    if len(status.waits_for) > len(status.waits_for[:most]):
        fields.append(("", f"… {len(status.waits_for) - WAITS_SHOWN} more (--full shows all)"))
    fields += [("Activity", shown(_activity_line(activity))) for activity in _telling(status.progress)[:most]]
    return fields


def _telling(activities: "Sequence[ActivityProgress]") -> "list[ActivityProgress]":
    """Activities that say more than that they are open: they report, or run again."""
    return [one for one in activities if one.progress is not None or one.heartbeat_at is not None or one.run > 1]


def _activity_line(activity: "ActivityProgress") -> str:
    parts = [f"{activity.name} #{activity.task_id}", f"run {activity.run}"]
    if activity.heartbeat_at is not None:
        parts.append(f"heartbeat {instant(activity.heartbeat_at)}")
    if activity.progress is not None:
        parts.append(f"progress {msgspec.json.encode(activity.progress).decode()}")
    return ", ".join(parts)


def event_document(event: ev.HistoryEvent) -> dict[str, Any]:
    """An event as a JSON document: its type, its time, and the members that are set."""
    document: dict[str, Any] = {"type": type(event).__name__}
    for member in type(event).__struct_fields__:
        value = getattr(event, member)
        if value is None or (member == "event_id" and value < 0):
            continue
        if member in _TICK_MEMBERS:
            value = exact(to_datetime(value))
        elif member in _PAYLOAD_MEMBERS:
            value = payload(value)
        elif isinstance(value, ev.FailureDetails):
            value = failure_document(value)
        elif member == "status":
            value = STATUS_NAMES[Status(value)]
        elif isinstance(value, msgspec.Struct):
            value = msgspec.to_builtins(value)
        document[member] = value
    return document


class EventLines:
    """Turns the events of one history, given in order, into lines; keeps the names of tasks for their results."""

    def __init__(self, *, full: bool) -> None:
        self._full = full
        self._names: dict[int, str] = {}

    def line(self, event: Any) -> Cell | None:
        """The line of the next event; None for one that only `full` shows."""
        if not self._full and isinstance(event, _QUIET_EVENTS):
            return None
        kind = type(event)
        name = getattr(event, "name", None)
        if isinstance(event, ev.SCHEDULING_EVENTS):
            self._names[event.event_id] = name or "timer"
        task = getattr(event, "task_scheduled_id", getattr(event, "timer_id", None))
        parts = [instant(to_datetime(event.timestamp)), kind.__name__]
        if event.event_id >= 0:
            parts.append(f"#{event.event_id}")
        if task is not None:
            parts += [f"#{task}", self._names.get(task, "")]
        if name:
            parts.append(name)
        parts += list(self._details(event))
        failed = getattr(event, "failure", None) is not None
        return " ".join(part for part in parts if part), "red" if failed else ""

    def _details(self, event: Any) -> Iterable[str]:
        if isinstance(event, ev.SubOrchestrationInstanceCreated | ev.EventSent):
            yield f"[{event.instance_id}]"
        if isinstance(event, ev.ExecutionCompleted):
            yield STATUS_NAMES[Status(event.status)]
        if isinstance(event, ev.TimerCreated):
            yield f"until {instant(to_datetime(event.fire_at))}"
        for member in ("input", "result", "reason", "data"):
            text = getattr(event, member, None)
            if text is not None:
                yield ("= " if member == "result" else "") + self._shown(text)
        failure = getattr(event, "failure", None)
        if failure is not None:
            yield self._shown(f"{failure.error_type}: {failure.message}")

    def _shown(self, text: str) -> str:
        return text if self._full else shorten(text, PAYLOAD_WIDTH)
