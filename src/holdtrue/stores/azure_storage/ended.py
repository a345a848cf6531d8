"""The ended instances that retention asks for, gathered by a scan of the rows: the oldest ends, and how many there are.

What is gathered for a rule is bounded; the rest is found by the scans that follow.  Pure.
"""

import heapq
from collections.abc import Callable

import msgspec

from holdtrue.core.events import Ticks
from holdtrue.core.projection import TERMINAL, Status

from .columns import STATUS_NAMES
from .service import All, Filter, Instant, Row, Test
from .service import Any as AnyOf

COLUMNS = ("PartitionKey", "RowKey", "Timestamp", "RuntimeStatus", "Name", "CompletedTime", "ParentInstanceId")
"""What of a row a scan needs."""
MOST = 1_000
"""So many of the oldest ends are kept for a rule."""

_ENDED = frozenset(STATUS_NAMES[status] for status in TERMINAL)
LIVE = AnyOf(tuple(Test("RuntimeStatus", "eq", STATUS_NAMES[status]) for status in Status if status not in TERMINAL))
"""The rows of instances that have not ended."""


def terminated_since(at: Ticks) -> Filter:
    """The rows that were written as Terminated since then."""
    return All((Test("RuntimeStatus", "eq", STATUS_NAMES[Status.TERMINATED]), Test("Timestamp", "ge", Instant(at))))


def was_terminated_since(row: Row, at: Ticks) -> bool:
    """Whether a row is one of those."""
    return row.values.get("RuntimeStatus") == STATUS_NAMES[Status.TERMINATED] and row.timestamp >= at


class Place(msgspec.Struct, frozen=True, order=True):
    """An ended instance: when, and its id."""

    completed_at: Ticks
    instance_id: str


class Rule(msgspec.Struct, frozen=True):
    """Which top-level instances: of an orchestration, or of all but some."""

    name: str | None
    excluding: frozenset[str]

    def takes(self, orchestration: str) -> bool:
        """Whether instances of this orchestration fall under it."""
        return (self.name is None or orchestration == self.name) and orchestration not in self.excluding


class _Found(msgspec.Struct):
    total: int = 0
    oldest: list[Place] = []


class Gathering:
    """One scan's findings, begun at a time (monotonic)."""

    def __init__(self, instance_of: Callable[[Row], str], asked: dict[Rule, Ticks | None], began: float) -> None:
        self._instance_of = instance_of
        self.asked = asked
        self.began = began
        self.found = {rule: _Found() for rule in asked}

    def take(self, row: Row) -> bool:
        """Note a row; whether it is that of an ended instance."""
        if row.values.get("RuntimeStatus") not in _ENDED:
            return False
        completed = row.values.get("CompletedTime")
        if isinstance(completed, Instant) and not row.values.get("ParentInstanceId"):
            orchestration = str(row.values.get("Name") or "")
            for rule, found in self.found.items():
                if rule.takes(orchestration):
                    found.total += 1
                    place = Place(completed.ticks, self._instance_of(row))
                    found.oldest.append(place)
                    if len(found.oldest) >= 2 * MOST:
                        found.oldest = heapq.nsmallest(MOST, found.oldest)
        return True

    def filter(self) -> Filter:
        """The rows that it needs: those not ended, and those that a rule could take."""
        if not self.asked:
            return LIVE
        if any(before is None for before in self.asked.values()):
            return AnyOf((LIVE, *(Test("RuntimeStatus", "eq", status) for status in sorted(_ENDED))))
        last = max(before for before in self.asked.values() if before is not None)
        return AnyOf((LIVE, Test("CompletedTime", "lt", Instant(last))))


class Ended:
    """What the last scan found, and what the next is to find: by rule, up to a time (None: whenever it ended)."""

    def __init__(self, instance_of: Callable[[Row], str]) -> None:
        self._instance_of = instance_of
        self._asked: dict[Rule, Ticks | None] = {}
        self._last = Gathering(instance_of, {}, float("-inf"))

    def ask(self, rule: Rule, before: Ticks | None) -> None:
        """From now on scans look for this."""
        standing = self._asked.get(rule, before)
        self._asked[rule] = None if standing is None or before is None else max(standing, before)

    def begin(self, now: float) -> Gathering:
        """A scan begins."""
        return Gathering(self._instance_of, dict(self._asked), now)

    def finish(self, gathering: Gathering) -> None:
        """A scan has seen all rows."""
        for found in gathering.found.values():
            found.oldest = heapq.nsmallest(MOST, found.oldest)
        self._last = gathering

    def knows(self, rule: Rule, before: Ticks | None, since: float) -> bool:
        """Whether a scan begun since then has looked for this."""
        last = self._last
        if last.began < since or rule not in last.found:
            return False
        return before is not None or last.asked[rule] is None

    def expired(self, rule: Rule, before: Ticks | None, keep: int | None, limit: int) -> list[Place]:
        """Those that ended before, or beyond the newest so many; the oldest first."""
        found = self._last.found[rule]
        count = 0 if keep is None else max(0, found.total - keep)
        older = 0 if before is None else sum(one.completed_at < before for one in found.oldest)
        return found.oldest[: min(limit, max(count, older))]

    def gone(self, place: Place) -> None:
        """It is no more what the scan found."""
        for found in self._last.found.values():
            if place in found.oldest:
                found.oldest.remove(place)
                found.total -= 1
