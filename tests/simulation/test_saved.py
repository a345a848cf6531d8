"""Runs that are saved, replayed and printed: nothing runs on a guess, and a seed is one run, whatever hashes are."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import azure_search
import players
import pytest
import saved
import scenarios
import search
import soak
from broken import Broken
from chance import ByChance, Clock
from cluster import MemoryHubs
from scenarios import Disturbed

from holdtrue.testing.faults import Fault, Kind
from holdtrue.testing.storage_faults import CallFault, Mishap

HERE = Path(__file__).parent
LOST = '{"part": "h1", "point": 40, "mishap": "lost", "seconds": 1.0}'
FAULT = '{"part": "h1", "point": 3, "kind": "late", "seconds": 3.0}'


def _program(*arguments: str, hashes: str = "0") -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": str(HERE.parents[1] / "src")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, cwd=HERE, capture_output=True, text=True, timeout=300)


# -- saved runs --------------------------------------------------------------------------------------------


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    run = saved.Saved(
        version=saved.VERSION,
        seed=7,
        hub="SqliteHub",
        faults=[Fault(part="h1.2", point=9, kind=Kind.CLOCK_SET, seconds=-300.0)],
        broke="something",
    )
    saved.write(tmp_path / "run.json", run)
    assert saved.read(tmp_path / "run.json") == run


BAD = {
    "": ("1:1", "no JSON, or cut off"),
    "seven": ("1:1", "no JSON"),
    '{"version": 1,\n "fixed": "lives",\n "faults": [' + FAULT: ("3:71", "cut off"),
    "[]": ("1:1", "Expected `object`"),
    '{"fixed": "lives", "faults": []}': ("1:1", "missing required field `version`"),
    '{"faults": [], "version": 2, "novelty": []}': ("1:27", "of a newer version (2)"),
    '{"version": 0, "fixed": "lives", "faults": []}': ("1:13", "of a version that never was"),
    '{"version": "1", "fixed": "lives", "faults": []}': ("1:13", "Expected `int`, got `str`"),
    '{"version": 1, "fixed": "lives", "faults": [], "hosts": 9}': ("1:1", "unknown field `hosts`"),
    '{"version": 1, "faults": []}': ("1:1", "either a `seed` or a `fixed`"),
    '{"version": 1, "seed": 1, "fixed": "lives", "faults": []}': ("1:1", "either a `seed` or a `fixed`"),
    '{"version": 1, "seed": -1, "faults": []}': ("1:24", ">= 0"),
    '{"version": 1, "fixed": "dies", "faults": []}': ("1:25", "no fixed scenario 'dies'"),
    '{"version": 1, "seed": 1, "hub": "Postgres", "faults": []}': ("1:34", "no kind of hub 'Postgres'"),
    '{"version": 1, "seed": 1,\n "faults": [' + FAULT + ",\n " + FAULT.replace("late", "lame") + "]}": (
        "3:37",
        "Invalid enum value 'lame'",
    ),
    '{"version": 1, "seed": 1, "faults": [' + FAULT.replace("3,", "0,") + "]}": ("1:62", "counted from 1"),
    '{"version": 1, "seed": 1, "faults": [' + FAULT.replace("3.0", "-3.0") + "]}": ("1:92", "less than no time"),
    '{"version": 1, "seed": 1, "faults": [' + FAULT.replace("part", "host") + "]}": ("1:38", "unknown field `host`"),
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_saved_run_is_refused_with_its_place(text: str, tmp_path: Path) -> None:
    place, what = BAD[text]
    file = tmp_path / "run.json"
    file.write_text(text)
    with pytest.raises(saved.BadInput) as caught:
        saved.read(file)
    message = str(caught.value)
    assert message.startswith(f"{file}:{place}: ") and what in message, message


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("# one\n12 MemoryHubs\n13\n", "3:1", "'13' is not a seed and a kind of hub"),
        ("12 MemoryHubs 5", "1:1", "is not a seed"),
        ("12 MemoryHubs\n  1x SqliteHub\n", "2:3", "'1x' is no seed"),
        ("12  Nowhere # gone", "1:5", "no kind of hub 'Nowhere'"),
        ("-1 MemoryHubs", "1:1", "'-1' is no seed"),
        ("\u0663 MemoryHubs", "1:1", "is no seed"),
    ],
)
def test_a_line_of_the_corpus_that_is_none_is_refused_with_its_place(text: str, place: str, what: str) -> None:
    with pytest.raises(saved.BadInput) as caught:
        saved.seeds("corpus.txt", text)
    assert str(caught.value).startswith(f"corpus.txt:{place}: ") and what in str(caught.value)


def test_the_corpus_is_read_whole() -> None:
    lines = [line for line in soak.CORPUS.read_text().splitlines() if line and not line.startswith("#")]
    assert [f"{seed} {hub}" for seed, hub in soak.known()] == lines and lines


@pytest.mark.parametrize(
    "arguments",
    [
        ("again.py",),
        ("again.py", "-5"),
        ("again.py", "five"),
        ("again.py", "5", "Nowhere"),
        ("again.py", "5", "MemoryHubs", "more"),
        ("again.py", "--file", "there is none"),
        ("again.py", "--file", "conftest.py"),
        ("again.py", "--fixed", "lives"),
        ("again.py", "--fixed", "dies", "--fault", FAULT),
        ("again.py", "--fixed", "lives", "--fault", "{"),
        ("again.py", "--fixed", "dies", "--fault", LOST, "AzureStorage"),
        ("again.py", "--fixed", "chain", "--fault", '{"mishap": "lost"}', "AzureStorage"),
        ("again.py", "--fixed", "chain", "--fault", FAULT, "Slowly"),
        ("soak.py",),
        ("soak.py", "ten"),
        ("soak.py", "1", "-1"),
    ],
    ids=" ".join,
)
def test_arguments_that_say_nothing_run_nothing(arguments: tuple[str, ...]) -> None:
    done = _program(*arguments)
    assert done.returncode == 2 and done.stderr and not done.stdout and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("again.py", "6", "AzureStorage"),
        ("again.py", "--fixed", "chain", "--fault", LOST, "AzureStorage"),
        ("again.py", "--fixed", "chain", "--fault", FAULT.replace("late", "crash at step"), "AzureStorage"),
    ],
    ids=" ".join,
)
def test_what_breaks_nothing_is_played_again(arguments: tuple[str, ...]) -> None:
    done = _program(*arguments)
    assert (done.returncode, done.stdout) == (0, "nothing is broken\n"), done.stderr


# -- a failing run, as it is printed -----------------------------------------------------------------------


PLANTED = """
import sys
import again, cluster
from broken import Broken
cluster.Cluster.pause = lambda self, part, seconds: self.failed.append(Broken("planted: a process may not stand still"))
sys.exit(again.main())
"""


def test_a_failing_run_prints_all_that_is_needed_and_is_saved(tmp_path: Path) -> None:
    seed = next(seed for seed in range(500) if _stands_still(seed))
    file = tmp_path / "run.json"
    done = _program("-c", PLANTED, str(seed), "--save", str(file))
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"seed {seed} on MemoryHubs: planted: a process may not stand still", "faults:"]
    # One of the faults that were drawn, since the others can be spared.
    (fault,) = [line.strip() for line in lines[2:] if line.startswith('  {"part"')]
    run = saved.read(file)
    assert [fault] == [saved.fault_text(one) for one in run.faults] and run.faults[0].kind in STANDS_STILL
    columns = next(line for line in lines if line.lstrip().startswith("seconds")).split()
    assert columns[0] == "seconds" and "h1" in columns
    assert f"again: .venv/bin/python tests/simulation/again.py {seed} MemoryHubs" in lines
    assert lines[-1] == f"saved: .venv/bin/python tests/simulation/again.py --file {file}"
    again = _program("-c", PLANTED, "--file", str(file))
    assert again.returncode == 1 and run.broke in again.stdout
    assert _program("again.py", "--file", str(file)).returncode == 0


STANDS_STILL = (Kind.PAUSE_BEFORE, Kind.PAUSE_AFTER, Kind.PAUSE_AT_STEP)


def _stands_still(seed: int) -> bool:
    """Whether a process of the run does, among few faults."""
    faults = ByChance(seed, Clock())
    search.play(seed, Disturbed(seed), faults, MemoryHubs())
    return len(faults.drawn) <= 12 and any(fault.kind in STANDS_STILL for fault in faults.drawn)


def test_a_single_fault_that_breaks_a_scenario_is_printed_with_its_command() -> None:
    fault = Fault(part="h1", point=2, kind=Kind.SLOW, seconds=1.0)
    with (
        mock.patch.object(scenarios, "expected", lambda steps: ["another answer"]),
        pytest.raises(search.Failed) as caught,
    ):
        search.with_one("chain", fault)
    assert (
        "again: .venv/bin/python tests/simulation/again.py --fixed chain --fault "
        '\'{"part":"h1","point":2,"kind":"slow","seconds":1.0}\' MemoryHubs'
    ) in str(caught.value)


def test_a_list_of_faults_is_cut_down_to_those_that_matter() -> None:
    faults = [Fault(part="h1", point=point, kind=Kind.SLOW) for point in range(1, 40)]

    def wanted(some: list[Fault]) -> bool:
        return {3, 17, 30} <= {fault.point for fault in some}

    assert [fault.point for fault in search.shrink(faults, wanted)] == [3, 17, 30]


# -- one seed, one run -------------------------------------------------------------------------------------

TRACES = """
import sys
import saved, search
from broken import Broken
from chance import ByChance, Clock
from scenarios import Disturbed
for seed in range(16):
    for name, hub in saved.HUBS.items():
        if name == "SqliteHub" and seed % 8:
            continue
        faults = ByChance(seed, Clock())
        run, error = search.play(seed, Disturbed(seed), faults, hub())
        print(seed, name, error, run.trace, faults.drawn, run.world.runs)
        for instance, entry in run.ledger.entries.items():
            print(instance, entry.history, entry.projection)
