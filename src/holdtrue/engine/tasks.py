"""Background tasks of the engine: kept until done, their failures told, waited for at a stop.

`until_done` is how the engine insists on a small write: the store may be unavailable for a while.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from holdtrue.environment import Environment
from holdtrue.stores.errors import LeaseLost, StoreError

log = logging.getLogger("holdtrue.engine")


class Background:
    """The tasks that one part of the engine has started.

    `lost` is called when the store says that this host was taken for dead.
    """

    def __init__(self, environment: Environment, lost: Callable[[], None]) -> None:
        self.environment = environment
        self.lost = lost
        self.stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start it now."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a defect of Holdtrue: a task of the engine failed", exc_info=task.exception())

    async def finish(self) -> None:
        """Wait for all of them, those that they start included."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    async def until_done(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
        """Call until the store has done it, with a growing pause; false where a stop or a lost lease ends that."""
        delay = 0.05
        while True:
            try:
                await call()
                return True
            except LeaseLost:
                self.lost()
                return False
            except StoreError as error:
                if self.stopping:
                    log.warning("the hub did not take this at the stop (the lease will end): %s", error)
                    return False
                log.warning("the hub does not take work now, trying again: %s", error)
                await self.environment.sleep(delay)
                delay = min(delay * 2, 5.0)
