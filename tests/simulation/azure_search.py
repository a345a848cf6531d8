"""Runs of the simulated hub on Azure Storage: one by a seed, one by a list of faults; the shortest list that fails."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, NamedTuple

from azure_cluster import AzureCluster
from azure_scenarios import BesideDotNet, Brief, DisturbedOnAzure, fixed_on_azure
from broken import Broken
from chance import AtSteps, Clock
from saved import fault_text
from search import Failed, shrink, story, what_died_lies_still

from holdtrue.stores.azure_storage import erasing, formats, keeping, planning
from holdtrue.testing.faults import Fault, FaultList, Faults, Kind
from holdtrue.testing.storage_faults import OF_WRITES, READS, Call, CallFault, CallFaultList, CallFaults, Mishap
from holdtrue.testing.virtual_time import run

HOSTS_ONLY = frozenset({Mishap.CRASH_BEFORE, Mishap.CRASH_AFTER, Mishap.PAUSE_BEFORE, Mishap.PAUSE_AFTER})
"""What happens to hosts only: nobody would go on with what a client's user wanted."""


OVERTAKEN = frozenset({Mishap.LATE, Mishap.DOUBLED, Mishap.SLOW})
"""Not for long of a purge of .NET's: it deletes whatever stands there, also the rows of what was started since, and
nothing in the format could keep them (docs/reliability.md)."""

COPIES = frozenset({Mishap.LATE, Mishap.DOUBLED})


class ByChance:
    """Draws faults until `last` seconds of virtual time have passed (or `never`); `drawn` are those that there were."""

    def __init__(self, seed: int, *, last: float = 120.0, beside_dotnet: bool = False, never: bool = False) -> None:
        chance = random.Random(f"azure faults:{seed}")
        self._seed = seed
        self._last = last
        self._beside_dotnet = beside_dotnet
        self._rate = 0.0 if never else chance.choice([0.0, 0.003, 0.01, 0.05])
        self._mishaps = chance.sample(list(Mishap), chance.randint(1, len(Mishap)))
        self._streams: dict[str, random.Random] = {}
        self.drawn: list[CallFault] = []

    def at(self, call: Call) -> CallFault | None:
        """What happens to a call."""
        stream = self._streams.get(call.part)
        if stream is None:
            stream = self._streams[call.part] = random.Random(f"azure:{self._seed}:{call.part}")
        hit, which, long = stream.random(), stream.choice(self._mishaps), stream.random()
        if hit >= self._rate or asyncio.get_running_loop().time() > self._last:
            return None
        if (which in OF_WRITES and call.verb in READS) or (which in HOSTS_ONLY and not call.part.startswith("h")):
            which = Mishap.REFUSED if which in OF_WRITES else Mishap.SLOW
        seconds = _seconds(which, long)
        if which in OVERTAKEN and call.part.startswith("net") and call.verb == "tables.transact":
            which, seconds = Mishap.SLOW, min(seconds, 1.0)
        if which in COPIES and self._beside_dotnet and call.verb == "tables.write" and not call.part.startswith("h"):
            # A start's row that comes when .NET has purged its run starts it anew: .NET leaves no note.
            which = Mishap.LOST
        fault = CallFault(part=call.part, point=call.point, mishap=which, seconds=seconds)
        self.drawn.append(fault)
        return fault


