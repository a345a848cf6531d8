"""From history to status: the one table, and the fold that every reader and writer of a status uses.

A status is never written by anything else.  `project` takes the projection of the events before and the
events that come, so that neither a live session nor a reader needs the whole history; folding in any
number of steps gives the same as folding at once (the conformance suite checks it).
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

import msgspec

from . import events as ev
from .errors import InvariantBroken


class Status(IntEnum):
    """The family's runtime statuses, with its numbers."""

    RUNNING = 0
    COMPLETED = 1
    CONTINUED_AS_NEW = 2
    FAILED = 3
    CANCELED = 4
    TERMINATED = 5
    PENDING = 6
    SUSPENDED = 7

    @property
    def is_terminal(self) -> bool:
        """True for a status that only a rewind, a restart, a replacing start or a purge can change."""
        return self in TERMINAL


TERMINAL = frozenset((Status.COMPLETED, Status.FAILED, Status.CANCELED, Status.TERMINATED))

_LIVE = (Status.RUNNING, Status.SUSPENDED)
_KEEPS = {status: status for status in _LIVE}
_ANY = "as the event says"

TRANSITIONS: dict[type[ev.HistoryEvent], dict[Status, Status | str]] = {
    ev.ExecutionStarted: {Status.PENDING: Status.RUNNING},
    ev.ExecutionSuspended: {Status.RUNNING: Status.SUSPENDED},
    ev.ExecutionResumed: {Status.SUSPENDED: Status.RUNNING},
    ev.ExecutionCompleted: {status: _ANY for status in _LIVE},
    ev.ExecutionFailed: {status: Status.FAILED for status in _LIVE},
    ev.ExecutionRewound: {**_KEEPS},
    ev.ExecutionTerminated: {**_KEEPS},
    ev.TaskScheduled: {**_KEEPS},
    ev.TaskCompleted: {**_KEEPS},
    ev.TaskFailed: {**_KEEPS},
    ev.SubOrchestrationInstanceCreated: {**_KEEPS},
    ev.SubOrchestrationInstanceCompleted: {**_KEEPS},
    ev.SubOrchestrationInstanceFailed: {**_KEEPS},
    ev.TimerCreated: {**_KEEPS},
    ev.TimerFired: {**_KEEPS},
    ev.EventSent: {**_KEEPS},
    ev.EventRaised: {**_KEEPS},
    ev.ContinueAsNew: {**_KEEPS},
    ev.GenericEvent: {status: status for status in Status},
    ev.HistoryState: {status: status for status in Status},
    ev.OrchestratorStarted: {status: status for status in (Status.PENDING, *_LIVE)},
    ev.OrchestratorCompleted: {status: status for status in Status},
}
"""Event × status before → status after.  A pair that does not stand here cannot occur in a valid history."""


class Condition(msgspec.Struct, frozen=True, omit_defaults=True):
    """What keeps an instance from going on, kept apart from its runtime status.

    `kind` is `held` (the code no longer fits the history) or `no worker` (nobody has the code); `reason`
    says why in words, `since` from when.
    """

    kind: str
    reason: str
    since: ev.Ticks = 0


class Projection(msgspec.Struct, kw_only=True):
    """The status of an instance as its commits tell it; a value: copied before it is changed.

    Payloads are JSON texts.  Times are `Ticks`.  `custom_status` is carried here and set by commits, since
    no event holds it.
    """

    instance_id: str
    execution_id: str
    name: str
    version: str | None = None
    status: Status = Status.PENDING
    input: str | None = None
    output: str | None = None
    failure: ev.FailureDetails | None = None
    custom_status: str | None = None
    created_at: ev.Ticks = 0
    last_updated_at: ev.Ticks = 0
    completed_at: ev.Ticks | None = None
    scheduled_start: ev.Ticks | None = None
    parent: ev.ParentInstance | None = None
    tags: dict[str, str] | None = None
    generation: int = 0

    def copy(self) -> "Projection":
        """A value of its own, to be changed."""
        # The struct's own way, a good deal faster than copy.copy.
        return self.__copy__()  # type: ignore[attr-defined,no-any-return]


def _started(p: Projection, e: Any) -> None:
    p.status = Status.RUNNING
    p.instance_id, p.execution_id = e.instance_id, e.execution_id
    p.name, p.version, p.input = e.name, e.version, e.input
    p.parent, p.tags, p.generation = e.parent, e.tags, e.generation
    p.scheduled_start = e.scheduled_start
    p.output = p.failure = p.completed_at = None


def _completed(p: Projection, e: Any) -> None:
    p.status = Status(e.status)
    p.output, p.failure, p.completed_at = e.result, e.failure, e.timestamp


def _failed(p: Projection, e: Any) -> None:
    p.status, p.failure, p.completed_at = Status.FAILED, e.failure, e.timestamp


def _suspended(p: Projection, e: Any) -> None:
    p.status = Status.SUSPENDED


def _resumed(p: Projection, e: Any) -> None:
    p.status = Status.RUNNING


_EFFECTS: dict[type, Callable[[Projection, Any], None]] = {
    ev.ExecutionStarted: _started,
    ev.ExecutionCompleted: _completed,
    ev.ExecutionFailed: _failed,
    ev.ExecutionSuspended: _suspended,
    ev.ExecutionResumed: _resumed,
}


def project(before: Projection, events: Sequence[ev.HistoryEvent]) -> Projection:
    """The projection after `events`, given the one `before` them; `before` is not changed.

    Raises InvariantBroken where an event cannot come in that status (`TRANSITIONS`).
    """
    after = before.copy()
    status = before.status
    for event in events:
        kind = type(event)
        if status not in TRANSITIONS[kind]:
            raise InvariantBroken(
                f"instance {before.instance_id!r}: {kind.__name__} cannot come while the status is {status.name}"
            )
        effect = _EFFECTS.get(kind)
        if effect is not None:
            effect(after, event)
            status = after.status
    if events:
        after.last_updated_at = events[-1].timestamp
    return after


def rewinding(failed: Projection, now: ev.Ticks) -> Projection:
    """The projection of a failed execution whose rewind was asked for at `now` and is not done yet: Pending.

    No event says so, since the history is replaced when the rewind is done; the instance record does.
    """
    after = failed.copy()
    after.status = Status.PENDING
    after.output = after.failure = after.completed_at = None
    after.last_updated_at = now
    return after


def initial(started: ev.ExecutionStarted) -> Projection:
    """The projection of an instance that has been accepted and has no history yet: Pending."""
    return Projection(
        instance_id=started.instance_id,
        execution_id=started.execution_id,
        name=started.name,
        version=started.version,
        input=started.input,
        created_at=started.timestamp,
        last_updated_at=started.timestamp,
        scheduled_start=started.scheduled_start,
        parent=started.parent,
        tags=started.tags,
        generation=started.generation,
    )
