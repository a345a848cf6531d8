"""Makes a task hub in an account, as .NET does, and deletes one.

Several hosts and clients do it at once, of either engine, and any may die in between.  The rows of the
partitions table say how many partitions a hub has; ours are written in one transaction, so that a hub never has
some of them only, and two hosts with different settings do not make one hub of both.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import msgspec

from holdtrue.core.errors import InvalidInput
from holdtrue.environment import Environment
from holdtrue.stores.errors import StoreError, StoreUnavailable

from .names import MAX_PARTITIONS, HubNames
from .service import Conflict, Do, NotThere, Operation, Refused, Service, Unsure

log = logging.getLogger("holdtrue.azure_storage")

T = TypeVar("T")

TRIES = 5
"""How often a call is made of which nothing is known, a second apart."""
BEING_DELETED = 120.0
"""Seconds to wait for a name that is still being deleted; the service says at least 30, and 40 for tables."""
_FREE_ROW = {
    "CurrentOwner": None,
    "NextOwner": None,
    "OwnedSince": None,
    "LastRenewal": None,
    "ExpiresAt": None,
    "IsDraining": False,
}


class HubLeased(StoreError):
    """The hub cannot be deleted: an app holds its app lease.  Stop that app; the lease ends a minute later."""


class CreatedHub(msgspec.Struct, frozen=True, kw_only=True):
    """What there is after `create_hub`: how many partitions, and whether it made their rows."""

    partition_count: int
    made: bool


async def create_hub(service: Service, names: HubNames, partition_count: int, environment: Environment) -> CreatedHub:
    """Make what is missing of a hub; idempotent.  A hub that is there keeps its number of partitions.

    Raises ServiceError as the account does, and StoreUnavailable for a name that is still being deleted after two
    minutes.
    """
    if not 1 <= partition_count <= MAX_PARTITIONS:
        raise InvalidInput(f"a hub has 1 to {MAX_PARTITIONS} partitions, not {partition_count}")
    tables, queues, blobs = service.tables, service.queues, service.blobs

    async def ensure(what: str, make: Callable[[str], Awaitable[object]]) -> None:
        await _repeated(what, lambda: make(what), environment)

    await ensure(names.app_lease, blobs.create_container)
    with suppress(Conflict):
        await ensure(names.app_lease_info, lambda blob: blobs.put_blob(names.app_lease, blob, b"{}", only_new=True))
    await ensure(names.partitions, tables.create_table)
    for table in (names.history, names.instances):
        await ensure(table, tables.create_table)
    await ensure(names.work_items, queues.create_queue)
    made = False
    while True:
        there = await _repeated(names.partitions, lambda: partition_numbers(service, names), environment)
        wanted = _count(there, partition_count)
        for number in range(wanted):
            await ensure(names.control(number), queues.create_queue)
        missing = [number for number in range(wanted) if number not in there]
        if not missing:
            break
        with suppress(Conflict):  # somebody was faster, or it was ours: what stands there decides
            await _repeated(names.partitions, lambda: _insert_rows(service, names, missing), environment)  # noqa: B023
            made = True
    if wanted != partition_count:
        log.warning(
            "the hub %r has %d partitions, the settings say %d: the hub's number counts. It cannot be changed while "
            "instances are there; a new hub takes the settings'",
            names.hub,
            wanted,
            partition_count,
        )
    return CreatedHub(partition_count=wanted, made=made)


async def delete_hub(service: Service, names: HubNames, *, lease_ids: tuple[str, ...] = ()) -> None:
    """Delete a hub with all that it holds; idempotent, and an interrupted one can be repeated.

    `lease_ids` are ids of the app lease that may be given up for it (`app_lease.lease_ids`).  Raises HubLeased,
    before anything is deleted, where another app holds it.
    """
    await _give_up_lease(service, names, lease_ids)
    for number in range(MAX_PARTITIONS):
        await service.queues.delete_queue(names.control(number))
    await service.queues.delete_queue(names.work_items)
    for table in (names.history, names.instances):
        await service.tables.delete_table(table)
    await service.tables.delete_table(names.own)
    await service.tables.delete_table(names.partitions)
    for container in (names.large_messages, names.leases, names.app_lease):
        await service.blobs.delete_container(container)


async def partition_numbers(service: Service, names: HubNames) -> set[int]:
    """The numbers of the partitions that have a row.  Raises NotThere without the table."""
    numbers = set()
    token: str | None = None
    while True:
        page = await service.tables.query(names.partitions, token=token)
        numbers |= {number for row in page.rows if (number := names.partition_number(row.key)) is not None}
        token = page.token
        if token is None:
            return numbers


def _count(there: set[int], setting: int) -> int:
    """How many partitions the hub has, or will have.

    Rows without a gap are a whole hub.  With one it is a hub that .NET has begun and not finished: it has at least
    as many as its last row says.
    """
    if there == set(range(len(there))) and there:
        return len(there)
    return max({setting, *(number + 1 for number in there)})


async def _insert_rows(service: Service, names: HubNames, numbers: list[int]) -> None:
    """Insert rows of a hub, all or none."""
    rows = [Operation(do=Do.INSERT, partition="", key=names.control(number), values=_FREE_ROW) for number in numbers]
    await service.tables.transact(names.partitions, rows)


async def _repeated(what: str, call: Callable[[], Awaitable[T]], environment: Environment) -> T:
    """Make a call that may be made twice, again and again while nothing is known of it or its name is not free."""
    began, unsure = environment.monotonic(), 0
    while True:
        try:
            return await call()
        except Unsure:
            unsure += 1
            if unsure == TRIES:
                raise
        except Conflict as error:
            if not error.code.endswith("BeingDeleted"):
                raise
            if environment.monotonic() - began > BEING_DELETED:
                raise StoreUnavailable(
                    f"{what!r} is still being deleted by the storage service; try again, or take another hub name"
                ) from error
        await environment.sleep(1.0)


async def _give_up_lease(service: Service, names: HubNames, lease_ids: tuple[str, ...]) -> None:
    probe = "00000000-0000-0000-0000-000000000001"
    for lease in (probe, *lease_ids):
        try:
            if await service.blobs.acquire_lease(names.app_lease, None, 15, lease):
                await service.blobs.release_lease(names.app_lease, None, lease)
                return
        except NotThere:
            return
        except Refused as error:
            raise HubLeased(f"the app lease of the hub {names.hub!r} cannot be had: {error}") from error
    raise HubLeased(
        f"an app holds the app lease of the hub {names.hub!r}: it may be served. Stop that app, wait a minute, and "
        "delete the hub then"
    )
