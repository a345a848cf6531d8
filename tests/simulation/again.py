"""Plays a run again: that of a seed, a fixed scenario with one fault, or what was saved of a run.

    python tests/simulation/again.py SEED [MemoryHubs|SqliteHub|AzureStorage|BesideDotNet|Slowly|ReadLate] [--save FILE]
    python tests/simulation/again.py --fixed SCENARIO --fault JSON [MemoryHubs|SqliteHub|AzureStorage]
    python tests/simulation/again.py --file FILE

`--save` writes the seed and the shortest list of faults that breaks it into a small file, for `--file`; not of a run on
Azure Storage, which its seed alone names.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import players
import saved
import search


def main() -> int:
    """0 where nothing is broken; 1, with the story, where something is; 2 for what cannot be played."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="SEED HUB")
    parser.add_argument("--fixed", metavar="SCENARIO")
    parser.add_argument("--fault", metavar="JSON")
    parser.add_argument("--file", type=Path)
    parser.add_argument("--save", type=Path, metavar="FILE")
    given = parser.parse_args()
    try:
        play = _asked(given)
    except (saved.BadInput, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if play is None:
        parser.error("give a seed and perhaps a kind of hub, or --fixed with --fault, or --file alone")
    try:
        play()
    except search.Failed as failed:
        print(failed)
        if given.save is not None and failed.saved is not None:
            saved.write(given.save, failed.saved)
            print(f"saved: .venv/bin/python tests/simulation/again.py --file {given.save}")
        return 1
    print("nothing is broken")
    return 0


def _asked(given: argparse.Namespace) -> Callable[[], None] | None:
    """What is to be played; None for arguments that do not fit together.  Raises BadInput, OSError."""
    words = list(given.words)
    if given.file is not None:
        run = saved.read(given.file)
        return None if words or given.fixed or given.fault else lambda: search.saved_run(run)
    if given.fixed is not None:
        if len(words) > 1 or given.fault is None:
            return None
        if words == ["AzureStorage"]:
            return players.on_azure(given.fixed, given.fault)
        hub = saved.hub_of("HUB", words[0]) if words else "MemoryHubs"
        single = saved.with_fault("--fixed", given.fixed, given.fault, hub)
        return lambda: search.saved_run(single)
    if not 1 <= len(words) <= 2 or given.fault is not None:
        return None
    seed = saved.seed_of("SEED", words[0])
    play = players.PLAYERS[saved.kind_of("HUB", words[1]) if len(words) == 2 else "MemoryHubs"]
    return lambda: _played(play, seed)


def _played(play: Callable[[int], object], seed: int) -> None:
    play(seed)


if __name__ == "__main__":
    raise SystemExit(main())
