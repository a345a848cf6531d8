"""What is run: fixed scenarios for the search over every point, and random ones from a seed."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

from cluster import Cluster, Insisting, Work
from ledger import Broken
from workload import Maker, Program, events_of, expected

from holdtrue.core.projection import TERMINAL, Status


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
            await user.do(lambda event=event, tag=tag: user.client.raise_event(name, event, tag))  # type: ignore[misc]
        await user.ended(name)

    def check(self, cluster: Cluster) -> None:
        for name, steps in self.programs.items():
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
        return works

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
            except Exception as error:
                from holdtrue.client.errors import ClientError

                if not isinstance(error, ClientError):
                    raise

        return disturb

    async def _one(self, user: Insisting, name: str, steps: Program) -> None:
        from holdtrue.client.errors import ClientError

        await user.start(name, [steps, []])
        for event, tag in events_of(steps):
            try:
                await user.do(lambda event=event, tag=tag: user.client.raise_event(name, event, tag))  # type: ignore[misc]
            except ClientError:
                return  # gone meanwhile
        if name not in self.disturbed:
            await user.ended(name)

    def check(self, cluster: Cluster) -> None:
        calm = {name: steps for name, steps in self.programs.items() if name not in self.disturbed}
        Programs(calm).check(cluster)
        for name in self.disturbed:
            status = cluster.ledger.status_of(name)
            if status is not None and status not in TERMINAL:
                raise Broken(f"{name!r} is {status.name}")


def fixed() -> dict[str, Programs]:
    """The six scenarios in which every single point is tried."""
    one: dict[str, dict[str, Any]] = {
        "chain": {"c": [["echo", "a"], ["thread", "b"], ["status", "half"], ["echo", "c"]]},
        "fan": {"f": [["all", ["a", "b", "c", "d"]], ["flaky", "e", 1]]},
        "children": {"p": [["children", [[["echo", "a"]], [["timer", 1], ["echo", "b"]]]], ["child", [["echo", "c"]]]]},
        "events": {"e": [["events", "Go", 2, ["x", "y"]], ["race", 2, 30], ["echo", "z"]]},
        "again": {"n": [["echo", "a"], ["again"], ["timer", 1], ["again"], ["events", "Go", 1, ["x"]]]},
        "failing": {"b": [["boom", "a"], ["flaky", "b", 2]]},
    }
    return {name: Programs(programs, longest=86_400.0) for name, programs in one.items()}
