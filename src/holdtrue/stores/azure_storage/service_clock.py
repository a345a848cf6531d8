"""The storage service's own clock, as far as one host can know it.

Hosts' wall clocks may be wrong by minutes, each by another amount; the service stamps every row at its last
write, for all alike.  A host that reads a stamp knows that the service's clock was at least there; a stamp of
its own write tells it the time within the length of a request.  In between it counts on its monotonic clock.
No I/O.
"""

from holdtrue.core.events import TICKS_PER_SECOND, Ticks

DRIFT = 0.001
"""By how much two clocks may go apart, seconds a second; ten times what is seen of real ones."""


class _Bound:
    """A lower bound of (service clock - monotonic clock), in ticks; it sinks with age."""

    def __init__(self) -> None:
        self._offset: float | None = None
        self._as_of = 0.0

    def at(self, monotonic: float) -> float | None:
        if self._offset is None:
            return None
        return self._offset - abs(monotonic - self._as_of) * DRIFT * TICKS_PER_SECOND

    def raise_to(self, timestamp: Ticks, monotonic: float) -> None:
        offset = timestamp - monotonic * TICKS_PER_SECOND
        known = self.at(monotonic)
        if known is None or offset >= known:
            self._offset, self._as_of = offset, monotonic


class ServiceClock:
    """What is known of the service's time."""

    def __init__(self) -> None:
        self._seen = _Bound()
        self._measured = _Bound()

    def saw(self, timestamp: Ticks, monotonic: float) -> None:
        """A row with this stamp had been read by then."""
        if timestamp:
            self._seen.raise_to(timestamp, monotonic)

    def wrote(self, timestamp: Ticks, answered: float) -> None:
        """A write of ours, answered at that moment, got this stamp."""
        if timestamp:
            self._seen.raise_to(timestamp, answered)
            self._measured.raise_to(timestamp, answered)

    def at_least(self, monotonic: float) -> Ticks | None:
        """A time that the service's clock has reached for certain; None before anything is known."""
        return _time(self._seen, monotonic)

    def estimate(self, monotonic: float) -> Ticks | None:
        """The service's time, late by a request at most; None before a write of ours was seen."""
        return _time(self._measured, monotonic)


def _time(bound: _Bound, monotonic: float) -> Ticks | None:
    offset = bound.at(monotonic)
    return None if offset is None else int(monotonic * TICKS_PER_SECOND + offset)
