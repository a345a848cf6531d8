"""Pages of instances: rows that are read as they come, and verified (rule 7), some at a time.

The account keeps rows by id.  In that order (`any_order`) a page reads the rows that it gives, and the next goes on
behind the last of them.  For the order of creation all rows that the filter finds are read for each page, three
columns of them, and a bounded number kept.
"""

import base64
import binascii
import heapq
import logging
from collections.abc import AsyncIterator, Sequence

import msgspec

from holdtrue.core.errors import InvalidInput
from holdtrue.core.events import Ticks
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.stores.errors import StoreCorrupt
from holdtrue.stores.protocol import InstanceQuery, InstanceRecord, Page

from .access import Access
from .columns import STATUS_NAMES
from .formats import Formats
from .names import escape_key
from .reading import AT_ONCE, Reader
from .service import All, Filter, Row, Test
from .service import Any as AnyOf

log = logging.getLogger("holdtrue.azure_storage")

MOST_PLACES = 5_000
"""Places of instances kept at a time; where none of them fits, the rows are read once more for those that follow."""
MOST_A_REQUEST = 1_000
"""Rows of one answer (the service's limit)."""

_Place = tuple[Ticks, str]
"""Where an instance stands in the order of creation: when it was created, and its id."""


class _Token(msgspec.Struct, array_like=True):
    """Where a page ended: in the order of creation, or (no time) behind a key."""

    created_at: Ticks | None
    name: str


class Pages:
    """Reads pages."""

    def __init__(self, access: Access, formats: Formats, reader: Reader) -> None:
        self._access = access
        self._formats = formats
        self._reader = reader

    async def query(self, asked: InstanceQuery) -> Page:
        """One page.  Raises InvalidInput for a token that is none of this order's."""
        after = None if asked.token is None else _read_token(asked.token, asked.any_order)
        return await (self._by_key(asked, after) if asked.any_order else self._by_creation(asked, after))

    # -- by key ------------------------------------------------------------------------------------------

    async def _by_key(self, asked: InstanceQuery, after: _Token | None) -> Page:
        size, found = max(1, asked.page_size), list[InstanceRecord]()
        where = _filter(asked, None if after is None else after.name)
        most, last = min(MOST_A_REQUEST, size + 1), ""
        async for rows in self._access.pages(self._access.names.instances, where, top=most):
            while rows:
                if len(found) == size:
                    # A row more is there; whether it fits shows on the next page.
                    return Page(records=found, token=_token(None, last))
                part = rows[: min(AT_ONCE, size - len(found))]
                rows = rows[len(part) :]
                found += [one for one in await self._records(part, asked) if one is not None and _fits(one, asked)]
                last = part[-1].partition
        return Page(records=found, token=None)

    async def _records(self, rows: Sequence[Row], asked: InstanceQuery) -> Sequence[InstanceRecord | None]:
        if not asked.verified:
            return [await self._unverified(row) for row in rows]
        return await self._reader.readable([self._formats.instance_of(row) for row in rows], rows)

    async def _unverified(self, row: Row | None) -> InstanceRecord | None:
        try:
            return None if row is None else await self._formats.unverified_record(row)
        except StoreCorrupt as error:
            log.warning("left out of a list: %s", error)
            return None

    # -- by creation -------------------------------------------------------------------------------------

    async def _by_creation(self, asked: InstanceQuery, after: _Token | None) -> Page:
        size, found = max(1, asked.page_size), list[tuple[_Place, InstanceRecord]]()
        place = None if after is None or after.created_at is None else (after.created_at, after.name)
        async for part in self._places(asked, place, max(size + 1, MOST_PLACES)):
            names = [name for _, name in part]
            if asked.verified:
                records = await self._reader.readable(names)
            else:
                rows = [await self._access.instances_row(name) for name in names]
                records = [await self._unverified(row) for row in rows]
            found += [
                (place, record)
                for place, record in zip(part, records, strict=True)
                if record is not None and _fits(record, asked)
            ]
            if len(found) > size:
                break
        page = found[:size]
        token = _token(*page[-1][0]) if len(found) > size else None
        return Page(records=[record for _, record in page], token=token)

    async def _places(self, asked: InstanceQuery, after: _Place | None, most: int) -> AsyncIterator[list[_Place]]:
        """The places that follow, in order, as many at a time as are verified at once; no more than `most` are kept."""
        choose = heapq.nlargest if asked.newest_first else heapq.nsmallest
        where, columns = _filter(asked), ("PartitionKey", "RowKey", "RuntimeStatus", "CreatedTime")
        while True:
            next_ones: list[_Place] = []
            async for rows in self._access.pages(self._access.names.instances, where, select=columns):
                places = [place for row in rows if (place := self._place(row)) is not None]
                if after is not None:
                    places = [one for one in places if (one < after if asked.newest_first else one > after)]
                next_ones = choose(most, (*next_ones, *places))
            for begin in range(0, len(next_ones), AT_ONCE):
                yield next_ones[begin : begin + AT_ONCE]
            if len(next_ones) < most:
                return
            after = next_ones[-1]

    def _place(self, row: Row) -> _Place | None:
        """Where a row stands in the order; none for one that says nothing."""
        try:
            return self._formats.row_view(row).created_at, self._formats.instance_of(row)
        except StoreCorrupt as error:
            log.warning("left out of a list: %s", error)
            return None


