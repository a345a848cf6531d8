"""Makes a task hub in an account, as .NET does, and deletes one.

Several hosts and clients do it at once, of either engine, and any may die in between.  The rows of the
partitions table say how many partitions a hub has, or a blob where leases on blobs share them out; our rows are
written in one transaction, so that a hub never has some of them only, and two hosts with different settings do not
make one hub of both.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TypeVar

import msgspec

from holdtrue.core.errors import InvalidInput
from holdtrue.environment import Environment
from holdtrue.stores.errors import StoreCorrupt, StoreError, StoreUnavailable

from .blob_leases import INTENT, OWNERSHIP, Content
from .moments import table_text
from .names import MAX_PARTITIONS, HubNames
from .service import Blobs, Conflict, Do, NotThere, Operation, Refused, Service, Unsure

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


HUB_INFO = "taskhub.json"
"""The blob beside those that are leased."""


class HubInfo(msgspec.Struct, frozen=True, rename="pascal"):
    """What it holds."""

    task_hub_name: str
    created_at: str
    partition_count: int


class HubLeased(StoreError):
    """The hub cannot be deleted: an app holds its app lease.  Stop that app; the lease ends a minute later."""


class CreatedHub(msgspec.Struct, frozen=True, kw_only=True):
    """What there is after `create_hub`: how many partitions, and whether it made their rows."""

    partition_count: int
    made: bool


async def create_hub(
    service: Service, names: HubNames, partition_count: int, environment: Environment, *, blob_leases: bool = False
) -> CreatedHub:
    """Make what is missing of a hub; idempotent.  A hub that is there keeps its number of partitions.

    With `blob_leases` its partitions are shared out by leases on blobs, without a partitions table; a hub that was
    made for the other way gets what this one needs, for as many partitions.

    Raises ServiceError as the account does, StoreUnavailable for a name that is still being deleted after two
    minutes, and StoreCorrupt where the hub does not say how many partitions it has.
    """
    if not 1 <= partition_count <= MAX_PARTITIONS:
        raise InvalidInput(f"a hub has 1 to {MAX_PARTITIONS} partitions, not {partition_count}")
    tables, queues, blobs = service.tables, service.queues, service.blobs

    async def ensure(what: str, make: Callable[[str], Awaitable[object]]) -> None:
        await _repeated(what, lambda: make(what), environment)

    await ensure(names.app_lease, blobs.create_container)
    with suppress(Conflict):
        await ensure(names.app_lease_info, partial(_put_new, blobs, names.app_lease, b"{}"))
    for table in (names.history, names.instances):
        await ensure(table, tables.create_table)
    await ensure(names.work_items, queues.create_queue)

    async def ensure_queues(count: int) -> None:
        for number in range(count):
            await ensure(names.control(number), queues.create_queue)

    if blob_leases:
        await ensure(names.leases, blobs.create_container)
        wanted, made = await _ensure_info(service, names, partition_count, environment)
        await ensure_queues(wanted)
        for blob, content in _free_blobs(names, wanted):
            with suppress(Conflict):
                await ensure(blob, partial(_put_new, blobs, names.leases, content))
    else:
        await ensure(names.partitions, tables.create_table)
        wanted, made = await _ensure_rows(service, names, partition_count, environment, ensure_queues)
    if wanted != partition_count:
        log.warning(
            "the hub %r has %d partitions, the settings say %d: the hub's number counts. It cannot be changed while "
            "instances are there; a new hub takes the settings'",
            names.hub,
            wanted,
            partition_count,
        )
    return CreatedHub(partition_count=wanted, made=made)


async def _ensure_rows(
    service: Service,
    names: HubNames,
    setting: int,
    environment: Environment,
    ensure_queues: Callable[[int], Awaitable[None]],
) -> tuple[int, bool]:
    """How many partitions the hub has, each with its queue and its row; whether rows were made."""
    made = False
    while True:
        there = await _repeated(names.partitions, lambda: partition_numbers(service, names), environment)
        if not there:
            info = await _repeated(names.leases, lambda: _read_info(service, names), environment)
            setting = setting if info is None else info.partition_count
        wanted = _count(there, setting)
        await ensure_queues(wanted)
        missing = [number for number in range(wanted) if number not in there]
        if not missing:
            return wanted, made
        with suppress(Conflict):  # somebody was faster, or it was ours: what stands there decides
            await _repeated(names.partitions, lambda: _insert_rows(service, names, missing), environment)  # noqa: B023
            made = True


async def _ensure_info(service: Service, names: HubNames, setting: int, environment: Environment) -> tuple[int, bool]:
    """How many partitions the hub has, as its blob says; whether that was made."""
    made = False
    while (info := await _repeated(names.leases, lambda: _read_info(service, names), environment)) is None:
        try:
            there = await partition_numbers(service, names)
        except NotThere:
            there = set()
        count = _count(there, setting)
        fresh = HubInfo(names.hub, table_text(environment.now()), count)
        with suppress(Conflict):  # as above
            put = partial(_put_new, service.blobs, names.leases, msgspec.json.encode(fresh), HUB_INFO)
            await _repeated(HUB_INFO, put, environment)
            made = True
    return info.partition_count, made


async def _read_info(service: Service, names: HubNames) -> HubInfo | None:
    try:
        data = await service.blobs.get_blob(names.leases, HUB_INFO)
    except NotThere:
        return None
    if data is None:
        return None
    try:
        info = msgspec.json.decode(data, type=HubInfo)
    except msgspec.DecodeError:
        info = None
    if info is None or not 1 <= info.partition_count <= MAX_PARTITIONS:
        raise StoreCorrupt(
            f"{names.leases}/{HUB_INFO} does not say how many partitions the hub {names.hub!r} has: write it anew with "
            'the number of its control queues as "PartitionCount"'
        )
    return info


async def _put_new(blobs: Blobs, container: str, data: bytes, blob: str) -> None:
    await blobs.put_blob(container, blob, data, only_new=True)


def _free_blobs(names: HubNames, count: int) -> Iterator[tuple[str, bytes]]:
    for kind in (INTENT, OWNERSHIP):
        for control in map(names.control, range(count)):
            yield kind + control, msgspec.json.encode(Content(control))


async def delete_hub(service: Service, names: HubNames) -> None:
    """Delete a hub with all that it holds; idempotent, and an interrupted one can be repeated.

    Raises HubLeased, before anything is deleted, where an app holds the app lease.
    """
    await _refuse_leased(service, names)
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


async def partitions_there(service: Service, names: HubNames) -> int | None:
    """How many partitions a hub has; None where there is none.  Raises ServiceError, and StoreCorrupt where its blob
    is none."""
    try:
        there = await partition_numbers(service, names)
    except NotThere:
        there = set()
    if not _is_whole(there) and (info := await _read_info(service, names)) is not None:
        return info.partition_count
    return _count(there, 1) if there else None


def _is_whole(there: set[int]) -> bool:
    """Whether the partitions that have a row are a hub's, without a gap."""
    return bool(there) and there == set(range(len(there)))


def _count(there: set[int], setting: int) -> int:
    """How many partitions the hub has, or will have.

    Rows without a gap are a whole hub.  With one it is a hub that .NET has begun and not finished: it has at least
    as many as its last row says.
    """
    if _is_whole(there):
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


async def _refuse_leased(service: Service, names: HubNames) -> None:
    probe = "00000000-0000-0000-0000-000000000001"
    try:
        if await service.blobs.acquire_lease(names.app_lease, None, 15, probe):
            await service.blobs.release_lease(names.app_lease, None, probe)
            return
    except NotThere:
        return
    except Refused as error:
        raise HubLeased(f"the app lease of the hub {names.hub!r} cannot be had: {error}") from error
    raise HubLeased(
        f"an app holds the app lease of the hub {names.hub!r}: it may be served. Stop that app, wait a minute, and "
        "delete the hub then"
    )
