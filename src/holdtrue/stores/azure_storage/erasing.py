"""Deletes a history partition under the If-Match of its sentinel, which goes last, and the blobs that it names.

For a purge (`purging`), for who goes on with one that was interrupted, and for a first commit that came when its
instance had been purged (rule 9).
"""

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from holdtrue.core.projection import TERMINAL
from holdtrue.stores.errors import StoreMissing, StoreUnavailable

from .access import Access, is_conflict
from .formats import Formats
from .names import SENTINEL, blob_prefixes, is_blob_of
from .sentinel import Sentinel, state_values
from .service import ANY, BlobInfo, Do, Operation, ServiceError

log = logging.getLogger("holdtrue.azure_storage")

BATCH = 99
AT_ONCE = 16
"""Blobs deleted at once."""


class Eraser:
    """Deletes what stands in history partitions."""

    def __init__(self, access: Access, formats: Formats) -> None:
        self._access = access
        self._formats = formats

    async def take_back(self, instance_id: str, sentinel: Sentinel) -> None:
        """Delete the first commit of a start that was purged (`verdicts.was_purged`): nobody answers for what it owes.

        Its blobs stay: what begins under the id now may have put some since.
        """
        log.warning("instance %r was purged while it began: its first commit is taken back", instance_id)
        await self.erase(instance_id, sentinel)

    async def erase(self, instance_id: str, sentinel: Sentinel) -> None:
        """Delete a history partition, each transaction under the sentinel's If-Match; stop where another begins."""
        partition = self._formats.partition_key(instance_id)
        if sentinel.state.blobs_before:
            left = await self.blobs_of(instance_id)
            await self.delete_blobs([one for one in left if one.created < sentinel.state.blobs_before])
        etag, state = sentinel.etag, msgspec.structs.replace(sentinel.state, purging=True)
        keys: list[str] = []
        for _ in range(10_000):
            if not keys:
                read = await self._access.history_partition(instance_id)
                if read.sentinel is None or not _is_still_purged(sentinel, read.sentinel):
                    return
                etag = read.sentinel.etag
                keys = [*(row.key for row in (*read.rows, *read.extras)), *read.strange]
            now, keys = keys[:BATCH], keys[BATCH:]
            operations = [Operation(do=Do.DELETE, partition=partition, key=key, etag=ANY) for key in now]
            last = not keys
            if last:
                operations.append(Operation(do=Do.DELETE, partition=partition, key=SENTINEL, etag=etag))
            else:
                operations.append(
                    Operation(do=Do.MERGE, partition=partition, key=SENTINEL, values=state_values(state), etag=etag)
                )
            try:
                etags = await self._access.service.tables.transact(self._access.names.history, operations)
            except ServiceError as error:
                if not is_conflict(error):
                    raise self._access.failure(f"instance {instance_id!r}", error) from error
                keys = []
                continue
            if last:
                return
            etag = etags[-1] or etag
        raise StoreUnavailable(f"instance {instance_id!r}: its purge does not end; it is gone on with later")

    async def blobs_of(self, instance_id: str) -> list[BlobInfo]:
        """The blobs of an instance, under its plain and its escaped id, as the container lists them."""
        container, blobs = self._access.names.large_messages, self._access.service.blobs
        listed: dict[str, BlobInfo] = {}
        for prefix in blob_prefixes(instance_id):
            token: str | None = None
            while True:
                asked = token
                try:
                    found, token = await self._access.read(
                        f"container {container}",
                        lambda: blobs.list_blobs(container, prefix, token=asked),  # noqa: B023
                    )
                except StoreMissing:
                    return []
                listed |= {one.name: one for one in found if is_blob_of(instance_id, one.name)}
                if token is None:
                    break
        return list(listed.values())

    async def delete_blobs(self, blobs: Sequence[BlobInfo]) -> None:
        """Delete these."""
        for begin in range(0, len(blobs), AT_ONCE):
            await asyncio.gather(*(self._formats.delete_blob(one.name) for one in blobs[begin : begin + AT_ONCE]))


def _is_still_purged(sentinel: Sentinel, found: Sentinel) -> bool:
    """Whether what stands there is what is purged, be it that a request of ours came late or its owner has cleared a
    debt; not another execution, or the same one rewound."""
    if found.state.purging or found.etag == sentinel.etag:
        return True
    projection = found.state.projection
    ended = found.is_ours and projection is not None and projection.status in TERMINAL
    return found.execution_id == sentinel.execution_id and ended