class Slowly:
    """Draws what makes reads and writes of rows slow: what was read or decided is old when it arrives."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(f"azure slowly:{seed}")
        self.drawn: list[CallFault] = []

    def at(self, call: Call) -> CallFault | None:
        """What happens to a call."""
        hit, which, seconds = self._chance.random(), self._chance.random(), self._chance.choice([0.3, 1.0, 3.0])
        if not call.verb.startswith("tables.") or not call.target.endswith(("History", "Instances")):
            return None
        # What readers ask of the sentinel, and what hosts write of the row, are the two ends of most that can go wrong.
        reads = call.part == "reader" and call.target.endswith("History")
        writes = call.part.startswith("h") and call.verb == "tables.write"
        if hit > (0.5 if reads or writes else 0.15):
            return None
        mishap = Mishap.SLOW if which < 0.6 else Mishap.SLOW_ANSWER
        starts = call.part.startswith("user") and call.verb == "tables.write"
        if which > 0.9 and call.verb not in READS and not starts:
            # (The row of a start that comes when its instance has run and was purged starts it anew: the one known gap
            # of the protocol, docs/reliability.md.)
            mishap = Mishap.LATE
        self.drawn.append(CallFault(part=call.part, point=call.point, mishap=mishap, seconds=seconds))
        return self.drawn[-1]


class ReadLate:
    """Who only reads hears late what the sentinel was; the row it reads then may be of another life."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(f"read late:{seed}")
        self.drawn: list[CallFault] = []

    def at(self, call: Call) -> CallFault | None:
        """What happens to a call."""
        if not call.part.startswith("reader") or call.verb != "tables.get" or not call.target.endswith("History"):
            return None
        seconds = self._chance.choice([0.0, 0.5, 1.0, 2.0])
        self.drawn.append(CallFault(part=call.part, point=call.point, mishap=Mishap.SLOW_ANSWER, seconds=seconds))
        return self.drawn[-1]


def _seconds(which: Mishap, long: float) -> float:
    if which in HOSTS_ONLY:
        return 0.1 if long < 0.3 else 3.0 if long < 0.6 else 60.0
    return 0.01 if long < 0.4 else 1.0 if long < 0.8 else 40.0


def play(
    seed: int,
    scenario: Any,
    faults: CallFaults,
    steps: Faults | None = None,
    *,
    hosts: int = 2,
    small: bool = False,
    rests: bool = False,
) -> tuple[AzureCluster, Exception | None]:
    """One run; what it broke, if anything.

    `steps` are deaths, pauses and wrong clocks at steps of processes, between any two awaits.  `small`: transactions
    hold few operations, messages go ahead for seconds only, so that whatever takes more than one is met in every run.
    `rests`: in the end it is looked what hosts still hold.
    """
    cluster = AzureCluster(seed, faults, steps or FaultList([]), hosts=hosts, rests=rests)
    with what_died_lies_still(), _small_limits() if small else nullcontext():
        try:
            run(cluster.run(scenario))
            return cluster, None
        except Exception as error:
            return cluster, error
        finally:
            cluster.forget()


SMALL = (
    (planning, "MOST_OPERATIONS", 6),
    (keeping, "MOST_KEPT", 3),
    (erasing, "BATCH", 3),
    (formats, "LONGEST_DELAY", 15),
)
"""Limits of the service and of the store, and what they are where they are to be met."""


@contextmanager
def _small_limits() -> Iterator[None]:
    before = [getattr(module, name) for module, name, _ in SMALL]
    for module, name, value in SMALL:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(SMALL, before, strict=True):
            setattr(module, name, value)


SECONDS = {Mishap.LATE: 3.0, Mishap.DOUBLED: 3.0, Mishap.SLOW: 3.0, Mishap.SLOW_ANSWER: 3.0}


def points(
    name: str,
    mishaps: Sequence[Mishap] = tuple(Mishap),
    *,
    kinds: tuple[str, ...] = ("",),
    seconds: float | None = None,
    parts: tuple[str, ...] = ("",),
) -> list[CallFault]:
    """Every single fault of a fixed scenario: each call of a run without faults, but for the polls that found nothing
    and what comes after the last write of an instance, with each mishap that would show.

    `kinds` are beginnings of the calls' verbs and targets, `seconds` how long each takes where it is not as usual,
    `parts` beginnings of the names of those who make them.
    """
    cluster = _without_faults(name)
    found = []
    for number, call in enumerate(cluster.calls[: cluster.last_write]):
        if (call.verb == "queues.take" and number not in cluster.fruitful) or not call.kind.startswith(kinds):
            continue
        if not call.part.startswith(parts):
            continue
        for mishap in mishaps:
            if (mishap in OF_WRITES and call.verb in READS) or (mishap in HOSTS_ONLY and not call.part.startswith("h")):
                continue
            usual = 60.0 if mishap in (Mishap.PAUSE_BEFORE, Mishap.PAUSE_AFTER) else SECONDS.get(mishap, 1.0)
            long = usual if seconds is None else seconds
            found.append(CallFault(part=call.part, point=call.point, mishap=mishap, seconds=long))
    return found


