"""How what a host has of its partitions is prolonged where hosts write it: in the table's rows, or by leases on blobs.

Two ways of one act, as `board` has two of sharing out: `Renewer` says when, and asks no more than this.
"""

from typing import Protocol

import msgspec

from holdtrue.core.events import Ticks

from .blob_leases import INTENT, OWNERSHIP, lease_id
from .partitions import Lease, lease_values, prolonged, read_lease
from .renewing import RenewalTerms
from .service import Blobs, Conflict, Do, Operation, Service, Tables


class Prolonging(Protocol):
    """Where partitions are prolonged."""

    async def prolong(self, lease: Lease, now: Ticks) -> Lease:
        """Prolong a partition that is as it was read, at the service's time `now`; how it stands then.

        Raises Conflict or NotThere where it was written, or taken; a ServiceError where it is not known to be done.
        """

    async def found(self, lease: Lease) -> Lease | None:
        """How a partition stands that was written or taken; None where it is this host's no more.

        Raises a ServiceError.
        """


def prolonging(service: Service, terms: RenewalTerms) -> Prolonging:
    """Where the host of these terms prolongs its partitions."""
    if terms.leases:
        return Leases(service.blobs, terms.leases, terms.me)
    return Rows(service.tables, terms)


class Rows:
    """The rows of the partitions table: a row is prolonged only as it was (If-Match)."""

    def __init__(self, tables: Tables, terms: RenewalTerms) -> None:
        self._tables = tables
        self._terms = terms

    async def prolong(self, lease: Lease, now: Ticks) -> Lease:
        longer = prolonged(lease, now, self._terms.rows)
        values = lease_values(longer)
        row = Operation(do=Do.REPLACE, partition="", key=lease.partition, values=values, etag=lease.etag)
        return msgspec.structs.replace(longer, etag=await self._tables.write(self._terms.table, row) or "")

    async def found(self, lease: Lease) -> Lease | None:
        """The host writes its rows too, and one that wants a share writes its name there: it is ours all the same."""
        row = await self._tables.get(self._terms.table, "", lease.partition)
        there = None if row is None else read_lease(row)
        return there if there is not None and there.current_owner == self._terms.me else None


class Leases:
    """The leases on blobs: nobody takes that of the ownership from who has it."""

    def __init__(self, blobs: Blobs, container: str, me: str) -> None:
        self._blobs = blobs
        self._container = container
        self._me = me

    async def prolong(self, lease: Lease, now: Ticks) -> Lease:
        """The intent first, so that it ends first: then there is no owner of tomorrow who is gone today."""
        if not lease.is_draining:
            await self._renew(INTENT + lease.partition)  # a look finds out who has it else
        if not await self._renew(OWNERSHIP + lease.partition):
            raise Conflict(409, "LeaseLost", f"the lease of {lease.partition} is another's, or has ended")
        return lease

    async def found(self, lease: Lease) -> Lease | None:
        return None

    async def _renew(self, blob: str) -> bool:
        return await self._blobs.renew_lease(self._container, blob, lease_id(self._me, blob))
