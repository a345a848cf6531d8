"""A worker of Holdtrue as a process of its own, with the orchestrations of the peer.

`python -m tests.dotnet.worker HUB`; the account is that of the variable HOLDTRUE_TEST_ACCOUNT.  It prints `worker up`,
and drains at SIGTERM.
"""

import asyncio
import os
import signal
import sys

import holdtrue
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.http.connection import from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.reconciling import Pace
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from tests.dotnet.orchestrations import app

SETTINGS = AzureStorageSettings(
    partition_count=2,
    max_queue_polling_interval=0.3,
    lease_interval=6.0,
    lease_acquire_interval=1.0,
    renewed_visibility=6,
)
PACE = Pace(every_seconds=1.0, requests_a_minute=6_000.0, fresh_seconds=5.0)


def open_store(connection: str, hub: str) -> AzureStorageStore:
    """The store of a hub."""
    return AzureStorageStore(HttpService(from_connection_string(connection)), hub, settings=SETTINGS, pace=PACE)


async def main(hub: str) -> None:
    """Work until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = HostSettings(name="worker", retention=False, schedules=False, drain_seconds=5.0)
    async with holdtrue.Host(app, open_store(os.environ["HOLDTRUE_TEST_ACCOUNT"], hub), settings=settings):
        print("worker up", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
