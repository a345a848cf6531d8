"""What a schedule is: its definition, checked whole when it is made, and the text in which a hub keeps it.

Pure; knows nothing of what a schedule has done (`planning`), nor of who acts on it (`service`).
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from holdtrue.core.dialect import to_datetime, to_ticks
from holdtrue.core.errors import InvalidInput
from holdtrue.core.events import TICKS_PER_MICROSECOND, TICKS_PER_SECOND, Ticks
from holdtrue.core.ids import (
    MAX_ESCAPED_UNITS,
    check_instance_id,
    check_name,
    check_tags,
    check_text,
    escaped_units,
    short,
)
from holdtrue.schedules.errors import InvalidSchedule, NeverFires
from holdtrue.schedules.timeline import Timeline, crontab, zone

MAX_ID_UNITS = MAX_ESCAPED_UNITS - 30
"""The longest schedule id, in escaped UTF-16 units: an instance id made from it and a tick must fit as well."""
MAX_MISSED = 1_000
"""The highest `missed_limit`."""
SHORTEST = timedelta(milliseconds=100)
"""The shortest interval."""
_NONE = timedelta(0)


class Overlap(StrEnum):
    """What a tick does while the run before it has not ended."""

    SKIP = "skip"
    """Nothing: the tick is recorded as skipped."""
    QUEUE = "queue"
    """One run is kept, and starts as soon as the running one has ended; further ticks are skipped."""
    ALLOW = "allow"
    """It starts beside it; needs an instance id for each tick."""
    REPLACE = "replace"
    """The running one is ended (Terminated, or its place taken under a fixed id) and the new one starts."""


class Missed(StrEnum):
    """What becomes of missed ticks: those that a later tick has overtaken, or that are later than `grace`."""

    SKIP = "skip"
    """They are recorded as missed."""
    ONE = "one"
    """One run stands for all of them."""
    ALL = "all"
    """Each one runs, the newest `missed_limit` of them; older ones are recorded as missed."""


_Choice = TypeVar("_Choice", bound=StrEnum)


class ScheduleSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The definition of a schedule.

    `orchestrator` is started with `input` (a JSON text; None: none) under `instance_id`, a fixed one for a
    singleton; None makes one for each tick, `{schedule_id}:{time of the tick}`.  It fires by `cron`
    (NCRONTAB, 5 or 6 fields with seconds first; module `ncrontab`) on the wall clock of `time_zone` (rules
    for clock changes: module `timeline`), or every `interval`, counted from `start_at`, or else from
    the creation (the first tick comes one interval later).

    `overlap` and `missed` (with `missed_limit` and `grace`) are explained at their types.  `jitter` delays
    each tick by a part of it, the same at each host.  Nothing fires before `start_at` or after `end_at`
    (naive times are UTC).  `paused` is how it is created; `pause` and `resume` change it later.
    `tags` and `version` go to the started instances.  Records of ticks are kept for `keep_ticks`.

    Raises InvalidSchedule, or NeverFires, naming what is wrong and what to give instead.
    """

    schedule_id: str
    orchestrator: str
    input: str | None = None
    instance_id: str | None = None
    cron: str | None = None
    interval: timedelta | None = None
    time_zone: str = "UTC"
    overlap: Overlap = Overlap.SKIP
    missed: Missed = Missed.ONE
    missed_limit: int = 10
    grace: timedelta = timedelta(seconds=60)
    jitter: timedelta = _NONE
    start_at: datetime | None = None
    end_at: datetime | None = None
    paused: bool = False
    tags: dict[str, str] | None = None
    version: str | None = None
    keep_ticks: timedelta = timedelta(days=7)

    def __post_init__(self) -> None:
        """Check the whole; texts and naive times take their types."""
        put = msgspec.structs.force_setattr
        _check_id(self.schedule_id, "schedule_id", MAX_ID_UNITS)
        self._check("orchestrator", check_name)
        for member in ("version", "cron", "time_zone", "input"):
            if getattr(self, member) is not None:
                self._check(member, lambda value: check_text(value, "it"))
        if self.tags is not None:
            self._check("tags", check_tags)
        put(self, "overlap", self._choice(Overlap, self.overlap, "overlap"))
        put(self, "missed", self._choice(Missed, self.missed, "missed"))
        for name in ("start_at", "end_at"):
            moment = getattr(self, name)
            if moment is not None:
                if not isinstance(moment, datetime):
                    raise self._invalid(name, f"is {moment!r}: give a datetime (a naive one is UTC)")
                put(self, name, moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC))
        for name in ("grace", "jitter", "keep_ticks"):
            span = getattr(self, name)
            if not isinstance(span, timedelta) or span < _NONE:
                raise self._invalid(name, f"is {span!r}: give a timedelta that is not negative")
        if not 1 <= self.missed_limit <= MAX_MISSED:
            raise self._invalid(
                "missed_limit", f"is {self.missed_limit}: give a number from 1 to {MAX_MISSED} (or missed='skip')"
            )
        self._check_identity()
        self._check_time()

    def _check(self, member: str, check: Callable[[Any], object]) -> None:
        try:
            check(getattr(self, member))
        except InvalidInput as error:
            raise self._invalid(member, f"does not do: {error}") from error

    def _check_identity(self) -> None:
        if self.instance_id is None:
            return
        _check_id(self.instance_id, "instance_id", MAX_ESCAPED_UNITS)
        if self.overlap is Overlap.ALLOW:
            raise self._invalid(
                "overlap",
                f"is 'allow', but one instance id, {self.instance_id!r}, cannot run twice at once: "
                "leave instance_id out to have one for each tick, or choose skip, queue or replace",
            )

    def _check_time(self) -> None:
        if (self.cron is None) == (self.interval is None):
            raise self._invalid("cron", "and interval: give exactly one of them")
        zone(self.time_zone)
        if self.interval is not None:
            if not isinstance(self.interval, timedelta) or self.interval < SHORTEST:
                raise self._invalid(
                    "interval", f"is {self.interval!r}: give a timedelta of {SHORTEST.total_seconds()} s or more"
                )
            if self.time_zone != "UTC":
                raise self._invalid(
                    "time_zone", "has no effect on an interval, which counts elapsed time: leave it out, or use cron"
                )
        else:
            crontab(self.cron or "")
        if self.end_at is None:
            return
        if self.start_at is None:
            return
        if self.end_at < self.start_at:
            raise self._invalid("end_at", "lies before start_at: exchange them")
        start = to_ticks(self.start_at)
        if self.timeline(start).next(start - 1) is None:
            raise NeverFires(
                f"schedule {self.schedule_id!r} never fires: no tick lies between its start_at and its end_at. "
                "Move one of them, or change the expression"
            )

    def timeline(self, anchor: Ticks) -> Timeline:
        """When it fires, an interval counted from `anchor`."""
        return Timeline(
            schedule_id=self.schedule_id,
            cron=None if self.cron is None else crontab(self.cron),
            zone=zone(self.time_zone),
            interval=0 if self.interval is None else span_ticks(self.interval),
            anchor=anchor,
            end=None if self.end_at is None else to_ticks(self.end_at),
            jitter=span_ticks(self.jitter),
        )

    def instance_for(self, tick: Ticks) -> str:
        """The instance id of a tick's run."""
        return self.instance_id if self.instance_id is not None else f"{self.schedule_id}:{tick_text(tick)}"

    def same_grid(self, other: "ScheduleSpec") -> bool:
        """Whether both fire at the same times, so that one's past is the other's."""
        return (self.cron, self.interval, self.time_zone, self.start_at) == (
            other.cron,
            other.interval,
            other.time_zone,
            other.start_at,
        )

    def _invalid(self, member: str, what: str) -> InvalidSchedule:
        return InvalidSchedule(f"schedule {self.schedule_id!r}: {member} {what}")

    def _choice(self, kind: type[_Choice], value: str, member: str) -> _Choice:
        try:
            return kind(value)
        except ValueError:
            raise self._invalid(member, f"is {value!r}: give one of {', '.join(kind)}") from None


