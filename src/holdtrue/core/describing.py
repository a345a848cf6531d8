"""Actions and events in a few words, for messages to people."""

from typing import Any

from .actions import Action, CreateSubOrchestration, CreateTimer, ScheduleTask, SendEvent


def describe(action: Action) -> str:
    """An action in a few words, for messages."""
    match action:
        case ScheduleTask():
            return f"activity {action.name!r} (task {action.id})"
        case CreateSubOrchestration():
            return f"sub-orchestration {action.name!r} as {action.instance_id!r} (task {action.id})"
        case CreateTimer():
            return f"a timer (task {action.id})"
        case SendEvent():
            return f"event {action.name!r} to {action.instance_id!r} (task {action.id})"
        case _:
            return "the end"


def describe_event(event: Any) -> str:
    """A step of history in a few words, for messages."""
    name = getattr(event, "name", None)
    target = getattr(event, "instance_id", None)
    words = type(event).__name__
    if name is not None:
        words += f" {name!r}"
    if target is not None:
        words += f" to {target!r}"
    return words if event.event_id < 0 else f"{words} (task {event.event_id})"
