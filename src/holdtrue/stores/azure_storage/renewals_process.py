"""The host's side of the process that renews for it: says what is to be renewed, and knows what was.

A message that is done with before it is due for its first renewal costs no question: its withdrawal stands in the
link, readable, before that moment, and the process reads all that stands there after that moment and before it renews
anything.  Both go by one monotonic clock, which is checked at the start.  Only what is asked for later is asked of the
process, which tells the receipt when no renewal is under way.

What was read last tells how long a partition is ours.  When that moment has passed, the link is read before anything
is said to be lost: a host whose loop stood still has a lot to read.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.environment import Environment, python_arguments
from holdtrue.stores.errors import StoreUnavailable

from .http.connection import Reopening
from .partitions import Lease
from .renewals import Standing
from .renewals_messages import (
    Alive,
    AppLeaseStands,
    Ask,
    Command,
    DropAppLease,
    Dropped,
    DropRow,
    Ends,
    Forget,
    Has,
    Hold,
    KeepAppLease,
    KeepRow,
    Link,
    Ready,
    Receipt,
    Report,
    RowStands,
    Setup,
    SocketLink,
    Withdraw,
    encode,
    reports,
)
from .renewing import AppLeaseHeld, Message, RenewalTerms

log = logging.getLogger("holdtrue.azure_storage")

START_SECONDS = 30.0
"""A process that has not begun within so long is given up."""
BEAT_SECONDS = 2.0
"""How often the host's loop gives a sign of life; the process answers each."""
MOST_UNANSWERED = 10
"""After so many signs without an answer the process is taken for stuck."""
MOST_DEATHS = 5
"""After so many deaths within a minute no other process is started."""
END_SECONDS = 0.01
END_PATIENCE = 200


class Child(Protocol):
    """A process that was started."""

    @property
    def link(self) -> Link: ...

    def kill(self) -> None:
        """End it now."""

    def has_ended(self) -> bool:
        """Whether the system has taken it."""


