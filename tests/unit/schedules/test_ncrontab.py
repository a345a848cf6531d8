"""NCRONTAB expressions fire where NCrontab fires them: checked by example and against a search second by second."""

from datetime import datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdtrue.schedules.errors import InvalidSchedule, NeverFires
from holdtrue.schedules.ncrontab import NCrontab


def moments(expression: str, after: str, count: int) -> list[str]:
    found = NCrontab(expression).all_after(datetime.fromisoformat(after))
    return [next(found).isoformat(sep=" ") for _ in range(count)]


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("* * * * *", "2003-01-01 00:00:00", ["2003-01-01 00:01:00", "2003-01-01 00:02:00"]),
        ("* * * * * *", "2003-01-01 00:00:00", ["2003-01-01 00:00:01", "2003-01-01 00:00:02"]),
        ("* * * * * *", "2003-12-31 23:59:58.900", ["2003-12-31 23:59:59", "2004-01-01 00:00:00"]),
        ("*/20 * * * * *", "2003-01-01 00:00:40", ["2003-01-01 00:01:00", "2003-01-01 00:01:20"]),
        ("0 12 * */2 Mon", "2000-01-01 00:00:00", ["2000-01-03 12:00:00", "2000-01-10 12:00:00"]),
        ("0 0 15,31 * *", "2000-02-20 00:00:00", ["2000-03-15 00:00:00", "2000-03-31 00:00:00", "2000-04-15 00:00:00"]),
        ("0 0 29 2 *", "2096-03-01 00:00:00", ["2104-02-29 00:00:00"]),
        ("0 0 29 2 mon", "2016-03-01 00:00:00", ["2044-02-29 00:00:00"]),
        # Both must match, where Unix cron takes either.
        ("0 0 13 * Fri", "2026-01-01 00:00:00", ["2026-02-13 00:00:00", "2026-03-13 00:00:00", "2026-11-13 00:00:00"]),
        ("0 0 * * sun", "2026-03-02 00:00:00", ["2026-03-08 00:00:00"]),
        ("0 0 * * 0", "2026-03-02 00:00:00", ["2026-03-08 00:00:00"]),
        # A name may be a beginning of it; the first that fits counts.
        ("0 0 1 m *", "2026-01-01 00:00:00", ["2026-03-01 00:00:00"]),
        ("0 0 1 September *", "2026-01-01 00:00:00", ["2026-09-01 00:00:00"]),
        # A reversed range is the same range; a single value with a step goes on to the end.
        ("0 0 * * 5-1", "2026-03-01 00:00:00", ["2026-03-02 00:00:00", "2026-03-03 00:00:00"]),
        ("50/5 8 * * *", "2026-03-01 00:00:00", ["2026-03-01 08:50:00", "2026-03-01 08:55:00", "2026-03-02 08:50:00"]),
        ("0 1-9/4,22 * * *", "2026-03-01 02:00:00", [f"2026-03-01 {h}:00:00" for h in ("05", "09", "22")]),
        ("0 0 */10 * *", "2026-03-01 00:00:00", ["2026-03-11 00:00:00", "2026-03-21 00:00:00", "2026-03-31 00:00:00"]),
    ],
)
def test_examples(expression: str, after: str, expected: list[str]) -> None:
    assert moments(expression, after, len(expected)) == expected


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("* * * * * * *", "7 fields"),
        ("60 * * * *", "'60' is no minute"),
        ("* 24 * * *", "'24' is no hour"),
        ("* * 0 * *", "'0' is no day of month"),
        ("* * * 13 *", "'13' is no month"),
        ("* * * * 7", "Sunday is 0"),
        ("? * * * *", "'?' is no minute"),
        ("* * ? * *", "'?' is no day of month"),
        ("* * L * *", "'L' is no day of month"),
        ("* * * Foo *", "'Foo' is no month"),
        ("* * * * Mondays", "'Mondays' is no weekday"),
        ("*/0 * * * *", "step '0'"),
        ("*/-2 * * * *", "step '-2'"),
        ("*/x * * * *", "step 'x'"),
        ("*/ * * * *", "step ''"),
        ("1, * * * *", "'' is no minute"),
        (",1 * * * *", "'' is no minute"),
        ("1- * * * *", "'' is no minute"),
        ("-1 * * * *", "'' is no minute"),
        ("/5 * * * *", "'' is no minute"),
        ("*-5 * * * *", "'*' is no minute"),
        ("1.5 * * * *", "'1.5' is no minute"),
        ("² * * * *", "'²' is no minute"),
        ("Jan * * * *", "'Jan' is no minute"),
    ],
)
def test_what_is_no_expression_is_named(expression: str, named: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        NCrontab(expression)
    assert named in str(caught.value)
    assert not isinstance(caught.value, NeverFires)


FIELDS = {
    "second": (0, 59),
    "minute": (0, 59),
    "hour": (0, 23),
    "day of month": (1, 31),
    "month": (1, 12),
    "weekday": (0, 6),
}


@pytest.mark.parametrize("place", range(6))
def test_each_field_takes_its_values_and_none_beside_them(place: int) -> None:
    name, (low, high) = list(FIELDS.items())[place]

    def at(value: object) -> NCrontab:
        fields = ["*"] * 6
        fields[place] = str(value)
        return NCrontab(" ".join(fields))

    start = datetime(2023, 12, 31, 23, 59, 59)
    every = {at(value).next(start) for value in range(low, high + 1)}
    assert len(every) == high - low + 1 and None not in every
    for value in (high + 1, low - 1, f"{low}-{high + 1}"):
        with pytest.raises(InvalidSchedule, match=f"is no {name}: give a number from {low} to {high}"):
            at(value)


def test_expressions_are_equal_by_their_text() -> None:
    one = NCrontab("0 * * * *")
    assert one == NCrontab("0 * * * *") and hash(one) == hash(NCrontab("0 * * * *"))
    assert one != NCrontab("1 * * * *") and one != "0 * * * *"


@pytest.mark.parametrize("expression", ["0 0 31 2 *", "0 0 30,31 2 *", "* * * 31 4,6,9,11 Mon", "0 0 30 Feb *"])
def test_what_never_fires_is_refused(expression: str) -> None:
    with pytest.raises(NeverFires, match="never fires"):
        NCrontab(expression)


def test_the_year_9999_is_the_last() -> None:
    assert NCrontab("0 0 1 1 *").next(datetime(9999, 1, 1)) is None
    assert NCrontab("* * * * * *").next(datetime(9999, 12, 31, 23, 59, 59)) is None


def test_it_does_not_go_second_by_second() -> None:
    """A rare time is found at once: 28 years of seconds could not be gone through 500 times in a test."""
    rare = NCrontab("59 59 23 29 2 mon")
    for _ in range(500):
        assert rare.next(datetime(2016, 3, 1)) == datetime(2044, 2, 29, 23, 59, 59)


def fields(low: int, high: int) -> st.SearchStrategy[str]:
    value = st.integers(low, high)
    part = st.one_of(
        st.just("*"),
        st.builds(str, value),
        st.builds("{}-{}".format, value, value),
        st.builds("*/{}".format, st.integers(1, 40)),
        st.builds("{}/{}".format, value, st.integers(1, 40)),
        st.builds("{}-{}/{}".format, value, value, st.integers(1, 40)),
    )
    return st.one_of(st.just("*"), part, st.builds(",".join, st.lists(part, min_size=1, max_size=3)))


EXPRESSIONS = st.builds(
    "{} {} {} {} {} {}".format, fields(0, 59), fields(0, 59), fields(0, 23), fields(1, 31), fields(1, 12), fields(0, 6)
)


def expand(text: str, low: int, high: int) -> set[int]:
    """A second reading of a field, as plain as can be."""
    found = set()
    for part in text.split(","):
        body, _, step = part.partition("/")
        if body == "*":
            first, last = low, high
        elif "-" in body:
            first, last = sorted(map(int, body.split("-")))
        else:
            first, last = int(body), high if step else int(body)
        found |= {value for value in range(first, last + 1) if (value - first) % int(step or 1) == 0}
    return found


def oracle(expression: str, after: datetime, until: datetime) -> datetime | None:
    second, minute, hour, day, month, weekday = (
        expand(text, *limits)
        for text, limits in zip(expression.split(), [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6)], strict=True)
    )
    moment = after.replace(microsecond=0) + timedelta(seconds=1)
    while moment <= until:
        # Only days and hours that cannot match are passed over whole.
        if moment.day not in day or moment.month not in month or (moment.weekday() + 1) % 7 not in weekday:
            moment = moment.replace(hour=0, minute=0, second=0) + timedelta(days=1)
        elif moment.hour not in hour:
            moment = moment.replace(minute=0, second=0) + timedelta(hours=1)
        elif moment.minute in minute and moment.second in second:
            return moment
        else:
            moment += timedelta(seconds=1)
    return None


@settings(max_examples=150, deadline=None)
@given(EXPRESSIONS, st.datetimes(datetime(1999, 1, 1), datetime(2104, 12, 31)))
@example("0 0 0 29 2 *", datetime(2000, 2, 28, 23, 59, 59))
@example("59 59 23 31 12 *", datetime(2003, 12, 31, 23, 59, 59))
def test_next_is_what_a_plain_search_finds(expression: str, after: datetime) -> None:
    try:
        cron = NCrontab(expression)
    except NeverFires:
        assert oracle(expression, datetime(1999, 12, 31), datetime(2001, 1, 1)) is None
        return
    until = after + timedelta(days=500)
    expected = oracle(expression, after, until)
    found = cron.next(after)
    if expected is None:
        assert found is None or found > until
    else:
        assert found == expected
        assert cron.matches(found)
