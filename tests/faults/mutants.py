"""Defects that each break a rule of the commit protocol, and whether what runs on the emulator finds them.

`python -m tests.faults.mutants [RULE...]`.  The simulation has more of them (`make mutants`); here real hosts work on
Azurite, for each rule with the part of the suites that is about it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "simulation"))

from azure_mutants import AZURE, RULES, Rule  # noqa: E402

from tools.install_azurite import FOLDER, install  # noqa: E402

LIMIT_SECONDS = 900
"""A part of the suites that takes longer without a defect shows nothing about one."""
NEVER = 3.0
"""With a defect, one that takes so many times as long as without it never ends."""
AT_LEAST_SECONDS = 420
"""Before that is said: a case of the matrix gives up, and tells why, after 180 s, in each of its two halves."""
COPIED = ("src", "tests", "tools", "bench", "examples", "pyproject.toml", "README.md")


def matrix(only: str, cases: int = 24) -> list[str]:
    """Cases of the fault matrix whose names hold a text."""
    return ["-m", "tests.faults.matrix", "--cases", str(cases), "--only", only]


def suite(*words: str) -> list[str]:
    """A part of the tests."""
    return ["-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *words]


def conformance(module: str) -> list[str]:
    """A module of the conformance suite, on the emulator."""
    return suite("--whole", "-k", "azurite", f"tests/conformance/{module}")


class Shown(msgspec.Struct, frozen=True):
    """A defect by its words, and what finds it."""

    what: str
    by: list[str]


SHOWN = {
    "1": Shown("what drove an episode is deleted before its commit", matrix("killed before at table transact history")),
    "2": Shown("a debt that was loaded is not sent", matrix("killed after at table transact history")),
    "3": Shown("the second message of a batch is lost", conformance("test_messages.py")),
    "4": Shown("a lost answer is taken for a success", matrix("in place of it at table transact history")),
    "7": Shown("the row alone tells a status", matrix("at table merge instances", 40)),
    "8": Shown("an instance that .NET has rewound is taken for ended", suite("tests/dotnet/test_clients.py")),
    "10": Shown("a start takes whatever place there is", conformance("test_create.py")),
    "11": Shown("a message to nobody is no dead letter", conformance("test_dead_letters.py")),
    "12": Shown("a purge leaves the history", conformance("test_purge.py")),
    "13": Shown("a message that comes early is given at once", conformance("test_timers.py")),
    "15": Shown("our columns stay", suite("tests/azurite/test_cli.py", "-k", "settled")),
    "16": Shown(
        "what runs without a message is named no longer when the debts are cleared",
        matrix("fan-out, 2 hosts: killed after at table transact history", 40),
    ),
}
"""By rule.  Rules 5, 6, 9 and 14 take a commit of many parts that is cut, limits that the emulator does not have, a
write that comes after its instance was purged, and a host that stands still: they are for the simulation."""


class Played(msgspec.Struct, frozen=True):
    """What a part of the suites found (None: nothing), and how long it took."""

    found: str | None
    seconds: float


def run(by: Sequence[str], rule: Rule | None, limit: float) -> Played:
    """Play a part of the suites in a copy of the project with a defect (or without), for `limit` seconds at most."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdtrue-mutant-") as folder:
        copy = Path(folder)
        for name in COPIED:
            place = ROOT / name
            if place.is_dir():
                shutil.copytree(place, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(place, copy / name)
        (copy / "build").symlink_to(FOLDER.parent)  # the emulator
        if rule is not None:
            file = copy / "src" / "holdtrue" / AZURE / rule.file
            text = file.read_text()
            if rule.old not in text:
                raise ValueError(f"{rule.what}: its text does not stand in {rule.file} any more")
            file.write_text(text.replace(rule.old, rule.new))
        shared = os.environ.get("HOLDTRUE_SHARED") or str(ROOT.parent / "shared")
        environment = {**os.environ, "PYTHONPATH": f"{copy / 'src'}:{copy}", "HOLDTRUE_SHARED": shared}
        try:
            done = subprocess.run(
                [sys.executable, *by], cwd=copy, env=environment, capture_output=True, text=True, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return Played(f"has not ended in {limit:.0f} s", limit)
    seconds = time.monotonic() - began
    if done.returncode == 0:
        return Played(None, seconds)
    told = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("E  ", "WRONG", "Assertion"))]
    return Played((told or [done.stdout[-300:] + done.stderr[-300:]])[0].strip()[:200], seconds)


def main() -> int:
    """0 where each is found, and nothing without them."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutants", description=__doc__)
    parser.add_argument("rules", nargs="*", metavar="RULE", help="of which rules (all)")
    chosen = parser.parse_args().rules or list(SHOWN)
    install()
    by_what = {rule.what: rule for rule in RULES}
    wrong = 0
    parts = list(dict.fromkeys(tuple(SHOWN[number].by) for number in chosen))
    limits: dict[tuple[str, ...], float] = {}
    with ThreadPoolExecutor(2) as pool:
        for by, played in zip(parts, pool.map(lambda by: run(by, None, LIMIT_SECONDS), parts), strict=True):
            limits[by] = max(NEVER * played.seconds, AT_LEAST_SECONDS)
            if played.found is not None:
                wrong += 1
                print(f"FOUND    nothing is changed: {' '.join(by)}: {played.found}", flush=True)

        def spoiled(number: str) -> str | None:
            shown = SHOWN[number]
            return run(shown.by, by_what[shown.what], limits[tuple(shown.by)]).found

        for number, found in zip(chosen, pool.map(spoiled, chosen), strict=True):
            wrong += found is None
            print(
                f"{'MISSED' if found is None else 'found ':8} rule {number}: {SHOWN[number].what}: {found or ''}",
                flush=True,
            )
    print(f"{len(chosen)} defects, {wrong} results that should not be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
