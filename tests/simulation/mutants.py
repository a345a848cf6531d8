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

from azure_mutants import AZURE, RULES

ROOT = Path(__file__).resolve().parents[2]
SEEDS = {"MemoryHubs": range(2_000), "SqliteHub": range(200, 296)}
"""Those of `make test`."""


class Mutant(NamedTuple):
    """A defect: what it does, where, and the text it changes; `hub` is the kind it can be seen on, `first` the search
    that likely finds it."""

    what: str
    file: str
    old: str
    new: str
    hub: str = "MemoryHubs"
    first: str = ""


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
        "the row is updated although the commit is fenced off",
        "stores/memory/commits.py",
        """    if instance is None:
        return CommitOutcome(result=CommitResult.LEASE_LOST)""",
        """    if instance is None:
        for other in moment.hub.instances.values():
            if other.key == committing.lease.key:
                other.projection = commit.projection.copy()
        return CommitOutcome(result=CommitResult.LEASE_LOST)""",
    ),
    Mutant(
        "a history that is replaced is not looked at before: a copy of the request does it again",
        "stores/memory/commits.py",
        "        return old != (instance.projection.execution_id, len(instance.history))",
        "        return False",
    ),
    Mutant(
        "a host goes on with what it remembers of an instance that others have gone on with",
        "engine/sessions.py",
        "        return self.run is None and self.record.length > 0",
        "        return self.run is None and self.record.length > 6",
    ),
    Mutant(
        "locks of what rests are not given back",
        "engine/dispatcher.py",
        "            await self._put_back([session.lease for session in sessions])",
        "            pass",
    ),
    Mutant(
        "what is delayed (a retry, a timer) is dropped when its host dies",
        "stores/memory/locking.py",
        """        if instance.lock >> LOCK_BITS == number:
            hub.release(instance)""",
        """        if instance.lock >> LOCK_BITS == number:
            instance.delayed.clear()
            hub.release(instance)""",
    ),
    Mutant(
        "only the first of a step's messages is sent",
        "stores/memory/inbox.py",
        "    for message in messages:\n        outcome = post(moment, message)",
        "    for message in messages[:1]:\n        outcome = post(moment, message)",
    ),
    Mutant(
        "a message to nobody is dropped",
        "stores/memory/inbox.py",
        "            bury(moment, letter)",
        "            pass",
    ),
    Mutant(
        "leases are measured on the wall clock",
        "stores/memory/store.py",
        "self._leases.over(leases, self._environment.monotonic())",
        "self._leases.over(leases, self._environment.now() / 10_000_000)",
    ),
    Mutant(
        "a host that stands still keeps its lease",
        "stores/leases.py",
        "            if moment - seen[1] > lease.seconds:",
        "            if moment - seen[1] > 10 * lease.seconds:",
    ),
    Mutant(
        "a notice that is lost is missed for ever",
        "host.py",
        "if self.environment.monotonic() - last_look >= SAFETY_LOOK_SECONDS:",
        "if self.environment.monotonic() - last_look >= 1e9:",
    ),
    Mutant(
        "timers fire a little early",
        "stores/memory/inbox.py",
        "is not None and following[0] <= now:",
        "is not None and following[0] <= now + 20_000_000:",
    ),
    Mutant(
        "an orchestration is told of a timer before its own time has come there",
        "core/episode.py",
        "self._now = max((self._now, *(event.fire_at for event in fresh if type(event) is ev.TimerFired)))",
        "pass",
    ),
    Mutant(
        "what a host holds in memory is counted wrongly",
        "engine/sessions.py",
        """        if self._by_key.get(session.lease.key) is session:
            self.bytes += size - session.size""",
        """        if session.lease.key:
            self.bytes += size - session.size""",
    ),
    Mutant(
        "a held instance is offered to who has tried it, again and again",
        "stores/memory/locking.py",
        "        if not set(serving).difference(instance.tried):\n            return",
        "        instance.tried = ()",
    ),
    Mutant(
        "a number that is given up keeps what stands under it",
        "stores/memory/store.py",
        "        locking.remove(moment, self._forsaken)\n",
        "",
    ),
    Mutant(
        "a work item is left when its instance has ended",
        "stores/memory/commits.py",
        "    for ordinal in commit.cancelled:\n        activity =",
        "    for ordinal in commit.cancelled[1:]:\n        activity =",
    ),
    Mutant(
        "two hosts fire one tick",
        "stores/memory/schedules.py",
        "if standing is None or standing.etag != commit.etag:",
        "if standing is None:",
    ),
    Mutant(
        "a message is acknowledged before it is in the hub",
        "stores/memory/store.py",
        """        outcomes = [inbox.post(moment, message) for message in messages]
        self._done(moment)
""",
        """        from holdtrue.stores.protocol import SendResult
        later = lambda: [inbox.post(self._moment(), message) for message in messages]
        __import__("asyncio").get_running_loop().call_later(0.5, later)
        outcomes = [SendOutcome(result=SendResult.ACCEPTED) for _ in messages]
""",
    ),
    Mutant(
        "a message is acknowledged before its commit",
        "stores/sqlite/store.py",
        "        outcomes: list[SendOutcome] = await self._write(_SEND, list(messages)) if messages else []",
        """        from holdtrue.stores.protocol import SendResult
        __import__("asyncio").get_running_loop().call_later(0.5, self._write, _SEND, list(messages))
        outcomes = [SendOutcome(result=SendResult.ACCEPTED) for _ in messages]""",
        "SqliteHub",
    ),
]


