"""Copies made while work goes on, several at once, on a failing disk; and what a restore refuses."""

import asyncio
import os
from pathlib import Path

import apsw
import pytest

from holdtrue.core.projection import Status
from holdtrue.environment import REAL
from holdtrue.stores import errors
from holdtrue.stores.protocol import InstanceQuery, TaskHubStore
from holdtrue.stores.sqlite import SqliteStore, backup, connection, restore, statements
from holdtrue.stores.sqlite.presence import Presence
from tests.conformance.acting import Hub, begin, check_whole, create, end, in_hub, start, status_of

from .conftest import Disk


async def restored(place: Path, copy: str) -> list[str]:
    """The ids in a copy, each of which is whole."""
    restore(str(place / f"{copy}.restored"), str(place / copy))
    store = SqliteStore(str(place / f"{copy}.restored"))
    await store.open()
    try:
        records = (await store.query(InstanceQuery(page_size=10_000))).records
        for record in records:
            await check_whole(store, record.projection.instance_id)
        return [record.projection.instance_id for record in records]
    finally:
        await store.close()


async def pairs(hub: Hub, store: TaskHubStore, over: asyncio.Event) -> int:
    """Makes instances, two in one transaction, until it is over; how often."""
    n = 0
    while not over.is_set():
        await create(store, start(f"one{n}", input='"' + "x" * 20_000 + '"'), start(f"two{n}"))
        n += 1
    return n


@in_hub
async def test_a_copy_made_while_work_goes_on_is_of_one_moment(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It takes its time.
    monkeypatch.setattr(backup, "_PAGES", 5)
    store = await hub.host()
    other = await hub.host()
    for n in range(50):
        await create(store, start(f"before{n}", input='"' + "x" * 20_000 + '"'))
    over = asyncio.Event()
    working = asyncio.ensure_future(pairs(hub, other, over))
    outcomes = await asyncio.gather(
        store.backup(str(tmp_path / "a")), other.backup(str(tmp_path / "b")), return_exceptions=True
    )
    over.set()
    made = await working
    assert outcomes == [None, None] and made
    for copy in "ab":
        ids = await restored(tmp_path, copy)
        assert ids[:50] == [f"before{n}" for n in range(50)]
        rest = ids[50:]
        assert rest == [f"{which}{n}" for n in range(len(rest) // 2) for which in ("one", "two")]
    assert len((await store.query(InstanceQuery(page_size=10_000))).records) == 50 + 2 * made


@in_hub
async def test_two_copies_to_one_file_at_once(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "_PAGES", 2)
    one, two = await hub.host(), await hub.open()
    for n in range(30):
        await create(one, start(f"i{n}", input='"' + "x" * 20_000 + '"'))
    outcomes = await asyncio.gather(
        *(store.backup(str(tmp_path / "copy.db")) for store in (one, two)), return_exceptions=True
    )
    failed = [outcome for outcome in outcomes if outcome is not None]
    assert len(failed) == 1 and isinstance(failed[0], errors.StoreError) and "already" in str(failed[0])
    assert len(await restored(tmp_path, "copy.db")) == 30
    assert not [name for name in os.listdir(tmp_path) if "unfinished" in name]


@in_hub
async def test_a_copy_that_fails_leaves_nothing(hub: Hub, tmp_path: Path, disk: Disk) -> None:
    store = await hub.host()
    await create(store, start("a"))
    disk.failing, disk.ending = apsw.FullError, ".unfinished"
    with pytest.raises(errors.StoreUnavailable, match="disk is full"):
        await store.backup(str(tmp_path / "copy.db"))
    assert not [name for name in os.listdir(tmp_path) if "copy" in name]
    disk.failing = None
    await store.backup(str(tmp_path / "copy.db"))
    disk.failing = apsw.FullError
    with pytest.raises(errors.StoreUnavailable, match="disk is full"):
        restore(str(tmp_path / "new.db"), str(tmp_path / "copy.db"))
    assert not [name for name in os.listdir(tmp_path) if name.startswith("new.db") and not name.endswith("-hosts")]
    disk.failing = None
    assert await restored(tmp_path, "copy.db") == ["a"]


@in_hub
async def test_a_copy_of_an_older_version_is_brought_forward_and_left_as_it_is(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await hub.host()
    await begin(hub, store, "a", end())
    copy = tmp_path / "copy.db"
    await store.backup(str(copy))
    before = copy.read_bytes()
    copy.chmod(0o444)
    monkeypatch.setattr(statements, "migrations", lambda: {2: "create table shade (a)"})
    restore(str(tmp_path / "new.db"), str(copy))
    assert copy.read_bytes() == before
    found = connection.connect(str(tmp_path / "new.db"))
    assert found.execute("pragma user_version").get == 2 and found.execute("select count(*) from shade").get == 0
    found.close()


@pytest.mark.parametrize("kind", ["newer", "empty", "no hub"])
@in_hub
async def test_a_copy_that_cannot_be_a_hub_is_refused_and_left_as_it_is(hub: Hub, tmp_path: Path, kind: str) -> None:
    copy = tmp_path / "copy.db"
    if kind == "newer":
        store = await hub.host()
        await store.backup(str(copy))
        other = apsw.Connection(str(copy))
        other.execute("pragma user_version = 99")
        other.close()
    else:
        copy.write_bytes(b"" if kind == "empty" else b"text, and not a database" * 300)
    before = copy.read_bytes()
    with pytest.raises(errors.SchemaTooNew if kind == "newer" else errors.StoreCorrupt):
        restore(str(tmp_path / "new.db"), str(copy))
    assert copy.read_bytes() == before and not (tmp_path / "new.db").exists()


@pytest.mark.parametrize("what", ["new.db", "new.db-wal", "new.db-journal", "a process"])
@in_hub
async def test_nothing_is_restored_over_what_is_there(hub: Hub, tmp_path: Path, what: str) -> None:
    store = await hub.host()
    await create(store, start("a"))
    await store.backup(str(tmp_path / "copy.db"))
    path = tmp_path / "new.db"
    presence = None
    if what == "a process":
        presence = Presence(str(path), REAL)
    else:
        (tmp_path / what).write_bytes(b"something")
    with pytest.raises(errors.StoreError, match="open in another process" if presence else "exists"):
        restore(str(path), str(tmp_path / "copy.db"))
    assert what == "new.db" or not path.exists()
    if presence is not None:
        presence.close()
    else:
        (tmp_path / what).unlink()
    restore(str(path), str(tmp_path / "copy.db"))
    again = SqliteStore(str(path))
    await again.open()
    assert await status_of(again, "a") is Status.PENDING
    await again.close()
