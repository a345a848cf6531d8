"""The status of an instance as a client gives it: what is committed, made readable.

Nothing here decides a status; `core.projection` does.  Payloads are decoded when they are asked for.
"""

from collections.abc import AsyncIterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from holdtrue.core import events as ev
from holdtrue.core.dialect import to_datetime
from holdtrue.core.projection import TERMINAL, Condition, Status
from holdtrue.stores.protocol import ActivityInfo, InstanceRecord

from .errors import OrchestrationFailedError
from .local import Payloads, Program

NO_WORKER = "no worker"
"""The kind of the condition of what nobody alive has the code for."""
IMPORTED = "imported"
"""The kind of the condition of what was imported to be looked at."""


class ActivityProgress(msgspec.Struct, frozen=True, kw_only=True):
    """An outstanding activity: `run` counts its runs, `progress` is its own last word."""

    task_id: int
    name: str
    running: bool
    run: int
    progress: Any = None
    heartbeat_at: datetime | None = None


class InstanceStatus:
    """An instance as it was committed when it was read.  Times are aware, in UTC.

    `input`, `output` and `custom_status` are decoded at each access (by the orchestrator's type hints where
    the client has the app) and may raise PayloadError; the `serialized_` ones are the JSON texts.
    `waits_for` and `progress` are filled where the status was asked for with `waits=True`.
    """

    __slots__ = ("_condition", "_payloads", "_program", "progress", "record", "waits_for")

    def __init__(self, record: InstanceRecord, payloads: Payloads, program: Program | None) -> None:
        self.record = record
        self.waits_for: list[str] = []
        self.progress: list[ActivityProgress] = []
        self._payloads = payloads
        self._program = program
        self._condition = record.condition

    # -- who ------------------------------------------------------------------------------------------

    @property
    def instance_id(self) -> str:
        """Its id."""
        return self.record.projection.instance_id

    @property
    def execution_id(self) -> str:
        """The id of its current execution: another one after each start, restart and continue-as-new."""
        return self.record.projection.execution_id

    @property
    def name(self) -> str:
        """The orchestration's name."""
        return self.record.projection.name

    @property
    def version(self) -> str | None:
        """The version it was started with."""
        return self.record.projection.version

    @property
    def tags(self) -> dict[str, str]:
        """Its tags."""
        return self.record.projection.tags or {}

    @property
    def parent_instance_id(self) -> str | None:
        """The instance that started it as a sub-orchestration."""
        parent = self.record.projection.parent
        return None if parent is None else parent.instance_id

    @property
    def verified(self) -> bool:
        """False where it was listed with `verified=False`, from a row that may be behind."""
        return self.record.verified

    # -- how it stands ----------------------------------------------------------------------------------

    @property
    def runtime_status(self) -> Status:
        """Pending, Running, Suspended, Completed, Failed or Terminated."""
        return self.record.projection.status

    @property
    def has_ended(self) -> bool:
        """True once it is Completed, Failed or Terminated."""
        return self.record.projection.status in TERMINAL

    @property
    def condition(self) -> Condition | None:
        """What keeps it from going on: `held` with the reason; `no worker` for it or (with waits) its activities; or
        that it was `imported` to be looked at."""
        if self.record.at_rest:
            return Condition(
                kind=IMPORTED,
                reason="it was imported to be looked at, and takes no step"
                + (f" (where it comes from it is {self._condition.kind})" if self._condition is not None else "")
                + ": import it again with --replace --run to let it go on, or purge it",
            )
        if self._condition is None and self.record.waits_for_worker and not self.has_ended:
            return Condition(kind=NO_WORKER, reason=f"no worker alive has the orchestration {self.name!r}")
        return self._condition

    @property
    def failure(self) -> ev.FailureDetails | None:
        """Why it failed (or was cancelled)."""
        return self.record.projection.failure

    @property
    def history_size(self) -> int:
        """Events in the history of the current execution."""
        return self.record.length

    # -- when --------------------------------------------------------------------------------------------

    @property
    def created_at(self) -> datetime:
        """When it was first started."""
        return _aware(self.record.projection.created_at)

    @property
    def last_updated_at(self) -> datetime:
        """When it last committed something."""
        return _aware(self.record.projection.last_updated_at)

    @property
    def completed_at(self) -> datetime | None:
        """When it ended."""
        return _aware_or_none(self.record.projection.completed_at)

    @property
    def scheduled_start(self) -> datetime | None:
        """The time that it was asked to start at, if it was."""
        return _aware_or_none(self.record.projection.scheduled_start)

    @property
    def deadline(self) -> datetime | None:
        """When it fails if it has not ended by then."""
        return _aware_or_none(self.record.deadline)

    # -- payloads ----------------------------------------------------------------------------------------

    @property
    def serialized_input(self) -> str | None:
        """The input as JSON text."""
        return self.record.projection.input

    @property
    def serialized_output(self) -> str | None:
        """The output as JSON text (what a terminate gave, for a terminated one)."""
        return self.record.projection.output

    @property
    def serialized_custom_status(self) -> str | None:
        """The custom status as JSON text."""
        return self.record.projection.custom_status

    @property
    def input(self) -> Any:
        """The input."""
        return self._payloads.decode(self.serialized_input, self._type("input_type"))

    @property
    def output(self) -> Any:
        """The output; of one that did not complete what the terminate gave, or None."""
        known = self._type("output_type") if self.runtime_status is Status.COMPLETED else None
        return self._payloads.decode(self.serialized_output, known)

    @property
    def custom_status(self) -> Any:
        """What the orchestrator set last with `set_custom_status`."""
        return self._payloads.decode(self.serialized_custom_status, None)

    def get_output(self, expected_type: Any = None) -> Any:
        """The output as a value of this type; raises PayloadError where it does not fit."""
        if expected_type is None:
            return self.output
        return self._payloads.decode(self.serialized_output, expected_type)

    def raise_if_failed(self) -> None:
        """Raises OrchestrationFailedError if it has ended without completing (Failed or Terminated)."""
        if self.has_ended and self.runtime_status is not Status.COMPLETED:
            raise OrchestrationFailedError(self.instance_id, self.runtime_status, self.failure)

    def _type(self, which: str) -> Any:
        definition = None if self._program is None else self._program.orchestrators.get(self.name)
        return None if definition is None else getattr(definition, which, None)

    # -- what it waits for -------------------------------------------------------------------------------

    def add_waits(self, waits: list[str], activities: Sequence[ActivityInfo]) -> None:
        """Fill `waits_for` and `progress`; an activity that no worker serves becomes the condition."""
        self.waits_for = waits
        self.progress = [
            ActivityProgress(
                task_id=info.task_id,
                name=info.name,
                running=info.running,
                run=info.run,
                progress=self._payloads.decode(info.progress, None),
                heartbeat_at=_aware_or_none(info.heartbeat_at),
            )
            for info in activities
        ]
        waiting = sorted({info.name for info in activities if info.waits_for_worker})
        if waiting and self._condition is None:
            names = ", ".join(repr(name) for name in waiting)
            self._condition = Condition(kind=NO_WORKER, reason=f"no worker alive serves the activity {names}")

    def __repr__(self) -> str:
        return f"<InstanceStatus {self.instance_id!r} {self.name!r} {self.runtime_status.name}>"


