"""A fixed piece of work, in which each call of the disk goes wrong once, or the process dies at it."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import apsw
import pytest

from holdtrue.core.projection import TERMINAL, Condition
from holdtrue.stores import errors
from holdtrue.stores.protocol import (
    ActivityResult,
    InstanceQuery,
    StoredSchedule,
    TaskHubStore,
    Tick,
    TickCommit,
)
from holdtrue.stores.sqlite import SqliteStore
from holdtrue.stores.sqlite import store as store_module
from tests.conformance.acting import (
    SECOND,
    Clock,
    Held,
    Hub,
    act,
    again,
    check_whole,
    child,
    done,
    end,
    in_hub,
    raised,
    start,
    tell,
    timer,
    with_work,
)

from .conftest import Disk, Entry

T = TypeVar("T")
EVERY = 13
EVERY_DEATH = 23


class Steady(Clock):
    """Writing happens on the loop, one call at a time: each run makes the same calls of the disk."""

    inline_writer = True


class Work:
    """Every verb of the protocol that writes; each is tried until the store has done it."""

    def __init__(self, place: Path) -> None:
        self.clock = Steady()
        self.path = place / "hub.db"
        self.failures: list[errors.StoreError] = []
        self.store: TaskHubStore | None = None
        self.note: Callable[[TaskHubStore], Awaitable[None]] | None = None

    async def done(self, call: Callable[[], Awaitable[T]]) -> T:
        for _ in range(3):
            try:
                outcome = await call()
                break
            except errors.StoreError as error:
                self.failures.append(error)
        else:
            raise AssertionError(f"it does not go on: {self.failures}")
        if self.store is not None and self.note is not None:
            await self.note(self.store)
        return outcome

    async def open(self) -> TaskHubStore:
        store = SqliteStore(str(self.path), environment=self.clock)
        await self.done(store.open)
        return store

    async def do(self) -> TaskHubStore:
        """The work; gives the store, open."""
        done_, clock = self.done, self.clock
        store = self.store = await self.open()
        await done_(lambda: store.join("host", ["code", "child"], ["act"]))
        requests = [start(i, input='"' + "x" * 5_000 + '"') for i in ("a", "b", "c")]
        await done_(lambda: store.create(requests))
        held = {
            one.record.projection.instance_id: Held(store, one, clock) for one in await done_(lambda: store.lock(9))
        }
        a, b, c = (held[i] for i in "abc")
        due = clock.now() + SECOND

        async def commit(one: Held, *actions: Any, keep: bool = True, take: int = 0, **options: Any) -> Any:
            made = one.episode(*actions, **options)
            (outcome,) = await done_(lambda: store.commit([one.committing(made, keep, take)]))
            assert outcome.result.value == "committed", outcome
            one.take(outcome.deliveries)
            return outcome

        outcome = await commit(a, act(0), act(1), timer(2, due), child(3, "a's"), tell(4, "nobody", "e"), take=1)
        a.inbox.append(with_work(outcome.activities[0]))
        await commit(b, again('"next"'), then=[act(0)])
        await done_(lambda: store.park([c.lease], Condition(kind="held", reason="by the test")))
        (item, *others) = await done_(lambda: store.lock_activities(9))
        await done_(lambda: store.report(item.ref, '"p"', '"d"'))
        await done_(lambda: store.complete([ActivityResult(ref=item.ref, event=done(item))]))
        await done_(lambda: store.put_back_activities([other.ref for other in others]))
        await done_(lambda: store.send([raised("a", "e"), raised("c", "e")]))
        clock.ahead += 2
        await done_(lambda: store.fire_due(clock.now()))
        await done_(lambda: store.put_back([a.lease, b.lease]))
        await done_(lambda: store.purge(["nobody"]))
        schedule = StoredSchedule(schedule_id="s", definition="{}", state="{}", due=1, etag=0)
        etag = await done_(lambda: store.put_schedule(schedule, expect=None))
        assert etag is not None
        tick = TickCommit(
            schedule_id="s", etag=etag, state="{}", due=2,
            tick=Tick(schedule_id="s", due=1, decided_at=1, decision="started"), request=start("ticked"),
        )  # fmt: skip
        await done_(lambda: store.commit_tick(tick))
        for one in await done_(lambda: store.lock(9)):
            held_ = Held(store, one, clock)
            if one.record.length:
                await held_.load()
            await commit(held_, end(output='"' + "y" * 9_000 + '"'))
        await done_(lambda: store.purge(["a", "b"]))
        await done_(store.upkeep)
        return store


async def look(store: TaskHubStore) -> object:
    """What stands in the hub, but for ids made by chance and times."""
    records = (await store.query(InstanceQuery())).records
    info = await store.info()
    for record in records:
        await check_whole(store, record.projection.instance_id)
    return (
        [(r.projection.instance_id, r.projection.status, r.length, r.condition) for r in records],
        (info.messages, info.activities, info.dead_letters),
        [(t.schedule_id, t.due, t.decision) for t in await store.ticks("s")],
    )


def integrity(path: Path) -> None:
    """SQLite finds nothing wrong with the file."""
    looking = apsw.Connection(str(path))
    assert [row[0] for row in looking.execute("pragma integrity_check")] == ["ok"]
    looking.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upkeep has something to do in a small hub."""
    monkeypatch.setattr(store_module, "_WAL_BYTES", 1)


