"""What stands in the two tables of one instance, looked at all the time, and what happened meanwhile.

It reads rows as they are, by requests of its own, and knows no engine: the same look at each of them.
"""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType

import msgspec

from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.stores.azure_storage.names import SENTINEL, HubNames, escape_key
from holdtrue.stores.azure_storage.service import Row, Service, Test

LOOK_SECONDS = 0.1
PATIENCE = 300.0
"""Seconds for anything to come: no machine is so slow."""
TERMINAL = frozenset({"Completed", "Failed", "Terminated", "Canceled"})


class Tables(msgspec.Struct, frozen=True):
    """Both tables of an instance at one moment.

    `events` counts the history's rows of the execution that the sentinel names, `ends` are the statuses of its ends in
    their order (one, but where .NET has replayed an ended instance); `row` is RuntimeStatus in the instances table.
    """

    execution: str | None = None
    events: int = 0
    ends: tuple[str, ...] = ()
    row: str | None = None
    row_execution: str | None = None

    @property
    def history(self) -> str | None:
        """The status that the history tells: its first end counts."""
        return None if self.execution is None else self.ends[0] if self.ends else "Running"

    @property
    def differ(self) -> bool:
        """Whether the row tells another end than the history of the same execution."""
        if self.execution != self.row_execution or self.execution is None:
            return False
        ended = self.row if self.row in TERMINAL else None
        return (self.ends[0] if self.ends else None) != ended

    def has_ended(self, execution: str | None) -> bool:
        """Whether the history is that of an execution, and at its end."""
        return self.execution == execution and bool(self.ends)

    @property
    def history_text(self) -> str:
        """The history in words."""
        if self.execution is None:
            return "-"
        return f"{self.events:2d} events, {' + '.join(self.ends) or 'Running'}"


class Moment(msgspec.Struct, frozen=True):
    """Something on a timeline, `at` seconds from its beginning: the tables as they were then, or what happened."""

    at: float
    tables: Tables | None = None
    what: str = ""


class Timeline(msgspec.Struct):
    """Of one instance: its title, the moments at which anything changed, and when the looking ended."""

    title: str
    moments: list[Moment] = msgspec.field(default_factory=list)
    ended: float = 0.0


def text_of(moment: Moment) -> str:
    """A line: history table, instances table, what happened."""
    if moment.tables is None:
        return f"{moment.at:6.1f} s  {'':30} {'':12}   {moment.what}".rstrip()
    sign = "≠" if moment.tables.differ else " "
    return f"{moment.at:6.1f} s  {moment.tables.history_text:30} {sign} {moment.tables.row or '-':10}".rstrip()


HEAD = f"{'':10}{'history table':32} {'instances':12} what happened"


class Watch:
    """Looks at an instance from `async with` on, and calls `changed` with each moment."""

    def __init__(
        self,
        service: Service,
        hub: str,
        instance_id: str,
        title: str,
        changed: Callable[[Moment], None] = lambda moment: None,
        *,
        every: float = LOOK_SECONDS,
    ) -> None:
        self._service = service
        self._names = HubNames(hub)
        self._key = escape_key(instance_id)
        self._changed = changed
        self._began = time.monotonic()
        self._looking: asyncio.Task[None] | None = None
        self.timeline = Timeline(title)
        self._every = every
        self._looks = 0
        self.tables = Tables()
        self.lag = 0.0
        """By how many seconds the row was written after the history's last write, by the service's own stamps."""

    async def __aenter__(self) -> "Watch":
        self._began = time.monotonic()
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._looking is not None
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)
        self.timeline.ended = self.now

    @property
    def now(self) -> float:
        """Seconds since its beginning."""
        return time.monotonic() - self._began

    def note(self, what: str) -> None:
        """Something happened."""
        self._add(Moment(self.now, None, what))

    async def until(self, holds: Callable[[Tables], bool], what: str) -> Tables:
        """Wait for tables like that.  Raises TimeoutError, saying what was waited for."""
        end = time.monotonic() + PATIENCE
        while not holds(tables := self.tables):
            if time.monotonic() > end:
                raise TimeoutError(f"{self.timeline.title}: {what} did not come; the tables say {tables}")
            if self._looking is not None and self._looking.done():
                self._looking.result()
            await asyncio.sleep(LOOK_SECONDS)
        return tables

    async def until_noted(self, what: str, times: int = 1) -> None:
        """Wait until something has happened so often.  Raises TimeoutError."""
        end = time.monotonic() + PATIENCE
        while sum(what in moment.what for moment in self.timeline.moments) < times:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.timeline.title}: {what!r} did not happen")
            await asyncio.sleep(LOOK_SECONDS)

    async def looked_again(self) -> Tables:
        """The tables as they are from now on."""
        looks = self._looks
        await self.until(lambda tables: self._looks >= looks + 2, "another look")
        return self.tables

    def longest_difference(self) -> float:
        """Seconds that row and history differed at a stretch, up to now where they still do."""
        longest, since = 0.0, None
        for moment in [*self.timeline.moments, Moment(self.now, self.tables)]:
            if moment.tables is None:
                continue
            if since is not None:
                longest = max(longest, moment.at - since)
            if not moment.tables.differ:
                since = None
            elif since is None:
                since = moment.at
        return longest

    def _add(self, moment: Moment) -> None:
        self.timeline.moments.append(moment)
        self._changed(moment)

    async def _look(self) -> None:
        while True:
            rows = await self._history()
            row = await self._service.tables.get(self._names.instances, self._key, "")
            if await self._history() != rows:
                continue  # it was written meanwhile: the row is not of that moment
            self.lag = _lag(rows, row)
            tables = _tables(rows, row)
            if tables != self.tables:
                self.tables = tables
                self._add(Moment(self.now, tables))
            self._looks += 1
            await asyncio.sleep(self._every)

    async def _history(self) -> list[Row]:
        return (await self._service.tables.query(self._names.history, Test("PartitionKey", "eq", self._key))).rows


def _tables(rows: list[Row], row: Row | None) -> Tables:
    values = {} if row is None else row.values
    sentinel = next((one for one in rows if one.key == SENTINEL), None)
    status, of = _text(values.get("RuntimeStatus")), _text(values.get("ExecutionId"))
    if sentinel is None:
        return Tables(row=status, row_execution=of)
    execution = sentinel.values.get("ExecutionId")
    events = [one for one in rows if one.key < SENTINEL and one.values.get("ExecutionId") == execution]
    ends = [str(one.values["OrchestrationStatus"]) for one in events if "OrchestrationStatus" in one.values]
    return Tables(_text(execution), len(events), tuple(ends), status, of)


def _lag(rows: list[Row], row: Row | None) -> float:
    sentinel = next((one for one in rows if one.key == SENTINEL), None)
    return 0.0 if row is None or sentinel is None else (row.timestamp - sentinel.timestamp) / TICKS_PER_SECOND


def _text(value: object) -> str | None:
    return None if value is None else str(value)
