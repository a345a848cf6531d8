"""Several hosts and clients on one hub in one virtual time, with faults; and what must be true of it at the end.

Everything that happens follows from the scenario and the faults: the same two give the same run.
"""

import asyncio
import logging
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from broken import Broken
from ledger import Ledger, at_once, is_event
from leftovers import in_file, in_host, in_memory_hub, nothing_is_left
from timekeeping import Timekeeping
from workload import World, app_for

import holdtrue
from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.engine.settings import HostSettings
from holdtrue.environment import Environment
from holdtrue.stores.errors import OutcomeUnknown, StoreError, StoreUnavailable
from holdtrue.stores.memory.hub import MemoryHub
from holdtrue.stores.memory.store import MemoryStore
from holdtrue.stores.protocol import TaskHubStore
from holdtrue.stores.sqlite.store import SqliteStore
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.faults import Fault, Faults, FaultyStore, faulty
from holdtrue.testing.virtual_time import Part, VirtualLoop, as_part

LEASE_SECONDS = 20.0
RENEW_SECONDS = 5.0
SETTLE_SECONDS = 900.0
"""When no faults come any more, all that is not waiting for its own time must be done within this."""

REST_SECONDS = 45.0
"""So long after everything has come to rest, what nobody needs any more is put away."""
STOP_SECONDS = 60.0
"""A host that is told to stop, and does not within this, is killed."""

MOST_AT_ONCE = 5_000
"""Calls of stores at one moment of virtual time: more is a host that spins."""


class Hub(Protocol):
    """One kind of hub: gives a store to each process, and lets a process die."""

    def store(self, environment: Environment) -> TaskHubStore:
        """A process's store of the hub."""

    def die(self, store: TaskHubStore) -> None:
        """The process of that store has ended; nothing of it is tidied up."""

    def queued(self, name: str) -> Counter[str] | None:
        """The payloads of the events that wait for an instance (None: they cannot be seen)."""

    def left(self) -> list[str]:
        """What it still holds for nobody, when everything has come to rest."""

    def close(self) -> None:
        """The end of the simulation."""


class SqliteHub:
    """The real SQLite store, on a file in memory where there is such a place."""

    def __init__(self) -> None:
        shared = Path("/dev/shm")
        self.folder = tempfile.mkdtemp(prefix="holdtrue-sim-", dir=shared if shared.is_dir() else None)

    def store(self, environment: Environment) -> TaskHubStore:
        return SqliteStore(
            f"{self.folder}/hub.db", environment=environment, lease_seconds=LEASE_SECONDS, synchronous="normal"
        )

    def queued(self, name: str) -> Counter[str] | None:
        return None

    def left(self) -> list[str]:
        return in_file(f"{self.folder}/hub.db")

    def die(self, store: TaskHubStore) -> None:
        assert isinstance(store, SqliteStore)
        # What the kernel does for a dead process: its locks and descriptors go, the rows in the hub stay.
        if store._presence is not None:
            store._presence.close()
        if store._writer is not None:
            store._writer._disconnect()
        for reader in (store._quick, store._slow):
            if reader is not None:
                reader.close()

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class MemoryHubs:
    """The store in memory, which the conformance suite holds equal to the SQLite store; many times faster."""

    def __init__(self) -> None:
        self.hub = MemoryHub()

    def store(self, environment: Environment) -> TaskHubStore:
        return MemoryStore(self.hub, environment=environment, lease_seconds=LEASE_SECONDS)

    def queued(self, name: str) -> Counter[str] | None:
        instance = self.hub.of(name)
        if instance is None:
            return Counter()
        waiting = [*instance.inbox.values(), *(delayed.message for delayed in instance.delayed.values())]
        return Counter(message.event.input for message in waiting if is_event(message.event))

    def left(self) -> list[str]:
        return in_memory_hub(self.hub)

    def die(self, store: TaskHubStore) -> None:
        assert isinstance(store, MemoryStore)
        store.die()

    def close(self) -> None:
        pass


