"""What is run on the simulated hub on Azure Storage beside what every hub runs: readers, lives of one id, more."""

import asyncio
import json
import random
from contextlib import suppress
from datetime import timedelta
from typing import Any

from azure_local import Deadly
from broken import Broken
from cluster import Cluster, Insisting, Work
from dotnet_client import DotNetClient
from scenarios import Disturbed, Held, Programs, fixed
from workload import Maker, Program

from holdtrue.client.errors import ClientError
from holdtrue.core.dialect import to_datetime
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.testing.virtual_time import as_part

PARTITIONS = 2
"""Control queues of the hub."""
LARGE = 70_000
"""Characters that no column holds."""
LIVE = frozenset(status for status in Status if status not in TERMINAL)


async def query(user: Insisting, wanted: frozenset[Status]) -> None:
    """A query by status, held against what is true."""
    since = user.cluster.ledger.moment
    _, page = await user.do(lambda: user.client.query_page(statuses=sorted(wanted), page_size=1_000))
    found = [status.record.projection for status in page.items]
    user.cluster.ledger.listed(found, wanted, since)  # type: ignore[attr-defined]


class Reading:
    """A client that does nothing but read, as long as anything is to be seen."""

    def __init__(self, names: list[str], chance: random.Random, pause: float, times: int = 60) -> None:
        self._names = names
        self._chance = chance
        self._pause = pause
        self._times = times

    async def __call__(self, user: Insisting) -> None:
        for _ in range(self._times):
            if self._chance.random() < 0.3:
                await query(user, LIVE if self._chance.random() < 0.7 else TERMINAL)
            else:
                await user.status(self._chance.choice(self._names))
            await asyncio.sleep(self._pause * self._chance.random())


class Large(Maker):
    """Programs with some texts that no column holds."""

    def step(self, verb: str, depth: int) -> list[Any]:
        made = super().step(verb, depth)
        if verb in ("echo", "status") and self._chance.random() < 0.4:
            made[1] += "x" * LARGE
        return made


class DisturbedOnAzure(Disturbed):
    """As on every hub; some beside a reader, some with large texts, and ids that no path may have as they are."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        more = random.Random(f"azure scenario:{seed}")
        if more.random() < 0.1:
            maker = Large(more)
            self.programs = {f"a/b {number}": maker.program() for number in range(more.randint(1, 2))}
        self._reader = Reading(list(self.programs), more, 2.0) if more.random() < 0.4 else None

    def clients(self, cluster: Cluster) -> list[tuple[str, Work]]:
        works = super().clients(cluster)
        return works if self._reader is None else [*works, ("reader", self._reader)]


def dotnet_client(user: Insisting) -> DotNetClient:
    """A client of .NET's in the place of one of ours."""
    cluster: Any = user.cluster
    service, environment = cluster.services[user.part.name], cluster.environments[user.part.name]
    return DotNetClient(service, cluster.hub_names, PARTITIONS, environment, cluster.ledger)