MUTANTS += [
    Mutant(f"rule {rule.number}: {rule.what}", AZURE + rule.file, rule.old, rule.new, "AzureStorage", rule.first)
    for rule in RULES
]

SEARCH = """
import sys
sys.path.insert(0, {tests!r})
import cluster, search
from scenarios import fixed
kind = getattr(cluster, {kind!r})

def seeds(some):
    for seed in some:
        error = search.play(seed, search.Disturbed(seed), search.ByChance(seed, search.Clock()), kind())[1]
        if error is not None:
            print(f"seed {{seed}}: {{error}}")
            sys.exit(9)

try:
    every = {{name: search.in_time(name) for name in fixed()}}
    tenth = len({seeds!r}) // 10
    seeds({seeds!r}[:tenth])
    for name in every:
        for fault in every[name]:
            if kind is cluster.MemoryHubs or fault.kind in search.AMBIGUOUS and name not in search.LONGER:
                search.with_one(name, fault, kind)
    seeds({seeds!r}[tenth:])
except BaseException as error:
    if isinstance(error, SystemExit):
        raise
    print(type(error).__name__, error)
    sys.exit(9)
"""
ON_AZURE_STORAGE = """
import sys
sys.path.insert(0, {tests!r})
import azure_search as search
from test_azure import SEEDS

def seeds(first, last):
    for seed in range(first, last):
        error = search.by_chance(seed, search.ByChance(seed), search.steps_of(seed))[1]
        if error is not None:
            print(f"seed {{seed}}: {{error}}")
            sys.exit(9)

def single(name):
    for fault in search.singles(name):
        search.with_one(name, fault)

def slowly():
    for seed in range(search.SLOW_RUNS):
        search.slow_run(seed)

def late():
    for seed in range(search.LATE_READS):
        search.read_late(seed)

def at_steps():
    for fault in search.at_each_step("alone"):
        if fault.kind is search.Kind.PAUSE_AT_STEP:
            search.with_step("alone", fault)

def beside_dotnet():
    for seed in range(search.BESIDE_DOTNET):
        search.beside_dotnet(seed)

def settled():
    import test_settling as settling
    for at in settling.HOSTS_DIED_AT:
        for mishap in (search.Mishap.CRASH_BEFORE, search.Mishap.CRASH_AFTER):
            settling.test_who_knows_only_what_dotnet_knows_goes_on(at, mishap)

def half_of_the_seeds():
    seeds(0, SEEDS // 2)

every = {{
    "seeds": half_of_the_seeds,
    "slowly": slowly,
    "read late": late,
    "at steps": at_steps,
    "beside .NET": beside_dotnet,
    "settled": settled,
    **{{name: lambda name=name: single(name) for name in search.SEARCHES}},
    "more seeds": lambda: seeds(SEEDS // 2, SEEDS),
}}
try:
    for name in sorted(every, key=lambda name: name != {first!r}):
        every[name]()
except BaseException as error:
    if isinstance(error, SystemExit):
        raise
    print(type(error).__name__, error)
    sys.exit(9)
"""
FOUND = 9
LIMIT_SECONDS = 900.0
"""A search that takes longer has found nothing."""


AS_IT_IS = {
    hub: Mutant(f"nothing is changed ({hub})", "__init__.py", "\n", "\n", hub) for hub in (*SEEDS, "AzureStorage")
}
"""What must not be found: else every defect would be."""


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
        tests = str(Path(__file__).parent)
        if mutant.hub == "AzureStorage":
            program = ON_AZURE_STORAGE.format(tests=tests, first=mutant.first)
        else:
            program = SEARCH.format(tests=tests, kind=mutant.hub, seeds=SEEDS[mutant.hub])
        try:
            done = subprocess.run(
                [sys.executable, "-c", program],
                env={**os.environ, "PYTHONPATH": str(copied), "PYTHONHASHSEED": "0"},
                capture_output=True,
                text=True,
                timeout=LIMIT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return None
    if done.returncode == 0:
        return None
    if done.returncode != FOUND:
        raise RuntimeError(f"{mutant.what}: {done.stderr[-2000:]}")
    return done.stdout.strip().splitlines()[0][:160]


def main() -> int:
    """0 where every defect is found, and nothing in the sources as they are; words given choose among the defects."""
    chosen = [one for one in MUTANTS if not sys.argv[1:] or any(word in one.what for word in sys.argv[1:])]
    whole = [AS_IT_IS[hub] for hub in sorted({one.hub for one in chosen})]
    wrong = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # What finds nothing takes longest.
        searches = {pool.submit(found, mutant): mutant for mutant in (*whole, *chosen)}
        for search in as_completed(searches):
            how, mutant = search.result(), searches[search]
            good = (how is None) == (mutant in whole)
            word = "as it is" if mutant in whole else "found   " if how else "MISSED  "
            print(f"{word}  {mutant.what}" + (f": {how}" if how else ""), flush=True)
            wrong += not good
    print(f"{len(chosen)} defects, {wrong} results that should not be")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
