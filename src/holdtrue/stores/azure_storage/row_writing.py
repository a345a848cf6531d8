"""Brings an instances row up to date, behind the commits (rule 9).

At an execution's first commit, and when it is suspended, resumed or ended; what else a commit changes (custom status,
times) waits a while (`afterwards`).  Never blind: under If-Match with an etag that was got before the commit whose
projection is written.  A row that somebody else wrote meanwhile is read again, with the sentinel, and the decision is
made anew.  Readers of ours do not depend on the row; .NET's do.
"""

import logging

from holdtrue.core.episode import EpisodeCommit
from holdtrue.core.events import ExecutionStarted
from holdtrue.core.projection import Projection, Status
from holdtrue.stores.errors import StoreError, StoreUnavailable

from .access import Access
from .erasing import Eraser
from .formats import Formats
from .holding import Held
from .instances_row import custom_status_text
from .sentinel import Sentinel
from .service import Conflict, Do, NotThere, Operation, Row, Value
from .verdicts import names_newer_start

log = logging.getLogger("holdtrue.azure_storage")

TRIES = 6


class RowWriter:
    """Writes instances rows."""

    def __init__(self, access: Access, formats: Formats, eraser: Eraser) -> None:
        self._access = access
        self._formats = formats
        self._eraser = eraser

    async def after_commit(self, held: Held, commit: EpisodeCommit) -> None:
        """Write the row that a commit asks for at once, or note that it lags behind.

        What cannot be written is mended later: nothing waits for it.
        """
        projection = held.state.projection
        assert projection is not None
        begun = next((event for event in commit.events if isinstance(event, ExecutionStarted)), None)
        begins = begun is not None and begun.parent is None and begun.execution_id == held.row_execution
        first = held.row_is_late or held.row_execution != projection.execution_id or commit.replace
        status = held.row_is_late or commit.status_changed or commit.ended
        if not (first or status):
            held.row_lags = held.row_lags or bool(commit.events) or commit.custom_status_changed
            return
        full = projection.copy()
        if first:
            started = begun or held.started
            full.input = None if started is None else started.input
        try:
            if first and begun is None:
                # The write of its first commit was missed: the row has the input of the execution before.
                full.input = await self._input(held)
            values = await self._formats.row_of(full, held.start_id, first=first, status=status)
            await self._write(held, values, begins=begins)
        except StoreError as error:
            log.warning("instance %r: its row is not up to date, it will be mended: %s", held.instance_id, error)
            held.row_is_late = True

    async def catch_up(self, held: Held) -> None:
        """Write custom status and times, where the row still lags behind.  Raises StoreError."""
        projection = held.state.projection
        if held.row_lags and projection is not None and not held.row_is_late:
            await self._write(held, await self._formats.row_of(projection, held.start_id, first=False, status=False))

    async def _input(self, held: Held) -> str | None:
        """The input of the execution that is held, from the row of its start; None where that is gone."""
        row = await self._access.event_row(held.instance_id, 1)
        if row is None or row.values.get("ExecutionId") != held.execution_id:
            return None
        event = (await self._formats.event(held.instance_id, row)).event
        return event.input if isinstance(event, ExecutionStarted) else None

    async def _write(self, held: Held, values: dict[str, Value | None], *, begins: bool = False) -> None:
        """Write columns; `begins`: they are of the first commit of a client's start."""
        table = self._access.names.instances
        for _ in range(TRIES):
            if held.row_etag is None and not _is_child(held):
                held.row_is_late = held.row_lags = False  # purged: nobody inserts a row but the client that starts
                return
            if held.row_etag is None and "Name" not in values:
                held.row_is_late = True  # these columns alone are no row: the next write is of all
                return
            if held.row_etag is None:
                operation = Operation(do=Do.INSERT, partition=held.partition_key, key="", values=values)
            else:
                operation = Operation(
                    do=Do.MERGE, partition=held.partition_key, key="", values=values, etag=held.row_etag
                )
            try:
                held.row_etag = await self._access.write(table, operation)
                self._written(held)
                return
            except (Conflict, NotThere):
                row = await self._access.instances_row(held.instance_id)
                if row is not None and row.values.get("LastUpdatedTime") == values.get("LastUpdatedTime"):
                    # Ours, by a write whose answer was lost.
                    held.row_etag = row.etag
                    self._written(held)
                    return
                sentinel = await self._access.sentinel(held.instance_id)
                held.row_etag = None if row is None else row.etag
                if begins and row is None and sentinel is not None and sentinel.etag == held.etag:
                    await self._eraser.take_back(held.instance_id, sentinel)
                    return
                if not self._may_write(held, row, sentinel):
                    held.row_lags = False
                    return

    @staticmethod
    def _written(held: Held) -> None:
        held.row_execution, held.row_is_late, held.row_lags = held.execution_id, False, False

    def _may_write(self, held: Held, row: Row | None, sentinel: Sentinel | None) -> bool:
        """Whether the row is still this commit's to write."""
        if sentinel is None or sentinel.etag != held.etag:
            return False
        if row is None:
            return _is_child(held)  # whose row is not there yet; a client's start was purged
        view = self._formats.row_view(row)
        told = sentinel.state.projection
        if view.status is Status.PENDING and view.execution_id == held.execution_id and told is not None:
            # Turned, since it was last read, by who rewinds what has failed: the row of what lives is not terminal.
            return told.status is not Status.FAILED
        return not names_newer_start(view, sentinel)

    async def rewinds(self, held: Held, row: Row | None) -> None:
        """Say on the row that an instance is to be rewound, before its commit: a terminal row never stands over a live
        execution, or a query would miss it (rule 7).  Raises StoreUnavailable where the row has changed."""
        if row is None or self._formats.row_view(row).status is Status.PENDING:
            return
        values = self._formats.rewound_row(self._access.environment.now())
        operation = Operation(do=Do.MERGE, partition=row.partition, key="", values=values, etag=row.etag)
        try:
            held.row_etag = await self._access.write(self._access.names.instances, operation)
        except (Conflict, NotThere) as error:
            raise StoreUnavailable(f"instance {held.instance_id!r}: its row changed, it is read anew") from error
        held.row_is_late = True

    async def mend(self, held: Held, row: Row | None, projection: Projection) -> None:
        """Write the row of an instance that this host holds and whose status it does not tell (rule 9)."""
        values = await self._formats.row_of(projection, held.start_id, first=True, status=True)
        custom = projection.custom_status
        if custom is None and row is not None:
            custom = self._formats.custom_status(row)
        values["CustomStatus"] = custom_status_text(custom)
        await self._write(held, values)
        if not held.row_is_late:
            log.warning(
                "instance %r: its row did not tell what its history says, and is mended to %s",
                held.instance_id,
                projection.status.name,
            )


def _is_child(held: Held) -> bool:
    return held.started is not None and held.started.parent is not None
