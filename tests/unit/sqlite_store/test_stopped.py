"""Others stopped, or long at work, where everybody must wait for them: told with their names, never without end."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from holdtrue.core.projection import Status
from holdtrue.stores import errors
from holdtrue.stores.sqlite import SqliteStore, connection, waiting, writer
from tests.conformance.acting import Hub, create, in_hub, start, status_of

SCRIPT = Path(__file__).with_name("stopped_in_its_turn.py")
ROOT = Path(__file__).resolve().parents[3]


class Stopped:
    """`stopped_in_its_turn.py`, which has stopped itself."""

    def __init__(self, hub: Path, where: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(hub), where],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        )

    async def wait(self) -> None:
        """Until it has stopped itself."""
        _, status = await asyncio.to_thread(os.waitpid, self.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), status

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def output(self) -> str:
        return self.process.communicate()[0].strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits: what takes seconds takes tenths."""
    monkeypatch.setattr(writer, "_PATIENCE_SECONDS", 0.1)
    for module in (connection, writer):
        monkeypatch.setattr(module, "BUSY_MILLISECONDS", 300)


def names(text: str, pid: int) -> bool:
    return f"process {pid} (" in text and "which is stopped" in text and f"kill -CONT {pid}" in text


@pytest.mark.parametrize("ending", ["goes on", "dies"])
@pytest.mark.parametrize("first", ["it", "we"])
@in_hub
async def test_one_stopped_inside_a_transaction_is_named_and_work_goes_on_after_it(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture, first: str, ending: str
) -> None:
    """Where `it` was the first it was alone, and took no turn: only SQLite's own lock is held."""
    store = None
    if first == "we":
        store = await hub.host()
        await create(store, start("before"))
    stopped = Stopped(tmp_path / "hub.db", "transaction")
    try:
        await stopped.wait()
        if store is None:
            store = await hub.open()
        for _ in range(2):
            with pytest.raises(errors.StoreUnavailable) as found:
                await asyncio.gather(store.create([start("mine")]), store.create([start("other")]))
            assert names(str(found.value), stopped.process.pid) and "nothing of this call was written" in str(
                found.value
            )
        assert any(names(record.getMessage(), stopped.process.pid) for record in caplog.records)
        assert await store.status(["mine", "theirs"]) == [None, None]
        creating = asyncio.ensure_future(store.create([start("mine")]))
        if ending == "goes on":
            stopped.go_on()
            assert await asyncio.to_thread(stopped.output) == "went on"
        else:
            stopped.kill()
        await asyncio.wait([creating])
        if creating.exception() is not None:
            await create(store, start("mine"))
    finally:
        stopped.kill()
    await create(store, start("more"))
    theirs = Status.PENDING if ending == "goes on" else None
    assert [await status_of(store, i) for i in ("mine", "theirs", "other")] == [Status.PENDING, theirs, None]


@in_hub
async def test_one_stopped_in_its_turn_alone_holds_nobody_up(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = await hub.host()
    assert isinstance(store, SqliteStore) and store._writer is not None
    stopped = Stopped(tmp_path / "hub.db", "turn")
    try:
        await stopped.wait()
        # It has SQLite's lock not: who has waited for its turn for a while goes on without.
        outcomes = await asyncio.gather(*(store.create([start(f"i{n}")]) for n in range(5)))
        assert len(outcomes) == 5
        await create(store, start("a"))
        assert len([record for record in caplog.records if names(record.getMessage(), stopped.process.pid)]) == 1
        assert store._writer._turnless
        stopped.go_on()
        assert await asyncio.to_thread(stopped.output) == "went on"
    finally:
        stopped.kill()
    async with asyncio.timeout(30):
        # The thread that was left behind has got its turn.
        while store._writer._turnless:
            await create(store, start(f"again{hub.now()}"))
            await asyncio.sleep(0.01)
    await create(store, start("b"))
    assert None not in await store.status(["i0", "i4", "a", "b"])


@in_hub
async def test_a_store_closes_while_one_is_stopped_in_its_turn(hub: Hub, tmp_path: Path) -> None:
    store = await hub.host()
    stopped = Stopped(tmp_path / "hub.db", "turn")
    try:
        await stopped.wait()
        creating = asyncio.ensure_future(store.create([start("a")]))
        await asyncio.sleep(0)
        await store.close()
        await creating
        # Opened again in the same process, beside the thread that still waits.
        store = await hub.open()
        await create(store, start("b"))
        stopped.go_on()
        assert await asyncio.to_thread(stopped.output) == "went on"
    finally:
        stopped.kill()
    await create(store, start("c"))
    assert None not in await store.status(["a", "b", "c"])


@in_hub
async def test_the_loop_does_not_wait_for_a_foreign_program(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_QUICK_SECONDS", 1e9)
    monkeypatch.setattr(writer, "BUSY_MILLISECONDS", 30_000)
    store = await hub.host()
    foreign = apsw.Connection(str(tmp_path / "hub.db"))
    foreign.execute("begin immediate")
    creating = asyncio.ensure_future(store.create([start("a")]))
    turns = 0
    while not isinstance(store, SqliteStore) or not store._writer._in_thread:  # type: ignore[union-attr]
        await asyncio.sleep(0)
        turns += 1
    assert turns < 100 and not creating.done()
    also = asyncio.ensure_future(store.create([start("b")]))
    await asyncio.sleep(0.05)
    foreign.execute("rollback")
    foreign.close()
    await asyncio.gather(creating, also)
    assert None not in await store.status(["a", "b"])


def test_without_the_kernels_table_nobody_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LOCKS", str(tmp_path / "nothing"))
    assert waiting.holder(str(tmp_path / "hub.db")) is None
