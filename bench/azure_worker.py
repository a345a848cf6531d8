"""A worker of ours on a hub in an account: the program that `bench.azure` starts.

`python -m bench.azure_worker HUB local|queue`, the account's connection string in `HOLDTRUE_ACCOUNT`.  It says
`begun` when it is up, its CPU seconds so far at `cpu`, and ends at `stop`.
"""

import asyncio
import os
import sys

import holdtrue
from bench.azure_program import app
from bench.program import run
from bench.worker import cpu_seconds
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.http.connection import from_connection_string, reopening
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore

SLOTS = 100
"""Of activities, on both sides."""
POLLING_SECONDS = 1.0
"""The longest pause of a poll, on both sides."""


def settings_of(kind: str) -> AzureStorageSettings:
    """What the hosts have: a row that lags a minute, so that no write of it falls into a count by chance."""
    return AzureStorageSettings(
        max_queue_polling_interval=POLLING_SECONDS, row_delay=60.0, local_activities=kind == "local"
    )


def store_of(connection: str, hub: str, kind: str) -> AzureStorageStore:
    """The hub in an account."""
    account = from_connection_string(connection)
    return AzureStorageStore(HttpService(account), hub, settings=settings_of(kind), account=reopening(account))


async def main(hub: str, kind: str) -> None:
    """Serve until told to stop."""
    loop = asyncio.get_running_loop()
    store = store_of(os.environ["HOLDTRUE_ACCOUNT"], hub, kind)
    settings = HostSettings(name="bench", activity_slots=SLOTS, own_process=True, drain_seconds=1.0)
    async with holdtrue.Host(app, store, settings=settings):
        print("begun", flush=True)
        while (word := (await loop.run_in_executor(None, sys.stdin.readline)).strip()) not in ("", "stop"):
            if word == "cpu":
                print(cpu_seconds(), flush=True)


if __name__ == "__main__":
    run(main(*sys.argv[1:3]))
