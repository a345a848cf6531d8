"""The SQLite store for who only looks: beside live workers, on a file that may not be written, leaving nothing behind.

Where nobody has the hub open, SQLite is told that the file does not change, since it would make files beside it
otherwise.  What was read while somebody opened the hub after all is read again.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import apsw

from holdtrue.stores import errors

from .connection import BUSY_MILLISECONDS, check_version, missing
from .errors import translate
from .reading import Reader
from .store import SqliteStore

T = TypeVar("T")


class ReadOnlySqliteStore(SqliteStore):
    """A task hub in the SQLite file `path`, to be read only; whatever would change it raises StoreUnavailable."""

    _alone = False
    """True where nobody had the hub open when this store opened the file."""

    async def open(self) -> None:
        if self._quick is not None:
            return
        self._pid = self._environment.pid()
        self._loop = asyncio.get_running_loop()
        self._open_readers()
        if not self._environment.inline_writer:
            self._pool = self._environment.thread_pool(1, "holdtrue-sqlite-reader")

    async def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None
        self._close_readers()

    def _open_readers(self) -> None:
        if not os.path.exists(self.path):
            raise errors.StoreMissing(f"hub {self.path!r}: there is no such file")
        self._alone = not self._is_in_use()
        readers = []
        try:
            for _ in range(2):
                readers.append(Reader(self._connect()))
        except BaseException:
            for reader in readers:
                reader.close()
            raise
        self._quick, self._slow = readers

    def _close_readers(self) -> None:
        for reader in (self._quick, self._slow):
            if reader is not None:
                reader.close()
        self._quick = self._slow = None

    def _is_in_use(self) -> bool:
        return os.path.exists(f"{self.path}-wal")

    def _connect(self) -> apsw.Connection:
        name = f"file:{quote(self.path)}?mode=ro{'&immutable=1' if self._alone else ''}"
        connection = None
        try:
            connection = apsw.Connection(name, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
            connection.set_busy_timeout(BUSY_MILLISECONDS)
            check_version(connection, self.path)
        except BaseException as error:
            if connection is not None:
                connection.close(True)
            if isinstance(error, apsw.Error):
                raise translate(error, self.path) from error
            raise
        return connection

    # -- reading ---------------------------------------------------------------------------------------

    def check_file(self) -> None:
        if not os.path.exists(self.path):
            raise missing(self.path)

    def _read(self, call: Callable[[Reader], T]) -> T:
        alone = self._alone
        try:
            found = super()._read(call)
        except errors.StoreError:
            if not self._opened_since(alone):
                raise
        else:
            if not self._opened_since(alone):
                return found
        return super()._read(call)

    async def _look(self, call: Callable[[Reader], T]) -> T:
        alone = self._alone
        try:
            found = await super()._look(call)
        except errors.StoreError:
            if not self._opened_since(alone):
                raise
        else:
            if not self._opened_since(alone):
                return found
        return await super()._look(call)

    def _opened_since(self, alone: bool) -> bool:
        """Whether somebody has opened the hub that was read as one that nobody has; it is then opened anew."""
        if not alone or not self._is_in_use():
            return False
        if self._alone:
            self._close_readers()
            self._open_readers()
        return True

    # -- what it does not do -----------------------------------------------------------------------------

    def _write(self, *asked: Any, **named: Any) -> Any:
        raise self._refusal()

    async def join(self, name: str, orchestrators: Sequence[str], queues: Sequence[str]) -> int:
        raise self._refusal()

    async def renew(self) -> list[str]:
        raise self._refusal()

    def _refusal(self) -> errors.StoreError:
        return errors.StoreUnavailable(f"hub {self.path!r} was opened for reading only: it cannot be changed so")
