"""The hub's rows and queues, as the store's verbs ask for them: reads that are tried again, errors of ours."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from holdtrue.environment import Environment
from holdtrue.stores.errors import StoreCorrupt, StoreDenied, StoreMissing, StoreUnavailable

from .names import SENTINEL, HubNames, escape_key, partition_of, row_key
from .sentinel import COLUMN, Sentinel, read_sentinel
from .service import (
    ANY,
    All,
    Conflict,
    Do,
    Filter,
    NotThere,
    Operation,
    Refused,
    Row,
    RowPage,
    Service,
    ServiceError,
    Test,
    Unsure,
)

log = logging.getLogger("holdtrue.azure_storage")

T = TypeVar("T")

TRIES = 5
"""How often a request is made whose answers say nothing."""
FIRST_PAUSE = 0.2
"""Seconds before the second try; each pause is twice the one before."""
BUSY = frozenset((408, 429, 500, 502, 503, 504))
"""Statuses of a service that does not work now."""
DENIED = frozenset((401, 403))
"""Statuses of a service that lets nobody in with this key."""


class Partition(msgspec.Struct, kw_only=True):
    """A history partition as read: its sentinel, its event rows in order, its extra rows in order.

    `strange` are the keys of rows that are none of these.
    """

    sentinel: Sentinel | None
    rows: list[Row]
    extras: list[Row]
    strange: list[str] = []


class Access:
    """Reads and writes of one hub.  Raises StoreUnavailable where the service does not answer, StoreDenied where it
    refuses the key, StoreMissing where the hub's tables are gone."""

    def __init__(self, service: Service, names: HubNames, environment: Environment) -> None:
        self.service = service
        self.names = names
        self.environment = environment
        self.partitions = 4

    def partition_of(self, instance_id: str) -> int:
        """The number of the control queue that serves an instance."""
        return partition_of(instance_id, self.partitions)

    async def read(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a request that may be made twice, until it is answered."""
        pause = FIRST_PAUSE
        for attempt in range(TRIES):
            try:
                return await call()
            except Unsure as error:
                failed: ServiceError = error
            except Refused as error:
                if error.status not in BUSY:
                    raise self.failure(what, error) from error
                failed = error
            if attempt < TRIES - 1:
                await self.environment.sleep(pause)
                pause *= 2
        raise StoreUnavailable(f"{what}: the storage account does not answer ({failed}); it is tried again later")

    def failure(self, what: str, error: ServiceError) -> Exception:
        """The error of ours for one of the service's."""
        if isinstance(error, NotThere) and error.code in ("TableNotFound", "QueueNotFound", "ContainerNotFound"):
            return StoreMissing(f"{what}: the hub {self.names.hub!r} is gone ({error}); make it anew, or restore it")
        if isinstance(error, Unsure):
            return StoreUnavailable(f"{what}: the storage account does not answer ({error})")
        if isinstance(error, Refused) and error.status in DENIED:
            return StoreDenied(
                f"{what}: the storage account does not let this process in ({error}). Check the account's key, what "
                "its shared access signature or identity may do and until when, and the account's network rules"
            )
        return StoreUnavailable(f"{what}: the storage account refuses it ({error})")

    # -- rows ------------------------------------------------------------------------------------------

    async def instances_row(self, instance_id: str, *, select: Sequence[str] | None = None) -> Row | None:
        """The instances row."""
        key = escape_key(instance_id)
        return await self.read(
            f"instance {instance_id!r}",
            lambda: self.service.tables.get(self.names.instances, key, "", select=select),
        )

    async def sentinel(self, instance_id: str) -> Sentinel | None:
        """The sentinel."""
        row = await self.sentinel_row(instance_id)
        return None if row is None else read_sentinel(row)

    async def sentinel_row(self, instance_id: str) -> Row | None:
        """The sentinel's row as it stands, whatever it says."""
        key = escape_key(instance_id)
        return await self.read(
            f"instance {instance_id!r}", lambda: self.service.tables.get(self.names.history, key, SENTINEL)
        )

    async def event_row(self, instance_id: str, ordinal: int) -> Row | None:
        """One row of the history, whichever execution it is of."""
        key = escape_key(instance_id)
        return await self.read(
            f"instance {instance_id!r}",
            lambda: self.service.tables.get(self.names.history, key, row_key(ordinal)),
        )

    async def query(
        self, table: str, where: Filter | None, *, select: Sequence[str] | None = None, top: int | None = None
    ) -> list[Row]:
        """All rows that a filter finds, however many pages they come in."""
        return [row async for page in self.pages(table, where, select=select, top=top) for row in page]

    async def history_partition(self, instance_id: str) -> Partition:
        """The whole history partition, as it stood at one moment.

        More than a page is no snapshot: then it is read until the sentinel is the same before all pages and after them.
        """
        where = Test("PartitionKey", "eq", escape_key(instance_id))
        page = await self._page(self.names.history, where)
        if page.token is None:
            return _sorted_out(page.rows)
        before = await self.sentinel(instance_id)
        for _ in range(TRIES * 4):
            found = _sorted_out(await self.query(self.names.history, where))
            after = await self.sentinel(instance_id)
            if _etag(before) == _etag(found.sentinel) == _etag(after):
                return found
            before = after
        raise StoreUnavailable(f"instance {instance_id!r}: its history changes while it is read; try again later")

    async def pages(
        self, table: str, where: Filter | None, *, select: Sequence[str] | None = None, top: int | None = None
    ) -> AsyncIterator[list[Row]]:
        """The rows that a filter finds, as they come: some pages are empty, and only the absent token is the end."""
        token: str | None = None
        while True:
            page = await self._page(table, where, select=select, top=top, token=token)
            yield page.rows
            token = page.token
            if token is None:
                return

    async def _page(self, table: str, where: Filter | None, **more: Any) -> RowPage:
        return await self.read(f"table {table}", lambda: self.service.tables.query(table, where, **more))

    async def children_rows(self, instance_id: str) -> list[Row]:
        """The instances rows that name this one as parent."""
        where = All((Test("ParentInstanceId", "eq", instance_id),))
        return await self.query(self.names.instances, where)

    # -- the hub's own table -----------------------------------------------------------------------------

    async def write_own(self, operation: Operation) -> str | None:
        """Write a row of the hub's own table, which is made at the first use; its etag.

        For writes that may be done twice.  Raises Conflict where an etag or an insert is refused.
        """
        return await self.write(self.names.own, operation, make=True)

    async def put_own(self, rows: Sequence[Operation]) -> None:
        """Write or delete rows of one partition of the hub's own table, whatever stood there: up to 100 with a request.

        Raises NotThere where one that is to be deleted is gone: then none of its hundred is.
        """
        table = self.names.own
        for begin in range(0, len(rows), 100):
            part = rows[begin : begin + 100]
            if len(part) == 1:
                await self.write_own(part[0])
            else:
                await self._written(table, lambda: self.service.tables.transact(table, part), make=True)  # noqa: B023

    async def write(self, table: str, operation: Operation, *, make: bool = False) -> str | None:
        """Write a row, again where the answer says nothing.  Raises Conflict and NotThere as they come."""
        conditional = operation.do is Do.INSERT or operation.etag not in (None, ANY)
        return await self._written(
            table, lambda: self.service.tables.write(table, operation), make=make, conditional=conditional
        )

    async def _written(
        self, table: str, write: Callable[[], Awaitable[T]], *, make: bool, conditional: bool = False
    ) -> T:
        """Make a write that may be made twice, until it is answered.  A write without a condition has no conflicts:
        a 409 or 412 says as little of it as a 500."""
        pause = FIRST_PAUSE
        for attempt in range(TRIES):
            try:
                return await write()
            except NotThere as error:
                if not make or error.code != "TableNotFound":
                    raise
                await self.read(f"table {table}", lambda: self.service.tables.create_table(table))
            except ServiceError as error:
                if isinstance(error, Conflict):
                    if conditional:
                        raise
                elif isinstance(error, Refused) and error.status not in BUSY:
                    raise self.failure(f"table {table}", error) from error
                if attempt == TRIES - 1:
                    raise StoreUnavailable(f"table {table}: the storage account does not answer ({error})") from error
                await self.environment.sleep(pause)
                pause *= 2
        raise StoreUnavailable(f"table {table}: the storage account does not answer")

    async def get_own(self, partition: str, key: str) -> Row | None:
        """A row of the hub's own table."""
        try:
            return await self.read(
                f"table {self.names.own}", lambda: self.service.tables.get(self.names.own, partition, key)
            )
        except StoreMissing:
            return None

    async def query_own(
        self, where: Filter, *, limit: int | None = None, select: Sequence[str] | None = None
    ) -> list[Row]:
        """Rows of the hub's own table, the first `limit` of them."""
        rows: list[Row] = []
        token: str | None = None
        top = None if limit is None else min(limit, 1_000)
        while limit is None or len(rows) < limit:
            asked = token
            try:
                page = await self.read(
                    f"table {self.names.own}",
                    lambda: self.service.tables.query(
                        self.names.own,
                        where,
                        select=select,
                        top=top,
                        token=asked,  # noqa: B023
                    ),
                )
            except StoreMissing:
                break
            rows += page.rows
            token = page.token
            if token is None:
                break
        return rows if limit is None else rows[:limit]

    async def delete_own(self, operation: Operation) -> bool:
        """Delete a row of the hub's own table; false where there was none."""
        return await self.delete_row(self.names.own, operation)

    async def delete_all_own(self, rows: Sequence[Row]) -> int:
        """Delete rows of one partition of the hub's own table, up to 100 with a request; how many were there."""
        operations = [Operation(do=Do.DELETE, partition=row.partition, key=row.key, etag=ANY) for row in rows]
        deleted = 0
        for begin in range(0, len(operations), 100):
            part = operations[begin : begin + 100]
            try:
                await self.put_own(part)
                deleted += len(part)
            except NotThere:
                for operation in part:
                    deleted += await self.delete_own(operation)
        return deleted

    async def delete_unchanged(self, table: str, row: Row) -> bool:
        """Delete a row as it was read, if it is there; false where it has changed since."""
        operation = Operation(do=Do.DELETE, partition=row.partition, key=row.key, etag=row.etag)
        try:
            await self.write(table, operation)
        except NotThere:
            pass
        except Conflict:
            return False
        return True

    async def delete_row(self, table: str, operation: Operation) -> bool:
        """Delete a row; false where there was none."""
        try:
            await self.write(table, operation)
        except NotThere:
            return False
        return True


def _etag(sentinel: Sentinel | None) -> str | None:
    return None if sentinel is None else sentinel.etag


def _sorted_out(rows: Sequence[Row]) -> Partition:
    events, extras, strange = [], [], []
    sentinel: Sentinel | None = None
    for row in rows:
        if row.key == SENTINEL:
            sentinel = read_sentinel(row)
        elif row.key > SENTINEL:
            extras.append(row)
        elif "EventType" in row.values:
            events.append(row)
        else:
            strange.append(row.key)
    return Partition(sentinel=sentinel, rows=events, extras=extras, strange=strange)


def extra_of(row: Row) -> str:
    """The text of an extra row; raises StoreCorrupt where it is none of ours."""
    from .sentinel import text_of

    try:
        text = text_of(row.values)
    except ValueError as error:
        raise StoreCorrupt(f"the extra row {row.key!r} of instance partition {row.partition!r}: {error}") from error
    if text is None:
        raise StoreCorrupt(
            f"the extra row {row.key!r} of instance partition {row.partition!r} has no column {COLUMN!r}"
        )
    return text


def own_value(row: Row, type: type[T]) -> T:
    """What a row of the hub's own table holds; raises StoreCorrupt where it is none of ours."""
    try:
        return msgspec.json.decode(extra_of(row), type=type)
    except msgspec.DecodeError as error:
        raise StoreCorrupt(f"the row {row.key!r} of the hub's own partition {row.partition!r}: {error}") from error


def own_values(rows: Sequence[Row], type: type[T]) -> list[tuple[Row, T]]:
    """What rows of the hub's own table hold; what is none of ours is passed over."""
    found = []
    for row in rows:
        try:
            found.append((row, own_value(row, type)))
        except StoreCorrupt as error:
            log.warning("passed over: %s", error)
    return found


def is_conflict(error: ServiceError) -> bool:
    """Whether an answer to a conditional write leaves open whether it was done (rule 4)."""
    return isinstance(error, Unsure | Conflict | NotThere) or (isinstance(error, Refused) and error.status in BUSY)
