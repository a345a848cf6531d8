"""New seeds for so many seconds: `python tests/simulation/soak.py SECONDS [FIRST SEED]`.

Every failing seed is kept in `corpus.txt` beside this file, which `make test` plays again.
"""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import cluster
import search
from chance import ByChance, Clock
from scenarios import Disturbed

CORPUS = Path(__file__).with_name("corpus.txt")
CHUNK = 25
YEAR_SECONDS = 365.25 * 86_400


def chunk(first: int, kind: str) -> tuple[list[tuple[int, str, str]], float]:
    """The failing seeds of a chunk with what they broke, and the virtual seconds of all."""
    failed, passed = [], 0.0
    for seed in range(first, first + CHUNK):
        run, error = search.play(seed, Disturbed(seed), ByChance(seed, Clock()), getattr(cluster, kind)())
        passed += run.trace[-1][0] if run.trace else 0.0
        if error is not None:
            failed.append((seed, kind, str(error)[:200]))
    search.sweep()
    return failed, passed


def known() -> list[tuple[int, str]]:
    """The seeds of the corpus, with the kind of hub.  Raises ValueError naming the line that is none."""
    found = []
    for number, line in enumerate(CORPUS.read_text().splitlines() if CORPUS.exists() else [], 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not words[0].isdecimal() or not hasattr(cluster, words[1]):
            raise ValueError(f"{CORPUS.name}, line {number}: {line!r} is not a seed and a kind of hub")
        found.append((int(words[0]), words[1]))
    return found


def main() -> int:
    """0 where no seed failed."""
    if not 2 <= len(sys.argv) <= 3 or not all(word.isdecimal() for word in sys.argv[1:]):
        print(__doc__)
        return 2
    seconds = float(sys.argv[1])
    first = int(sys.argv[2]) if len(sys.argv) == 3 else int(time.time()) * 1_000
    began, seeds, virtual, failing = time.monotonic(), 0, 0.0, 0
    print(f"from seed {first} on", flush=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        running = set()
        while time.monotonic() - began < seconds or running:
            while len(running) < 2 * (os.cpu_count() or 1) and time.monotonic() - began < seconds:
                kind = "SqliteHub" if first // CHUNK % 10 == 0 else "MemoryHubs"
                running.add(pool.submit(chunk, first, kind))
                first += CHUNK
            done = next(as_completed(running))
            running.discard(done)
            failed, passed = done.result()
            seeds, virtual = seeds + CHUNK, virtual + passed
            for seed, kind, why in failed:
                failing += 1
                print(f"seed {seed} on {kind}: {why}", flush=True)
                with CORPUS.open("a") as corpus:
                    corpus.write(f"{seed} {kind}\n")
    took = time.monotonic() - began
    print(f"{seeds} seeds, {seeds / took:.0f} a second, {virtual / YEAR_SECONDS:.3f} virtual years, {failing} failed")
    return 1 if failing else 0


if __name__ == "__main__":
    raise SystemExit(main())
