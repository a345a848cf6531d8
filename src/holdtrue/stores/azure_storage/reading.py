"""Status reads that are true whatever the instances row says (rule 7).

Two point reads side by side; a query reads rows, and verifies each that is not terminal the same way.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from holdtrue.core.events import ExecutionStarted
from holdtrue.core.projection import TERMINAL, Condition, Projection, Status, initial, project
from holdtrue.stores.errors import StoreCorrupt
from holdtrue.stores.protocol import InstanceRecord

from .access import Access
from .formats import Formats, HistoryRow
from .host_rows import HostRows
from .payloads import Payloads
from .purged_starts import PurgedStarts, came_late
from .sentinel import Sentinel, record_of
from .service import Row
from .verdicts import RowView, Told, judge

DOUBT_SECONDS = 1.0
"""A purge of .NET that is under way is over after this; a lost history is not."""
AGAIN_SECONDS = 0.05
"""Before what changed between two reads is read again."""
AT_ONCE = 16
"""Instances verified at a time."""

log = logging.getLogger("holdtrue.azure_storage")


class Standing(msgspec.Struct, kw_only=True):
    """What stands under an id: the verified record (None: nothing), and the row and sentinel that it was read from."""

    record: InstanceRecord | None
    row: Row | None
    view: RowView | None
    sentinel: Sentinel | None
    told: Told


class Reader:
    """Reads statuses."""

    def __init__(self, access: Access, formats: Formats, hosts: HostRows, purged: PurgedStarts) -> None:
        self._access = access
        self._formats = formats
        self._payloads = Payloads(formats)
        self._hosts = hosts
        self._purged = purged

    async def records(self, instance_ids: Sequence[str]) -> list[InstanceRecord | None]:
        """The verified records.  Raises StoreCorrupt where one of them cannot be read."""
        return await self._each(instance_ids, [None] * len(instance_ids), self.standing)

    async def readable(
        self, instance_ids: Sequence[str], rows: Sequence[Row | None] | None = None
    ) -> list[InstanceRecord | None]:
        """The verified records, for a list of many: one that cannot be read is none, and hides no other.

        `rows` are the instances rows where they were just read.
        """
        return await self._each(instance_ids, rows or [None] * len(instance_ids), self._readable)

    async def _readable(self, instance_id: str, row: Row | None) -> Standing | None:
        try:
            return await self.standing(instance_id, row)
        except StoreCorrupt as error:
            log.warning("left out of a list: %s", error)
            return None

    async def _each(
        self,
        instance_ids: Sequence[str],
        rows: Sequence[Row | None],
        read: Callable[[str, Row | None], Awaitable[Standing | None]],
    ) -> list[InstanceRecord | None]:
        found: list[InstanceRecord | None] = []
        for begin in range(0, len(instance_ids), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            for one in await asyncio.gather(*map(read, instance_ids[part], rows[part])):
                record = None if one is None else one.record
                if one is not None and record is not None and await self._waits_for_worker(record, one.sentinel):
                    record.waits_for_worker = True
                found.append(record)
        return found

    async def _waits_for_worker(self, record: InstanceRecord, sentinel: Sentinel | None) -> bool:
        """Whether it is to begin or was found with messages, and no host lives that has its code."""
        projection = record.projection
        if projection.status in TERMINAL or record.condition is not None:
            return False
        if record.length and (sentinel is None or not sentinel.state.waits):
            return False
        due = projection.scheduled_start
        if due is not None and due > self._access.environment.now():
            return False
        return not await self._hosts.have_code(projection.name)

    async def standing(self, instance_id: str, row: Row | None = None) -> Standing:
        """What stands under an id, verified; `row` is its instances row where that was just read."""
        row_after, sentinel_after, doubted, stands = False, row is not None, False, False
        if row is None:
            row, sentinel = await asyncio.gather(
                self._access.instances_row(instance_id), self._access.sentinel(instance_id)
            )
        else:
            sentinel = await self._access.sentinel(instance_id)
        while True:
            view = None if row is None else self._formats.row_view(row)
            told = judge(
                view,
                sentinel,
                row_was_read_after=row_after,
                sentinel_was_read_after=sentinel_after,
                both_again=doubted,
            )
            if told is Told.ROW_AGAIN:
                row = await self._access.instances_row(instance_id)
                row_after, sentinel_after = True, False
                continue
            if told is Told.SENTINEL_AGAIN:
                sentinel = await self._access.sentinel(instance_id)
                row_after, sentinel_after = False, True
                continue
            if told is Told.IN_DOUBT and not stands:
                if not doubted and view is not None and view.status is not Status.TERMINATED:
                    await self._access.environment.sleep(DOUBT_SECONDS)
                before = None if row is None else row.etag
                sentinel = await self._access.sentinel(instance_id)
                row, doubted = await self._access.instances_row(instance_id), True
                # Else the row may be of a start that came after the sentinel was read, slowly.
                stands = row is not None and row.etag == before
                row_after, sentinel_after = True, False
                continue
            if told is Told.ROW and row is not None and view is not None and came_late(row, view):
                told = Told.NOT_FOUND if await self._purged.has(row, view) else told
            if told in (Told.SENTINEL, Told.HISTORY) and sentinel is not None:
                told = Told.NOT_FOUND if await self._purged.has_child(instance_id, row, sentinel) else told
            record = await self._record(instance_id, told, row, view, sentinel)
            if record is None and told in (Told.SENTINEL, Told.ROW):
                # What it names went between the reads: another execution stands there now, or nothing.
                await self._access.environment.sleep(AGAIN_SECONDS)
                sentinel = await self._access.sentinel(instance_id)
                row = await self._access.instances_row(instance_id)
                row_after, sentinel_after = True, False
                continue
            return Standing(record=record, row=row, view=view, sentinel=sentinel, told=told)

    async def _record(
        self, instance_id: str, told: Told, row: Row | None, view: RowView | None, sentinel: Sentinel | None
    ) -> InstanceRecord | None:
        if told is Told.NOT_FOUND:
            return None
        if told is Told.ROW:
            assert row is not None and view is not None
            try:
                record = await self._formats.waiting_record(instance_id, row)
            except StoreCorrupt:
                if await self._has_changed(instance_id, row):
                    return None
                raise
            if sentinel is not None and sentinel.execution_id == view.execution_id and not sentinel.state.purging:
                record.condition = sentinel.state.condition
            return record
        if told is Told.IN_DOUBT:
            assert row is not None
            record = await self._formats.waiting_record(instance_id, row, input_may_be_gone=True)
            record.condition = Condition(
                kind="history missing",
                reason="the instances row says that it began, and there is no history: it was lost, or its purge was "
                "cut short. Restore the history table, or purge the instance",
            )
            return record
        assert sentinel is not None
        if told is Told.HISTORY:
            return await self._from_history(instance_id, row)
        whole = await self._whole(instance_id, sentinel)
        if whole is None:
            return None
        state = whole.state
        if row is not None and view is not None and view.execution_id == sentinel.execution_id:
            known, text = await self._formats.input_of_row(row)
            if known:
                return record_of(state, text)
        try:
            started = await self._started(instance_id, sentinel)
        except StoreCorrupt:
            again = await self._access.sentinel(instance_id)
            if again is not None and again.etag == sentinel.etag:
                raise
            return None  # purged meanwhile, its blobs first
        return None if started is None else record_of(state, started.input)

    async def _has_changed(self, instance_id: str, row: Row) -> bool:
        """Whether the row has changed, or does soon: .NET purges blobs and rows side by side."""
        await self._access.environment.sleep(DOUBT_SECONDS)
        now = await self._access.instances_row(instance_id)
        return now is None or now.etag != row.etag

    async def _whole(self, instance_id: str, sentinel: Sentinel) -> Sentinel | None:
        """A sentinel with its texts; None where another has taken its place, and they went with it."""
        try:
            return await self._payloads.whole(sentinel)
        except StoreCorrupt:
            again = await self._access.sentinel(instance_id)
            if again is not None and again.etag == sentinel.etag:
                raise
            return None

    async def _started(self, instance_id: str, sentinel: Sentinel) -> ExecutionStarted | None:
        """The start of an execution: the second row of every history, or of a redo log that is not rolled forward yet.

        None where another execution has taken its place meanwhile.
        """
        if sentinel.state.log is not None:
            try:
                log = await self._formats.redo_log(sentinel.state.log)
            except StoreCorrupt:
                return None  # rolled forward meanwhile: its rows are there
            return next((row.event for row in log if isinstance(row.event, ExecutionStarted)), None)
        row = await self._access.event_row(instance_id, 1)
        if row is None or row.values.get("ExecutionId") != sentinel.execution_id:
            return None
        one = await self._formats.event(instance_id, row)
        return one.event if isinstance(one.event, ExecutionStarted) else None

    async def rows_of(self, instance_id: str, rows: Sequence[Row], sentinel: Sentinel) -> list[HistoryRow] | None:
        """The history that counts, of a partition that was read: of its redo log where that is not rolled forward yet.

        None where it has been rolled forward since: the partition is to be read again.  Raises StoreCorrupt.
        """
        if sentinel.state.log is None:
            return await self._formats.history(instance_id, rows, sentinel)
        try:
            log = await self._formats.redo_log(sentinel.state.log)
        except StoreCorrupt:
            again = await self._access.sentinel(instance_id)
            if again is not None and again.etag == sentinel.etag:
                raise
            return None
        return [HistoryRow(ordinal, one.event, one.more) for ordinal, one in enumerate(log)]

    async def _from_history(self, instance_id: str, row: Row | None) -> InstanceRecord | None:
        """The record as the history tells it: .NET wrote after us, or we never did."""
        partition = await self._access.history_partition(instance_id)
        sentinel = partition.sentinel
        if sentinel is None or not sentinel.has_history:
            return None
        if sentinel.is_ours:
            sentinel = await self._whole(instance_id, sentinel)
            if sentinel is None:
                return await self._from_history(instance_id, row)
        history = await self.rows_of(instance_id, partition.rows, sentinel)
        if history is None:
            return await self._from_history(instance_id, row)
        started = next((one.event for one in history if isinstance(one.event, ExecutionStarted)), None)
        if started is None:
            return None
        projection: Projection = project(initial(started), [one.event for one in history])
        told = sentinel.state.projection
        if sentinel.is_ours and told is not None:
            # Only a rewind of .NET's is suspected; nobody has written the sentinel after us.
            projection.custom_status, projection.created_at = told.custom_status, told.created_at
        elif row is not None:
            projection.custom_status = self._formats.custom_status(row)
        view = None if row is None else self._formats.row_view(row)
        state = sentinel.state
        return InstanceRecord(
            projection=projection,
            started=started,
            start_id=state.start_id or (view.start_id if view and view.start_id else sentinel.execution_id),
            dialect=state.dialect,
            deadline=state.deadline,
            condition=None if projection.status in (Status.COMPLETED, Status.FAILED) else state.condition,
            length=len(history),
            size=state.size,
        )
