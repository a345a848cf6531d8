"""The task hubs that the conformance tests run on: which store, in which time, with which traits.

It knows the store protocol; it must not know any store.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import msgspec
import pytest

from holdtrue.core import events as ev
from holdtrue.environment import Environment
from holdtrue.stores.protocol import Delivery, TaskHubStore
from holdtrue.testing import virtual_time
from holdtrue.testing.environment import SimulatedEnvironment

SECOND = ev.TICKS_PER_SECOND
LIMIT_SECONDS = 60.0
VIRTUAL_LIMIT_SECONDS = 20_000.0

P = ParamSpec("P")
T = TypeVar("T")


class Clock(Environment):
    """The real world, but for a wall clock and a monotonic one that can be set forward.

    `wrong` is by how many seconds the wall clock alone is not right.
    """

    def __init__(self) -> None:
        self.ahead = 0.0
        self.wrong = 0.0

    def now(self) -> ev.Ticks:
        return super().now() + round((self.ahead + self.wrong) * SECOND)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


class VirtualClock(SimulatedEnvironment):
    """As `Clock`, on a loop with virtual time: setting it forward sets the loop's forward, for all processes.

    A `shared` one goes along with the hub's.
    """

    def __init__(self, *, shared: bool = False) -> None:
        super().__init__(7)
        self.limit: asyncio.Timeout | None = None
        self._shared = shared
        self._ahead = 0.0

    @property
    def ahead(self) -> float:
        return self._ahead

    @ahead.setter
    def ahead(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualLoop)
        if not self._shared:
            if self.limit is not None:
                self.limit.reschedule((self.limit.when() or 0.0) + seconds - self._ahead)
            loop.advance(seconds - self._ahead)
        self._ahead = seconds

    @property
    def wrong(self) -> float:
        return self.skew / SECOND

    @wrong.setter
    def wrong(self, seconds: float) -> None:
        self.skew = round(seconds * SECOND)


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """In what stores differ for good; a test that holds for some of them only says so (`where`, `where_not`).

    `settles` is after how many seconds all that was sent is where it belongs (0: when the call returns); such a
    store runs in virtual time, where that costs nothing.
    """

    settles: float = 0.0
    takes_along: bool = True
    """Asked to, it locks what a call makes for the caller along with it; else it is locked when it is there."""
    any_host: bool = True
    """Any host that has the code may get an instance, and hosts take over from those that died when they renew; else
    only the owner of its partition gets it, whatever code others have, and partitions go over by themselves."""
    fair: bool = True
    """Much work of one name does not keep that of others waiting; else all of it stands in one queue."""
    recalls: bool = True
    """What is not wanted any more is taken back wherever it is; else where this process has it."""
    ends_mail: bool = True
    """What waits for an instance goes with it when another takes its place; else it belongs to the id."""
    children_stand: bool = True
    """A child stands from its parent's commit on; else from its own first one."""
    calls_others: bool = True
    """What one process leaves for others calls them; else they find it when they look."""
    knows_due: bool = True
    """It tells when something is due next; else what is due comes by itself."""
    counts: bool = True
    """It counts what waits exactly; else about."""
    copies: bool = True
    """It can be copied as it stands at one moment."""
    most: int = 50_000
    """No more of anything in one test: where each is a request of its own, they take their time."""
    keeps_activities: bool = False
    """A host runs what it schedules itself, without a message, so that no other is offered it."""


Opener = Callable[[Path, Environment, float], TaskHubStore]
"""Makes a store object on the hub that this folder (or its name) stands for, with a lease of so many seconds."""


COMMON = Traits()


