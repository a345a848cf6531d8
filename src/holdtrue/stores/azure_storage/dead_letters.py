"""Dead letters of a hub, in the hub's own table: messages that could not be handled, each with its reason."""

import hashlib
import logging
from collections.abc import Sequence

import msgspec

from holdtrue.core.events import TICKS_PER_SECOND, GenericEvent, Ticks
from holdtrue.core.messages import DeadLetter, OutboundMessage
from holdtrue.stores.errors import StoreCorrupt
from holdtrue.stores.protocol import StoredDeadLetter

from .access import Access, own_value
from .formats import BLOB_COLUMN, Formats
from .large import BLOB_SUFFIX, Blob, pack, unpack
from .sentinel import columns, extra_text
from .service import ANY, All, Do, Operation, Row, Test

log = logging.getLogger("holdtrue.azure_storage")

PARTITION = "letters"
FOLDER = "^letters"
"""Of their blobs: no instance's folder has a name like it."""
A_SECOND = 10**9
"""Numbers for the letters of one second, of which each takes one by chance: so many that no two take the same."""


def number_of(inserted: Ticks, id: str) -> int:
    """A letter's number: by the second in which its message was put, and the same however often it is buried."""
    chance = int(hashlib.sha256(id.encode()).hexdigest()[:12], 16)
    return inserted // TICKS_PER_SECOND * A_SECOND + chance % A_SECOND


def unreadable_kept(instance_id: str, error: Exception) -> DeadLetter:
    """The letter of a message beside a history that nobody can read."""
    message = OutboundMessage(instance_id=instance_id, event=GenericEvent(timestamp=0, data=None))
    return DeadLetter(instance_id=instance_id, reason=str(error), message=message)


class DeadLetters:
    """The dead letters of a hub.  A letter that is too large for a row is in a blob that the row names."""

    def __init__(self, access: Access, formats: Formats) -> None:
        self._access = access
        self._formats = formats

    async def bury(self, letter: DeadLetter, id: str, inserted: Ticks) -> None:
        """Keep a dead letter of the envelope `id`; keeping it again changes nothing."""
        stored = StoredDeadLetter(number=number_of(inserted, id), at=self._access.environment.now(), letter=letter)
        try:
            values = extra_text(stored)
        except ValueError:
            blob = Blob(f"{FOLDER}/{stored.number}{BLOB_SUFFIX}", pack(msgspec.json.encode(stored).decode()))
            await self._formats.put_blob(blob)
            values = {**columns(""), BLOB_COLUMN: blob.name}
        await self._access.write_own(
            Operation(do=Do.REPLACE, partition=PARTITION, key=_key(stored.number), values=values)
        )

    async def read(self, *, limit: int, after: int) -> list[StoredDeadLetter]:
        """Letters by number, later than `after`."""
        where = All((Test("PartitionKey", "eq", PARTITION), Test("RowKey", "gt", _key(after))))
        found = []
        for row in await self._access.query_own(where, limit=limit):
            try:
                found.append(await self._stored(row))
            except StoreCorrupt as error:
                log.warning("passed over: %s", error)
        return found

    async def get(self, number: int) -> StoredDeadLetter | None:
        """One letter."""
        row = await self._access.get_own(PARTITION, _key(number))
        return None if row is None else await self._stored(row)

    async def _stored(self, row: Row) -> StoredDeadLetter:
        name = row.values.get(BLOB_COLUMN)
        if not isinstance(name, str):
            return own_value(row, StoredDeadLetter)
        place = f"blob {name!r}"
        try:
            text = unpack(await self._formats.get_blob(name), place)
            return msgspec.json.decode(text, type=StoredDeadLetter)
        except msgspec.DecodeError as error:
            raise StoreCorrupt(f"{place}: {error}") from error

    async def remove(self, numbers: Sequence[int]) -> int:
        """Delete letters; how many there were."""
        removed = 0
        for number in numbers:
            row = await self._access.get_own(PARTITION, _key(number))
            if row is None:
                continue
            operation = Operation(do=Do.DELETE, partition=PARTITION, key=row.key, etag=ANY)
            removed += await self._access.delete_own(operation)
            if isinstance(name := row.values.get(BLOB_COLUMN), str):
                await self._formats.delete_blob(name)
        return removed

    async def count(self) -> int:
        """How many there are."""
        where = Test("PartitionKey", "eq", PARTITION)
        return len(await self._access.query_own(where, select=("RowKey",)))


def _key(number: int) -> str:
    return f"{number:020d}"
