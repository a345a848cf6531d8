"""What was purged while a copy of what made it may yet arrive: that copy begins nothing (rules 9 and 10).

An insert has no ETag: one that was not answered, was made twice on its way, is another host's for the same tick, or of
a host that stood still in it, may come when its instance has run and was purged.  So a purge is noted here before the
row goes: that of a start that was made lately, whose row may come again, and of a child that ended lately, whose first
commit may.  (The first commit of a client's start is known by the row that is gone: `verdicts.was_purged`.)
"""

import logging
from contextlib import suppress

from holdtrue.core.events import TICKS_PER_SECOND, ExecutionStarted, Ticks

from .access import Access
from .arrivals import Arrived
from .dotnet_json import FormatError
from .formats import Formats
from .owing import derived_id
from .sentinel import Sentinel
from .service import All, Do, Instant, Operation, Row, Test
from .verdicts import RowView, may_be_purged_child

log = logging.getLogger("holdtrue.azure_storage")

PARTITION = "purged starts"
UNTIL = "Until"
COPY_TICKS: Ticks = 20 * 60 * TICKS_PER_SECOND
"""For so long after a start a copy of it may arrive: a quarter of an hour in the service, and some for the clocks."""
LATE_TICKS: Ticks = TICKS_PER_SECOND
"""A row that the service wrote so long after its start was made is looked up before it is believed."""


class PurgedStarts:
    """The purged starts of a hub of which a copy may come."""

    def __init__(self, access: Access, formats: Formats) -> None:
        self._access = access
        self._formats = formats
        self._tidy_at: Ticks = 0

    async def note(self, row: Row) -> None:
        """The instance of this row is to be purged: to be called before the row goes."""
        with suppress(FormatError):
            view, options = self._formats.row_view(row), self._formats.start_options(row)
            if view.is_child and view.start_id:
                made, key = view.completed_at, _key_of_child(self._formats.instance_of(row), view.start_id)
            elif options is not None and options.execution:
                made, key = view.created_at, _key(self._formats.instance_of(row), options.execution)
            else:
                return
            if made is not None and made + COPY_TICKS > self._access.environment.now():
                values = {UNTIL: Instant(made + COPY_TICKS)}
                operation = Operation(do=Do.REPLACE, partition=PARTITION, key=key, values=values)
                await self._access.write_own(operation)

    async def has(self, row: Row, view: RowView) -> bool:
        """Whether this row of a start that waits is a copy of one that was purged."""
        key = _key(self._formats.instance_of(row), view.execution_id)
        return await self._access.get_own(PARTITION, key) is not None

    async def has_child(self, instance_id: str, row: Row | None, sentinel: Sentinel) -> bool:
        """Whether this is the first commit of a child that was purged, come late."""
        if not may_be_purged_child(row, sentinel):
            return False
        return await self._access.get_own(PARTITION, _key_of_child(instance_id, sentinel.state.start_id)) is not None

    async def has_begun(self, instance_id: str, start: Arrived) -> bool:
        """Whether a message is the start of a child that has run and was purged: looked up where it comes late, put
        once more or given once more."""
        event = start.event
        if not isinstance(event, ExecutionStarted) or event.parent is None:
            return False
        if start.delivery == 1 and start.inserted - event.timestamp <= LATE_TICKS:
            return False
        key = _key_of_child(instance_id, start.start_id or event.execution_id)
        return await self._access.get_own(PARTITION, key) is not None

    async def delete(self, row: Row) -> None:
        """Delete such a row, unless it has changed."""
        log.warning("instance %r was purged, and its start came once more: it begins nothing", row.partition)
        await self._access.delete_unchanged(self._access.names.instances, row)

    async def tidy(self) -> None:
        """Delete the notes of which no copy can come any more; to be called now and then."""
        now = self._access.environment.now()
        if now < self._tidy_at:
            return
        self._tidy_at = now + COPY_TICKS
        past = All((Test("PartitionKey", "eq", PARTITION), Test(UNTIL, "lt", Instant(now))))
        await self._access.delete_all_own(await self._access.query_own(past, select=("PartitionKey", "RowKey")))


def came_late(row: Row, view: RowView) -> bool:
    """Whether the service wrote a start's row so long after the start was made that it may be a copy of another."""
    return row.timestamp - view.created_at > LATE_TICKS


def _key(instance_id: str, execution: str) -> str:
    return derived_id(instance_id, execution, "start", "purged")


def _key_of_child(instance_id: str, start_id: str) -> str:
    return derived_id(instance_id, start_id, "child", "purged")
