"""What must be true of clocks and leases, held against virtual time, which no fault can set.

The promise: no timer fires before its time by the clock of whoever fires it; to the orchestration, its time has
come then; and no wall clock costs a host its lease, or keeps the lease of one that stands still.
"""

from collections.abc import Callable, Sequence

from broken import Broken

from holdtrue.core import events as ev
from holdtrue.testing.virtual_time import Part


class Timekeeping:
    """`time` is virtual seconds; leases are `lease_seconds` long and renewed every `renew_seconds` at least."""

    def __init__(self, time: Callable[[], float], lease_seconds: float, renew_seconds: float) -> None:
        self._time = time
        self._lease_seconds = lease_seconds
        self._renew_seconds = renew_seconds
        self._latest: ev.Ticks = 0
        self._last: dict[str, tuple[Part, float]] = {}
        self._steady: dict[str, float] = {}

    def read(self, clock: ev.Ticks) -> None:
        """A process's wall clock shows this now."""
        self._latest = max(self._latest, clock)

    # -- timers ------------------------------------------------------------------------------------------

    def no_timer_is_early(self, name: str, events: Sequence[ev.HistoryEvent]) -> None:
        """A timer fires when the clock of the host that looks says so: never before every clock there is says so."""
        for event in events:
            if type(event) is ev.TimerFired and event.fire_at > self._latest:
                early = (event.fire_at - self._latest) / ev.TICKS_PER_SECOND
                raise Broken(f"{name!r}: a timer fired {early:g} s before its time by any clock")

    def its_time_has_come(self, name: str, events: Sequence[ev.HistoryEvent]) -> None:
        """After a timer the orchestration's own time is not before it, although another clock fired it: a loop that
        waits until a time must not spin."""
        now: ev.Ticks = 0
        for event in events:
            if type(event) is ev.OrchestratorStarted:
                now = event.timestamp
            elif type(event) is ev.TimerFired and event.fire_at > now:
                raise Broken(f"{name!r} is told of a timer before its own time has come there")

    # -- leases ------------------------------------------------------------------------------------------

    def joined(self, part: Part) -> None:
        """A host takes part."""
        self._last[part.name] = (part, self._time())
        self._steady[part.name] = self._time()

    def left(self, part: Part) -> None:
        """A host takes part no more."""
        self._last.pop(part.name, None)

    def renewed(self, part: Part, taken_over: Sequence[str]) -> None:
        """A host has renewed its lease, and taken over from others."""
        now = self._time()
        for name in taken_over:
            self._none_that_renews_is_taken_for_dead(part, name, now)
            self._last.pop(name, None)
        before = self._last.get(part.name)
        if before is None or now - before[1] > self._renew_seconds + 1.0:
            self._steady[part.name] = now
        self._last[part.name] = (part, now)
        self._none_that_stands_still_keeps_its_lease(part, now)

    def _none_that_renews_is_taken_for_dead(self, part: Part, name: str, now: float) -> None:
        """Two hosts must not each think that the other is dead: work would be done twice for no reason.  (A store may
        write a renewal down only when a third of the lease has gone.)"""
        if name not in self._last:
            return
        other, last = self._last[name]
        if not other.dead and now - last < self._lease_seconds * 2 / 3 - 0.001:
            raise Broken(f"{part.name} took {name} for dead, which renewed its lease {now - last:g} s ago")

    def _none_that_stands_still_keeps_its_lease(self, part: Part, now: float) -> None:
        """What a stopped host holds must not be out of reach for longer than its lease."""
        longest = self._lease_seconds + 2 * self._renew_seconds + 2.0
        for name, (_, last) in self._last.items():
            if now - max(last, self._steady[part.name]) > longest:
                raise Broken(f"{name} has not renewed its lease for {now - last:g} s, and {part.name} lets it keep it")
