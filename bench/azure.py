"""What orchestrations cost on Azure Storage: `python -m bench azure`, the real .NET provider beside us.

Azurite is started, with a proxy before it that counts.  Requests are those that do something: empty polls, renewals
and leases count in the row of the idle worker alone.  Rates and times are taken without the proxy, the systems in
turn, each on an Azurite started for it that never sweeps up what was in its queues: that one's doing would be counted.
Every figure is a line of JSON; the table at the end holds the goals beside them.  Where .NET's program is not there
(`HOLDTRUE_SHARED`, or `shared` beside the repository) it is left out.
"""

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from bench.azure_systems import HUB, PEER, DotNet, Holdtrue
from holdtrue.testing.storage_proxy import Fault, Seen, StorageProxy, paced
from holdtrue.testing.storage_requests import Answer
from tools import azurite

System = DotNet | Holdtrue
Figures = dict[str, dict[str, float]]
"""By row of the table, by kind of system."""


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """A row: for each way of ours the most that it may be, or (`times`) times .NET's; `least`: at least."""

    text: str
    local: float
    queue: float
    times: bool = False
    least: bool = False

    def holds(self, kind: str, ours: float, dotnet: float | None) -> bool | None:
        """Whether a figure reaches it; None where that cannot be told."""
        bound = self.local if kind == "local" else self.queue
        if self.times:
            if not dotnet:
                return None
            bound *= dotnet
        return ours >= bound if self.least else ours <= bound


GOALS = {
    "chain": Goal(text="requests of Chain(5), its start included", local=15, queue=46),
    "fanout": Goal(text="requests of the worker for FanOut(100)", local=16, queue=460),
    "parent": Goal(text="requests of the worker for Parent(10)", local=150, queue=320),
    "chain rate": Goal(text="Chain(5) × 200: activities/s", local=2, queue=0.7, times=True, least=True),
    "fanout rate": Goal(text="FanOut(100) × 10: activities/s", local=8, queue=1, times=True, least=True),
    "beside": Goal(text="Chain(5): rate beside 4 instances without code ÷ alone", local=0.9, queue=0.9, least=True),
    "latency": Goal(text="one at a time, one activity: p50 in ms", local=0.5, queue=0.75, times=True),
    "growth of requests": Goal(text="Chain(2000): requests an activity, end ÷ start", local=1.1, queue=1.1),
    "growth of bytes": Goal(text="Chain(2000): bytes an activity, end ÷ start", local=1.1, queue=1.1),
    "growth of CPU": Goal(text="Chain(2000): CPU of the worker an activity, end ÷ start", local=1.1, queue=1.1),
    "idle": Goal(text="idle worker: requests/s", local=1, queue=1, times=True),
}


class Scale(msgspec.Struct, frozen=True):
    """How much is done."""

    chains: int = 200
    fans: int = 10
    singles: int = 30
    long: int = 2_000
    idle_seconds: float = 60.0


QUICK = Scale(chains=10, fans=1, singles=3, long=60, idle_seconds=5.0)
PACE = 0.04
"""Seconds after which each commit of the long chain is answered: Azurite's own go from 2 to 12 ms meanwhile, and who
is woken after 12 ms in place of 2 takes up to twice the CPU for the same work, in caches gone cold."""
QUIET_SECONDS = 75.0
"""Before the idle worker is counted: until then its polls slow down."""


