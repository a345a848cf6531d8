"""Hosts of the matrix that are processes of their own, behind proxies of ours: killed, they are gone."""

import asyncio
from collections.abc import Callable

from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.testing.storage_proxy import Rule, Seen, StorageProxy
from holdtrue.testing.storage_real_service import RealService
from tests.faults import scenarios
from tests.faults.hosts import PACE, TIMEOUT, story_of
from tests.faults.processes import HostProcess, ours
from tests.faults.worker import Setup
from tools.azurite import Azurite


class OutsideHost:
    """As a `RunningHost`, but a process: `kill` is SIGKILL.  What its activities do is noted here too."""

    def __init__(
        self,
        azurite: Azurite,
        account: str,
        settings: AzureStorageSettings,
        *,
        name: str,
        rules: list[Rule],
        real: RealService | None,
        told: Callable[[Seen], None] | None = None,
    ) -> None:
        self._azurite, self._account = azurite, account
        self._settings = settings
        self.name = name
        self.proxy = StorageProxy(azurite.ports, real=real, told=told)
        self.proxy.rules = rules
        self.is_dead = False
        self.defect: Exception | None = None
        self._process: HostProcess | None = None
        self._life: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Begin to start; it is up when it is."""
        await self.proxy.__aenter__()
        setup = Setup(
            app=scenarios.__name__,
            connection=self._azurite.connection_string(self._account, self.proxy.ports),
            hub="Hub",
            name=self.name,
            settings=self._settings,
            pace=PACE,
            timeout=TIMEOUT,
        )
        self._process = HostProcess(ours(setup), scenarios.heard)
        self._life = asyncio.ensure_future(self._start(self._process))

    async def _start(self, process: HostProcess) -> None:
        try:
            await process.start()
        except Exception as error:
            self.defect = error

    def kill(self) -> None:
        """It is gone; what it had sent is done all the same."""
        self.is_dead = True
        if self._process is not None:
            self._process.kill()

    def story(self) -> list[tuple[float, str]]:
        """What it asked the account."""
        return story_of(self.name, self.proxy)

    async def end(self) -> None:
        """Kill it, where it lives."""
        self.kill()
        if self._process is not None and self._life is not None:
            await self._process.end()
            await asyncio.gather(self._life, return_exceptions=True)
        await self.proxy.__aexit__()