"""


def test_a_seed_is_the_same_run_whatever_hashes_are() -> None:
    first, second = (_program("-c", TRACES, hashes=hashes) for hashes in ("1", "2"))
    assert first.returncode == 0, first.stderr
    assert len(first.stdout) > 50_000
    assert first.stdout == second.stdout


def test_a_single_fault_on_azure_storage_too() -> None:
    fault = CallFault(part="h1", point=40, mishap=Mishap.SLOW, seconds=1.0)
    azure_search.with_one("chain", fault)  # nothing is broken, nor without any fault
    with (
        mock.patch.object(scenarios, "expected", lambda steps: ["another answer"]),
        pytest.raises(search.Failed) as caught,
    ):
        azure_search.with_one("chain", fault)
    last = str(caught.value).splitlines()[-1]
    text = '{"part":"h1","point":40,"mishap":"slow","seconds":1.0}'
    assert last == f"again: .venv/bin/python tests/simulation/again.py --fixed chain --fault '{text}' AzureStorage"


def test_a_seed_on_azure_storage_too() -> None:
    failing = Broken("planted")
    with (
        mock.patch.object(azure_search, "by_chance", lambda *given: (SimpleNamespace(trace=[]), failing)),
        pytest.raises(search.Failed) as caught,
    ):
        azure_search.by_seed(6)
    assert str(caught.value).splitlines()[-1].endswith("again.py 6 AzureStorage")
    failing_all = dict.fromkeys(azure_search.BY_SEED, _fails)
    with mock.patch.dict(azure_search.BY_SEED, failing_all):
        done = soak.on_azure(0)
    assert len(done.lines) == done.seeds == soak.CHUNK
    assert {line.split()[1] for line in done.lines} == players.PLAYERS.keys() - saved.HUBS.keys()
    assert done.lines[3] == "3 AzureStorage\n"


def _fails(seed: int) -> None:
    raise search.Failed(f"seed {seed}")
