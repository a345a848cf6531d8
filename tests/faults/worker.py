"""A host as a process of its own, which can be killed as the system kills: `python -m tests.faults.worker SETUP`.

It ends with its standard input, says `worker up` when it serves, and then each thing that its activities do.
"""

import asyncio
import importlib
import os
import sys
from functools import partial
from typing import Any

import msgspec

import holdtrue
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.http.connection import from_connection_string, reopening
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.reconciling import Pace
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.errors import StoreError

UP = "worker up"


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told: the module whose `app` it hosts, the account and the hub, and how."""

    app: str
    connection: str
    hub: str
    name: str
    settings: AzureStorageSettings
    pace: Pace
    timeout: float


async def serve(setup: Setup) -> None:
    """Until the standard input ends.  A start that fails is tried again, as a supervisor would."""
    module: Any = importlib.import_module(setup.app)
    if hasattr(module, "tell"):
        module.tell = partial(print, flush=True)
    connection = from_connection_string(setup.connection)
    while True:
        service = HttpService(connection, timeout=setup.timeout)
        store = AzureStorageStore(
            service, setup.hub, settings=setup.settings, pace=setup.pace, account=reopening(connection)
        )
        host = holdtrue.Host(
            module.app, store, settings=HostSettings(name=setup.name, retention=False, drain_seconds=1.0)
        )
        try:
            await host.start()
            break
        except StoreError as error:
            print(f"could not start: {error}", file=sys.stderr, flush=True)
            await service.close()
            await asyncio.sleep(0.5)
    print(UP, flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    await host.stop()
    await service.close()


if __name__ == "__main__":
    asyncio.run(serve(msgspec.json.decode(sys.argv[1], type=Setup)))
    os._exit(0)
