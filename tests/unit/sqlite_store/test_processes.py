"""Several processes on one file: deaths are seen at once, the stopped lose their lease, wake-ups, and fair turns."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from holdtrue.core.projection import Status
from holdtrue.environment import REAL
from holdtrue.stores import errors
from holdtrue.stores.protocol import Notice
from holdtrue.stores.sqlite import SqliteStore
from holdtrue.stores.sqlite.presence import Presence
from tests.conformance.acting import Hub, create, end, in_hub, lock, lock_one, raised, send, start, status_of

SCRIPT = Path(__file__).with_name("held_by_another.py")
LONG = 60.0


class Other:
    """`held_by_another.py` at work on a hub."""

    def __init__(self, hub: Path, lease: float, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(hub), str(lease), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> list[str]:
        return self.process.communicate("\n")[0].splitlines()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


async def until_taken_over(store: SqliteStore) -> list[str]:
    """What `renew` says when it has taken over from somebody."""
    async with asyncio.timeout(LONG):
        while True:
            if dead := await store.renew():
                return dead
            await asyncio.sleep(0.01)


@in_hub
async def test_a_killed_host_is_seen_by_its_lock_whatever_its_children_do(hub: Hub, tmp_path: Path) -> None:
    store = await hub.host("own")
    assert isinstance(store, SqliteStore)
    await create(store, start("a"))
    other = Other(tmp_path / "hub.db", 3_600, "busy")
    child = int(other.line().split()[1])
    try:
        assert other.line() == "held a"
        assert await store.renew() == [] and await lock(hub, store) == {}
        other.kill()
        assert await until_taken_over(store) == ["other"]
    finally:
        other.kill()
        os.kill(child, signal.SIGKILL)
    await (await lock_one(hub, store, "a")).step(end())
    assert [name for name in os.listdir(tmp_path / "hub.db-hosts") if name.endswith(".lock")] == [
        f"{store._presence.file}.lock"  # type: ignore[union-attr]
    ]


@in_hub
async def test_a_stopped_host_loses_its_lease_and_its_late_commit_has_no_effect(hub: Hub, tmp_path: Path) -> None:
    store = await hub.host("own")
    assert isinstance(store, SqliteStore)
    await create(store, start("a"))
    other = Other(tmp_path / "hub.db", 0.5)
    try:
        assert other.line() == "held a"
        other.process.send_signal(signal.SIGSTOP)
        assert await until_taken_over(store) == ["other"]
        await (await lock_one(hub, store, "a")).step(end(output='"mine"'))
        other.process.send_signal(signal.SIGCONT)
        assert other.go_on() == ["commit lease lost", "LeaseLost"]
    finally:
        other.kill()
    (record,) = await store.status(["a"])
    assert record is not None and record.projection.output == '"mine"'


@in_hub
async def test_another_process_is_woken_and_wakes(hub: Hub, tmp_path: Path) -> None:
    store = await hub.host("own", code=["nothing"])
    await create(store, start("a"))
    notices: asyncio.Queue[Notice] = asyncio.Queue()
    store.listen(notices.put_nowait)
    other = Other(tmp_path / "hub.db", 3_600)
    try:
        assert other.line() == "held a"
        assert await asyncio.to_thread(other.go_on) == ["commit committed", "renewed"]
        async with asyncio.timeout(LONG):
            while "a" not in (await notices.get()).changed:
                pass
        assert await status_of(store, "a") is Status.COMPLETED
    finally:
        other.kill()


@in_hub
async def test_a_path_longer_than_a_sockets(hub: Hub, tmp_path: Path) -> None:
    place = tmp_path / ("deep" * 30)
    place.mkdir()
    one, two = SqliteStore(str(place / "hub.db")), SqliteStore(str(place / "hub.db"))
    await one.open()
    await two.open()
    notices: asyncio.Queue[Notice] = asyncio.Queue()
    two.listen(notices.put_nowait)
    await asyncio.sleep(0.05)
    await one.create([start("a")])
    async with asyncio.timeout(LONG):
        assert (await notices.get()).work
    await one.close()
    await two.close()
    assert sorted(os.listdir(place / "hub.db-hosts")) == ["turn-next", "turn-now"]


@in_hub
async def test_without_sockets_others_are_seen_by_asking(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Presence, "bind", lambda self: None)
    one, two = await hub.host("one"), await hub.open()
    notices: asyncio.Queue[Notice] = asyncio.Queue()
    two.listen(notices.put_nowait)
    await create(one, start("a"))
    async with asyncio.timeout(LONG):
        assert (await notices.get()).work


@in_hub
async def test_mail_for_a_host_is_fetched_and_given_once(hub: Hub) -> None:
    one, two = await hub.host("one"), await hub.open()
    await create(one, start("a"))
    held = await lock_one(hub, one, "a")
    await held.step()
    await send(two, raised("a", "x"), raised("a", "y"))
    assert [d.message.event.name for d in await one.fetch()] == ["x", "y"]  # type: ignore[attr-defined]
    assert await one.fetch() == []
    await send(two, raised("a", "z"))
    await held.put_back()
    again = await lock_one(hub, one, "a")
    assert len(again.inbox) == 3 and await one.fetch() == []


def test_writers_take_turns(tmp_path: Path) -> None:
    hub = str(tmp_path / "hub.db")
    one = Presence(hub, REAL)
    with one.turn():
        pass
    first = os.stat(tmp_path / "hub.db-hosts" / "turn-now").st_ino
    two = Presence(hub, REAL)
    one._look_at = 0.0
    inside: list[str] = []

    def work(name: str, presence: Presence) -> None:
        for _ in range(200):
            with presence.turn():
                inside.append(name)
                inside.append(name)

    workers = [threading.Thread(target=work, args=pair) for pair in (("one", one), ("two", two))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert inside[::2] == inside[1::2] and len(inside) == 800
    two.close()
    one.close()
    assert os.stat(tmp_path / "hub.db-hosts" / "turn-now").st_ino == first


def test_a_turn_excludes_another_process(tmp_path: Path) -> None:
    hub = tmp_path / "hub.db"
    presence = Presence(str(hub), REAL)
    script = (
        "import sys; from holdtrue.environment import REAL; from holdtrue.stores.sqlite.presence import Presence\n"
        "with Presence(sys.argv[1], REAL).exclusive(): print('in', flush=True); sys.stdin.readline(); print('out', flush=True)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(hub)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert other.stdout is not None and other.stdin is not None
    assert other.stdout.readline() == "in\n"
    entered = threading.Event()

    def enter() -> None:
        presence._look_at = 0.0
        with presence.turn():
            entered.set()

    waiting = threading.Thread(target=enter)
    waiting.start()
    assert not entered.wait(0.2)
    other.stdin.write("\n")
    other.stdin.flush()
    assert entered.wait(LONG)
    waiting.join()
    other.communicate()
    presence.close()


@in_hub
async def test_a_host_whose_row_is_gone_must_join_again(hub: Hub) -> None:
    one, two = await hub.host("one", lease=5.0), await hub.host("two")
    await create(one, start("a"))
    held = await lock_one(hub, one, "a")
    assert await two.renew() == []
    hub.clock.ahead = 6.0
    assert await two.renew() == ["one"]
    with pytest.raises(errors.LeaseLost, match="join again"):
        await one.renew()
    with pytest.raises(errors.LeaseLost):
        await one.lock(1)
    await one.join("one", ["code"], [])
    taken = await lock_one(hub, one, "a")
    assert taken.lease.token != held.lease.token
    await taken.step(end())
