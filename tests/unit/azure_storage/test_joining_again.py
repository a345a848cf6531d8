"""A host whose part in the hub is lost joins again, with leases of its own: on the model account."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from holdtrue.stores.azure_storage.app_lease import HubLeasedByAnotherApp, dotnet_lease_id, own_lease_id
from holdtrue.stores.azure_storage.names import HubNames
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.errors import LeaseLost
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import run

NAMES = HubNames("Hub")
SETTINGS = AzureStorageSettings(partition_count=2, app_name="app")


def joined(test: Callable[[Any, AzureStorageStore], Awaitable[None]]) -> Callable[[], None]:
    """A test with a host that has joined."""

    def ran() -> None:
        async def main() -> None:
            environment = SimulatedEnvironment(1)
            model: Any = StorageModel(environment)
            store = AzureStorageStore(model, "Hub", environment=environment, settings=SETTINGS)
            await store.open()
            await store.join("host", ["code"], ["act"])
            await asyncio.sleep(10)
            assert all(store._is_mine(partition) for partition in range(2))
            await test(model, store)
            await store.close()

        run(main())

    ran.__name__, ran.__doc__ = test.__name__, test.__doc__
    return ran


@joined
async def test_the_app_lease_that_another_app_took_is_waited_for(model: Any, store: AzureStorageStore) -> None:
    ours, theirs = own_lease_id("app"), dotnet_lease_id("other")
    await model.blobs.change_lease(NAMES.app_lease, None, ours, theirs)
    await asyncio.sleep(SETTINGS.app_lease_interval)
    with pytest.raises(LeaseLost):
        await store.renew()
    assert not any(store._is_mine(partition) for partition in range(2))
    for _ in range(3):
        await model.blobs.renew_lease(NAMES.app_lease, None, theirs)
        with pytest.raises(HubLeasedByAnotherApp):
            await store.join("host", ["code"], ["act"])
    await model.blobs.release_lease(NAMES.app_lease, None, theirs)
    await store.join("host", ["code"], ["act"])
    await asyncio.sleep(3 * SETTINGS.app_lease_interval)
    assert await store.renew() == []
    assert all(store._is_mine(partition) for partition in range(2))
    assert await model.blobs.renew_lease(NAMES.app_lease, None, ours), "it is held again"


@joined
async def test_without_anyone_to_renew_a_host_begins_anew(model: Any, store: AzureStorageStore) -> None:
    """As where its process of renewals cannot be had any more."""
    hosting = store._hosting
    assert hosting is not None
    await hosting._renewals.close()
    store._part_lost()
    with pytest.raises(LeaseLost):
        await store.renew()
    await store.join("host", ["code"], ["act"])
    assert store._hosting is not hosting
    await asyncio.sleep(3 * SETTINGS.lease_interval)
    assert all(store._is_mine(partition) for partition in range(2))
