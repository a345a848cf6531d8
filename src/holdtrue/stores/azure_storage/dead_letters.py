"""Dead letters of a hub, in the hub's own table: messages that could not be handled, each with its reason."""

import hashlib
from collections.abc import Sequence

import msgspec

from holdtrue.core.events import Ticks
from holdtrue.core.messages import DeadLetter
from holdtrue.stores.protocol import StoredDeadLetter

from .access import Access, extra_of
from .sentinel import extra_text
from .service import ANY, All, Do, Operation, Row, Test

PARTITION = "letters"


def number_of(inserted: Ticks, id: str) -> int:
    """A letter's number: by when its message was put, and the same however often the message is buried."""
    chance = int(hashlib.sha256(id.encode()).hexdigest()[:8], 16)
    return inserted * 100 + chance % 100


class DeadLetters:
    """The dead letters of a hub."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def bury(self, letter: DeadLetter, id: str, inserted: Ticks) -> None:
        """Keep a dead letter of the envelope `id`; keeping it again changes nothing."""
        stored = StoredDeadLetter(number=number_of(inserted, id), at=self._access.environment.now(), letter=letter)
        await self._access.write_own(
            Operation(do=Do.REPLACE, partition=PARTITION, key=_key(stored.number), values=extra_text(stored))
        )

    async def read(self, *, limit: int, after: int) -> list[StoredDeadLetter]:
        """Letters by number, later than `after`."""
        where = All((Test("PartitionKey", "eq", PARTITION), Test("RowKey", "gt", _key(after))))
        rows = await self._access.query_own(where, limit=limit)
        return [_stored(row) for row in rows]

    async def get(self, number: int) -> StoredDeadLetter | None:
        """One letter."""
        row = await self._access.get_own(PARTITION, _key(number))
        return None if row is None else _stored(row)

    async def remove(self, numbers: Sequence[int]) -> int:
        """Delete letters; how many there were."""
        removed = 0
        for number in numbers:
            operation = Operation(do=Do.DELETE, partition=PARTITION, key=_key(number), etag=ANY)
            removed += await self._access.delete_own(operation)
        return removed

    async def count(self) -> int:
        """How many there are."""
        where = Test("PartitionKey", "eq", PARTITION)
        return len(await self._access.query_own(where, select=("RowKey",)))


def _key(number: int) -> str:
    return f"{number:020d}"


def _stored(row: Row) -> StoredDeadLetter:
    return msgspec.json.decode(extra_of(row), type=StoredDeadLetter)
