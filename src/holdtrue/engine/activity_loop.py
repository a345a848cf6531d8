"""Runs async activities on the loop, with as few tasks as can be.

A task for each activity would cost more than a short one does.  So they run one after another in one
shared task, until one waits for something: that task is its own from then on, the rest goes on in another,
and activities of that name get a task each from the start.  A task in which one left context variables or
a cancellation behind is not used again.  (Python 3.12's eager tasks save less, and run user code within
whoever submits it.)
"""

import asyncio
import contextvars
from collections import deque

from holdtrue.authoring.activity_context import ActivityContext
from holdtrue.core.events import TaskCompleted, Ticks

from .activity_runs import Outcome, Run, RunHost, result_text

TURN_TICKS: Ticks = 20_000
"""The shared task lets the loop have its turn after 2 ms."""


class LoopRuns:
    """The async activities of one pool; to be made on the running loop."""

    def __init__(self, host: RunHost) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._base = contextvars.copy_context()
        # The shared task: what is to be run in it, the run it is at, itself.
        self._line: deque[Run] = deque()
        self._current: Run | None = None
        self._shared: asyncio.Task[None] | None = None
        self._guarding = self._loop.create_future()
        self._guard = self._loop.create_task(_wait(self._guarding), name="holdtrue activity guard")

    def start(self, run: Run) -> None:
        """Run it, beginning with the loop's next turn."""
        if run.activity.suspends:
            self._start_task(run)
        else:
            self._line.append(run)
            if self._shared is None:
                self._start_shared()

    def cancel(self, run: Run) -> None:
        """Cancel its task; one that has not begun does not begin if its outcome was told."""
        if run is self._current:
            self._look()
        if run.task_of is not None:
            run.task_of.cancel()

    def close(self) -> None:
        """Nothing more will be run."""
        if not self._guarding.done():
            self._guarding.set_result(None)

    # -- tasks -------------------------------------------------------------------------------------------

    def _start_task(self, run: Run) -> None:
        run.task_of = self._loop.create_task(self._in_own_task(run), context=self._base.copy())
        self._host.arm(run)

    def _start_shared(self) -> None:
        self._shared = self._loop.create_task(self._in_shared_task(), context=self._base.copy())

    async def _in_own_task(self, run: Run) -> None:
        self._host.settle(run, None if run.told else await self._perform(run))

    async def _in_shared_task(self) -> None:
        line, task, settle = self._line, self._shared, self._host.settle
        assert task is not None
        self._loop.call_soon(self._look)
        until = self._host.environment.now() + TURN_TICKS
        context = contextvars.copy_context()
        while line:
            run = line.popleft()
            if run.told:
                settle(run, None)
                continue
            self._current = run
            event = await self._perform(run)
            if self._shared is not task:
                # It has waited for something meanwhile: the task is its own, another does the rest.
                settle(run, event)
                return
            self._current = None
            settle(run, event)
            if event is None or event.timestamp > until or task.cancelling() or contextvars.copy_context() != context:
                break
        self._shared = None
        if line:
            self._start_shared()

    def _look(self) -> None:
        """Right after the shared task's step: if it is within a run, that run waits for something."""
        run = self._current
        if run is None:
            return
        self._current = None
        run.activity.suspends = True
        run.task_of = self._shared
        self._shared = None
        self._host.arm(run)
        rest = list(self._line)
        self._line.clear()
        for other in rest:
            if other.activity.suspends:
                self._start_task(other)
            else:
                self._line.append(other)
        if self._line:
            self._start_shared()

    async def _perform(self, run: Run) -> Outcome | None:
        """Run it to its end; None where nothing can be said, since the loop is being torn down."""
        host, activity, task = self._host, run.activity, run.item.task
        try:
            payload = task.input
            if activity.takes_input and not (payload is None and activity.has_default):
                value = host.decode(payload, activity.input_type, activity.input_name)
                result = await activity.function(ActivityContext(run), value)
            else:
                result = await activity.function(ActivityContext(run))
            text = result_text(host.encode, result, activity.name)
            return TaskCompleted(timestamp=host.environment.now(), task_scheduled_id=task.task_id, result=text)
        except BaseException as error:  # noqa: BLE001  every way out of user code is an outcome
            return None if self._torn_down(error) else run.failed(host.failure(error), host.environment.now())

    def _torn_down(self, error: BaseException) -> bool:
        """True if this error means that the loop ends, not that the code failed."""
        if isinstance(error, asyncio.CancelledError):
            # At its end asyncio cancels every task, the guard too; nobody else cancels that.
            return self._guard.cancelled() or self._guard.cancelling() > 0
        if isinstance(error, GeneratorExit):
            try:
                return asyncio.current_task() is None
            except RuntimeError:
                return True
        return False


async def _wait(future: "asyncio.Future[None]") -> None:
    await future
