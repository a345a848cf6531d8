"""Brings the log into the hub's file beside the writer, so that no commit waits for it.

A thread does most of the copying while commits go on; the writer then does the rest, which is little, at the
end of a transaction, and the log begins anew.  It stays bounded where readers are long, too: what cannot be
copied now is copied at a later round.  Where the disk fails, the writer is told: it cannot trust the log any more.
"""

from collections.abc import Callable
from queue import SimpleQueue

import apsw

from holdtrue.environment import Environment
from holdtrue.stores import errors

from .connection import connect, shut

PAGES = 2_000
"""Pages written to the log before the next round.  A log that still grows costs each sync a second write (of its
size); one that begins anew does not, so this is not many."""
_MOST_PAGES = 16_000
"""So many while a round still goes on, and the writer does one itself."""
_COMMITS = 16
"""Commits between two looks at the number of pages."""


class Checkpoints:
    """The rounds of one store.  `failed` is called where the disk fails in one; `close` waits for one under way."""

    def __init__(self, path: str, environment: Environment, failed: Callable[[], None]) -> None:
        self._path = path
        self._environment = environment
        self._failed = failed
        self._commits = 0
        self._pages = 0
        self._running = False
        self._rest = False
        self._asked: SimpleQueue[bool] | None = None
        self._ended: SimpleQueue[None] = SimpleQueue()

    def written(self, connection: apsw.Connection) -> None:
        """A transaction was committed by the writer, whose thread this is called in."""
        self._commits += 1
        if self._rest:
            self._rest = False
            self._bring(connection)
            self._running = False
        if self._commits < _COMMITS:
            return
        self._commits = 0
        self._pages += connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE, True)[0]
        if self._pages >= (_MOST_PAGES if self._running else PAGES):
            self._pages = 0
            if self._running or self._environment.inline_writer:
                self._bring(connection)
                return
            self._running = True
            if self._asked is None:
                self._asked = SimpleQueue()
                self._environment.thread(self._run, "holdtrue-sqlite-checkpoints")
            self._asked.put(True)

    def _bring(self, connection: apsw.Connection) -> bool:
        """Bring into the file what can be; where that cannot be, nothing is lost: the next round does it."""
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.IOError:
            self._failed()
            return False
        except apsw.Error:
            return False
        return True

    def _run(self) -> None:
        assert self._asked is not None
        connection: apsw.Connection | None = None
        while self._asked.get():
            try:
                if connection is None:
                    connection = connect(self._path)
                brought = self._bring(connection)
            except errors.StoreError:
                brought = False
            if brought:
                self._rest = True
            else:
                self._running = False
        if connection is not None:
            shut(connection)
        self._ended.put(None)

    def close(self) -> None:
        """Wait for a round under way, and end."""
        if self._asked is not None:
            self._asked.put(False)
            self._ended.get()
            self._asked = None
