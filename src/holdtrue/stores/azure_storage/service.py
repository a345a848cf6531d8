"""What the store asks of an Azure Storage account: tables, queues and blobs, and how they fail.

The port has two implementations: requests over HTTP (`http/`), and a model in memory with faults
(`holdtrue.testing.storage_model`).  The same random calls are driven through both and must answer alike.
All that is ambiguous about an answer is in the errors' types: `Unsure` says nothing about the effect.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from holdtrue.core.events import Ticks


class Instant(msgspec.Struct, frozen=True):
    """A time in a table (Edm.DateTime), in ticks."""

    ticks: Ticks


class Typed(msgspec.Struct, frozen=True):
    """A value of a type that we never write (Edm.Int64, Edm.Guid, Edm.Binary, Edm.Double): kept as the text it has."""

    edm: str
    text: str


Value = str | int | bool | Instant | Typed
"""A property's value.  An absent property has none: `None` in a write is stored as no column."""


class ServiceError(Exception):
    """The service did not do what it was asked for, or did not say so."""


class Refused(ServiceError):
    """The service answered, and has done nothing: an HTTP status and the service's own code (`TableNotFound`)."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(f"{status} {code}: {message}" if message else f"{status} {code}")
        self.status = status
        self.code = code
        self.message = message


class Conflict(Refused):
    """409 or 412: what stands there is not what the request expected.  After a resend it may be our own write."""


class NotThere(Refused):
    """404: there is no such thing.  Of a message with an old receipt it says nothing at all."""


class TooLarge(ServiceError):
    """What was asked for has more bytes than were wanted at most; the rest was not read."""


class Unsure(ServiceError):
    """No answer, a broken one, or a 5xx: the request may have been done, or may yet be."""


class Row(msgspec.Struct, kw_only=True):
    """A row as read; `timestamp` is the service's own time of its last write."""

    partition: str
    key: str
    values: dict[str, Value]
    etag: str
    timestamp: Ticks = 0


class Do(StrEnum):
    """What to do with a row."""

    INSERT = "insert"
    """It must not be there (409)."""
    REPLACE = "replace"
    """All its columns; with an etag it must be that one (412) and be there (404), without one it may be missing."""
    MERGE = "merge"
    """The columns given; as above."""
    DELETE = "delete"
    """With an etag (`ANY`: whatever it is); it must be there (404)."""


ANY = "*"
"""The etag that every row there has."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One write of a row.  Keys are as stored: ids are escaped already.  `values` may hold None (no column)."""

    do: Do
    partition: str
    key: str
    values: Mapping[str, Value | None] = {}
    etag: str | None = None


class Test(msgspec.Struct, frozen=True):
    """A comparison in a filter: column, `eq` `ne` `ge` `gt` `le` `lt`, value."""

    column: str
    by: str
    value: Value


class All(msgspec.Struct, frozen=True):
    """A filter: every part holds."""

    parts: tuple["Filter", ...]


class Any(msgspec.Struct, frozen=True):
    """A filter: some part holds."""

    parts: tuple["Filter", ...]


Filter = Test | All | Any
"""A filter of a query."""


class RowPage(msgspec.Struct, kw_only=True):
    """Part of a query's answer, which may be empty and have a token all the same.  Only `token` None is the end.

    One page holds whole transactions; pages together are no snapshot.
    """

    rows: list[Row]
    token: str | None


class Tables(Protocol):
    """Tables.  Every method may raise Refused, Conflict, NotThere or Unsure."""

    async def create_table(self, table: str) -> bool:
        """Make a table; false if it was there."""

    async def delete_table(self, table: str) -> bool:
        """Delete a table; false if there was none."""

    async def write(self, table: str, operation: Operation) -> str | None:
        """Write one row; its new etag (None for a delete)."""

    async def transact(self, table: str, operations: Sequence[Operation]) -> list[str | None]:
        """At most 100 writes of one partition, each another row, all or none; the new etags.

        The Refused of a refused operation carries its `index` in the message's beginning, as the service gives it.
        """

    async def get(self, table: str, partition: str, key: str, *, select: Sequence[str] | None = None) -> Row | None:
        """A row, None where there is none (a missing table is NotThere with code TableNotFound)."""

    async def query(
        self,
        table: str,
        where: Filter | None = None,
        *,
        select: Sequence[str] | None = None,
        top: int | None = None,
        token: str | None = None,
    ) -> RowPage:
        """A page of rows in order of partition and key."""


class QueueMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message as got: `receipt` is what renews and deletes it; times in ticks, whole seconds."""

    id: str
    receipt: str
    text: str
    dequeue_count: int
    inserted: Ticks
    next_visible: Ticks


class Queues(Protocol):
    """Queues.  Every method may raise Refused, NotThere or Unsure."""

    async def create_queue(self, queue: str) -> bool:
        """Make a queue; false if it was there."""

    async def delete_queue(self, queue: str) -> bool:
        """Delete a queue; false if there was none."""

    async def put(self, queue: str, text: str, *, delay: int = 0) -> tuple[str, str]:
        """Put a message, visible after `delay` whole seconds (at most 7 days), never to expire; its id, receipt."""

    async def take(self, queue: str, limit: int, visibility: int) -> list[QueueMessage]:
        """Up to 32 messages, hidden for `visibility` seconds."""

    async def hide(self, queue: str, message: str, receipt: str, visibility: int) -> str:
        """Hide a message anew for so many seconds (0: give it back); its new receipt."""

    async def remove(self, queue: str, message: str, receipt: str) -> None:
        """Delete a message."""

    async def approximate_count(self, queue: str) -> int:
        """How many messages there are, hidden ones too."""


class BlobInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A blob in a listing."""

    name: str
    created: Ticks
    size: int
    etag: str
    leased: bool
    """Whether somebody holds its lease."""


class Blobs(Protocol):
    """Blobs, containers and their leases.  Every method may raise Refused, Conflict, NotThere or Unsure.

    `blob` None means the container itself, `lease` the id of a lease that is held.
    """

    async def create_container(self, container: str) -> bool:
        """Make a container; false if it was there."""

    async def delete_container(self, container: str) -> bool:
        """Delete a container; false if there was none."""

    async def put_blob(
        self, container: str, blob: str, data: bytes, *, only_new: bool = False, lease: str | None = None
    ) -> None:
        """Write a blob whole; with `only_new` it must not be there (Conflict)."""

    async def get_blob(self, container: str, blob: str, *, most: int | None = None) -> bytes | None:
        """A blob's bytes, None where there is none.  Raises TooLarge where there are more than `most`."""

    async def delete_blob(self, container: str, blob: str) -> bool:
        """Delete a blob; false if there was none."""

    async def list_blobs(
        self, container: str, prefix: str, *, token: str | None = None
    ) -> tuple[list[BlobInfo], str | None]:
        """A page of a listing by name, and the token of the next."""

    async def acquire_lease(self, container: str, blob: str | None, seconds: int, proposed: str) -> bool:
        """Lease it under the proposed id (again, if it is leased under it); false where another holds it."""

    async def renew_lease(self, container: str, blob: str | None, lease: str) -> bool:
        """Prolong a lease; false where it is no longer this one."""

    async def change_lease(self, container: str, blob: str | None, lease: str, proposed: str) -> bool:
        """Give a lease that is held another id; false where it is no longer this one."""

    async def release_lease(self, container: str, blob: str | None, lease: str) -> bool:
        """Give a lease up; false where it is no longer this one."""


class Service(Protocol):
    """An account: its three services."""

    @property
    def tables(self) -> Tables: ...

    @property
    def queues(self) -> Queues: ...

    @property
    def blobs(self) -> Blobs: ...

    async def open(self) -> None:
        """Connect."""

    async def close(self) -> None:
        """Give the connections back; idempotent."""

    def blob_url(self, container: str, blob: str) -> str:
        """The absolute URL of a blob, as rows name it."""