def _check_id(value: str, member: str, limit: int) -> None:
    try:
        check_instance_id(value)
    except InvalidInput as error:
        raise InvalidSchedule(f"the {member} of a schedule does not do: {error}") from error
    units = escaped_units(value)
    if units > limit:
        raise InvalidSchedule(
            f"the {member} {short(value)} of a schedule has {units} escaped UTF-16 units, and {limit} are the most, "
            "so that the time of a tick can be added to it: choose a shorter one"
        )


def span_ticks(span: timedelta) -> Ticks:
    """A span of time in ticks."""
    return (span.days * 86_400 + span.seconds) * TICKS_PER_SECOND + span.microseconds * TICKS_PER_MICROSECOND


def tick_text(tick: Ticks) -> str:
    """A tick's time as it stands in instance ids and reasons: ISO 8601 in UTC, fractions only where there are some."""
    fraction = tick % TICKS_PER_SECOND
    digits = f".{fraction:07d}".rstrip("0") if fraction else ""
    return f"{to_datetime(tick):%Y-%m-%dT%H:%M:%S}{digits}Z"


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(ScheduleSpec)


def encode_spec(spec: ScheduleSpec) -> str:
    """The definition as JSON text, the same for the same definition."""
    return _encoder.encode(spec).decode()


def decode_spec(text: str) -> ScheduleSpec:
    """The definition that `encode_spec` wrote; raises InvalidSchedule where the text is none."""
    try:
        return _decoder.decode(text)
    except msgspec.MsgspecError as error:
        raise InvalidSchedule(f"a stored schedule cannot be read: {error}. Put it anew or delete it") from error
