"""A disk that is full or fails, a hub that is locked, gone, damaged, too new: typed errors, and work goes on."""

import os
import sqlite3
from pathlib import Path

import apsw
import pytest

from holdtrue.core import events as ev
from holdtrue.core.messages import InboundMessage, OutboundMessage
from holdtrue.core.projection import Status
from holdtrue.stores import errors
from holdtrue.stores.protocol import CommitResult
from holdtrue.stores.sqlite import SqliteStore, checkpoints, connection, writer
from tests.conformance.acting import (
    SECOND,
    Hub,
    act,
    begin,
    check_whole,
    create,
    end,
    in_hub,
    lock,
    lock_one,
    raised,
    send,
    start,
    status_of,
)

from .conftest import Disk


@pytest.mark.parametrize(
    ("error", "at"),
    [
        (apsw.FullError, "write"),
        (apsw.ReadOnlyError, "write"),
        (apsw.IOError, "write"),
        (apsw.IOError, "sync"),
    ],
)
@in_hub
async def test_a_failing_disk(hub: Hub, disk: Disk, error: type[Exception], at: str) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0))
    held.inbox.append(InboundMessage(event=raised("a", "go").event))
    before = await store.status(["a"])
    disk.failing, disk.at = error, at
    # What is not synced may come back after a crash, while nothing can be written over it.
    told = (errors.OutcomeUnknown, "Look whether it is there")
    if at == "write":
        told = (errors.StoreUnavailable, "nothing of this call was written")
    with pytest.raises(told[0], match=told[1]):
        await store.create([start("b")])
    commit = held.episode(end())
    # From then on nothing is tried before the log is on the disk again.
    with pytest.raises(errors.StoreUnavailable, match="nothing of this call was written"):
        await store.commit([held.committing(commit)])
    assert await store.status(["a", "b"]) == [*before, None]
    disk.failing = None
    await create(store, start("b"))
    (outcome,) = await store.commit([held.committing(commit)])
    assert outcome.result is CommitResult.COMMITTED
    assert await status_of(store, "a") is Status.COMPLETED and await status_of(store, "b") is Status.PENDING
    await check_whole(store, "a")


