"""The ticks of a schedule on the real time line: cron times of a zone's wall clock, or a fixed grid.

Pure but for the time zone database, which `zoneinfo` reads (the package `tzdata` where the system has none).

Rules for clock changes, cron schedules:

- A wall-clock time that is *skipped* (02:30 when the clock goes from 02:00 to 03:00) fires once, at the first
  moment after the gap.  Several skipped times, and one due at that moment anyway, are one tick.
- A wall-clock time that *comes twice* fires once, at its first occurrence; except where the expression fires
  in every hour of the day (`0 */5 * * * *`): such a schedule means a rhythm, and goes on through both.

Intervals are counted in elapsed time from their anchor; no clock change touches them.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

from holdtrue.core.dialect import to_datetime, to_ticks
from holdtrue.core.events import MAX_TICKS, TICKS_PER_SECOND, Ticks
from holdtrue.schedules.errors import InvalidSchedule
from holdtrue.schedules.ncrontab import NCrontab

_SECOND = timedelta(seconds=1)
_DAYS_AROUND = timedelta(hours=50)
"""More than any clock change moves: a whole day was skipped at the date line."""


@lru_cache(maxsize=64)
def zone(name: str) -> tzinfo:
    """The time zone of that name; raises InvalidSchedule where there is none."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError) as error:
        raise InvalidSchedule(
            f"there is no time zone {name!r}: give a name such as 'Europe/Vienna' or 'UTC' "
            "(install the package 'tzdata' where the system has no time zone database)"
        ) from error


@lru_cache(maxsize=256)
def crontab(expression: str) -> NCrontab:
    """The parsed expression; raises InvalidSchedule or NeverFires."""
    return NCrontab(expression)


def _instant(wall: datetime, zone: tzinfo, fold: int) -> datetime:
    """The moment (naive UTC) at which the zone's clock shows `wall`, or the end of the gap that skips it."""
    first, second = wall.replace(tzinfo=zone, fold=0).utcoffset(), wall.replace(tzinfo=zone, fold=1).utcoffset()
    assert first is not None and second is not None
    if first >= second:
        return wall - (second if fold else first)
    # A gap: `first` is the offset before it, `second` the one after it.  The change lies in between.
    early, late = wall - second, wall - first
    while late - early > _SECOND:
        middle = (early + (late - early) / 2).replace(microsecond=0)
        if middle.replace(tzinfo=UTC).astimezone(zone).utcoffset() == first:
            early = middle
        else:
            late = middle
    return late


def _next_of_fold(cron: NCrontab, zone: tzinfo, after: datetime, fold: int) -> datetime | None:
    """The first tick after `after` (naive UTC), where times that come twice stand for the given occurrence.

    `_instant` never falls as the wall clock rises; so the last wall-clock time that is not after `after`
    can be found by halving, and the next match is the next tick.
    """
    wall = after.replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None, fold=0)
    if _instant(wall, zone, fold) != after:
        low, high = wall - _DAYS_AROUND, wall + _DAYS_AROUND
        while high - low > _SECOND:
            middle = (low + (high - low) / 2).replace(microsecond=0)
            if _instant(middle, zone, fold) <= after:
                low = middle
            else:
                high = middle
        wall = low
    matching = cron.next(wall)
    return None if matching is None else _instant(matching, zone, fold)


def next_cron(cron: NCrontab, zone: tzinfo, after: Ticks) -> Ticks | None:
    """The first tick later than `after`; None: no more until the year 9999."""
    if after >= MAX_TICKS:
        return None
    moment = to_datetime(after).replace(microsecond=0)
    try:
        if zone is UTC:
            found = cron.next(moment)
        else:
            candidates = [_next_of_fold(cron, zone, moment, fold) for fold in ((0, 1) if cron.every_hour else (0,))]
            found = min((candidate for candidate in candidates if candidate is not None), default=None)
    except OverflowError:
        return None
    return None if found is None else to_ticks(found)


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """When a schedule fires.  `cron` in `zone`, or every `interval` ticks from `anchor`; never after `end`.

    `jitter` (ticks) delays each tick by a part of it, always the same for the same tick, and never
    to or past the next tick.
    """

    schedule_id: str
    cron: NCrontab | None = None
    zone: tzinfo = UTC
    interval: Ticks = 0
    anchor: Ticks = 0
    end: Ticks | None = None
    jitter: Ticks = 0

    def next(self, after: Ticks) -> Ticks | None:
        """The first tick later than `after`; None: there is none."""
        if self.cron is not None:
            found = next_cron(self.cron, self.zone, after)
        elif after < self.anchor:
            found = self.anchor
        else:
            found = self.anchor + ((after - self.anchor) // self.interval + 1) * self.interval
        if found is None or found > MAX_TICKS or (self.end is not None and found > self.end):
            return None
        return found

    def due(self, tick: Ticks) -> Ticks:
        """When a tick is to be decided: its time and its jitter."""
        if not self.jitter:
            return tick
        following = self.next(tick)
        room = self.jitter if following is None else min(self.jitter, following - tick)
        digest = hashlib.blake2b(f"{self.schedule_id}\0{tick}".encode(), digest_size=8).digest()
        return tick + int.from_bytes(digest) % room

    def between(self, after: Ticks, now: Ticks) -> Iterator[Ticks]:
        """The ticks later than `after` that are due by `now`, in order."""
        tick = self.next(after)
        while tick is not None and self.due(tick) <= now:
            yield tick
            tick = self.next(tick)

    def newest(self, count: int, after: Ticks, now: Ticks) -> list[Ticks]:
        """The last `count` ticks of `between`, without going through all that came before them."""
        width = 60 * TICKS_PER_SECOND
        while True:
            start = max(after, now - width)
            found = list(self.between(start, now))
            if len(found) >= count or start == after:
                return found[-count:] if count else []
            width *= 2
