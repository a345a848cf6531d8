"""The interpreter's lock kept for long, without faults: no lease lost, nothing run twice, no message given again.

`python -m tests.azurite.held_lock SECONDS` does it at default settings.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

import holdtrue
from holdtrue.stores.azure_storage.names import HubNames
from holdtrue.stores.azure_storage.partitions import Lease, read_lease
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from tests.azurite.held_host import CONNECTION, HUB, app, open_store, work
from tools.azurite import start

LIMIT = 300.0
"""Seconds within which anything here must have come; only what hangs takes so long."""


async def until(what: str, condition: Callable[[], Any], limit: float = LIMIT) -> Any:
    """Wait for it; what it gave."""
    try:
        async with asyncio.timeout(limit):
            while not (found := condition()):
                await asyncio.sleep(0.05)
            return found
    except TimeoutError:
        raise AssertionError(f"not within {limit:g} s: {what}") from None


class FarHost:
    """A host in a process of its own."""

    def __init__(self, folder: Path, connection: str, settings: AzureStorageSettings, name: str = "host") -> None:
        self.log = folder / "log.txt"
        self.said = folder / f"{name}.txt"
        self.errors = folder / f"{name}.errors"
        environment = {**os.environ, CONNECTION: connection, "LOG": str(self.log)}
        with open(self.said, "wb") as said, open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.azurite.held_host", msgspec.json.encode(settings).decode()],
                env=environment,
                stdout=said,
                stderr=errors,
            )

    def renews(self) -> list[int]:
        """The numbers of the processes that have renewed for it, in order."""
        return [msgspec.json.decode(line)["renews"] for line in self.said.read_bytes().splitlines()]

    def notes(self) -> list[list[str]]:
        """What has run, as lists of words."""
        return [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def is_running(pid: int) -> bool:
    """Whether a process is there and not only yet to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def leases(store: AzureStorageStore) -> list[Lease]:
    """The rows of the partitions."""
    page = await store._service.tables.query(HubNames(HUB).partitions)
    return [read_lease(row) for row in page.rows]


async def only_owner(store: AzureStorageStore) -> str:
    """Who has all partitions, as soon as one host has."""
    async with asyncio.timeout(LIMIT):
        while True:
            owners = {lease.current_owner for lease in await leases(store)}
            if len(owners) == 1 and (owner := owners.pop()) is not None:
                return owner
            await asyncio.sleep(0.1)


async def keep_the_lock(connection: str, settings: AzureStorageSettings, seconds: int, folder: Path) -> None:
    """One host keeps the lock; another comes meanwhile and would take what it can get."""
    far = FarHost(folder, connection, settings)
    os.environ["LOG"] = str(far.log)
    near: list[holdtrue.Host] = []
    client_store = open_store(connection, settings)
    watching: asyncio.Task[None] | None = None
    try:
        await until("the host renews by a process", far.renews)
        await client_store.open()
        client = holdtrue.Client(client_store, app=app)
        owner = await only_owner(client_store)
        id = await client.start(work, input=seconds)
        await until("the lock is kept", lambda: any(words[0] == "keep" for words in far.notes()))

        async def watch() -> None:
            while not any(words[0] == "kept" for words in far.notes()):
                for lease in await leases(client_store):
                    assert lease.current_owner == owner, f"{lease} is no longer {owner}'s"
                await asyncio.sleep(0.2)

        watching = asyncio.get_running_loop().create_task(watch())
        store = open_store(connection, msgspec.structs.replace(settings, renew_in_process=True))
        await store.open()
        near.append(holdtrue.Host(app, store, settings=holdtrue.HostSettings(name="near", retention=False)))
        await near[0].start()
        await watching
        status = await client.wait_for_completion(id, timeout=LIMIT)
        assert status.runtime_status is holdtrue.Status.COMPLETED, status
        assert len(status.output) == 10
    finally:
        if watching is not None:
            watching.cancel()
        for host in near:
            await host.stop()
        await client_store.close()
        far.close()
    ran = Counter((words[0], words[1]) for words in far.notes())
    assert set(ran.values()) == {1} and len(ran) == 12, f"run twice: {ran}"
    assert {words[2] for words in far.notes()} == {"1"}, "each message was given once"
    said = far.errors.read_text()
    assert "is lost" not in said and "is started" not in said, said


def main(seconds: int) -> int:
    """At default settings, on an emulator of its own."""
    with start() as azurite, tempfile.TemporaryDirectory() as folder:
        connection = azurite.connection_string(azurite.new_account())
        asyncio.run(keep_the_lock(connection, AzureStorageSettings(), seconds, Path(folder)))
    print(f"the interpreter's lock was kept for {seconds} s: no lease lost, nothing run twice")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