class ChildProcess:
    """A process of the system's.  Raises OSError where it gives none."""

    def __init__(self, environment: Environment) -> None:
        ours, theirs = socket.socketpair()
        try:
            statement = (
                "from holdtrue.stores.azure_storage.renewals_child import main; "
                f"main({theirs.fileno()}, {environment.pid()})"
            )
            self._process = environment.spawn(python_arguments(statement), theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.link: Link = SocketLink(ours)
        self.pid = self._process.pid

    def kill(self) -> None:
        try:
            self._process.kill()
        except OSError:
            pass  # it has ended already

    def has_ended(self) -> bool:
        return self._process.poll() is not None


class _Kept(msgspec.Struct):
    lease: Lease
    standing: Standing


class ProcessRenewals:
    """`Renewals` by a process that `start` starts.

    `changed` is called as a `Renewer` calls it; `gone` when no process can be had: what is in hand runs out by itself.
    """

    def __init__(
        self,
        start: Callable[[], Child],
        account: Reopening,
        environment: Environment,
        terms: RenewalTerms,
        *,
        changed: Callable[[str | None], None],
        gone: Callable[[], None],
    ) -> None:
        self._start = start
        self._account = account
        self._environment = environment
        self._terms = terms
        self._changed = changed
        self._gone = gone
        self._child: Child | None = None
        self._begun: asyncio.Future[Ready] | None = None
        self._working = asyncio.Event()
        self._closing = False
        self._messages: dict[int, Message] = {}
        self._rows: dict[str, _Kept] = {}
        self._app_lease: AppLeaseHeld | None = None
        self._app_lease_until = 0.0
        self._offset: float | None = None
        self._batch: list[Command] = []
        self._written: asyncio.Future[bool] | None = None
        self._turn = 0
        self._turns: dict[int, asyncio.Future[Sequence[int]]] = {}
        self._asked: dict[int, asyncio.Future[Receipt | None]] = {}
        self._dropped: asyncio.Future[None] | None = None
        self._why = ""
        self._deaths: list[float] = []
        self._unanswered = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # -- the process -----------------------------------------------------------------------------------

    async def open(self) -> None:
        try:
            await self._begin()
        except OSError as error:
            raise StoreUnavailable(
                f"the process that renews this host's leases could not be started ({error}): try again, or have them "
                "renewed in the host's own process (renew_in_process in the settings)"
            ) from error
        self._spawn(self._beat())

    async def close(self) -> None:
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        child, self._child = self._child, None
        self._working.set()
        self._answer_nothing()
        if child is not None:
            child.link.close()  # its end tells it
            await self._reap(child, END_PATIENCE)

    async def _begin(self) -> None:
        """Start a process and tell it what is in hand.  Raises OSError where there is none, or it does not begin."""
        child = self._start()
        self._begun = asyncio.get_running_loop().create_future()
        self._child, self._why, self._unanswered = child, "", 0
        sent = self._environment.monotonic()
        child.link.listen(self._hear)
        child.link.write(encode([Setup(self._account, self._terms)]))
        try:
            async with asyncio.timeout(START_SECONDS):
                ready = await self._begun
        except TimeoutError:
            await self._discard(child)
            raise OSError(f"it did not begin within {START_SECONDS:g} s") from None
        except BaseException:
            await self._discard(child)
            raise
        if not sent <= ready.now <= self._environment.monotonic():
            await self._discard(child)
            raise OSError("its monotonic clock is not this process's")
        now = self._environment.monotonic()
        self._rows = {partition: kept for partition, kept in self._rows.items() if now < kept.standing.until}
        for kept in self._rows.values():
            self._put(KeepRow(kept.lease, kept.standing.until))
        if self._app_lease is not None and now < self._app_lease_until:
            self._put(KeepAppLease(self._app_lease, self._app_lease_until))
        if self._offset is not None:
            self._put(Alive(self._offset))
        self._working.set()
        await self._hold_again(now)

    async def _hold_again(self, now: float) -> None:
        """What was due already may have a receipt that only the dead process knew."""
        before = self._messages
        self._messages = {number: one for number, one in before.items() if now < self._terms.first_due(one.taken_at)}
        if len(self._messages) < len(before):
            log.warning(
                "%d messages in hand are renewed no more: they come to some host again within %d s",
                len(before) - len(self._messages),
                self._terms.renewed,
            )
        if self._messages:
            held = await self.hold(list(self._messages.values()))
            self._messages = {number: one for number, one in self._messages.items() if number in held}

    async def _discard(self, child: Child) -> None:
        if self._child is child:
            self._child = None
        child.kill()
        child.link.close()
        await self._reap(child, END_PATIENCE)

    async def _reap(self, child: Child, patience: int) -> None:
        for turn in range(2 * patience):
            if child.has_ended():
                return
            if turn == patience:
                child.kill()
            await self._environment.sleep(END_SECONDS)

    def _died(self) -> None:
        """The link has ended: start another, and tell it what is in hand."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        self._working.clear()
        self._answer_nothing()
        if self._begun is not None and not self._begun.done():
            self._begun.set_exception(OSError(self._why or "it ended before it had begun"))
            return
        if self._closing:
            return
        log.warning(
            "the process that renews this host's leases has ended (%s); another is started",
            self._why or "killed, or by a defect",
        )
        self._spawn(self._follow(child))

    async def _follow(self, child: Child) -> None:
        await self._reap(child, END_PATIENCE)
        while True:
            now = self._environment.monotonic()
            self._deaths = [*(moment for moment in self._deaths if moment > now - 60.0), now]
            if len(self._deaths) > MOST_DEATHS:
                log.error(
                    "the process that renews this host's leases ended %d times within a minute: this host gives up "
                    "its part in the hub, and joins again",
                    len(self._deaths) - 1,
                )
                self._working.set()  # nobody waits for what does not come
                self._gone()
                return
            try:
                await self._begin()
            except OSError as error:
                log.warning("no process to renew this host's leases could be started: %s", error)
                await self._environment.sleep(0.2 * 2 ** len(self._deaths))
            else:
                return

    async def _beat(self) -> None:
        """Signs of life; and whether there are some of the process."""
        seconds = min(BEAT_SECONDS, self._terms.silence / 4)
        while True:
            await self._environment.sleep(seconds)
            self._hear()
            child = self._child
            if child is None or not self._working.is_set():
                continue
            if self._unanswered >= MOST_UNANSWERED:
                self._why = "it did not answer any more, and was killed"
                self._died()
                child.link.close()
                continue
            self._unanswered += 1
            self._put(Alive(self._offset))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- what is said and heard ------------------------------------------------------------------------

    def _put(self, command: Command) -> asyncio.Future[bool]:
        """Say something with all that is said in this step of the loop; whether the process can read it then."""
        self._batch.append(command)
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(self._write)
        return self._written

    def _write(self) -> None:
        batch, self._batch = self._batch, []
        written, self._written = self._written, None
        done = self._child is not None and self._child.link.write(encode(batch))
        if written is not None and not written.done():
            written.set_result(done)

    def _hear(self) -> None:
        """Read what the process has said; what follows from it, but for moments, comes in a later step of the loop."""
        child = self._child
        if child is None:
            return
        for body in child.link.read():
            try:
                said = reports.decode(body)
            except msgspec.DecodeError as error:
                self._why = f"something else wrote into its socket: {error}"
                child.kill()
                return
            for report in said:
                self._note(report)
        if child.link.ended:
            asyncio.get_running_loop().call_soon(partial(self._ended, child))

    def _ended(self, child: Child) -> None:
        if self._child is child:
            self._died()

    def _note(self, report: Report) -> None:
        match report:
            case RowStands(partition, standing):
                kept = self._rows.get(partition)
                if kept is not None:
                    kept.standing = standing
                    kept.lease = msgspec.structs.replace(kept.lease, etag=standing.etag)
                    self._later(partial(self._changed, partition))
            case AppLeaseStands(until):
                if self._app_lease is not None:
                    self._app_lease_until = until
                    self._later(partial(self._changed, None))
            case Has(turn, numbers):
                _answer(self._turns.pop(turn, None), numbers)
            case Receipt(number):
                _answer(self._asked.pop(number, None), report)
            case Dropped():
                _answer(self._dropped, None)
            case Ready():
                _answer(self._begun, report)
            case Ends(why):
                self._why = why
            case Alive():
                self._unanswered = 0

    def _later(self, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(call)

    def _answer_nothing(self) -> None:
        """Nobody answers any more what was asked."""
        turns, self._turns = self._turns, {}
        asked, self._asked = self._asked, {}
        for turn in turns.values():
            _answer(turn, ())
        for one in asked.values():
            _answer(one, None)
        _answer(self._dropped, None)

    # -- messages --------------------------------------------------------------------------------------

    async def ready(self) -> None:
        await self._working.wait()

    async def hold(self, messages: Sequence[Message]) -> frozenset[int]:
        if self._child is None:
            return frozenset()
        self._turn += 1
        turn = self._turn
        answer: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()
        self._turns[turn] = answer
        self._put(Hold(turn, list(messages)))
        patience = max(one.taken_at for one in messages) + self._terms.take - self._environment.monotonic()
        try:
            async with asyncio.timeout(max(patience, 0.0)):
                await answer
        except TimeoutError:
            if not answer.done():  # it may have come in the same step of a loop that stood still
                log.warning("the process that renews this host's leases is late: %d messages come again", len(messages))
        finally:
            self._turns.pop(turn, None)
        numbers = frozenset(answer.result() if answer.done() and not answer.cancelled() else ())
        for one in messages:
            if one.number in numbers:
                self._messages[one.number] = one
        return numbers

    async def withdraw(self, number: int) -> str | None:
        one = self._messages.pop(number, None)
        if one is None:
            return None
        due = self._terms.first_due(one.taken_at)
        if self._child is None:
            # The last one has renewed nothing before it was due.
            return one.receipt if self._environment.monotonic() < due else None
        if self._environment.monotonic() < due:
            can_be_read = await self._put(Withdraw(number))
            if can_be_read and self._environment.monotonic() < due:
                return one.receipt
        answer: asyncio.Future[Receipt | None] = asyncio.get_running_loop().create_future()
        if self._child is None:
            return None
        self._asked[number] = answer
        self._put(Ask(number))
        receipt = await answer
        if receipt is None:
            return None
        return receipt.receipt if receipt.known else one.receipt

    def forget(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._messages.pop(number, None)
        if numbers:
            self._put(Forget(list(numbers)))

    # -- leases ----------------------------------------------------------------------------------------

    def keep_row(self, lease: Lease, until: float) -> None:
        self._rows[lease.partition] = _Kept(lease, Standing(until))
        self._put(KeepRow(lease, until))

    def drop_row(self, partition: str) -> None:
        if self._rows.pop(partition, None) is not None:
            self._put(DropRow(partition))

    def row(self, partition: str) -> Standing | None:
        kept = self._rows.get(partition)
        if kept is not None and self._environment.monotonic() >= kept.standing.until:
            self._hear()
            kept = self._rows.get(partition)
        return None if kept is None else kept.standing

    def keep_app_lease(self, held: AppLeaseHeld, until: float) -> None:
        self._app_lease, self._app_lease_until = held, until
        self._put(KeepAppLease(held, until))

    async def drop_app_lease(self) -> None:
        self._app_lease = None
        if self._child is not None:
            self._dropped = asyncio.get_running_loop().create_future()
            self._put(DropAppLease())
            await self._dropped

    def app_lease_until(self) -> float:
        if self._app_lease is None:
            return 0.0
        if self._environment.monotonic() >= self._app_lease_until:
            self._hear()
        return self._app_lease_until

    def tell_time(self, offset: float) -> None:
        before, self._offset = self._offset, offset
        if before is None or abs(before - offset) > TICKS_PER_SECOND / 10:
            self._put(Alive(offset))


def _answer(future: "asyncio.Future[Any] | None", value: Any) -> None:
    if future is not None and not future.done():
        future.set_result(value)
