"""The history of an orchestration, as typed immutable values.

Every event of the Durable Task family stands here with the family's number and members (source: the
Azure Storage provider's rows, `docs/reference/history.md`).  This module holds data only: what an event
does to a status stands in `projection`, what it does to running code in `replay`.

Units: a `Ticks` is a count of 100 ns since 1970-01-01 UTC, .NET's own resolution, so that a history
written there comes back unchanged.  Payloads are JSON texts or None (none given, which is not `null`).

Entity traffic has no event types of its own in storage.  The SDK's protocol has seven, translated so at
its edge: entityOperationCalled, entityOperationSignaled, entityLockRequested and entityUnlockSent become
`EventSent` to the entity's instance (name `op`, or `release`; input: the request as JSON);
entityOperationCompleted, entityOperationFailed and entityLockGranted become `EventRaised` to the caller,
named by the request's id.
"""

from typing import Any

import msgspec

Ticks = int
"""100 ns since 1970-01-01 UTC."""


def qualified_name(error_type: type) -> str:
    """The name under which an error's class is recorded: module and qualified name.

    Holdtrue's own classes go by their public name (`holdtrue.TaskFailedError`), wherever they stand.
    """
    module = error_type.__module__
    if module.startswith("holdtrue."):
        module = "holdtrue"
    return f"{module}.{error_type.__qualname__}"


TICKS_PER_SECOND = 10_000_000
TICKS_PER_MICROSECOND = 10
MAX_TICKS = 253_402_300_800 * TICKS_PER_SECOND - 1
"""The end of the year 9999: the latest time that a history can hold."""
MIN_TICKS = -62_135_596_800 * TICKS_PER_SECOND
"""The beginning of the year 1: what lies before is as good as then."""


class FailureDetails(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a task or an orchestration failed, kept whole across every boundary.

    `error_type` is the module-qualified name of the error's class, `stack_trace` the text of its trace,
    `inner_failure` its cause, `properties` what the error itself adds (JSON values).
    """

    message: str
    error_type: str
    stack_trace: str | None = None
    inner_failure: "FailureDetails | None" = None
    properties: dict[str, Any] | None = None
    is_non_retriable: bool = False

    def is_caused_by(self, error_type: str | type[BaseException]) -> bool:
        """True if the failure's own type is `error_type` (inner failures are not looked at).

        A class stands for itself and its subclasses that the process has loaded, a text for the name,
        qualified or not.  Nothing is imported.  Raises TypeError for anything else.
        """
        if isinstance(error_type, str):
            return _names_match(self.error_type, error_type)
        if not (isinstance(error_type, type) and issubclass(error_type, BaseException)):
            raise TypeError(f"is_caused_by takes an exception class or its name, not {error_type!r}")
        seen: set[type] = set()
        todo: list[type] = [error_type]
        while todo:
            candidate = todo.pop()
            if candidate in seen:
                continue
            seen.add(candidate)
            name = qualified_name(candidate)
            if self.error_type == name or ("." not in self.error_type and self.error_type == name.rpartition(".")[2]):
                return True
            todo += candidate.__subclasses__()
        return False


def _names_match(recorded: str, asked: str) -> bool:
    """Two qualified names must be equal; where one is bare, the last parts must be."""
    if not recorded or not asked:
        return False
    if recorded == asked:
        return True
    if "." in recorded and "." in asked:
        return False
    return recorded.rpartition(".")[2] == asked.rpartition(".")[2]


class ParentInstance(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who started a sub-orchestration, and under which of its tasks.

    `scheduled` is the ordinal of the parent's SubOrchestrationInstanceCreated: a task id may come again.
    """

    instance_id: str
    execution_id: str
    task_id: int
    scheduled: int
    name: str = ""
    version: str | None = None


class HistoryEvent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False, tag_field="e"):
    """One row of a history; `event_id` is the task id of what was scheduled, -1 for all else."""

    timestamp: Ticks = msgspec.field(name="at")
    event_id: int = msgspec.field(name="id", default=-1)


class ExecutionStarted(HistoryEvent, frozen=True, gc=False, tag=0):
    """An execution begins: its identity, its input, and who asked for it."""

    instance_id: str
    execution_id: str
    name: str
    input: str | None = None
    version: str | None = None
    parent: ParentInstance | None = None
    tags: dict[str, str] | None = None
    scheduled_start: Ticks | None = None
    generation: int = 0
    correlation: str | None = None
    parent_trace_context: str | None = None


class ExecutionCompleted(HistoryEvent, frozen=True, gc=False, tag=1):
    """The end of an execution; `status` is the number of Completed, Failed, Canceled or Terminated."""

    status: int
    result: str | None = None
    failure: FailureDetails | None = None


class ExecutionFailed(HistoryEvent, frozen=True, gc=False, tag=2):
    """An end in failure, as very old hubs wrote it; new ones write ExecutionCompleted."""

    failure: FailureDetails | None = None


class ExecutionTerminated(HistoryEvent, frozen=True, gc=False, tag=3):
    """Somebody ended the execution from outside; the ExecutionCompleted follows in the same episode.

    With `recurse` (the SDK's protocol has it) it goes on to the children outstanding then; what they get names
    the `parent_execution` that it comes from.
    """

    input: str | None = None
    recurse: bool = False
    parent_execution: str | None = None