async def count(place: Path, disk: Disk) -> tuple[list[str], list[object]]:
    """The kinds of all calls of the disk that the work makes, in order, and what stands after each step of it."""
    kinds: list[str] = []
    stands: list[object] = []
    place.mkdir()
    work = Work(place)

    async def note(store: TaskHubStore) -> None:
        stands.append(await look(store))

    work.note = note
    disk.calls, disk.once = 0, lambda _, what: kinds.append(what)
    store = await work.do()
    disk.once = None
    await store.close()
    return kinds, stands


def chosen(kinds: list[str]) -> list[int]:
    """Numbers of calls: each sync and truncate, and some of the writes, of which one is much like the next."""
    return [n for n, kind in enumerate(kinds, 1) if kind != "write" or n % EVERY == 0]


@in_hub
async def test_each_call_fails_once(hub: Hub, tmp_path: Path, disk: Disk, small: None) -> None:
    kinds, stands = await count(tmp_path / "whole", disk)
    for n in chosen(kinds):
        error = apsw.FullError if kinds[n - 1] == "write" and n // EVERY % 2 else apsw.IOError
        place = tmp_path / str(n)
        place.mkdir()

        def fail(call: int, what: str, n: int = n, error: type[Exception] = error) -> None:
            if call == n:
                raise error("once")

        disk.calls, disk.once = 0, fail
        work = Work(place)
        try:
            store = await work.do()
            assert await look(store) == stands[-1]
            await store.close()
            integrity(work.path)
        except Exception as wrong:
            raise AssertionError(f"call {n} ({kinds[n - 1]}) failed by {error.__name__}: {wrong!r}") from wrong
        for found in work.failures:
            assert isinstance(found, errors.StoreUnavailable), (n, found)
            assert "nothing of this call was written" in str(found), (n, found)


async def taken_over(path: Path, clock: Steady, allowed: list[object]) -> None:
    """Another host opens what is left: it is one of the allowed states, and all that is in it goes on."""
    integrity(path)
    heir = SqliteStore(str(path), environment=clock)
    await heir.open()
    try:
        assert await look(heir) in allowed
        await heir.join("heir", ["code", "child"], ["act"])
        await heir.renew()
        assert (await heir.info()).hosts == ["heir"]
        items = await heir.lock_activities(99)
        await heir.complete([ActivityResult(ref=item.ref, event=done(item)) for item in items])
        clock.ahead += 10
        await heir.fire_due(clock.now())
        open_ = [
            r.projection.instance_id
            for r in (await heir.query(InstanceQuery())).records
            if r.projection.status not in TERMINAL and r.condition is None
        ]
        for one in await heir.lock(99):
            held = Held(heir, one, clock)
            if one.record.length:
                await held.load()
            await held.step(end())
            if held.id in open_:
                open_.remove(held.id)
        # What has nothing to do waits for a message.
        await heir.send([raised(i, "go") for i in open_])
        for one in await heir.lock(99):
            held = Held(heir, one, clock)
            await held.load()
            await held.step(end())
            open_.remove(held.id)
        assert open_ == []
        for record in (await heir.query(InstanceQuery())).records:
            await check_whole(heir, record.projection.instance_id)
        assert await heir.lock_activities(1) == []
    finally:
        await heir.close()
    integrity(path)


