"""What an activity's function is given: who asked for it, signs of life, and whether it is still wanted.

This module knows the context's names and meaning.  How a run is carried out (on the loop, in a thread, in
a process) stands behind `ActivityRun`; it must not be known here.
"""

import logging
from typing import TYPE_CHECKING, Any, Protocol

from holdtrue.core.errors import HoldtrueError
from holdtrue.core.messages import ActivityTask
from holdtrue.core.retry import MAX_DETAILS

from .errors import PayloadTooLarge

TIMEOUT_ERROR_TYPE = "holdtrue.ActivityTimeoutError"
CANCELLED_ERROR_TYPE = "holdtrue.ActivityCancelledError"
CRASHED_ERROR_TYPE = "holdtrue.ActivityProcessCrashedError"

_logger = logging.getLogger("holdtrue.activity")

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class ActivityTimeoutError(HoldtrueError):
    """An activity did not start, end or give a sign of life in time; the message says which, and the limit."""

    __module__ = "holdtrue"


class ActivityCancelledError(HoldtrueError):
    """The result of this activity is no longer wanted, or its worker stops: clean up and end."""

    __module__ = "holdtrue"


class ActivityProcessCrashedError(HoldtrueError):
    """The process of a `cpu=True` activity died again and again while it ran it; the message says how."""

    __module__ = "holdtrue"


class ActivityRun(Protocol):
    """One run of an activity, as its context sees it."""

    @property
    def task(self) -> ActivityTask:
        """What was asked for."""

    @property
    def number(self) -> int:
        """Which run of this work item it is, from 1."""

    @property
    def details(self) -> str | None:
        """What the last run reported, or the attempt before (JSON text)."""

    @property
    def cancelled(self) -> str | None:
        """Why the run should end; None: it should go on."""

    def alive(self, *, progress: str | None = None, details: str | None = None) -> None:
        """A sign of life, from any thread; what is None stays as it was."""

    def encode(self, value: Any) -> str | None:
        """A value as payload."""

    def decode(self, payload: str | None, expected_type: Any) -> Any:
        """A payload as value."""

    def client(self) -> Any:
        """A client of this hub that suits the activity."""

    async def wait_cancelled(self) -> None:
        """Until the run should end."""


class ActivityContext:
    """Passed to every activity as its first argument.

    `orchestration_id` and `task_id` are the SDK's; all else are extensions.
    """

    __slots__ = ("_run",)

    def __init__(self, run: ActivityRun) -> None:
        self._run = run

    @property
    def orchestration_id(self) -> str:
        """The id of the orchestration instance that asked for this activity."""
        return self._run.task.instance_id

    @property
    def instance_id(self) -> str:
        """The same as `orchestration_id`."""
        return self._run.task.instance_id

    @property
    def execution_id(self) -> str:
        """The execution of the instance that asked for it: continue-as-new and restart begin another."""
        return self._run.task.execution_id

    @property
    def task_id(self) -> int:
        """The number of this task within its execution."""
        return self._run.task.task_id

    @property
    def name(self) -> str:
        """The activity's name."""
        return self._run.task.name

    @property
    def attempt(self) -> int:
        """Which attempt of its retry policy this is, from 1."""
        options = self._run.task.options
        return 1 if options is None else options.attempt

    @property
    def run(self) -> int:
        """Which run of this attempt it is, from 1: over 1 where a worker died or stopped before it ended."""
        return self._run.number

    @property
    def idempotency_key(self) -> str:
        """The same at every run of every attempt of this call, and different for all else.

        Store it with the effect, in one transaction, to have the effect once.
        """
        return self._run.task.idempotency_key

    @property
    def details(self) -> Any:
        """What was last passed to `heartbeat`, by a run of this attempt or of one before; None where nothing was."""
        return self._run.decode(self._run.details, Any)

    def details_as(self, expected_type: Any) -> Any:
        """`details` as a value of this type.  Raises PayloadError where they do not fit it."""
        return self._run.decode(self._run.details, expected_type)

    @property
    def client(self) -> Any:
        """A client of the same hub: an async one in `async def` activities, a blocking one in all others.

        The process of a `cpu=True` activity opens the hub for itself when it first asks; that raises
        StoreError where it cannot be opened.  Raises RuntimeError where the host gave no client, and in a
        process where the hub is of a kind that only the host's own process can reach.
        """
        return self._run.client()

    def progress(self, value: Any) -> None:
        """Show how far it is: the last value is seen in the instance's status.  A sign of life too.

        Any JSON value; may be called as often as you like, at most one a second is stored.
        """
        self._run.alive(progress=self._run.encode(value))

    def heartbeat(self, details: Any = None) -> None:
        """Say that it lives; `details` are given to the next run or attempt, to go on from there.

        Resets the heartbeat time-out at once; at most one a second is stored, the last one wins.  None
        leaves the details as they were.  Raises PayloadTooLarge for details over 64 KiB.
        """
        text = None if details is None else self._run.encode(details)
        if text is not None and (size := len(text.encode())) > MAX_DETAILS:
            raise PayloadTooLarge(
                f"activity {self.name!r} of instance {self.instance_id!r}: the details of its heartbeat have "
                f"{size} bytes, over {MAX_DETAILS}: report where it is, and keep what it has made elsewhere"
            )
        self._run.alive(details=text)

    @property
    def is_cancelled(self) -> bool:
        """True when the run should end: nobody wants its result, it is over its time, or the worker stops.

        Not durable, and not delivered more than once: the next run starts anew.
        """
        return self._run.cancelled is not None

    def raise_if_cancelled(self) -> None:
        """Raise ActivityCancelledError when the run should end."""
        reason = self._run.cancelled
        if reason is not None:
            task = self._run.task
            raise ActivityCancelledError(
                f"activity {task.name!r} of instance {task.instance_id!r} was asked to end: {reason}"
            )

    async def wait_cancelled(self) -> None:
        """Return when the run should end.  For `async def` activities: wait for it beside the work."""
        await self._run.wait_cancelled()

    @property
    def logger(self) -> _Adapter:
        """A logger whose records carry `instance_id`, `activity`, `task_id`, `attempt` and `run`."""
        task = self._run.task
        return _Adapter(
            _logger,
            {
                "instance_id": task.instance_id,
                "activity": task.name,
                "task_id": task.task_id,
                "attempt": self.attempt,
                "run": self._run.number,
            },
        )

    def __repr__(self) -> str:
        task = self._run.task
        return f"<ActivityContext {task.name!r} of {task.instance_id!r}, task {task.task_id}, run {self._run.number}>"
