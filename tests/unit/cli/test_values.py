"""What the user types, made into values."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from holdtrue.cli.exits import UsageProblem
from holdtrue.cli.values import parse_duration, parse_json, parse_moment, parse_tags, parse_when

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ('"a"', "a"), ('{"a": [1.5, true]}', {"a": [1.5, True]}), (str(2**80), 2**80)],
)
def test_json_text(text: str, value: object) -> None:
    assert parse_json(text) == value


def test_null_is_a_payload() -> None:
    assert msgspec.json.encode([parse_json("null"), parse_json(" null\n")]) == b"[null,null]"


def test_json_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('\ufeff{"name": "Zoë"}', encoding="utf-8")
    assert parse_json(f"@{tmp_path / 'in.json'}") == {"name": "Zoë"}


@pytest.mark.parametrize("text", ["Ada", "{", "", "{'a': 1}", "NaN", "-Infinity", "1e999", "[1] 2", "[" * 100_000])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem, match="input"):
        parse_json(text)


def test_the_refusal_says_where_and_how_to_quote() -> None:
    with pytest.raises(UsageProblem, match=r"line 1, column 1.*'\"Ada\"'"):
        parse_json("Ada")
    with pytest.raises(UsageProblem, match="line 2, column 3"):
        parse_json("[1,\n  x]")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"nowhere\.json.*No such file"):
        parse_json(f"@{tmp_path / 'nowhere.json'}")
    (tmp_path / "latin").write_bytes(b'"\xe4"')
    with pytest.raises(UsageProblem, match="not UTF-8"):
        parse_json(f"@{tmp_path / 'latin'}")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("500ms", 0.5), ("30s", 30), ("1h30m", 5400), ("2d", 172_800), ("1w", 604_800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "-1", "1x", "h", "1h30", "10 apples", "9" * 30 + "w"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem, match="--timeout"):
        parse_duration(text, "--timeout")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T08:00:00Z", datetime(2026, 1, 31, 8, tzinfo=UTC)),
        ("2026-01-31T08:00:00", datetime(2026, 1, 31, 8, tzinfo=UTC)),
        ("2026-01-31T08:00:00+02:00", datetime(2026, 1, 31, 6, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("now", NOW),
        ("+10m", NOW + timedelta(minutes=10)),
        ("-1d", NOW - timedelta(days=1)),
    ],
)
def test_moments(text: str, moment: datetime) -> None:
    assert parse_moment(text, now=NOW) == moment


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "10000-01-01", "+100000000w", "2026-13-01", "+", "9999-12-31T23:00:00-05:00"]
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem, match="--at"):
        parse_moment(text, "--at", NOW)


def test_a_deadline_is_either() -> None:
    assert parse_when("2h", "--deadline") == timedelta(hours=2)
    assert parse_when("2026-01-31", "--deadline") == datetime(2026, 1, 31, tzinfo=UTC)


def test_tags() -> None:
    assert parse_tags(None) is None
    assert parse_tags(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    with pytest.raises(UsageProblem, match="key=value"):
        parse_tags(["a"])