@in_hub
async def test_the_process_is_killed_at_a_call(hub: Hub, tmp_path: Path, disk: Disk, small: None) -> None:
    kinds, stands = await count(tmp_path / "whole", disk)
    for n in range(EVERY_DEATH, len(kinds), EVERY_DEATH):
        place = tmp_path / str(n)
        place.mkdir()
        said, saying = os.pipe()
        child_ = os.fork()
        if child_ == 0:
            try:
                os.close(said)
                _until_killed(place, disk, n, saying)
            finally:
                os._exit(1)
        os.close(saying)
        steps = b""
        while piece := os.read(said, 1_000):
            steps += piece
        os.close(said)
        assert os.waitstatus_to_exitcode(os.waitpid(child_, 0)[1]) == -signal.SIGKILL
        if steps:
            await taken_over(place / "hub.db", Steady(), stands[len(steps) - 1 : len(steps) + 1])


def _until_killed(place: Path, disk: Disk, n: int, saying: int) -> None:
    """The work, which says each step that is acknowledged, until the call `n` of the disk."""

    def die(call: int, what: str) -> None:
        if call == n:
            os.kill(os.getpid(), signal.SIGKILL)

    async def note(store: TaskHubStore) -> None:
        os.write(saying, b".")

    asyncio.set_event_loop(None)
    asyncio.events._set_running_loop(None)
    disk.calls, disk.once = 0, die
    work = Work(place)
    work.note = note
    asyncio.new_event_loop().run_until_complete(work.do())


def test_what_a_failed_sync_left_in_the_log_does_not_come_back_after_a_crash(tmp_path: Path, disk: Disk) -> None:
    """It was said that nothing of it was written."""
    child_ = os.fork()
    if child_ == 0:

        async def work() -> None:
            store = SqliteStore(str(tmp_path / "hub.db"), environment=Steady())
            await store.open()
            await store.create([start("a")])
            failed: list[int] = []

            def fail(call: int, what: str) -> None:
                if what == "sync" and not failed:
                    failed.append(call)
                    error = apsw.IOError("once")
                    error.extendedresult = apsw.SQLITE_IOERR_FSYNC
                    raise error

            disk.once = fail
            try:
                await store.create([start("b")])
            except errors.StoreUnavailable:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            asyncio.events._set_running_loop(None)
            asyncio.new_event_loop().run_until_complete(work())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child_, 0)[1]) == -signal.SIGKILL

    async def look_() -> list[bool]:
        store = SqliteStore(str(tmp_path / "hub.db"))
        await store.open()
        found = [record is not None for record in await store.status(["a", "b"])]
        await store.close()
        return found

    assert asyncio.run(look_()) == [True, False]


@in_hub
async def test_the_power_is_cut(hub: Hub, tmp_path: Path, disk: Disk, small: None) -> None:
    """What was acknowledged as durable is there, whatever of the writes not yet synced reached the disk."""
    stands: list[object] = []
    log: list[Entry] = []
    before: dict[str, bytes] = {}
    work = Work(tmp_path)

    async def note(store: TaskHubStore) -> None:
        if not stands:
            # From here on.
            before.update((ending, (tmp_path / f"hub.db{ending}").read_bytes()) for ending in ("", "-wal"))
            disk.log = log
        stands.append(await look(store))
        log.append(Entry("acknowledged"))

    work.note = note
    store = await work.do()
    disk.log = None
    await store.close()
    random = Random(5)
    cuts = [n for n, entry in enumerate(log) if entry.what in ("sync", "truncate")]
    for n in cuts:
        for at in {n, random.randrange(len(log))}:
            place = tmp_path / f"{n}-{at}"
            place.mkdir()
            for ending, content in before.items():
                (place / f"hub.db{ending}").write_bytes(_on_disk(f"hub.db{ending}", content, log[:at], random))
            steps = sum(entry.what == "acknowledged" for entry in log[:at])
            await taken_over(place / "hub.db", Steady(), stands[max(0, steps - 1) : steps + 1])


def _on_disk(name: str, content: bytes, log: list[Entry], random: Random) -> bytes:
    """A file after a power cut: all changes before its last sync, and any of those after it."""
    mine = [entry for entry in log if entry.name.endswith(name)]
    synced = max((n for n, entry in enumerate(mine) if entry.what == "sync"), default=-1)
    file = bytearray(content)
    for n, (what, _, at, data) in enumerate(mine):
        if n > synced and random.random() < 0.5:
            continue
        if what == "truncate":
            del file[at:]
        elif what == "write":
            file.extend(bytes(max(0, at - len(file))))
            file[at : at + len(data)] = data
    return bytes(file)
