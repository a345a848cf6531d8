"""Watches the clock for a host: timers, scheduled starts and deadlines become work when their time has come.

The hub holds them; this holds only when to look next.
"""

import asyncio
import logging
from collections.abc import Callable

from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.environment import Environment
from holdtrue.stores.errors import LeaseLost, StoreError
from holdtrue.stores.protocol import Delivery, TaskHubStore

from .tasks import Background

log = logging.getLogger("holdtrue.engine")


class DueWatch:
    """When to look for due messages; `deliver` gets those of instances in hand, `ready` is called for the others."""

    def __init__(
        self,
        store: TaskHubStore,
        environment: Environment,
        background: Background,
        *,
        deliver: Callable[[Delivery], None],
        ready: Callable[[], None],
    ) -> None:
        self._store = store
        self._environment = environment
        self._background = background
        self._deliver = deliver
        self._ready = ready
        self._next: Ticks | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looking = False

    def note(self, due: Ticks) -> None:
        """Something becomes due then."""
        if self._next is None or due < self._next:
            self._next = due
            self._set()

    def look(self) -> None:
        """Look now."""
        self._cancel()
        if not self._background.stopping and not self._looking:
            self._looking = True
            self._background.spawn(self._fire())

    def stop(self) -> None:
        """Look no more."""
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        self._cancel()
        if self._next is None or self._background.stopping or self._looking:
            return
        environment = self._environment
        seconds = max(0.0, (self._next - environment.now()) / TICKS_PER_SECOND) + environment.early_seconds
        self._timer = environment.call_later(min(seconds, environment.longest_sleep), self.look)

    async def _fire(self) -> None:
        noted, self._next = self._next, None
        try:
            due = await self._store.fire_due(self._environment.now())
        except LeaseLost:
            self._background.lost()
            return
        except StoreError as error:
            log.warning("timers could not be fired, trying again: %s", error)
            self._next = noted
            await self._environment.sleep(1.0)
        else:
            # What was noted while the hub was asked may be earlier than its answer.
            if due.next_due is not None and (self._next is None or due.next_due < self._next):
                self._next = due.next_due
            for delivery in due.deliveries:
                self._deliver(delivery)
            if due.ready:
                self._ready()
        finally:
            self._looking = False
        self._set()
