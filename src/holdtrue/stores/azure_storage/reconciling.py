"""Looks for what nobody would come back to: a start without its message, a row that its history has left behind.

The owner of the first control queue reads the instances rows that are not terminal, a page at a time and no more
than so many requests a minute, and sends a message to whatever needs its owner: the owner does the rest, as for any
message.  So a wrong row is found and mended although nothing ever comes for its instance.
"""

import logging
from collections.abc import Awaitable, Callable

import msgspec

from holdtrue.core.events import TICKS_PER_SECOND, ExecutionRewound, Ticks
from holdtrue.core.messages import OutboundMessage
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.stores.errors import StoreCorrupt, StoreError, StoreMissing
from holdtrue.stores.protocol import is_rewinding

from .access import Access
from .columns import STATUS_NAMES
from .formats import Formats
from .posting import Poster
from .reading import Reader, Standing
from .service import Any as AnyOf
from .service import Row, Test
from .verdicts import Told

log = logging.getLogger("holdtrue.azure_storage")

OWED_AGE: Ticks = 600 * TICKS_PER_SECOND
"""An instance that owes something since this is loaded: whoever owed it is gone."""


LIVE = [status for status in Status if status not in TERMINAL]


class Pace(msgspec.Struct, frozen=True):
    """How often the rows are read through, how many requests a minute that may cost, and what is left alone because
    it was written within `fresh_seconds`: it is likely in somebody's hands."""

    every_seconds: float = 60.0
    requests_a_minute: float = 120.0
    fresh_seconds: float = 60.0


class Reconciler:
    """The scan of one hub; `is_mine` says whether this host is to do it."""

    def __init__(
        self,
        access: Access,
        formats: Formats,
        reader: Reader,
        poster: Poster,
        is_mine: Callable[[], bool],
        pace: Pace,
    ) -> None:
        self._access = access
        self._formats = formats
        self._reader = reader
        self._poster = poster
        self._is_mine = is_mine
        self._pace = pace
        self._token: str | None = None
        self._table = access.names.instances
        self._fresh: Ticks = int(pace.fresh_seconds * TICKS_PER_SECOND)

    async def run(self) -> None:
        """From now on, until it is cancelled."""
        while True:
            await self._access.environment.sleep(self._pace.every_seconds)
            if not self._is_mine():
                continue
            try:
                await self.scan()
            except StoreMissing as error:
                log.error("%s", error)
            except StoreError as error:
                log.warning("the instances could not all be looked at, it goes on later: %s", error)

    async def scan(self) -> None:
        """Read through the rows once, from where it was left."""
        live = AnyOf(tuple(Test("RuntimeStatus", "eq", STATUS_NAMES[status]) for status in LIVE))
        while True:
            token = self._token
            page = await self._access.read(
                f"table {self._table}",
                lambda: self._access.service.tables.query(self._table, live, token=token, top=100),  # noqa: B023
            )
            for row in page.rows:
                if not self._is_mine():
                    return
                await self._paced(lambda: self._look(row))  # noqa: B023
            self._token = page.token
            if page.token is None:
                return

    async def _paced(self, look: Callable[[], Awaitable[None]]) -> None:
        try:
            await look()
        except StoreCorrupt as error:
            log.error("an instance cannot be looked after: %s", error)
        await self._access.environment.sleep(3 * 60.0 / self._pace.requests_a_minute)

    async def _look(self, row: Row) -> None:
        name = self._formats.instance_of(row)
        standing = await self._reader.standing(name)
        now = self._access.environment.now()
        if standing.told is Told.ROW:
            await self._start(name, standing, now)
        elif standing.record is not None and standing.sentinel is not None:
            await self._begun(name, standing, now)

    async def _start(self, name: str, standing: Standing, now: Ticks) -> None:
        """A start that waits: its message is put again, in case that it never was (doubles are known)."""
        row, record = standing.row, standing.record
        if row is None or record is None or record.projection.status is not Status.PENDING:
            return
        due = record.projection.scheduled_start
        if now - row.timestamp < self._fresh or (due is not None and due > now - self._fresh):
            return
        log.info("instance %r waits for its start message since a while: it is put again", name)
        await self._poster.start(await self._formats.waiting_start(row, name))

    async def _begun(self, name: str, standing: Standing, now: Ticks) -> None:
        record, sentinel, view = standing.record, standing.sentinel, standing.view
        assert record is not None and sentinel is not None
        state, age = sentinel.state, now - sentinel.timestamp
        if is_rewinding(record) and age > self._fresh:
            event = ExecutionRewound(timestamp=now, instance_id=name)
            message = OutboundMessage(instance_id=name, event=event)
            await self._poster.client_message(message, self._poster.derived(name, "rewound", state.episode))
            return
        differs = view is not None and (
            view.execution_id != sentinel.execution_id or view.status is not record.projection.status
        )
        unfinished = (not sentinel.complete and state.rows > 0) or state.woken or state.log is not None
        if ((differs or unfinished) and age > self._fresh) or (state.owed and age > OWED_AGE):
            await self._poster.wake(name, f"{state.episode} {now // max(1, self._fresh)}")
