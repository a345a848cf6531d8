"""A host as a program of its own, whose activities keep the interpreter's lock, or rest: `python -m ... SETTINGS`.

The account is in the environment, as for any host.  It writes what runs into the file LOG, and says on its output, a
line of JSON each time, which process renews for it.
"""

import asyncio
import ctypes
import json
import logging
import os
import sys
import time

import msgspec

import holdtrue
from holdtrue.engine.settings import HostSettings
from holdtrue.environment import REAL
from holdtrue.stores.azure_storage.http.connection import from_connection_string, reopening
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.renewals_process import ChildProcess, ProcessRenewals
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore

HUB = "Held"
CONNECTION = "AzureWebJobsStorage"
app = holdtrue.App()


def note(*words: object) -> None:
    """Add a line to the log, with this process's number; in one write, so that two processes' lines do not mix."""
    with open(os.environ["LOG"], "ab", buffering=0) as file:
        file.write((" ".join(map(str, [*words, os.getpid()])) + "\n").encode())


@app.activity
async def rest(ctx: holdtrue.ActivityContext, seconds: float) -> int:
    note("rest", ctx.task_id, ctx.run)
    await asyncio.sleep(seconds)
    return ctx.task_id


@app.activity
def keep_the_lock(ctx: holdtrue.ActivityContext, seconds: int) -> None:
    note("keep", ctx.task_id, ctx.run)
    ctypes.PyDLL(None).sleep(seconds)  # unlike a `CDLL`, a `PyDLL` does not let go of the lock
    note("kept", ctx.task_id, ctx.run)


@app.orchestrator
async def work(ctx: holdtrue.OrchestrationContext, seconds: int) -> list[int]:
    """Ten activities are in hand, one of which keeps the lock when the others have begun."""
    resting = [ctx.call_activity(rest, input=2.0) for _ in range(9)]
    keeping = ctx.call_activity(keep_the_lock, input=seconds)
    done = await holdtrue.when_all(resting)
    await keeping
    return [*done, await ctx.call_activity(rest, input=0.0)]


@app.orchestrator
async def rests(ctx: holdtrue.OrchestrationContext, seconds: float) -> str:
    await ctx.call_activity(rest, input=seconds)
    return "rested"


def open_store(connection: str, settings: AzureStorageSettings) -> AzureStorageStore:
    """The hub as a host opens it that is named by a URL, with settings of its own."""
    known = from_connection_string(connection)
    return AzureStorageStore(HttpService(known), HUB, settings=settings, account=reopening(known))


async def main(settings: AzureStorageSettings) -> None:
    store = open_store(os.environ[CONNECTION], settings)
    await store.open()
    async with holdtrue.Host(app, store, settings=HostSettings(name="held", retention=False)):
        said = None
        if "FORKS" in os.environ and os.fork() == 0:
            # As a library may do within an activity: it has all that the host has open, and outlives it.
            note("forked")
            time.sleep(3_600)
            os._exit(0)
        while True:
            pid = renewing(store)
            if pid is not None and pid != said:
                said = pid
                print(json.dumps({"renews": pid}), flush=True)
            await REAL.sleep(0.05)


def renewing(store: AzureStorageStore) -> int | None:
    """The number of the process that renews for a host."""
    renewals = None if store._hosting is None else store._hosting._renewals
    if not isinstance(renewals, ProcessRenewals) or not isinstance(renewals._child, ChildProcess):
        return None
    return renewals._child.pid if renewals._working.is_set() else None


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=AzureStorageSettings)))
