"""What is run: fixed scenarios for the search over every point, and random ones from a seed."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from broken import Broken
from cluster import Cluster, Insisting, Work, seconds
from workload import Maker, Program, broken_in, events_of, expected

from holdtrue.client.errors import ClientError, InstanceAlreadyExists
from holdtrue.core.dialect import to_datetime
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.testing.faults import Kind
from holdtrue.testing.virtual_time import as_part


class Programs:
    """Programs under ids, each started by a client that also sends its events; each must give its answer."""

    may_have_dead_letters = False

    def __init__(self, programs: dict[str, Program], *, longest: float = 7_200.0) -> None:
        self.programs = programs
        self.longest = longest

    def clients(self, cluster: Cluster) -> list[tuple[str, Work]]:
        return [("user", self._use)]

    async def _use(self, user: Insisting) -> None:
        await asyncio.gather(*(self._one(user, name, steps) for name, steps in self.programs.items()))

    async def _one(self, user: Insisting, name: str, steps: Program) -> None:
        await user.start(name, [steps, []])
        for event, tag in events_of(steps):
            await user.raise_event(name, event, tag)
        await self._to_its_end(user, name, steps)

    async def _to_its_end(self, user: Insisting, name: str, steps: Program) -> None:
        """Wait for it; where it fails of what is broken, mend that and rewind it, one thing after another."""
        left = broken_in(steps)
        # Some more: what ran before it was mended may be told of only after that, by a host that stood still.
        for _ in range(2 * len(left)):
            status = await user.ended(name)
            if status is None or status.runtime_status is not Status.FAILED:
                return
            if left:
                user.cluster.world.mended.add(left.pop(0))
            try:
                await user.do(lambda: user.client.rewind(name))
            except ClientError:
                pass  # an earlier try of this call has done it
        await user.ended(name)

    def check(self, cluster: Cluster) -> None:
        for name, steps in self.programs.items():
            if name in cluster.twice:
                continue
            entry = cluster.ledger.entries.get(name)
            if entry is None:
                raise Broken(f"{name!r} is not there")
            projection = entry.projection
            wanted = expected(steps)
            if projection.status is not Status.COMPLETED or json.loads(projection.output or "null") != wanted:
                raise Broken(
                    f"{name!r} ended {projection.status.name} with {projection.output} ({projection.failure}); "
                    f"wanted {json.dumps(wanted)}"
                )


class Disturbed(Programs):
    """Random programs, of which some are suspended, terminated, purged, replaced, rewound on their way."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(f"scenario:{seed}")
        maker = Maker(self.chance)
        count = self.chance.randint(1, 4)
        super().__init__({f"p{number}": maker.program() for number in range(count)})
        self.disturbed: set[str] = set()
        self.scheduled = self.chance.random() < 0.2
        self._hosts = random.Random(f"{COMING_AND_GOING}:{seed}")
        self._they_come_and_go = self._hosts.random() < 0.15
        self._users = random.Random(f"{LATE_AND_TWICE}:{seed}")
        self._are_late = self._users.random() < 0.25
        self.ticks: list[Any] = []
        self.least_ticks = 0

    def clients(self, cluster: Cluster) -> list[tuple[str, Work]]:
        works: list[tuple[str, Work]] = [("user", self._use)]
        verbs = ["suspend", "terminate", "purge", "cancel", "restart", "query"]
        for number in range(self.chance.randint(0, 2)):
            name = self.chance.choice(list(self.programs))
            verb = self.chance.choice(verbs)
            at = self.chance.choice([0, 0.1, 1, 5, 30])
            if verb == "restart" and events_of(self.programs[name]):
                continue  # its events would not come a second time
            if verb in ("terminate", "purge", "cancel", "restart"):
                self.disturbed.add(name)
            works.append((f"other{number}", self._disturb(verb, name, at)))
        if self.scheduled:
            works.append(("planner", self._schedule))
        if self._they_come_and_go:
            works.append(("operator", self._come_and_go))
        return works

    async def _come_and_go(self, operator: Insisting) -> None:
        """Hosts join, and leave, and perhaps come again."""
        chance, cluster = self._hosts, operator.cluster
        for _ in range(chance.randint(1, 4)):
            await asyncio.sleep(chance.choice([0.2, 1.0, 5.0, 20.0]))
            name = chance.choice(["h1", "h2", "h3"])
            if name in cluster.hosts:
                await cluster.leave(name)
                await asyncio.sleep(chance.choice([0.0, 1.0, 10.0]))
            if name != "h3" or chance.random() < 0.7:
                with as_part(None):
                    cluster.boot(name)

    async def _schedule(self, user: Insisting) -> None:
        """A singleton every 5 s that takes 7: what the seed's failure stopped for days."""
        asked = user.client.environment.now()
        end = to_datetime(asked) + timedelta(seconds=TICKING_SECONDS)
        await user.do(
            lambda: user.client.schedules.put(
                "every", "every_tick", instance_id="singleton", interval=timedelta(seconds=TICK_SECONDS), end_at=end
            )
        )
        late = user.client.environment.now() - asked
        self.least_ticks = int((TICKING_SECONDS - seconds(late)) / TICK_SECONDS) - 1
        while True:
            _, info = await user.do(lambda: user.client.schedules.get("every"))
            if info.next_due is None:
                break
            await asyncio.sleep(5.0)
        _, self.ticks = await user.do(lambda: user.client.schedules.ticks("every"))
        await user.ended("singleton", or_gone=True)

    def _disturb(self, verb: str, name: str, at: float) -> Callable[[Insisting], Awaitable[None]]:
        async def disturb(user: Insisting) -> None:
            await asyncio.sleep(at)
            for _ in range(200):
                if await user.status(name) is not None:
                    break
                await asyncio.sleep(0.5)
            else:
                return  # another has purged it
            client = user.client
            try:
                if verb == "suspend":
                    await user.do(lambda: client.suspend(name))
                    await asyncio.sleep(3)
                    await user.do(lambda: client.resume(name))
                    await self._stays_resumed(user, name)
                elif verb == "terminate":
                    await user.do(lambda: client.terminate(name))
                elif verb == "cancel":
                    await user.do(lambda: client.cancel(name))
                elif verb == "purge":
                    await user.ended(name, or_gone=True)
                    await user.do(lambda: client.purge(name))
                elif verb == "restart":
                    await user.ended(name, or_gone=True)
                    await user.do(lambda: client.restart(name))
                elif verb == "query":
                    await user.do(lambda: client.query_page())
            except ClientError:
                pass  # it has ended, is gone, or is there again meanwhile

        return disturb

    async def _stays_resumed(self, user: Insisting, name: str) -> None:
        """A copy of the request to suspend may come after the one to resume: whoever sees that asks again."""
        while True:
            status = await user.status(name)
            if status is None or status.runtime_status in TERMINAL:
                return
            if status.runtime_status is Status.SUSPENDED:
                await user.do(lambda: user.client.resume(name))
            await asyncio.sleep(60)

    async def _one(self, user: Insisting, name: str, steps: Program) -> None:
        try:
            await user.start(name, [steps, []])
        except InstanceAlreadyExists:
            if name not in self.disturbed:
                raise
            return  # somebody else has started it, under another id of a start
        for event, tag in events_of(steps):
            if self._are_late:
                await asyncio.sleep(self._users.choice([0.0, 0.1, 2.0, 30.0]))
            times = 2 if self._are_late and self._users.random() < 0.3 else 1
            if times == 2:
                user.cluster.are_sent_twice(name)
            for _ in range(times):
                try:
                    await user.raise_event(name, event, tag)
                except ClientError:
                    return  # gone meanwhile
        if name not in self.disturbed:
            await self._to_its_end(user, name, steps)

    def check(self, cluster: Cluster) -> None:
        calm = {name: steps for name, steps in self.programs.items() if name not in self.disturbed}
        Programs(calm).check(cluster)
        if self.scheduled:
            self._check_ticks(cluster)
        for name in self.disturbed:
            status = cluster.ledger.status_of(name)
            if status is not None and status not in TERMINAL and not self.may_stay(name, status):
                raise Broken(f"{name!r} is {status.name}")

    def may_stay(self, name: str, status: Status) -> bool:
        """Whether what does not go on may be left so."""
        return False

    def _check_ticks(self, cluster: Cluster) -> None:
        """Every tick has its record, and the job never stood still: it ran again soon after each end."""
        counted = sum(tick.count for tick in self.ticks)
        set_clocks = cluster.counts[Kind.CLOCK_SET.value]
        if not set_clocks and not self.least_ticks <= counted <= TICKING_SECONDS / TICK_SECONDS + 1:
            raise Broken(f"{counted} ticks are on record of at least {self.least_ticks}: {self.ticks}")
        started = [tick for tick in self.ticks if tick.decision == "started"]
        if len({tick.execution_id for tick in started}) != len(started) or (
            not started and not set_clocks and self.least_ticks > 0
        ):
            raise Broken(f"the schedule's starts are not one execution each: {self.ticks}")


