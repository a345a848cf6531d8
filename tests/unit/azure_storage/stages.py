"""Tests that a host of its own on the model plays, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import holdtrue
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.virtual_time import run

S = TypeVar("S")


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