class TaskScheduled(HistoryEvent, frozen=True, gc=False, tag=4):
    """An activity was asked for."""

    name: str
    input: str | None = None
    version: str | None = None
    tags: dict[str, str] | None = None


class TaskCompleted(HistoryEvent, frozen=True, gc=False, tag=5):
    """An activity's result."""

    task_scheduled_id: int = msgspec.field(name="task")
    result: str | None = None


class TaskFailed(HistoryEvent, frozen=True, gc=False, tag=6):
    """An activity's failure."""

    task_scheduled_id: int = msgspec.field(name="task")
    failure: FailureDetails | None = None


class SubOrchestrationInstanceCreated(HistoryEvent, frozen=True, gc=False, tag=7):
    """A child was asked for, under this instance id."""

    name: str
    instance_id: str
    input: str | None = None
    version: str | None = None
    tags: dict[str, str] | None = None


class SubOrchestrationInstanceCompleted(HistoryEvent, frozen=True, gc=False, tag=8):
    """A child's output."""

    task_scheduled_id: int = msgspec.field(name="task")
    result: str | None = None


class SubOrchestrationInstanceFailed(HistoryEvent, frozen=True, gc=False, tag=9):
    """A child's failure (its termination and cancellation too)."""

    task_scheduled_id: int = msgspec.field(name="task")
    failure: FailureDetails | None = None


class TimerCreated(HistoryEvent, frozen=True, gc=False, tag=10):
    """A durable timer was set."""

    fire_at: Ticks


class TimerFired(HistoryEvent, frozen=True, gc=False, tag=11):
    """A durable timer's time has come."""

    timer_id: int = msgspec.field(name="timer")
    fire_at: Ticks


class OrchestratorStarted(HistoryEvent, frozen=True, gc=False, tag=12):
    """An episode begins; its timestamp is the orchestration's own time in it."""


class OrchestratorCompleted(HistoryEvent, frozen=True, gc=False, tag=13):
    """An episode's rows end."""


class EventSent(HistoryEvent, frozen=True, gc=False, tag=14):
    """An event was sent to another instance."""

    instance_id: str
    name: str
    input: str | None = None


class EventRaised(HistoryEvent, frozen=True, gc=False, tag=15):
    """An event came in."""

    name: str
    input: str | None = None
    parent_trace_context: str | None = None


class ContinueAsNew(HistoryEvent, frozen=True, gc=False, tag=16):
    """Has a number in the family, and reaches no store: a new execution's rows take its place."""

    input: str | None = None


class GenericEvent(HistoryEvent, frozen=True, gc=False, tag=17):
    """A row without effect: .NET leaves these where a rewind took something out."""

    data: str | None = None


class HistoryState(HistoryEvent, frozen=True, gc=False, tag=18):
    """Has a number in the family; written by no known provider."""

    state: str | None = None


class ExecutionSuspended(HistoryEvent, frozen=True, gc=False, tag=19):
    """The execution rests: what comes is kept until it is resumed."""

    reason: str | None = None


class ExecutionResumed(HistoryEvent, frozen=True, gc=False, tag=20):
    """The execution goes on."""

    reason: str | None = None


class ExecutionRewound(HistoryEvent, frozen=True, gc=False, tag=21):
    """A failed execution is set back to before its failure."""

    reason: str | None = None
    parent_execution_id: str | None = None
    instance_id: str | None = None
    parent_trace_context: str | None = None


AnyEvent = (
    ExecutionStarted
    | ExecutionCompleted
    | ExecutionFailed
    | ExecutionTerminated
    | TaskScheduled
    | TaskCompleted
    | TaskFailed
    | SubOrchestrationInstanceCreated
    | SubOrchestrationInstanceCompleted
    | SubOrchestrationInstanceFailed
    | TimerCreated
    | TimerFired
    | OrchestratorStarted
    | OrchestratorCompleted
    | EventSent
    | EventRaised
    | ContinueAsNew
    | GenericEvent
    | HistoryState
    | ExecutionSuspended
    | ExecutionResumed
    | ExecutionRewound
)

EVENT_TYPES: tuple[type[HistoryEvent], ...] = tuple(AnyEvent.__args__)
"""The event classes; the index of each is the family's number for it."""

SCHEDULING_EVENTS = (TaskScheduled, SubOrchestrationInstanceCreated, TimerCreated)
"""Events that open a task; its `event_id` is the task id."""

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[list[AnyEvent]] = msgspec.json.Decoder(list[AnyEvent])
_one: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)

encode_events = _encoder.encode
"""A list of events (or one) as JSON bytes: the form in which stores of ours keep them."""


def decode_events(data: bytes | str) -> list[AnyEvent]:
    """The events that `encode_events` wrote.

    Raises msgspec.DecodeError (ValidationError for an unknown event) where the text is not a history.
    """
    return _decoder.decode(data)


def decode_event(data: bytes | str) -> AnyEvent:
    """One event that `encode_events` wrote; raises msgspec.DecodeError where it is none."""
    return _one.decode(data)