IN_SMALL = ("parts", "away", "early", "renewed", "rivals", "ticking")
"""Fixed scenarios that are run with small limits."""
BY_ONE_HOST = ("alone",)
"""Fixed scenarios with one host: when it stands still nobody takes over, so that its own clock alone tells it what it
has lost."""
READ_BACK_SECONDS = 5.0
"""A commit whose answer is lost is read back: nothing waits for a message to come again."""


class Search(NamedTuple):
    """Which single faults are tried in a fixed scenario: mishaps, beginnings of verbs and targets, seconds where not as
    usual, beginnings of the names of those who call."""

    mishaps: tuple[Mishap, ...]
    kinds: tuple[str, ...] = ("",)
    seconds: float | None = None
    parts: tuple[str, ...] = ("",)


DEATHS = (Mishap.CRASH_AFTER, Mishap.PAUSE_AFTER)
_FROZEN = Search((Mishap.PAUSE_BEFORE,), ("queues.put", "tables.query", "tables.get"), None, ("h",))
"""Frozen before what it reads, or before it sends: what it does then is of long ago."""
_USUAL = (
    Search((Mishap.LOST, Mishap.CRASH_AFTER)),
    Search((Mishap.RESENT, Mishap.PAUSE_AFTER), ("tables.transact", "tables.write")),
    # Frozen in the put: when it goes out another host has long committed.
    Search((Mishap.PAUSE_BEFORE,), ("tables.transact",)),
    _FROZEN,
)
SEARCHES: dict[str, tuple[Search, ...]] = {
    "parts": (Search((Mishap.LOST, Mishap.RESENT, *DEATHS), ("tables.transact", "blobs.")), _FROZEN),
    "told": (Search((Mishap.LATE, Mishap.DOUBLED), ("queues.put",), 100.0),),
    "away": (Search((Mishap.LOST, Mishap.CRASH_BEFORE, *DEATHS), ("tables.transact",)),),
    "early": (Search((Mishap.LOST, Mishap.CRASH_AFTER), ("tables.transact",)),),
    "big": (Search((Mishap.LOST, Mishap.CRASH_AFTER), ("tables.transact", "blobs.put")),),
    "large": (Search((Mishap.CRASH_AFTER,), ("tables.transact",)),),
    "deadly": (Search((Mishap.LOST, Mishap.CRASH_AFTER), ("tables.transact", "queues.put")),),
    "gone": (
        Search((Mishap.LATE, Mishap.DOUBLED), ("tables.transact",), 60.0),
        Search((Mishap.LATE, Mishap.DOUBLED), ("tables.write",), 60.0, ("user",)),
        Search((Mishap.SLOW, Mishap.LOST), ("tables.transact",)),
        Search((Mishap.DOUBLED,), ("queues.put",), 60.0, ("h",)),
        _FROZEN,
    ),
    "lives": (Search((Mishap.LOST, Mishap.CRASH_AFTER), ("tables.write SimulatedHoldtrue",), None, ("h",)),),
    "held": (Search((Mishap.LOST, Mishap.CRASH_AFTER), ("tables.transact", "tables.write SimulatedHoldtrue")),),
    "deployed": (Search((Mishap.CRASH_AFTER, Mishap.PAUSE_BEFORE), ("tables.transact", "queues.put")),),
    "followed": (Search((Mishap.SLOW, Mishap.SLOW_ANSWER), ("tables.write",), None, ("h",)),),
    "ticking": (Search((Mishap.SLOW,), ("tables.write", "tables.get"), 5.0),),
    "alone": (Search((Mishap.PAUSE_BEFORE, Mishap.PAUSE_AFTER)),),
    "beside": (Search((Mishap.LOST, Mishap.CRASH_AFTER), ("tables.transact",)),),
    **dict.fromkeys(("chain", "children", "again", "rewound"), _USUAL),
}
BESIDE_DOTNET = 60
"""Random runs beside clients of .NET's."""
SLOW_RUNS = 210
"""Of `renewed`, `rivals` and `ticking`, in turn."""
LATE_READS = 8
"""Random runs of short lives whose readers hear late."""