class BesideDotNet(DisturbedOnAzure):
    """As that, with clients of .NET's that start over anything, end, rewind and purge whatever it does."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        chance = random.Random(f"dotnet:{seed}")
        verbs = ["start", "terminate", "rewind", "purge", "raise"]
        self._deeds = [
            [
                (chance.choice([0.1, 0.5, 1.0, 4.0, 20.0]), chance.choice(verbs), chance.choice(list(self.programs)))
                for _ in range(chance.randint(1, 3))
            ]
            for _ in range(chance.randint(1, 2))
        ]
        self.disturbed |= {name for deeds in self._deeds for _, _, name in deeds}
        self._reader = Reading(list(self.programs), chance, 1.0)

    def clients(self, cluster: Cluster) -> list[tuple[str, Work]]:
        return [*super().clients(cluster), *((f"net{at}", self._net(deeds)) for at, deeds in enumerate(self._deeds))]

    def may_stay(self, name: str, status: Status) -> bool:
        """A copy of the request to suspend may come when .NET has started it anew, and nobody looks any more."""
        started = any(verb == "start" and whom == name for deeds in self._deeds for _, verb, whom in deeds)
        return status is Status.SUSPENDED and started

    def _net(self, deeds: list[tuple[float, str, str]]) -> Work:
        async def work(user: Insisting) -> None:
            cluster, client = user.cluster, dotnet_client(user)
            for number, (pause, verb, name) in enumerate(deeds):
                await asyncio.sleep(pause)
                calm = [one for one in self.programs if one not in self.disturbed]
                if calm:
                    # Where somebody starts it anew meanwhile the start is written over: the client looks once more.
                    await client.write_row_late(calm[0], pause)
                if verb == "start":
                    await client.start(name, json.dumps([[["echo", "started by .NET"]], []]))
                elif name not in cluster.ledger.entries:
                    continue
                elif verb == "terminate":
                    await client.terminate(name)
                elif verb == "rewind":
                    await client.rewind(name)
                elif verb == "purge":
                    await client.purge(name)
                else:
                    await client.raise_event(name, "nobody waits for it", f'"{user.part.name} {number}"')

        return work


class Renewed(Programs):
    """One id, started, purged, started anew, restarted, purged; beside it a client that reads all the time."""

    def __init__(self) -> None:
        super().__init__({"t/1": [["status", "s"], ["echo", "a"]]}, longest=86_400.0)
        self._done = False

    def clients(self, cluster: Cluster) -> list[tuple[str, Work]]:
        return [("user", self._use), ("reader", self._read)]

    async def _read(self, user: Insisting) -> None:
        chance = random.Random(1)
        while not self._done:
            if chance.random() < 0.25:
                await query(user, LIVE)
            else:
                await user.status("t/1")
            await asyncio.sleep(0.3 * chance.random())

    async def _use(self, user: Insisting) -> None:
        client, ((name, steps),) = user.client, self.programs.items()
        at_once: Program = [["status", "at once"]]
        for life in range(2):
            await user.start(name, [at_once, []], start_id=f"first {life}")
            await user.ended(name)
            await self._purge(user, name)
            await user.start(name, [steps, []], start_id=f"second {life}")
            await user.ended(name)
            await user.start(name, [at_once, []], start_id=f"third {life}")
            await user.ended(name)
            try:
                await user.do(lambda: client.restart(name))
            except ClientError:
                pass  # an earlier try of this call has done it, and that one goes on
            await user.ended(name)
            await self._purge(user, name)
        await query(user, TERMINAL)
        self._done = True

    @staticmethod
    async def _purge(user: Insisting, name: str) -> None:
        with suppress(TimeoutError):
            # One that is given up on its way is gone on with by the next.
            await asyncio.wait_for(user.do(lambda: user.client.purge(name)), 0.2)
        await user.status(name)
        await user.do(lambda: user.client.purge(name))
        if await user.status(name) is not None:
            raise Broken(f"{name!r} was purged, and is there")

    def check(self, cluster: Cluster) -> None:
        if cluster.ledger.status_of("t/1") is not None:
            raise Broken("'t/1' was purged, and is there")


class Followed(Programs):
    """One id that is started anew as soon as it has ended, and then works for long: who has ended the life before may
    still be at its row."""

    def __init__(self) -> None:
        super().__init__({"f": [["beside", 6.0, ["a", "b"]]]}, longest=86_400.0)

    def clients(self, cluster: Cluster) -> list[tuple[str, Work]]:
        return [("user", self._use)]

    async def _use(self, user: Insisting) -> None:
        for life in range(2):
            await user.start("f", [[["echo", "x"]], []], start_id=f"short {life}")
            await user.ended("f")
            await user.start("f", [self.programs["f"], []], start_id=f"long {life}")
            await user.ended("f")


class Brief(Programs):
    """Short lives of one id, purged, and a while nothing stands there; clients that do nothing but read."""

    LIVES, READERS = 16, 6

    def __init__(self, seed: int) -> None:
        super().__init__({}, longest=86_400.0)
        self._seed = seed
        self._done = False

    def clients(self, cluster: Cluster) -> list[tuple[str, Work]]:
        return [("user", self._use), *((f"reader{number}", self._read) for number in range(self.READERS))]

    async def _use(self, user: Insisting) -> None:
        chance = random.Random(f"brief:{self._seed}")
        for life in range(self.LIVES):
            await user.start("brief", [[["echo", "a"]], []], start_id=f"life {life}")
            await user.ended("brief")
            await asyncio.sleep(chance.random())
            await user.do(lambda: user.client.purge("brief"))
            await asyncio.sleep(1.5 * chance.random())
        self._done = True

    async def _read(self, user: Insisting) -> None:
        chance = random.Random(f"{user.part.name}:{self._seed}")
        while not self._done:
            await user.status("brief")
            await asyncio.sleep(0.3 * chance.random())

    def check(self, cluster: Cluster) -> None:
        if cluster.ledger.status_of("brief") is not None:
            raise Broken("'brief' was purged, and is there")


class Rivals(Programs):
    """Clients that start one id whenever it has ended, each for itself: who is told that it has started, has."""

    def __init__(self) -> None:
        super().__init__({}, longest=86_400.0)
        self._told: list[str] = []

    def clients(self, cluster: Cluster) -> list[tuple[str, Work]]:
        return [(f"rival{number}", self._start) for number in range(3)]

    async def _start(self, user: Insisting) -> None:
        chance = random.Random(user.part.name)
        for number in range(4):
            start = f"{user.part.name} {number}"
            try:
                await user.start("r", [[["echo", start]], []], start_id=start)
            except ClientError:
                pass  # another was faster, and goes on
            else:
                self._told.append(start)
            await asyncio.sleep(0.5 * chance.random())
        await user.ended("r")

    def check(self, cluster: Cluster) -> None:
        begun: set[str] = cluster.ledger.begun  # type: ignore[attr-defined]
        if not self._told or not begun.issuperset(self._told):
            raise Broken(f"{sorted(set(self._told) - begun)} were told that they had started, and never began")


class Gone(Programs):
    """Two that are purged, one with its child as soon as it has ended, one by .NET while it may not have begun: none
    of them comes back."""

    def __init__(self) -> None:
        super().__init__({"gone": [["child", [["echo", "a"]]]], "taken": [["echo", "b"]]}, longest=86_400.0)

    def clients(self, cluster: Cluster) -> list[tuple[str, Work]]:
        return [("user", self._use), ("net", self._take)]

    async def _use(self, user: Insisting) -> None:
        await user.start("gone", [self.programs["gone"], []])
        await user.ended("gone")
        await user.do(lambda: user.client.purge("gone"))
        for _ in range(9):
            await asyncio.sleep(10.0)
            for name in ("gone", *(name for name in user.cluster.ledger.entries if ":" in name)):
                await user.status(name)

    async def _take(self, user: Insisting) -> None:
        await user.start("taken", [self.programs["taken"], []])
        await asyncio.sleep(1.5)
        await dotnet_client(user).purge("taken")

    def check(self, cluster: Cluster) -> None:
        for name in self.programs:
            if cluster.ledger.status_of(name) is not None:
                raise Broken(f"{name!r} was purged, and is there")


class Ticking(Programs):
    """A singleton every second, of two executions; each tick that was started runs once."""

    def __init__(self) -> None:
        super().__init__({}, longest=86_400.0)
        self._started: set[str] = set()

    def clients(self, cluster: Cluster) -> list[tuple[str, Work]]:
        return [("user", self._use)]

    async def _use(self, user: Insisting) -> None:
        end = to_datetime(user.client.environment.now()) + timedelta(seconds=7)
        schedules = user.client.schedules
        program: Program = [["echo", "a"], ["again"], ["echo", "b"]]
        await user.do(
            lambda: schedules.put(
                "every", "program", input=[program, []], instance_id="tick", interval=timedelta(seconds=1), end_at=end
            )
        )
        while (await user.do(lambda: schedules.get("every")))[1].next_due is not None:
            await asyncio.sleep(1.0)
        await user.ended("tick", or_gone=True)
        _, ticks = await user.do(lambda: schedules.ticks("every"))
        self._started = {tick.execution_id for tick in ticks if tick.decision == "started"}

    def check(self, cluster: Cluster) -> None:
        if not self._started:
            raise Broken("no tick has started anything")
        stood = cluster.ledger.entries["tick"].stood  # type: ignore[attr-defined]
        missing = [execution for execution in self._started if ("start", execution) not in stood]
        if missing:
            raise Broken(f"ticks started {missing}, which never ran")


class Early(Programs):
    """More events than are given at a time come before the start's own time; and a timer further ahead than a message
    may be put."""

    def __init__(self) -> None:
        self._tags = [f"e{number}" for number in range(8)]
        super().__init__({"early": [["events", "Go", 8, self._tags], ["timer", 40]]}, longest=86_400.0)

    def clients(self, cluster: Cluster) -> list[tuple[str, Work]]:
        return [("user", self._use)]

    async def _use(self, user: Insisting) -> None:
        await user.start("early", [self.programs["early"], []], start_at=timedelta(seconds=20))
        for tag in self._tags:
            await user.raise_event("early", "Go", tag)
        await user.ended("early")


class Deployed(Held):
    """As that; hosts of other code come before those that are there go, and get their partitions only then."""

    async def _renew(self, cluster: Cluster, code: int) -> None:
        cluster.code = code
        old, new = (("h1", "h2"), ("h3", "h4")) if code == 2 else (("h3", "h4"), ("h1", "h2"))
        with as_part(None):
            for name in new:
                cluster.boot(name)
        await asyncio.sleep(2.0)
        for name in old:
            await cluster.leave(name)


class Away(Programs):
    """More events than one transaction holds come while no host is there: one episode takes them all."""

    def __init__(self, count: int) -> None:
        self._tags = [f"e{number}" for number in range(count)]
        super().__init__({"w": [["events", "Go", count, self._tags]]}, longest=86_400.0)

    def clients(self, cluster: Cluster) -> list[tuple[str, Work]]:
        return [("user", self._use)]

    async def _use(self, user: Insisting) -> None:
        cluster = user.cluster
        await user.start("w", [self.programs["w"], []])
        await user.until("w", lambda status: status.runtime_status is Status.RUNNING)
        for name in cluster.names:
            await cluster.leave(name)
        for tag in self._tags:
            await user.raise_event("w", "Go", tag)
        with as_part(None):
            for name in cluster.names:
                cluster.boot(name)
        await user.ended("w")


def fixed_on_azure() -> dict[str, Any]:
    """The scenarios in which every single fault is tried.

    `parts` and `large` need more than one transaction an episode, `told` remembers long, `away` takes many messages,
    `early` gets them before it begins, `renewed`, `rivals` and `followed` have one id live on and on, `gone` is purged,
    `ticking` is started by a schedule, `big` has texts that no column holds, `deadly` kills its hosts, `alone`
    has one host, `deployed` gets other code, `beside` runs one activity over many commits.
    """
    some = dict(fixed())
    large = [["all", [f"a{n}" for n in range(101)]], ["again"], ["all", [f"b{n}" for n in range(99)]], ["again"]]
    told = [["events", "Go", 1, ["x"]], ["echo", "a"], ["timer", 60], ["child", [["echo", "b"]]], ["timer", 60]]
    long = "y" * LARGE
    big = [["status", f"s{long * 4}"], ["echo", f"a{long}"], ["events", "Go", 1, [f"e{long}"]]]
    big.append(["child", [["echo", long]]])
    parts = [["all", [f"a{n}" for n in range(9)]], ["again"], ["all", [f"b{n}" for n in range(7)]], ["again"]]
    return {
        **some,
        "parts": Programs({"l": [*parts, ["events", "Go", 1, ["x"]]]}, longest=86_400.0),
        "large": Programs({"l": [*large, ["events", "Go", 1, ["x"]]]}, longest=86_400.0),
        "told": Programs({"t": told}, longest=86_400.0),
        "away": Away(12),
        "deployed": Deployed(),
        "early": Early(),
        "renewed": Renewed(),
        "rivals": Rivals(),
        "followed": Followed(),
        "gone": Gone(),
        "ticking": Ticking(),
        "big": Programs({"b/1": big}, longest=86_400.0),
        "deadly": Deadly(),
        "alone": Programs({"c": [["echo", "a"], ["status", "s"], ["thread", "b"]]}, longest=86_400.0),
        "beside": Programs({"l": [["beside", 9.0, ["a", "b", "c"]]]}, longest=86_400.0),
    }
