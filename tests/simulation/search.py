"""Runs of the simulation: one by a seed, one by a list of faults; the shortest list that fails; the story of a run."""

import gc
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import saved
from chance import CLIENTS_CANNOT, ByChance, Clock
from cluster import Cluster, Hub, MemoryHubs, Scenario
from scenarios import Disturbed, fixed

from holdtrue.testing.faults import AMBIGUOUS, READS, TAKES, Fault, FaultList, Faults, Kind
from holdtrue.testing.virtual_time import run

SECONDS = {
    Kind.SLOW: (3.0,),
    Kind.SLOW_ANSWER: (3.0,),
    Kind.LATE: (3.0,),
    Kind.DOUBLED: (3.0,),
    Kind.NOTICE_LATE: (3.0,),
    Kind.PAUSE_BEFORE: (60.0,),
    Kind.PAUSE_AFTER: (60.0,),
    Kind.PAUSE_AT_STEP: (60.0,),
    Kind.CLOCK_SET: (-300.0, 300.0),
}
"""How long each kind takes in the search over single points (else a second): a pause outlives the lease."""
LONGER = ("rewound", "lives", "held")
"""Fixed scenarios of more than a thousand steps."""
SHOWN = 60
"""Lines of a story, its last ones."""


class Failed(AssertionError):
    """A run in which something was not as it must be, with all that is needed to see it again.

    `saved` is the run (None: it cannot be saved).
    """

    def __init__(self, message: str, saved: "saved.Saved | None" = None) -> None:
        super().__init__(message)
        self.saved = saved


@contextmanager
def what_died_lies_still() -> Iterator[None]:
    """A dead process's coroutines are not closed while the run goes on (that would run their `finally` blocks), nor in
    the midst of whatever comes next; and when they are, nobody hears of it."""
    collects = gc.isenabled()
    gc.disable()
    if next(_runs) % FROZEN_FOR == 0:
        gc.unfreeze()
        collect()
        gc.freeze()  # what stands before the runs is not looked at after each: a test runner has a million objects
    try:
        yield
    finally:
        collect()
        if collects:
            gc.enable()


FROZEN_FOR = 500
"""Runs."""
_runs = itertools.count()