def singles(name: str) -> list[CallFault]:
    """The single faults that are searched in a fixed scenario."""
    return [
        fault
        for search in SEARCHES[name]
        for fault in points(name, search.mishaps, kinds=search.kinds, seconds=search.seconds, parts=search.parts)
    ]


def _fixed(name: str, *faults: CallFault, steps: Faults | None = None) -> tuple[AzureCluster, Exception | None]:
    hosts = 1 if name in BY_ONE_HOST else 2
    rests = not faults and steps is None
    return play(
        1, fixed_on_azure()[name], CallFaultList(faults), steps, small=name in IN_SMALL, hosts=hosts, rests=rests
    )


@cache
def _without_faults(name: str) -> AzureCluster:
    cluster, error = _fixed(name)
    if error is not None:
        raise error
    return cluster


def with_one(name: str, fault: CallFault) -> None:
    """A fixed scenario with one fault; raises Failed where anything is not as it must be."""
    cluster, error = _fixed(name, fault)
    late = cluster.last_write_at - _without_faults(name).last_write_at
    if error is None and late > READ_BACK_SECONDS and _of_a_commit(cluster, fault):
        error = Broken(f"a commit's answer was lost, and all was done {late:g} s later than else")
    if error is not None:
        raise Failed(
            f"scenario {name!r} on Azure Storage with {fault}: {error}\n{_told(cluster, name, fault)}"
        ) from error


AGAIN = "again: .venv/bin/python tests/simulation/again.py"


def _told(cluster: AzureCluster, name: str, fault: CallFault | Fault) -> str:
    """The story of a fixed scenario with one fault, and the command that plays it again."""
    return f"{story(cluster)}\n{AGAIN} --fixed {name} --fault '{fault_text(fault)}' AzureStorage"


def _of_a_commit(cluster: AzureCluster, fault: CallFault) -> bool:
    if fault.mishap not in (Mishap.LOST, Mishap.RESENT):
        return False
    commit = f"tables.transact {cluster.hub_names.history}"
    return any((call.part, call.point, call.kind) == (fault.part, fault.point, commit) for call in cluster.calls)


class Ran(NamedTuple):
    """A run in which nothing was broken: its virtual seconds, and how often a client met the one gap that rule 7 names
    (a start that reads Pending while .NET purges)."""

    seconds: float
    gaps: int


Tried = Callable[[CallFaults, Faults | None], tuple[AzureCluster, Exception | None]]
"""A run with faults of calls and of steps."""


def _ran(what: str, seed: int, kind: str, tried: Tried, faults: Any, steps: Any = None) -> Ran:
    """Run it; raises Failed with the shortest list of the faults drawn that still breaks it."""
    cluster, error = tried(faults, steps)
    if error is None:
        return Ran(cluster.trace[-1][0], cluster.ledger.gaps)  # type: ignore[attr-defined]

    def again(some: Sequence[Any]) -> tuple[AzureCluster, Exception | None]:
        calls = [one for one in some if isinstance(one, CallFault)]
        return tried(CallFaultList(calls), FaultList([one for one in some if isinstance(one, Fault)]))

    drawn: Sequence[Any] = [*faults.drawn, *(() if steps is None else steps.drawn)]
    drawn = shrink(drawn, lambda some: again(some)[1] is not None)  # type: ignore[arg-type]
    cluster, smaller = again(drawn)
    raise Failed(f"{what}: {smaller or error}\nfaults: {drawn}\n{story(cluster)}\n{AGAIN} {seed} {kind}") from error


