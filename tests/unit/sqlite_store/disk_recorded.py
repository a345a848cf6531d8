"""A disk that takes down each of its calls, fails at one of them, and knows what a power cut would leave.

It stands under SQLite as its VFS, and under the store's own calls of the system (`names`).  Nothing is really
synced: what a power cut leaves is worked out from the record, by the rules of POSIX.  A write, and a change of
a name, is on the disk for certain only after a sync of the file, or of its directory; a sync that failed drops
what it should have written, and a later one does not bring it.
"""

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import apsw

PIECE = 4_096

LOST, KILLED, SOME, TORN_512, TORN_4096 = "lost", "killed", "some", "torn at 512", "torn at 4096"
CUTS = (LOST, SOME, TORN_512, TORN_4096)
"""What a power cut does to what is not synced: all lost; some of it kept, in whatever order; each torn at sectors."""


class Entry(NamedTuple):
    """One thing that happened: a change of the disk, or a word of the test's (`said`)."""

    what: str
    file: int = 0
    at: int = 0
    data: bytes = b""
    name: str = ""
    other: str = ""


class Fault(NamedTuple):
    """The call of this number fails so: `error`, `full`, `short` (half of it is written), `done` (all of it is).

    Or the process is killed there: `kill`.
    """

    call: int
    how: str


_IOERR = {
    "write": apsw.SQLITE_IOERR_WRITE,
    "sync": apsw.SQLITE_IOERR_FSYNC,
    "truncate": apsw.SQLITE_IOERR_TRUNCATE,
    "delete": apsw.SQLITE_IOERR_DELETE,
}
FAULTS = {
    "write": ("error", "full", "short", "done"),
    "create": ("error", "full"),
    "link": ("error", "full"),
    "rename": ("error", "full"),
}
"""How a call may fail, where it is not by an error alone."""


class RecordedDisk(apsw.VFS):
    """The disk under all hubs opened while it is there.  `place` is the directory whose files it takes down."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)
        self.log: list[Entry] = []
        self.kinds: list[str] = []
        self.fault: Fault | None = None
        self.said: Callable[[str], object] = lambda _: None
        self._files: dict[str, int] = {}
        self._made = 0
        super().__init__("recorded", "unix", makedefault=True)

    def begin(self, place: Path, fault: Fault | None = None) -> None:
        """Forget what was, and look at an empty directory."""
        self.place, self.fault = str(place), fault
        self.log, self.kinds, self._files = [], [], {}

    def go_on(self, log: list[Entry]) -> None:
        """The record so far is this, of files that are there again as a process left them that died then."""
        self.log, self.kinds, self.fault = list(log), [], None
        names: dict[str, int] = {}
        for entry in log:
            if entry.name:
                renamed(names, entry)
        self._files = {os.path.join(self.place, name): number for name, number in names.items()}

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """What is done meanwhile is not taken down, and does not fail."""
        before = self.place, self.fault, self.log, self.kinds, self._files
        self.begin(Path())
        try:
            yield
        finally:
            self.place, self.fault, self.log, self.kinds, self._files = before

    def say(self, word: str) -> None:
        """A word of the test's into the record."""
        self.log.append(Entry("said", name=word))
        self.said(word)

    def called(self, kind: str) -> str | None:
        """One more call; how it is to fail, if it is."""
        self.kinds.append(kind)
        if self.fault is not None and self.fault.call == len(self.kinds):
            if self.fault.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            return self.fault.how
        return None

    def error(self, kind: str, how: str) -> Exception:
        """What SQLite's own VFS says of such a call."""
        if kind == "create":
            return apsw.CantOpenError("the test's disk makes no file")
        if how in ("full", "short"):
            return apsw.FullError("the test's disk is full")
        failed = apsw.IOError(f"the test's disk fails to {kind}")
        failed.extendedresult = _IOERR[kind]
        return failed

    # -- what SQLite calls -----------------------------------------------------------------------------

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        path = name if isinstance(name, str) or name is None else name.filename()
        creates = path is not None and not os.path.exists(path)
        if creates and flags[0] & apsw.SQLITE_OPEN_CREATE and (how := self.called("create")):
            raise self.error("create", how)
        opened = _RecordedFile(self, name, flags)
        if path is not None and self.tracks(path):
            if creates:
                self.made(path)
            opened.number = self._files[path]
        names = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
        opened.syncs_directory = bool(flags[0] & apsw.SQLITE_OPEN_CREATE and flags[0] & names)
        return opened

    def xDelete(self, path: str, sync_directory: bool) -> None:
        if how := self.called("delete"):
            raise self.error("delete", how)
        super().xDelete(path, False)
        self.gone(path)
        if sync_directory:
            self.log.append(Entry("sync names"))

    def tracks(self, path: str) -> bool:
        return os.path.dirname(path) == self.place

    def made(self, path: str) -> None:
        self._made += 1
        self._files[path] = self._made
        self.log.append(Entry("create", self._made, name=os.path.basename(path)))

    def gone(self, path: str) -> None:
        if self.tracks(path) and self._files.pop(path, None):
            self.log.append(Entry("unlink", name=os.path.basename(path)))

    def named(self, what: str, path: str, other: str) -> None:
        if self.tracks(other):
            self._files[other] = self._files[path]
            if what == "rename":
                del self._files[path]
            self.log.append(Entry(what, name=os.path.basename(path), other=os.path.basename(other)))


