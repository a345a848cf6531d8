"""Starts that were purged while a copy of their row's insert may yet arrive: that copy begins nothing (rule 10).

An insert has no ETag.  One that was not answered may come when a second try of it has run to its end and was purged;
so the second try says on the row that there was a first, and a purge of such a row within that time is noted here.
"""

import logging
from contextlib import suppress

from holdtrue.core.events import TICKS_PER_SECOND, Ticks

from .access import Access
from .dotnet_json import FormatError
from .formats import CopyOfStart, Formats
from .names import escape_key
from .owing import derived_id
from .service import ANY, Do, Instant, Operation, Row, Test
from .verdicts import RowView

log = logging.getLogger("holdtrue.azure_storage")

PARTITION = "purged starts"
UNTIL = "Until"
LATE_TICKS: Ticks = TICKS_PER_SECOND
"""A row that the service wrote so long after its start was made is looked up before it is believed."""


class PurgedStarts:
    """The purged starts of a hub of which a copy may come."""

    def __init__(self, access: Access, formats: Formats) -> None:
        self._access = access
        self._formats = formats

    async def note(self, row: Row) -> None:
        """The instance of this row is to be purged: before the row goes.  Notes that are past go too."""
        with suppress(FormatError):
            options = self._formats.start_options(row)
            if options is not None and options.copy is not None:
                await self._note(row, options.copy)

    async def _note(self, row: Row, copy: CopyOfStart) -> None:
        now = self._access.environment.now()
        if copy.until < now:
            return
        key = _key(self._formats.instance_of(row), copy.execution)
        for old in await self._access.query_own(Test("PartitionKey", "eq", PARTITION)):
            until = old.values.get(UNTIL)
            if isinstance(until, Instant) and until.ticks < now:
                await self._access.delete_own(Operation(do=Do.DELETE, partition=PARTITION, key=old.key, etag=ANY))
        values = {UNTIL: Instant(copy.until)}
        await self._access.write_own(Operation(do=Do.REPLACE, partition=PARTITION, key=key, values=values))

    async def has(self, row: Row, view: RowView) -> bool:
        """Whether this row of a start that waits is a copy of one that was purged."""
        key = _key(self._formats.instance_of(row), view.execution_id)
        return await self._access.get_own(PARTITION, key) is not None

    async def delete(self, row: Row) -> None:
        """Delete such a row, unless it has changed."""
        log.warning("instance %r was purged, and its start came once more: it begins nothing", row.partition)
        await self._access.delete_unchanged(self._access.names.instances, row)


def came_late(row: Row, view: RowView) -> bool:
    """Whether the service wrote a start's row so long after the start was made that it may be a copy of another."""
    return row.timestamp - view.created_at > LATE_TICKS


def _key(instance_id: str, execution: str) -> str:
    return escape_key(derived_id(instance_id, execution, "start", "purged"))
