"""Hosts on Azurite behind proxies of their own, in one process, and how one is killed.

A killed host is dropped: its proxy lets nothing through any more and its tasks are cancelled where they stand.  What
it does in its last moments reaches no account, as with a process that is gone.
"""

import asyncio
import logging
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import holdtrue
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.http.connection import from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.reconciling import Pace
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.errors import StoreError
from holdtrue.testing.storage_proxy import Rule, Seen, StorageProxy
from holdtrue.testing.storage_real_service import RealService
from tools.azurite import Azurite

TIMEOUT = 4.0
"""Seconds until a host gives a request up."""
PACE = Pace(every_seconds=3.0, requests_a_minute=6_000.0, fresh_seconds=2.0)

log = logging.getLogger("holdtrue.faults")

_host: ContextVar["RunningHost | None"] = ContextVar("host", default=None)


def know_whose_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """From now on each task belongs to the host in whose code it was made."""

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> Any:
        task = asyncio.Task(coroutine, loop=loop, **more)
        if (host := _host.get()) is not None:
            host.tasks.add(task)
        return task

    loop.set_task_factory(make)


class HostLog(logging.Handler):
    """Keeps what each host logs."""

    def emit(self, record: logging.LogRecord) -> None:
        if (host := _host.get()) is not None:
            at = asyncio.get_running_loop().time()
            host.log.append((at, f"{host.name} says: {record.getMessage()}"))


def story_of(name: str, proxy: StorageProxy) -> list[tuple[float, str]]:
    """What a host asked the account, with the times; polls that found nothing left out."""
    found = []
    for seen in proxy.seen:
        if seen.fault or not (seen.empty or seen.about.role == "partitions"):
            spoiled = f" SPOILED: {seen.fault}" if seen.fault else ""
            found.append((seen.at, f"{name} {seen.kind} {' '.join(seen.instances)} {seen.status}{spoiled}"))
    return found


class RunningHost:
    """A host with a proxy of its own; a start that fails is tried again, as a supervisor would."""

    def __init__(
        self,
        azurite: Azurite,
        account: str,
        app: holdtrue.App,
        settings: AzureStorageSettings,
        *,
        name: str,
        rules: list[Rule],
        real: RealService | None,
        told: Callable[[Seen], None] | None = None,
        killed: Callable[["RunningHost"], None] | None = None,
    ) -> None:
        self._azurite, self._account = azurite, account
        self._app, self._settings = app, settings
        self._on_killed = killed
        self.name = name
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.proxy = StorageProxy(azurite.ports, real=real, told=told)
        self.proxy.rules = rules
        self.host: holdtrue.Host | None = None
        self.log: list[tuple[float, str]] = []
        self.is_dead = False
        self.defect: Exception | None = None
        """What it should not have raised when it started."""
        self._service: HttpService | None = None
        self._life: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Begin to start; it is up when it is."""
        await self.proxy.__aenter__()
        token = _host.set(self)
        try:
            self._life = asyncio.ensure_future(self._start())
        finally:
            _host.reset(token)

    async def _start(self) -> None:
        connection = self._azurite.connection_string(self._account, self.proxy.ports)
        while not self.is_dead:
            self._service = HttpService(from_connection_string(connection), timeout=TIMEOUT)
            store = AzureStorageStore(self._service, "Hub", settings=self._settings, pace=PACE)
            settings = HostSettings(name=self.name, retention=False, drain_seconds=1.0)
            host = holdtrue.Host(self._app, store, settings=settings)
            try:
                await host.start()
            except StoreError as error:
                log.warning("could not start: %s", error)
                await self._service.close()
                await asyncio.sleep(0.5)
            except Exception as error:
                self.defect = error
                raise
            else:
                self.host = host
                return

    def kill(self) -> None:
        """It does nothing more from this moment on."""
        if self.is_dead:
            return
        self.is_dead = True
        self.proxy.cut_off()
        for task in list(self.tasks):
            task.cancel()
        if self._on_killed is not None:
            self._on_killed(self)

    def story(self) -> list[tuple[float, str]]:
        """What it asked the account and what it logged, with the times; polls that found nothing left out."""
        return [*self.log, *story_of(self.name, self.proxy)]

    async def end(self) -> None:
        """Stop it in order, where it lives; then all that is left of it."""
        if not self.is_dead and self._life is not None:
            await asyncio.wait([self._life])
        if not self.is_dead and self.host is not None:
            stopping = asyncio.ensure_future(self.host.stop())
            await asyncio.wait([stopping])
            if not self.is_dead:  # by a fault at one of its last requests
                stopping.result()
        self.is_dead = True
        tasks = [task for task in self.tasks if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._service is not None:
            await self._service.close()
        await self.proxy.__aexit__()