def slow_run(seed: int) -> Ran:
    """One id that lives on and on, where rows are read and written slowly; raises Failed."""
    name = ("renewed", "rivals", "ticking")[seed % 3]

    def tried(faults: CallFaults, steps: Faults | None) -> tuple[AzureCluster, Exception | None]:
        return play(seed, fixed_on_azure()[name], faults, steps, small=True)

    return _ran(f"{name!r} slowly, {seed}", seed, "Slowly", tried, Slowly(seed))


def read_late(seed: int) -> Ran:
    """Short lives of one id, and readers that hear late what stood there; raises Failed."""

    def tried(faults: CallFaults, steps: Faults | None) -> tuple[AzureCluster, Exception | None]:
        return play(seed, Brief(seed), faults, steps)

    return _ran(f"readers that hear late, {seed}", seed, "ReadLate", tried, ReadLate(seed))


def beside_dotnet(seed: int) -> Ran:
    """The run of a seed beside clients of .NET's, every second one with faults.  Raises Failed."""
    small, rests = seed % 4 == 1, seed % 10 == 5

    def tried(faults: CallFaults, steps: Faults | None) -> tuple[AzureCluster, Exception | None]:
        return play(seed, BesideDotNet(seed), faults, steps, small=small, rests=rests)

    faults = ByChance(seed, beside_dotnet=True, never=seed % 2 == 0)
    return _ran(f"seed {seed} beside .NET", seed, "BesideDotNet", tried, faults)


def steps_of(seed: int) -> AtSteps:
    """What happens by chance at steps in the run of a seed."""
    return AtSteps(seed, Clock())


def by_chance(seed: int, faults: CallFaults, steps: Faults | None) -> tuple[AzureCluster, Exception | None]:
    """The random scenario of a seed; every second one with small limits, every tenth looked at when it rests."""
    return play(seed, DisturbedOnAzure(seed), faults, steps, small=seed % 2 == 1, rests=seed % 10 == 5)


def by_seed(seed: int) -> Ran:
    """The run of a seed; raises Failed with the shortest list of faults that still breaks it."""

    def tried(faults: CallFaults, steps: Faults | None) -> tuple[AzureCluster, Exception | None]:
        return by_chance(seed, faults, steps)

    return _ran(f"seed {seed} on Azure Storage", seed, "AzureStorage", tried, ByChance(seed), steps_of(seed))


def at_each_step(name: str) -> list[Fault]:
    """A death, and a pause that outlives the lease, before each step of each host in a fixed scenario."""
    met: list[tuple[str, int]] = []

    class Listening:
        def at(self, part: str, point: int, verb: str) -> Fault | None:
            if part.startswith("h"):
                met.append((part, point))
            return None

    _, error = _fixed(name, steps=Listening())
    if error is not None:
        raise error
    return [
        Fault(part=part, point=point, kind=kind, seconds=seconds)
        for part, point in met
        for kind, seconds in ((Kind.CRASH_AT_STEP, 1.0), (Kind.PAUSE_AT_STEP, 60.0))
    ]


def with_step(name: str, fault: Fault) -> None:
    """A fixed scenario with one fault at a step; raises Failed."""
    cluster, error = _fixed(name, steps=FaultList([fault]))
    if error is not None:
        raise Failed(
            f"scenario {name!r} on Azure Storage with {fault}: {error}\n{_told(cluster, name, fault)}"
        ) from error


BY_SEED: dict[str, Callable[[int], Ran]] = {
    "AzureStorage": by_seed,
    "BesideDotNet": beside_dotnet,
    "Slowly": slow_run,
    "ReadLate": read_late,
}
"""The random runs, by the kind that a line of the corpus and `again.py` name."""
