"""Reads through the instances rows now and then, for what nobody would come back to, and for what retention takes.

One scan a hub, by the owner of the first control queue, no more than so many requests a minute: of the rows that are
not terminal, of those lately written as Terminated, and of the ended ones that a retention rule asks for.  A start
without its message gets it; an instance whose row does not say what its history says, or that owes something, gets a
message that makes its owner look: so it is mended although nothing ever comes for it.  Beside .NET workers each of our
hosts looks after its own partitions, and no other.
"""

import logging
from collections.abc import Callable

import msgspec

from holdtrue.core.events import TICKS_PER_SECOND, ExecutionRewound, Ticks
from holdtrue.core.messages import OutboundMessage
from holdtrue.core.projection import Status
from holdtrue.stores.errors import StoreCorrupt, StoreError, StoreMissing
from holdtrue.stores.protocol import is_rewinding

from .access import Access
from .ended import COLUMNS, Ended, Gathering, Rule, terminated_since, was_terminated_since
from .formats import Formats
from .posting import Poster
from .purged_starts import PurgedStarts, came_late
from .reading import Reader, Standing
from .service import Any as AnyOf
from .service import Filter, Instant, Row, RowPage
from .verdicts import Told

log = logging.getLogger("holdtrue.azure_storage")


OWED_AGE: Ticks = 600 * TICKS_PER_SECOND
"""An instance that owes something since this is loaded: whoever owed it is gone."""
LOOK_REQUESTS = 3
"""Requests of one look at an instance: row, sentinel, perhaps a message."""


TERMINATED_AGE: Ticks = 24 * 3_600 * TICKS_PER_SECOND
"""How far back the first scan doubts that a row is Terminated: .NET may write that over another end."""
MOST_DOUBTED = 100
"""So many of those a scan looks at; the others read true, and are mended when a message comes."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How often the rows are read through, how many requests a minute that may cost, and what is left alone because
    it was written within `fresh_seconds`: it is likely in somebody's hands.

    Retention takes what a scan within the last `ended_seconds` found.
    """

    every_seconds: float = 60.0
    requests_a_minute: float = 120.0
    fresh_seconds: float = 60.0
    ended_seconds: float = 180.0


