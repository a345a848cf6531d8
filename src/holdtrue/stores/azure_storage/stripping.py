"""Takes our columns and rows from an instance, so that .NET alone knows what stands there (rule 15).

What is left is what .NET would have written: its history, a sentinel of three columns, a row that is up to date.
"""

import msgspec

from holdtrue.core.projection import Status
from holdtrue.stores.errors import StoreUnavailable
from holdtrue.stores.protocol import CommitResult

from .access import Access, is_conflict
from .adopting import Adopter
from .committing import Committer
from .formats import Formats
from .holding import Held
from .instances_row import custom_status_text
from .loading import Read
from .names import SENTINEL
from .payloads import Payloads
from .planning import MOST_OPERATIONS, Part
from .sentinel import COLUMN, next_episode
from .service import ANY, Do, Instant, Operation, ServiceError, Value

TRIES = 8


class Stripper:
    """Strips instances that this host holds."""

    def __init__(self, access: Access, formats: Formats, committer: Committer, adopter: Adopter) -> None:
        self._access = access
        self._formats = formats
        self._committer = committer
        self._adopter = adopter
        self._payloads = Payloads(formats)

    async def strip(self, held: Held, read: Read) -> None:
        """Bring the row up to date; then take away the extra rows and our columns, with them or after them.

        Raises StoreUnavailable where another wrote meanwhile.
        """
        await self.mend(held, read)
        extras = [row.key for row in read.partition.extras]
        sentinel = read.sentinel
        if sentinel is None:
            await self._delete(held, extras)
            return
        if sentinel.state.episode == "" and not extras:
            return  # .NET's own
        room = MOST_OPERATIONS - 1
        while len(extras) > room:
            now, extras = extras[:room], extras[room:]
            state = msgspec.structs.replace(
                held.state,
                episode=next_episode(held.state.episode, self._committer.chance()),
                previous=held.state.episode,
            )
            part = Part(
                operations=_deletes(held, now), state=state, execution_id=held.execution_id, complete=True, aside=True
            )
            if await self._committer.write_part(held, part) is not CommitResult.COMMITTED:
                raise _changed(held)
        await self._last(held, extras, _bare(held, read))
        await self._payloads.forget(held.state, msgspec.structs.replace(held.state, payload=None))

    async def mend(self, held: Held, read: Read) -> None:
        """Bring the row up to date."""
        projection, sentinel, view = read.projection, read.sentinel, read.view
        if projection is None or sentinel is None:
            return
        if not sentinel.is_ours and view is not None and view.status is Status.PENDING:
            return  # rewound by .NET: its worker ends it
        if sentinel.is_ours and read.row is not None and not held.row_is_late:
            shown = self._formats.custom_status(read.row)
            held.row_is_late = custom_status_text(shown) != custom_status_text(projection.custom_status)
        await self._adopter.mend_row(held, read)

    async def _last(self, held: Held, extras: list[str], values: dict[str, Value | None] | None) -> None:
        """The transaction that ends it: without values the sentinel goes too, which only kept messages."""
        tables, table = self._access.service.tables, self._access.names.history
        pause = 0.1
        for _ in range(TRIES):
            if values is None:
                last = Operation(do=Do.DELETE, partition=held.partition_key, key=SENTINEL, etag=held.etag)
            else:
                last = Operation(
                    do=Do.REPLACE, partition=held.partition_key, key=SENTINEL, values=values, etag=held.etag
                )
            try:
                await tables.transact(table, [*_deletes(held, extras), last])
                return
            except ServiceError as error:
                if not is_conflict(error):
                    raise self._access.failure(f"instance {held.instance_id!r}", error) from error
            found = await self._access.sentinel_row(held.instance_id)
            if found is None or COLUMN not in found.values:
                return  # ours, by a write whose answer was lost; or .NET's, which has begun
            if found.etag != held.etag:
                raise _changed(held)
            await self._access.environment.sleep(pause)
            pause = min(2.0, pause * 2)
        raise _changed(held)

    async def _delete(self, held: Held, keys: list[str]) -> None:
        """Rows of ours that were left without a sentinel."""
        for key in keys:
            await self._access.delete_row(
                self._access.names.history,
                Operation(do=Do.DELETE, partition=held.partition_key, key=key, etag=ANY),
            )


def _deletes(held: Held, keys: list[str]) -> list[Operation]:
    return [Operation(do=Do.DELETE, partition=held.partition_key, key=key, etag=ANY) for key in keys]


def _bare(held: Held, read: Read) -> dict[str, Value | None] | None:
    """The sentinel's columns without ours; None where it stands for no history."""
    sentinel = read.sentinel
    assert sentinel is not None
    if not sentinel.has_history:
        return None
    values: dict[str, Value | None] = {"ExecutionId": held.execution_id, "IsCheckpointComplete": sentinel.complete}
    if sentinel.completed_at is not None:
        values["CheckpointCompletedTimestamp"] = Instant(sentinel.completed_at)
    return values


def _changed(held: Held) -> StoreUnavailable:
    return StoreUnavailable(f"instance {held.instance_id!r} changed while it was settled: run it again")