class Errors(logging.Handler):
    """What the engine itself calls a defect."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({record.exc_info[1]!r})"
        self.messages.append(text)


class Cluster:
    """The hosts `h1` … and the clients of one simulation; `trace` says what happened, a line each."""

    def __init__(self, seed: int, faults: Faults, hub: Hub, *, hosts: int = 2) -> None:
        self.seed = seed
        self.faults = faults
        self.hub = hub
        self.names = [f"h{number}" for number in range(1, hosts + 1)]
        self.world = World()
        self.times = Timekeeping(lambda: self.loop.time(), LEASE_SECONDS, RENEW_SECONDS)
        self.ledger = Ledger(
            lambda: self.eye, self.times, code_of=lambda part: self.codes.get(part.name), queued=self.hub.queued
        )
        self.code = 1
        """The version of the code that hosts which come now have."""
        self.codes: dict[str, int] = {}
        self.eye: TaskHubStore | None = None
        self.hosts: dict[str, holdtrue.Host] = {}
        self.parts: dict[str, Part] = {}
        self.environments: dict[str, SimulatedEnvironment] = {}
        self.trace: list[tuple[float, str, str, str]] = []
        self.counts: Counter[str] = Counter()
        self.errors = Errors()
        self.faults_over = False
        self.twice: set[str] = set()
        """Instances of which is not known how often their events came."""
        self.failed: list[BaseException] = []
        self._at_once = 0
        self._kept: list[Any] = []
        self._lives: Counter[str] = Counter()
        self._host_names: set[str] = set()
        self._not_wanted: set[str] = set()

    # -- parts -----------------------------------------------------------------------------------------

    def part(self, name: str) -> tuple[Part, FaultyStore, SimulatedEnvironment]:
        """A new process of that name: its part, its store, its environment."""
        self._lives[name] += 1
        part = Part(name if self._lives[name] == 1 else f"{name}.{self._lives[name]}")
        chance = random.Random(f"{self.seed}:{part.name}")
        environment = SimulatedEnvironment(chance.getrandbits(64))
        before = self.environments.get(name)
        environment.skew = 0 if before is None else before.skew
        store = FaultyStore(
            self.hub.store(environment),
            part,
            self,
            applied=self._applied,
            called=self._called,
            crash=self.crash,
            pause=self.pause,
            set_clock=self.set_clock,
        )
        self.parts[name] = part
        self.environments[name] = environment
        self._kept.append(store)
        return part, store, environment

    def may_have_events_twice(self, name: str) -> None:
        """A client raises an event once more on an instance that may have it.  (The ledger saw whether it has.)"""

    def are_sent_twice(self, name: str) -> None:
        """A user sends events twice.  (The ledger counts how often.)"""

    def at(self, part: str, point: int, verb: str) -> Fault | None:
        """What happens at a point of a part: nothing, when faults are over."""
        return None if self.faults_over else self.faults.at(part, point, verb)

    def _applied(self, part: Part, verb: str, given: tuple[Any, ...], outcome: Any) -> None:
        try:
            self.times.read(self.environments[name_of(part)].now())
            self.ledger.applied(part, verb, given, outcome)
        except BaseException as error:
            self.failed.append(error)
            raise

    def _called(self, part: Part, point: int, verb: str, fault: Fault | None) -> None:
        now = self.loop.time()
        self.times.read(self.environments[name_of(part)].now())
        self._at_once = self._at_once + 1 if self.trace and self.trace[-1][0] == now else 0
        if self._at_once > MOST_AT_ONCE:
            self.failed.append(Broken(f"{part.name} spins: {MOST_AT_ONCE} calls at one moment, now {verb}"))
            part.die()
        self.trace.append((now, part.name, verb, "" if fault is None else fault.kind.value))
        if fault is not None:
            self.counts[fault.kind.value] += 1

    @property
    def loop(self) -> VirtualLoop:
        """The one loop."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        return loop

    def boot(self, name: str) -> None:
        """Start a host's process."""
        self._host_names.add(name)
        self._not_wanted.discard(name)
        part, store, environment = self.part(name)
        self.codes[part.name] = self.code
        settings = HostSettings(
            name=part.name,
            lease_seconds=LEASE_SECONDS,
            drain_seconds=2.0,
            idle_seconds=10.0,
            renew_seconds=RENEW_SECONDS,
            activity_slots=2,
            activity_threads=1,
            activity_backlog=1,
            retention=False,
        )
        host = holdtrue.Host(app_for(self.world, self.code), faulty(store), settings=settings, environment=environment)
        self.hosts[name] = host

        async def live() -> None:
            while True:
                try:
                    await host.start()
                    return
                except StoreError:
                    # As a supervisor does: the process ends, and a new one comes.
                    self.crash(part, 1.0)
                    await asyncio.sleep(0)

        with as_part(part):
            self._kept.append(asyncio.ensure_future(live()))

    def crash(self, part: Part, seconds: float) -> None:
        """The process ends at once; a new one of its name comes after `seconds`."""
        if part.dead:
            return
        name = name_of(part)
        self.trace.append((self.loop.time(), part.name, "", "dies"))
        part.die()
        self._gone(part)
        self._kept.append(self.hosts.get(name))
        if name in self._host_names:
            self.hosts.pop(name, None)
            with as_part(None):
                self.loop.call_later(seconds, self._boot_again, name)

    def _gone(self, part: Part) -> None:
        """What the system does for a process that has ended."""
        store = next(one for one in self._kept if isinstance(one, FaultyStore) and one.part is part)
        self.hub.die(store.inner)

    def _boot_again(self, name: str) -> None:
        if name not in self.hosts and name not in self._not_wanted:
            self.boot(name)

    async def leave(self, name: str) -> None:
        """Tell a host to stop, as one does: with a signal, and after a while with another."""
        self._not_wanted.add(name)
        host = self.hosts.pop(name, None)
        if host is None:
            return  # it has just ended by itself
        part = self.parts[name]
        self.trace.append((self.loop.time(), part.name, "", "is told to stop"))
        with as_part(part):
            stopping = asyncio.ensure_future(host.stop())
        self._kept += [host, stopping]
        await asyncio.wait([stopping], timeout=STOP_SECONDS)
        if stopping.done() and stopping.exception() is not None:
            self.failed.append(Broken(f"{part.name} could not stop: {stopping.exception()!r}"))
        if not part.dead:
            self.crash(part, 0.0)
        self.times.left(part)

    async def renew_code(self, code: int) -> None:
        """Put other code onto all hosts, one after the other."""
        self.code = code
        for name in self.names:
            await self.leave(name)
            self.boot(name)

    @staticmethod
    async def letters(client: holdtrue.Client) -> list[Any]:
        """All dead letters."""
        return [letter async for letter in client.dead_letters()]

    def pause(self, part: Part, seconds: float) -> None:
        """The process stands still for so long."""
        if part.dead or part.paused:
            return
        self.trace.append((self.loop.time(), part.name, "", f"stands still for {seconds:g} s"))
        part.paused = True
        with as_part(None):
            self.loop.call_later(seconds, self.loop.resume, part)

    def set_clock(self, part: Part, seconds: float) -> None:
        """The wall clock of the process, and of whoever comes after it under its name, is wrong by so much."""
        self.trace.append((self.loop.time(), part.name, "", f"its wall clock is wrong by {seconds:g} s"))
        self.environments[name_of(part)].skew = int(seconds * TICKS_PER_SECOND)

    # -- the run ---------------------------------------------------------------------------------------

    async def run(self, scenario: "Scenario") -> None:
        """The scenario to its end, then quiet; raises Broken where anything is not as it must be."""
        loop = self.loop
        loop.set_exception_handler(self._loop_error)
        root = logging.getLogger("holdtrue")
        handlers, propagate = root.handlers[:], root.propagate
        root.handlers, root.propagate = [self.errors], False
        try:
            self.eye = self.hub.store(SimulatedEnvironment(0))
            await self.eye.open()
            for name in self.names:
                self.boot(name)
            await self._client_work(scenario)
            await self._settle()
            self._end_of_faults()
            await self._settle()
            await asyncio.sleep(REST_SECONDS)
            self._check_end(scenario)
        finally:
            root.handlers, root.propagate = handlers, propagate
            for name in list(self.hosts):
                self.parts[name].die()
            if self.eye is not None:
                self.hub.die(self.eye)

    def forget(self) -> None:
        """Let go of all that ran; its coroutines end here and now, without effect."""
        self._kept.clear()
        self.hosts.clear()

    def _loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Broken):
            self.failed.append(error)
        elif "was destroyed" not in str(context.get("message")):
            self.errors.messages.append(f"{context.get('message')}: {error!r}")

    async def _client_work(self, scenario: "Scenario") -> None:
        works = scenario.clients(self)
        tasks, app = [], app_for(self.world)
        for name, work in works:
            part, store, environment = self.part(name)
            client = holdtrue.Client(faulty(store), app=app, environment=environment)
            with as_part(part):
                tasks.append(asyncio.ensure_future(self._one_client(part, client, store, work)))
        for task in tasks:
            self._kept.append(task)
        done = asyncio.gather(*tasks)
        while not done.done():
            await asyncio.wait([done], timeout=5.0)
            self._raise_failed()
            if self.loop.time() > scenario.longest:
                raise Broken(f"the clients are not done after {scenario.longest:g} s: {self._unfinished()}")
        await done

    async def _one_client(self, part: Part, client: Any, store: FaultyStore, work: "Work") -> None:
        await store.inner.open()
        await work(Insisting(self, part, client))

    def _end_of_faults(self) -> None:
        """From now on all goes well; and somebody sets the clocks right."""
        self.faults_over = True
        for environment in self.environments.values():
            environment.skew = 0

    async def _settle(self) -> None:
        """After the last fault everything comes to rest: this is what `nothing is lost` means to a waiting user."""
        end = self.loop.time() + SETTLE_SECONDS
        while True:
            await asyncio.sleep(5.0)
            self._raise_failed()
            back = self.hosts.keys() >= self._host_names - self._not_wanted
            if back and all(part.dead or not part.paused for part in self.parts.values()) and self._at_rest():
                return
            if self.loop.time() > end:
                raise Broken(f"not at rest {SETTLE_SECONDS:g} s after the last fault: {self._unfinished()}")

    def _at_rest(self) -> bool:
        open_ = [entry for entry in self.ledger.entries.values() if entry.projection.status not in TERMINAL]
        if any(entry.projection.status is not Status.SUSPENDED for entry in open_):
            return False
        assert self.eye is not None
        info = at_once(self.eye.info())
        return bool(info.activities == 0 and info.messages == 0 and not self._in_hand())

    def _unfinished(self) -> str:
        assert self.eye is not None
        open_ = {
            name: f"{entry.projection.status.name} after {len(entry.history)} events"
            for name, entry in self.ledger.entries.items()
            if entry.projection.status not in TERMINAL
        }
        return f"{open_}; {self._in_hand()}; {at_once(self.eye.info())}"

    def _raise_failed(self) -> None:
        if self.failed:
            raise self.failed[0]

    def _check_end(self, scenario: "Scenario") -> None:
        self._raise_failed()
        self.ledger.check_all()
        self._check_leftovers()
        if self.errors.messages:
            raise Broken(f"the engine reports a defect of its own: {self.errors.messages[0]}")
        assert self.eye is not None
        letters = at_once(self.eye.dead_letters())
        if letters and not scenario.may_have_dead_letters:
            raise Broken(f"dead letters: {letters}")
        scenario.check(self)

    def _check_leftovers(self) -> None:
        found = self.hub.left()
        stores = {store.part: store.inner for store in self._kept if isinstance(store, FaultyStore)}
        for name, host in self.hosts.items():
            found += in_host(name, host, stores[self.parts[name]])
        assert self.eye is not None
        there = sorted(at_once(self.eye.info()).hosts)
        wanted = sorted(self.parts[name].name for name in self.hosts)
        if there != wanted:
            found.append(f"the hosts {there} stand in the hub, and {wanted} live")
        nothing_is_left(found)

    def _in_hand(self) -> list[str]:
        """What hosts hold of work; at rest it is nothing."""
        held = []
        for name, host in self.hosts.items():
            if host.pool is not None and host.pool.refs():
                held.append(f"{name} holds work items: {host.pool.refs()}")
            if host.dispatcher.load:
                held.append(f"{name} works on {host.dispatcher.load} instances")
        return held


