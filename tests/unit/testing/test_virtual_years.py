"""Virtual time goes on for as long as a program may wait."""

import asyncio
from typing import Any

import pytest

from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.engine.due import DueWatch
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.virtual_time import run


def test_a_sleep_after_years_ends() -> None:
    """After half a year the clock's numbers are further apart than the loop's resolution of real time."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        for days in (200, 1_000, 100_000):
            await asyncio.sleep(days * 86_400.0)
            for _ in range(3):
                await asyncio.sleep(0.1)
        return loop.time()

    assert run(main()) >= 101_200 * 86_400


@pytest.mark.parametrize(("longest", "wanted"), [(60.0, 60.0), (1e9, 86_400.0)])
def test_a_wait_for_a_far_timer_looks_again_as_often_as_the_environment_says(longest: float, wanted: float) -> None:
    """A real clock may be set meanwhile; one that nobody sets need not be looked at each minute of a month."""
    waits: list[float] = []

    class Watching(SimulatedEnvironment):
        def call_later(self, seconds: float, call: Any) -> asyncio.TimerHandle:
            waits.append(seconds)
            return super().call_later(seconds, call)

    async def main() -> None:
        environment = Watching(1)
        environment.longest_sleep = longest
        nothing: Any = type("Background", (), {"stopping": False})()
        watch = DueWatch(nothing, environment, nothing, deliver=lambda delivery: None, ready=lambda: None)
        watch.note(environment.now() + 86_400 * TICKS_PER_SECOND)
        watch.stop()

    run(main())
    assert waits == [pytest.approx(wanted, abs=1.0)]


def test_the_real_clock_is_looked_at_each_minute() -> None:
    from holdtrue.environment import REAL

    assert REAL.longest_sleep == 60.0