async def waits(status: InstanceStatus, history: AsyncIterable[Sequence[ev.HistoryEvent]]) -> list[str]:
    """What an instance waits for, in words, derived from the open tasks of its history."""
    if status.has_ended:
        return []
    if status.runtime_status is Status.PENDING:
        start = status.scheduled_start
        if start is not None:
            return [f"its start at {start:%Y-%m-%d %H:%M:%S} UTC"]
        return ["a worker"]
    tasks: dict[int, str] = {}
    async for piece in history:
        for event in piece:
            match event:
                case ev.TaskScheduled():
                    tasks[event.event_id] = f"activity {event.name!r} (task {event.event_id})"
                case ev.SubOrchestrationInstanceCreated():
                    tasks[event.event_id] = (
                        f"sub-orchestration {event.name!r} as {event.instance_id!r} (task {event.event_id})"
                    )
                case ev.TimerCreated():
                    at = to_datetime(event.fire_at)
                    tasks[event.event_id] = f"a timer at {at:%Y-%m-%d %H:%M:%S} UTC (task {event.event_id})"
                case ev.TimerFired():
                    tasks.pop(event.timer_id, None)
                case (
                    ev.TaskCompleted()
                    | ev.TaskFailed()
                    | ev.SubOrchestrationInstanceCompleted()
                    | ev.SubOrchestrationInstanceFailed()
                ):
                    tasks.pop(event.task_scheduled_id, None)
    found = list(tasks.values())
    if status.runtime_status is Status.SUSPENDED:
        return ["a resume", *found]
    return found or ["an external event"]


def _aware(ticks: ev.Ticks) -> datetime:
    return to_datetime(ticks).replace(tzinfo=UTC)


def _aware_or_none(ticks: ev.Ticks | None) -> datetime | None:
    return None if ticks is None else _aware(ticks)
