"""A definition is checked whole when it is made, and comes back from its text as it was."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from holdtrue.core.dialect import to_ticks
from holdtrue.core.errors import InvalidInput
from holdtrue.schedules.errors import InvalidSchedule, NeverFires
from holdtrue.schedules.specification import Missed, Overlap, ScheduleSpec, decode_spec, encode_spec, tick_text


def spec(**members: Any) -> ScheduleSpec:
    values: dict[str, Any] = {"schedule_id": "nightly", "orchestrator": "load", **members}
    if "interval" not in values:
        values.setdefault("cron", "0 2 * * *")
    return ScheduleSpec(**values)


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"schedule_id": ""}, "schedule_id"),
        ({"schedule_id": "@x"}, "'@'"),
        ({"schedule_id": "x" * 471}, "471"),
        ({"schedule_id": "/" * 236}, "472"),
        ({"schedule_id": "\ud800"}, "surrogate"),
        ({"orchestrator": ""}, "orchestrator"),
        ({"version": 3}, "version"),
        ({"version": "\ud800"}, "surrogate"),
        ({"cron": 3}, "cron"),
        ({"time_zone": 3}, "time_zone"),
        ({"tags": {"k": "\ud800"}}, "surrogate"),
        ({"tags": {"k": 1}}, "tags"),
        ({"tags": ["k"]}, "tags"),
        ({"instance_id": ""}, "instance_id"),
        ({"instance_id": "@one"}, "'@'"),
        ({"instance_id": "one", "overlap": "allow"}, "leave instance_id out"),
        ({"overlap": "both"}, "skip, queue, allow, replace"),
        ({"missed": "some"}, "skip, one, all"),
        ({"missed_limit": 0}, "missed_limit"),
        ({"missed_limit": 1001}, "missed_limit"),
        ({"cron": None}, "exactly one"),
        ({"cron": "* * * * *", "interval": timedelta(seconds=1)}, "exactly one"),
        ({"cron": "61 * * * *"}, "'61'"),
        ({"interval": timedelta(0)}, "interval"),
        ({"interval": timedelta(seconds=-5)}, "interval"),
        ({"interval": timedelta(milliseconds=99)}, "interval"),
        ({"interval": timedelta(hours=1), "time_zone": "Europe/Vienna"}, "elapsed time"),
        ({"time_zone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"grace": timedelta(seconds=-1)}, "grace"),
        ({"jitter": 5}, "jitter"),
        ({"keep_ticks": timedelta(days=-1)}, "keep_ticks"),
        ({"start_at": "tomorrow"}, "start_at"),
        ({"start_at": datetime(2026, 5, 2), "end_at": datetime(2026, 5, 1)}, "exchange them"),
    ],
)
def test_what_is_wrong_is_named(members: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        spec(**members)
    assert named in str(caught.value)
    assert isinstance(caught.value, InvalidInput)


@pytest.mark.parametrize(
    "members",
    [
        {"cron": "0 0 31 2 *"},
        {"start_at": datetime(2026, 5, 1, 3), "end_at": datetime(2026, 5, 1, 23)},
        {"cron": "0 0 29 2 *", "start_at": datetime(2026, 1, 1), "end_at": datetime(2027, 12, 31)},
    ],
)
def test_what_never_fires_is_refused_at_creation(members: dict[str, Any]) -> None:
    with pytest.raises(NeverFires):
        spec(**members)


def test_an_end_that_is_a_tick_counts() -> None:
    made = spec(start_at=datetime(2026, 5, 1, 3), end_at=datetime(2026, 5, 2, 2))
    assert made.timeline(0).next(to_ticks(datetime(2026, 5, 1, 3))) == to_ticks(datetime(2026, 5, 2, 2))


def test_texts_and_times_take_their_types() -> None:
    made = spec(overlap="queue", missed="all", start_at=datetime(2026, 5, 1, tzinfo=timezone(timedelta(hours=2))))
    assert made.overlap is Overlap.QUEUE
    assert made.missed is Missed.ALL
    assert made.start_at == datetime(2026, 4, 30, 22, tzinfo=UTC)
    assert spec(start_at=datetime(2026, 5, 1)).start_at == datetime(2026, 5, 1, tzinfo=UTC)


def test_the_text_gives_the_definition_back() -> None:
    made = spec(
        input='{"a":1}',
        instance_id="one",
        overlap="queue",
        missed="all",
        missed_limit=3,
        grace=timedelta(seconds=5),
        jitter=timedelta(milliseconds=1500),
        start_at=datetime(2026, 5, 1, 0, 0, 0, 5),
        end_at=datetime(2027, 5, 1),
        time_zone="Europe/Vienna",
        tags={"team": "x"},
        version="2",
        paused=True,
        keep_ticks=timedelta(days=2),
    )
    assert decode_spec(encode_spec(made)) == made
    assert decode_spec(encode_spec(spec())) == spec()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schedule_id":"s","orchestrator":"o","cron":"x"}'])
def test_a_text_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidSchedule, match="cannot be read"):
        decode_spec(text)


def test_instance_ids() -> None:
    tick = to_ticks(datetime(2026, 5, 1, 2))
    assert spec().instance_for(tick) == "nightly:2026-05-01T02:00:00Z"
    assert spec(instance_id="one").instance_for(tick) == "one"
    assert tick_text(tick + 1_500_000) == "2026-05-01T02:00:00.15Z"
    assert tick_text(tick + 1) == "2026-05-01T02:00:00.0000001Z"
