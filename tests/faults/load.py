"""How loaded the machine is, so that no case fails because others take its time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from holdtrue.stores.azure_storage.http.connection import from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from tools.azurite import Azurite

MOST_LOAD = 0.03
"""Seconds of a request above which no further case begins."""


class Load:
    """How loaded the machine is, by how long a request to the emulator takes; cases begin only where it is not."""

    def __init__(self, azurite: Azurite) -> None:
        self._service = HttpService(from_connection_string(azurite.connection_string()))
        self._running = 0
        self._next = 0.0
        self.seconds = 0.0

    async def measure(self) -> None:
        """All the time, until it is cancelled."""
        loop = asyncio.get_running_loop()
        await self._service.open()
        try:
            await self._service.queues.create_queue("load")
            while True:
                began = loop.time()
                await self._service.queues.approximate_count("load")
                self.seconds += (loop.time() - began - self.seconds) / 4
                await asyncio.sleep(0.1)
        finally:
            await self._service.close()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A case's turn."""
        loop = asyncio.get_running_loop()
        while (self._running and self.seconds > MOST_LOAD) or loop.time() < self._next:
            await asyncio.sleep(0.05)
        self._next = loop.time() + 0.1 + 10 * self.seconds  # it is to show in the load before the next one comes
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
