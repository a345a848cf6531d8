"""Where a hub lies: paths that lead to one file, files with several names, users who may not write, files taken away."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from holdtrue.core.errors import InvalidInput
from holdtrue.core.projection import Status
from holdtrue.stores import errors
from holdtrue.stores.locate import open_store
from holdtrue.stores.sqlite import SqliteStore, connection, restore
from holdtrue.stores.sqlite.presence import Presence
from tests.conformance.acting import Hub, begin, create, end, in_hub, lock_one, start, status_of

ODD = [
    "a b",
    "100%",
    "%41",
    "q?mode=ro",
    "h#ash",
    "ünïcode-\U0001f600",
    "new\nline",
    "quote'\"",
    "-dash",
    "semi;colon",
    "a://b",
]


@pytest.mark.parametrize("name", ODD)
def test_a_path_with_odd_characters(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        place = tmp_path / name if "/" not in name else tmp_path / name.replace("/", "_")
        place.mkdir()
        for hub in (str(place / f"{place.name}.db"), place / "path.db"):
            store = open_store(hub)
            await store.open()
            await create(store, start("a"))
            assert os.path.isfile(hub)
            assert store.location is not None
            other = open_store(store.location)
            await other.open()
            assert await status_of(other, "a") is Status.PENDING
            await other.close()
            await store.close()

    asyncio.run(main())


def test_a_path_that_looks_like_a_url_but_is_none(tmp_path: Path) -> None:
    (tmp_path / "a:").mkdir()
    store = open_store(f"{tmp_path}/a://hub.db")
    assert isinstance(store, SqliteStore) and store.path == str(tmp_path / "a:" / "hub.db")


@pytest.mark.parametrize(
    "hub",
    [
        "",
        "sqlite://",
        "sqlite:///",
        "sqlite://host/hub.db",
        "sqlite://hub.db",
        "postgres://x/y",
        ":memory:",
        "a\x00b",
        "b\udce4d",
    ],
)
def test_what_names_no_file_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput):
        open_store(hub)
    assert os.listdir(tmp_path) == []


@in_hub
async def test_all_paths_to_a_file_are_one_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links to the file and to its directory, and a relative path, from which the process then goes away."""
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    (tmp_path / "link").symlink_to(place)
    (elsewhere / "other.db").symlink_to(place / "hub.db")
    monkeypatch.chdir(place)
    paths = [
        "hub.db",
        "../link/hub.db",
        str(tmp_path / "link" / "hub.db"),
        str(elsewhere / "other.db"),
        "./x/../hub.db",
    ]
    stores = [SqliteStore(path) for path in paths]
    monkeypatch.chdir("/")
    for store in stores:
        await store.open()
        await store.join(str(len(os.listdir(place / "hub.db-hosts"))), ["code"], [])
    try:
        await create(stores[0], start("a"))
        for store in stores:
            assert await status_of(store, "a") is Status.PENDING
            assert await store.renew() == [] and len((await store.info()).hosts) == len(paths)
        locks = [name for name in os.listdir(place / "hub.db-hosts") if name.endswith(".lock")]
        assert len(locks) == len(paths) and os.listdir(elsewhere) == ["other.db"]
        # The files of this process's own stores are not opened by a restore under another path, either.
        with pytest.raises(errors.StoreError, match="exists"):
            restore(str(tmp_path / "link" / "hub.db"), str(place / "hub.db"))
        assert all(presence_is_held(place / "hub.db", name) for name in locks)
    finally:
        for store in stores:
            await store.close()


