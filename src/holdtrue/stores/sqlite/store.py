"""The SQLite task hub store: the store protocol over the writer, the readers and the presence of others.

What each write does stands with its subject (`starts`, `inbox`, `commits`, `locking`, ...); here it is only
put to the writer.  Reads are quick and run on the loop, but for those that may look at many rows.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeVar

import apsw

from holdtrue.core.events import AnyEvent, HistoryEvent, Ticks
from holdtrue.core.messages import OutboundMessage, WorkRef
from holdtrue.core.projection import Condition
from holdtrue.environment import REAL, Environment
from holdtrue.stores import errors
from holdtrue.stores.protocol import (
    ActivityInfo,
    ActivityResult,
    CommitOutcome,
    Committing,
    CompleteOutcome,
    CreateOutcome,
    CreateRequest,
    Delivery,
    Due,
    HubInfo,
    InstanceQuery,
    InstanceRecord,
    Lease,
    LockedActivity,
    LockedInstance,
    Notice,
    Page,
    Purged,
    SendOutcome,
    StoredDeadLetter,
    StoredSchedule,
    Tick,
    TickCommit,
)

from . import backup, commits, hosts, inbox, locking, schedules, starts, upkeep
from .connection import connect, connect_reader, missing, prepare, refuse_network
from .errors import translate
from .presence import Presence
from .reading import Reader
from .rows import condition_text, decode_letter
from .statements import sql
from .transaction import LOCK_BITS, Transaction
from .writer import Operation, Surroundings, Writer

T = TypeVar("T")

_CREATE = Operation(starts.apply_create)
_SEND = Operation(inbox.apply_send)
_COMMIT = Operation(commits.apply_commits)
_COMPLETE = Operation(inbox.apply_complete)
_FIRE = Operation(inbox.apply_fire, durable=False)
_FETCH = Operation(inbox.apply_fetch, durable=False)
_LOCK = Operation(locking.apply_lock, durable=False)
_LOCK_ACTIVITIES = Operation(locking.apply_lock_activities, durable=False)
_RELEASE = Operation(locking.apply_release, durable=False)
_RELEASE_ACTIVITIES = Operation(locking.apply_release_activities, durable=False)
_PARK = Operation(locking.apply_park)
_REPORT = Operation(locking.apply_report)
_JOIN = Operation(hosts.apply_join)
_RENEW = Operation(hosts.apply_renew, durable=False)
_REMOVE = Operation(hosts.apply_remove)
_PURGE = Operation(upkeep.apply_purge)
_RESEND = Operation(upkeep.apply_resend)
_DISMISS = Operation(upkeep.apply_dismiss)
_VACUUM = Operation(upkeep.apply_vacuum)
_PUT_SCHEDULE = Operation(schedules.apply_put)
_DELETE_SCHEDULE = Operation(schedules.apply_delete)
_TICK = Operation(schedules.apply_tick)
_TRIM = Operation(schedules.apply_trim)

_PURGED_AT_ONCE = 100
_POLL_SECONDS = 0.25
_CHECK_SECONDS = 0.02
_WAL_BYTES = 64 * 1024 * 1024


class SqliteStore(Surroundings):
    """A task hub in the SQLite file `path`, for any number of processes of one machine.

    `lease_seconds` is after how long a host that lives and does nothing any more (it is stopped) loses what
    it holds; one that died loses it at once.  `synchronous` "full" puts every write on disk before it is
    acknowledged; "normal" may lose the last ones at a power cut, never consistency.
    """

    def __init__(
        self,
        path: str,
        *,
        environment: Environment = REAL,
        lease_seconds: float = 120.0,
        synchronous: Literal["full", "normal"] = "full",
    ) -> None:
        self.path = os.path.realpath(path.removeprefix("sqlite:///") if path.startswith("sqlite:///") else path)
        self.synchronous = synchronous
        self._environment = environment
        self._lease_seconds = lease_seconds
        self._pid = 0
        self._presence: Presence | None = None
        self._writer: Writer | None = None
        self._quick: Reader | None = None
        self._slow: Reader | None = None
        self._pool: Executor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._identity: tuple[int, int] | None = None
        self._number = 0
        self._lost = False
        self._joined: hosts.Joining | None = None
        self._tokens = 0
        self._turn = 0
        self._renew_at: Ticks = 0
        self._check_at = 0.0
        self._notify: Callable[[Notice], None] | None = None
        self._watched: int | None = None
        self._polling: asyncio.TimerHandle | None = None
        self._version = 0

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
        try:
            found = os.stat(self.path)
            if (found.st_dev, found.st_ino) == self._identity and os.path.exists(f"{self.path}-wal"):
                return
        except FileNotFoundError:
            pass
        self._check_at = 0.0
        raise missing(self.path)

    def turn(self) -> AbstractContextManager[None]:
        assert self._presence is not None
        return self._presence.turn()

    def shared(self) -> bool:
        return self._presence is not None and bool(self._presence.others())

    def host(self) -> int:
        return self._number

    def host_lost(self) -> None:
        self._number = 0
        self._lost = True

    def token(self) -> int:
        self._tokens += 1
        return self._number << LOCK_BITS | self._tokens

    def committed(self, transaction: Transaction) -> None:
        presence = self._presence
        if presence is not None:
            presence.wake(
                Notice(
                    work=transaction.work, changed=tuple(transaction.changed), schedules=transaction.schedules
                )
            )

    # -- life ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        if self._writer is not None:
            self._check()
            return
        loop = asyncio.get_running_loop()
        refuse_network(self.path)
        try:
            presence = Presence(self.path, self._environment)
        except OSError as error:
            raise errors.StoreUnavailable(
                f"hub {self.path!r}: the directory {self.path + '-hosts'!r} for its hosts cannot be made or used "
                f"({error.strerror}). See that the hub's directory exists and that this user may write there"
            ) from error
        with contextlib.ExitStack() as failing:
            failing.callback(presence.close)
            # One at a time: making the tables of a new hub.
            with presence.exclusive():
                self._open_file()
            failing.pop_all()
        found = os.stat(self.path)
        self._identity = (found.st_dev, found.st_ino)
        self._pid = self._environment.pid()
        self._presence, self._loop = presence, loop
        if not self._environment.inline_writer:
            self._pool = self._environment.thread_pool(1, "holdtrue-sqlite-reader")
        self._writer = Writer(self, self._environment, loop)
        socket = None if self._environment.inline_writer else presence.bind()
        if socket is not None:
            self._watched = socket.fileno()
            loop.add_reader(self._watched, presence.received)
        if self._notify is not None:
            self.listen(self._notify)

    def _open_file(self) -> None:
        connection = connect(self.path, create=True, synchronous=self.synchronous)
        try:
            prepare(connection, self.path)
            connection.execute("pragma journal_mode = wal").fetchall()
            # A read opens the log, which `check_file` looks for.
            connection.execute(sql.mark).fetchall()
            self._quick = Reader(connect_reader(self.path))
            self._slow = Reader(connect_reader(self.path))
        except apsw.Error as error:
            raise translate(error, self.path) from error
        finally:
            connection.close()

    async def close(self) -> None:
        writer, self._writer = self._writer, self._writer
        if writer is None:
            return
        if self._pid != self._environment.pid():
            # A forked child owns nothing of this.
            self._writer = None
            return
        if self._number:
            with contextlib.suppress(errors.StoreError):
                await self.leave()
        self._writer = None
        self._stop_listening()
        await writer.close()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        for reader in (self._quick, self._slow):
            if reader is not None:
                reader.close()
        self._quick = self._slow = self._pool = None
        if self._presence is not None:
            self._presence.close()
            self._presence = None

    def _check(self) -> None:
        if self._pid != self._environment.pid():
            if self._writer is None:
                raise errors.StoreUnavailable(f"hub {self.path!r} is not open; open it first")
            raise errors.ForkedProcess(
                f"hub {self.path!r} was opened before this process forked; make and open a store of the child's own"
            )

    def _write(
        self, operation: Operation, items: list[Any], abandoned: Callable[[Any], None] | None = None
    ) -> "asyncio.Future[Any]":
        self._check()
        if self._writer is None:
            raise errors.StoreUnavailable(f"hub {self.path!r} is closed; open it first")
        return self._writer.submit(operation, items, abandoned)

    def _reader(self) -> Reader:
        self._check()
        if self._quick is None:
            raise errors.StoreUnavailable(f"hub {self.path!r} is closed; open it first")
        return self._quick

    def _read(self, call: Callable[[Reader], T]) -> T:
        """A quick read, on the loop."""
        reader = self._reader()
        try:
            return call(reader)
        except apsw.Error as error:
            raise translate(error, self.path) from error

    async def _look(self, call: Callable[[Reader], T]) -> T:
        """A read that may take long, beside the loop."""
        self._reader()
        reader, pool = self._slow, self._pool
        assert reader is not None
        try:
            if pool is None:
                return call(reader)
            return await asyncio.get_running_loop().run_in_executor(pool, call, reader)
        except apsw.Error as error:
            raise translate(error, self.path) from error

    # -- hosts joining and leaving ---------------------------------------------------------------------

    async def join(self, name: str, orchestrators: Sequence[str], queues: Sequence[str]) -> int:
        self._check()
        assert self._presence is not None
        joining = hosts.Joining(
            name, self._presence.file, self._lease_seconds, tuple(orchestrators), tuple(queues), self._number
        )
        (number,) = await self._write(_JOIN, [joining])
        self._number, self._joined, self._lost = number, joining, False
        self._renew_at = self._environment.now() + int(self._lease_seconds * 10_000_000 / 3)
        return int(number)

    async def leave(self) -> None:
        if self._number:
            await self._write(_REMOVE, [self._number])
            self._number, self._joined = 0, None

    async def renew(self) -> list[str]:
        self._check()
        presence = self._presence
        if self._lost or not self._number or presence is None:
            raise self._lease_lost()
        now = self._environment.now()
        if now >= self._renew_at:
            (renewed,) = await self._write(_RENEW, [(self._number, self._lease_seconds)])
            if not renewed or self._lost:
                self.host_lost()
                raise self._lease_lost()
            self._renew_at = now + int(self._lease_seconds * 10_000_000 / 3)
        presence.sweep()
        standing = self._read(lambda reader: reader.hosts())
        if all(host.number != self._number for host in standing):
            self.host_lost()
            raise self._lease_lost()
        dead = [
            host
            for host in standing
            if host.number != self._number and (host.lease < now or not presence.is_alive(host.file))
        ]
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

    # -- clients ---------------------------------------------------------------------------------------

    async def create(self, requests: Sequence[CreateRequest]) -> list[CreateOutcome]:
        outcomes: list[CreateOutcome] = await self._write(_CREATE, list(requests), self._untake) if requests else []
        return outcomes

    def _untake(self, outcomes: list[CreateOutcome]) -> None:
        leases = [outcome.taken.lease for outcome in outcomes if outcome.taken is not None]
        if leases:
            self._write(_RELEASE, list(leases))

    async def send(self, messages: Sequence[OutboundMessage]) -> list[SendOutcome]:
        outcomes: list[SendOutcome] = await self._write(_SEND, list(messages)) if messages else []
        return outcomes

    async def status(self, instance_ids: Sequence[str]) -> list[InstanceRecord | None]:
        return self._read(lambda reader: reader.records(instance_ids))

    async def activities_of(self, instance_id: str) -> list[ActivityInfo]:
        return self._read(lambda reader: reader.activities(instance_id))

    async def history(self, instance_id: str, first: int = 0) -> AsyncIterator[Sequence[HistoryEvent]]:
        current = self._read(lambda reader: reader.current(instance_id))
        following: int | None = first
        while current is not None and following is not None:
            key, execution = current
            begin = following
            pieces, following = await self._look(lambda reader: reader.pieces(key, execution, begin))  # noqa: B023
            for piece in pieces:
                yield piece

    async def query(self, query: InstanceQuery) -> Page:
        return await self._look(lambda reader: reader.query(query))

    async def children(self, instance_id: str) -> list[str]:
        return self._read(lambda reader: reader.children(instance_id))

    async def purge(self, instance_ids: Sequence[str], *, recursive: bool = True) -> Purged:
        total = Purged(refused=[])
        for at in range(0, len(instance_ids), _PURGED_AT_ONCE):
            some = [(instance_id, recursive) for instance_id in instance_ids[at : at + _PURGED_AT_ONCE]]
            for one in await self._write(_PURGE, some):
                total.instances += one.instances
                total.children += one.children
                total.refused += one.refused
        return total

    # -- hosts -----------------------------------------------------------------------------------------

    async def lock(self, limit: int) -> list[LockedInstance]:
        self._require_host()
        names, number = self._joined.orchestrators if self._joined is not None else (), self._number
        if not names or not self._read(lambda reader: reader.has_ready(names, number)):
            return []
        self._turn += 1
        asked = (limit, names, self._turn)
        (locked,) = await self._write(_LOCK, [asked], self._unlock)
        result: list[LockedInstance] = locked
        return result

    def _unlock(self, outcomes: list[list[LockedInstance]]) -> None:
        leases = [one.lease for locked in outcomes for one in locked]
        if leases:
            self._write(_RELEASE, list(leases))

    async def lock_activities(self, limit: int, queues: Sequence[str] | None = None) -> list[LockedActivity]:
        self._require_host()
        if queues is None:
            queues = self._joined.queues if self._joined is not None else ()
        if not queues or not self._read(lambda reader: reader.has_activities(queues)):
            return []
        self._turn += 1
        (locked,) = await self._write(_LOCK_ACTIVITIES, [(limit, tuple(queues), self._turn)], self._unlock_activities)
        result: list[LockedActivity] = locked
        return result

    def _unlock_activities(self, outcomes: list[list[LockedActivity]]) -> None:
        refs = [one.ref for locked in outcomes for one in locked]
        if refs:
            self._write(_RELEASE_ACTIVITIES, list(refs))

    async def load(self, lease: Lease) -> list[AnyEvent]:
        return self._read(lambda reader: reader.load(lease.key))

    async def commit(self, commits_: Sequence[Committing]) -> list[CommitOutcome]:
        if not commits_:
            return []
        (outcomes,) = await self._write(_COMMIT, [commits.prepare(commits_, self.token)])
        result: list[CommitOutcome] = outcomes
        return result

    async def rewrite(self, committing: Committing) -> CommitOutcome:
        # A history that is replaced is one column more: the instance is locked, its commit fenced like any other.
        (outcome,) = await self.commit([committing])
        return outcome

    async def park(self, leases: Sequence[Lease], condition: Condition) -> None:
        text = condition_text(condition)
        if leases:
            await self._write(_PARK, [(lease, text) for lease in leases])

    async def put_back(self, leases: Sequence[Lease]) -> None:
        if leases:
            await self._write(_RELEASE, list(leases))

    async def complete(self, results: Sequence[ActivityResult]) -> list[CompleteOutcome]:
        outcomes: list[CompleteOutcome] = await self._write(_COMPLETE, list(results)) if results else []
        return outcomes

    async def put_back_activities(self, refs: Sequence[WorkRef]) -> None:
        if refs:
            await self._write(_RELEASE_ACTIVITIES, list(refs))

    async def report(self, ref: WorkRef, progress: str | None, details: str | None) -> bool:
        (alive,) = await self._write(_REPORT, [(ref, progress, details)])
        return bool(alive)

    async def cancelled(self, refs: Sequence[WorkRef]) -> list[WorkRef]:
        return self._read(lambda reader: [ref for ref in refs if not reader.is_held(ref.key, ref.token)])

    async def fetch(self) -> list[Delivery]:
        number = self._number
        if not number or not self._read(lambda reader: reader.has_mail(number)):
            return []
        (deliveries,) = await self._write(_FETCH, [None])
        result: list[Delivery] = deliveries
        return result

    async def fire_due(self, now: Ticks) -> Due:
        earliest = self._read(lambda reader: reader.earliest_due())
        if earliest is None or earliest > now:
            return Due(deliveries=[], ready=False, next_due=earliest)
        (due,) = await self._write(_FIRE, [now])
        result: Due = due
        return result

    # -- schedules -------------------------------------------------------------------------------------

    async def put_schedule(self, schedule: StoredSchedule, *, expect: int | None) -> int | None:
        (etag,) = await self._write(_PUT_SCHEDULE, [(schedule, expect)])
        result: int | None = etag
        return result

    async def get_schedules(self, due_by: Ticks | None = None) -> list[StoredSchedule]:
        if due_by is None:
            rows: Any = self._read(lambda reader: reader.all(sql.schedules))
        else:
            rows = self._read(lambda reader: reader.all(sql.schedules_due, due_by))
        return [schedules.schedule(row) for row in rows]

    async def delete_schedule(self, schedule_id: str) -> bool:
        (removed,) = await self._write(_DELETE_SCHEDULE, [schedule_id])
        return bool(removed)

    async def commit_tick(self, tick: TickCommit) -> CreateOutcome | None | bool:
        (outcome,) = await self._write(_TICK, [tick])
        result: CreateOutcome | None | bool = outcome
        return result

    async def ticks(self, schedule_id: str, *, after: Ticks | None = None, limit: int = 100) -> list[Tick]:
        begin = -(1 << 62) if after is None else after
        rows: Any = self._read(lambda reader: reader.all(sql.ticks, schedule_id, begin, limit))
        return [schedules.tick_of(row) for row in rows]

    async def trim_ticks(self, before: Ticks, schedule_id: str | None = None) -> int:
        (trimmed,) = await self._write(_TRIM, [(before, schedule_id)])
        return int(trimmed)

    # -- dead letters and upkeep -----------------------------------------------------------------------

    async def dead_letters(self, *, limit: int = 100, after: int = 0) -> list[StoredDeadLetter]:
        rows = self._read(lambda reader: reader.all(sql.dead_letters, after, limit))
        return [StoredDeadLetter(number=number, at=at, letter=decode_letter(letter)) for number, at, letter in rows]

    async def resend(self, numbers: Sequence[int]) -> int:
        return sum(await self._write(_RESEND, list(numbers))) if numbers else 0

    async def dismiss(self, numbers: Sequence[int]) -> int:
        return sum(await self._write(_DISMISS, list(numbers))) if numbers else 0

    async def expired(
        self,
        name: str | None,
        completed_before: Ticks | None,
        keep: int | None,
        limit: int,
        excluding: Sequence[str] = (),
    ) -> list[str]:
        return await self._look(lambda reader: reader.expired(name, completed_before, keep, limit, excluding))

    async def upkeep(self) -> None:
        size, free = (await self._look(lambda reader: reader.all(sql.file_size)))[0]
        if free > max(size // 10, 4 * 1024 * 1024):
            (left,) = await self._write(_VACUUM, [upkeep.VACUUM_PAGES])
            while left > upkeep.VACUUM_PAGES:
                (left,) = await self._write(_VACUUM, [upkeep.VACUUM_PAGES])
        if self._wal_bytes() > _WAL_BYTES:
            await self._look(lambda reader: reader.checkpoint())

    def _wal_bytes(self) -> int:
        try:
            return os.stat(f"{self.path}-wal").st_size
        except OSError:
            return 0

    async def info(self) -> HubInfo:
        return await self._look(lambda reader: reader.info(self._wal_bytes()))

    async def backup(self, target: str) -> None:
        await self._look(lambda reader: backup.copy(self.path, target))
