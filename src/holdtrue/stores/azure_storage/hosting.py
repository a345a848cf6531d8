"""A host's part in a hub: its app lease, the partitions that it owns, and the loops that serve them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from holdtrue.stores.errors import StoreError, StoreUnavailable

from .access import Access
from .app_lease import AppLease
from .beside import refuse_beside
from .blob_leases import LeaseBlobs
from .board import Board
from .http.connection import Reopening
from .mail import Mail
from .ownership import Ownership
from .partition_table import PartitionTable
from .polling import Polling
from .renewals import Renewals, Renewer
from .renewals_process import ChildProcess, ProcessRenewals
from .service import ServiceError
from .settings import AzureStorageSettings

log = logging.getLogger("holdtrue.azure_storage")


class Hosting:
    """One host at work on the hub.

    `pull` gets what a control queue has, `pull_work` work items; `came` is told of either.  `gained` is told of
    a partition; `drain` returns when nothing is in work any more of one that another is to have; `forget` is told that
    it is another's, `lost` that the whole part in the hub is.  `beside` runs beside, as long as it is open.
    """

    def __init__(
        self,
        access: Access,
        settings: AzureStorageSettings,
        mail: Mail,
        owner: str,
        *,
        pull: Callable[[int], Awaitable[int]],
        pull_work: Callable[[], Awaitable[int]],
        came: Callable[[], None],
        gained: Callable[[int], object],
        drain: Callable[[int], Awaitable[None]],
        forget: Callable[[int], object],
        lost: Callable[[], None],
        beside: Sequence[Callable[[], Coroutine[Any, Any, None]]],
        account: Reopening | None = None,
    ) -> None:
        self._access = access
        self._settings = settings
        self._mail = mail
        self._terms = settings.partition_terms()
        terms = settings.renewal_terms(owner, access.names.partitions, access.names.leases)
        self._renewals: Renewals
        if account is None or settings.renew_in_process:
            self._renewals = Renewer(access.service, access.environment, terms, changed=self._changed)
        else:
            start = partial(ChildProcess, access.environment)
            self._renewals = ProcessRenewals(
                start, account, access.environment, terms, changed=self._changed, gone=lost
            )
        self._told_gained = gained
        self._drain = drain
        self._forget = forget
        self._beside = beside
        self._tasks: list[asyncio.Task[None]] = []
        self._polling = Polling(
            access.environment,
            pull=pull,
            pull_work=pull_work,
            came=came,
            longest=settings.max_queue_polling_interval,
        )
        mail.returns_to(self._returns)
        blobs = LeaseBlobs(access.service.blobs, access.names.leases, owner, access.environment, self._terms)
        table = PartitionTable(
            access.service.tables, access.names.partitions, access.environment, self._terms, self._renewals
        )
        board: Board
        self._other_board: Board
        board, self._other_board = (table, blobs) if settings.use_table_partition_management else (blobs, table)
        self._ownership = Ownership(
            board,
            owner,
            access.environment,
            self._terms,
            self._renewals,
            on_gained=self._gained,
            on_losing=self._losing,
            on_lost=self._lost,
        )
        self._lease: AppLease | None = None
        if settings.use_app_lease:
            self._lease = AppLease(
                access.service.blobs,
                access.names,
                settings.app_name,
                access.environment,
                settings.app_lease_terms(),
                self._renewals,
                dotnet_lives=self._ownership.dotnet_lives,
                on_lost=lost,
                beside_dotnet=settings.beside_dotnet,
            )

    async def open(self, *, alone: bool = False) -> None:
        """Take part, with `alone` as the only host there is.

        Raises StoreError beside a .NET worker (`alone`: any host), without the app lease, or where the account fails.
        """
        try:
            environment = self._access.environment
            await refuse_beside(self._other_board, self._terms, environment, anyone=True, other_kind=True)
            if alone:
                await self._ownership.refuse_beside_anyone()
            elif not self._settings.beside_dotnet:
                await self._ownership.refuse_beside_dotnet()
            if self._lease is not None:
                await self._lease.acquire()
            await self._renewals.open()
            self._mail.renewed_by(self._renewals)
            await self._ownership.open()
        except ServiceError as error:
            await self._give_up()
            raise self._access.failure(f"hub {self._access.names.hub!r} could not be joined", error) from error
        except TimeoutError as error:
            await self._give_up()
            raise StoreUnavailable(
                f"hub {self._access.names.hub!r} could not be joined: its partitions could not be read in time. "
                "Start the host again"
            ) from error
        except (Exception, asyncio.CancelledError):
            await self._give_up()
            raise
        self._tasks = [asyncio.get_running_loop().create_task(run()) for run in self._beside]

    async def _give_up(self) -> None:
        await self._polling.close()
        if self._lease is not None:
            await self._lease.close(release=False)
        await self._end_renewals()

    async def _end_renewals(self) -> None:
        self._mail.renewed_by(None)
        await self._renewals.close()

    async def stop_polling(self) -> None:
        """Take no more work."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._polling.close()

    async def close(self) -> None:
        """Give the partitions back, and the app lease where this was the last host of ours."""
        await self._ownership.close()
        if self._lease is not None:
            try:
                last = not await self._ownership.others_of_ours()
            except (ServiceError, StoreError, TimeoutError) as error:
                log.info("whether other hosts are there is not known, the app lease runs out by itself: %s", error)
                last = False
            await self._lease.close(release=last)
        await self._end_renewals()

    def _changed(self, partition: str | None) -> None:
        if partition is None and self._lease is not None:
            self._lease.look()

    # -- partitions ------------------------------------------------------------------------------------

    def is_mine(self, partition: int) -> bool:
        """Whether this host may load, commit and put for a partition at this moment."""
        return self._ownership.is_mine(self._access.names.control(partition))

    def all_mine(self) -> bool:
        """Whether every partition is this host's at this moment."""
        return all(self.is_mine(partition) for partition in range(self._access.partitions))

    def _returns(self, queue: str, seconds: float) -> None:
        self._polling.wake_in(self._access.names.partition_number(queue), seconds)

    def wake(self, partition: int | None) -> None:
        """A message was put: into a control queue, or (None) a work item."""
        self._polling.wake(partition)

    def wake_all(self) -> None:
        """Look everywhere."""
        self._polling.wake_all()

    def _gained(self, control: str) -> None:
        number = self._access.names.partition_number(control)
        if number is not None:
            self._told_gained(number)
            self._polling.gained(number)

    async def _losing(self, control: str) -> None:
        """Another host is to have the partition: nothing more of it is got, and what is in work comes to its end."""
        number = self._access.names.partition_number(control)
        if number is not None:
            self._polling.lost(number)
            await self._drain(number)

    def _lost(self, control: str) -> None:
        number = self._access.names.partition_number(control)
        if number is not None:
            self._polling.lost(number)
            self._forget(number)
