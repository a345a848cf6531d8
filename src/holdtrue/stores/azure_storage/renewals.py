"""Renews what a host has: the rows of its partitions, its app lease, its messages in hand.

`Renewals` is what a host asks for; `Renewer` does it, on the loop that it runs on: the host's own, or that of a
process beside it that runs no user code (`renewals_process`).

A row is renewed only if it is as it was (If-Match).  The host writes it too, when it changes more than its times;
whoever is refused reads the row, and goes on from there as long as it names this host.  So nobody owns an etag.

Renewal and deletion of a message are never under way at once: who deletes it withdraws it first.  After a renewal
whose answer is lost the receipt is unknown, and the message may come to another.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.environment import Environment

from .partitions import Lease
from .prolonging import prolonging
from .renewing import AppLeaseHeld, Message, RenewalTerms, pause_after
from .service import Conflict, NotThere, Service, ServiceError

log = logging.getLogger("holdtrue.azure_storage")

FINEST = 0.02
"""Seconds between two looks at what is due, at least."""
LONGEST_REST = 60.0
CLOCK_STEP = 1.0
"""When the service's time turns out to be another by more seconds, the rows are written anew."""


class Standing(msgspec.Struct, array_like=True):
    """How a partition's row stands: ours until then (monotonic); the etag of its last renewal, and when that was
    answered."""

    until: float
    etag: str = ""
    answered: float = 0.0


class Renewals(Protocol):
    """What a host has renewed.  Moments are on the monotonic clock, which is one for all processes of a machine."""

    async def open(self) -> None:
        """Begin.  Raises StoreUnavailable where nothing could be renewed."""

    async def close(self) -> None:
        """Renew nothing any more; idempotent."""

    async def ready(self) -> None:
        """Return when what is got now can be held."""

    async def hold(self, messages: Sequence[Message]) -> frozenset[int]:
        """Renew these from now on, anew with another receipt where they are held already.

        Gives the numbers of those that are in hand now; what came too late is not among them.
        """

    async def withdraw(self, number: int) -> str | None:
        """Renew a message no more: its newest receipt when no renewal is under way; None where it is unknown."""

    def forget(self, numbers: Sequence[int]) -> None:
        """Renew these no more, and let them come back when their time is over."""

    def keep_row(self, lease: Lease, until: float) -> None:
        """Renew the row of a partition that is ours until then."""

    def drop_row(self, partition: str) -> None:
        """Renew it no more."""

    def row(self, partition: str) -> Standing | None:
        """What is known of a row that is renewed; None where it is not (any more)."""

    def keep_app_lease(self, held: AppLeaseHeld, until: float) -> None:
        """Renew the app lease, which is ours until then."""

    async def drop_app_lease(self) -> None:
        """Renew it no more; returns when no renewal is under way."""

    def app_lease_until(self) -> float:
        """Until when the app lease is ours; 0 where it is lost."""

    def tell_time(self, offset: float) -> None:
        """By how many ticks the service's clock is before the monotonic one."""


class _Held:
    """One thing that is renewed: when next, and the renewal that is under way."""

    __slots__ = ("failures", "next_at", "task")

    def __init__(self, next_at: float) -> None:
        self.next_at = next_at
        self.failures = 0
        self.task: asyncio.Task[None] | None = None

    async def rests(self) -> None:
        """Return when no renewal of it is under way."""
        while self.task is not None:
            await asyncio.wait([self.task])

    def troubled(self, now: float) -> None:
        """Its renewal was not answered."""
        self.failures += 1
        self.next_at = now + pause_after(self.failures)


class MessageHeld(_Held):
    """A message that is renewed.  `receipt` None: it is not known any more."""

    __slots__ = ("id", "queue", "receipt", "was_renewed")

    def __init__(self, message: Message, next_at: float) -> None:
        super().__init__(next_at)
        self.queue = message.queue
        self.id = message.id
        self.receipt: str | None = message.receipt
        self.was_renewed = False

    @property
    def renewed(self) -> bool:
        """Whether a renewal of it was begun, or is about to be."""
        return self.was_renewed or self.task is not None


class _Row(_Held):
    __slots__ = ("lease", "standing")

    def __init__(self, lease: Lease, until: float, next_at: float) -> None:
        super().__init__(next_at)
        self.lease = lease
        self.standing = Standing(until)


