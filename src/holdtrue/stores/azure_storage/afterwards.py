"""What is done a while after a commit: the row's custom status and times, and a debt that no commit clears.

The row is due a second (a setting) after the first change that it does not tell; readers of ours need not wait for
it.  A debt is due a second after it was sent, where no further commit came and somebody waits to know that it is
paid.  Both outlive the session: a released one is worked off unless its instance is taken in hand again, and what is
left when a partition is given up is done before that.
"""

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Sequence

from holdtrue.environment import Environment
from holdtrue.stores.errors import StoreError

from .holding import Held
from .service import ServiceError

log = logging.getLogger("holdtrue.azure_storage")

DEBT_SECONDS = 1.0
"""A debt that was sent is cleared after this, where no commit has cleared it."""
AGAIN_SECONDS = 10.0
"""What could not be written is tried again after this."""
AT_ONCE = 16
"""So many instances are written at once."""


class _Line:
    """Sessions, one of an instance, in the order in which something is due for them (monotonic seconds)."""

    def __init__(self) -> None:
        self._due: dict[str, tuple[float, Held]] = {}
        self._heap: list[tuple[float, str]] = []

    def put(self, held: Held, due: float) -> None:
        self._due[held.instance_id] = (due, held)
        heapq.heappush(self._heap, (due, held.instance_id))

    def due_of(self, instance_id: str) -> float | None:
        found = self._due.get(instance_id)
        return None if found is None else found[0]

    def drop(self, instance_id: str) -> float | None:
        """When it was due."""
        found = self._due.pop(instance_id, None)
        return None if found is None else found[0]

    def first(self) -> float | None:
        while self._heap and self.due_of(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, until: float) -> list[Held]:
        found = []
        while (due := self.first()) is not None and due <= until:
            found.append(self._due.pop(self._heap[0][1])[1])
        return found

    def take_of(self, partition: int | None) -> list[Held]:
        """All, or those of one partition."""
        gone = [held for _, held in self._due.values() if partition is None or held.partition == partition]
        for held in gone:
            del self._due[held.instance_id]
        return gone


class Afterwards:
    """Works off, for one host, what is due a while after its commits.

    `write_row` and `clear_debt` do it for one session, `is_mine` says whether a partition is this host's still.
    """

    def __init__(
        self,
        environment: Environment,
        *,
        row_delay: float,
        write_row: Callable[[Held], Awaitable[None]],
        clear_debt: Callable[[Held], Awaitable[object]],
        is_mine: Callable[[int], bool],
    ) -> None:
        self._environment = environment
        self._row_delay = row_delay
        self._write_row = write_row
        self._clear_debt = clear_debt
        self._is_mine = is_mine
        self._rows = _Line()
        self._debts = _Line()
        self._in_work: dict[str, Held] = {}
        self._changed = asyncio.Event()

    # -- what is noted -----------------------------------------------------------------------------------

    def committed(self, held: Held) -> None:
        """An episode was committed, and all that follows from it is done."""
        now = self._environment.monotonic()
        self._debts.drop(held.instance_id)
        if held.state.owed and held.is_waited_for:
            self._debts.put(held, now + DEBT_SECONDS)
        due = self._rows.drop(held.instance_id)
        if held.row_lags:
            self._rows.put(held, now + self._row_delay if due is None else due)
        self._changed.set()

    async def hand_over(self, instance_id: str) -> float | None:
        """Its instance is about to be read anew: what is under way for it ends first.  When its row was due."""
        self._debts.drop(instance_id)
        due = self._rows.drop(instance_id)
        held = self._in_work.get(instance_id)
        await self._ended(held)
        if held is not None:
            held.is_current = False  # what was due and has not begun is for who reads it now
        return due

    @staticmethod
    async def _ended(held: Held | None) -> None:
        if held is not None:
            async with held.busy:
                pass

    def adopted(self, held: Held, row_due: float | None) -> None:
        """It was read anew, and is in hand."""
        self.committed(held)
        if held.row_lags and row_due is not None:
            self._rows.put(held, row_due)

    def forget(self, partition: int | None = None) -> None:
        """What is left of a partition (of all) is its next owner's."""
        for line in (self._rows, self._debts):
            line.take_of(partition)

    # -- what is done ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work off what is due, until cancelled."""
        while True:
            self._changed.clear()
            dues = [due for line in (self._debts, self._rows) if (due := line.first()) is not None]
            now = self._environment.monotonic()
            if dues and min(dues) <= now:
                await self._all(self._debts.take(now), self._rows.take(now))
                continue
            timer = self._environment.call_later(min(dues) - now, self._changed.set) if dues else None
            try:
                await self._changed.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    async def finish(self, partition: int | None = None) -> None:
        """Work off all that is left, of one partition or of all."""
        await self._all(self._debts.take_of(partition), self._rows.take_of(partition))
        for held in list(self._in_work.values()):
            await self._ended(held)

    async def _all(self, debts: Sequence[Held], rows: Sequence[Held]) -> None:
        works = list(dict.fromkeys((*debts, *rows)))
        # At once: until a task of its own begins its session may be followed by another.
        self._in_work.update((held.instance_id, held) for held in works)
        try:
            for begin in range(0, len(works), AT_ONCE):
                some = works[begin : begin + AT_ONCE]
                await asyncio.gather(*(self._one(held, debt=held in debts, row=held in rows) for held in some))
        finally:
            for held in works:
                self._worked(held)

    def _worked(self, held: Held) -> None:
        if self._in_work.get(held.instance_id) is held:
            del self._in_work[held.instance_id]

    async def _one(self, held: Held, *, debt: bool, row: bool) -> None:
        try:
            async with held.busy:
                if debt and self._may_write(held):
                    await self._clear_debt(held)
                if row and self._may_write(held):
                    await self._write_row(held)
        except (StoreError, ServiceError) as error:
            log.info("instance %r: what follows from its commit is tried again: %s", held.instance_id, error)
            if row and self._rows.due_of(held.instance_id) is None:
                self._rows.put(held, self._environment.monotonic() + AGAIN_SECONDS)
                self._changed.set()
        finally:
            self._worked(held)

    def _may_write(self, held: Held) -> bool:
        return held.is_current and self._is_mine(held.partition)
