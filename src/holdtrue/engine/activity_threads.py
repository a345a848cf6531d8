"""Runs sync activities in threads, and brings what threads have to say back to the loop.

However many threads end at once, the loop is woken once for all of them.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from functools import partial

from holdtrue.authoring.activity_context import ActivityContext

from .activity_runs import Outcome, Run, RunHost, result_text
from .busy_thread import BusyThreads


class ThreadRuns:
    """The sync activities of one pool; to be made on the running loop.

    `signed` is called on the loop for a run that gave a sign of life (of any kind of activity).
    """

    def __init__(
        self,
        host: RunHost,
        size: int,
        *,
        signed: Callable[[Run], None],
        switch_interval: float | None,
        busy_noticed: Callable[[Run, float], None],
        busy_changed: Callable[[bool], None] | None,
    ) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._base = contextvars.copy_context()
        self._signed = signed
        self._workers = host.environment.workers(size, "holdtrue-activity")
        self._posted: deque[tuple[Run, Outcome | None, bool]] = deque()
        self._waking = False
        self._running: set[Run] = set()
        self.busy = BusyThreads(
            host.environment,
            self._running,
            switch_interval=switch_interval,
            noticed=busy_noticed,
            changed=busy_changed,
        )

    def start(self, run: Run) -> None:
        """Run it in a free thread; there must be one."""
        self._running.add(run)
        self.busy.look()
        # A context of its own for each: what one sets the next must not see.
        self._workers.put(partial(self._base.copy().run, self._in_thread, run))

    def sign(self, run: Run) -> None:
        """From any thread: the run gave a sign of life."""
        self._post(run, None, False)

    def close(self) -> None:
        """Let the threads end; those whose code goes on end with it, or with the process."""
        self._workers.close()
        self.busy.stop()

    def _in_thread(self, run: Run) -> None:
        host = self._host
        event: Outcome | None = None
        if not run.told:
            activity, task = run.activity, run.item.task
            try:
                self.busy.enter(run)
                payload = task.input
                if activity.takes_input and not (payload is None and activity.has_default):
                    value = host.decode(payload, activity.input_type, activity.input_name)
                    result = activity.function(ActivityContext(run), value)
                else:
                    result = activity.function(ActivityContext(run))
                event = run.completed(result_text(host.encode, result, activity.name), host.environment.now())
            except BaseException as error:  # noqa: BLE001  every way out of user code is an outcome
                event = run.failed(host.failure(error), host.environment.now())
        self._post(run, event, True)

    def _post(self, run: Run, event: Outcome | None, ended: bool) -> None:
        self._posted.append((run, event, ended))
        if not self._waking:
            self._waking = True
            try:
                self._loop.call_soon_threadsafe(self._collect)
            except RuntimeError:
                pass  # the loop is closed: nobody listens any more

    def _collect(self) -> None:
        self._waking = False  # before the queue is read: what comes later wakes again
        posted = self._posted
        while posted:
            run, event, ended = posted.popleft()
            if ended:
                self._running.discard(run)
                self._host.settle(run, event)
            else:
                self._signed(run)
