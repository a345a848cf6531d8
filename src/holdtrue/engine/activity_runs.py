"""One run of an activity in this host: its state, its outcome as an event, and its signs of life.

What a run needs of the pool stands in `RunHost`.  Which run starts when, and where, is not known here.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Protocol

from holdtrue.authoring.activity_context import CRASHED_ERROR_TYPE, TIMEOUT_ERROR_TYPE
from holdtrue.authoring.errors import PayloadError
from holdtrue.core.actions import ActivityOptions
from holdtrue.core.events import FailureDetails, TaskCompleted, TaskFailed, Ticks
from holdtrue.core.messages import ActivityTask, WorkRef
from holdtrue.core.retry import with_details
from holdtrue.environment import Environment
from holdtrue.stores.errors import StoreError
from holdtrue.stores.protocol import LockedActivity

from .activity_lanes import Activity, effective

if TYPE_CHECKING:
    from .cpu_processes import CpuProcess

REPORT_SECONDS = 1.0
"""At most one stored sign of life of a run in so long."""

Outcome = TaskCompleted | TaskFailed
Report = Callable[[WorkRef, str | None, str | None], Awaitable[bool]]


class RunHost(Protocol):
    """What a run needs of the pool."""

    environment: Environment
    encode: Callable[[Any], str | None]
    decode: Callable[..., Any]

    def failure(self, error: BaseException) -> FailureDetails:
        """Any error as failure details; never raises."""

    def client(self, kind: str) -> Any:
        """A client for an activity of this kind."""

    def sign(self, run: "Run") -> None:
        """From any thread: the run gave a sign of life."""

    def arm(self, run: "Run") -> None:
        """The run's code begins: start the clocks of its time-outs."""

    def settle(self, run: "Run", event: Outcome | None) -> None:
        """On the loop: the run's code has ended (None: without an outcome)."""


class Run:
    """A work item in hand.  Attributes are the loop's, but for those marked."""

    task_of: "asyncio.Task[None] | None" = None
    """The task it runs in, once it has one of its own."""
    process: "CpuProcess | None" = None
    crashes = 0
    started = False
    told = False
    """Its outcome was told, or it is to be put back: what comes later is dropped."""
    leaving = False
    """It was asked to end because the worker stops: only a success counts as its outcome."""
    cancelled: str | None = None  # read by any thread
    progress: str | None = None  # written by its thread
    beat = 0.0  # written by its thread
    noted = False  # written by its thread
    clock: Callable[[], float] | None = None  # written by its thread
    """The CPU time of its thread, once it runs in one."""
    clock_began = (0.0, 0.0)  # written by its thread
    """The time, and its thread's CPU time, when it began."""
    timers: "tuple[asyncio.TimerHandle, ...]" = ()
    stopper: "asyncio.TimerHandle | None" = None
    waits_since = 0.0
    """When it came and found no slot free."""
    reported_at = float("-inf")
    reporting = False
    _waiters: "tuple[asyncio.Future[None], ...]" = ()

    def __init__(self, host: RunHost, activity: Activity, item: LockedActivity) -> None:
        self.host = host
        self.activity = activity
        self.item = item
        self.details = item.resume  # written by its thread

    # -- what the context asks -------------------------------------------------------------------------

    @property
    def task(self) -> ActivityTask:
        """What was asked for."""
        return self.item.task

    @property
    def number(self) -> int:
        """Which run of the work item it is, from 1."""
        return self.item.run + self.crashes

    def alive(self, *, progress: str | None = None, details: str | None = None) -> None:
        """A sign of life, from any thread; the pool is told once until it has taken note."""
        if progress is not None:
            self.progress = progress
        if details is not None:
            self.details = details
        self.beat = self.host.environment.monotonic()
        if not self.noted:
            self.noted = True
            self.host.sign(self)

    def encode(self, value: Any) -> str | None:
        """A value as payload."""
        return self.host.encode(value)

    def decode(self, payload: str | None, expected_type: Any) -> Any:
        """A payload as value."""
        return self.host.decode(payload, expected_type)

    def client(self) -> Any:
        """A client that suits the activity."""
        return self.host.client(self.activity.lane.kind)

    async def wait_cancelled(self) -> None:
        """Until the run should end."""
        if self.cancelled is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters = (*self._waiters, waiter)
            await waiter

    # -- what the pool does --------------------------------------------------------------------------

    def ask_to_end(self, reason: str) -> None:
        """Let the code see that it should end."""
        if self.cancelled is None:
            self.cancelled = reason
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters = ()

    def options(self) -> ActivityOptions:
        """The time-outs that hold for it."""
        return effective(self.item.task.options, self.activity.options)

    def clear_timers(self) -> None:
        """It has ended."""
        for timer in self.timers:
            timer.cancel()
        self.timers = ()
        if self.stopper is not None:
            self.stopper.cancel()
            self.stopper = None

    def completed(self, result: str | None, now: Ticks) -> TaskCompleted:
        """Its success as an event."""
        return TaskCompleted(timestamp=now, task_scheduled_id=self.item.task.task_id, result=result)

    def failed(self, failure: FailureDetails, now: Ticks) -> TaskFailed:
        """Its failure as an event, with what it reported last: a next attempt goes on from there."""
        failure = with_details(failure, self.details)
        return TaskFailed(timestamp=now, task_scheduled_id=self.item.task.task_id, failure=failure)

    @property
    def what(self) -> str:
        """It in words, for messages."""
        task = self.item.task
        return f"activity {task.name!r} of instance {task.instance_id!r} (task {task.task_id})"


