"""What must be so after a piece of work on a disk that failed, or whose power was cut."""

import asyncio
import itertools
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import pytest

from holdtrue.stores.sqlite import SqliteStore

from .disk_recorded import KILLED, Entry, Fault, RecordedDisk
from .disk_work import State, Steady, Work, alike, check_file, held_in, run_on


class Fixed:
    """A piece of work that went well once: its record, and what stood after each step of it."""

    def __init__(self, name: str, disk: RecordedDisk, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = name
        self.disk = disk
        self._place = place
        self._monkeypatch = monkeypatch
        self._numbers = itertools.count(1)
        self._ran_on: set[State] = set()
        work = self.run(looks=True)
        self.log, self.kinds = disk.log, disk.kinds
        self.stands, self._lasting = work.stands, work.lasting
        # Looking is no part of it.
        self.again()

    def directory(self) -> Path:
        """A new, empty one."""
        place = self._place / f"{self.name}-{next(self._numbers)}"
        place.mkdir()
        return place

    def run(self, fault: Fault | None = None, *, looks: bool = False) -> Work:
        """The work, to its end, with one call of the disk that fails."""
        place = self.directory()
        self.disk.begin(place, fault)
        self.alike()
        work = Work(place, self.disk, looks=looks)
        asyncio.run(getattr(work, self.name)())
        return work

    def alike(self) -> None:
        """Let the next run be like the others."""
        alike(self._monkeypatch, self.disk)

    def again(self) -> None:
        """It makes the same calls in each run, whoever looks."""
        self.begins = self.run().begins
        self.log, self.kinds = self.disk.log, self.disk.kinds

    def allowed(self, log: list[Entry], at: int, cut: str) -> list[State]:
        """What may stand when the first `at` entries of a record are over, and then this happens.

        All that was acknowledged as lasting, and, but for a power cut, as done; and what was asked next, unless
        the last word on it was that it was not done, for good.
        """
        steps = sum(entry.name == "done" for entry in log[:at])
        first = steps
        while cut != KILLED and not self._lasting[first]:
            first -= 1
        refused = log[at - 1].name == "refused" and self._lasting[steps + 1]
        return self.stands[first : steps + (1 if refused else 2)]

    def check(self, image: dict[str, bytes], allowed: list[State], words: Container[str] = ()) -> None:
        """Files that were left are a hub again: it holds one of these, and all that is in it goes on to its end.

        `words` are what was said before.
        """
        place = self.directory()
        for name, content in image.items():
            (place / name).write_bytes(content)
        path = place / "hub.db"
        with self.disk.aside():
            self.goes_on(path, allowed)
            for name, made in (("copy.db", "copied"), ("new.db", "restored")):
                assert name in image or made not in words, f"{name} was {made}, and is gone"
                if name in image:
                    check_file(place / name)
                    assert held_in(place / name) == self.stands[-1]
        for left in sorted(place.rglob("*"), reverse=True):
            left.unlink() if left.is_file() else left.rmdir()

    def goes_on(self, path: Path, allowed: list[State]) -> None:
        """A process that opens the hub at `path` finds one of these, and brings it to its end."""
        asyncio.run(_reopened(path))
        check_file(path)
        found = held_in(path)
        assert found in allowed, difference(found, allowed)
        if found not in self._ran_on:
            self._ran_on.add(found)
            asyncio.run(run_on(path, Steady(8)))

    def settled(self, path: Path) -> None:
        """The work is over: its hub holds what it holds without a fault, and so do its copies."""
        check_file(path)
        assert held_in(path) == self.stands[-1], difference(held_in(path), self.stands[-1:])
        for name in ("copy.db", "new.db"):
            if self.name == "copies":
                assert held_in(path.with_name(name)) == self.stands[-1]
        assert not [left.name for left in path.parent.iterdir() if "unfinished" in left.name]


async def _reopened(path: Path) -> None:
    store = SqliteStore(str(path), environment=Steady(9))
    await store.open()
    await store.close()


def difference(found: State, allowed: Iterable[State]) -> str:
    """For people: what is there too much, and what is missing, measured by each allowed state."""

    def few(rows: set[Any]) -> str:
        return "; ".join(sorted(str(row)[:60] for row in rows)[:5]) or "nothing"

    return "; or\n".join(
        f"too much: {few(set(found) - set(state))}, missing: {few(set(state) - set(found))}" for state in allowed
    )
