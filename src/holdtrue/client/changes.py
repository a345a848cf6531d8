"""Wakes those who wait for an instance: a register of waits, rung by whoever learns of a change.

It knows ids only; who waits looks at the status itself.  One loop, one thread.
"""

import asyncio
import copy
from collections.abc import Iterable
from types import TracebackType

from holdtrue.environment import REAL, Environment
from holdtrue.stores.protocol import InstanceRecord


class Watch:
    """One wait for changes of one instance; a change between two calls of `wait` is not lost.

    Use it as a context manager, entered before the status is read.
    """

    __slots__ = ("_changes", "_fired", "_future", "_instance_id", "record")

    def __init__(self, changes: "Changes", instance_id: str) -> None:
        self._changes = changes
        self._instance_id = instance_id
        self._fired = False
        self._future: asyncio.Future[None] | None = None
        self.record: InstanceRecord | None = None
        """The record that came with the last change, where the host in this process committed it; else None."""

    def __enter__(self) -> "Watch":
        self._changes._watches.setdefault(self._instance_id, []).append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        watches = self._changes._watches
        left = watches.get(self._instance_id)
        if left is not None:
            left.remove(self)
            if not left:
                del watches[self._instance_id]

    async def wait(self, seconds: float | None = None) -> bool:
        """Until a change since the last call of `wait` (or the entry), at most `seconds`; false if none came."""
        if not self._fired and not self._changes.closed:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._future = future
            timer = None if seconds is None else self._changes.environment.call_later(seconds, self._give_up)
            try:
                await future
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
        fired, self._fired = self._fired, False
        return fired

    def fire(self, record: InstanceRecord | None = None) -> None:
        """There was a change; `record` is what it came to, where that is known."""
        self._fired = True
        self.record = record
        self._give_up()

    def _give_up(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class Changes:
    """The register.  `notify` from whoever commits or hears of commits; `watch` from who waits."""

    def __init__(self, environment: Environment = REAL) -> None:
        self.environment = environment
        self.closed = False
        self._watches: dict[str, list[Watch]] = {}

    def notify(self, instance_ids: Iterable[str]) -> None:
        """These instances have changed."""
        watches = self._watches
        if watches:
            for instance_id in instance_ids:
                for watch in watches.get(instance_id, ()):
                    watch.fire()

    def committed(self, records: Iterable[InstanceRecord]) -> None:
        """These records were committed just now."""
        watches = self._watches
        if watches:
            for record in records:
                for watch in watches.get(record.projection.instance_id, ()):
                    watch.fire(copy.copy(record))

    def notify_all(self) -> None:
        """Any instance may have changed."""
        for waiting in self._watches.values():
            for watch in waiting:
                watch.fire()

    def close(self) -> None:
        """Nobody will notify any more: who waits is woken, and waits no longer."""
        self.closed = True
        self.notify_all()

    def watch(self, instance_id: str) -> Watch:
        """A wait for changes of that instance (enter it before the status is read)."""
        return Watch(self, instance_id)

    async def wait(self, instance_id: str) -> None:
        """Until the next change of that instance."""
        with self.watch(instance_id) as watch:
            await watch.wait()
