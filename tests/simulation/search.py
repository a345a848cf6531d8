"""Runs of the simulation: one by a seed, one by a list of faults; the shortest list that fails; the story of a run."""

import gc
import warnings
from collections.abc import Callable, Sequence

from chance import ByChance, Clock
from cluster import Cluster, Hub, MemoryHubs, Scenario
from scenarios import Disturbed, fixed

from holdtrue.testing.faults import AMBIGUOUS, READS, Fault, FaultList, Faults, Kind
from holdtrue.testing.virtual_time import run

SECONDS = {Kind.SLOW: 3.0, Kind.SLOW_ANSWER: 3.0, Kind.LATE: 3.0, Kind.PAUSE_BEFORE: 60.0, Kind.PAUSE_AFTER: 60.0}
"""How long each kind takes in the search over single points: a pause outlives the lease."""
SHOWN = 60
"""Lines of a story, its last ones."""


class Failed(AssertionError):
    """A run in which something was not as it must be, with all that is needed to see it again."""


def play(seed: int, scenario: Scenario, faults: Faults, hub: Hub, hosts: int = 2) -> tuple[Cluster, Exception | None]:
    """One run; what it broke, if anything."""
    cluster = Cluster(seed, faults, hub, hosts=hosts)
    try:
        with warnings.catch_warnings():
            # Processes that died leave coroutines behind that were never finished.
            warnings.simplefilter("ignore", RuntimeWarning)
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
    raise Failed(
        f"seed {seed} on {kind.__name__}: {smaller or error}\nfaults: {drawn}\n{story(again)}\n"
        f"again: .venv/bin/python tests/simulation/again.py {seed} {kind.__name__}"
    ) from error


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
    """Every single fault of a fixed scenario: each kind at each call of each process that fits it."""
    met: list[tuple[str, int, str]] = []

    class Listening:
        def at(self, part: str, point: int, verb: str) -> Fault | None:
            met.append((part, point, verb))
            return None

    _, error = play(1, fixed()[name], Listening(), MemoryHubs())
    if error is not None:
        raise error
    return [
        Fault(part=part, point=point, kind=kind, seconds=SECONDS.get(kind, 1.0))
        for part, point, verb in met
        for kind in Kind
        if not (verb in READS and kind in AMBIGUOUS) and not (not part.startswith("h") and kind in _OF_HOSTS)
    ]


_OF_HOSTS = {Kind.CRASH_BEFORE, Kind.CRASH_AFTER, Kind.PAUSE_BEFORE, Kind.PAUSE_AFTER}


def with_one(name: str, fault: Fault, kind: Callable[[], Hub] = MemoryHubs) -> None:
    """A fixed scenario with one fault; raises Failed."""
    cluster, error = play(1, fixed()[name], FaultList([fault]), kind())
    if error is not None:
        raise Failed(f"{name} with {fault}: {error}\n{story(cluster)}") from error


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


def sweep() -> None:
    """Let go of what runs have left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        gc.collect()
