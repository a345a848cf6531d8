"""A hub in a file for tests of what is peculiar to SQLite, and a disk that can be made to fail."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest

from holdtrue.environment import Environment
from holdtrue.stores.protocol import TaskHubStore
from holdtrue.stores.sqlite import SqliteStore
from tests.conformance.acting import Hub


def _open(place: Path, environment: Environment, lease: float) -> TaskHubStore:
    return SqliteStore(str(place / "hub.db"), environment=environment, lease_seconds=lease)


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    """A new, empty task hub in `tmp_path / "hub.db"`."""
    return Hub(_open, tmp_path)


_EXTENDED = {
    "write": apsw.SQLITE_IOERR_WRITE,
    "sync": apsw.SQLITE_IOERR_FSYNC,
    "truncate": apsw.SQLITE_IOERR_TRUNCATE,
}


class Entry(NamedTuple):
    """A change of a file (`write`, `sync`, `truncate`; `at` is an offset or a size), or whatever a test notes."""

    what: str
    name: str = ""
    at: int = 0
    data: bytes = b""


class Disk(apsw.VFS):
    """The system's disk, with errors on demand: `failing` is raised by each write or sync of a file so named.

    `calls` counts what changes a file; `once` is called with the number and kind of each, and may raise.
    `log`, where it is set, takes them all.
    """

    def __init__(self) -> None:
        self.failing: type[Exception] | None = None
        self.at = "write"
        self.ending = "-wal"
        self.calls = 0
        self.once: Callable[[int, str], None] | None = None
        self.log: list[Entry] | None = None
        super().__init__("failing", "unix", makedefault=True)

    def xOpen(self, name, flags):  # type: ignore[no-untyped-def]
        return _File(self, name, flags)

    def check(self, what: str, name: str) -> None:
        if self.failing is not None and what == self.at and name.endswith(self.ending):
            error = self.failing(f"the test's disk fails to {what}")
            if isinstance(error, apsw.IOError):
                error.extendedresult = _EXTENDED[what]
            raise error
        self.calls += 1
        if self.once is not None:
            self.once(self.calls, what)

    def note(self, what: str, name: str, at: int = 0, data: bytes = b"") -> None:
        if self.log is not None:
            self.log.append(Entry(what, name, at, bytes(data)))


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name, flags) -> None:  # type: ignore[no-untyped-def]
        self.disk = disk
        self.name = name if isinstance(name, str) or name is None else name.filename()
        super().__init__("unix", name, flags)

    def xWrite(self, data, offset):  # type: ignore[no-untyped-def]
        self.disk.check("write", self.name or "")
        self.disk.note("write", self.name or "", offset, data)
        super().xWrite(data, offset)

    def xSync(self, flags):  # type: ignore[no-untyped-def]
        self.disk.check("sync", self.name or "")
        self.disk.note("sync", self.name or "")
        super().xSync(flags)

    def xTruncate(self, size):  # type: ignore[no-untyped-def]
        self.disk.check("truncate", self.name or "")
        self.disk.note("truncate", self.name or "", size)
        super().xTruncate(size)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """The disk under all hubs opened in the test."""
    # SQLite prints what a failing disk raised.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    made = Disk()
    yield made
    made.failing = made.once = None
    made.unregister()