class _RecordedFile(apsw.VFSFile):
    number = 0
    syncs_directory = False

    def __init__(self, disk: RecordedDisk, name: Any, flags: list[int]) -> None:
        self.disk = disk
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        how = self.disk.called("write")
        if how == "short":
            data = bytes(data)[: len(data) // 2]
        if how not in ("error", "full"):
            self.disk.log.append(Entry("write", self.number, offset, bytes(data)))
            super().xWrite(data, offset)
        if how:
            raise self.disk.error("write", how)

    def xSync(self, flags: int) -> None:
        how = self.disk.called("sync")
        self.disk.log.append(Entry("sync failed" if how else "sync", self.number))
        if how:
            raise self.disk.error("sync", how)
        if self.syncs_directory:
            self.syncs_directory = False
            self.disk.log.append(Entry("sync names"))

    def xTruncate(self, size: int) -> None:
        if how := self.disk.called("truncate"):
            raise self.disk.error("truncate", how)
        self.disk.log.append(Entry("truncate", self.number, size))
        super().xTruncate(size)


class RecordedNames:
    """The module `os` for what the store itself does to names; all else is the system's."""

    def __init__(self, disk: RecordedDisk) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _check(self, kind: str) -> None:
        if how := self._disk.called(kind):
            raise OSError(errno.ENOSPC if how == "full" else errno.EIO, f"the test's disk fails to {kind}")

    def link(self, path: str, other: str) -> None:
        self._check("link")
        os.link(path, other)
        self._disk.named("link", path, other)

    def rename(self, path: str, other: str) -> None:
        self._check("rename")
        os.rename(path, other)
        self._disk.named("rename", path, other)

    def unlink(self, path: str) -> None:
        self._check("unlink")
        os.unlink(path)
        self._disk.gone(path)

    def fsync(self, _: int) -> None:
        self._check("sync names")
        self._disk.log.append(Entry("sync names"))


# -- what a power cut leaves -------------------------------------------------------------------------------


class _File:
    """A file on the disk: what is certain, and the changes of which not all are."""

    def __init__(self) -> None:
        self.certain = bytearray()
        self.changes: list[tuple[Entry, str]] = []

    def synced(self) -> None:
        self.changes = [(entry, "synced" if state == "pending" else state) for entry, state in self.changes]
        while self.changes and self.changes[0][1] == "synced":
            _apply(self.certain, self.changes.pop(0)[0])

    def dropped(self) -> None:
        self.changes = [(entry, "dropped" if state == "pending" else state) for entry, state in self.changes]

    def content(self, cut: str, random: Random) -> bytes:
        found = bytearray(self.certain)
        for entry, state in self.changes:
            for piece in [entry] if state == "synced" or cut in (LOST, KILLED, SOME) else _torn(entry, cut):
                if state == "synced" or cut == KILLED or (cut != LOST and random.random() < 0.5):
                    _apply(found, piece)
        return bytes(found)


def _apply(content: bytearray, change: Entry) -> None:
    if change.what == "truncate":
        del content[change.at :]
    else:
        content.extend(bytes(max(0, change.at - len(content))))
        content[change.at : change.at + len(change.data)] = change.data


def _torn(entry: Entry, cut: str) -> list[Entry]:
    """A write as the pieces of it that lie in different sectors."""
    sector = 512 if cut == TORN_512 else PIECE
    pieces, at, end = [], entry.at, entry.at + len(entry.data)
    if entry.what == "truncate":
        return [entry]
    while at < end:
        until = min(end, (at // sector + 1) * sector)
        pieces.append(entry._replace(at=at, data=entry.data[at - entry.at : until - entry.at]))
        at = until
    return pieces


class Platter:
    """The disk as it really is while a record is gone through, entry by entry."""

    def __init__(self) -> None:
        self._files: dict[int, _File] = {0: _File()}
        self._names: dict[str, int] = {}
        self._pending: list[Entry] = []

    def take(self, entry: Entry) -> None:
        """One more entry happens."""
        match entry.what:
            case "create":
                self._files[entry.file] = _File()
                self._pending.append(entry)
            case "link" | "rename" | "unlink":
                self._pending.append(entry)
            case "sync names":
                for change in self._pending:
                    renamed(self._names, change)
                self._pending.clear()
            case "write" | "truncate":
                self._files[entry.file].changes.append((entry, "pending"))
            case "sync":
                self._files[entry.file].synced()
            case "sync failed":
                self._files[entry.file].dropped()

    def after(self, cut: str, random: Random) -> dict[str, bytes]:
        """The files, by name, that are there after a power cut now (or, `KILLED`, after the process's death)."""
        names = dict(self._names)
        for change in self._pending:
            if cut == KILLED or (cut != LOST and random.random() < 0.5):
                renamed(names, change)
        return {name: self._files[number].content(cut, random) for name, number in sorted(names.items())}


def renamed(names: dict[str, int], change: Entry) -> None:
    """What a change does to the names of a directory, and the numbers of their files."""
    if change.what == "create":
        names[change.name] = change.file
    elif change.what == "unlink":
        names.pop(change.name, None)
    elif change.what in ("link", "rename") and change.name in names:
        names[change.other] = names[change.name]
        if change.what == "rename":
            del names[change.name]


def images(
    log: list[Entry], random: Random, cuts: tuple[str, ...] = (*CUTS, KILLED), moments: Container[int] | None = None
) -> Iterator[tuple[int, str, dict[str, bytes]]]:
    """Each of these moments of a record (so many entries are over; None: all), each cut, and what it leaves."""
    platter = Platter()
    for n, entry in enumerate(log, 1):
        platter.take(entry)
        if moments is None or n in moments:
            for cut in cuts:
                yield n, cut, platter.after(cut, random)
