"""Starts that were purged while a copy of their row's insert may yet arrive: that copy begins nothing (rule 10).

An insert has no ETag: one that was not answered, was made twice on its way, or is another host's for the same tick,
may come when its instance has run and was purged.  So a purge of what began lately is noted here, before the row goes.
"""

import logging
from contextlib import suppress

from holdtrue.core.events import TICKS_PER_SECOND, Ticks

from .access import Access
from .dotnet_json import FormatError
from .formats import Formats
from .owing import derived_id
from .service import All, Do, Instant, Operation, Row, Test
from .verdicts import RowView

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
            options = self._formats.start_options(row)
            until = self._formats.row_view(row).created_at + COPY_TICKS
            if options is not None and options.execution and until > self._access.environment.now():
                key = _key(self._formats.instance_of(row), options.execution)
                operation = Operation(do=Do.REPLACE, partition=PARTITION, key=key, values={UNTIL: Instant(until)})
                await self._access.write_own(operation)

    async def has(self, row: Row, view: RowView) -> bool:
        """Whether this row of a start that waits is a copy of one that was purged."""
        key = _key(self._formats.instance_of(row), view.execution_id)
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
