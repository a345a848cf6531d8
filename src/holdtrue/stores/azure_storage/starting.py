"""Starts an instance: the instances row is the point of decision (rule 10).

Insert, or replace under If-Match what the verified status allows to be replaced; an ambiguous answer is read back by
the start's own id.  Then the start message, with the same ids however often it is put.  Where .NET may yet write the
row of what is replaced, that is waited for first, and looked for afterwards (`late_rows`).
"""

import logging
from collections.abc import Awaitable, Callable

import msgspec

from holdtrue.core.messages import Start
from holdtrue.core.projection import Status
from holdtrue.stores.decisions import not_started
from holdtrue.stores.errors import OutcomeUnknown
from holdtrue.stores.protocol import CreateOutcome, CreateRequest, CreateResult

from .access import BUSY, Access, is_conflict
from .formats import Formats
from .late_rows import LateRows
from .posting import Poster
from .reading import Reader, Standing
from .service import Conflict, Do, NotThere, Operation, Refused, ServiceError

log = logging.getLogger("holdtrue.azure_storage")

TRIES = 12


class Starter:
    """Starts instances."""

    def __init__(self, access: Access, formats: Formats, poster: Poster, reader: Reader) -> None:
        self._access = access
        self._formats = formats
        self._poster = poster
        self._reader = reader
        self._late_rows = LateRows(access, formats)

    async def create(
        self, request: CreateRequest, wanted: Callable[[], Awaitable[bool]] | None = None
    ) -> CreateOutcome:
        """Create an instance, unless what stands under its id is in the way.

        `wanted` is asked before another start is written over: false where somebody else has made this start
        meanwhile, and what stands came after it.  Raises OutcomeUnknown where the row's write was never answered and
        cannot be read back, be it that another start has taken its place since.
        """
        start = request.start
        started = start.started
        unsure = False
        open_at: int | None = None
        """The generation of a write that was not answered."""
        if await self._access.sentinel(started.instance_id) is None:
            # Most starts find nothing: the insert tells it.
            inserted = await self._insert(start)
            if inserted:
                await self._poster.start(start)
                return _created(None, start)
            unsure = inserted is None
            open_at = started.generation if unsure else None
        pause, tries, before = 0.1, 0, ""
        while tries < TRIES:
            standing = await self._reader.standing(started.instance_id)
            view = standing.view
            if view is None or view.start_id != start.start_id:
                refused = _refusal(standing, request)
                if refused is not None:
                    return refused
                if view is not None and open_at is not None and view.generation > open_at:
                    # What would have to stand there before it may have been this start.
                    raise OutcomeUnknown(
                        f"instance {started.instance_id!r}: the start was not answered, and another start "
                        f"({view.execution_id}) has taken the place since: whether this one ran before it is not known"
                    )
            elif not before or view.execution_id != before:
                # Ours: by an attempt before, or by one whose answer was lost.
                outcome = await self._accepted(standing, start, unsure, before)
                if outcome is not None:
                    return outcome
            late = await self._late_rows.may_come(standing)
            if late and await self._late_rows.comes_yet(standing):
                continue
            if late and standing.sentinel is not None:
                before = standing.sentinel.execution_id
            tries += 1
            generation = _generation(standing)
            current = msgspec.structs.replace(start, started=msgspec.structs.replace(started, generation=generation))
            if standing.row is not None and wanted is not None and not await wanted():
                return _not_wanted(standing, start)
            done = await self._write(current, standing)
            if done:
                await self._poster.start(current)
                if before:
                    await self._late_rows.write_over(current, before)
                return _created(standing, current)
            unsure = True
            if done is None:
                open_at = generation
            await self._access.environment.sleep(pause)
            pause = min(2.0, pause * 2)
        raise OutcomeUnknown(
            f"instance {started.instance_id!r}: the storage account gives no clear answer; whether the start was "
            "accepted shows in its status. Try again with the same start id"
        )

    async def _write(self, start: Start, standing: Standing) -> bool | None:
        """Write the row of a start over what stands there; false where it has changed, None where that is not known."""
        try:
            await self._access.service.tables.write(
                self._access.names.instances, await self._operation(start, standing)
            )
        except ServiceError as error:
            if isinstance(error, NotThere) and error.code == "TableNotFound":
                raise self._access.failure(f"instance {start.started.instance_id!r}", error) from error
            if is_conflict(error):
                return False if isinstance(error, Conflict | NotThere) else None
            raise self._access.failure(f"instance {start.started.instance_id!r}", error) from error
        return True

    async def _insert(self, start: Start) -> bool | None:
        """Insert the row of the first start of an id; false where there is a row, None where that is not known."""
        values = await self._formats.start_row(start)
        partition = self._formats.partition_key(start.started.instance_id)
        operation = Operation(do=Do.INSERT, partition=partition, key="", values=values)
        try:
            await self._access.service.tables.write(self._access.names.instances, operation)
        except Conflict:
            return False
        except ServiceError as error:
            if isinstance(error, Refused) and error.status not in BUSY:
                raise self._access.failure(f"instance {start.started.instance_id!r}", error) from error
            return None
        return True

    async def _accepted(self, standing: Standing, start: Start, unsure: bool, before: str) -> CreateOutcome | None:
        """The outcome of a start whose row stands; its message is put again where the instance has not begun."""
        assert standing.view is not None and standing.row is not None
        record = standing.record
        if record is None:
            return None
        if record.projection.status is Status.PENDING and not record.length:
            waiting = await self._formats.waiting_start(standing.row, start.started.instance_id)
            await self._poster.start(waiting)
            if before:
                await self._late_rows.write_over(waiting, before)
        if unsure:
            return CreateOutcome(
                result=CreateResult.CREATED,
                instance_id=start.started.instance_id,
                execution_id=record.projection.execution_id,
            )
        return not_started(CreateResult.ALREADY, record.projection, record.condition)

    async def _operation(self, start: Start, standing: Standing) -> Operation:
        partition = self._formats.partition_key(start.started.instance_id)
        values = await self._formats.start_row(start)
        if standing.row is None:
            return Operation(do=Do.INSERT, partition=partition, key="", values=values)
        return Operation(do=Do.REPLACE, partition=partition, key="", values=values, etag=standing.row.etag)


def _refusal(standing: Standing, request: CreateRequest) -> CreateOutcome | None:
    record = standing.record
    if record is None:
        return None
    if record.start_id == request.start.start_id:
        return not_started(CreateResult.ALREADY, record.projection, record.condition)
    if record.projection.status not in request.replaceable:
        return not_started(CreateResult.REFUSED, record.projection, record.condition)
    return None


def _not_wanted(standing: Standing, start: Start) -> CreateOutcome:
    if standing.record is not None:
        return not_started(CreateResult.REFUSED, standing.record.projection, standing.record.condition)
    started = start.started
    return CreateOutcome(
        result=CreateResult.REFUSED, instance_id=started.instance_id, execution_id=started.execution_id
    )


def _generation(standing: Standing) -> int:
    """Above that of whatever stands there, so that no clock is asked which of two starts is newer."""
    before = -1 if standing.view is None else standing.view.generation
    sentinel = standing.sentinel
    if sentinel is not None and sentinel.state.projection is not None:
        before = max(before, sentinel.state.projection.generation)
    return before + 1


def _created(standing: Standing | None, start: Start) -> CreateOutcome:
    record = None if standing is None else standing.record
    return CreateOutcome(
        result=CreateResult.CREATED if record is None else CreateResult.REPLACED,
        instance_id=start.started.instance_id,
        execution_id=start.started.execution_id,
        status=None if record is None else record.projection.status,
    )