def _filter(asked: InstanceQuery, after: str | None = None) -> Filter | None:
    """What the rows of a query have for certain; a row that is not terminal may have any verified status."""
    parts: list[Filter] = []
    if asked.prefix:
        parts += _with_prefix(escape_key(asked.prefix))
    if after is not None:
        parts.append(Test("PartitionKey", "gt", after))
    if asked.statuses is not None:
        live = [status for status in Status if status not in TERMINAL] if asked.verified else []
        wanted = sorted({*asked.statuses, *live, *_disguises(asked)})
        if wanted:
            parts.append(AnyOf(tuple(Test("RuntimeStatus", "eq", STATUS_NAMES[status]) for status in wanted)))
    if asked.name is not None:
        parts.append(Test("Name", "eq", asked.name))
    return All(tuple(parts)) if parts else None


def _disguises(asked: InstanceQuery) -> tuple[Status, ...]:
    """Terminated: with allowReplayingTerminalInstances .NET writes that over the row of what had ended otherwise."""
    otherwise = TERMINAL - {Status.TERMINATED}
    return (Status.TERMINATED,) if asked.verified and not otherwise.isdisjoint(asked.statuses or ()) else ()


def _with_prefix(prefix: str) -> list[Filter]:
    """Keys that begin so: from it on, and before what comes after all of them, if anything does.

    Keys are compared by their UTF-16 units, where what comes after the last character of a plane begins another.
    """
    found: list[Filter] = [Test("PartitionKey", "ge", prefix)]
    last = ord(prefix[-1])
    if last not in (0xD7FF, 0xFFFF, 0x10FFFF):
        found.append(Test("PartitionKey", "lt", prefix[:-1] + chr(last + 1)))
    return found


def _fits(record: InstanceRecord, asked: InstanceQuery) -> bool:
    p, tags = record.projection, record.started.tags or {}
    return (
        (asked.statuses is None or p.status in asked.statuses)
        and (asked.name is None or p.name == asked.name)
        and (asked.prefix is None or p.instance_id.startswith(asked.prefix))
        and (asked.created_from is None or p.created_at >= asked.created_from)
        and (asked.created_to is None or p.created_at < asked.created_to)
        and (asked.completed_to is None or (p.completed_at is not None and p.completed_at < asked.completed_to))
        and all(tags.get(tag) == value for tag, value in (asked.tags or {}).items())
    )


def _token(created_at: Ticks | None, name: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(_Token(created_at, name))).decode()


def _read_token(token: str, any_order: bool) -> _Token:
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(token.encode()), type=_Token)
        if (found.created_at is None) == any_order:
            return found
    except (msgspec.DecodeError, binascii.Error, UnicodeEncodeError, ValueError):
        pass
    raise InvalidInput(f"{token!r} is no token of such a page; give the one that the page before came with")
