"""Hand-written defects, a line or two each, and whether the simulation finds them: `make mutants`.

Each is put into a copy of the sources and searched for with the seeds and the single faults of `make test`.  One
that is not found is a hole: in the work, in the faults, or in what is checked.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SEEDS = {"MemoryHubs": 2_000, "SqliteHub": 96}


class Mutant(NamedTuple):
    """A defect: what it does, where, and the text it changes; `hub` is the kind it can be seen on."""

    what: str
    file: str
    old: str
    new: str
    hub: str = "MemoryHubs"


MUTANTS = [
    Mutant(
        "a commit is taken without its lock",
        "stores/memory/locking.py",
        "lease.token and instance.lock == lease.token else None",
        "lease.token else None",
    ),
    Mutant(
        "a commit is taken without its lock, and at whatever length the history has",
        "stores/sqlite/statements.sql",
        "where key = ?4 and lock = ?5 and length = ?6\n",
        "where key = ?4 and ?5 = ?5 and ?6 = ?6\n",
        "SqliteHub",
    ),
    Mutant(
        "after a commit that failed the live session goes on",
        "engine/dispatcher.py",
        """            for session in sessions:
                self._free(session)
            await self._discard(sessions)
            return
        except Exception""",
        """            for session in sessions:
                self._free(session)
                session.taken = []
            return
        except Exception""",
    ),
    Mutant(
        "results that the hub did not take are forgotten",
        "engine/handing_in.py",
        "            self._results = results + self._results\n            raise",
        "            raise",
    ),
    Mutant(
        "one result of a batch is forgotten",
        "engine/handing_in.py",
        "outcomes = await self._store.complete(results)",
        "outcomes = await self._store.complete(results[:1])",
    ),
    Mutant(
        "the work of a dead host is not given to others: its activities",
        "stores/memory/locking.py",
        """            if activity.lock >> LOCK_BITS == number:
                activity.lock = 0
                hub.enqueue(activity, again=True)""",
        """            if activity.lock >> LOCK_BITS == number:
                pass""",
    ),
    Mutant(
        "the work of a dead host is not given to others: its instances",
        "stores/memory/locking.py",
        """        if instance.lock >> LOCK_BITS == number:
            hub.release(instance)""",
        """        if instance.lock >> LOCK_BITS == number and not number:
            hub.release(instance)""",
    ),
    Mutant(
        "a host that was taken for dead does not join again",
        "host.py",
        "        if self._rejoining is None and not self._closing:",
        "        if self._rejoining is None and self._closing:",
    ),
    Mutant(
        "a history is given to who has lost the lock",
        "stores/memory/store.py",
        "return None if instance is None or instance.lock != lease.token else list(instance.history)",
        "return [] if instance is None else list(instance.history)",
    ),
    Mutant(
        "two results of one task in one batch are both taken",
        "core/episode.py",
        "elif task is None or task_id in answered:",
        "elif task is None:",
    ),
    Mutant(
        "messages used up by an episode stay",
        "stores/memory/commits.py",
        "        instance.inbox.pop(key, None)\n    if instance.ending",
        "        pass\n    if instance.ending",
    ),
    Mutant(
        "a start that was made is made again",
        "stores/memory/starts.py",
        "start_id == ",
        "start_id != ",
    ),
    Mutant(
        "the status stays as it was when an execution ends",
        "stores/memory/commits.py",
        "    instance.projection = commit.projection.copy()\n    instance.tried = ()",
        "    instance.projection.last_updated_at = commit.projection.last_updated_at\n    instance.tried = ()",
    ),
    Mutant(
        "a commit whose answer is lost counts as done",
        "engine/dispatcher.py",
        """            for session in sessions:
                self._free(session)
            await self._discard(sessions)
            return
        except Exception""",
        """            for session in sessions:
                self._free(session)
                self._drop(session)
            return
        except Exception""",
    ),
    Mutant(
        "what an execution that continued as new was not fed is lost",
        "core/episode.py",
        "return self._continue(completion, [*decision.unfed, *unfed])",
        "return self._continue(completion, [*decision.unfed])",
    ),
    Mutant(
        "a rewound instance does not ask its children again, and the rewind does not wake it",
        "core/rewind.py",
        "commit.status_changed = commit.custom_status_changed = True\n    return commit",
        "commit.status_changed = commit.custom_status_changed = True\n    commit.messages = []\n    return commit",
    ),
    Mutant(
        "the answer of a child is forgotten",
        "stores/memory/commits.py",
        "        _send(moment, instance, committing, outcome, ended)",
        "        _send(moment, instance, committing, outcome, ended) if not ended else None",
    ),
    Mutant(
        "two hosts fire one tick",
        "stores/memory/schedules.py",
        "if standing is None or standing.etag != commit.etag:",
        "if standing is None:",
    ),
]


SEARCH = """
import sys
sys.path.insert(0, {tests!r})
import cluster, search
from scenarios import fixed
kind = getattr(cluster, {kind!r})
try:
    for name in fixed():
        for fault in search.points(name):
            if kind is cluster.MemoryHubs or fault.kind in search.AMBIGUOUS:
                search.with_one(name, fault, kind)
    for seed in range({seeds}):
        error = search.play(seed, search.Disturbed(seed), search.ByChance(seed, search.Clock()), kind())[1]
        if error is not None:
            print(f"seed {{seed}}: {{error}}")
            sys.exit(9)
except BaseException as error:
    if isinstance(error, SystemExit):
        raise
    print(type(error).__name__, error)
    sys.exit(9)
"""
FOUND = 9


def found(mutant: Mutant) -> str | None:
    """How the search finds it; None where it does not.  Raises ValueError where its text does not stand there once."""
    with tempfile.TemporaryDirectory(prefix="holdtrue-mutant-") as folder:
        copied = Path(folder) / "src"
        shutil.copytree(ROOT / "src", copied, ignore=shutil.ignore_patterns("__pycache__"))
        file = copied / "holdtrue" / mutant.file
        text = file.read_text()
        if text.count(mutant.old) < 1:
            raise ValueError(f"{mutant.what}: its text does not stand in {mutant.file} any more")
        file.write_text(text.replace(mutant.old, mutant.new))
        program = SEARCH.format(tests=str(Path(__file__).parent), kind=mutant.hub, seeds=SEEDS[mutant.hub])
        try:
            done = subprocess.run(
                [sys.executable, "-c", program],
                env={**os.environ, "PYTHONPATH": str(copied), "PYTHONHASHSEED": "0"},
                capture_output=True,
                text=True,
                timeout=300,
            )
        except subprocess.TimeoutExpired:
            return "it does not end"
    if done.returncode == 0:
        return None
    if done.returncode != FOUND:
        raise RuntimeError(f"{mutant.what}: {done.stderr[-2000:]}")
    return done.stdout.strip().splitlines()[0][:160]


def main() -> int:
    """0 where every defect is found."""
    missed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        searches = {pool.submit(found, mutant): mutant for mutant in MUTANTS}
        for search in as_completed(searches):
            how = search.result()
            what = searches[search].what
            print(f"{'MISSED' if how is None else 'found '}  {what}" + (f": {how}" if how else ""), flush=True)
            missed += how is None
    print(f"{len(MUTANTS) - missed} of {len(MUTANTS)} defects are found")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