TICKING_SECONDS, TICK_SECONDS = 40.0, 5.0
COMING_AND_GOING = "hosts 1"
"""Makes the chance by which hosts join and leave; no run of the corpus has such, all are older."""
LATE_AND_TWICE = "users 126"
"""... and that by which users send their events late, and some twice."""


class Lives(Programs):
    """One id, terminated with all under it, purged, started again, restarted, while hosts join and leave; and a
    message to nobody, sent again when there is somebody."""

    def __init__(self) -> None:
        tree: Program = [["children", [[["timer", 300]], [["child", [["timer", 300]]]]]]]
        super().__init__({"t": [["echo", "again"]], "m": [["events", "Go", 2, ["told", "twice"]]]}, longest=86_400.0)
        self._tree = tree

    def clients(self, cluster: Cluster) -> list[tuple[str, Work]]:
        return [("user", self._use), ("operator", self._come_and_go)]

    async def _use(self, user: Insisting) -> None:
        await asyncio.gather(self._live(user), self._tell(user))

    async def _live(self, user: Insisting) -> None:
        client = user.client
        await user.start("t", [self._tree, []], start_id="first")
        await user.until("t", lambda status: status.history_size > 2)
        await user.do(lambda: client.terminate("t", recursive=True))
        await user.ended("t")
        await user.do(lambda: client.purge("t", recursive=True))
        await user.start("t", [self.programs["t"], []], start_id="second")
        before = await user.ended("t")
        try:
            await user.do(lambda: client.restart("t"))
        except ClientError:
            pass  # an earlier try of this call has done it, and that one goes on
        assert before is not None
        after = await user.ended("t")
        assert after is not None
        if after.execution_id == before.execution_id:
            raise Broken("'t' was restarted, and is still what it was")

    async def _tell(self, user: Insisting) -> None:
        await user.start("teller", [[["tell", "m", "Go", "told"], ["tell", "m", "Go", "twice"]], []])
        await user.ended("teller")
        letters: list[Any] = []
        while len(letters) < 2:
            # A hub may wait for a while whether somebody comes.
            await asyncio.sleep(10.0)
            _, letters = await user.do(lambda: user.cluster.letters(user.client))
        await user.start("m", [self.programs["m"], []])
        await user.do(lambda: user.client.resend_dead_letters([letter.number for letter in letters]))
        await user.ended("m")

    async def _come_and_go(self, operator: Insisting) -> None:
        cluster = operator.cluster
        await asyncio.sleep(0.5)
        with as_part(None):
            cluster.boot("h3")
        await cluster.leave("h1")
        await asyncio.sleep(1.0)
        with as_part(None):
            cluster.boot("h1")
        await cluster.leave("h2")

    def check(self, cluster: Cluster) -> None:
        if cluster.counts[Kind.LATE.value] or cluster.counts[Kind.DOUBLED.value]:
            # A request from an earlier life of the id may have come to a later one: it starts, ends or purges that.
            self.programs = {name: steps for name, steps in self.programs.items() if name != "t"}
        super().check(cluster)
        known = [(name, cluster.ledger.status_of(name)) for name in cluster.ledger.entries]
        open_ = [name for name, status in known if status is not None and status not in TERMINAL]
        if open_:
            raise Broken(f"{open_} have not ended, and all above them was terminated")


