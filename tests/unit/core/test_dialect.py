"""What the dialects make: uuids as their executors make them, default ids of children, pieces of long timers."""

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from durabletask.worker import _RuntimeOrchestrationContext
from world import World

from holdtrue.core import events as ev
from holdtrue.core.dialect import DOTNET, PYTHON, detect, to_datetime, to_ticks
from holdtrue.core.retry import RetryPolicy, ticks

DAY = 86_400 * ev.TICKS_PER_SECOND


@pytest.mark.parametrize("moment", [datetime(2024, 2, 29, 12, 30, 15, 123456), datetime(2024, 1, 1)])
def test_uuids_of_the_python_dialect_are_the_sdks(moment: datetime) -> None:
    class Theirs:
        _instance_id = "some/instance"
        current_utc_datetime = moment
        _new_uuid_counter = 0

    theirs: Any = Theirs()
    for counter in range(3):
        expected = _RuntimeOrchestrationContext.new_uuid(theirs)
        assert PYTHON.new_uuid("some/instance", to_ticks(moment), counter) == expected


def test_uuids_of_dotnets_dialect() -> None:
    # Computed by the rule of RFC 4122 4.3 with the namespace that Durable Functions and Durable Task use, over
    # "{instance}_{time:o}_{counter}"; "o" writes seven digits.
    ticks = to_ticks(datetime(2024, 2, 29, 12, 30, 15, 123456)) + 7
    assert to_datetime(ticks) == datetime(2024, 2, 29, 12, 30, 15, 123456)
    import hashlib
    import uuid

    namespace = bytes.fromhex("9e9529585e334daf827f2fa12937b875")
    digest = bytearray(hashlib.sha1(namespace + b"abc_2024-02-29T12:30:15.1234567Z_1").digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    assert DOTNET.new_uuid("abc", ticks, 1) == str(uuid.UUID(bytes=bytes(digest)))


def test_default_ids_of_children() -> None:
    assert DOTNET.child_id("i", "x", 11) == "x:11"
    assert PYTHON.child_id("i", "x", 11) == "i:000b"
    assert PYTHON.child_id("i", "x", 0x12345) == "i:12345"


def test_a_history_without_a_record_is_told_by_its_first_task_id() -> None:
    begin = [ev.OrchestratorStarted(timestamp=0)]
    assert detect(begin) is DOTNET
    for task_id, dialect in ((0, DOTNET), (1, PYTHON), (2, PYTHON)):
        assert detect([*begin, ev.TimerCreated(timestamp=0, event_id=task_id, fire_at=1)]) is dialect


def fire_times(world: World) -> list[int]:
    """Fire what is due, one timer after another; the times, from the beginning."""
    begun, times = world.now, []
    while world.work:
        message: Any = world.work.pop(0)
        world.now = message.event.fire_at
        times.append(world.now - begun)
        world.step(message)
    return times


@pytest.mark.parametrize(
    ("dialect", "pieces"), [("dotnet", [7 * DAY]), ("python", [3 * DAY, 6 * DAY, 7 * DAY])], ids=["dotnet", "python"]
)
def test_long_timers_and_long_delays_between_attempts_are_cut_alike(dialect: str, pieces: list[int]) -> None:
    async def sleeps(run: Any, argument: Any) -> Any:
        await run.create_timer(run.now + 7 * DAY)
        return run.now

    async def tries(run: Any, argument: Any) -> Any:
        policy = RetryPolicy(first_retry_interval=to_datetime(7 * DAY) - datetime(1970, 1, 1))
        return await run.schedule_task("a", None, retry=policy)

    world = World(sleeps, dialect=dialect)
    world.step()
    assert fire_times(world) == pieces
    assert world.state.projection.status.name == "COMPLETED"

    world = World(tries, dialect=dialect)
    world.step()
    world.step(world.failed(world.scheduled.pop(), "once"))
    assert fire_times(world) == pieces
    again = world.scheduled.pop()
    assert again.task_id == (2 if dialect == "dotnet" else 1)
    world.step(world.result(again, "done"))
    assert world.state.projection.output == '"done"'


@pytest.mark.parametrize("end", [datetime.min, datetime.max])
def test_aware_times_at_the_ends_of_the_calendar(end: datetime) -> None:
    hour = timedelta(hours=1)
    for offset in (-hour, hour):
        assert to_ticks(end.replace(tzinfo=timezone(offset))) == to_ticks(end) - ticks(offset)
