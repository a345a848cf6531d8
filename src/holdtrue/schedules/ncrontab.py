"""NCRONTAB: cron expressions as .NET's NCrontab reads them, on the naive time line of a wall clock.

Pure; knows no time zones (`timeline` puts wall-clock times on the real line) and no schedules.

Ours, because the usual cron libraries differ in what matters here: they fire where the day of month *or*
the weekday matches (NCrontab: both must), put seconds last or have none, take 7 for Sunday, and fill a
reversed range by wrapping round (NCrontab swaps its ends).  An expression that moves here from a timer
trigger must fire at the same times as there.

What NCrontab takes: 5 fields (minute, hour, day of month, month, weekday) or 6 with seconds first, parted
by blanks; in each a list of `*`, a value, a range `a-b`, each with a step `/n`; a single value with a step
goes on to the end of the field.  Months and weekdays may be named, in full or by a beginning of the name, in
English, in any case; Sunday is 0, and 7 is an error.  `?`, `L`, `W` and `#` do not exist.  One difference:
a step under 1, which NCrontab reads as 1, is an error here.
"""

import calendar
from bisect import bisect_left
from collections.abc import Iterator
from datetime import MAXYEAR, date, datetime, timedelta
from typing import Final, NamedTuple

from holdtrue.core.ids import short
from holdtrue.schedules.errors import InvalidSchedule, NeverFires

_MONTHS = tuple(name.lower() for name in (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
))  # fmt: skip
_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")


class _Field(NamedTuple):
    """The name of a field, the values that it can have, and their names from the lowest on."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS: Final = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("weekday", 0, 6, _WEEKDAYS),
)


_LONGEST: Final = 1_000
"""Characters of an expression; whoever lists every second of a minute needs 169."""


def _value(text: str, field: _Field, expression: str) -> int:
    if text.isascii() and text.isdigit():
        value = int(text)
        if field.low <= value <= field.high:
            return value
    elif text and field.names:
        lowered = text.lower()
        for index, name in enumerate(field.names):
            if name.startswith(lowered):
                return field.low + index
    names = f", or a name such as {field.names[0].capitalize()!r}" if field.names else ""
    hint = ", Sunday is 0" if field.name == "weekday" and text == "7" else ""
    raise InvalidSchedule(
        f"cron expression {expression!r}: {text!r} is no {field.name}: "
        f"give a number from {field.low} to {field.high}{names}{hint}"
    )


def _values(text: str, field: _Field, expression: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split(","):
        body, slash, step_text = part.partition("/")
        step = 1
        if slash:
            if not (step_text.isascii() and step_text.isdigit()) or int(step_text) < 1:
                raise InvalidSchedule(
                    f"cron expression {expression!r}: the step {step_text!r} of the {field.name} is no number over 0"
                )
            step = int(step_text)
        if body == "*":
            first, last = field.low, field.high
        else:
            start, dash, end = body.partition("-")
            first = _value(start, field, expression)
            last = _value(end, field, expression) if dash else (field.high if slash else first)
            if first > last:
                first, last = last, first
        found.update(range(first, last + 1, step))
    return tuple(sorted(found))


def _weekday(day: date) -> int:
    return day.isoweekday() % 7


class NCrontab:
    """One parsed expression: immutable, and equal to another of the same text.

    Raises InvalidSchedule where the text is no expression, NeverFires where no day can ever match.
    """

    __slots__ = ("_days", "_hours", "_minutes", "_months", "_seconds", "_weekdays", "every_hour", "expression")

    def __init__(self, expression: str) -> None:
        if len(expression) > _LONGEST:
            raise InvalidSchedule(
                f"cron expression {short(expression)} has {len(expression)} characters; {_LONGEST} are the most"
            )
        texts = expression.split()
        if len(texts) not in (5, 6):
            raise InvalidSchedule(
                f"cron expression {expression!r} has {len(texts)} fields: give 5 (minute hour day month weekday) "
                "or 6 (second minute hour day month weekday)"
            )
        if len(texts) == 5:
            texts.insert(0, "0")
        self.expression = expression
        self._seconds, self._minutes, self._hours, self._days, self._months, weekdays = (
            _values(text, field, expression) for text, field in zip(texts, _FIELDS, strict=True)
        )
        self._weekdays = frozenset(weekdays)
        self.every_hour = len(self._hours) == 24
        """True where it fires in each hour of a day: then an hour that comes twice is served twice."""
        # Every day of the year falls on every weekday within 400 years, so only day and month can exclude
        # each other.  2000 was a leap year.
        if not any(self._days[0] <= calendar.monthrange(2000, month)[1] for month in self._months):
            raise NeverFires(
                f"cron expression {expression!r} never fires: none of its months has a day {self._days[0]}. "
                "Correct the day of month or the month"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NCrontab) and other.expression == self.expression

    def __hash__(self) -> int:
        return hash(self.expression)

    def __repr__(self) -> str:
        return f"NCrontab({self.expression!r})"

    def matches(self, moment: datetime) -> bool:
        """Whether it fires at this (whole) second."""
        return (
            moment.second in self._seconds
            and moment.minute in self._minutes
            and moment.hour in self._hours
            and self._fits(moment.date())
        )

    def _fits(self, day: date) -> bool:
        return day.day in self._days and day.month in self._months and _weekday(day) in self._weekdays

    def next(self, after: datetime) -> datetime | None:
        """The first time later than `after` (naive), in whole seconds; None: no more until the year 9999."""
        try:
            start = after.replace(microsecond=0) + timedelta(seconds=1)
        except OverflowError:
            return None
        if self._fits(start.date()):
            clock = self._clock_from(start.hour, start.minute, start.second)
            if clock is not None:
                return start.replace(hour=clock[0], minute=clock[1], second=clock[2])
        day = self._day_after(start.date())
        if day is None:
            return None
        return datetime(day.year, day.month, day.day, self._hours[0], self._minutes[0], self._seconds[0])

    def all_after(self, after: datetime) -> Iterator[datetime]:
        """Every time later than `after`, in order."""
        moment = self.next(after)
        while moment is not None:
            yield moment
            moment = self.next(moment)

    def _clock_from(self, hour: int, minute: int, second: int) -> tuple[int, int, int] | None:
        """The first matching time of day that is not before this one."""
        hours, minutes, seconds = self._hours, self._minutes, self._seconds
        at_hour = bisect_left(hours, hour)
        if at_hour == len(hours):
            return None
        if hours[at_hour] > hour:
            return hours[at_hour], minutes[0], seconds[0]
        at_minute = bisect_left(minutes, minute)
        if at_minute < len(minutes) and minutes[at_minute] == minute:
            at_second = bisect_left(seconds, second)
            if at_second < len(seconds):
                return hour, minute, seconds[at_second]
            at_minute += 1
        if at_minute < len(minutes):
            return hour, minutes[at_minute], seconds[0]
        if at_hour + 1 < len(hours):
            return hours[at_hour + 1], minutes[0], seconds[0]
        return None

    def _day_after(self, after: date) -> date | None:
        year, month, above = after.year, after.month, after.day
        while year <= MAXYEAR:
            if month in self._months:
                length = calendar.monthrange(year, month)[1]
                for day in self._days:
                    if above < day <= length:
                        candidate = date(year, month, day)
                        if _weekday(candidate) in self._weekdays:
                            return candidate
            above = 0
            month += 1
            if month > 12:
                year, month = year + 1, 1
        return None
