"""Status reads, gathered: one read at a time goes to the store, and those that come meanwhile go together.

A thousand waits that are woken at once cost a few reads, a single one pays nothing.
"""

import asyncio

from holdtrue.stores.protocol import InstanceRecord, TaskHubStore

MOST = 500
"""Ids asked for in one read."""


class StatusReads:
    """Reads records one id at a time, as few calls of the store as may be."""

    def __init__(self, store: TaskHubStore) -> None:
        self._store = store
        self._busy = False
        self._waiting: dict[str, asyncio.Future[InstanceRecord | None]] = {}
        self._draining: asyncio.Task[None] | None = None

    async def read(self, instance_id: str) -> InstanceRecord | None:
        """The record as it is now or later, None if there is none; raises StoreError."""
        if self._busy:
            # Joins a read that has not begun, so that what it sees is not older than this call.
            future = self._waiting.get(instance_id)
            if future is None:
                future = self._waiting[instance_id] = asyncio.get_running_loop().create_future()
            return await asyncio.shield(future)
        self._busy = True
        try:
            return (await self._store.status([instance_id]))[0]
        finally:
            if self._waiting:
                self._draining = asyncio.ensure_future(self._drain())
            else:
                self._busy = False

    async def _drain(self) -> None:
        try:
            while self._waiting:
                ids = list(self._waiting)[:MOST]
                futures = [self._waiting.pop(instance_id) for instance_id in ids]
                try:
                    records = await self._store.status(ids)
                except Exception as error:  # noqa: BLE001  every one who asked is told
                    for future in futures:
                        if not future.done():
                            future.set_exception(error)
                            future.exception()  # told or not: no complaint where the reader has gone
                else:
                    for future, record in zip(futures, records, strict=True):
                        if not future.done():
                            future.set_result(record)
        finally:
            self._busy = False
            for future in self._waiting.values():
                future.cancel()
            self._waiting.clear()
