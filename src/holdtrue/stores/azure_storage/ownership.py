"""Takes, keeps and gives up partitions: runs the decisions of `partitions` on an account.

One loop reads the table, decides, writes, and tells what came of it.  Rows that are to stay as they are it leaves to
the `renewals`; where both write one, the etag decides, and the refused one looks again.  A partition is ours until a
moment on this host's monotonic clock, counted from before the last renewal was sent; at that moment it is lost,
whatever the loop is waiting for.  `is_mine` is asked before every load, commit and put.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.environment import Environment

from .beside import refuse_beside
from .board import Board
from .partitions import (
    KEEPS,
    OUR_PREFIX,
    Hold,
    Lease,
    Move,
    Plan,
    Situation,
    Step,
    Terms,
    dotnet_owners,
    plan,
)
from .renewals import Renewals
from .service import Conflict, NotThere, ServiceError

log = logging.getLogger("holdtrue.azure_storage")

SOON = 1.0
"""Seconds to the next look while a partition is on its way to or from us."""
WAITS = (0.0, 0.05, 0.1, 0.2, 0.5, SOON)
"""Seconds to the next look after one, two, ... looks in a row that came to nothing."""


class _Held:
    """A partition that we own, until `deadline` on the monotonic clock."""

    __slots__ = ("deadline", "drain", "hold", "timer")

    def __init__(self) -> None:
        self.deadline = 0.0
        self.hold = Hold.SERVING
        self.drain: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def end(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.drain is not None:
            self.drain.cancel()


class Ownership:
    """The partitions of one hub, as one host sees them.

    `me` is this process's own name, of no process before it; it begins with `holdtrue-`.  `on_gained` and
    `on_lost` are told of a partition at once and must not wait; `on_losing` stops new work of it, and returns
    when nothing is in work (it is cancelled when the time for that is over, or the partition is lost).
    """

    def __init__(
        self,
        board: Board,
        me: str,
        environment: Environment,
        terms: Terms,
        renewals: Renewals,
        *,
        on_gained: Callable[[str], None],
        on_losing: Callable[[str], Awaitable[None]],
        on_lost: Callable[[str], None],
    ) -> None:
        if not me.startswith(OUR_PREFIX):
            raise ValueError(f"the owner's name {me!r} must begin with {OUR_PREFIX!r}")
        self._board = board
        self._me = me
        self._environment = environment
        self._terms = terms
        self._renewals = renewals
        self._on_gained = on_gained
        self._on_losing = on_losing
        self._on_lost = on_lost
        self._held: dict[str, _Held] = {}
        self._wake = asyncio.Event()
        self._closing = False
        self._failures = 0
        self._loop: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Look for partitions to serve, and go on with it until `close`.

        Raises a ServiceError where the table cannot be read.
        """
        await self._board.read()
        self._loop = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Let what is in work end, give all partitions back, and stop; what cannot be given back runs out."""
        self._closing = True
        self._wake.set()
        if self._loop is not None:
            await self._loop
            self._loop = None

    def is_mine(self, partition: str) -> bool:
        """Whether this host may load, commit and put for a partition at this moment."""
        held = self._held.get(partition)
        return held is not None and self._lasts(partition, held)

    def owned(self) -> dict[str, float]:
        """The partitions that are ours now, draining ones too, each with its moment on the monotonic clock."""
        return {partition: held.deadline for partition, held in self._held.items() if self._lasts(partition, held)}

    def _lasts(self, partition: str, held: _Held) -> bool:
        """Whether a partition is ours yet: as it was known to be, or by what the renewals tell."""
        now = self._environment.monotonic()
        if now >= held.deadline and (standing := self._renewals.row(partition)) is not None:
            held.deadline = max(held.deadline, standing.until)
        return now < held.deadline

    async def refuse_beside_dotnet(self) -> None:
        """Return when no .NET worker serves the hub; to be called before `open`.

        A lease that a stopped one has left is waited for.  Raises HubServedByDotNet when one renews.
        """
        await refuse_beside(self._board, self._terms, self._environment)

    async def refuse_beside_anyone(self) -> None:
        """Return when no host at all serves the hub, ours or .NET's; as above.  Raises HubServed."""
        await refuse_beside(self._board, self._terms, self._environment, anyone=True)

    async def dotnet_lives(self) -> bool:
        """Whether some partition has a .NET owner whose lease has not ended for certain."""
        leases = await self._board.read()
        known = self._board.known()
        return bool(dotnet_owners(leases, known.sightings, known.at_least, self._terms))

    async def others_of_ours(self) -> bool:
        """Whether some partition has another owner of ours, or is to have one."""
        leases = await self._board.read()
        names = {name for lease in leases for name in (lease.current_owner, lease.next_owner) if name is not None}
        return any(name.startswith(OUR_PREFIX) and name != self._me for name in names)

    async def _run(self) -> None:
        while True:
            closing, decided, whole = self._closing, None, False
            try:
                decided, whole = await self._look(closing)
            except (ServiceError, TimeoutError) as error:
                if self._failures == len(WAITS):
                    log.warning("the partitions in the %s cannot be looked after: %r", self._board.name, error)
            except Exception:  # a defect; partitions run out by themselves, and the next look may go well
                if self._failures == len(WAITS):
                    log.exception("looking after the partitions in the %s failed", self._board.name)
            if closing and decided is None and not self._held:
                log.warning("partitions of the %s were not given back: they run out by themselves", self._board.name)
                return
            if closing and decided is not None and whole and not decided.mine:
                return
            self._failures = 0 if whole else self._failures + 1
            if decided is not None and whole:
                await self._rest(self._until_next(decided))
            else:
                await self._rest(WAITS[min(self._failures, len(WAITS)) - 1])

    def _until_next(self, decided: Plan) -> float:
        if not decided.measured and decided.steps:
            return 0.0  # the next reading tells the service's time, in which the rows should be
        if decided.soon:
            return min(SOON, self._terms.acquire)
        delay = self._terms.acquire
        at_least = self._board.known().at_least
        if decided.runs_out is not None and at_least is not None:
            delay = min(delay, max((decided.runs_out - at_least) / TICKS_PER_SECOND, 0.0) + 0.05)
        return delay

    async def _rest(self, seconds: float) -> None:
        timer = self._environment.call_later(seconds, self._wake.set)
        await self._wake.wait()
        timer.cancel()
        self._wake.clear()

    async def _look(self, closing: bool) -> tuple[Plan, bool]:
        """One pass; also whether all its writes were done."""
        leases = await self._board.read()
        owners = {lease.partition: lease.current_owner for lease in leases}
        for partition in list(self._held):
            if owners.get(partition) != self._me:
                self._lose(partition)
        decided = plan(leases, self._situation(closing))
        return decided, await self._apply_all(decided.steps)

    def _situation(self, closing: bool = False) -> Situation:
        known = self._board.known()
        return Situation(
            me=self._me,
            terms=self._terms,
            held={partition: held.hold for partition, held in self._held.items()},
            sightings=known.sightings,
            now=known.now,
            at_least=known.at_least,
            measured=known.measured,
            closing=closing,
        )

    async def _apply_all(self, steps: Sequence[Step]) -> bool:
        done = await asyncio.gather(*map(self._apply, steps))
        return all(done)

    async def _apply(self, step: Step) -> bool:
        partition = step.lease.partition
        if step.move is Move.RELEASE:
            self._lose(partition)  # before anyone can take it
        sent = self._environment.monotonic()
        try:
            lease = await self._board.write(step)
        except (Conflict, NotThere):
            return False
        except (ServiceError, TimeoutError) as error:
            log.info("%s of %s: %r; the next look tells whether it was done", step.move, partition, error)
            return False
        if step.move in KEEPS:
            self._keep(lease, sent + self._terms.lease - self._terms.margin)
        if step.move is Move.DRAIN:
            self._drain(partition)
        return True

    def _keep(self, lease: Lease, deadline: float) -> None:
        if deadline <= self._environment.monotonic():
            return  # the answer came too late to rely on it
        partition = lease.partition
        held = self._held.get(partition)
        gained = held is None
        if held is None:
            held = self._held[partition] = _Held()
        held.deadline = max(held.deadline, deadline)
        self._renewals.keep_row(lease, held.deadline)
        self._set_timer(partition, held)
        if gained:
            self._on_gained(partition)

    def _set_timer(self, partition: str, held: _Held) -> None:
        if held.timer is not None:
            held.timer.cancel()
        delay = max(held.deadline - self._environment.monotonic(), 0.0)
        held.timer = self._environment.call_later(delay, lambda: self._ends(partition, held))

    def _ends(self, partition: str, held: _Held) -> None:
        """The moment has come at which a partition was to end when it was last asked for."""
        if self._lasts(partition, held):
            self._set_timer(partition, held)
        elif self._held.get(partition) is held:
            self._lose(partition)

    def _drain(self, partition: str) -> None:
        held = self._held.get(partition)
        if held is not None and held.drain is None:
            held.hold = Hold.DRAINING
            held.drain = asyncio.get_running_loop().create_task(self._drained(partition, held))

    async def _drained(self, partition: str, held: _Held) -> None:
        try:
            async with asyncio.timeout(self._terms.drain):
                await self._on_losing(partition)
        except TimeoutError:
            log.warning("%s is given up with work of it unfinished: it took longer than it may", partition)
        except Exception:  # it must be given up all the same
            log.exception("the work of %s could not be brought to its end", partition)
        held.hold = Hold.DRAINED
        self._wake.set()

    def _lose(self, partition: str) -> None:
        held = self._held.pop(partition, None)
        if held is not None:
            held.end()
            self._renewals.drop_row(partition)
            self._on_lost(partition)
