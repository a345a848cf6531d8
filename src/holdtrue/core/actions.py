"""What an orchestrator asks for: the actions of one episode, as immutable values.

An executor (a live coroutine here, a remote worker over gRPC) turns events into these; `episode` turns
them into history events and work.  This module knows neither.
"""

import msgspec

from .events import FailureDetails, HistoryEvent, Ticks


class ActivityOptions(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How an activity's work item is to be run; no event holds this, the work item does.

    Time-outs are in seconds: `schedule_to_start` bounds the wait for a worker, `start_to_close` one
    attempt's run, `heartbeat` the time between two signs of life.  `tag` routes to workers that serve it.
    `attempt` counts those of a retry policy, `details` is what the attempt before reported (JSON text), and
    `first` the ordinal of the TaskScheduled of the first attempt (None: this is it).
    """

    start_to_close: float | None = None
    schedule_to_start: float | None = None
    heartbeat: float | None = None
    tag: str | None = None
    attempt: int = 1
    details: str | None = None
    first: int | None = None


class ScheduleTask(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Run an activity; `retries` is the task id of the first attempt where this is a further one."""

    id: int
    name: str
    input: str | None = None
    version: str | None = None
    tags: dict[str, str] | None = None
    options: ActivityOptions | None = None
    retries: int | None = None


class CreateTimer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Wake me at this time."""

    id: int
    fire_at: Ticks


class CreateSubOrchestration(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Start a child and tell me its output."""

    id: int
    name: str
    instance_id: str
    input: str | None = None
    version: str | None = None
    tags: dict[str, str] | None = None


class SendEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Raise an event on another instance."""

    id: int
    instance_id: str
    name: str
    input: str | None = None


class CompleteOrchestration(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The code has ended: `status` is a `projection.Status` number (Completed, Failed, ContinuedAsNew, Terminated).

    For ContinuedAsNew `result` is the next input, `carryover` the events fed to the code and still
    buffered that it wants to keep, in order.
    """

    id: int
    status: int
    result: str | None = None
    failure: FailureDetails | None = None
    new_version: str | None = None
    carryover: tuple[tuple[str, str | None], ...] = ()


Action = ScheduleTask | CreateTimer | CreateSubOrchestration | SendEvent | CompleteOrchestration


class Decision(msgspec.Struct, kw_only=True, gc=False):
    """An executor's answer to one batch of events.

    `fed` says how many of the new events the code has seen: what comes after a continue-as-new or an end
    in the same batch was not fed.  `custom_status` is meaningful where `custom_status_set` is true.
    `cancelled` names the task ids that the code has cancelled and whose schedule was committed before.
    `unfed` are events that the history has already and the code had not seen when it asked to continue as
    new (a suspension kept them back, or they began an execution that had not run yet): they go over.
    """

    actions: list[Action]
    fed: int
    custom_status: str | None = None
    custom_status_set: bool = False
    cancelled: tuple[int, ...] = ()
    unfed: tuple[HistoryEvent, ...] = ()
