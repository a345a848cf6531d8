"""Tests that a host of its own on the model plays, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import holdtrue
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.service import Row
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import run

S = TypeVar("S")

SETTINGS = AzureStorageSettings(partition_count=1, max_queue_polling_interval=0.2, lease_acquire_interval=1.0)

app = holdtrue.App()
"""What most of them run; a module may add orchestrations of its own."""
ran: list[str] = []
"""What `note` was run with, since the stage of the test was made."""


@app.activity
async def note(ctx: holdtrue.ActivityContext, text: str) -> str:
    ran.append(text)
    return text


@app.orchestrator
async def one_step(ctx: holdtrue.OrchestrationContext, text: str) -> str:
    return await ctx.call_activity(note, input=text)


class Account(StorageModel):
    """An account of which every row can be read."""

    def __init__(self) -> None:
        ran.clear()
        super().__init__(SimulatedEnvironment(1))

    async def rows(self, table: str) -> list[Row]:
        """All rows of a table."""
        found: list[Row] = []
        token: str | None = None
        while True:
            page = await self.tables.query(table, token=token)
            found += page.rows
            token = page.token
            if token is None:
                return found

    def store(self, hub: str) -> AzureStorageStore:
        """A host's store, on a hub of one partition."""
        return AzureStorageStore(self, hub, environment=SimulatedEnvironment(7), settings=SETTINGS)


def played(
    test: Callable[[S, holdtrue.Client], Awaitable[None]],
    app: holdtrue.App,
    make: Callable[[], tuple[S, AzureStorageStore]],
) -> Callable[[], None]:
    """The test with what `make` gives it, and a client of a host that has the app and serves the store."""

    def play() -> None:
        async def main() -> None:
            stage, store = make()
            await store.open()
            settings = HostSettings(name="h", retention=False, schedules=False)
            host = holdtrue.Host(app, store, settings=settings, environment=SimulatedEnvironment(2))
            await host.start()
            async with asyncio.timeout(7_200):
                await test(stage, host.client)
            await host.stop()

        run(main())

    play.__name__, play.__doc__ = test.__name__, test.__doc__
    return play