class Held(Programs):
    """One that is held as long as hosts have code that does not fit it, and goes on when they have the old code."""

    def __init__(self) -> None:
        super().__init__({}, longest=86_400.0)

    def clients(self, cluster: Cluster) -> list[tuple[str, Work]]:
        return [("user", self._change)]

    async def _change(self, user: Insisting) -> None:
        await user.start("c", None, orchestrator="changing")
        await user.until("c", lambda status: status.history_size >= 5)
        await self._renew(user.cluster, 2)
        await user.raise_event("c", "Go", "went")
        await user.until("c", lambda status: status.condition is not None and status.condition.kind == "held")
        await asyncio.sleep(12)
        await self._renew(user.cluster, 1)
        await user.ended("c")

    async def _renew(self, cluster: Cluster, code: int) -> None:
        await cluster.renew_code(code)

    def check(self, cluster: Cluster) -> None:
        projection = cluster.ledger.entries["c"].projection
        if projection.status is not Status.COMPLETED or json.loads(projection.output or "null") != ["first", "went"]:
            raise Broken(f"'c' ended {projection.status.name} with {projection.output} ({projection.failure})")


def fixed() -> dict[str, Programs]:
    """The scenarios in which every single point is tried."""
    one: dict[str, dict[str, Any]] = {
        "chain": {"c": [["echo", "a"], ["thread", "b"], ["status", "half"], ["echo", "c"]]},
        "fan": {"f": [["all", ["a", "b", "c", "d"]], ["flaky", "e", 1]]},
        "children": {"p": [["children", [[["echo", "a"]], [["timer", 1], ["echo", "b"]]]], ["child", [["echo", "c"]]]]},
        "events": {"e": [["events", "Go", 2, ["x", "y"]], ["race", 2, 30], ["echo", "z"]]},
        "again": {
            "n": [["outrun", 1, [["timer", 1]]], ["again"], ["outrun", 2, [["timer", 1]]], ["again"]]
            + [["events", "Go", 1, ["x"]]]
        },
        "failing": {"b": [["boom", "a"], ["flaky", "b", 2]]},
        "rewound": {"r": [["all", ["a", "b"]], ["child", [["broken", "c"], ["echo", "d"]]], ["broken", "e"]]},
    }
    programs = {name: Programs(programs, longest=86_400.0) for name, programs in one.items()}
    return {**programs, "lives": Lives(), "held": Held()}
