"""Deletes ended instances (rule 12): the row first, then the partition under the sentinel's If-Match.

Whoever meets an interrupted purge goes on with it; a new execution of the id that begins meanwhile stops it.  Blobs
are listed before the row goes, so that none of a newer execution is among them, and deleted before the sentinel that
says up to when they were made.

An instance whose status nobody can read is purged as it is where it is named itself: nobody could end it.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.core.projection import TERMINAL
from holdtrue.stores.errors import StoreCorrupt, StoreUnavailable
from holdtrue.stores.protocol import Purged

from .access import Access
from .erasing import Eraser
from .formats import Formats
from .listing import Listing
from .names import SENTINEL
from .progress import Reports
from .purged_starts import PurgedStarts
from .reading import Reader
from .sentinel import Sentinel, State, state_values
from .service import BlobInfo, Conflict, Do, NotThere, Operation, Row
from .verdicts import names_newer_start

log = logging.getLogger("holdtrue.azure_storage")

TRIES = 8


class Purger:
    """Purges instances."""

    def __init__(
        self,
        access: Access,
        formats: Formats,
        reader: Reader,
        listing: Listing,
        reports: Reports,
        eraser: Eraser,
        purged: PurgedStarts,
    ) -> None:
        self._access = access
        self._formats = formats
        self._reader = reader
        self._listing = listing
        self._reports = reports
        self._eraser = eraser
        self._purged = purged

    async def purge(self, instance_ids: Sequence[str], *, recursive: bool) -> Purged:
        """Delete ended instances, with all below them that have ended."""
        counts = Purged(refused=[])
        for instance_id in instance_ids:
            below = await self._listing.readable_children(instance_id) if recursive else []
            if not await self._purge_one(instance_id, counts, unread_too=True):
                continue
            while below:
                child = below.pop()
                further = await self._listing.readable_children(child)
                if await self._purge_one(child, counts, unread_too=False):
                    counts.children += 1
                    below += further
        return counts

    async def _purge_one(self, instance_id: str, counts: Purged, *, unread_too: bool) -> bool:
        for _ in range(TRIES):
            try:
                standing = await self._reader.standing(instance_id)
            except StoreCorrupt as error:
                if not unread_too:
                    counts.refused.append(instance_id)
                    return False
                log.warning("purged as it is: %s", error)
                if not await self._purge_unread(instance_id):
                    continue
                counts.instances += 1
                return True
            record, row, sentinel = standing.record, standing.row, standing.sentinel
            if record is None:
                # What is not there, and has a history without a row, came after its purge.
                if sentinel is not None and (sentinel.state.purging or (row is None and sentinel.has_history)):
                    await self._eraser.erase(instance_id, sentinel)
                return False
            newer = standing.view is not None and sentinel is not None and names_newer_start(standing.view, sentinel)
            missing = record.condition is not None and record.condition.kind == "history missing"
            if (record.projection.status not in TERMINAL and not missing) or (newer and not missing):
                counts.refused.append(instance_id)
                return False
            blobs = await self._eraser.blobs_of(instance_id)
            if row is None or sentinel is None:
                blobs = _made_before(blobs, max(0 if one is None else one.timestamp for one in (row, sentinel)))
            if row is not None and not await self._delete_row(row):
                continue
            if blobs and sentinel is not None:
                sentinel = await self._marked(instance_id, sentinel, max(one.created for one in blobs) + 1)
                if sentinel is None:
                    blobs = []  # another execution stands there, or it was purged by somebody else
            await self._eraser.delete_blobs(blobs)
            if sentinel is not None:
                await self._eraser.erase(instance_id, sentinel)
            await self._reports.forget_all(instance_id)
            counts.instances += 1
            return True
        raise StoreUnavailable(f"instance {instance_id!r} changes while it is purged: try again")

    async def _delete_row(self, row: Row) -> bool:
        """Delete an instances row as it was read; false where it has changed since."""
        await self._purged.note(row)
        return await self._access.delete_unchanged(self._access.names.instances, row)

    async def _purge_unread(self, instance_id: str) -> bool:
        """Purge an instance by the keys of its rows, whatever they say; false where it has changed meanwhile.

        What its sentinel says is overwritten, so that whoever meets the rest goes on with an ordinary purge.
        """
        sentinel_row, row = await asyncio.gather(
            self._access.sentinel_row(instance_id), self._access.instances_row(instance_id)
        )
        blobs = await self._eraser.blobs_of(instance_id)
        if row is None or sentinel_row is None:
            blobs = _made_before(blobs, max(0 if one is None else one.timestamp for one in (row, sentinel_row)))
        if row is not None and not await self._delete_row(row):
            return False
        if sentinel_row is None:
            await self._eraser.delete_blobs(blobs)
        else:
            before = max((one.created for one in blobs), default=-1) + 1
            operation = Operation(
                do=Do.MERGE,
                partition=sentinel_row.partition,
                key=SENTINEL,
                values=state_values(State(purging=True, blobs_before=before)),
                etag=sentinel_row.etag,
            )
            try:
                await self._access.write(self._access.names.history, operation)
            except (Conflict, NotThere):
                return False
            sentinel = await self._access.sentinel(instance_id)
            if sentinel is not None and sentinel.state.purging:
                await self._eraser.erase(instance_id, sentinel)
        await self._reports.forget_all(instance_id)
        return True

    async def _marked(self, instance_id: str, sentinel: Sentinel, blobs_before: Ticks) -> Sentinel | None:
        """The sentinel, which says that it is being purged, and the blobs of before with it; None where it is gone or
        a new execution's."""
        found: Sentinel | None = sentinel
        for _ in range(TRIES):
            if found is None or not _is_same(found, sentinel):
                return None
            if found.state.purging and found.state.blobs_before:
                return found
            operation = Operation(
                do=Do.MERGE,
                partition=self._formats.partition_key(instance_id),
                key=SENTINEL,
                values=state_values(msgspec.structs.replace(found.state, purging=True, blobs_before=blobs_before)),
                etag=found.etag,
            )
            with suppress(Conflict, NotThere):
                await self._access.write(self._access.names.history, operation)
            found = await self._access.sentinel(instance_id)
        raise StoreUnavailable(f"instance {instance_id!r} changes while it is purged: try again")


def _made_before(blobs: Sequence[BlobInfo], last_write: Ticks) -> list[BlobInfo]:
    """The blobs of an instance without row or without sentinel: no two hold a newer execution up, and what that has
    put since is not to be taken."""
    return [one for one in blobs if one.created < last_write - last_write % TICKS_PER_SECOND]


def _is_same(found: Sentinel, purged: Sentinel) -> bool:
    """Whether it is still the ended execution that is purged: its debt may have been cleared meanwhile."""
    projection = found.state.projection
    ended = projection is None or projection.status in TERMINAL
    return found.execution_id == purged.execution_id and (found.state.purging or ended)
