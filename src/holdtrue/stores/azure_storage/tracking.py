"""Two accounts as one: history and instances lie in the tracking store's account, all else in the hub's."""

from collections.abc import Sequence

from .names import HubNames
from .service import Blobs, Filter, Operation, Queues, Row, RowPage, Service, Tables


class TrackedTables:
    """The tables of two accounts, by their names."""

    def __init__(self, hub: Tables, tracking: Tables, names: HubNames) -> None:
        self._hub = hub
        self._tracking = tracking
        self._names = frozenset((names.history, names.instances))

    def _of(self, table: str) -> Tables:
        return self._tracking if table in self._names else self._hub

    async def create_table(self, table: str) -> bool:
        """Make a table; false if it was there."""
        return await self._of(table).create_table(table)

    async def delete_table(self, table: str) -> bool:
        """Delete a table; false if there was none."""
        return await self._of(table).delete_table(table)

    async def write(self, table: str, operation: Operation) -> str | None:
        """Write one row; its new etag."""
        return await self._of(table).write(table, operation)

    async def transact(self, table: str, operations: Sequence[Operation]) -> list[str | None]:
        """Write rows of one partition, all or none."""
        return await self._of(table).transact(table, operations)

    async def get(self, table: str, partition: str, key: str, *, select: Sequence[str] | None = None) -> Row | None:
        """A row."""
        return await self._of(table).get(table, partition, key, select=select)

    async def query(
        self,
        table: str,
        where: Filter | None = None,
        *,
        select: Sequence[str] | None = None,
        top: int | None = None,
        token: str | None = None,
    ) -> RowPage:
        """A page of rows."""
        return await self._of(table).query(table, where, select=select, top=top, token=token)


class TrackedService:
    """The account of a hub whose history and instances lie in another (`tracking`); queues and blobs are the hub's."""

    def __init__(self, hub: Service, tracking: Service, names: HubNames) -> None:
        self._hub = hub
        self._tracking = tracking
        self.tables: Tables = TrackedTables(hub.tables, tracking.tables, names)

    @property
    def queues(self) -> Queues:
        """The hub's."""
        return self._hub.queues

    @property
    def blobs(self) -> Blobs:
        """The hub's."""
        return self._hub.blobs

    async def open(self) -> None:
        """Connect to both."""
        await self._hub.open()
        await self._tracking.open()

    async def close(self) -> None:
        """Give the connections back; idempotent."""
        await self._tracking.close()
        await self._hub.close()

    def blob_url(self, container: str, blob: str) -> str:
        """The absolute URL of a blob of the hub's."""
        return self._hub.blob_url(container, blob)
