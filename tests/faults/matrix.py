"""Every request × every fault: `python -m tests.faults.matrix` runs all of it, or a part drawn by a seed.

Each case has an account of its own; many run at once in one process, as waiting takes no CPU.
"""

import argparse
import asyncio
import logging
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence

import msgspec

from tests.faults.cases import ACQUIRE, FAULTS, SHORT, Case, Outcome, Running, points
from tests.faults.hosts import HostLog, know_whose_tasks
from tests.faults.load import Load
from tests.faults.scenarios import SCENARIOS
from tools.azurite import ACCOUNTS, Azurite, start

AT_ONCE = 24
"""Cases, where the machine is quick enough for them."""


def play(
    azurite: Azurite,
    cases: Iterable[Case],
    *,
    seed: int = 0,
    at_once: int = AT_ONCE,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """The outcomes of cases, in the order in which they end; `tell` hears of each."""
    outcomes: list[Outcome] = []

    async def main() -> None:
        know_whose_tasks(asyncio.get_running_loop())
        waiting = iter(list(cases))
        load = Load(azurite)
        measuring = asyncio.ensure_future(load.measure())

        async def work() -> None:
            for case in waiting:
                async with load.turn():
                    outcome = await Running(azurite, case, seed=seed, load=load).run()
                outcomes.append(outcome)
                tell(outcome)

        await asyncio.gather(*(work() for _ in range(at_once)))
        measuring.cancel()
        await asyncio.gather(measuring, return_exceptions=True)

    asyncio.run(main())
    return outcomes


def whole(azurite: Azurite) -> list[Case]:
    """All cases: what is spoiled are the requests that runs without a fault make."""
    plain = [
        Case(scenario=name, hosts=hosts, queued=queued)
        for name in SCENARIOS
        for hosts in (1, 2)
        for queued in (False, True)
    ]
    found = []
    for outcome in play(azurite, plain):
        if outcome.wrong:
            raise AssertionError(f"{outcome.case} (a request: {outcome.load:.3f} s): {outcome.wrong}")
        for by, counts in sorted(outcome.counts.items()):
            for kind, nth in points(counts):
                found += [
                    msgspec.structs.replace(outcome.case, by=by, kind=kind, nth=nth, fault=name)
                    for name, fault in FAULTS.items()
                    if by == "hosts" or fault.call is None
                ]
    return sorted(found, key=str)


def killing(azurite: Azurite) -> list[Case]:
    """A process killed at each request of each scenario, before and after it; another stands by.

    What waits then waits for a lease and a look at it.  That and the whole of a run without a fault, as long as it
    takes on this machine, are the limit.
    """
    plain = [
        Case(scenario=name, hosts=2, outside=True, queued=queued) for name in SCENARIOS for queued in (False, True)
    ]
    found = []
    for outcome in play(azurite, plain):
        if outcome.wrong:
            raise AssertionError(f"{outcome.case} (a request: {outcome.load:.3f} s): {outcome.wrong}\n{outcome.story}")
        limit = SHORT + ACQUIRE + outcome.whole
        found += [
            msgspec.structs.replace(outcome.case, kind=kind, nth=nth, fault=name, limit=limit)
            for kind, nth in points(outcome.counts["hosts"])
            for name, fault in FAULTS.items()
            if fault.call is not None
        ]
    return sorted(found, key=str)


def drawn(cases: Sequence[Case], seed: int, count: int) -> list[Case]:
    """So many of them, by a seed: kinds of requests and faults get their turn alike."""
    chance = random.Random(seed)
    left: dict[tuple[str, str], list[Case]] = {}
    for case in chance.sample(list(cases), len(cases)):
        left.setdefault((case.by, case.kind), []).append(case)
    found: list[Case] = []
    used: dict[str, int] = {}
    while len(found) < min(count, len(cases)):
        for kind in [kind for kind in left if left[kind]]:
            # Of this kind, a case with the fault that was used least.
            best = min(left[kind], key=lambda case: used.get(case.fault, 0))
            left[kind].remove(best)
            used[best.fault] = used.get(best.fault, 0) + 1
            found.append(best)
    return found[:count]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.matrix", description=__doc__)
    parser.add_argument("--cases", type=int, help="how many, drawn by the seed (all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="1/1", help="2/4: the second quarter of them")
    parser.add_argument("--only", default="", help="a text that stands in a case's name")
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, handlers=[HostLog()])
    azurite = start()
    cases = [case for case in [*whole(azurite), *killing(azurite)] if given.only in str(case)]
    if given.cases is not None:
        cases = drawn(cases, given.seed, given.cases)
    part, parts = map(int, given.part.split("/"))
    cases = cases[part - 1 :: parts]
    print(f"{len(cases)} cases", flush=True)
    outcomes: list[Outcome] = []
    began = time.monotonic()
    size = ACCOUNTS - 100
    for first in range(0, len(cases), size):
        if first:
            azurite.stop()
            azurite = start()
        some = cases[first : first + size]
        outcomes += play(azurite, some, seed=given.seed, at_once=given.at_once, tell=tell)
        print(f"{len(outcomes)} cases in {time.monotonic() - began:.0f} s", flush=True)
    azurite.stop()
    print(summary(outcomes))
    return any(outcome.wrong for outcome in outcomes)


def tell(outcome: Outcome) -> None:
    """Say what is wrong with one."""
    if outcome.wrong:
        print(f"{outcome.story}\nWRONG: {outcome.case} (a request: {outcome.load:.3f} s): {outcome.wrong}", flush=True)


def summary(outcomes: Sequence[Outcome]) -> str:
    """A line for each fault: cases, those that met their request, and the seconds to the end."""
    lines = []
    for fault in FAULTS:
        some = [outcome for outcome in outcomes if outcome.case.fault == fault]
        seconds = sorted(outcome.seconds for outcome in some if outcome.seconds is not None)
        if seconds:
            half, most = seconds[len(seconds) // 2], seconds[-1]
            lines.append(f"{fault}: {len(seconds)} of {len(some)}, {half:.1f} s, at most {most:.1f} s")
    wrong = sum(bool(outcome.wrong) for outcome in outcomes)
    reads = sum(outcome.reads for outcome in outcomes)
    return "\n".join([*lines, f"{len(outcomes)} cases, {wrong} wrong, {reads} statuses read"])


if __name__ == "__main__":
    sys.exit(main())
