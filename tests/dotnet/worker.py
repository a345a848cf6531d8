"""A worker of Holdtrue as a process of its own, with the orchestrations of the peer.

`python -m tests.dotnet.worker HUB table` (or `blobs`), and perhaps `queued` (every activity goes through the queue),
and `idle` (this worker has the code of none); the account is that of the variable HOLDTRUE_TEST_ACCOUNT.  It prints
`worker up`, and drains at SIGTERM.
"""

import asyncio
import os
import signal
import sys

import msgspec

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
BY_BLOBS = msgspec.structs.replace(SETTINGS, use_table_partition_management=False, lease_interval=15.0)
"""Where leases on blobs share out the partitions."""
PACE = Pace(every_seconds=1.0, requests_a_minute=6_000.0, fresh_seconds=5.0)


def open_store(connection: str, hub: str, *, by_table: bool = True, queued: bool = False) -> AzureStorageStore:
    """The store of a hub; `queued`: every activity through the queue."""
    settings = SETTINGS if by_table else BY_BLOBS
    settings = msgspec.structs.replace(settings, local_activities=not queued)
    return AzureStorageStore(HttpService(from_connection_string(connection)), hub, settings=settings, pace=PACE)


async def main(hub: str, *, by_table: bool, queued: bool, idle: bool) -> None:
    """Work until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = HostSettings(name="worker", retention=False, schedules=False, drain_seconds=5.0)
    if idle:
        app._activities.clear()
    store = open_store(os.environ["HOLDTRUE_TEST_ACCOUNT"], hub, by_table=by_table, queued=queued)
    async with holdtrue.Host(app, store, settings=settings):
        print("worker up", flush=True)
        await stop.wait()


if __name__ == "__main__":
    words = sys.argv[3:]
    asyncio.run(main(sys.argv[1], by_table=sys.argv[2] == "table", queued="queued" in words, idle="idle" in words))
