"""A host that joins a hub whose partitions table does not answer."""

import asyncio
from typing import Any

import pytest

from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.errors import StoreUnavailable
from holdtrue.testing import virtual_time
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel


def test_a_partitions_table_that_does_not_answer_is_an_error_of_the_hub() -> None:
    async def main() -> None:
        model = StorageModel(SimulatedEnvironment(1))
        settings = AzureStorageSettings(partition_count=1)
        store = AzureStorageStore(model, "Silent", environment=SimulatedEnvironment(2), settings=settings)
        await store.open()
        query = model.tables.query

        async def silent(table: str, *given: Any, **named: Any) -> Any:
            if table.endswith("Partitions"):
                await asyncio.sleep(60)
            return await query(table, *given, **named)

        model.tables.query = silent  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable, match=r"hub .Silent. could not be joined"):
            await store.join("host", [], [])

    virtual_time.run(main())
