"""Reads an instance that is taken in hand: its row, its history partition, and what they say together (rules 7, 8).

What has to go is taken back at once: the first commit of a start that was purged (rule 9).
"""

import asyncio
from contextlib import suppress

import msgspec

from holdtrue.core.events import AnyEvent, ExecutionCompleted, ExecutionStarted
from holdtrue.core.projection import Projection, initial, project
from holdtrue.stores.errors import StoreCorrupt, StoreUnavailable

from .access import Access, Partition
from .erasing import Eraser
from .formats import Formats, HistoryRow
from .holding import Held
from .payloads import Payloads
from .purged_starts import PurgedStarts
from .row_reading import turned_back
from .sentinel import Sentinel, record_of
from .service import Row
from .verdicts import RowView, names_newer_start, stands, was_purged, was_rewound_by_dotnet


class Read(msgspec.Struct, kw_only=True):
    """An instance as read: its partition, its row, the history that counts (empty: none) and what it says."""

    partition: Partition
    row: Row | None
    view: RowView | None
    sentinel: Sentinel | None
    history: list[HistoryRow]
    projection: Projection | None
    started: ExecutionStarted | None

    @property
    def events(self) -> list[AnyEvent]:
        """The events of the history."""
        return [one.event for one in self.history]

    @property
    def is_unfinished(self) -> bool:
        """Whether the last part of its last commit is missing."""
        return self.sentinel is not None and not self.sentinel.complete and self.sentinel.state.rows > 0


class Loader:
    """Reads instances for who owns them."""

    def __init__(self, access: Access, formats: Formats, eraser: Eraser, purged: PurgedStarts) -> None:
        self._access = access
        self._formats = formats
        self._eraser = eraser
        self._purged = purged
        self._payloads = Payloads(formats)

    async def load(self, held: Held, *, begins: bool = False) -> Read:
        """Read an instance into a held one; `begins`: there is likely nothing but its row."""
        instance_id, row = held.instance_id, None
        if begins:
            partition = await self._access.history_partition(instance_id)
            row = await self._access.instances_row(instance_id)
        else:
            partition, row = await asyncio.gather(
                self._access.history_partition(instance_id), self._access.instances_row(instance_id)
            )
        sentinel = partition.sentinel
        if not begins and not stands(sentinel, row):
            # Rule 7: what its absence says holds for a later row only.
            row = await self._access.instances_row(instance_id)
        if sentinel is not None and not sentinel.state.purging and await self._was_purged(instance_id, row, sentinel):
            await self._eraser.take_back(instance_id, sentinel)
            return await self.load(held)
        if sentinel is not None:
            try:
                sentinel = await self._payloads.whole(sentinel)
            except StoreCorrupt:
                if not self.is_replaced(row, sentinel):
                    raise
                return await self.given_way(held, sentinel)
        history: list[HistoryRow] = []
        if stands(sentinel, row) and sentinel.state.log is None:
            history = await self._formats.history(instance_id, partition.rows, sentinel)
            held.rewound_by_dotnet = self._is_rewound(row, sentinel, history)
            if held.rewound_by_dotnet:
                # As it was when it failed: from there it is rewound as ours are.
                rows = [turned_back(one) for one in partition.rows]
                history = await self._formats.history(instance_id, rows, sentinel)
        return self._into(held, partition, row, sentinel, history)

    async def _was_purged(self, instance_id: str, row: Row | None, sentinel: Sentinel) -> bool:
        return was_purged(row, sentinel) or await self._purged.has_child(instance_id, row, sentinel)

    def is_replaced(self, row: Row | None, sentinel: Sentinel) -> bool:
        """Whether a start waits that takes the place of what stands there, whatever that is."""
        return row is not None and names_newer_start(self._formats.row_view(row), sentinel)

    async def given_way(self, held: Held, sentinel: Sentinel) -> Read:
        """An instance without the execution that a start replaces, and of which a blob is gone: a first commit that
        came when it had been purged, its blobs too."""
        again = await self._access.sentinel(held.instance_id)
        if again is not None and again.etag == sentinel.etag:
            await self._eraser.take_back(held.instance_id, sentinel)
        return await self.load(held)

    def _is_rewound(self, row: Row | None, sentinel: Sentinel, history: list[HistoryRow]) -> bool:
        """Whether .NET has rewound what our last write says has ended (rule 8); not so where its rewind found nothing
        to turn, or where one of ours has only begun."""
        if row is None or not sentinel.is_ours or not was_rewound_by_dotnet(self._formats.row_view(row), sentinel):
            return False
        return not any(isinstance(one.event, ExecutionCompleted) for one in history)

    def _into(
        self, held: Held, partition: Partition, row: Row | None, sentinel: Sentinel | None, history: list[HistoryRow]
    ) -> Read:
        view = None if row is None else self._formats.row_view(row)
        started: ExecutionStarted | None = next(
            (one.event for one in history if isinstance(one.event, ExecutionStarted)), None
        )
        projection: Projection | None = None
        held.row_etag = None if row is None else row.etag
        held.row_execution = None if view is None else view.execution_id
        if sentinel is not None:
            held.etag, held.completed_at = sentinel.etag, sentinel.completed_at
            held.execution_id = sentinel.execution_id
            held.state = sentinel.state.copy()
            held.started = started
            held.start_id = held.state.start_id or (view.start_id if view and view.start_id else sentinel.execution_id)
            held.dialect = held.state.dialect
            held.deadline = held.state.deadline
        if history and started is not None and sentinel is not None:
            if sentinel.is_ours and sentinel.state.projection is not None:
                projection = record_of(sentinel.state, started.input).projection
            else:
                projection = project(initial(started), [one.event for one in history])
                custom = None if row is None else self._formats.custom_status(row)
                projection.custom_status = custom
                held.state.rows = len(history)
                held.state.projection, held.state.started = projection, started
            held.row_is_late = (
                view is None or view.execution_id != sentinel.execution_id or view.status is not projection.status
            )
            held.row_lags = view is not None and view.last_updated_at < projection.last_updated_at
        return Read(
            partition=partition,
            row=row,
            view=view,
            sentinel=sentinel,
            history=history,
            projection=projection,
            started=started,
        )

    async def without_history(self, held: Held, sentinel: Sentinel) -> Read:
        """An instance by its sentinel and its row; of what it owes there is what stands in extra rows."""
        with suppress(StoreCorrupt):
            sentinel = await self._payloads.whole(sentinel)
        partition, row = await asyncio.gather(
            self._access.history_partition(held.instance_id), self._access.instances_row(held.instance_id)
        )
        if partition.sentinel is None or partition.sentinel.etag != sentinel.etag:
            raise StoreUnavailable(f"instance {held.instance_id!r} changed while it was read; it is read anew")
        read = self._into(held, partition, row, sentinel, [])
        view, projection = read.view, sentinel.state.projection
        assert projection is not None
        read.projection, read.started = projection, sentinel.state.started
        held.started = read.started
        told = None if view is None else (view.execution_id, view.status)
        held.row_is_late = told != (sentinel.execution_id, projection.status)
        return read
