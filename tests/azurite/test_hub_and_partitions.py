"""A hub made, shared out, taken over and deleted on the emulator."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from holdtrue.environment import REAL
from holdtrue.stores.azure_storage.blob_leases import Content, LeaseBlobs
from holdtrue.stores.azure_storage.creating import create_hub, delete_hub, partition_numbers
from holdtrue.stores.azure_storage.http.connection import from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.names import HubNames
from holdtrue.stores.azure_storage.ownership import Ownership
from holdtrue.stores.azure_storage.partition_table import PartitionTable
from holdtrue.stores.azure_storage.partitions import Terms
from holdtrue.stores.azure_storage.renewals import Renewer
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from tools.azurite import Azurite

NAMES = HubNames("MyHub")
TERMS = Terms(lease=4.0, acquire=1.0, operation=20.0)
BLOB_TERMS = msgspec.structs.replace(TERMS, lease=15.0)
"""The service leases no blob for less."""


async def host(service: HttpService, name: str, by_table: bool) -> Ownership:
    async def losing(partition: str) -> None:
        return

    terms, me = TERMS if by_table else BLOB_TERMS, f"holdtrue-{name}"
    settings = AzureStorageSettings(
        lease_interval=terms.lease,
        lease_acquire_interval=terms.acquire,
        partition_table_operation_timeout=terms.operation,
        use_table_partition_management=by_table,
    )
    renewer = Renewer(service, REAL, settings.renewal_terms(me, NAMES.partitions, NAMES.leases))
    await renewer.open()
    return Ownership(
        PartitionTable(service.tables, NAMES.partitions, REAL, terms, renewer)
        if by_table
        else LeaseBlobs(service.blobs, NAMES.leases, me, REAL, terms),
        me,
        REAL,
        terms,
        renewer,
        on_gained=lambda partition: None,
        on_losing=losing,
        on_lost=lambda partition: None,
    )


async def owners(service: HttpService, by_table: bool) -> list[object]:
    """Whom the hub names as owners, in order."""
    if by_table:
        return [row.values.get("CurrentOwner") for row in (await service.tables.query(NAMES.partitions)).rows]
    page, _ = await service.blobs.list_blobs(NAMES.leases, "ownership/")
    assert not any(info.leased for info in page)
    data = [await service.blobs.get_blob(NAMES.leases, info.name) for info in page]
    return [msgspec.json.decode(one or b"", type=Content).owner for one in data]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("by_table", [True, False], ids=["table", "blobs"])
def test_two_hosts_share_a_hub_and_one_takes_over(azurite: Azurite, by_table: bool) -> None:
    async def scenario() -> None:
        connection = from_connection_string(azurite.connection_string(azurite.new_account()))
        service, doomed = HttpService(connection), HttpService(connection)
        await service.open()
        await doomed.open()
        counts = await asyncio.gather(
            *(create_hub(service, NAMES, count, REAL, blob_leases=not by_table) for count in (4, 6))
        )
        (count,) = {created.partition_count for created in counts}
        if by_table:
            assert await partition_numbers(service, NAMES) == set(range(count))
        first, second = await host(service, "first", by_table), await host(doomed, "second", by_table)
        await first.open()
        await until(lambda: len(first.owned()) == count)
        await second.open()
        await until(lambda: len(first.owned()) == len(second.owned()) == count // 2)
        assert not first.owned().keys() & second.owned().keys()
        await doomed.close()  # it renews no more
        await until(lambda: len(first.owned()) == count and not second.owned())
        await first.close()
        assert await owners(service, by_table) == [None] * count
        await second.close()
        await delete_hub(service, NAMES)
        assert (await create_hub(service, NAMES, 2, REAL)).partition_count == 2
        await service.close()

    asyncio.run(scenario())
