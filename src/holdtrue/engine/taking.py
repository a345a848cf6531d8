"""Takes work from the hub for a host: instances that nobody holds, work items, messages from other processes.

It remembers of what there may be more, and asks only for that, and only where there is room.  A flag is
cleared before the hub is asked and set again by whatever comes meanwhile, so that no call is lost.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from holdtrue.environment import Environment
from holdtrue.stores.errors import LeaseLost, StoreError
from holdtrue.stores.protocol import Delivery, LockedActivity, LockedInstance, TaskHubStore

from .tasks import Background

log = logging.getLogger("holdtrue.engine")

LOCK_BATCH = 128
"""Instances asked of the store at once."""
ITEM_BATCH = 2_000
"""Work items asked of the store at once."""


class Worker(Protocol):
    """Who works on what is taken."""

    def room_for_instances(self) -> int:
        """How many more instances it would work on now."""

    def rooms(self) -> list[tuple[int, list[str]]]:
        """How many more work items of which queues it wants."""

    def adopt(self, locked: LockedInstance) -> None:
        """An instance is taken."""

    def run(self, items: Sequence[LockedActivity]) -> None:
        """Work items are taken."""


class Taking:
    """What may be in the hub for this host, and the one task that asks for it."""

    def __init__(
        self,
        store: TaskHubStore,
        environment: Environment,
        background: Background,
        worker: Worker,
        queues: Sequence[str],
        deliver: Callable[[Delivery], None],
    ) -> None:
        self._store = store
        self._environment = environment
        self._background = background
        self._worker = worker
        self._deliver = deliver
        self._all = frozenset(queues)
        self._mail = True
        self._instances = True
        self._queues = set(self._all)
        self._under_way = False
        self._again = False
        self._begun = False

    @property
    def may_have_items(self) -> bool:
        """True if there may be more work items than were taken."""
        return bool(self._queues)

    @property
    def may_have_instances(self) -> bool:
        """True if there may be more instances than were taken."""
        return self._instances

    def begin(self) -> None:
        """From now on."""
        self._begun = True
        self.look()

    def everything(self) -> None:
        """Somebody made work of whatever kind."""
        self._mail = self._instances = True
        self._queues = set(self._all)
        self.look()

    def instances(self) -> None:
        """There are instances that nobody holds."""
        self._instances = True
        self.look()

    def left(self, items: Sequence[str]) -> None:
        """Work items of these queues were left in the hub."""
        self._queues |= self._all.intersection(items)

    def look(self) -> None:
        """Ask for what there may be and for which there is room."""
        if self._background.stopping or not self._begun:
            return
        if self._under_way:
            self._again = True
            return
        self._under_way = True
        self._background.spawn(self._look())

    async def _look(self) -> None:
        try:
            while not self._background.stopping:
                self._again = False
                if self._mail:
                    self._mail = False
                    for delivery in await self._store.fetch():
                        self._deliver(delivery)
                if self._instances:
                    await self._take_instances()
                if self._queues:
                    await self._take_items()
                if not self._again:
                    break
        except LeaseLost:
            self._background.lost()
        except StoreError as error:
            log.warning("could not look for work, trying again: %s", error)
            self._mail = self._instances = True
            self._queues = set(self._all)
            if not self._background.stopping:
                self._environment.call_later(1.0, self.look)
        finally:
            self._under_way = False

    async def _take_instances(self) -> None:
        wanted = min(LOCK_BATCH, self._worker.room_for_instances())
        if wanted <= 0:
            return
        self._instances = False
        locked = await self._store.lock(wanted)
        if len(locked) >= wanted:
            self._instances = True
        for instance in locked:
            self._worker.adopt(instance)

    async def _take_items(self) -> None:
        for room, queues in self._worker.rooms():
            asked = [queue for queue in queues if queue in self._queues]
            if not asked:
                continue
            wanted = min(room, ITEM_BATCH)
            self._queues.difference_update(asked)
            items = await self._store.lock_activities(wanted, asked)
            if len(items) >= wanted:
                self._queues.update(asked)
            if items:
                self._worker.run(items)