class Insisting:
    """A client's user: what is not known to be done is done again; every status read is held against the ledger."""

    def __init__(self, cluster: Cluster, part: Part, client: holdtrue.Client) -> None:
        self.cluster = cluster
        self.client = client
        self.part = part

    async def do(self, call: Callable[[], Awaitable[Any]], unknown: Callable[[], None] = lambda: None) -> Any:
        """Until it is answered.  A call whose outcome was unknown at some time gives `(True, answer)`."""
        doubt = False
        while True:
            try:
                return doubt, await call()
            except OutcomeUnknown:
                doubt = True
                unknown()
            except StoreUnavailable:
                pass
            await asyncio.sleep(1.0)

    async def start(
        self, name: str, payload: Any, *, orchestrator: str = "program", start_id: str = "", **more: Any
    ) -> None:
        """Start it (the same start, however often it takes)."""
        start_id = start_id or f"start-{name}"
        await self.do(
            lambda: self.client.start(orchestrator, input=payload, instance_id=name, start_id=start_id, **more)
        )

    async def raise_event(self, name: str, event: str, tag: str) -> bool:
        """Raise an event, once more where it is not known whether it was taken; false where the instance has ended."""
        _, accepted = await self.do(
            lambda: self.client.raise_event(name, event, tag), lambda: self.cluster.may_have_events_twice(name)
        )
        return bool(accepted)

    async def status(self, name: str) -> holdtrue.InstanceStatus | None:
        """A read, held against the ledger."""
        since = self.cluster.ledger.moment
        _, status = await self.do(lambda: self.client.get_status(name))
        if status is None:
            self.cluster.ledger.saw(name, None, since)
        else:
            self.cluster.ledger.saw(name, status.record.projection, since)
        return status  # type: ignore[no-any-return]

    async def until(self, name: str, satisfied: Callable[[holdtrue.InstanceStatus], bool]) -> holdtrue.InstanceStatus:
        """Wait, by looking, until its status is so."""
        pause = 0.5
        while True:
            status = await self.status(name)
            if status is not None and satisfied(status):
                return status
            await asyncio.sleep(pause)
            pause = min(pause * 2, 60.0)

    async def ended(self, name: str, *, or_gone: bool = False) -> holdtrue.InstanceStatus | None:
        """Wait for its end, by looking; or until somebody has purged it."""
        pause = 0.5
        while True:
            status = await self.status(name)
            if status is None and or_gone:
                return None
            if status is not None and status.runtime_status in TERMINAL:
                return status
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 3_600.0)


def name_of(part: Part) -> str:
    """The name under which its process is started again: `h1` of `h1.2`."""
    return part.name.partition(".")[0]


Work = Callable[[Insisting], Awaitable[None]]


class Scenario(Protocol):
    """What clients do, and what must have come of it."""

    longest: float
    may_have_dead_letters: bool

    def clients(self, cluster: Cluster) -> list[tuple[str, Work]]:
        """The clients by name."""

    def check(self, cluster: Cluster) -> None:
        """Raises Broken where the outcome is not what was asked for."""


def seconds(ticks: int) -> float:
    """Of a span of ticks."""
    return ticks / TICKS_PER_SECOND
