"""Each call of the disk fails once, in each way that it can, or the process dies at it: nothing is lost or doubled."""

import asyncio
import os
import shutil
import signal
from pathlib import Path
from random import Random

import pytest

from holdtrue.stores.sqlite import SqliteStore
from tests.conformance.acting import start

from .disk_checks import Fixed
from .disk_recorded import KILLED, LOST, SOME, Entry, Fault, images
from .disk_search import once, ways
from .disk_work import WORKS, State, Steady, Work, held_in

PARTS, PLAYED = 12, 6
"""Half of the calls; `make soak` has all of them fail."""
EVERY_DEATH = 23


@pytest.mark.parametrize("part", range(PLAYED))
@pytest.mark.parametrize("name", WORKS)
def test_each_call_fails_once(fixed: Fixed, part: int) -> None:
    for call in range(fixed.begins + part + 1, len(fixed.kinds) + 1, PARTS):
        for how in ways(fixed.kinds[call - 1], call):
            once(fixed, Fault(call, how))


@pytest.mark.parametrize("name", ["life"])
def test_a_process_dies_after_a_sync_that_failed_and_the_next_one_trusts_nothing(fixed: Fixed) -> None:
    """It can read what the disk has dropped; what it puts after that must not be lost with it at a power cut."""
    for call, kind in enumerate(fixed.kinds, 1):
        if kind != "sync":
            continue
        work = fixed.run(Fault(call, "error"))
        failed = next(n for n, entry in enumerate(fixed.disk.log, 1) if entry.what == "sync failed")
        log = fixed.disk.log[:failed]
        ((_, _, image),) = images(log, Random(1), (KILLED,), {failed})
        shutil.rmtree(work.path.parent)
        work.path.parent.mkdir()
        for name, content in image.items():
            (work.path.parent / name).write_bytes(content)
        fixed.disk.go_on(log)
        log, stands = asyncio.run(_one_more(work.path, fixed))
        for _, cut, left in images(log, Random(2), (LOST, SOME), {len(log)}):
            try:
                fixed.check(left, [stands])
            except Exception as wrong:
                raise AssertionError(f"died at call {call}, then {cut}: {wrong!r}") from wrong


async def _one_more(path: Path, fixed: Fixed) -> tuple[list[Entry], State]:
    """Another process puts something into the hub: the record so far, and what stands then."""
    store = SqliteStore(str(path), environment=Steady(10))
    await store.open()
    await store.create([start("one more")])
    log = list(fixed.disk.log)
    with fixed.disk.aside():
        stands = held_in(path)
        await store.close()
    return log, stands


@pytest.mark.parametrize("name", WORKS)
def test_the_process_is_killed_at_a_call(fixed: Fixed) -> None:
    """Really: what it leaves in memory that processes share is there for the next one."""
    for call in range(EVERY_DEATH, len(fixed.kinds), EVERY_DEATH):
        place = fixed.directory()
        said, saying = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(said)
                _until_killed(fixed, place, call, saying)
            finally:
                os._exit(1)
        os.close(saying)
        steps = 0
        while piece := os.read(said, 1_000):
            steps += len(piece)
        os.close(said)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with fixed.disk.aside():
            fixed.goes_on(place / "hub.db", fixed.stands[steps : steps + 2])


def _until_killed(fixed: Fixed, place: Path, call: int, saying: int) -> None:
    """The work, which says each step that is acknowledged, until that call of the disk."""
    asyncio.set_event_loop(None)
    asyncio.events._set_running_loop(None)
    fixed.disk.begin(place, Fault(call, "kill"))
    fixed.disk.said = lambda word: word == "done" and os.write(saying, b".")
    fixed.alike()
    asyncio.new_event_loop().run_until_complete(getattr(Work(place, fixed.disk), fixed.name)())