@in_hub
async def test_a_commit_whose_answer_was_lost_is_read_back(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await hub.host()

    class Lost:
        """A connection that commits, and says that it could not."""

        def __init__(self, real: apsw.Connection) -> None:
            self.real = real

        def execute(self, statement: str, *values: object) -> object:
            found = self.real.execute(statement, *values)  # type: ignore[arg-type]
            if statement == "commit":
                raise apsw.IOError("the answer was lost")
            return found

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

    plain = SqliteStore.connect
    lost: list[bool] = []

    def connect(self: SqliteStore) -> object:
        if lost:
            return plain(self)
        lost.append(True)
        return Lost(plain(self))

    assert isinstance(store, SqliteStore)
    store._writer._disconnect()  # type: ignore[union-attr]
    monkeypatch.setattr(SqliteStore, "connect", connect)
    monkeypatch.setattr(writer.sql, "commit", "commit")
    await create(store, start("a"))
    assert lost and await status_of(store, "a") is Status.PENDING


@in_hub
async def test_a_locked_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (connection, writer):
        monkeypatch.setattr(module, "BUSY_MILLISECONDS", 50)
    store = await hub.host()
    # Not by Python's `sqlite3`: another copy of SQLite in one process does not see this one's locks.
    other = apsw.Connection(str(tmp_path / "hub.db"))
    other.execute("begin immediate")
    with pytest.raises(errors.StoreUnavailable, match="locked by another program"):
        await store.create([start("a")])
    assert await store.status(["a"]) == [None]
    other.execute("rollback")
    other.close()
    await create(store, start("a"))


@pytest.mark.parametrize("gone", ["hub.db", "hub.db-wal"])
@in_hub
async def test_a_file_that_goes_and_comes_back(hub: Hub, tmp_path: Path, gone: str) -> None:
    store = await hub.host()
    await create(store, start("a"))
    hub.clock.ahead += 1
    (tmp_path / gone).rename(tmp_path / "away")
    with pytest.raises(errors.StoreMissing, match="gone or was replaced"):
        await store.create([start("b")])
    with pytest.raises(errors.StoreMissing):
        await store.create([start("b")])
    (tmp_path / "away").rename(tmp_path / gone)
    await create(store, start("b"))
    assert await status_of(store, "a") is Status.PENDING


@in_hub
async def test_another_file_in_its_place_is_not_written(hub: Hub, tmp_path: Path) -> None:
    store = await hub.host()
    hub.clock.ahead += 1
    os.replace(tmp_path / "hub.db", tmp_path / "away")
    sqlite3.connect(tmp_path / "hub.db").close()
    with pytest.raises(errors.StoreMissing):
        await store.create([start("a")])


@in_hub
async def test_a_file_that_is_no_hub(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "hub.db").write_bytes(b"no database at all " * 1_000)
    with pytest.raises(errors.StoreCorrupt, match="damaged or no SQLite file"):
        await hub.open()
    (tmp_path / "hub.db").unlink()
    other = sqlite3.connect(tmp_path / "hub.db")
    other.execute("create table theirs (a)")
    other.commit()
    with pytest.raises(errors.StoreCorrupt, match="no Holdtrue hub"):
        await hub.open()
    other.execute("pragma application_id = 7")
    other.commit()
    other.close()
    with pytest.raises(errors.StoreCorrupt, match="another application"):
        await hub.open()
    with sqlite3.connect(tmp_path / "hub.db") as found:
        assert found.execute("select name from sqlite_schema").fetchall() == [("theirs",)]


@in_hub
async def test_a_damaged_page(hub: Hub, tmp_path: Path) -> None:
    store = await hub.host()
    for n in range(50):
        await create(store, start(f"i{n}", input='"' + "x" * 2_000 + '"'))
    await store.close()
    size = (tmp_path / "hub.db").stat().st_size
    with open(tmp_path / "hub.db", "r+b") as file:
        file.seek(3 * 4_096)
        file.write(os.urandom(size - 3 * 4_096))
    store = SqliteStore(str(tmp_path / "hub.db"))
    with pytest.raises(errors.StoreCorrupt, match="Restore a backup"):
        await store.open()
        await store.join("h", ["code"], [])
        await store.status([f"i{n}" for n in range(50)])
        await store.create([start("new")])
    await store.close()


@in_hub
async def test_a_folder_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(errors.StoreUnavailable, match="directory exists"):
        await SqliteStore(str(tmp_path / "nothing" / "hub.db")).open()
    assert not (tmp_path / "nothing").exists()


@in_hub
async def test_a_value_over_sqlites_limit_takes_no_other_down(hub: Hub) -> None:
    import asyncio

    store = await hub.host()
    assert isinstance(store, SqliteStore) and store._writer is not None
    await create(store, start("first"))
    store._writer._connection.limit(apsw.SQLITE_LIMIT_LENGTH, 100_000)  # type: ignore[union-attr]
    good, bad, also = await asyncio.gather(
        store.create([start("a")]),
        store.create([start("b", input='"' + "x" * 200_000 + '"')]),
        store.create([start("c")]),
        return_exceptions=True,
    )
    assert isinstance(bad, errors.StoreError), bad
    assert not isinstance(good, BaseException) and not isinstance(also, BaseException)
    assert [r is not None for r in await store.status(["a", "b", "c"])] == [True, False, True]


@in_hub
async def test_a_forked_child_is_told(hub: Hub) -> None:
    store = await hub.host()
    await create(store, start("a"))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            await store.status(["a"])
        except errors.ForkedProcess:
            try:
                await store.create([start("b")])
            except errors.ForkedProcess:
                await store.close()
                code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    # The child's close took nothing away.
    await store.renew()
    await (await lock_one(hub, store, "a")).step(end())


@pytest.mark.parametrize("held_by", ["nobody", "one", "two"])
@in_hub
async def test_one_unreadable_message_keeps_no_timer_and_no_mail_from_others(
    hub: Hub, tmp_path: Path, held_by: str
) -> None:
    one, two = await hub.host("one"), await hub.host("two")
    await create(one, start("a"), start("b"))
    if held_by != "nobody":
        assert sorted(await lock(hub, {"one": one, "two": two}[held_by])) == ["a", "b"]
    soon = hub.now() + SECOND
    other = apsw.Connection(str(tmp_path / "hub.db"))
    other.execute(
        "insert into message (instance, key, due, event) "
        "select key, 1000, ?, cast('{\"e\":99}' as blob) from instance where id = 'a'",
        (soon,),
    )
    other.close()
    await send(two, OutboundMessage(instance_id="b", event=raised("b", "good").event, due=soon))
    hub.clock.ahead += 2
    due = await one.fire_due(hub.now())
    got = [d.message for d in (*due.deliveries, *await one.fetch(), *await two.fetch())]
    if held_by == "nobody":
        got = (await lock(hub, one))["b"].inbox
    assert [m.event.name for m in got if type(m.event) is ev.EventRaised] == ["good"]
    (letter,) = await one.dead_letters()
    assert "cannot be read" in letter.letter.reason and letter.letter.instance_id == "a"
    assert (await one.fire_due(hub.now())).next_due is None


@in_hub
async def test_a_checkpoint_that_fails_to_sync_puts_the_log_in_doubt_until_it_is_written_again(
    hub: Hub, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "PAGES", 1)
    monkeypatch.setattr(checkpoints, "_COMMITS", 1)
    store = await hub.host()
    assert isinstance(store, SqliteStore) and store._writer is not None
    written: list[str] = []
    monkeypatch.setattr(writer, "write_log_again", written.append)
    disk.failing, disk.at, disk.ending = apsw.IOError, "sync", "hub.db"
    n = 0
    while not written:
        # Commits do not need that sync: they go on.
        await create(store, start(f"i{n}"))
        n += 1
    disk.failing = None
    await create(store, start("last"))
    assert set(written) == {store.path}
    assert all(await store.status([f"i{at}" for at in range(n)]))
