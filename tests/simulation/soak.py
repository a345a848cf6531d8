"""New seeds for so many seconds: `python tests/simulation/soak.py SECONDS [FIRST SEED]`.

In turn with them come the single faults of the fixed scenarios, on both kinds of hub: all, also those for which
`make test` has no time.  Every failing seed is kept in `corpus.txt` beside this file, which `make test` plays again.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import azure_search
import saved
import search
from chance import ByChance, Clock
from scenarios import Disturbed, fixed

CORPUS = Path(__file__).with_name("corpus.txt")
CHUNK = 25
SHARES = 40
YEAR_SECONDS = 365.25 * 86_400


class Done(NamedTuple):
    """What came of a job: how many seeds and single faults it played, the virtual seconds of the seeds, how often a
    client met the one gap that a purge of .NET's makes, what failed (in words), and the lines for the corpus."""

    seeds: int = 0
    single: int = 0
    passed: float = 0.0
    gaps: int = 0
    failed: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


def chunk(first: int, kind: str) -> Done:
    """Some seeds."""
    failed, lines, passed = [], [], 0.0
    for seed in range(first, first + CHUNK):
        run, error = search.play(seed, Disturbed(seed), ByChance(seed, Clock()), saved.HUBS[kind]())
        passed += run.trace[-1][0] if run.trace else 0.0
        if error is not None:
            failed.append(f"seed {seed} on {kind}: {str(error)[:200]}")
            lines.append(f"{seed} {kind}\n")
    return Done(seeds=CHUNK, passed=passed, failed=tuple(failed), lines=tuple(lines))


def share(name: str, kind: str, number: int) -> Done:
    """Some of the single faults of a fixed scenario."""
    failed, some = [], search.points(name)[number::SHARES]
    for fault in some:
        try:
            search.with_one(name, fault, saved.HUBS[kind])
        except search.Failed as error:
            failed.append(str(error))
    return Done(single=len(some), failed=tuple(failed))


def on_azure(first: int) -> Done:
    """Some seeds on Azure Storage, every fifth beside .NET's clients, every fifth slowly, one with late readers."""
    failed, lines, passed, gaps = [], [], 0.0, 0
    for seed in range(first, first + CHUNK):
        kind = {0: "BesideDotNet", 1: "Slowly"}.get(seed % 5, "ReadLate" if seed % CHUNK == 2 else "AzureStorage")
        try:
            ran = azure_search.BY_SEED[kind](seed)
        except search.Failed as error:
            failed.append(str(error))
            lines.append(f"{seed} {kind}\n")
        else:
            passed, gaps = passed + ran.seconds, gaps + ran.gaps
    return Done(seeds=CHUNK, passed=passed, gaps=gaps, failed=tuple(failed), lines=tuple(lines))


def singles_on_azure(name: str, number: int) -> Done:
    """Some of the single faults of a fixed scenario on Azure Storage."""
    failed, some = [], azure_search.singles(name)[number::SHARES]
    for fault in some:
        try:
            azure_search.with_one(name, fault)
        except search.Failed as error:
            failed.append(str(error))
    return Done(single=len(some), failed=tuple(failed))


def at_steps_on_azure(name: str, number: int) -> Done:
    """Some of the deaths and pauses between any two awaits of a fixed scenario on Azure Storage."""
    failed, some = [], azure_search.at_each_step(name)[number::SHARES]
    for fault in some:
        try:
            azure_search.with_step(name, fault)
        except search.Failed as error:
            failed.append(str(error))
    return Done(single=len(some), failed=tuple(failed))


def jobs(first: int) -> Iterator[tuple[Callable[..., Done], tuple[object, ...]]]:
    """What to do, without end."""
    shares = ((name, kind, number) for number in range(SHARES) for kind in saved.HUBS for name in fixed())
    steps = ((name, number) for number in range(SHARES) for name in azure_search.SEARCHES)
    singles = ((name, number) for number in range(SHARES) for name in azure_search.SEARCHES)
    while True:
        single = next(singles, None)
        if single is not None:
            yield singles_on_azure, single
        following = next(shares, None)
        if following is not None:
            yield share, following
        at_steps = next(steps, None)
        if at_steps is not None:
            yield at_steps_on_azure, at_steps
        yield on_azure, (first,)
        yield chunk, (first, "SqliteHub" if first // CHUNK % 10 == 0 else "MemoryHubs")
        first += CHUNK


def known() -> list[tuple[int, str]]:
    """The seeds of the corpus, with the kind of hub.  Raises BadInput naming the place of what is none."""
    return saved.seeds(CORPUS.name, CORPUS.read_text()) if CORPUS.exists() else []


def main() -> int:
    """0 where nothing failed, 1 where something did, 2 for arguments that are none."""
    if not 2 <= len(sys.argv) <= 3:
        print(__doc__, file=sys.stderr)
        return 2
    names = ("SECONDS", "FIRST SEED")
    try:
        numbers = [saved.seed_of(name, word) for name, word in zip(names, sys.argv[1:], strict=False)]
        known()
    except saved.BadInput as error:
        print(error, file=sys.stderr)
        return 2
    first = numbers[1] if len(numbers) == 2 else int(time.time()) * 1_000
    return soak(float(numbers[0]), first)


def soak(seconds: float, first: int) -> int:
    """Play for so long; 1 where something failed."""
    began, seeds, single, virtual, gaps, failing = time.monotonic(), 0, 0, 0.0, 0, 0
    print(f"from seed {first} on", flush=True)
    coming = jobs(first)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        running = set()
        while time.monotonic() - began < seconds or running:
            while len(running) < 2 * (os.cpu_count() or 1) and time.monotonic() - began < seconds:
                do, given = next(coming)
                running.add(pool.submit(do, *given))
            finished = next(as_completed(running))
            running.discard(finished)
            done = finished.result()
            seeds, single, virtual = seeds + done.seeds, single + done.single, virtual + done.passed
            failing, gaps = failing + len(done.failed), gaps + done.gaps
            for text in done.failed:
                print(text, flush=True)
            if done.lines:
                with CORPUS.open("a") as corpus:
                    corpus.writelines(done.lines)
    took = time.monotonic() - began
    print(
        f"{seeds} seeds and {single} single faults, {(seeds + single) / took:.0f} a second, "
        f"{virtual / YEAR_SECONDS:.3f} virtual years, {gaps} reads beside a purge of .NET's, {failing} failed"
    )
    return 1 if failing else 0


if __name__ == "__main__":
    raise SystemExit(main())