class Bench:
    """One run of all systems."""

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        self.figures: Figures = {row: {} for row in GOALS}

    def _tell(self, row: str, system: System, value: float) -> None:
        self.figures[row][system.kind] = value
        print(json.dumps({"system": system.kind, "scenario": row, "value": round(value, 3)}), flush=True)

    async def counted(self, system: System, emulator: azurite.Azurite) -> None:
        """The rows that are counted at the proxy."""
        async with StorageProxy(emulator.ports, keep=False) as proxy:
            account = emulator.new_account()
            direct = emulator.connection_string(account)
            through = emulator.connection_string(account, proxy.ports)
            await system.begin(through, through, direct)
            try:
                await self._requests(system, proxy)
                await self._growth(system, proxy)
                await asyncio.sleep(QUIET_SECONDS if self._scale is not QUICK else 1.0)
                before = proxy.counts.total()
                await asyncio.sleep(self._scale.idle_seconds)
                self._tell("idle", system, (proxy.counts.total() - before) / self._scale.idle_seconds)
            finally:
                await system.end()

    async def _requests(self, system: System, proxy: StorageProxy) -> None:
        await self._one(system, "Chain", "warm", 1)
        for row, name, given in (("chain", "Chain", 5), ("fanout", "FanOut", 100), ("parent", "Parent", 10)):
            before = proxy.work()
            await system.start(name, row, given)
            started = proxy.work() - before
            await system.wait(row)
            await asyncio.sleep(2.0)  # what follows from its end
            made = proxy.work() - before
            self._tell(row, system, made if row == "chain" else made - started)

    @staticmethod
    async def _one(system: System, name: str, instance: str, given: int) -> float:
        await system.start(name, instance, given)
        return await system.wait(instance)

    async def _growth(self, system: System, proxy: StorageProxy) -> None:
        """Requests, bytes and CPU of a tenth of a long chain at its end, against a tenth near its start.

        The emulator's own time is kept out: each commit is answered when `PACE` is over.
        """
        long, tenth = self._scale.long, self._scale.long // 10
        marks = dict.fromkeys((tenth, 2 * tenth, long - tenth - 5, long - 5))
        reached: dict[int, tuple[int, int, asyncio.Task[float]]] = {}
        commits = size = 0

        def is_commit(seen: Seen) -> bool:
            return seen.about.kind == "table transact history"

        def watch(seen: Seen) -> bool:
            nonlocal commits, size
            size += len(seen.request.body)
            if is_commit(seen):
                commits += 1
                if commits in marks:
                    reached[commits] = (proxy.work(), size, asyncio.ensure_future(system.cpu()))
            return True

        def weigh(answer: Answer) -> bool:
            nonlocal size
            size += len(answer.body)
            return False

        proxy.spoil(watch, Fault(name="measured"), answered=weigh)
        proxy.spoil(is_commit, paced(PACE), times=sys.maxsize, answered=lambda answer: True)
        await self._one(system, "Chain", "long", long)
        figures = [(work, size, await cpu) for work, size, cpu in (reached[mark] for mark in marks)]
        for index, row in enumerate(("requests", "bytes", "CPU")):
            start, end = figures[1][index] - figures[0][index], figures[3][index] - figures[2][index]
            self._tell(f"growth of {row}", system, end / max(start, 1e-9))

    async def timed(self, system: System, emulator: azurite.Azurite) -> None:
        """The rows without the proxy."""
        scale = self._scale
        async with self._warm(system, emulator):
            self._tell("chain rate", system, 5 * await _rate(system, "Chain", scale.chains, 5))
            self._tell("fanout rate", system, 100 * await _rate(system, "FanOut", scale.fans, 100))
            times = [await self._one(system, "Chain", f"single{number}", 1) for number in range(scale.singles)]
            self._tell("latency", system, 1_000 * statistics.median(times))

    async def beside(self, system: Holdtrue, emulator: azurite.Azurite) -> None:
        """The rate of chains as above, beside instances that no worker has the code of: against that without."""
        async with self._warm(system, emulator):
            await system.strange()
            rate = 5 * await _rate(system, "Chain", self._scale.chains, 5)
            self._tell("beside", system, rate / self.figures["chain rate"][system.kind])

    @asynccontextmanager
    async def _warm(self, system: System, emulator: azurite.Azurite) -> AsyncIterator[None]:
        """A system at work on an account of its own, without the proxy, that has run a chain."""
        direct = emulator.connection_string(emulator.new_account())
        await system.begin(direct, direct, direct)
        try:
            await self._one(system, "Chain", "warm", 5)
            yield
        finally:
            await system.end()


async def _rate(system: System, name: str, count: int, given: int) -> float:
    """Instances a second, the median of three times."""
    return statistics.median([await system.rate(name, count, given) for _ in range(3)])


def table(figures: Figures, systems: list[System]) -> str:
    """The figures and whether they reach the goals, in Markdown."""
    lines = [
        "| | " + " | ".join(system.title for system in systems) + " |",
        "|---|" + "---|" * len(systems),
    ]
    for row, goal in GOALS.items():
        found = figures[row]
        dotnet = found.get("dotnet")
        cells = [_cell(goal, system.kind, found.get(system.kind), dotnet) for system in systems]
        lines.append(f"| {goal.text} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(goal: Goal, kind: str, value: float | None, dotnet: float | None) -> str:
    if value is None:
        return "–"
    text = f"{value:.4g}"
    if kind == "dotnet":
        return text
    if goal.times and dotnet:
        text += f" ({value / dotnet:.2f}×)"
    holds = goal.holds(kind, value, dotnet)
    return text if holds is None else f"{text} {'reached' if holds else 'MISSED'}"


def main(arguments: list[str]) -> int:
    """Run all, print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench azure", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: whether it works, no figures")
    parser.add_argument("--only", choices=("dotnet", "queue", "local"), action="append", help="one system")
    parser.add_argument("--counts", action="store_true", help="what the proxy counts alone")
    options = parser.parse_args(arguments)
    makers: dict[str, Callable[[], System]] = {
        "dotnet": DotNet,
        "local": lambda: Holdtrue("local"),
        "queue": lambda: Holdtrue("queue"),
    }
    if not PEER.exists():
        print(f"LEFT OUT: .NET: there is no {PEER.name} at {PEER.parent}", file=sys.stderr)
        del makers["dotnet"]
    systems = [make() for kind, make in makers.items() if not options.only or kind in options.only]
    bench = Bench(QUICK if options.quick else Scale())

    async def counted(emulator: azurite.Azurite) -> None:
        for system in systems:
            await bench.counted(system, emulator)

    with azurite.start() as emulator:
        asyncio.run(counted(emulator))
    for system in [] if options.counts else systems:
        with azurite.start() as emulator:
            asyncio.run(bench.timed(system, emulator))
        if isinstance(system, Holdtrue):
            with azurite.start() as emulator:
                asyncio.run(bench.beside(system, emulator))
    print(f"\nHub {HUB!r} on Azurite in memory, one worker of each.\n\n{table(bench.figures, systems)}")
    return 0
