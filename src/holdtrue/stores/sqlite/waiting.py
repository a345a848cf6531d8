"""Who keeps others waiting: named from the kernel's table of locks, so that nobody waits without a word.

A process that is stopped (SIGSTOP, a debugger, a suspended container) inside a transaction keeps SQLite's
write lock; nobody can write until it continues or dies.  Opens no file of the hub: closing one would drop
this process's own locks on it.
"""

import os
from typing import NamedTuple

_LOCKS = "/proc/locks"
_WRITING = range(120, 123)
"""The bytes of the `-shm` file that SQLite locks to write, to copy the log into the file, and to recover."""
_WHOLE_FILE = range(0x40000000, 0x40000200)
"""The bytes of the hub's file that SQLite locks for a transaction without a log, or for exclusive use."""


class Holder(NamedTuple):
    """A process that others wait for; `command` is empty where it cannot be known."""

    pid: int
    command: str
    stopped: bool

    def __str__(self) -> str:
        name = f"process {self.pid}" + (f" ({self.command})" if self.command else "")
        return f"{name}, which is stopped" if self.stopped else name

    def advice(self) -> str:
        """What to do about it."""
        if self.stopped:
            return f"Continue it (`kill -CONT {self.pid}`) or end it"
        return "End its transaction, or end it"


def holder(path: str, *turn: str) -> Holder | None:
    """The other process that holds the write lock of the hub at `path`, or one of the turn's files (None: not known).

    A stopped one is named before any other.
    """
    wanted = [(f"{path}-shm", _WRITING), (path, _WHOLE_FILE), *((file, range(1)) for file in turn)]
    try:
        with open(_LOCKS, encoding="ascii", errors="replace") as lines:
            rows = [line.split() for line in lines]
    except OSError:
        return None
    # A waiting one has an arrow for its second word.
    rows = [row for row in rows if len(row) == 8 and row[3] == "WRITE" and int(row[4]) not in (os.getpid(), 0, -1)]
    pids = [int(row[4]) for file, span in wanted for row in _of(file, rows) if _meets(row[6], row[7], span)]
    found = [_look(pid) for pid in dict.fromkeys(pids)]
    return next((one for one in found if one.stopped), found[0] if found else None)


def _of(file: str, rows: list[list[str]]) -> list[list[str]]:
    """The locks on a file."""
    try:
        stat = os.stat(file)
    except OSError:
        return []
    exactly = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
    # Some file systems (btrfs, overlays) show another device here than there.
    return [row for row in rows if row[5] == exactly] or [row for row in rows if row[5].endswith(f":{stat.st_ino}")]


def _meets(first: str, last: str, span: range) -> bool:
    return int(first) < span.stop and (last == "EOF" or int(last) >= span.start)


def _look(pid: int) -> Holder:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            before, _, after = file.read().rpartition(")")
        return Holder(pid, before.partition("(")[2], after.split()[0] in "tT")
    except (OSError, IndexError):
        return Holder(pid, "", stopped=False)
