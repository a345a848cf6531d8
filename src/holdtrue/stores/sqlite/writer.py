"""The writer: gathers the operations of a store, and applies them in few transactions.

Where syncs are slow, or others write to the hub too, a thread writes: while one transaction is on its way to
the disk, the next operations gather.  Where this store is alone and syncs take less than a switch between
threads is worth, small transactions are done on the loop: what one turn of the loop brings is one.  A
failing operation takes no other down: what was tried together is then done one by one.  Knows nothing of
what operations do.

Nobody waits for ever: a thread that does not get its turn (who has it may be stopped) is left behind, and
another goes on without turns; SQLite's own lock is waited for so long, then it is an error.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

import apsw

from holdtrue.environment import Environment
from holdtrue.stores import errors

from .connection import BUSY_MILLISECONDS, outdated, shut
from .errors import translate
from .log_again import write_log_again
from .statements import sql
from .transaction import Contested, Transaction

_AWAY_SECONDS = 0.003
"""So long a transaction may be held up (by a wait for the interpreter's lock)."""
_AWAY_TRANSACTIONS = 3
"""After so many in a row that were held up, statements take their other form."""
_JSON_TRANSACTIONS = 256
"""So many transactions keep that form, then the first one is tried again."""
_QUICK_SECONDS = 0.0015
"""Syncs that take no longer are waited for on the loop."""
_SMALL = 400
"""Rows of a transaction on the loop; what has more goes to the thread."""
_MEMORY = 0.9
"""How much of the mean time of a sync stays when the next one is taken in."""
_PATIENCE_SECONDS = 2.0
"""Who waits longer for others says so, and waits for its turn no more."""


class Operation(NamedTuple):
    """What a write does: `apply` takes a transaction and items, and gives as many outcomes.

    One that is not `durable` need not be on disk when it is answered; a `heavy` one may take long.
    """

    apply: Callable[[Transaction, list[Any]], Sequence[Any]]
    durable: bool = True
    heavy: bool = False


class _Entry:
    __slots__ = ("abandoned", "error", "future", "items", "operation", "result")

    def __init__(
        self,
        operation: Operation,
        items: list[Any],
        future: "asyncio.Future[Any]",
        abandoned: Callable[[Any], None] | None,
    ) -> None:
        self.operation = operation
        self.items = items
        self.future = future
        self.abandoned = abandoned
        self.result: Any = None
        self.error: Exception | None = None


class _LeftBehind(Exception):
    """This thread waited too long for its turn: another does its work."""


class Surroundings:
    """What the writer asks of its store; the store fills it in."""

    path: str
    synchronous: str = "full"

    def connect(self) -> apsw.Connection:
        """A fresh connection for writing."""
        raise NotImplementedError

    def check_file(self) -> None:
        """Raise StoreMissing where the hub's file is gone."""

    def turn(self) -> Any:
        """The turn of a writer among several processes."""
        raise NotImplementedError

    def shared(self) -> bool:
        """Whether other stores are open on this hub."""
        return False

    def host(self) -> int:
        """The number of this store's host, 0 if it has not joined."""
        return 0

    def host_lost(self) -> None:
        """This store's host was taken for dead."""

    def token(self) -> int:
        """A fencing token of this store's host."""
        return 0

    def kept_waiting(self, seconds: float) -> None:
        """The writer has been waiting so long for others: to be told."""

    def committed(self, transaction: Transaction) -> None:
        """Tell others what a transaction changed."""

    def written(self, connection: apsw.Connection) -> None:
        """A transaction was committed; the log has grown."""


class Writer:
    """Applies operations; `submit` gives a future of the outcomes.  `close` ends it when all is done."""

    def __init__(self, surroundings: Surroundings, environment: Environment, loop: asyncio.AbstractEventLoop) -> None:
        self._around = surroundings
        self._environment = environment
        self._loop = loop
        self._inline = environment.inline_writer
        self._queue: SimpleQueue[_Entry | None] = SimpleQueue()
        self._connection: apsw.Connection | None = None
        self._synced = True
        self._patient = True
        self._mark_base = environment.random().getrandbits(40) << 22
        self._marks = 0
        self._doubts = 0
        self._settled = 0
        self._json_left = 0
        self._held_up = 0
        self._sync_seconds = 0.0
        self._in_thread = 0
        self._pending: list[_Entry] = []
        self._closed = False
        self._ended: asyncio.Future[None] = loop.create_future()
        self._waiting: float | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._told: float | None = None
        self._deciding: Any = environment.mutex()
        self._for_turn = False
        self._turnless = False
        self._batch: list[_Entry] = []
        self._undone: list[_Entry] = []
        self._ending = False
        if not self._inline:
            environment.thread(self._run, "holdtrue-sqlite-writer")

    def submit(
        self,
        operation: Operation,
        items: list[Any],
        abandoned: Callable[[Any], None] | None = None,
        rows: int | None = None,
    ) -> "asyncio.Future[Any]":
        """The outcomes of an operation, one for each item, in a future.

        `abandoned` is called with them where nobody waits for the future any more.  `rows` is about how many
        rows it writes, where that is not one an item.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(errors.StoreUnavailable(f"hub {self._around.path!r} is closed; open it first"))
            return future
        entry = _Entry(operation, items, future, abandoned)
        pending = self._pending
        pending.append(entry)
        if self._inline:
            self._drain()
        elif operation.heavy or (len(items) if rows is None else rows) > _SMALL or not self._is_quick():
            self._hand_over()
        elif len(pending) == 1 and not self._in_thread:
            self._loop.call_soon(self._drain)
        return future

    def doubt(self) -> None:
        """The disk may lack what stands in the log, as a sync failed: it is written again before the next commit."""
        self._doubts += 1

    def _is_quick(self) -> bool:
        """Whether a small transaction had better be done on the loop."""
        return self._sync_seconds < _QUICK_SECONDS and not self._around.shared()

    def _drain(self) -> None:
        """Write what is pending, on the loop; while the thread has the connection, that waits."""
        if not self._pending or self._in_thread:
            return
        if not self._inline and self._around.shared():
            # Somebody has come: there are turns to be waited for.
            self._hand_over()
            return
        entries, self._pending = self._pending, []
        self._work(entries, on_loop=True)
        if not self._inline:
            busy = [entry for entry in entries if entry.error is not None and _is_busy(entry.error)]
            if busy:
                # The loop waits for nobody.
                for entry in busy:
                    entry.error = None
                entries = [entry for entry in entries if entry not in busy]
                self._pending[:0] = busy
                self._hand_over()
        _resolve(entries, self._closed)

    def _hand_over(self) -> None:
        entries, self._pending = self._pending, []
        self._in_thread += len(entries)
        for entry in entries:
            self._queue.put(entry)
        if entries and self._watching is None:
            self._watching = self._environment.call_later(_PATIENCE_SECONDS / 2, self._watch)

    def _watch(self) -> None:
        """Called on the loop from time to time while the thread works: does it wait for others?"""
        self._watching = None
        if self._in_thread:
            self._watching = self._environment.call_later(_PATIENCE_SECONDS / 2, self._watch)
        since = self._waiting
        if since is None or self._environment.monotonic() - since < _PATIENCE_SECONDS:
            return
        if since != self._told:
            self._told = since
            self._around.kept_waiting(self._environment.monotonic() - since)
        with self._deciding:
            if not self._for_turn:
                return
            self._for_turn = False
            self._turnless = True
        self._environment.thread(self._go_on, "holdtrue-sqlite-writer")

    def _thread_did(self, entries: list[_Entry]) -> None:
        """Called on the loop."""
        self._in_thread -= len(entries)
        _resolve(entries, self._closed)
        if self._pending and not self._in_thread:
            self._loop.call_soon(self._drain)

    async def close(self) -> None:
        """Do what was submitted, then end."""
        if self._closed:
            return
        self._closed = True
        if self._inline:
            self._part()
            return
        self._hand_over()
        self._queue.put(None)
        await self._ended

    # -- the thread ------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """In the place of a thread that was left behind: what it had in hand, then all that follows."""
        if self._do_batch():
            self._run()

    def _run(self) -> None:
        take, empty, at_once = self._queue.get, self._queue.empty, self._queue.get_nowait
        while True:
            entry = take()
            entries: list[_Entry] = []
            ending = entry is None
            if entry is not None:
                entries.append(entry)
            while not empty():
                entry = at_once()
                if entry is None:
                    ending = True
                else:
                    entries.append(entry)
            self._batch, self._undone, self._ending = entries, entries, ending
            if not self._do_batch():
                return

    def _do_batch(self) -> bool:
        """Do what is in hand; false where that was the last, or another does it."""
        batch, ending, tell = self._batch, self._ending, self._loop.call_soon_threadsafe
        try:
            if batch:
                self._work(self._undone)
                tell(self._thread_did, batch)
        except _LeftBehind:
            return False
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            ending = True
        if ending:
            self._part()
            with contextlib.suppress(RuntimeError):
                tell(self._end)
        return not ending

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._synced = self._patient = True
        if connection is not None:
            shut(connection)

    def _part(self) -> None:
        """The last thing done: who closes a hub last takes its log away, which must not be in doubt then."""
        if self._doubts != self._settled:
            with contextlib.suppress(apsw.Error, errors.StoreError):
                self._connection = self._connection or self._around.connect()
                self._write_over(self._connection)
        self._disconnect()

    def _work(self, entries: list[_Entry], *, on_loop: bool = False) -> None:
        """Apply entries: together, else one by one.  Raises only `_LeftBehind`."""
        self._undone = entries
        error = self._attempt(entries, on_loop)
        if error is None:
            return
        if len(entries) == 1 or _is_busy(error):
            for entry in entries:
                entry.error = error
            return
        for at, entry in enumerate(entries):
            self._undone = entries[at:]
            error = entry.error = self._attempt([entry], on_loop)
            if error is not None and _is_busy(error):
                for following in entries[at:]:
                    following.error = error
                return

    def _turn(self, on_loop: bool) -> contextlib.AbstractContextManager[Any]:
        """The turn, once it is there, for a thread that is still wanted; where there are none, nothing."""
        if on_loop or self._turnless:
            return contextlib.nullcontext()
        stack = contextlib.ExitStack()
        self._for_turn = True
        stack.enter_context(self._around.turn())
        with self._deciding:
            wanted, self._for_turn = self._for_turn, False
        if not wanted:
            # Turns are given again.
            self._turnless = False
            stack.close()
            raise _LeftBehind
        return stack

    def _attempt(self, entries: list[_Entry], on_loop: bool) -> Exception | None:
        """One transaction over all entries; the error, after which nothing of it stands."""
        around = self._around
        try:
            around.check_file()
            if self._connection is None:
                self._connection = around.connect()
            if self._patient is on_loop and not self._inline:
                self._patient = not on_loop
                self._connection.set_busy_timeout(0 if on_loop else BUSY_MILLISECONDS)
            self._waiting = self._environment.monotonic()
            with self._turn(on_loop):
                if self._doubts != self._settled:
                    self._write_over(self._connection)
                try:
                    transaction = self._transact(self._connection, entries, careful=False)
                except Contested:
                    transaction = self._transact(self._connection, entries, careful=True)
        except _LeftBehind:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer of these operations
            self._waiting = None
            typed = translate(error, around.path)
            if isinstance(typed, errors.StoreMissing | errors.StoreCorrupt):
                self._disconnect()
            return typed
        if transaction.work or transaction.changed or transaction.schedules:
            around.committed(transaction)
        return None

    def _transact(self, connection: apsw.Connection, entries: list[_Entry], *, careful: bool) -> Transaction:
        around, environment = self._around, self._environment
        durable = False
        for entry in entries:
            if entry.operation.durable:
                durable = True
                break
        if durable is not self._synced and around.synchronous == "full":
            # What only takes locks need not be on disk; the next durable commit syncs it along.
            connection.execute("pragma synchronous = full" if durable else "pragma synchronous = normal")
            self._synced = durable
        execute = connection.execute
        execute(sql.begin)
        self._waiting = None
        try:
            clock, cpu = environment.monotonic(), environment.thread_cpu()
            host = around.host()
            if durable:
                self._marks += 1
                mark = self._mark_base | self._marks
                counters = execute(sql.set_mark, (mark, host))
            else:
                counters = execute(sql.counters, (host,))
            row = counters.fetchone()
            if row is None:
                raise outdated(around.path)
            instance, message, alive = row
            # Not stepped to its end: each step takes the interpreter's lock anew.  What it changes is done.
            counters.close()
            if host and not alive:
                around.host_lost()
                host = 0
            transaction = Transaction(
                connection,
                now=environment.now(),
                host=host,
                counters=(instance, message),
                token=around.token,
                careful=careful,
                shared=around.shared(),
                as_json=self._json_left > 0,
            )
            if len(entries) == 1:
                entries[0].result = entries[0].operation.apply(transaction, entries[0].items)
            else:
                _apply_grouped(transaction, entries)
            if transaction.message != message or transaction.instance != instance:
                execute(sql.count, (transaction.instance, transaction.message))
            self._judge(environment.monotonic() - clock, environment.thread_cpu() - cpu)
        except BaseException:
            self._undo(connection)
            raise
        clock = environment.monotonic()
        try:
            execute(sql.commit)
        except apsw.Error as error:
            self._undo(connection)
            if not durable or not isinstance(error, apsw.IOError) or not self._took_effect(mark, error):
                raise
            return transaction
        if durable and not self._json_left and not self._held_up:
            took = environment.monotonic() - clock
            self._sync_seconds = self._sync_seconds * _MEMORY + took * (1 - _MEMORY)
        around.written(connection)
        return transaction

    def _undo(self, connection: apsw.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute(sql.rollback)
        except apsw.Error:
            self._disconnect()

    def _took_effect(self, mark: int, failure: apsw.Error) -> bool:
        """After a commit whose answer was an error of the disk: did it take effect, for good?  A fresh look decides."""
        self._disconnect()
        self.doubt()
        try:
            self._connection = self._around.connect()
            there: bool = self._connection.execute(sql.mark).get == mark
        except (apsw.Error, errors.StoreError) as error:
            # What this host holds now is not known: by joining again it begins with nothing.
            self._around.host_lost()
            raise errors.OutcomeUnknown(
                f"hub {self._around.path!r}: the disk failed during a commit, and cannot be read back ({error}). "
                "Look whether the work is there before doing it again"
            ) from error
        try:
            self._write_over(self._connection)
        except apsw.Error as error:
            self._disconnect()
            if not there and getattr(failure, "extendedresult", None) == apsw.SQLITE_IOERR_WRITE:
                # What was not written whole does not come back.
                return False
            where = "there, but might be lost" if there else "not there, but would come back"
            raise errors.OutcomeUnknown(
                f"hub {self._around.path!r}: the disk failed during a commit, and goes on failing ({error}). The work "
                f"is {where} if the machine or all processes failed now. Look whether it is there before doing it again"
            ) from error
        return there

    def _write_over(self, connection: apsw.Connection) -> None:
        """After a sync that failed: let the log be on the disk as it stands.

        What was committed may be missing there; and a transaction that was undone may stand whole behind it, and
        would come back after a crash: another one takes its place.
        """
        doubts = self._doubts
        self._marks += 1
        if not self._synced and self._around.synchronous == "full":
            connection.execute("pragma synchronous = full")
            self._synced = True
        connection.execute(sql.begin)
        try:
            write_log_again(self._around.path)
            connection.execute(sql.set_mark, (self._mark_base | self._marks, 0)).fetchall()
            connection.execute(sql.commit)
        except BaseException:
            self._undo(connection)
            raise
        self._settled = doubts

    def _judge(self, wall: float, cpu: float) -> None:
        """Choose the statements' form: each row bound takes the interpreter's lock again, 5 ms where it is busy."""
        if self._json_left:
            self._json_left -= 1
        elif wall - cpu > _AWAY_SECONDS and wall > 3 * cpu:
            self._held_up += 1
            if self._held_up >= _AWAY_TRANSACTIONS:
                self._held_up = 0
                self._json_left = _JSON_TRANSACTIONS
        else:
            self._held_up = 0


def _is_busy(error: Exception) -> bool:
    return isinstance(error.__cause__, apsw.BusyError)


def _apply_grouped(transaction: Transaction, entries: list[_Entry]) -> None:
    groups: dict[Operation, list[_Entry]] = {}
    for entry in entries:
        group = groups.get(entry.operation)
        if group is None:
            groups[entry.operation] = [entry]
        else:
            group.append(entry)
    for operation, group in groups.items():
        if len(group) == 1:
            group[0].result = operation.apply(transaction, group[0].items)
            continue
        items: list[Any] = []
        for entry in group:
            items += entry.items
        results = operation.apply(transaction, items)
        at = 0
        for entry in group:
            end = at + len(entry.items)
            entry.result = results[at:end]
            at = end


def _resolve(entries: list[_Entry], closed: bool) -> None:
    for entry in entries:
        future = entry.future
        if future.done():
            if entry.abandoned is not None and entry.error is None and not closed:
                entry.abandoned(entry.result)
        elif entry.error is not None:
            future.set_exception(entry.error)
        else:
            future.set_result(entry.result)