class Reconciler:
    """The scan of one hub.

    `is_mine` says whether a partition is this host's, `beside_dotnet` whether .NET workers may serve others.
    """

    def __init__(
        self,
        access: Access,
        formats: Formats,
        reader: Reader,
        poster: Poster,
        purged: PurgedStarts,
        is_mine: Callable[[int], bool],
        pace: Pace,
        *,
        beside_dotnet: bool = False,
    ) -> None:
        self._access = access
        self._formats = formats
        self._reader = reader
        self._poster = poster
        self._purged = purged
        self._is_mine = is_mine
        self._beside_dotnet = beside_dotnet
        self._pace = pace
        self._table = access.names.instances
        self._token: str | None = None
        self._gathering: Gathering | None = None
        """Where the scan was left, and what it has found so far."""
        self._doubted: list[Row] = []
        self._terminated_since: Ticks | None = None
        self._began_at: Ticks = 0
        self._fresh: Ticks = int(pace.fresh_seconds * TICKS_PER_SECOND)
        self._free_at = 0.0
        self._ended = Ended(formats.instance_of)

    @property
    def _is_on(self) -> bool:
        """Whether this host is to do it."""
        return self._is_mine(0) or (
            self._beside_dotnet and any(self._is_mine(number) for number in range(self._access.partitions))
        )

    async def run(self) -> None:
        """From now on, until it is cancelled."""
        while True:
            await self._access.environment.sleep(self._pace.every_seconds)
            if not self._is_on:
                continue
            try:
                await self.scan()
            except StoreMissing as error:
                log.error("%s", error)
            except StoreError as error:
                log.warning("the instances could not all be looked at, it goes on later: %s", error)

    async def scan(self) -> None:
        """Read through the rows once, from where it was left."""
        environment = self._access.environment
        if self._gathering is None:
            self._gathering = self._ended.begin(environment.monotonic())
            self._began_at, self._doubted = environment.now(), []
        gathering = self._gathering
        since = self._terminated_since
        if since is None:
            since = self._began_at - TERMINATED_AGE
        while True:
            page = await self._page(AnyOf((gathering.filter(), terminated_since(since))), self._token)
            for row in page.rows:
                if not self._is_on:
                    return
                if gathering.take(row):
                    if was_terminated_since(row, since) and len(self._doubted) < MOST_DOUBTED:
                        self._doubted.append(row)
                elif self._is_for_us(row):
                    await self._look_at(row)
            self._token = page.token
            if page.token is None:
                break
        self._gathering = None
        self._ended.finish(gathering)
        # What was too fresh to be touched is looked at again by the next.
        self._terminated_since = self._began_at - 3 * self._fresh
        for row in self._doubted:
            if self._is_on and self._is_for_us(row):
                await self._look_at(row)
        await self._purged.tidy()

    async def expired(self, rule: Rule, before: Ticks | None, keep: int | None, limit: int) -> list[str]:
        """Ended top-level instances that ended before, or beyond the newest so many; the oldest end first.

        As the last scan found them; where none has looked for them lately, the rows are read for it at once, at the
        scan's pace.
        """
        wanted = before if keep is None else None
        self._ended.ask(rule, wanted)
        began = self._access.environment.monotonic()
        if not self._ended.knows(rule, wanted, began - self._pace.ended_seconds):
            gathering, token = self._ended.begin(began), None
            while True:
                page = await self._page(gathering.filter(), token)
                for row in page.rows:
                    gathering.take(row)
                token = page.token
                if token is None:
                    break
            self._ended.finish(gathering)
        found = []
        for place in self._ended.expired(rule, before, keep, limit):
            # It may have been started anew since, and ended again.
            now = await self._access.instances_row(place.instance_id, select=COLUMNS)
            if now is not None and now.values.get("CompletedTime") == Instant(place.completed_at):
                found.append(place.instance_id)
            else:
                self._ended.gone(place)
        return found

    async def _page(self, where: Filter, token: str | None) -> RowPage:
        await self._paced(1)
        tables = self._access.service.tables
        return await self._access.read(
            f"table {self._table}", lambda: tables.query(self._table, where, select=COLUMNS, token=token)
        )

    async def _paced(self, requests: int) -> None:
        """Wait until so many requests may be made."""
        environment = self._access.environment
        now = environment.monotonic()
        if self._free_at > now:
            await environment.sleep(self._free_at - now)
        self._free_at = max(now, self._free_at) + requests * 60.0 / self._pace.requests_a_minute

    def _is_for_us(self, row: Row) -> bool:
        return not self._beside_dotnet or self._is_mine(self._access.partition_of(self._formats.instance_of(row)))

    async def _look_at(self, row: Row) -> None:
        await self._paced(LOOK_REQUESTS)
        try:
            await self._look(self._formats.instance_of(row))
        except StoreCorrupt as error:
            log.error("an instance cannot be looked after: %s", error)

    async def _look(self, name: str) -> None:
        standing = await self._reader.standing(name)
        now = self._access.environment.now()
        if standing.told is Told.ROW:
            await self._start(name, standing, now)
        elif standing.told is Told.NOT_FOUND and standing.row is not None:
            await self._purged.delete(standing.row)
        elif standing.record is not None and standing.sentinel is not None:
            await self._begun(name, standing, now)

    async def _start(self, name: str, standing: Standing, now: Ticks) -> None:
        """A start that waits: its message is put again, in case that it never was (doubles are known)."""
        row, view, record = standing.row, standing.view, standing.record
        if row is None or view is None or record is None or record.projection.status is not Status.PENDING:
            return
        due = record.projection.scheduled_start
        if now - row.timestamp < self._fresh or (due is not None and due > now - self._fresh):
            return
        await self._paced(2)  # beyond those of every look
        if not came_late(row, view) and await self._purged.has(row, view):  # (else the reader has looked)
            await self._purged.delete(row)
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
            view.execution_id != sentinel.execution_id
            or view.status is not record.projection.status
            or view.last_updated_at < record.projection.last_updated_at
        )
        unfinished = (not sentinel.complete and state.rows > 0) or state.woken or state.log is not None
        if ((differs or unfinished) and age > self._fresh) or (state.owed and age > OWED_AGE):
            await self._poster.wake(name, f"{state.episode} {now // max(1, self._fresh)}")
