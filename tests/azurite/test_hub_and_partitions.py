"""A hub made, shared out, taken over and deleted on the emulator."""

import asyncio
from collections.abc import Callable

from holdtrue.environment import REAL
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


async def host(service: HttpService, name: str) -> Ownership:
    async def losing(partition: str) -> None:
        return

    settings = AzureStorageSettings(
        lease_interval=TERMS.lease,
        lease_acquire_interval=TERMS.acquire,
        partition_table_operation_timeout=TERMS.operation,
    )
    renewer = Renewer(service, REAL, settings.renewal_terms(f"holdtrue-{name}", NAMES.partitions))
    await renewer.open()
    return Ownership(
        PartitionTable(service.tables, NAMES.partitions, REAL, TERMS, renewer),
        f"holdtrue-{name}",
        REAL,
        TERMS,
        renewer,
        on_gained=lambda partition: None,
        on_losing=losing,
        on_lost=lambda partition: None,
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.05)


def test_two_hosts_share_a_hub_and_one_takes_over(azurite: Azurite) -> None:
    async def scenario() -> None:
        connection = from_connection_string(azurite.connection_string(azurite.new_account()))
        service, doomed = HttpService(connection), HttpService(connection)
        await service.open()
        await doomed.open()
        counts = await asyncio.gather(*(create_hub(service, NAMES, count, REAL) for count in (4, 6)))
        (count,) = {created.partition_count for created in counts}
        assert await partition_numbers(service, NAMES) == set(range(count))
        first, second = await host(service, "first"), await host(doomed, "second")
        await first.open()
        await until(lambda: len(first.owned()) == count)
        await second.open()
        await until(lambda: len(first.owned()) == len(second.owned()) == count // 2)
        assert not first.owned().keys() & second.owned().keys()
        await doomed.close()  # it renews no more
        await until(lambda: len(first.owned()) == count and not second.owned())
        await first.close()
        page = await service.tables.query(NAMES.partitions)
        assert [row.values.get("CurrentOwner") for row in page.rows] == [None] * count
        await second.close()
        await delete_hub(service, NAMES)
        assert (await create_hub(service, NAMES, 2, REAL)).partition_count == 2
        await service.close()

    asyncio.run(scenario())