def result_text(encode: Callable[[Any], str | None], result: Any, name: str) -> str | None:
    """What an activity of that name returned, as payload.  Raises PayloadError, which names it."""
    try:
        return encode(result)
    except PayloadError as error:
        if isinstance(result, CoroutineType):
            result.close()
            raise PayloadError(
                f"activity {name!r} returned a coroutine, which nobody awaits: declare it with `async def` "
                "(it may be a decorator over it that hides this)"
            ) from None
        raise type(error)(f"the result of activity {name!r}: {error}") from error.__cause__


class Reporter:
    """Tells the store of runs' signs of life: at most one a second for each run, the last one wins.

    `lost` is called for a run that nobody wants any more, or whose lock is another's.
    """

    def __init__(self, environment: Environment, report: Report, lost: Callable[[Run], None]) -> None:
        self._environment = environment
        self._report = report
        self._lost = lost
        self._tasks: set[asyncio.Task[None]] = set()

    def note(self, run: Run) -> None:
        """There is a new sign of life."""
        if run.told or run.reporting:
            return
        run.reporting = True
        wait = run.reported_at + REPORT_SECONDS - self._environment.monotonic()
        if wait <= 0:
            self._send(run)
        else:
            self._environment.call_later(wait, lambda: self._send(run))

    async def flush(self, run: Run) -> None:
        """Store what a run said last, though its time has not come: it is to be run again from there."""
        try:
            await self._report(run.item.ref, run.progress, run.details)
        except StoreError:
            pass  # the next run goes on from an earlier word

    async def idle(self) -> None:
        """Until nothing is on its way."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def _send(self, run: Run) -> None:
        if run.told:
            run.reporting = False
            return
        task = asyncio.get_running_loop().create_task(self._sending(run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sending(self, run: Run) -> None:
        again = False
        run.noted = False  # what is said from here on is news again
        run.reported_at = self._environment.monotonic()
        try:
            wanted = await self._report(run.item.ref, run.progress, run.details)
        except StoreError:
            wanted = again = True
        finally:
            run.reporting = False
        if not wanted:
            self._lost(run)
        elif again or run.noted:
            self.note(run)


# -- failures that no user code raised ----------------------------------------------------------------------


def late_start(run: Run, waited: float, limit: float) -> FailureDetails:
    """It came to its turn too late."""
    return waited_too_long(run.what, waited, limit)


def waited_too_long(what: str, waited: float, limit: float) -> FailureDetails:
    """No worker has begun it in time."""
    return FailureDetails(
        message=f"{what} waited {waited:.3g} s for a worker, over its schedule_to_start time-out of {limit:g} s: "
        "start more workers that serve it, raise its limit of concurrency, or the time-out",
        error_type=TIMEOUT_ERROR_TYPE,
        properties={"timeout": "schedule_to_start", "seconds": limit},
    )


def late_end(run: Run, limit: float) -> FailureDetails:
    """It has not ended in time."""
    return FailureDetails(
        message=f"{run.what} had not ended after its start_to_close time-out of {limit:g} s: "
        "raise the time-out, or let it do less in one run",
        error_type=TIMEOUT_ERROR_TYPE,
        properties={"timeout": "start_to_close", "seconds": limit},
    )


def silent(run: Run, limit: float) -> FailureDetails:
    """It gave no sign of life in time."""
    return FailureDetails(
        message=f"{run.what} gave no sign of life for its heartbeat time-out of {limit:g} s: "
        "call ctx.heartbeat() or ctx.progress() more often, or raise the time-out",
        error_type=TIMEOUT_ERROR_TYPE,
        properties={"timeout": "heartbeat", "seconds": limit},
    )


def crashed(run: Run, how: str) -> FailureDetails:
    """Its process died once too often."""
    return FailureDetails(
        message=f"{run.what}: its process died {run.crashes} times while it ran it, at last {how}: "
        "look for a crash in native code, os._exit, or too little memory",
        error_type=CRASHED_ERROR_TYPE,
        properties={"crashes": run.crashes},
    )


def bare_failure(error: BaseException) -> FailureDetails:
    """A failure as it can always be told, where the app's own way of telling it failed."""
    kind = type(error)
    try:
        message = str(error)[:10_000]
    except Exception:  # noqa: BLE001  an error whose text fails is an error all the same
        message = "(the error's text could not be made)"
    return FailureDetails(message=message, error_type=f"{kind.__module__}.{kind.__qualname__}")
