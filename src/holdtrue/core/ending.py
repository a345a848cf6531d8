"""Ends that come from outside: terminate, deadline and cancel, as far as they need no code.

A running execution's code gets them fed (`replay`); these are for one whose code has not begun, or cannot
be run because it no longer fits its history.
"""

from typing import Any

from . import events as ev
from .actions import CompleteOrchestration
from .messages import CANCEL_EVENT, DEADLINE_EVENT
from .projection import Status
from .replay import CANCELLED_ERROR_TYPE, DEADLINE_ERROR_TYPE


def end_from_outside(event: Any, task_id: int, *, cancel_too: bool) -> CompleteOrchestration | None:
    """The end that this event is, as an action with that id; None if it is none.

    `cancel_too` says that a cancel ends the execution, since it has no code that could catch it.  A
    deadline's event must have been found to be the execution's own.
    """
    if isinstance(event, ev.ExecutionTerminated):
        return CompleteOrchestration(id=task_id, status=Status.TERMINATED, result=event.input)
    if not isinstance(event, ev.EventRaised):
        return None
    if event.name == DEADLINE_EVENT:
        failure = ev.FailureDetails(message="the execution's deadline has passed", error_type=DEADLINE_ERROR_TYPE)
        return CompleteOrchestration(id=task_id, status=Status.FAILED, failure=failure)
    if event.name == CANCEL_EVENT and cancel_too:
        failure = ev.FailureDetails(message=f"cancelled: {event.input}", error_type=CANCELLED_ERROR_TYPE)
        return CompleteOrchestration(id=task_id, status=Status.TERMINATED, failure=failure)
    return None