class _AppLease(_Held):
    __slots__ = ("held", "until")

    def __init__(self, held: AppLeaseHeld, until: float, next_at: float) -> None:
        super().__init__(next_at)
        self.held = held
        self.until = until


class Renewer:
    """Renews on the loop that it runs on.

    `changed` is called when something was renewed, with the partition's name (None: the app lease); what of it stands
    is asked for then.  `before` is called when something is due, before it is looked at what.
    """

    def __init__(
        self,
        service: Service,
        environment: Environment,
        terms: RenewalTerms,
        *,
        changed: Callable[[str | None], None] = lambda partition: None,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._service = service
        self._environment = environment
        self._terms = terms
        self._partitions = prolonging(service, terms)
        self._changed = changed
        self._before = before
        self._offset: float | None = None
        self._messages: dict[int, MessageHeld] = {}
        self._rows: dict[str, _Row] = {}
        self._app_lease: _AppLease | None = None
        self._wake = asyncio.Event()
        self._sleeps_until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Renew nothing any more; what is under way is cut off."""
        self._messages.clear()
        self._rows.clear()
        self._app_lease = None
        loop, self._loop = self._loop, None
        tasks = [*self._tasks, *(() if loop is None else (loop,))]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- messages --------------------------------------------------------------------------------------

    async def ready(self) -> None:
        pass

    async def hold(self, messages: Sequence[Message]) -> frozenset[int]:
        return self.held(messages)

    def held(self, messages: Sequence[Message]) -> frozenset[int]:
        """As `hold`, at once."""
        now = self._environment.monotonic()
        there = [message for message in messages if self._terms.is_in_time(message, now)]
        for message in there:
            # A renewal of an older receipt that is under way ends with its own, which is no longer looked at.
            one = MessageHeld(message, self._terms.first_due(message.taken_at))
            self._messages[message.number] = one
            self._plan(one)
        return frozenset(message.number for message in there)

    async def withdraw(self, number: int) -> str | None:
        one = self.take_out(number)
        if one is None:
            return None
        await one.rests()
        return one.receipt

    def take_out(self, number: int) -> MessageHeld | None:
        """Begin no renewal of a message any more; one may be under way."""
        return self._messages.pop(number, None)

    def forget(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._messages.pop(number, None)

    async def _renew_message(self, one: MessageHeld) -> None:
        receipt, sent = one.receipt, self._environment.monotonic()
        assert receipt is not None
        one.receipt, one.was_renewed = None, True  # unless it is answered, it has one that nobody knows
        try:
            one.receipt = await self._service.queues.hide(one.queue, one.id, receipt, self._terms.renewed)
        except ServiceError as error:
            log.debug("message %s of queue %s is not known to be renewed: %s", one.id, one.queue, error)
        one.next_at = self._terms.next_due(sent)

    # -- partitions ------------------------------------------------------------------------------------

    def keep_row(self, lease: Lease, until: float) -> None:
        # Its last renewal is as long ago as what is left of the lease says.
        sent = until - self._terms.row_until(0.0)
        row = self._rows[lease.partition] = _Row(lease, until, sent + self._terms.renew)
        self._plan(row)

    def drop_row(self, partition: str) -> None:
        self._rows.pop(partition, None)

    def row(self, partition: str) -> Standing | None:
        row = self._rows.get(partition)
        return None if row is None else row.standing

    def tell_time(self, offset: float) -> None:
        before, self._offset = self._offset, offset
        if before is None or abs(offset - before) > CLOCK_STEP * TICKS_PER_SECOND:
            for row in self._rows.values():
                row.next_at = 0.0
                self._plan(row)

    def _now(self) -> Ticks:
        """The service's time where it is known, else this machine's."""
        if self._offset is None:
            return self._environment.now()
        return int(self._environment.monotonic() * TICKS_PER_SECOND + self._offset)

    async def _renew_row(self, row: _Row) -> None:
        partition = row.lease.partition
        sent = self._environment.monotonic()
        if sent >= row.standing.until:
            self._row_lost(row)
            return
        try:
            async with asyncio.timeout(self._terms.rows.operation):
                row.lease = await self._partitions.prolong(row.lease, self._now())
        except (Conflict, NotThere):
            await self._look_at(row)
        except (ServiceError, TimeoutError) as error:
            log.info("%s is not renewed yet: %r", partition, error)
            row.troubled(self._environment.monotonic())
        else:
            row.failures = 0
            row.standing = Standing(self._terms.row_until(sent), row.lease.etag, self._environment.monotonic())
            row.next_at = sent + self._terms.renew
            if self._rows.get(partition) is row:
                self._changed(partition)

    async def _look_at(self, row: _Row) -> None:
        """Somebody wrote the row: this host, or one that wants it."""
        try:
            async with asyncio.timeout(self._terms.rows.operation):
                lease = await self._partitions.found(row.lease)
        except (ServiceError, TimeoutError) as error:
            log.info("%s cannot be read, it is not renewed yet: %r", row.lease.partition, error)
            row.troubled(self._environment.monotonic())
            return
        if lease is None:
            self._row_lost(row)
            return
        row.lease = lease
        row.next_at = 0.0

    def _row_lost(self, row: _Row) -> None:
        partition = row.lease.partition
        if self._rows.get(partition) is row:
            del self._rows[partition]
            self._changed(partition)

    # -- the app lease ---------------------------------------------------------------------------------

    def keep_app_lease(self, held: AppLeaseHeld, until: float) -> None:
        sent = until - self._terms.app_lease_until(0.0)
        self._app_lease = _AppLease(held, until, sent + self._terms.renew_app_lease)
        self._plan(self._app_lease)

    async def drop_app_lease(self) -> None:
        lease, self._app_lease = self._app_lease, None
        if lease is not None:
            await lease.rests()

    def app_lease_until(self) -> float:
        return 0.0 if self._app_lease is None else self._app_lease.until

    async def _renew_app_lease(self, lease: _AppLease) -> None:
        held, blobs = lease.held, self._service.blobs
        sent = self._environment.monotonic()
        try:
            renewed = await blobs.renew_lease(held.container, None, held.id) or await blobs.acquire_lease(
                held.container, None, self._terms.app_lease, held.id
            )
        except NotThere:
            renewed = False
        except ServiceError as error:
            now = self._environment.monotonic()
            lease.troubled(now)
            if now < lease.until:
                log.info("the app lease %s is not renewed yet: %s", held.container, error)
                return
            renewed = False
        if renewed:
            lease.failures = 0
            lease.until = self._terms.app_lease_until(sent)
            lease.next_at = sent + self._terms.renew_app_lease
        elif self._app_lease is lease:
            self._app_lease = None
        self._changed(None)

    # -- when ------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            now = self._environment.monotonic()
            # Who withdraws a message before it is due relies on it that it is never renewed: he is heard after `now`.
            self._before()
            self._sleeps_until = now + LONGEST_REST
            for held, renewal in self._renewable():
                if held.next_at <= now:
                    held.task = asyncio.get_running_loop().create_task(self._work(held, renewal))
                    self._tasks.add(held.task)
                    held.task.add_done_callback(self._tasks.discard)
                else:
                    self._sleeps_until = min(self._sleeps_until, held.next_at)
            timer = self._environment.call_later(max(self._sleeps_until - now, FINEST), self._wake.set)
            await self._wake.wait()
            timer.cancel()

    def _renewable(self) -> list[tuple[_Held, Callable[[], Coroutine[Any, Any, None]]]]:
        """What no renewal of is under way, and how it is renewed."""
        found: list[tuple[_Held, Callable[[], Coroutine[Any, Any, None]]]] = []
        if self._app_lease is not None and self._app_lease.task is None:
            found.append((self._app_lease, partial(self._renew_app_lease, self._app_lease)))
        found += [(row, partial(self._renew_row, row)) for row in self._rows.values() if row.task is None]
        found += [
            (one, partial(self._renew_message, one))
            for one in self._messages.values()
            if one.task is None and one.receipt is not None
        ]
        return found

    async def _work(self, held: _Held, renewal: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await renewal()
        except Exception:  # a defect; what is not renewed runs out, and the next renewal may go well
            log.exception("a renewal failed")
            held.troubled(self._environment.monotonic())
        finally:
            held.task = None
            self._plan(held)

    def _plan(self, held: _Held) -> None:
        if held.next_at < self._sleeps_until:
            self._wake.set()
