"""Several hosts on one partitions table, in virtual time: one owner at a time, balance, take-over, hand-over."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.stores.azure_storage.ownership import Ownership
from holdtrue.stores.azure_storage.partition_table import PartitionTable
from holdtrue.stores.azure_storage.partitions import HubServedByDotNet, Terms
from holdtrue.stores.azure_storage.renewals import Renewer
from holdtrue.stores.azure_storage.service import Instant
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.virtual_time import Part, VirtualLoop, as_part, run

from .troubled_table import TABLE, DotNetWorker, TroubledTable

# A host that dies between two steps leaves what it was about to begin.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'Ownership._apply' was never awaited")

TERMS = Terms()
QUEUES = [f"hub-control-{number:02d}" for number in range(4)]


class Host:
    """A host that only owns; it remembers what it was told."""

    def __init__(self, tables: TroubledTable, name: str, *, skew: float = 0.0, drain_takes: float = 0.0) -> None:
        self.environment = SimulatedEnvironment(hash_of(name))
        self.environment.skew = int(skew * TICKS_PER_SECOND)
        self.part = Part(name)
        self.told: list[tuple[str, str]] = []
        self.working: set[str] = set()
        self.drain_takes = drain_takes
        self.renewals = renewer(tables, f"holdtrue-{name}", self.environment)
        self.ownership = Ownership(
            PartitionTable(tables, TABLE, self.environment, TERMS, self.renewals),  # type: ignore[arg-type]
            f"holdtrue-{name}",
            self.environment,
            TERMS,
            self.renewals,
            on_gained=self.gained,
            on_losing=self.losing,
            on_lost=self.lost,
        )

    def gained(self, partition: str) -> None:
        assert partition not in self.working, "gained what it has"
        self.told.append(("gained", partition))
        self.working.add(partition)

    async def losing(self, partition: str) -> None:
        assert partition in self.working
        self.told.append(("losing", partition))
        await self.environment.sleep(self.drain_takes)

    def lost(self, partition: str) -> None:
        assert partition in self.working, "lost what it had not"
        self.told.append(("lost", partition))
        self.working.discard(partition)

    def start(self) -> None:
        with as_part(self.part):
            asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        await self.renewals.open()
        while True:
            try:
                await self.ownership.open()
                return
            except Exception:
                await self.environment.sleep(0.5)

    def mine(self) -> set[str]:
        """What it would work on at this moment; nothing when it cannot run."""
        if self.part.dead:
            return set()
        return {queue for queue in self.working if self.ownership.is_mine(queue)}


def renewer(tables: TroubledTable, me: str, environment: SimulatedEnvironment) -> Renewer:
    """What renews a host's rows, in its own process."""
    terms = AzureStorageSettings().renewal_terms(me, TABLE)
    return Renewer(SimpleNamespace(tables=tables), environment, terms)  # type: ignore[arg-type]


def hash_of(name: str) -> int:
    return sum(name.encode())


