"""Waiting for an instance: registered before its status is read, so that no change is missed.

In a host's process only calls wake; a client alone hears from the store and, since a store may not hear
of everything, looks now and then.
"""

from collections.abc import Callable

from holdtrue.core.ids import check_text
from holdtrue.core.projection import Status
from holdtrue.environment import Environment
from holdtrue.stores.protocol import InstanceRecord, Notice, TaskHubStore

from .changes import Changes
from .errors import ClientError, InstanceNotFound, WaitTimeout
from .reads import StatusReads

FIRST_LOOK_SECONDS = 0.05
LONGEST_LOOK_SECONDS = 1.0
"""A client without a host looks again after the first, then after twice as long, up to the second."""


class Waiting:
    """The waits of one client.  `changes` is the host's register, None for a client alone."""

    def __init__(self, store: TaskHubStore, environment: Environment, changes: Changes | None) -> None:
        self.reads = StatusReads(store)
        self._store = store
        self._environment = environment
        self._pushed = changes is not None
        self._changes = changes if changes is not None else Changes(environment)

    def listen(self) -> None:
        """Hear from the store (for a client that opened it)."""
        self._store.listen(self._heard)

    def _heard(self, notice: Notice) -> None:
        if notice.changed:
            self._changes.notify(notice.changed)
        else:
            self._changes.notify_all()

    def changed(self, instance_id: str) -> None:
        """This client itself has changed it."""
        self._changes.notify((instance_id,))

    def close(self) -> None:
        """Wake who waits (not those who share a host's register: they are the host's to wake)."""
        if not self._pushed:
            self._changes.close()

    async def until(
        self, instance_id: str, satisfied: Callable[[InstanceRecord], bool], what: str, timeout: float | None
    ) -> InstanceRecord:
        """The first record seen that satisfies.

        Raises InstanceNotFound, WaitTimeout, and ClientError where the client was closed.
        """
        check_text(instance_id, "an instance id")
        environment = self._environment
        end = None if timeout is None else environment.monotonic() + timeout
        look = None if self._pushed else FIRST_LOOK_SECONDS
        with self._changes.watch(instance_id) as watch:
            while True:
                # What came with the change is as it was committed: no second read.
                record, watch.record = watch.record, None
                if record is None:
                    record = await self.reads.read(instance_id)
                if record is None:
                    raise InstanceNotFound(instance_id)
                if satisfied(record):
                    return record
                if self._changes.closed:
                    raise ClientError(
                        f"instance {instance_id!r} is {_word(record)} and the client was closed while waiting for it: "
                        "keep the client open, or ask again with another"
                    )
                left = None
                if end is not None:
                    left = end - environment.monotonic()
                    if left <= 0:
                        assert timeout is not None
                        raise WaitTimeout(instance_id, what, timeout, record.projection.status)
                pause = left if look is None else look if left is None else min(look, left)
                fired = await watch.wait(pause)
                if look is not None:
                    look = FIRST_LOOK_SECONDS if fired else min(look * 2, LONGEST_LOOK_SECONDS)


def _word(record: InstanceRecord) -> str:
    status: Status = record.projection.status
    return status.name.lower()
