"""What the tests of recorded histories share: real hosts in virtual time, code that changes, and what is recorded."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from holdtrue.authoring.app import App
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.engine.settings import HostSettings
from holdtrue.host import Host
from holdtrue.stores.memory import MemoryHub, MemoryStore
from holdtrue.stores.protocol import InstanceCopy, InstanceQuery, TaskHubStore
from holdtrue.testing import virtual_time
from holdtrue.testing.environment import SimulatedEnvironment

SETTINGS = HostSettings(name="host", schedules=False)


def app_of(*orchestrators: Callable[..., Any], name: str | None = None, on_mismatch: Any = "hold") -> App:
    """An app with these orchestrators, and the activities that they call."""
    app = App()
    app.activity(name="double")(_double)
    app.activity(name="halve")(_halve)
    app.activity(name="fail")(_fail)
    for orchestrator in orchestrators:
        app.orchestrator(name=name, on_mismatch=on_mismatch)(orchestrator)
    return app


async def _double(ctx: Any, n: int = 1) -> int:
    return 2 * n


async def _halve(ctx: Any, n: int = 1) -> int:
    return n // 2


async def _fail(ctx: Any, n: int = 1) -> int:
    raise ValueError(f"{n} fails")


def in_virtual_time(main: Callable[[SimulatedEnvironment], Awaitable[Any]], seed: int = 1) -> Any:
    """Run a test's main coroutine on a loop of its own with virtual time."""
    return virtual_time.run(main(SimulatedEnvironment(seed)))


async def served(
    app: App, hub: MemoryHub, environment: SimulatedEnvironment, act: Callable[[Host], Awaitable[Any]], seconds: float
) -> None:
    """Serve a hub for so long after `act` was done with the host's client."""
    store = MemoryStore(hub, environment=environment)
    await store.open()
    async with Host(app, store, settings=SETTINGS, environment=environment) as host:
        await act(host)
        await asyncio.sleep(seconds)
    await store.close()


async def recorded(hub: MemoryHub, environment: SimulatedEnvironment) -> list[InstanceCopy]:
    """All that is recorded in a hub."""
    store = MemoryStore(hub, environment=environment)
    await store.open()
    found = await all_of(store)
    await store.close()
    return found


async def all_of(store: TaskHubStore) -> list[InstanceCopy]:
    """All that is recorded in the hub of an open store."""
    page = await store.query(InstanceQuery(page_size=10_000))
    copies = await store.copies([record.projection.instance_id for record in page.records])
    return [copy for copy in copies if copy is not None]


def plain(copies: list[InstanceCopy]) -> list[InstanceCopy]:
    """Copies without what each hub derives."""
    for copy in copies:
        copy.record.size = 0
        copy.record.at_rest = copy.record.waits_for_worker = False
    return copies


def status_of(copies: list[InstanceCopy]) -> dict[str, tuple[Status, bool]]:
    """Status of each, and whether it is held."""
    return {
        copy.record.projection.instance_id: (copy.record.projection.status, copy.record.condition is not None)
        for copy in copies
    }


def is_open(copy: InstanceCopy) -> bool:
    """Whether it has not ended."""
    return copy.record.projection.status not in TERMINAL
