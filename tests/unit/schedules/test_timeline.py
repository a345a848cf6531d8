"""Ticks on the real time line: clock changes by the stated rules, grids, jitter."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core.dialect import to_datetime, to_ticks
from holdtrue.core.events import MAX_TICKS, TICKS_PER_SECOND
from holdtrue.schedules.errors import InvalidSchedule
from holdtrue.schedules.ncrontab import NCrontab
from holdtrue.schedules.timeline import Timeline, next_cron, zone


def in_zone(expression: str, name: str, after: str, until: str) -> list[str]:
    """The ticks between two UTC times, as UTC times."""
    cron, tick = NCrontab(expression), to_ticks(datetime.fromisoformat(after))
    found = []
    while (tick := next_cron(cron, zone(name), tick) or MAX_TICKS) <= to_ticks(datetime.fromisoformat(until)):
        found.append(f"{to_datetime(tick):%m-%d %H:%M}")
    return found


# Vienna goes from 02:00 to 03:00 on 29 March 2026, 01:00 UTC, and from 03:00 to 02:00 on 25 October, 01:00 UTC.


def test_a_skipped_time_fires_once_after_the_gap() -> None:
    got = in_zone("30 2 * * *", "Europe/Vienna", "2026-03-27 12:00", "2026-03-30 12:00")
    assert got == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]


def test_several_skipped_times_are_one_tick() -> None:
    got = in_zone("*/20 2-3 * * *", "Europe/Vienna", "2026-03-28 22:00", "2026-03-29 22:00")
    assert got == ["03-29 01:00", "03-29 01:20", "03-29 01:40"]


def test_a_skipped_rhythm_goes_on_without_a_stumble() -> None:
    got = in_zone("*/30 * * * *", "Europe/Vienna", "2026-03-29 00:00", "2026-03-29 02:00")
    assert got == ["03-29 00:30", "03-29 01:00", "03-29 01:30", "03-29 02:00"]


def test_a_time_that_comes_twice_fires_at_its_first_occurrence() -> None:
    got = in_zone("30 2 * * *", "Europe/Vienna", "2026-10-23 12:00", "2026-10-27 00:00")
    assert got == ["10-24 00:30", "10-25 00:30", "10-26 01:30"]


def test_it_is_not_fired_when_asked_in_the_second_occurrence() -> None:
    cron, vienna = NCrontab("* * 2 * * *"), zone("Europe/Vienna")
    tick = next_cron(cron, vienna, to_ticks(datetime(2026, 10, 25, 1, 15, 7)))
    assert tick == to_ticks(datetime(2026, 10, 26, 1, 0, 0))


def test_a_rhythm_goes_on_through_both_occurrences() -> None:
    got = in_zone("*/30 * * * *", "Europe/Vienna", "2026-10-24 23:45", "2026-10-25 02:00")
    assert got == ["10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30", "10-25 02:00"]


def test_half_an_hour_at_lord_howe() -> None:
    # Back from 02:00 to 01:30 on 5 April 2026, 15:00 UTC of the 4th; forth on 4 October, 15:30 UTC of the 3rd.
    assert in_zone("45 1 * * *", "Australia/Lord_Howe", "2026-04-03 16:00", "2026-04-05 16:00") == [
        "04-04 14:45",
        "04-05 15:15",
    ]
    assert in_zone("15 2 * * *", "Australia/Lord_Howe", "2026-10-02 16:00", "2026-10-04 16:00") == [
        "10-03 15:30",
        "10-04 15:15",
    ]


def test_a_whole_day_that_was_skipped() -> None:
    # Apia had no 30 December 2011; the gap ended at 10:00 UTC of that day.
    assert in_zone("0 12 30 12 *", "Pacific/Apia", "2011-12-01", "2011-12-31 23:00") == ["12-30 10:00"]


def test_beyond_the_last_year() -> None:
    assert next_cron(NCrontab("0 0 1 1 *"), zone("America/New_York"), MAX_TICKS - 5) is None
    assert next_cron(NCrontab("0 0 1 1 *"), UTC, MAX_TICKS + 5) is None


def test_an_unknown_zone_is_named() -> None:
    for name in ("Mars/Olympus", "", "../etc/passwd", "Europe"):
        with pytest.raises(InvalidSchedule, match="time zone"):
            zone(name)


def oracle(cron: NCrontab, tz: ZoneInfo, start: datetime, end: datetime) -> list[datetime]:
    """The rules, minute by minute: what the wall clock shows, and what it skipped since the minute before."""
    found = []
    shown = start.astimezone(tz)
    moment = start
    while moment < end:
        moment += timedelta(minutes=1)
        now = moment.astimezone(tz)
        wall = now.replace(tzinfo=None)
        expected = shown.replace(tzinfo=None) + timedelta(minutes=1)
        skipped = []
        while expected < wall:
            skipped.append(expected)
            expected += timedelta(minutes=1)
        if any(map(cron.matches, skipped)) or (cron.matches(wall) and (now.fold == 0 or cron.every_hour)):
            found.append(moment)
        shown = now
    return found


CHANGES = [
    ("Europe/Vienna", datetime(2026, 3, 29, 1)),
    ("Europe/Vienna", datetime(2026, 10, 25, 1)),
    ("America/New_York", datetime(2026, 3, 8, 7)),
    ("America/New_York", datetime(2026, 11, 1, 6)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30)),
    ("Africa/Casablanca", datetime(2026, 2, 15, 2)),
    ("America/St_Johns", datetime(2006, 4, 2, 3, 31)),
    ("America/St_Johns", datetime(2006, 10, 29, 2, 31)),
    ("Asia/Kathmandu", datetime(2026, 5, 1)),
]
MINUTES = st.sampled_from(["*", "0", "30", "*/15", "1,59", "10-20", "*/7"])
HOURS = st.sampled_from(["*", "0", "1", "2", "3", "*/2", "1-3", "23,0"])
DAYS = st.sampled_from(["*", "*", "*/2", "1-15"])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CHANGES), MINUTES, HOURS, DAYS)
def test_next_is_what_the_rules_say_minute_by_minute(
    change: tuple[str, datetime], minute: str, hour: str, day: str
) -> None:
    name, moment = change
    cron, tz = NCrontab(f"{minute} {hour} {day} * *"), ZoneInfo(name)
    start, end = moment.replace(tzinfo=UTC) - timedelta(hours=30), moment.replace(tzinfo=UTC) + timedelta(hours=30)
    expected = [to_ticks(found) for found in oracle(cron, tz, start, end)]
    got, tick = [], to_ticks(start)
    while (tick := next_cron(cron, tz, tick) or MAX_TICKS) <= to_ticks(end):
        got.append(tick)
    assert got == expected


@given(
    st.integers(0, 10**15).map(lambda n: 2 * n),
    st.integers(1, 10**11).map(lambda n: 2 * n),
    st.integers(0, 2 * 10**15),
)
def test_an_interval_keeps_its_grid(anchor: int, interval: int, after: int) -> None:
    tick = Timeline(schedule_id="s", interval=interval, anchor=anchor).next(after)
    assert tick is not None
    assert tick > after
    assert tick >= anchor
    assert (tick - anchor) % interval == 0
    assert tick - interval <= after or tick == anchor


def test_an_interval_counts_elapsed_time_over_a_clock_change() -> None:
    start = to_ticks(datetime(2026, 3, 28, 1, 0))
    day = Timeline(schedule_id="s", interval=86_400 * TICKS_PER_SECOND, anchor=start)
    assert day.next(start) == to_ticks(datetime(2026, 3, 29, 1, 0))
    assert day.next(start + 86_400 * TICKS_PER_SECOND) == to_ticks(datetime(2026, 3, 30, 1, 0))


def test_jitter_is_the_same_everywhere_and_stays_before_the_next_tick() -> None:
    line = Timeline(schedule_id="s", interval=10 * TICKS_PER_SECOND, jitter=3600 * TICKS_PER_SECOND)
    again = Timeline(schedule_id="s", interval=10 * TICKS_PER_SECOND, jitter=3600 * TICKS_PER_SECOND)
    other = Timeline(schedule_id="t", interval=10 * TICKS_PER_SECOND, jitter=3600 * TICKS_PER_SECOND)
    ticks = [n * 10 * TICKS_PER_SECOND for n in range(200)]
    dues = [line.due(tick) for tick in ticks]
    assert dues == [again.due(tick) for tick in ticks]
    assert dues != [other.due(tick) for tick in ticks]
    assert all(tick <= due < tick + 10 * TICKS_PER_SECOND for tick, due in zip(ticks, dues, strict=True))
    assert len({due - tick for tick, due in zip(ticks, dues, strict=True)}) > 190


def test_the_newest_are_found_without_the_older_ones() -> None:
    line = Timeline(schedule_id="s", cron=NCrontab("* * * * * *"))
    now = to_ticks(datetime(2026, 3, 2, 12, 0, 0))
    newest = line.newest(5, 0, now)
    assert newest == [now - n * TICKS_PER_SECOND for n in (4, 3, 2, 1, 0)]
    rare = Timeline(schedule_id="s", cron=NCrontab("0 0 1 1 *"))
    assert rare.newest(5, to_ticks(datetime(2024, 6, 1)), now) == [
        to_ticks(datetime(2025, 1, 1)),
        to_ticks(datetime(2026, 1, 1)),
    ]
