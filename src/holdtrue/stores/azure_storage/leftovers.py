"""Finishes what the last owner of an instance left: first a redo log, then what it owes (rules 2, 5, 16)."""

import asyncio
from collections.abc import Sequence

from holdtrue.core.events import (
    SCHEDULING_EVENTS,
    AnyEvent,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TimerFired,
)
from holdtrue.stores.errors import StoreCorrupt, StoreUnavailable
from holdtrue.stores.protocol import Lease

from .access import Access
from .committing import Committer
from .formats import Formats
from .holding import Held
from .large import Blob
from .loading import Loader, Read
from .local import places
from .owing import Outgoing, RowExtra, asked_by_row, beside_rows
from .planning import log_parts, owed_key
from .posting import Poster
from .sentinel import Owed, State


class Leftovers:
    """Finishes what was left of instances in hand."""

    def __init__(self, access: Access, formats: Formats, loader: Loader, poster: Poster, committer: Committer) -> None:
        self._access = access
        self._formats = formats
        self._loader = loader
        self._poster = poster
        self._committer = committer

    async def read(self, instance_id: str, lease: Lease) -> tuple[Held, Read]:
        """An instance as it stands when its redo log is rolled forward and what it owes is sent."""
        partition = self._access.partition_of(instance_id)
        held = Held(instance_id, self._formats.partition_key(instance_id), partition, lease)
        return held, await self.finished(held, await self._loader.load(held))

    async def finished(self, held: Held, read: Read) -> Read:
        state = held.state
        if state.log is not None and not state.purging:
            try:
                await self._roll_forward(held, state)
            except StoreCorrupt:
                if read.sentinel is None or not self._loader.is_replaced(read.row, read.sentinel):
                    raise
                return await self._loader.given_way(held, read.sentinel)
            read = await self._loader.load(held)
        if not state.purging and not self._committer.has_sent(held):
            await self.pay(held, read)
        return read

    async def _roll_forward(self, held: Held, state: State) -> None:
        assert state.log is not None
        rows = await self._formats.redo_log(state.log)

        def encode(event: AnyEvent, ordinal: int, more: RowExtra):  # type: ignore[no-untyped-def]
            assert state.projection is not None
            return self._formats.event_values(
                held.instance_id, event, state.projection.execution_id, ordinal, more, blobs
            )

        blobs: list[Blob] = []
        parts = log_parts(held.partition_key, rows, state, encode, self._committer.chance)
        await asyncio.gather(*(self._formats.put_blob(blob) for blob in blobs))
        for part in parts:
            await self._committer.must_write(held, part, "its redo log is rolled forward")
        await self._formats.delete_blob(state.log)

    async def pay(self, held: Held, read: Read) -> None:
        """Send what is owed; doubles are known.  The next commit clears it from the sentinel."""
        await self._poster.send(held, await self._owed(held, read))
        self._committer.note_sent(held)

    async def _owed(self, held: Held, read: Read) -> list[Outgoing]:
        """All that the sentinel names as owed, from the rows and the extra rows, as it was sent the first time."""
        found: list[Outgoing] = []
        run_here = set(places(held.state.local))
        extras = {row.key: row for row in read.partition.extras}
        projection = read.projection
        answered = answered_ids(read.events)
        for owed in held.state.owed:
            extra = extras.get(owed_key(owed.episode)) if owed.extra else None
            if extra is not None:
                found += beside_rows(held.instance_id, owed, await self._formats.extra_in(extra))
            if projection is None or projection.execution_id != owed.execution:
                continue
            for row in read.history[owed.first : owed.end]:
                if (owed.execution, row.ordinal) in run_here:
                    continue
                one = asked_by_row(projection, held.dialect, owed, row.ordinal, row.event, row.more)
                if one is not None and row.event.event_id not in answered:
                    found.append(one)
        return found

    async def queue_local(self, held: Held, read: Read) -> None:
        """Put the activities that ran on the host that scheduled them into the work-item queue (rule 16)."""
        projection, answered = read.projection, answered_ids(read.events)
        if projection is None or not held.state.local:
            return
        found: list[Outgoing] = []
        for local in held.state.local:
            owed = Owed(local.execution, local.episode, 0, 0)
            for row in (read.history[at] for at in local.ordinals if local.execution == projection.execution_id):
                one = asked_by_row(projection, held.dialect, owed, row.ordinal, row.event, row.more)
                if one is not None and row.event.event_id not in answered:
                    found.append(one)
        await self._poster.send(held, found)

    async def clear_debt(self, held: Held, *, local: bool = False) -> None:
        """Nothing is run that would clear what was just paid: two that have ended would pay each other for ever.

        With `local` what ran on the host that scheduled it goes too (`queue_local`).
        """
        if not await self._committer.clear_debt(held, local=local):
            raise StoreUnavailable(
                f"instance {held.instance_id!r} changed while its debts are cleared; it is read anew"
            )


_ANSWERS = (
    TaskCompleted,
    TaskFailed,
    TimerFired,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
)


def answered_ids(events: Sequence[AnyEvent]) -> set[int]:
    """The task ids that have an answer: what asked for them need not be sent again."""
    found: set[int] = set()
    for event in events:
        if isinstance(event, _ANSWERS):
            found.add(event.timer_id if isinstance(event, TimerFired) else event.task_scheduled_id)
        elif isinstance(event, SCHEDULING_EVENTS):
            found.discard(event.event_id)
    return found