class Hub:
    """One task hub under test, and the store objects opened on it, each standing for a process of its own."""

    def __init__(self, opener: Opener, place: Path, traits: Traits = COMMON) -> None:
        self.traits = traits
        self.clock: Clock | VirtualClock = VirtualClock() if traits.settles else Clock()
        self._opener = opener
        self._place = place
        self._opened: list[TaskHubStore] = []
        self._parts: dict[int, virtual_time.Part] = {}
        self._came: dict[int, list[Delivery]] = {}

    async def open(self, *, clock: Environment | None = None, lease: float = 120.0) -> TaskHubStore:
        """One more store object on this hub, opened."""
        part = virtual_time.Part(f"process {len(self._parts) + 1}")
        with virtual_time.as_part(part):
            store = self._opener(self._place, clock or self.clock, lease)
        self._opened.append(store)
        self._parts[id(store)] = part
        await store.open()
        return store

    async def host(
        self,
        name: str = "host",
        *,
        code: Sequence[str] = ("code", "child"),
        queues: Sequence[str] = ("act",),
        clock: Environment | None = None,
        lease: float = 120.0,
    ) -> TaskHubStore:
        """One more store object, that has joined as a host with this code."""
        store = await self.open(clock=clock, lease=lease)
        with virtual_time.as_part(self._parts[id(store)]):
            await asyncio.ensure_future(store.join(name, code, queues))
        await self.settle()
        return store

    def at_work(self) -> list[TaskHubStore]:
        """The store objects whose process does not stand still."""
        return [store for store in self._opened if not self._parts[id(store)].paused]

    async def settle(self) -> None:
        """Return when all that was sent is where it belongs."""
        if self.traits.settles:
            await self.clock.sleep(self.traits.settles)

    def new_clock(self) -> "Clock | VirtualClock":
        """A clock of another process."""
        return VirtualClock(shared=True) if self.traits.settles else Clock()

    async def stops(self, store: TaskHubStore, seconds: float) -> None:
        """The process of a store stands still from now on, and so long passes; what is called of it answers all the
        same, as if that were the first that it does when it `wakes`."""
        self._parts[id(store)].paused = True
        await self.clock.sleep(seconds)

    def wakes(self, store: TaskHubStore) -> None:
        """The process of a store that stood still goes on."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualLoop)
        loop.resume(self._parts[id(store)])

    async def later(self, seconds: float) -> None:
        """Some time later, for what a store does not do at once; others need none of it."""
        if self.traits.settles:
            await self.clock.sleep(seconds)

    async def some(self, call: Callable[[], Awaitable[list[T]]]) -> list[T]:
        """What a call gives; on a store where that needs a while, when it gives something."""
        found = await call()
        for _ in range(40 if self.traits.settles else 0):
            if found:
                break
            await self.later(30)
            found = await call()
        return found

    async def fetch(self, store: TaskHubStore) -> list[Delivery]:
        """What has come for the instances that a host holds, and was not taken from here yet."""
        await self.settle()
        came = self.came(store)
        came.extend(await store.fetch())
        return came

    def came(self, store: TaskHubStore) -> list[Delivery]:
        """What a host was given for instances that it holds, and was not taken from here yet."""
        return self._came.setdefault(id(store), [])

    async def close(self) -> None:
        for store in self._opened:
            if self._parts[id(store)].paused:
                self.wakes(store)
            await store.close()
        self._opened.clear()
        self._parts.clear()
        self._came.clear()

    def now(self) -> ev.Ticks:
        return self.clock.now()

    def many(self, wanted: int) -> int:
        """So many of something, or as many as this store's tests may have."""
        return min(wanted, self.traits.most)

    def run(self, main: Awaitable[None]) -> None:
        """Run a test on a loop of the time that this hub's store has."""
        virtual_time.run(main) if self.traits.settles else asyncio.run(main)  # type: ignore[arg-type]


Test = TypeVar("Test", bound=Callable[..., None])


def where(*traits: str) -> Callable[[Test], Test]:
    """A test of stores that have all these traits."""
    return pytest.mark.where(*traits)


def where_not(*traits: str) -> Callable[[Test], Test]:
    """A test of stores that lack these traits: the other side of what `where` says of the rest."""
    return pytest.mark.where_not(*traits)


def in_hub(test: Callable[Concatenate[Hub, P], Awaitable[None]]) -> Callable[Concatenate[Hub, P], None]:
    """An async test of a hub as an ordinary one, with a limit of time so that what hangs is told."""

    @functools.wraps(test)
    def run(hub: Hub, *args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            try:
                async with asyncio.timeout(VIRTUAL_LIMIT_SECONDS if hub.traits.settles else LIMIT_SECONDS) as limit:
                    if isinstance(hub.clock, VirtualClock):
                        hub.clock.limit = limit
                    await test(hub, *args, **kwargs)
            finally:
                await hub.close()

        hub.run(main())

    return run
