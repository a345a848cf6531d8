"""What every part of the story stands on: the emulator, a proxy that loses answers, and the claims that are checked."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec

from holdtrue.environment import REAL
from holdtrue.stores.azure_storage.creating import create_hub
from holdtrue.stores.azure_storage.http.connection import from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.names import HubNames
from holdtrue.stores.azure_storage.service import NotThere
from holdtrue.testing.storage_proxy import Seen, StorageProxy
from tools.azurite import Azurite

PARTITIONS = 4


class Claim(msgspec.Struct, frozen=True):
    """What was told, whether it is so, and what was seen."""

    what: str
    holds: bool
    seen: str


class Part:
    """A part of the story: what it prints, and what it claims.  Its lines are kept until its turn comes."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.claims: list[Claim] = []
        self._kept: list[str] = []
        self._show: Callable[[str], None] | None = None

    def say(self, line: str = "") -> None:
        """Print a line."""
        if self._show is None:
            self._kept.append(line)
        else:
            self._show(line)

    def claim(self, what: str, holds: bool, seen: object = "") -> None:
        """Claim something; it is printed as it is."""
        self.claims.append(Claim(what, holds, str(seen)))
        self.say(f"  {'ok ' if holds else 'NOT SO'}  {what}" + ("" if holds else f": seen was {seen}"))

    def turn(self, show: Callable[[str], None]) -> None:
        """From now on its lines are shown at once."""
        for line in ["", f"== {self.title}", *self._kept]:
            show(line)
        self._show = show


class Stage:
    """An account of an emulator, with a proxy before it."""

    def __init__(self, azurite: Azurite, proxy: StorageProxy) -> None:
        self._azurite = azurite
        self._account = azurite.new_account()
        self.proxy = proxy

    def connection_string(self, *, spoiled: bool) -> str:
        """Of the account: through the proxy, or past it."""
        return self._azurite.connection_string(self._account, self.proxy.ports if spoiled else None)

    def service(self, *, spoiled: bool) -> HttpService:
        """Requests to the account, not opened yet."""
        return HttpService(from_connection_string(self.connection_string(spoiled=spoiled)))

    @asynccontextmanager
    async def opened(self, *, spoiled: bool) -> AsyncIterator[HttpService]:
        """The same, opened and closed."""
        service = self.service(spoiled=spoiled)
        await service.open()
        try:
            yield service
        finally:
            await service.close()

    @asynccontextmanager
    async def hub(self, name: str) -> AsyncIterator[HttpService]:
        """A new hub, and a way to it past the proxy."""
        async with self.opened(spoiled=False) as service:
            await create_hub(service, HubNames(name), PARTITIONS, REAL)
            yield service


def ends_in(hub: str, instance_id: str) -> Callable[[Seen], bool]:
    """The history transaction that ends an instance."""

    def matches(seen: Seen) -> bool:
        about = seen.about
        written = about.kind == "table transact history" and about.resource == f"{hub}History"
        return written and about.instance == instance_id and b'"ExecutionCompleted"' in seen.request.body

    return matches


@asynccontextmanager
async def beside(work: Awaitable[None]) -> AsyncIterator["asyncio.Task[None]"]:
    """Something that goes on beside the block, and ends with it."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        found = await asyncio.gather(task, return_exceptions=True)
        if isinstance(found[0], Exception) and not isinstance(found[0], NotThere):
            raise found[0]
