"""Both sides of a hub: workers and clients of .NET and of Holdtrue on one Azurite."""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import holdtrue
from holdtrue.core.projection import Status
from holdtrue.engine.finishing import EpisodeFinisher
from holdtrue.stores.azure_storage.partitions import OUR_PREFIX
from holdtrue.stores.azure_storage.served import owners
from holdtrue.stores.azure_storage.settling import Settled
from holdtrue.stores.azure_storage.store import AzureStorageStore
from tests.dotnet import peer
from tests.dotnet.orchestrations import app
from tests.dotnet.worker import open_store
from tools.azurite import Azurite

HUB = "Shared"
ROOT = Path(__file__).resolve().parents[2]
DONE_SECONDS = 200
"""Longer than anything takes on the slowest machine."""


class Sides:
    """One hub and who works on it."""

    def __init__(self, connection: str, hub: str = HUB, *, by_table: bool = True) -> None:
        self.connection = connection
        self.by_table = by_table
        self._options = {} if by_table else peer.BY_BLOBS
        self.hub = hub
        self._processes: list[peer.Process] = []
        self._shell: peer.Shell | None = None
        self._store: AzureStorageStore | None = None
        self._asking = asyncio.Lock()

    async def dotnet(self, *words: str) -> Any:
        """A command of the .NET client."""
        async with self._asking:
            if self._shell is None:
                self._shell = peer.Shell(self.connection, self.hub, self._options)
            return await asyncio.to_thread(self._shell.ask, *words)

    async def store(self) -> AzureStorageStore:
        """A store of ours, for clients."""
        if self._store is None:
            self._store = open_store(self.connection, self.hub, by_table=self.by_table)
            await self._store.open()
        return self._store

    async def client(self) -> holdtrue.Client:
        """A client of ours."""
        return holdtrue.Client(await self.store(), app=app)

    async def worker(self, side: str, changed: Mapping[str, str] | None = None, *words: str) -> peer.Process:
        """A worker of `dotnet`, with some settings `changed`, or of `ours`, with `words` (of tests.dotnet.worker)."""
        process: peer.Process
        if side == "dotnet":
            options = {**self._options, **(changed or {})}
            process = await asyncio.to_thread(peer.worker, self.connection, self.hub, options)
        else:
            leases = "table" if self.by_table else "blobs"
            command = [sys.executable, "-m", "tests.dotnet.worker", self.hub, leases, *words]
            environment = {"HOLDTRUE_TEST_ACCOUNT": self.connection, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
            process = await asyncio.to_thread(peer.Process, command, environment)
        self._processes.append(process)
        return process

    async def end(self, process: peer.Process, *, kill: bool) -> None:
        """Let a worker drain, or kill it."""
        await asyncio.to_thread(process.kill if kill else process.stop)
        self._processes.remove(process)

    async def settle(self, *, leave: bool = False) -> Settled:
        """`hub settle`."""
        store = open_store(self.connection, self.hub, by_table=self.by_table)
        await store.open()
        try:
            return await store.settle(EpisodeFinisher(app), leave=leave)
        finally:
            await store.close()

    async def close(self) -> None:
        """End all."""
        for process in self._processes:
            process.kill()
        if self._shell is not None:
            self._shell.close()
        if self._store is not None:
            await self._store.close()


def on(azurite: Azurite, test: Callable[[Sides], Awaitable[None]], *, by_table: bool = True) -> None:
    """Run a test on a hub in an account of its own."""

    async def main() -> None:
        sides = Sides(azurite.connection_string(azurite.new_account()), by_table=by_table)
        try:
            async with asyncio.timeout(DONE_SECONDS + 80):
                await test(sides)
        finally:
            await sides.close()

    asyncio.run(main())


async def serves(sides: Sides, side: str) -> None:
    """Until a side serves the hub: only then does a client know in whose way it is to ask for a rewind."""
    access = (await sides.store())._access
    while not any(owner.startswith(OUR_PREFIX) is (side == "ours") for owner in await owners(access)):
        await asyncio.sleep(0.2)


async def there(sides: Sides, name: str) -> None:
    """Until an instance is there that another has started and does not wait for."""
    client = await sides.client()
    while await client.get_status(name) is None:
        await asyncio.sleep(0.2)


async def outcome(sides: Sides, name: str) -> tuple[str, Any]:
    """How an instance ended, and its output, or the message of its failure."""
    client = await sides.client()
    status = await client.wait_for_completion(name, timeout=DONE_SECONDS)
    ended = Status(status.runtime_status)
    if ended is Status.COMPLETED:
        return "Completed", status.output
    failure = status.failure
    return ended.name.capitalize(), None if failure is None else failure.message


async def begun(sides: Sides, name: str) -> None:
    """Until an instance has begun: an event that comes before its start, .NET loses."""
    client = await sides.client()
    while (await client.get_status(name)).runtime_status is Status.PENDING:
        await asyncio.sleep(0.2)


def some_time(seconds: float) -> float:
    """Up to so many seconds, by chance."""
    return random.SystemRandom().uniform(0.0, seconds)
