"""Every call of the disk and every way in which it fails, and every moment at which the power is cut.

`python -m tests.unit.sqlite_store.disk_search` goes through all of it with new seeds; the tests do so with fixed
ones, in parts, and take the ways in which a write is done in part in turn.
"""

import random
import shutil
import sys
import tempfile
from pathlib import Path
from random import Random

import pytest

from holdtrue.stores import errors

from .disk_checks import Fixed
from .disk_recorded import FAULTS, KILLED, LOST, SOME, TORN_512, Entry, Fault, RecordedDisk, images
from .disk_work import WORKS

ROUNDS = 5
"""So often are all moments gone through, each time with other writes that reached the disk."""


def ways(kind: str, call: int, *, thorough: bool = False) -> tuple[str, ...]:
    """How a call may fail; of the ways in which a write is done in part, one each time, in turn."""
    found = FAULTS.get(kind, ("error",))
    if kind != "write" or thorough:
        return found
    return ("error", "full", ("short", "done")[call % 2])


def once(fixed: Fixed, fault: Fault) -> None:
    """The work with this fault, then with a crash where it was told, where it was mended, and at the end."""
    kind = fixed.kinds[fault.call - 1]
    try:
        work = fixed.run(fault)
        for found in work.failures:
            assert isinstance(found, errors.StoreUnavailable), found
        with fixed.disk.aside():
            fixed.settled(work.path)
        crash(fixed, fault, kind, fixed.disk.log)
    except Exception as wrong:
        raise AssertionError(f"{fixed.name}, call {fault.call} ({kind}), {fault.how}: {wrong!r}") from wrong
    shutil.rmtree(work.path.parent)


def crash(fixed: Fixed, fault: Fault, kind: str, log: list[Entry]) -> None:
    """After what could be lost, or come back, for ever: what was said holds."""
    told = [n for n, entry in enumerate(log, 1) if entry.name == "refused"]
    if kind == "sync":
        # What it should have written may be lost for ever, whatever a later sync says.
        failed = next(n for n, entry in enumerate(log) if entry.what == "sync failed")
        mended = [n for n, entry in enumerate(log, 1) if n > failed and entry.name == "done"]
        cuts, moments = (LOST, SOME, TORN_512, KILLED), {*told, *mended, len(log)}
    elif fault.how in ("done", "short"):
        # It was told that it was not done.
        cuts, moments = (SOME, KILLED), set(told)
    else:
        return
    for at, cut, image in images(log, Random(fault.call), cuts, moments):
        try:
            fixed.check(image, fixed.allowed(log, at, cut))
        except Exception as wrong:
            raise AssertionError(f"after entry {at} ({log[at - 1][:4]}), {cut}: {wrong!r}") from wrong


def cut_each(fixed: Fixed, random: Random, moments: range) -> int:
    """The work without a fault, and the power cut at these moments of it; how many different things that left."""
    seen = set()
    for at, cut, image in images(fixed.log, random, moments=moments):
        allowed = fixed.allowed(fixed.log, at, cut)
        what = hash((tuple(image.items()), tuple(map(id, allowed))))
        if what in seen:
            continue
        seen.add(what)
        try:
            fixed.check(image, allowed, [entry.name for entry in fixed.log[:at]])
        except Exception as wrong:
            raise AssertionError(
                f"{fixed.name}, after entry {at} ({fixed.log[at - 1][:4]}), {cut}: {wrong!r}"
            ) from wrong
    return len(seen)


def main() -> int:
    """The command: 0 where all is as it must be."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.SystemRandom().randrange(10**6)
    print(f"the disk: seed {seed}; again: python -m tests.unit.sqlite_store.disk_search {seed}", flush=True)
    sys.unraisablehook = lambda _: None
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patching:
        disk = RecordedDisk(Path(folder))
        for name in WORKS:
            fixed = Fixed(name, disk, Path(folder), patching)
            faults = [
                Fault(call, how)
                for call, kind in enumerate(fixed.kinds, 1)
                if call > fixed.begins
                for how in ways(kind, call, thorough=True)
            ]
            for fault in faults:
                once(fixed, fault)
            left = sum(cut_each(fixed, Random(seed + at), range(1, len(fixed.log) + 1)) for at in range(ROUNDS))
            print(f"{name}: {len(faults)} calls that failed, {left} things that power cuts left", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
