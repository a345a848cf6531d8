"""The process that renews for a host, on the emulator: whoever of the two dies, or stands still."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import msgspec

import holdtrue
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from tests.azurite.held_host import app, open_store, renewing, rests
from tests.azurite.held_lock import LIMIT, FarHost, is_running, keep_the_lock, leases, only_owner, until
from tools.azurite import Azurite

SETTINGS = AzureStorageSettings(
    partition_count=2,
    max_queue_polling_interval=0.5,
    lease_interval=6.0,
    lease_acquire_interval=1.0,
    app_lease_interval=15.0,
    app_lease_renew_interval=4.0,
    renewed_visibility=5,
)


def test_the_interpreters_lock_kept_for_long_loses_nothing(azurite: Azurite, tmp_path: Path) -> None:
    """For longer than any lease: partitions 6 s, messages 5 s, the app lease 15 s."""
    connection = azurite.connection_string(azurite.new_account())
    asyncio.run(keep_the_lock(connection, SETTINGS, 20, tmp_path))


class Scene:
    """A host in a process of its own, and one here that comes when it is called."""

    def __init__(self, azurite: Azurite, folder: Path, monkeypatch: Any, **settings: Any) -> None:
        self.connection = azurite.connection_string(azurite.new_account())
        self.settings = msgspec.structs.replace(SETTINGS, **settings)
        self.far = FarHost(folder, self.connection, self.settings)
        monkeypatch.setenv("LOG", str(self.far.log))

    async def __aenter__(self) -> "Scene":
        await until("the host renews by a process", self.far.renews)
        self.store = open_store(self.connection, self.settings)
        await self.store.open()
        self.client = holdtrue.Client(self.store, app=app)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()
        self.far.close()

    def near(self) -> holdtrue.Host:
        """A host here."""
        return holdtrue.Host(app, self.store, settings=holdtrue.HostSettings(name="near", retention=False))

    async def owners(self) -> set[str | None]:
        return {lease.current_owner for lease in await leases(self.store)}

    async def owned_by(self, *names: str) -> None:
        """Return when all partitions are of these hosts, each of which has some."""
        async with asyncio.timeout(LIMIT):
            while True:
                owners = await self.owners()
                if len(owners) == len(names) and all(any(f"-{name}-" in str(one) for one in owners) for name in names):
                    return
                await asyncio.sleep(0.1)


def test_the_process_ends_with_its_host_and_another_host_takes_over(
    azurite: Azurite, tmp_path: Path, monkeypatch: Any
) -> None:
    """Also where a process that the host has forked keeps the socket open."""
    monkeypatch.setenv("FORKS", "1")

    async def scenario() -> None:
        async with Scene(azurite, tmp_path, monkeypatch) as scene:
            (pid,) = scene.far.renews()
            id = await scene.client.start(rests, input=600.0)
            await until("it has forked, and rests", lambda: len(scene.far.notes()) == 2)
            (forked,) = (int(words[-1]) for words in scene.far.notes() if words[0] == "forked")
            try:
                scene.far.process.send_signal(signal.SIGKILL)
                scene.far.process.wait()
                await until("the process that renewed has ended", lambda: not is_running(pid))
                assert is_running(forked)
            finally:
                os.kill(forked, signal.SIGKILL)
            async with scene.near():
                await scene.owned_by("near")
                await until("the activity is run again", lambda: len(scene.far.notes()) == 3)
                await scene.client.terminate(id)
                assert await scene.client.wait_for_completion(id, timeout=LIMIT)

    asyncio.run(scenario())


def test_what_a_silent_host_has_is_let_go_and_it_comes_back(azurite: Azurite, tmp_path: Path, monkeypatch: Any) -> None:
    async def scenario() -> None:
        async with Scene(azurite, tmp_path, monkeypatch, silence_limit=4.0) as scene:
            pid, before = scene.far.renews()[-1], len(scene.far.renews())
            scene.far.process.send_signal(signal.SIGSTOP)
            await until("the process that renewed has ended", lambda: not is_running(pid))
            async with scene.near():
                await scene.owned_by("near")
                scene.far.process.send_signal(signal.SIGCONT)
                await until("another renews for the host", lambda: len(scene.far.renews()) > before)
                await scene.owned_by("near", "held")
                id = await scene.client.start(rests, input=0.0)
                assert (await scene.client.wait_for_completion(id, timeout=LIMIT)).output == "rested"
        assert "gave no sign of life" in scene.far.errors.read_text()

    asyncio.run(scenario())


def test_a_process_that_is_killed_is_followed_by_another(azurite: Azurite, tmp_path: Path, monkeypatch: Any) -> None:
    async def scenario() -> None:
        async with Scene(azurite, tmp_path, monkeypatch) as scene:
            owner = await only_owner(scene.store)
            for killed in (1, 2):
                os.kill(scene.far.renews()[-1], signal.SIGKILL)
                await until("another renews", lambda killed=killed: len(scene.far.renews()) > killed)
            for _ in range(20):
                assert await scene.owners() == {owner}
                await asyncio.sleep(SETTINGS.lease_interval / 10)
            id = await scene.client.start(rests, input=6.0)
            assert (await scene.client.wait_for_completion(id, timeout=LIMIT)).output == "rested"
            assert len(scene.far.notes()) == 1
        assert "has ended" in scene.far.errors.read_text()

    asyncio.run(scenario())


def test_where_a_setting_asks_for_it_the_host_renews_by_itself(
    azurite: Azurite, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("LOG", str(tmp_path / "log.txt"))

    async def scenario() -> None:
        settings = msgspec.structs.replace(SETTINGS, renew_in_process=True)
        store = open_store(azurite.connection_string(azurite.new_account()), settings)
        await store.open()
        try:
            async with holdtrue.Host(app, store, settings=holdtrue.HostSettings(name="near", retention=False)):
                assert renewing(store) is None
                client = holdtrue.Client(store, app=app)
                id = await client.start(rests, input=6.0)
                assert (await client.wait_for_completion(id, timeout=LIMIT)).output == "rested"
        finally:
            await store.close()

    asyncio.run(scenario())
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 1