def collect() -> None:
    """Let go of what runs have left."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda info: None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # coroutines of processes that died were never finished
        gc.collect()
    sys.unraisablehook = hook


def play(seed: int, scenario: Scenario, faults: Faults, hub: Hub, hosts: int = 2) -> tuple[Cluster, Exception | None]:
    """One run; what it broke, if anything."""
    cluster = Cluster(seed, faults, hub, hosts=hosts)
    with what_died_lies_still():
        try:
            run(cluster.run(scenario))
            cluster.forget()
            return cluster, None
        except Exception as error:
            return cluster, error
        finally:
            hub.close()


def by_seed(seed: int, kind: Callable[[], Hub] = MemoryHubs) -> None:
    """The run of a seed; raises Failed with the shortest list of faults that still breaks it."""
    faults = ByChance(seed, Clock())
    _, error = play(seed, Disturbed(seed), faults, kind())
    if error is None:
        return
    drawn = shrink(faults.drawn, lambda some: play(seed, Disturbed(seed), FaultList(some), kind())[1] is not None)
    again, smaller = play(seed, Disturbed(seed), FaultList(drawn), kind())
    broke = smaller or error
    faults_text = "\n  ".join(saved.fault_text(fault) for fault in drawn)
    raise Failed(
        f"seed {seed} on {kind.__name__}: {broke}\nfaults:\n  {faults_text}\n{story(again)}\n"
        f"again: .venv/bin/python tests/simulation/again.py {seed} {kind.__name__}",
        saved.Saved(version=saved.VERSION, seed=seed, hub=kind.__name__, faults=drawn, broke=str(broke)[:200]),
    ) from error


def saved_run(run: saved.Saved) -> None:
    """A run that was saved; raises Failed."""
    cluster, error = play(run.seed or 1, run.scenario(), FaultList(run.faults), saved.HUBS[run.hub]())
    if error is not None:
        raise Failed(f"{run.fixed or f'seed {run.seed}'} on {run.hub}: {error}\n{story(cluster)}", run) from error


def shrink(faults: Sequence[Fault], fails: Callable[[list[Fault]], bool]) -> list[Fault]:
    """A short list of these faults that still fails: halves first, then one by one."""
    left = list(faults)
    if not fails(left):
        return left
    size = max(1, len(left) // 2)
    while size:
        at = 0
        while at < len(left):
            some = left[:at] + left[at + size :]
            if fails(some):
                left = some
            else:
                at += size
        size //= 2
    return left


def points(name: str) -> list[Fault]:
    """Every single fault of a fixed scenario: each kind at each call, notice and step of each process that fits it."""
    met: list[tuple[str, int, str]] = []

    class Listening:
        def at(self, part: str, point: int, verb: str) -> Fault | None:
            met.append((part, point, verb))
            return None

    _, error = play(1, fixed()[name], Listening(), MemoryHubs())
    if error is not None:
        raise error
    return [
        Fault(part=part, point=point, kind=kind, seconds=seconds)
        for part, point, verb in met
        for kind in Kind
        if _fits(kind, part, verb)
        for seconds in SECONDS.get(kind, (1.0,))
    ]


def in_time(name: str) -> list[Fault]:
    """Those of them for which `make test` has time; `make soak` does the rest."""
    every = points(name)
    if name not in LONGER:
        clocks = [fault for fault in every if fault.kind is Kind.CLOCK_SET]
        # Of two steps one with a clock that is slow, and one with a clock that is fast.
        return [fault for fault in every if fault.kind is not Kind.CLOCK_SET] + clocks[::4] + clocks[3::4]
    steps = [fault for fault in every if fault.kind is Kind.CRASH_AT_STEP]
    calls = [fault for fault in every if fault.kind.sort != "step"]
    return calls[::2] + steps[::3]


def _fits(kind: Kind, part: str, verb: str) -> bool:
    """Whether it can happen there, and is anything of its own."""
    if kind.sort != (verb if verb in ("notice", "step") else "call"):
        return False
    if kind is Kind.DOUBLED and (verb in READS or verb in TAKES):
        return False
    return not (verb in READS and kind in AMBIGUOUS) and not (not part.startswith("h") and kind in CLIENTS_CANNOT)


def with_one(name: str, fault: Fault, kind: Callable[[], Hub] = MemoryHubs) -> None:
    """A fixed scenario with one fault; raises Failed."""
    cluster, error = play(1, fixed()[name], FaultList([fault]), kind())
    if error is not None:
        text = saved.fault_text(fault)
        raise Failed(
            f"{name} on {kind.__name__}: {error}\nfaults:\n  {text}\n{story(cluster)}\n"
            f"again: .venv/bin/python tests/simulation/again.py --fixed {name} --fault '{text}' {kind.__name__}",
            saved.Saved(version=saved.VERSION, fixed=name, hub=kind.__name__, faults=[fault], broke=str(error)[:200]),
        ) from error


def story(cluster: Cluster) -> str:
    """What happened, as a sequence diagram in text: a column for each process, a line for each call."""
    calls = [line for line in cluster.trace if line[3] or line[2] not in _QUIET]
    parts = list(dict.fromkeys(part for _, part, _, _ in calls))
    lines = ["  seconds  " + "".join(f"{part:<22}" for part in parts)]
    for moment, part, verb, what in calls[-SHOWN:]:
        lines.append(f"{moment:9.3f}  " + " " * 22 * parts.index(part) + f"{verb} {what}".strip())
    return "\n".join(lines)


_QUIET = frozenset({"renew", "fetch", "upkeep", "get_schedules", "fire_due", "lock_activities", "lock"})
"""Calls that stand in the story only where something happened to them."""
