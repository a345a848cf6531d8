"""Plays one seed again: `python tests/simulation/again.py SEED [MemoryHubs|SqliteHub]`."""

import os
import sys

import cluster
import search


def main() -> int:
    """0 where nothing is broken; else the story, and 1."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    if not 2 <= len(sys.argv) <= 3 or not sys.argv[1].isdecimal():
        print(__doc__)
        return 2
    kind = getattr(cluster, sys.argv[2] if len(sys.argv) == 3 else "MemoryHubs", None)
    if kind is None:
        print(f"{sys.argv[2]!r} is no kind of hub")
        return 2
    try:
        search.by_seed(int(sys.argv[1]), kind)
    except search.Failed as failed:
        print(failed)
        return 1
    print(f"seed {sys.argv[1]}: nothing is broken")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