def quiet(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a scenario leaves running is dropped on purpose."""
    if "was destroyed" not in str(context.get("message")):
        loop.default_exception_handler(context)


def in_virtual_time(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario to its end."""

    async def scene() -> None:
        asyncio.get_running_loop().set_exception_handler(quiet)
        await scenario

    run(scene())


def simulated(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run it in virtual time."""

    def ran(*arguments: Any) -> None:
        in_virtual_time(test(*arguments))

    ran.__doc__, ran.__name__ = test.__doc__, test.__name__
    return ran


def table(partitions: int = 4, **more: Any) -> TroubledTable:
    return TroubledTable(*(f"hub-control-{number:02d}" for number in range(partitions)), **more)


async def until(condition: Callable[[], bool], seconds: float) -> float:
    """Wait for it in virtual time; how long it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not condition():
        assert loop.time() - began <= seconds, f"not within {seconds} s"
        await asyncio.sleep(0.05)
    return loop.time() - began


@simulated
async def test_one_host_takes_all_and_renews() -> None:
    tables = table()
    host = Host(tables, "a")
    host.start()
    await until(lambda: host.mine() == set(QUEUES), 1)
    for _ in range(30):
        await asyncio.sleep(7)
        assert host.mine() == set(QUEUES)
    assert [kind for kind, _ in host.told] == ["gained"] * 4
    assert tables.writes < 4 * 24, "one renewal a partition each 10 s"


@pytest.mark.parametrize("skew", [-400.0, 0.0, 400.0])
def test_a_wrong_wall_clock_is_not_written_down(skew: float) -> None:
    """.NET compares ExpiresAt with its own clock: it must be the service's time, whatever ours says."""

    async def scenario() -> None:
        tables = table()
        host = Host(tables, "a", skew=skew)
        host.start()
        await asyncio.sleep(1)
        for row in tables.rows.values():
            ends = row.values["ExpiresAt"]
            assert isinstance(ends, Instant)
            assert abs((ends.ticks - tables.time()) / TICKS_PER_SECOND - TERMS.lease) < 1.5

    in_virtual_time(scenario())


@pytest.mark.parametrize(("hosts", "partitions"), [(2, 4), (3, 4), (4, 4), (2, 5), (3, 16), (5, 4), (2, 1)])
def test_the_partitions_are_shared_out(hosts: int, partitions: int) -> None:
    async def scenario() -> None:
        tables = table(partitions)
        all_hosts = [Host(tables, f"h{number}", skew=number * 70.0) for number in range(hosts)]
        for host in all_hosts:
            host.start()
            await asyncio.sleep(3)

        def balanced() -> bool:
            sizes = [len(host.mine()) for host in all_hosts]
            return sum(sizes) == partitions and max(sizes) - min(sizes) <= 1

        await until(balanced, 3 * TERMS.acquire)
        moved = sum(len(host.told) for host in all_hosts)
        await asyncio.sleep(120)
        assert balanced() and moved == sum(len(host.told) for host in all_hosts), "and then it rests"

    in_virtual_time(scenario())


@pytest.mark.parametrize("skew", [-300.0, 0.0, 300.0])
def test_a_crashed_host_is_followed_within_a_lease_and_a_look(skew: float) -> None:
    async def scenario() -> None:
        tables = table()
        first, second = Host(tables, "a"), Host(tables, "b", skew=skew)
        first.start()
        second.start()
        await until(lambda: len(first.mine()) == len(second.mine()) == 2, 40)
        await asyncio.sleep(random.Random(skew).random() * 20)
        first.part.die()
        took = await until(lambda: second.mine() == set(QUEUES), TERMS.lease + TERMS.acquire)
        assert took >= TERMS.lease - TERMS.acquire - 1, "the dead one might have been alive"

    in_virtual_time(scenario())


@pytest.mark.parametrize("skew", [-300.0, 0.0, 300.0])
def test_a_host_started_after_a_crash_takes_over_too(skew: float) -> None:
    async def scenario() -> None:
        tables = table()
        first = Host(tables, "a", skew=-skew)
        first.start()
        await until(lambda: first.mine() == set(QUEUES), 1)
        first.part.die()
        await asyncio.sleep(300)
        second = Host(tables, "b", skew=skew)
        second.start()
        await until(lambda: second.mine() == set(QUEUES), TERMS.lease + TERMS.acquire)

    in_virtual_time(scenario())


@simulated
async def test_a_host_with_a_right_clock_started_long_after_a_crash_waits_for_nothing() -> None:
    tables = table(1)
    first = Host(tables, "a")
    first.start()
    await until(lambda: bool(first.mine()), 1)
    first.part.die()
    await asyncio.sleep(600)
    second = Host(tables, "b", skew=(tables.time() - first.environment.now()) / TICKS_PER_SECOND)
    second.start()
    await until(lambda: bool(second.mine()), 3)


@simulated
async def test_a_partition_that_another_wants_is_drained_first() -> None:
    tables = table()
    first = Host(tables, "a", drain_takes=12.0)
    first.start()
    await until(lambda: first.mine() == set(QUEUES), 1)
    second = Host(tables, "b")
    second.start()
    await until(lambda: any(kind == "losing" for kind, _ in first.told), 15)
    await asyncio.sleep(8)
    assert first.mine() == set(QUEUES) and not second.mine(), "while it drains it is still its own"
    took = await until(lambda: len(second.mine()) == 2, 8)
    assert took > 3
    kinds = [kind for kind, partition in first.told if partition in second.mine()]
    assert Counter(kinds) == Counter(gained=2, losing=2, lost=2)


@simulated
async def test_a_drain_goes_to_its_end_although_nobody_wants_the_partition_any_more() -> None:
    """The store has stopped taking work of it: only a release and a new claim bring it back."""
    tables = table(1)
    host = Host(tables, "a", drain_takes=3.0)
    host.start()
    await until(lambda: host.mine() == {QUEUES[0]}, 1)
    tables.change(QUEUES[0], NextOwner="machine7")
    await until(lambda: host.told[-1][0] == "losing", 12)
    tables.change(QUEUES[0], NextOwner=None)
    await until(lambda: [kind for kind, _ in host.told] == ["gained", "losing", "lost", "gained"], 10)


@simulated
async def test_a_drain_that_does_not_end_is_cut_off() -> None:
    tables = table()
    first = Host(tables, "a", drain_takes=10_000.0)
    first.start()
    await until(lambda: first.mine() == set(QUEUES), 1)
    second = Host(tables, "b")
    second.start()
    await until(lambda: any(kind == "losing" for kind, _ in first.told), 15)
    took = await until(lambda: len(second.mine()) == 2, TERMS.drain + 5)
    assert took > TERMS.drain - 3
    assert len(first.mine()) == 2


@simulated
async def test_a_host_that_stops_gives_all_back_and_the_other_takes_it_at_once() -> None:
    tables = table()
    first, second = Host(tables, "a", drain_takes=2.0), Host(tables, "b")
    first.start()
    second.start()
    await until(lambda: len(first.mine()) == len(second.mine()) == 2, 40)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with as_part(first.part):
        await loop.create_task(first.ownership.close())
    assert loop.time() - began < 5 and not first.mine() and not first.working
    await until(lambda: second.mine() == set(QUEUES), TERMS.acquire + 2)
    with as_part(second.part):
        await loop.create_task(second.ownership.close())
    assert all(tables.owner(queue) is None for queue in QUEUES)
    assert not any(row.values["IsDraining"] for row in tables.rows.values())


@simulated
async def test_a_host_that_stops_no_longer_wants_anything() -> None:
    tables = table()
    first = Host(tables, "a", drain_takes=1.0)
    first.start()
    await until(lambda: first.mine() == set(QUEUES), 1)
    second = Host(tables, "b")
    second.start()
    wanted = lambda: [q for q in QUEUES if tables.rows[q].values.get("NextOwner") == "holdtrue-b"]  # noqa: E731
    first.part.paused = True
    await until(lambda: len(wanted()) == 2, 5)
    with as_part(second.part):
        await asyncio.get_running_loop().create_task(second.ownership.close())
    assert not wanted()


@simulated
async def test_a_stop_ends_although_the_service_does_not_answer() -> None:
    tables = table()
    host = Host(tables, "a")
    host.start()
    await until(lambda: host.mine() == set(QUEUES), 1)
    tables.trouble = 1.0
    with as_part(host.part):
        task = asyncio.get_running_loop().create_task(host.ownership.close())
    await until(task.done, TERMS.lease + 5)
    assert not host.working


@simulated
async def test_without_answers_a_host_stops_before_its_lease_ends() -> None:
    tables = table()
    host = Host(tables, "a")
    host.start()
    await until(lambda: host.mine() == set(QUEUES), 1)
    await asyncio.sleep(15)
    tables.trouble = 1.0
    last = max(row.timestamp for row in tables.rows.values())
    await until(lambda: not host.mine(), TERMS.lease)
    assert tables.time() < last + (TERMS.lease - 1) * TICKS_PER_SECOND
    assert not host.working, "and it was told so"
    tables.trouble = 0.0
    await until(lambda: host.mine() == set(QUEUES), 3)


@simulated
async def test_a_frozen_host_finds_itself_not_the_owner() -> None:
    tables = table()
    first, second = Host(tables, "a"), Host(tables, "b")
    first.start()
    await until(lambda: first.mine() == set(QUEUES), 1)
    first.part.paused = True
    second.start()
    await until(lambda: second.mine() == set(QUEUES), 2 * TERMS.lease + TERMS.acquire)
    assert first.working and not first.mine(), "it has not run since; whatever it asks first says no"
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.resume(first.part)
    await until(lambda: not first.working or bool(first.mine()), 1)
    await until(lambda: len(first.mine()) == len(second.mine()) == 2, 3 * TERMS.acquire)


@simulated
async def test_a_dotnet_worker_that_steals_gets_its_share_and_keeps_it() -> None:
    tables = table()
    host = Host(tables, "a", drain_takes=3.0, skew=200.0)
    host.start()
    await until(lambda: host.mine() == set(QUEUES), 1)
    peer = DotNetWorker(tables, "machine7", SimulatedEnvironment(2), lease=30.0, acquire=10.0)
    task = asyncio.get_running_loop().create_task(peer.run())
    await until(lambda: len(peer.owns()) == 2 and len(host.mine()) == 2, 25)
    for _ in range(60):
        await asyncio.sleep(2)
        assert len(peer.owns()) == len(host.mine()) == 2 and not peer.owns() & host.mine()
    task.cancel()
    took = await until(lambda: host.mine() == set(QUEUES), TERMS.lease + TERMS.acquire)
    assert took > TERMS.lease - 10 - 1


@simulated
async def test_it_does_not_start_beside_a_live_dotnet_worker() -> None:
    tables = table()
    peer = DotNetWorker(tables, "machine7", SimulatedEnvironment(2), lease=30.0, acquire=10.0)
    task = asyncio.get_running_loop().create_task(peer.run())
    await asyncio.sleep(4)
    host = Host(tables, "a")
    with pytest.raises(HubServedByDotNet, match="machine7"):
        await host.ownership.refuse_beside_dotnet()
    assert await host.ownership.dotnet_lives()
    task.cancel()
    await asyncio.sleep(0)
    again = Host(tables, "b")
    loop = asyncio.get_running_loop()
    began = loop.time()
    await again.ownership.refuse_beside_dotnet()
    assert 20 < loop.time() - began < 32, "a killed one's lease is waited for, and no longer"
    assert not await again.ownership.dotnet_lives()


@pytest.mark.parametrize("skew", [-300.0, 300.0])
def test_a_wrong_clock_does_not_hide_a_live_dotnet_worker(skew: float) -> None:
    async def scenario() -> None:
        tables = table()
        peer = DotNetWorker(tables, "machine7", SimulatedEnvironment(2), lease=30.0, acquire=10.0)
        asyncio.get_running_loop().create_task(peer.run())
        await asyncio.sleep(4)
        host = Host(tables, "a")
        host.environment.skew = tables.time() - host.environment.now() + int(skew * TICKS_PER_SECOND)
        with pytest.raises(HubServedByDotNet):
            await host.ownership.refuse_beside_dotnet()

    in_virtual_time(scenario())


@simulated
async def test_rows_that_vanish_are_lost() -> None:
    tables = table()
    host = Host(tables, "a")
    host.start()
    await until(lambda: host.mine() == set(QUEUES), 1)
    tables.remove(QUEUES[1])
    await until(lambda: QUEUES[1] not in host.working, TERMS.acquire + 1)
    assert len(host.mine()) == 3


def test_an_owner_needs_our_name() -> None:
    with pytest.raises(ValueError, match="holdtrue-"):
        Ownership(None, "machine", None, TERMS, None, on_gained=print, on_losing=None, on_lost=print)  # type: ignore[arg-type]


async def storm(seed: int) -> None:
    """Hosts with wrong clocks come, freeze, go on, crash and stop, on a service that fails."""
    chance = random.Random(seed)
    partitions = chance.choice((1, 2, 4, 7))
    tables = table(partitions, seed=seed, trouble=chance.choice((0.0, 0.05, 0.3)))
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    hosts: list[Host] = []
    count = 0

    def check() -> None:
        owners = Counter(queue for host in hosts for queue in host.mine())
        assert all(number == 1 for number in owners.values()), f"seed {seed}: two owners at {loop.time()}: {owners}"

    async def watch(seconds: float) -> None:
        ends = loop.time() + seconds
        while loop.time() < ends:
            check()
            await asyncio.sleep(0.1)

    for _ in range(12):
        alive = [host for host in hosts if not host.part.dead]
        act = chance.choice(("come", "freeze", "crash", "stop", "rest", "clock"))
        if (act == "come" and len(alive) < 4) or not alive:
            count += 1
            host = Host(
                tables, f"h{count}", skew=chance.uniform(-600, 600), drain_takes=chance.choice((0.0, 1.0, 20.0, 100.0))
            )
            hosts.append(host)
            host.start()
        elif act == "freeze":
            host = chance.choice(alive)
            if not host.part.paused:
                host.part.paused = True
                await watch(chance.choice((0.3, 5.0, 29.0, 45.0)))
                loop.resume(host.part)
        elif act == "crash":
            chance.choice(alive).part.die()
        elif act == "stop":
            host = chance.choice(alive)
            with as_part(host.part):
                closing = loop.create_task(host.ownership.close())
            await watch(chance.uniform(0, 70))
            assert not closing.done() or not host.working
            host.part.die()
        elif act == "clock":
            chance.choice(alive).environment.skew = int(chance.uniform(-600, 600) * TICKS_PER_SECOND)
        await watch(chance.choice((0.5, 12.0, 40.0)))
    tables.trouble = 0.0
    survivors = [host for host in hosts if not host.part.dead]
    if survivors:
        every = set(tables.rows)
        for _ in range(int((2 * TERMS.drain + 2 * TERMS.lease) * 10)):
            check()
            await asyncio.sleep(0.1)
        sizes = [len(host.mine()) for host in survivors]
        assert set().union(*(host.mine() for host in survivors)) == every, f"seed {seed}: not all are served"
        assert max(sizes) - min(sizes) <= 1, f"seed {seed}: {sizes}"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_never_two_owners_and_in_the_end_all_is_shared_out(seed: int) -> None:
    in_virtual_time(storm(seed))
