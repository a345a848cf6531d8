"""Wakes the instances that wait for code or for a repair, when a host joins and when it gets their partition.

A host of new code may join long before that: who has them meanwhile tries once more in vain.
"""

import asyncio
import logging
from collections.abc import Callable, Set

from holdtrue.stores.errors import StoreError

from .access import Access
from .posting import Poster
from .waiting import WaitingInstances

log = logging.getLogger("holdtrue.azure_storage")

LOOK_SECONDS = 300.0
"""How often it is looked for those that another process noted after its partition had gone to this one."""
AGAIN_SECONDS = 5.0
"""After so long it is looked again where a look failed."""


class Waker:
    """The looks of one host at what waits.  `orchestrators` are those that it has the code of."""

    def __init__(
        self,
        access: Access,
        poster: Poster,
        waiting: WaitingInstances,
        orchestrators: Set[str],
        is_mine: Callable[[int], bool],
    ) -> None:
        self._access = access
        self._poster = poster
        self._waiting = waiting
        self._orchestrators = orchestrators
        self._is_mine = is_mine
        self._gained = asyncio.Event()

    async def joined(self) -> None:
        """A host has come: whoever has what waits tries it once more.  Raises StoreError."""
        for name in await self._waiting.of(self._orchestrators):
            await self._wake(name)

    def gained(self, partition: int) -> None:
        """What waits in a partition is this host's from now on."""
        self._waiting.doubt(lambda name: self._access.partition_of(name) == partition)
        self._gained.set()

    async def run(self) -> None:
        """From now on, until it is cancelled."""
        pause = LOOK_SECONDS
        while True:
            timer = self._access.environment.call_later(pause, self._gained.set)
            try:
                await self._gained.wait()
            finally:
                timer.cancel()
            self._gained.clear()
            pause = LOOK_SECONDS
            try:
                await self._look()
            except StoreError as error:
                log.warning("which instances wait for code is not known, it is looked again soon: %s", error)
                pause = AGAIN_SECONDS

    async def _look(self) -> None:
        if not any(map(self._is_mine, range(self._access.partitions))):
            return
        for name in await self._waiting.of(self._orchestrators):
            if self._is_mine(self._access.partition_of(name)) and not await self._waiting.has_tried(name):
                await self._wake(name)

    async def _wake(self, name: str) -> None:
        await self._poster.wake(name, self._access.environment.new_id())
