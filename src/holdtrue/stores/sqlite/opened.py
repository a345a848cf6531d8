"""An open hub: its file, its writer and readers, this process's presence, and the host that it may be.

What operations do to the hub is not known here, but for joining, leaving and renewing.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import apsw

from holdtrue.core.errors import InvalidInput
from holdtrue.environment import REAL, Environment
from holdtrue.stores import errors
from holdtrue.stores.leases import LeaseSeen, LeaseWatch
from holdtrue.stores.protocol import Notice

from . import hosts, waiting
from .checkpoints import Checkpoints
from .connection import (
    BUSY_MILLISECONDS,
    check_place,
    connect,
    connect_reader,
    missing,
    prepare,
    refuse_network,
    usable,
)
from .errors import translate, unreadable
from .presence import Presence, appear
from .reading import Reader
from .statements import sql
from .transaction import LOCK_BITS, Transaction
from .writer import Operation, Surroundings, Writer

T = TypeVar("T")

log = logging.getLogger("holdtrue.store")

_JOIN = Operation(hosts.apply_join, heavy=True)
_RENEW = Operation(hosts.apply_renew, durable=False)
_REMOVE = Operation(hosts.apply_remove, heavy=True)

_READING = (apsw.Error, ValueError, TypeError)
"""What reading can raise where a row is not as it was written (decoding errors are ValueErrors)."""
_POLL_SECONDS = 0.25
_CHECK_SECONDS = 0.02


class OpenedHub(Surroundings):
    """What a store has open, and what the writer asks of it."""

    def __init__(
        self,
        path: str,
        *,
        environment: Environment = REAL,
        lease_seconds: float = 120.0,
        synchronous: Literal["full", "normal"] = "full",
    ) -> None:
        self.path = usable(path.removeprefix("sqlite:///"))
        self.synchronous = synchronous
        self._environment = environment
        self._lease_seconds = lease_seconds
        self._pid = 0
        self._presence: Presence | None = None
        self._former: list[Presence] = []
        self._writer: Writer | None = None
        self._quick: Reader | None = None
        self._slow: Reader | None = None
        self._pool: Executor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._identity: list[tuple[int, int]] | None = None
        self._number = 0
        self._forsaken = 0
        self._lost = False
        self._joined: hosts.Joining | None = None
        self._tokens = 0
        self._turn = 0
        self._log_in_use = 0
        self._renew_at = 0.0
        self._leases = LeaseWatch()
        self._check_at = 0.0
        self._notify: Callable[[Notice], None] | None = None
        self._checkpoints: Checkpoints | None = None
        self._watched: int | None = None
        self._polling: asyncio.TimerHandle | None = None
        self._version = 0

    @property
    def location(self) -> str:
        return f"sqlite:///{quote(self.path)}"

    @property
    def takes_ahead(self) -> bool:
        return True

    # -- what the writer asks --------------------------------------------------------------------------

    def connect(self) -> apsw.Connection:
        connection = connect(self.path, synchronous=self.synchronous)
        prepare(connection, self.path)
        return connection

    def check_file(self) -> None:
        # A look at the file lets others take the interpreter's lock: not at every one of many commits.
        moment = self._environment.monotonic()
        if moment < self._check_at:
            return
        self._check_at = moment + _CHECK_SECONDS
        if self._files() == self._identity:
            return
        self._check_at = 0.0
        raise missing(self.path)

    def _files(self) -> list[tuple[int, int]] | None:
        """Which files lie at the hub's path: who opens it now must get the same (None: one is missing)."""
        try:
            found = [os.stat(f"{self.path}{ending}") for ending in ("", "-wal", "-shm")]
        except OSError:
            return None
        return [(one.st_dev, one.st_ino) for one in found]

    def turn(self) -> AbstractContextManager[None]:
        assert self._presence is not None
        return self._presence.turn()

    def shared(self) -> bool:
        return self._presence is not None and bool(self._presence.others())

    def kept_waiting(self, seconds: float) -> None:
        files = self._presence.turn_files() if self._presence is not None else []
        holder = waiting.holder(self.path, *files)
        if holder is None:
            log.warning(
                "hub %r: writing has waited for %.0f s for the file's lock: another program holds it, or long readers "
                "are in the way of cutting the log",
                self.path,
                seconds,
            )
        else:
            log.warning(
                "hub %r: writing has waited for %.0f s for %s. %s: work then goes on",
                self.path,
                seconds,
                holder,
                holder.advice(),
            )

    def host(self) -> int:
        return self._number

    def host_lost(self) -> None:
        # What stands under its number, if it still does, is given up when it joins again.
        self._number, self._forsaken = 0, self._number or self._forsaken
        self._lost = True

    def token(self) -> int:
        self._tokens += 1
        return self._number << LOCK_BITS | self._tokens

    def written(self, connection: apsw.Connection) -> None:
        if self._checkpoints is not None:
            self._checkpoints.written(connection)

    def committed(self, transaction: Transaction) -> None:
        presence = self._presence
        if transaction.own and self._loop is not None:
            self._loop.call_soon_threadsafe(self._has_mail)
        if presence is not None:
            presence.wake(
                Notice(work=transaction.work, changed=tuple(transaction.changed), schedules=transaction.schedules)
            )

    def _has_mail(self) -> None:
        if self._notify is not None and self._writer is not None:
            self._notify(Notice(work=True))

    # -- life ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        if self._writer is not None:
            self._check()
            return
        loop = asyncio.get_running_loop()
        refuse_network(self.path)
        check_place(self.path)
        presence = appear(self.path, self._environment)
        with contextlib.ExitStack() as failing:
            failing.callback(presence.close)
            # One at a time: making the tables of a new hub.
            with await self._opening_turn(presence):
                # The log of those who died: nobody is left who knows whether it reached the disk.
                left = self._log_bytes() > 0 and not any(map(presence.is_alive, presence.others()))
                self._open_file()
            failing.pop_all()
        self._pid = self._environment.pid()
        self._loop = loop
        if not self._environment.inline_writer:
            self._pool = self._environment.thread_pool(1, "holdtrue-sqlite-reader")
        writer = self._writer = Writer(self, self._environment, loop)
        self._checkpoints = Checkpoints(self.path, self._environment, writer.doubt)
        if left:
            writer.doubt()
        self._be_present(presence, loop)

    def _log_bytes(self) -> int:
        try:
            return os.stat(f"{self.path}-wal").st_size
        except OSError:
            return 0

    def _be_present(self, presence: Presence, loop: asyncio.AbstractEventLoop) -> None:
        self._presence = presence
        socket = None if self._environment.inline_writer else presence.bind()
        if socket is not None:
            self._watched = socket.fileno()
            loop.add_reader(self._watched, presence.received)
        if self._notify is not None:
            self.listen(self._notify)

    def _appear_again(self) -> None:
        """Somebody took this store's files away: others take it for dead, so it comes under another name."""
        assert self._presence is not None and self._loop is not None
        log.warning("hub %r: the files of this host in %r are gone; made anew", self.path, self._presence.directory)
        presence = appear(self.path, self._environment)
        self._stop_listening()
        # The writer's thread may be using it.
        self._former.append(self._presence)
        self._be_present(presence, self._loop)
        self.host_lost()

    async def _opening_turn(self, presence: Presence) -> AbstractContextManager[Any]:
        """The turn; without it after a while, where somebody was stopped in his (SQLite's own locks stay)."""
        moment = self._environment.monotonic()
        warn, end = moment + 2.0, moment + BUSY_MILLISECONDS / 1_000
        while (turn := presence.try_exclusive()) is None:
            moment = self._environment.monotonic()
            if moment > end:
                return contextlib.nullcontext()
            if moment > warn:
                warn = end
                holder = waiting.holder(self.path, *presence.turn_files())
                log.warning("hub %r: opening it waits for %s", self.path, holder or "another process that opens it")
                if holder is not None and holder.stopped:
                    return contextlib.nullcontext()
            await self._environment.sleep(0.005)
        return turn

    def _open_file(self) -> None:
        with contextlib.ExitStack() as failing, contextlib.ExitStack() as always:
            connection = connect(self.path, create=True, synchronous=self.synchronous)
            always.callback(connection.close, True)
            readers = []
            try:
                prepare(connection, self.path)
                if connection.execute("pragma journal_mode = wal").get != "wal":
                    raise errors.UnsuitableFileSystem(
                        f"hub {self.path!r}: its file system cannot hold a write-ahead log. Put it on another disk"
                    )
                for _ in range(2):
                    readers.append(Reader(connect_reader(self.path)))
                    failing.callback(readers[-1].close)
                    # A read opens the log, which `check_file` looks for.
                    readers[-1].all(sql.mark)
            except apsw.Error as error:
                raise translate(error, self.path) from error
            self._identity = self._files()
            if self._identity is None:
                raise missing(self.path)
            self._quick, self._slow = readers
            failing.pop_all()

    async def close(self) -> None:
        writer, self._writer = self._writer, self._writer
        if writer is None:
            return
        if self._pid != self._environment.pid():
            # A forked child owns nothing of this.
            self._writer = None
            return
        with contextlib.suppress(errors.StoreError):
            await self.leave()
        self._writer = None
        self._stop_listening()
        await writer.close()
        if self._checkpoints is not None:
            self._checkpoints.close()
            self._checkpoints = None
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        for reader in (self._quick, self._slow):
            if reader is not None:
                reader.close()
        self._quick = self._slow = self._pool = None
        for presence in (*self._former, self._presence):
            if presence is not None:
                presence.close()
        self._former.clear()
        self._presence = None

    def _check(self) -> None:
        if self._pid != self._environment.pid():
            if self._writer is None:
                raise errors.StoreUnavailable(f"hub {self.path!r} is not open; open it first")
            raise errors.ForkedProcess(
                f"hub {self.path!r} was opened before this process forked; make and open a store of the child's own"
            )

    def _write(
        self,
        operation: Operation,
        items: list[Any],
        abandoned: Callable[[Any], None] | None = None,
        rows: int | None = None,
    ) -> "asyncio.Future[Any]":
        self._check()
        if self._writer is None:
            raise errors.StoreUnavailable(f"hub {self.path!r} is closed; open it first")
        return self._writer.submit(operation, items, abandoned, rows)

    def _reader(self) -> Reader:
        self._check()
        if self._quick is None:
            raise errors.StoreUnavailable(f"hub {self.path!r} is closed; open it first")
        self.check_file()
        return self._quick

    def _read(self, call: Callable[[Reader], T]) -> T:
        """A quick read, on the loop."""
        reader = self._reader()
        try:
            return call(reader)
        except (InvalidInput, UnicodeEncodeError):
            raise
        except _READING as error:
            raise self._misread(error) from error

    def _misread(self, error: Exception) -> Exception:
        # Rows become records here, and nothing else is done: what is no error of SQLite's comes from a row.
        return translate(error, self.path) if isinstance(error, apsw.Error) else unreadable(error, self.path)

    async def _look(self, call: Callable[[Reader], T]) -> T:
        """A read that may take long, beside the loop."""
        self._reader()
        reader, pool = self._slow, self._pool
        assert reader is not None
        try:
            if pool is None:
                return call(reader)
            return await asyncio.get_running_loop().run_in_executor(pool, call, reader)
        except (InvalidInput, UnicodeEncodeError):
            raise
        except _READING as error:
            raise self._misread(error) from error

    # -- hosts joining and leaving ---------------------------------------------------------------------

    async def join(self, name: str, orchestrators: Sequence[str], queues: Sequence[str]) -> int:
        self._check()
        assert self._presence is not None
        await self._give_up()
        joining = hosts.Joining(
            name, self._presence.file, self._lease_seconds, tuple(orchestrators), tuple(queues), self._number
        )
        (number,) = await self._write(_JOIN, [joining])
        self._number, self._joined, self._lost = number, joining, False
        self._renew_at = self._environment.monotonic() + self._lease_seconds / 3
        return int(number)

    async def _give_up(self) -> None:
        if self._forsaken:
            await self._write(_REMOVE, [self._forsaken])
            self._forsaken = 0

    async def leave(self) -> None:
        await self._give_up()
        if self._number:
            await self._write(_REMOVE, [self._number])
            self._number, self._joined = 0, None

    async def renew(self) -> list[str]:
        self._check()
        presence = self._presence
        if self._lost or not self._number or presence is None:
            raise self._lease_lost()
        if not presence.stands():
            self._appear_again()
            raise self._lease_lost()
        moment = self._environment.monotonic()
        if moment >= self._renew_at:
            (renewed,) = await self._write(_RENEW, [self._number])
            if not renewed or self._lost:
                self.host_lost()
                raise self._lease_lost()
            self._renew_at = moment + self._lease_seconds / 3
        presence.sweep()
        standing = self._read(lambda reader: reader.hosts())
        if all(host.number != self._number for host in standing):
            self.host_lost()
            raise self._lease_lost()
        others = [host for host in standing if host.number != self._number]
        leases = (LeaseSeen(host.number, host.renewals, host.lease_seconds) for host in others)
        over = self._leases.over(leases, self._environment.monotonic())
        dead = [host for host in others if host.number in over or not presence.is_alive(host.file)]
        if not dead:
            return []
        removed = await self._write(_REMOVE, [host.number for host in dead])
        return [host.name for host, gone in zip(dead, removed, strict=True) if gone]

    def _lease_lost(self) -> errors.LeaseLost:
        return errors.LeaseLost(
            f"hub {self.path!r}: this host does not take part (any more): it was stopped for longer than its lease, "
            "or never joined. What it held is with others; join again"
        )

    def _require_host(self) -> None:
        if self._lost:
            raise self._lease_lost()

    # -- being woken -----------------------------------------------------------------------------------

    def listen(self, notify: Callable[[Notice], None]) -> None:
        self._notify = notify
        presence, loop = self._presence, self._loop
        if presence is None or loop is None:
            return
        if not presence.listen(notify) and self._polling is None:
            self._version = self._read(lambda reader: reader.data_version())
            self._polling = self._environment.call_later(_POLL_SECONDS, self._poll)

    def _poll(self) -> None:
        if self._quick is None or self._notify is None:
            return
        with contextlib.suppress(errors.StoreError):
            version = self._read(lambda reader: reader.data_version())
            if version != self._version:
                self._version = version
                self._notify(Notice(work=True, schedules=True))
        self._polling = self._environment.call_later(_POLL_SECONDS, self._poll)

    def _stop_listening(self) -> None:
        if self._watched is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._watched)
        self._watched = None
        if self._polling is not None:
            self._polling.cancel()
            self._polling = None
