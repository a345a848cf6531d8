"""Fixed pieces of work for tests of the disk: the same calls of it in each run, each told when it is acknowledged."""

import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import apsw
import pytest

from holdtrue.core.events import Ticks
from holdtrue.core.projection import TERMINAL, Condition
from holdtrue.stores import errors
from holdtrue.stores.protocol import (
    ActivityResult,
    InstanceQuery,
    StoredSchedule,
    Tick,
    TickCommit,
)
from holdtrue.stores.sqlite import SqliteStore, backup, checkpoints, presence, restore
from holdtrue.stores.sqlite import store as store_module
from tests.conformance import acting
from tests.conformance.acting import (
    SECOND,
    Clock,
    Held,
    act,
    again,
    check_whole,
    child,
    done,
    end,
    raised,
    start,
    tell,
    timer,
    with_work,
)

from .disk_recorded import RecordedDisk, RecordedNames

T = TypeVar("T")
State = tuple[Any, ...]


class Steady(Clock):
    """Time stands still, chance comes from a seed, and writing happens on the loop: each run is like the others."""

    inline_writer = True

    def __init__(self, seed: int = 7) -> None:
        super().__init__()
        self._seeds = itertools.count(seed * 1_000)

    def now(self) -> Ticks:
        return round((2_000_000_000 + self.ahead) * SECOND)

    def monotonic(self) -> float:
        return 1_000.0 + self.ahead

    def random(self) -> Random:
        return Random(next(self._seeds))


class Work:
    """Every verb of the protocol that writes; each is tried until the store has done it.

    `begins` is the number of the first of its calls that are worth while.  `stands` is what the hub holds before the first of them is acknowledged and after each; `lasting` says which
    of them were acknowledged as being on disk.  The record of the disk holds `done` at each acknowledgement,
    and `refused` where the store said that it wrote nothing.
    """

    def __init__(self, place: Path, disk: RecordedDisk, *, looks: bool = False) -> None:
        self.clock = Steady()
        self.path = place / "hub.db"
        self.disk = disk
        self.failures: list[errors.StoreError] = []
        self.stands: list[State] = [()]
        self.lasting = [True]
        self.begins = 0
        self._looks = looks
        self._store: SqliteStore | None = None

    async def done(self, call: Callable[[], Awaitable[T]], *, lasts: bool = True) -> T:
        for _ in range(3):
            try:
                outcome = await call()
                break
            except errors.StoreError as error:
                self.failures.append(error)
                self.disk.say("refused")
        else:
            raise AssertionError(f"it does not go on: {self.failures}")
        if self._looks:
            self.stands.append(held_in(self.path))
            self.lasting.append(lasts)
        self.disk.say("done")
        return outcome

    async def open(self) -> SqliteStore:
        store = self._store = SqliteStore(str(self.path), environment=self.clock)
        await self.done(store.open)
        await self.done(lambda: store.join("host", ["code", "child"], ["act"]))
        return store

    async def close(self) -> None:
        """Close the store; whatever fails then, it keeps to itself."""
        store, self._store = self._store, None
        if store is not None:
            await store.close()

    async def life(self) -> None:
        """A new hub, all that is written to it, upkeep, and a second opening."""
        done_, clock = self.done, self.clock
        store = await self.open()
        requests = [start(i, input='"' + "x" * 5_000 + '"') for i in ("a", "b", "c")]
        await done_(lambda: store.create(requests))
        held = {
            one.record.projection.instance_id: Held(store, one, clock)
            for one in await done_(lambda: store.lock(9), lasts=False)
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
        (item, *others) = await done_(lambda: store.lock_activities(9), lasts=False)
        await done_(lambda: store.report(item.ref, '"p"', '"d"'))
        await done_(lambda: store.complete([ActivityResult(ref=item.ref, event=done(item))]))
        await done_(lambda: store.put_back_activities([other.ref for other in others]), lasts=False)
        await done_(lambda: store.send([raised("a", "e"), raised("c", "e")]))
        clock.ahead += 2
        await done_(lambda: store.fire_due(clock.now()), lasts=False)
        await done_(lambda: store.put_back([a.lease, b.lease]), lasts=False)
        await done_(lambda: store.dismiss([1]))
        schedule = StoredSchedule(schedule_id="s", definition="{}", state="{}", due=1, etag=0)
        etag = await done_(lambda: store.put_schedule(schedule, expect=None))
        assert etag is not None
        tick = TickCommit(
            schedule_id="s", etag=etag, state="{}", due=2,
            tick=Tick(schedule_id="s", due=1, decided_at=1, decision="started"), request=start("ticked"),
        )  # fmt: skip
        await done_(lambda: store.commit_tick(tick))
        for one in await done_(lambda: store.lock(9), lasts=False):
            held_ = Held(store, one, clock)
            if one.record.length:
                await held_.load()
            await commit(held_, end(output='"' + "y" * 9_000 + '"'))
        await done_(lambda: store.purge(["a", "b"]))
        await done_(lambda: store.trim_ticks(2, "s"))
        await done_(store.upkeep)
        await self.close()
        store = await self.open()
        requests = [start("last")]
        await done_(lambda: store.create(requests))
        await self.close()

    async def copies(self) -> None:
        """A copy made of a hub, and another hub made from it."""
        store = await self.open()
        requests = [start("a", input='"' + "x" * 9_000 + '"')]
        await self.done(lambda: store.create(requests))
        # So far it is like the other.
        self.begins = len(self.disk.kinds)
        copy, new = str(self.path.with_name("copy.db")), str(self.path.with_name("new.db"))

        async def bring_back() -> None:
            restore(new, copy, environment=self.clock)

        await self.done(lambda: store.backup(copy))
        self.disk.say("copied")
        await self.done(bring_back)
        self.disk.say("restored")
        await self.close()


WORKS = ("life", "copies")

_OF_HOSTS = frozenset({"lock", "ready", "run", "tried"})
"""Columns of what is only held by hosts: it need not outlast them."""
_TABLES = ("instance", "large", "history", "message", "activity", "schedule", "tick", "dead_letter")


def held_in(path: Path) -> State:
    """All that a hub holds, row by row, but for what its hosts hold of it."""
    if not path.exists():
        return ()
    with apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE) as looking:
        found = []
        for table in _TABLES:
            columns = [row[1] for row in looking.execute(f"pragma table_info({table})") if row[1] not in _OF_HOSTS]
            if not columns:
                continue
            found += [
                (table, *row) for row in looking.execute(f"select {', '.join(columns)} from {table} order by 1, 2")
            ]
    looking.close()
    return tuple(found)


def check_file(path: Path) -> None:
    """SQLite finds nothing wrong with the file."""
    looking = apsw.Connection(str(path))
    assert [row[0] for row in looking.execute("pragma integrity_check")] == ["ok"]
    looking.close()


async def run_on(path: Path, clock: Steady) -> None:
    """A host takes over what stands in the hub: all of it comes to its end, each thing once."""
    heir = SqliteStore(str(path), environment=clock)
    await heir.open()
    try:
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
    check_file(path)


def alike(monkeypatch: pytest.MonkeyPatch, disk: RecordedDisk) -> None:
    """Make all runs of the work alike, take the store's own calls down, and let upkeep find something to do."""
    monkeypatch.setattr(acting, "_numbers", itertools.count(1))
    monkeypatch.setattr(store_module, "_WAL_BYTES", 1)
    monkeypatch.setattr(checkpoints, "PAGES", 20)
    monkeypatch.setattr(checkpoints, "_COMMITS", 4)
    names = RecordedNames(disk)
    for module in (backup, presence):
        monkeypatch.setattr(module, "os", names)
