"""What travels to and from an instance: messages in, messages out, work items, starts.

Plain immutable values.  How a store keeps them is its own affair; a store's own reference to a message or
a work item travels along as an opaque `key`.
"""

from typing import Any

import msgspec

from .actions import ActivityOptions
from .events import AnyEvent, HistoryEvent, Ticks

CANCEL_EVENT = "holdtrue:cancel"
"""Cancel has no event in the family; it travels as an EventRaised of this name."""
DEADLINE_EVENT = "holdtrue:deadline"
"""The execution's deadline has come; as above. Its input is the deadline in ticks, so that a stale one shows."""
START_LIMIT_EVENT = "holdtrue:start limit"
"""An activity's schedule_to_start is over; as above.  Its message names the schedule by ordinal, its input is the limit
in seconds.  Who delivers it looks whether the activity was ever begun: it is then the failure, or nothing at all; it
never stands in a history."""
RESERVED_PREFIX = "holdtrue:"
"""Event names that begin so are Holdtrue's own; clients and orchestrations cannot raise them."""


class WorkRef(msgspec.Struct, frozen=True, gc=False):
    """A store's name for an activity's work item, and the token under which it is held."""

    key: int
    token: int


class InboundMessage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A message for an instance.

    `key` is the store's name for it (None for the result of an activity that this host ran, which comes
    with `work` instead: result and episode are one commit).  `execution_id` names the execution that it is
    for (None: whichever is current).  `scheduled` is the ordinal of the event that it answers: a task id
    may come again, an ordinal does not.
    """

    event: HistoryEvent
    key: int | None = None
    execution_id: str | None = None
    scheduled: int | None = None
    work: WorkRef | None = None


class OutboundMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A message to an instance, to be delivered not before `due` (None: at once).

    `sender` is the instance that sends it, for dead letters and traces.
    """

    instance_id: str
    event: AnyEvent
    execution_id: str | None = None
    scheduled: int | None = None
    due: Ticks | None = None
    sender: str | None = None


class ActivityTask(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An activity to be run at least once; `scheduled` is the ordinal of its TaskScheduled.

    `idempotency_key` is the same at every run of one call, and another for each call.
    """

    instance_id: str
    execution_id: str
    task_id: int
    scheduled: int
    name: str
    input: str | None = None
    version: str | None = None
    tags: dict[str, str] | None = None
    options: ActivityOptions | None = None

    @property
    def idempotency_key(self) -> str:
        """Stable over every run of every attempt: the execution, and the ordinal of the first attempt's schedule."""
        first = None if self.options is None else self.options.first
        return f"{self.execution_id}:{self.scheduled if first is None else first}"


class Start(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A new execution to be created; `started` becomes its first event.

    `start_id` makes a repeated start the same start.  `deadline` ends the execution as Failed at that
    time.  `dialect` is recorded with the instance.  `event` is delivered right after the start.
    """

    started: "Any"
    start_id: str
    dialect: str = "dotnet"
    deadline: Ticks | None = None
    event: OutboundMessage | None = None


class Dropped(msgspec.Struct, frozen=True, gc=False):
    """A message that came too late by nature: counted under `reason`, then forgotten."""

    reason: str
    event: HistoryEvent


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A message that could not be handled; kept with its reason until it is sent again or dismissed."""

    instance_id: str
    reason: str
    message: OutboundMessage
