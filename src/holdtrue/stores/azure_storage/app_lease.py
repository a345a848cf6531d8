"""The app lease: one app at a time works on a hub.

It is the lease of a container, under an id made of the app's name; all workers of one app hold it together.  Our
hosts hold it under an id of their own, so that .NET workers, which try for it every five minutes, stay out; or,
where both shall serve the hub, under .NET's.  A .NET worker that has stopped leaves its lease behind for a minute:
where no .NET worker owns a partition, it is taken over under its own id and then given ours.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from holdtrue.environment import Environment
from holdtrue.stores.errors import StoreError

from .names import HubNames, fnv1a
from .renewals import Renewals
from .renewing import AppLeaseHeld, app_lease_until
from .service import Blobs, ServiceError

log = logging.getLogger("holdtrue.azure_storage")


class HubLeasedByAnotherApp(StoreError):
    """Another app holds the app lease of the hub.

    Stop that app, give both the same app name if they shall share the hub, or wait: the lease ends within a minute
    of its last renewal.
    """


class Info(msgspec.Struct, rename="pascal"):
    """The blob beside the lease."""

    owner_id: str | None = None
    desired_swap_id: str | None = None


class AppLeaseTerms(msgspec.Struct, frozen=True, kw_only=True):
    """In seconds."""

    lease: int = 60
    acquire: float = 300.0
    """How long a host that is kept out waits between two tries."""


def dotnet_lease_id(app_name: str) -> str:
    """The id under which .NET workers of that app hold the lease."""
    return f"{fnv1a(app_name.encode()):08x}-0000-0000-0000-000000000000"


def own_lease_id(app_name: str) -> str:
    """The id under which our hosts of that app do; .NET makes none like it."""
    return f"{fnv1a(app_name.encode()):08x}-686f-6c64-7472-756500000000"  # "holdtrue" in hex


class AppLease:
    """The app lease of one hub, as one host holds it.

    The `renewals` prolong it.  `dotnet_lives` says whether a .NET worker owns a partition (`Ownership.dotnet_lives`).
    `on_lost` is told once when the lease is no longer ours: the host must stop.  With `beside_dotnet` it is held
    under .NET's id.
    """

    def __init__(
        self,
        blobs: Blobs,
        names: HubNames,
        app_name: str,
        environment: Environment,
        terms: AppLeaseTerms,
        renewals: Renewals,
        *,
        dotnet_lives: Callable[[], Awaitable[bool]],
        on_lost: Callable[[], None],
        beside_dotnet: bool = False,
    ) -> None:
        self._blobs = blobs
        self._container = names.app_lease
        self._blob = names.app_lease_info
        self._dotnet_id = dotnet_lease_id(app_name)
        self._id = self._dotnet_id if beside_dotnet else own_lease_id(app_name)
        self._app_name = app_name
        self._environment = environment
        self._terms = terms
        self._renewals = renewals
        self._dotnet_lives = dotnet_lives
        self._on_lost = on_lost
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def is_held(self) -> bool:
        """Whether the lease is ours at this moment, by this host's monotonic clock."""
        return self._timer is not None and self._environment.monotonic() < self._renewals.app_lease_until()

    async def acquire(self) -> None:
        """Take the lease and keep it.  Raises HubLeasedByAnotherApp where another holds it, else a ServiceError."""
        if not await self._take():
            raise HubLeasedByAnotherApp(
                f"another app than {self._app_name!r}, or a .NET worker of it, holds {self._container!r}. Stop it; its "
                f"lease ends within {self._terms.lease} s. Where both shall serve the hub, give them one app name and "
                "allow both beside each other in the settings"
            )
        self._renewals.keep_app_lease(AppLeaseHeld(self._container, self._id), self._until)
        self._set_timer(self._until)

    async def wait(self) -> None:
        """Take the lease as soon as it is to be had, and keep it; a host kept out waits here."""
        while True:
            try:
                await self.acquire()
                return
            except HubLeasedByAnotherApp as error:
                log.warning("%s; trying again in %g s", error, self._terms.acquire)
            await self._environment.sleep(self._terms.acquire)

    async def close(self, *, release: bool) -> None:
        """Renew it no more; give the lease up with `release` (when no other host of ours is left).

        What cannot be released ends by itself.
        """
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        await self._renewals.drop_app_lease()
        if release:
            try:
                await self._blobs.release_lease(self._container, None, self._id)
            except ServiceError as error:
                log.info("the app lease of %s was not released: %s", self._container, error)

    def look(self) -> None:
        """Something of it has changed, or it ends now: ask the renewals how it stands."""
        if self._timer is None:
            return
        until = self._renewals.app_lease_until()
        if self._environment.monotonic() < until:
            self._set_timer(until)
            return
        self._timer.cancel()
        self._timer = None
        log.warning("the app lease %s is lost: another app has it, or it could not be renewed", self._container)
        self._on_lost()

    def _set_timer(self, until: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._environment.call_later(max(until - self._environment.monotonic(), 0.0), self.look)

    async def _take(self) -> bool:
        """Whether the lease is ours now."""
        sent = self._environment.monotonic()
        taken = await self._blobs.acquire_lease(self._container, None, self._terms.lease, self._id)
        if not taken and self._id != self._dotnet_id and not await self._dotnet_lives():
            sent = self._environment.monotonic()
            taken = await self._blobs.acquire_lease(
                self._container, None, self._terms.lease, self._dotnet_id
            ) and await self._blobs.change_lease(self._container, None, self._dotnet_id, self._id)
        if taken:
            self._until = app_lease_until(sent, self._terms.lease)
            await self._tell()
        return taken

    async def _tell(self) -> None:
        """Name the owner in the blob, where it names another."""
        data = await self._blobs.get_blob(self._container, self._blob)
        try:
            info = msgspec.json.decode(data or b"{}", type=Info)
        except msgspec.DecodeError:
            info = Info()
        if info.owner_id != self._id:
            info = Info(self._id, info.desired_swap_id if info.desired_swap_id != self._id else None)
            await self._blobs.put_blob(self._container, self._blob, msgspec.json.encode(info))
