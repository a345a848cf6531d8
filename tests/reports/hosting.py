"""One host in this process for a test, and the client that goes with it."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import holdtrue
from holdtrue import Status
from tests.e2e.hubs import TIMEOUT, run

Main = Callable[[holdtrue.Client], Awaitable[Any]]


def host(app: holdtrue.App, folder: Path, **settings: Any) -> holdtrue.Host:
    """A host of this app on the test's hub."""
    return holdtrue.Host(app, folder / "hub.db", settings=holdtrue.HostSettings(**settings))


def hosted(folder: Path, app: holdtrue.App, main: Main, **settings: Any) -> None:
    """Run `main` with the client of a host."""

    async def body() -> None:
        async with host(app, folder, **settings) as running:
            await main(running.client)

    run(body())


async def ended(client: holdtrue.Client, instance_id: str, status: Status) -> holdtrue.InstanceStatus:
    """The status of an instance that ends so."""
    found = await client.wait_for_completion(instance_id, timeout=TIMEOUT)
    assert found.runtime_status is status, (found.runtime_status, found.failure)
    return found
