"""A hub in a file for tests of what is peculiar to SQLite, and a disk that can be made to fail."""

import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from holdtrue.environment import Environment
from holdtrue.stores.protocol import TaskHubStore
from holdtrue.stores.sqlite import SqliteStore
from tests.conformance.acting import Hub

from .disk_checks import Fixed
from .disk_recorded import RecordedDisk


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


class Disk(apsw.VFS):
    """The system's disk, with errors on demand: `failing` is raised by each write or sync of a file so named."""

    def __init__(self) -> None:
        self.failing: type[Exception] | None = None
        self.at = "write"
        self.ending = "-wal"
        super().__init__("failing", "unix", makedefault=True)

    def xOpen(self, name, flags):  # type: ignore[no-untyped-def]
        return _File(self, name, flags)

    def check(self, what: str, name: str) -> None:
        if self.failing is not None and what == self.at and name.endswith(self.ending):
            error = self.failing(f"the test's disk fails to {what}")
            if isinstance(error, apsw.IOError):
                error.extendedresult = _EXTENDED[what]
            raise error


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name, flags) -> None:  # type: ignore[no-untyped-def]
        self.disk = disk
        self.name = name if isinstance(name, str) or name is None else name.filename()
        super().__init__("unix", name, flags)

    def xWrite(self, data, offset):  # type: ignore[no-untyped-def]
        self.disk.check("write", self.name or "")
        super().xWrite(data, offset)

    def xSync(self, flags):  # type: ignore[no-untyped-def]
        self.disk.check("sync", self.name or "")
        super().xSync(flags)

    def xTruncate(self, size):  # type: ignore[no-untyped-def]
        self.disk.check("truncate", self.name or "")
        super().xTruncate(size)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """The disk under all hubs opened in the test."""
    # SQLite prints what a failing disk raised.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    made = Disk()
    yield made
    made.failing = None
    made.unregister()


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordedDisk]:
    """A disk that takes down each of its calls."""
    # SQLite prints what a failing disk raised.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    made = RecordedDisk(tmp_path)
    yield made
    made.unregister()


@pytest.fixture
def fixed(name: str, recorded: RecordedDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fixed:
    """The piece of work of this name, done once, on a recorded disk."""
    return Fixed(name, recorded, tmp_path, monkeypatch)