def presence_is_held(hub: Path, name: str) -> bool:
    """Whether another process finds this lock file locked."""
    script = (
        "import sys; from holdtrue.environment import REAL; from holdtrue.stores.sqlite.presence import Presence\n"
        "sys.exit(0 if Presence(sys.argv[1], REAL).is_alive(sys.argv[2]) else 3)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script, str(hub), name.removesuffix(".lock")], env=environment)
    assert done.returncode in (0, 3)
    return done.returncode == 0


def test_one_directory_under_two_paths_is_one_turnstile(tmp_path: Path) -> None:
    """As through a bind mount: the paths differ, and no link tells it.  Nothing of its own is opened twice."""
    from holdtrue.environment import REAL

    (tmp_path / "hub.db-hosts").mkdir()
    (tmp_path / "other.db-hosts").symlink_to(tmp_path / "hub.db-hosts")
    one, two = Presence(str(tmp_path / "hub.db"), REAL), Presence(str(tmp_path / "other.db"), REAL)
    assert one.is_alive(two.file) and two.is_alive(one.file)
    two.sweep()
    assert one._turn is two._turn
    assert presence_is_held(tmp_path / "hub.db", one.file) and presence_is_held(tmp_path / "hub.db", two.file)
    two.close()
    assert presence_is_held(tmp_path / "hub.db", one.file)
    one.close()


@in_hub
async def test_a_file_with_two_names_is_refused(hub: Hub, tmp_path: Path) -> None:
    store = await hub.host()
    await create(store, start("a"))
    os.link(tmp_path / "hub.db", tmp_path / "second.db")
    for path in ("hub.db", "second.db"):
        with pytest.raises(errors.StoreUnavailable, match="hard links"):
            await SqliteStore(str(tmp_path / path)).open()
    assert not (tmp_path / "second.db-wal").exists() and not (tmp_path / "second.db-hosts").exists()
    (tmp_path / "second.db").unlink()
    other = await hub.open()
    assert await status_of(other, "a") is Status.PENDING


@in_hub
async def test_a_directory_is_refused(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "hub.db").mkdir()
    with pytest.raises(errors.StoreUnavailable, match="is a directory"):
        await hub.open()
    assert os.listdir(tmp_path) == ["hub.db"]


def test_a_mount_with_a_name_of_other_letters_is_found(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_bytes("/dev/a / ext4 rw 0 0\nserver:/x /dätei\\040en\\134 nfs4 rw 0 0\n".encode())
    with pytest.raises(errors.UnsuitableFileSystem, match="nfs4"):
        connection.refuse_network("/dätei en\\/hub.db", str(mounts))
    connection.refuse_network("/dätei/hub.db", str(mounts))


# -- users who may not write -------------------------------------------------------------------------------


@pytest.fixture
def anywhere() -> Iterator[Path]:
    """A directory that every user can reach."""
    place = Path(tempfile.mkdtemp(prefix="holdtrue-test-"))
    place.chmod(0o777)
    yield place
    for each in [place, *place.rglob("*")]:
        each.chmod(0o777)
    shutil.rmtree(place)


def as_ordinary_user(call: Callable[[], Awaitable[str]]) -> str:
    """What a call says in a process whose user may do only what files allow."""
    said, saying = os.pipe()
    child = os.fork()
    if child == 0:
        text = "nothing"
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            asyncio.events._set_running_loop(None)
            text = asyncio.new_event_loop().run_until_complete(asyncio.wait_for(call(), 60))
        except BaseException as error:
            text = f"untyped {type(error).__name__}: {error}"
        finally:
            os.write(saying, text.encode())
            os._exit(0)
    os.close(saying)
    text = ""
    while piece := os.read(said, 10_000):
        text += piece.decode()
    os.close(said)
    os.waitpid(child, 0)
    return text


async def use(path: Path) -> str:
    """Open, look, write: what became of it."""
    store = SqliteStore(str(path))
    try:
        await store.open()
        looked = await store.status(["a"])
        assert looked[0] is not None
        await store.create([start("b")])
        return "written"
    except errors.StoreError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        await store.close()


@pytest.mark.parametrize("what", ["file", "directory", "hosts"])
def test_a_user_who_may_not_write_is_told_and_changes_nothing(anywhere: Path, what: str) -> None:
    path = anywhere / "hub.db"

    async def make() -> str:
        store = SqliteStore(str(path))
        await store.open()
        await store.join("host", ["code"], [])
        await create(store, start("a"))
        await store.close()
        return "made"

    assert asyncio.run(make()) == "made"
    if os.getuid() == 0:
        for each in [anywhere, *anywhere.rglob("*")]:
            os.chown(each, 65534, 65534)
    before = path.read_bytes()
    chosen = {"file": path, "directory": anywhere, "hosts": anywhere / "hub.db-hosts"}[what]
    mode = chosen.stat().st_mode
    if what == "directory":
        shutil.rmtree(anywhere / "hub.db-hosts")
    chosen.chmod(0o444 if what == "file" else 0o555)
    told = as_ordinary_user(lambda: use(path))
    assert (told.startswith("StoreUnavailable: ") and "writable" in told) or "may write there" in told, told
    assert path.read_bytes() == before
    chosen.chmod(mode)
    assert as_ordinary_user(lambda: use(path)) == "written"


# -- taken away while the hub is open ----------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["hub.db", "hub.db-wal", "hub.db-shm"])
@in_hub
async def test_nobody_reads_or_writes_what_is_not_there_any_more(hub: Hub, tmp_path: Path, gone: str) -> None:
    store = await hub.host()
    await create(store, start("a"))
    (tmp_path / gone).rename(tmp_path / "away")
    # Another file in its place is not taken for it.
    (tmp_path / gone).write_bytes(b"")
    hub.clock.ahead += 1
    for call in (
        lambda: store.status(["a"]),
        lambda: store.create([start("b")]),
        lambda: store.lock(1),
        lambda: store.info(),
        lambda: store.backup(str(tmp_path / "copy.db")),
    ):
        with pytest.raises(errors.StoreMissing, match="gone or was replaced"):
            await call()
    (tmp_path / "away").rename(tmp_path / gone)
    await create(store, start("b"))
    assert [await status_of(store, i) for i in "ab"] == [Status.PENDING] * 2


@pytest.mark.parametrize("bytes_left", [0, 100, 4_096, 40_000])
@in_hub
async def test_a_file_cut_short_is_an_error_or_answers_right(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_left: int
) -> None:
    monkeypatch.setattr(connection, "BUSY_MILLISECONDS", 200)
    store = await hub.host()
    for n in range(30):
        await begin(hub, store, f"i{n}", end(), input='"' + "x" * 2_000 + '"')
    await store.upkeep()
    await (await hub.open()).close()
    os.truncate(tmp_path / "hub.db", bytes_left)
    found = []
    for reading in (store, SqliteStore(str(tmp_path / "hub.db"))):
        try:
            await reading.open()
            found += [await status_of(reading, f"i{n}") for n in range(30)]
            await reading.create([start("new")])
        except (errors.StoreCorrupt, errors.StoreUnavailable):
            pass
        finally:
            if reading is not store:
                await reading.close()
    assert set(found) <= {Status.COMPLETED}


@in_hub
async def test_a_host_whose_side_files_were_taken_away_comes_back_under_another_name(hub: Hub, tmp_path: Path) -> None:
    one = await hub.host("one")
    await create(one, start("a"))
    await lock_one(hub, one, "a")
    shutil.rmtree(tmp_path / "hub.db-hosts")
    two = await hub.host("two")
    # Other processes take it for dead, which harms nobody; it finds that out, and joins again.
    with pytest.raises(errors.LeaseLost):
        await one.renew()
    await one.join("one", ["code"], [])
    for _ in range(2):
        assert await one.renew() == [] and await two.renew() == []
    assert sorted((await two.info()).hosts) == ["one", "two"]
    held = await lock_one(hub, one, "a")
    await held.step(end())
    assert await status_of(two, "a") is Status.COMPLETED
    calls: list[object] = []
    one.listen(calls.append)
    await create(two, start("b"))
    async with asyncio.timeout(30):
        while not calls:
            await asyncio.sleep(0.01)
