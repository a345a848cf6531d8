"""The store for who only looks: it leaves nothing behind, and sees what others write."""

import asyncio
import os
from pathlib import Path

import pytest

from holdtrue.core import events as ev
from holdtrue.core.messages import Start
from holdtrue.stores import errors
from holdtrue.stores.locate import open_store
from holdtrue.stores.protocol import CreateRequest, InstanceQuery
from holdtrue.stores.sqlite import ReadOnlySqliteStore, SqliteStore


def request(instance_id: str) -> CreateRequest:
    started = ev.ExecutionStarted(timestamp=1, instance_id=instance_id, execution_id=instance_id, name="job")
    return CreateRequest(start=Start(started=started, start_id=instance_id), replaceable=frozenset())


async def ids(store: SqliteStore) -> list[str]:
    return [record.projection.instance_id for record in (await store.query(InstanceQuery())).records]


async def made(path: Path, *instance_ids: str) -> None:
    store = SqliteStore(str(path))
    await store.open()
    await store.create([request(instance_id) for instance_id in instance_ids])
    await store.close()


def test_it_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"

    def state() -> dict[str, tuple[int, bytes]]:
        files = [one for one in tmp_path.rglob("*") if one.is_file()]
        return {str(one): (one.stat().st_mtime_ns, one.read_bytes()) for one in files}

    async def main() -> None:
        await made(path, "one")
        path.chmod(0o444)
        before = state()
        store = open_store(path, read_only=True)
        assert isinstance(store, ReadOnlySqliteStore)
        await store.open()
        assert await ids(store) == ["one"]
        assert [record is None for record in await store.status(["one", "two"])] == [False, True]
        assert state() == before
        for refused in (
            store.create([request("two")]),
            store.join("host", [], []),
            store.renew(),
            store.purge(["one"]),
        ):
            with pytest.raises(errors.StoreUnavailable, match="for reading only"):
                await refused
        await store.close()
        assert state() == before

    asyncio.run(main())


def test_it_sees_what_is_written_beside_it(tmp_path: Path) -> None:
    """Whether the writer was there before it, or has come after it."""
    path = tmp_path / "hub.db"

    async def main() -> None:
        await made(path, "one")
        early = open_store(path, read_only=True)
        await early.open()
        assert await ids(early) == ["one"]  # type: ignore[arg-type]
        writer = SqliteStore(str(path))
        await writer.open()
        await writer.create([request("two")])
        late = open_store(path, read_only=True)
        await late.open()
        for store in (early, late):
            assert await ids(store) == ["one", "two"]  # type: ignore[arg-type]
            assert (await store.status(["two"]))[0] is not None
        await writer.create([request("three")])
        for store in (early, late):
            assert await ids(store) == ["one", "two", "three"]  # type: ignore[arg-type]
            await store.close()
        await writer.close()

    asyncio.run(main())


def test_what_is_no_hub(tmp_path: Path) -> None:
    async def opening(name: str) -> None:
        await open_store(tmp_path / name, read_only=True).open()

    (tmp_path / "text.db").write_text("not a database at all" * 100)
    (tmp_path / "empty.db").touch()
    for name, kind in (
        ("none.db", errors.StoreMissing),
        ("text.db", errors.StoreCorrupt),
        ("empty.db", errors.StoreCorrupt),
    ):
        with pytest.raises(kind):
            asyncio.run(opening(name))
    assert sorted(os.listdir(tmp_path)) == ["empty.db", "text.db"]


def test_a_hub_that_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"

    async def main() -> None:
        await made(path, "one")
        store = open_store(path, read_only=True)
        await store.open()
        path.unlink()
        with pytest.raises(errors.StoreMissing):
            await store.status(["one"])
        await store.close()

    asyncio.run(main())
