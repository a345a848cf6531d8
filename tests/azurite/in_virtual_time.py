"""Azurite for a test that runs in virtual time: its clock is the test's, and a request takes no time at all.

The requests are the real ones.  They are made on a loop of their own, in a thread, and the loop with virtual time
stands still meanwhile: so everything happens in one order here too.
"""

import asyncio
import threading
from collections.abc import Callable, Collection, Coroutine, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.environment import REAL, Environment
from holdtrue.stores.azure_storage.http.blobs import HttpBlobs, blob_path
from holdtrue.stores.azure_storage.http.connection import Connection, from_connection_string
from holdtrue.stores.azure_storage.http.queues import HttpQueues
from holdtrue.stores.azure_storage.http.requests import Answer, Requests
from holdtrue.stores.azure_storage.http.tables import HttpTables
from tools.azurite import Azurite, start

CLOCK = Path(__file__).with_name("clock.mjs")
LIMIT_SECONDS = 60.0
"""A request that takes longer will never end."""


class VirtualAzurite:
    """One emulator for the tests of a process, and the thread in which requests to it are made."""

    def __init__(self) -> None:
        self._azurite: Azurite = start(preload=CLOCK)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="requests", daemon=True)
        self._thread.start()

    def new_account(self) -> Connection:
        """An account that holds nothing."""
        return from_connection_string(self._azurite.connection_string(self._azurite.new_account()))

    def stop(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._azurite.stop()

    def call(self, request: Coroutine[Any, Any, Any]) -> Any:
        """What a request gives, or raises."""
        return asyncio.run_coroutine_threadsafe(request, self._loop).result(LIMIT_SECONDS)


class VirtualService:
    """An account of it, as the port `Service` says, for one process of the test; `clock` is the service's own."""

    def __init__(self, azurite: VirtualAzurite, connection: Connection, clock: Environment) -> None:
        self._azurite = azurite
        self._connection = connection
        self._requests = requests = _Requests(connection, REAL)

        def done(request: Coroutine[Any, Any, Any]) -> Any:
            requests.now = clock.now()
            return azurite.call(request)

        self.tables: Any = _Done(HttpTables(requests, REAL), done)
        self.queues: Any = _Done(HttpQueues(requests), done)
        self.blobs: Any = _Done(HttpBlobs(requests), done)

    async def open(self) -> None:
        self._azurite.call(self._requests.open())

    async def close(self) -> None:
        self._azurite.call(self._requests.close())

    def blob_url(self, container: str, blob: str) -> str:
        return self._connection.blob.url + blob_path(container, blob)


class _Done:
    """Calls of a service, each made at one moment; as on the model's account it takes a step to go there, and one to
    come back: whoever makes it may end in between."""

    def __init__(self, service: object, done: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._service = service
        self._done = done

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._service, name)

        @wraps(call)
        async def on_its_way(*given: Any, **named: Any) -> Any:
            await asyncio.sleep(0)
            try:
                return self._done(call(*given, **named))
            finally:
                await asyncio.sleep(0)

        setattr(self, name, on_its_way)
        return on_its_way


class _Requests(Requests):
    """They tell the emulator what time it is."""

    now: Ticks = 0

    async def send(
        self,
        service: str,
        method: str,
        path: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        expect: Collection[int],
        again: bool = False,
        most: int | None = None,
    ) -> Answer:
        headers = {**(headers or {}), "holdtrue-clock": str(self.now * 1_000 // TICKS_PER_SECOND)}
        return await super().send(service, method, path, query, headers, body, expect=expect, again=again, most=most)
