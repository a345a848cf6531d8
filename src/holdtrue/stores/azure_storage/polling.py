"""The loops of a host: one for each control queue that it owns, and one for work items.

Polls back off while nothing comes, and start over when something does, when this process itself put a message, and
when messages come back that a get may have hidden whose answer is lost.  While something comes to any queue of a host
none of its queues is left alone for long: an id's queue is drawn by chance, and who starts one starts the next.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from holdtrue.environment import Environment
from holdtrue.stores.errors import StoreError

from .mail import MOST_A_GET
from .service import ServiceError

log = logging.getLogger("holdtrue.azure_storage")

QUIET_SECONDS = 60.0
"""A queue from which nothing came for so long is quiet."""
QUIET_SHARE = 1.25
"""So much longer is the longest pause between two looks at it."""
SHORTEST_SECONDS = 0.05
"""The first pause after an empty poll (as .NET's); each further one is half as long again."""
BUSY_SECONDS = 1.0
"""For how long a host counts as at work after something came."""
BUSY_LONGEST_SECONDS = 0.2
"""The longest pause between two looks at a queue meanwhile."""
TROUBLED_SECONDS = 1.0
"""The least pause after a poll that failed."""


class Loop:
    """One queue's polls."""

    def __init__(
        self,
        environment: Environment,
        pull: Callable[[], Awaitable[int]],
        came: Callable[[], None],
        longest: float,
        what: str,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._environment = environment
        self._pull = pull
        self._came = came
        self._longest = longest
        self._is_busy = is_busy
        self._what = what
        self._wake = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        """There may be something: poll at once."""
        self._wake.set()

    async def _run(self) -> None:
        pause, troubled, came_at = SHORTEST_SECONDS, 0.0, self._environment.monotonic()
        while True:
            self._wake.clear()
            try:
                found = await self._pull()
                troubled = 0.0
            except Exception as error:
                if isinstance(error, (ServiceError, StoreError)):
                    log.warning("%s could not be polled, it is tried again: %s", self._what, error)
                else:  # a defect: the queue must be polled all the same
                    log.exception("%s could not be polled, it is tried again", self._what)
                found, troubled = 0, min(self._longest, 1.5 * troubled)
                troubled = max(TROUBLED_SECONDS, troubled)
                pause = max(pause, troubled)
            if found:
                self._came()
                pause, came_at = SHORTEST_SECONDS, self._environment.monotonic()
                if found >= MOST_A_GET:
                    continue
            if await self._rests(pause):
                pause = SHORTEST_SECONDS
            else:
                quiet = self._environment.monotonic() - came_at > QUIET_SECONDS
                longest = self._longest * (QUIET_SHARE if quiet else 1.0)
                if self._is_busy() and not troubled:
                    longest = min(longest, BUSY_LONGEST_SECONDS)
                pause = min(longest, pause * 1.5)

    async def _rests(self, seconds: float) -> bool:
        """Wait; true where it was woken before its time."""
        over = False

        def end() -> None:
            nonlocal over
            over = True  # by no clock: a timer may be early by less than that shows
            self._wake.set()

        timer = self._environment.call_later(seconds, end)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
        return not over


class Polling:
    """All loops of a host."""

    def __init__(
        self,
        environment: Environment,
        *,
        pull: Callable[[int], Awaitable[int]],
        pull_work: Callable[[], Awaitable[int]],
        came: Callable[[], None],
        longest: float,
    ) -> None:
        self._environment = environment
        self._pull = pull
        self._told = came
        self._longest = longest
        self._came_at: float | None = None
        self._control: dict[int, Loop] = {}
        self._work = Loop(environment, pull_work, self._came, longest, "the work-item queue", self._is_busy)
        self._returning: set[int | None] = set()
        self._is_closed = False

    def gained(self, partition: int) -> None:
        """A control queue is ours.  (Also while this closes, where its lease was just asked for: it is not polled.)"""

        async def pull() -> int:
            return await self._pull(partition)

        if not self._is_closed and partition not in self._control:
            self._control[partition] = Loop(
                self._environment, pull, self._came, self._longest, f"control queue {partition}", self._is_busy
            )

    def _came(self) -> None:
        self._came_at = self._environment.monotonic()
        self._told()

    def _is_busy(self) -> bool:
        return self._came_at is not None and self._environment.monotonic() - self._came_at < BUSY_SECONDS

    def lost(self, partition: int) -> None:
        """A control queue is ours no more."""
        loop = self._control.pop(partition, None)
        if loop is not None:
            loop.task.cancel()

    def wake(self, partition: int | None) -> None:
        """A message was put: into a control queue, or (None) a work item."""
        loop = self._work if partition is None else self._control.get(partition)
        if loop is not None:
            loop.wake()

    def wake_in(self, partition: int | None, seconds: float) -> None:
        """Messages come back then; one such moment for a queue at a time, or an account that is away had no rest."""

        def wake() -> None:
            self._returning.discard(partition)
            self.wake(partition)

        if partition not in self._returning:
            self._returning.add(partition)
            self._environment.call_later(max(seconds, SHORTEST_SECONDS), wake)

    def wake_all(self) -> None:
        """Look everywhere."""
        self._work.wake()
        for loop in self._control.values():
            loop.wake()

    async def close(self) -> None:
        """Poll no more."""
        self._is_closed = True
        tasks = [self._work.task, *(loop.task for loop in self._control.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._control.clear()
