"""Calls that may take so long each: answers in order, what is late is told and left behind, the rest goes on."""

import asyncio
import time

import pytest

from holdtrue.environment import REAL
from holdtrue.testing.time_limit import TimeLimit


def late(item: int, place: str | None) -> str:
    return f"{item} late at {place}"


def test_answers_come_in_order() -> None:
    with TimeLimit(lambda n: n * n, 60.0, lambda item, place: -1) as limit:
        assert list(limit.each(range(1_000))) == [n * n for n in range(1_000)]
        assert list(limit.each([])) == [] and list(limit.each([3])) == [9]


def test_an_error_is_raised_where_it_is_asked_for() -> None:
    def call(n: int) -> str:
        if n == 2:
            raise ValueError("two")
        return str(n)

    with TimeLimit(call, 60.0, late) as limit:
        answers = limit.each(range(5))
        with pytest.raises(ValueError, match="two"):
            list(answers)
        assert list(limit.each([7, 8])) == ["7", "8"], "no answer of before may come now"


def test_what_never_comes_back_is_left_behind() -> None:
    """Endless work, and a wait that nothing ends: both are told with their line, and all others are answered."""
    ended = []
    never = REAL.mutex()
    never.__enter__()

    def call(n: int) -> str:
        if n == 3:
            try:
                while True:
                    n += 1
            finally:
                ended.append(3)
        if n == 5:
            never.__enter__()
        return str(n)

    with TimeLimit(call, 0.2, late) as limit:
        answers = list(limit.each(range(8)))
    assert [answer for answer in answers if "late" not in answer] == ["0", "1", "2", "4", "6", "7"]
    assert answers[3].startswith(f"3 late at {__file__}:") and answers[5].startswith(f"5 late at {__file__}:")
    moment = REAL.monotonic() + 30
    while not ended and REAL.monotonic() < moment:
        with TimeLimit(call, 60.0, late) as limit:
            list(limit.each([1]))
    assert ended == [3], "what went on without end was ended"
    never.__exit__(None, None, None)


def test_a_call_runs_on_a_loop_as_a_step_of_a_worker_does() -> None:
    with TimeLimit(lambda n: asyncio.get_running_loop().is_running(), 60.0, lambda item, place: False) as limit:
        assert list(limit.each([1])) == [True]


def test_the_loop_of_one_that_is_left_behind_is_closed_whenever_it_is_told_again_to_end() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    def call(n: int) -> str:
        loops.append(asyncio.get_running_loop())
        while n:
            n += 1
        return str(n)

    for wait in range(300):
        with TimeLimit(call, 0.001, late) as limit:
            assert "late" in next(iter(limit.each([1])))
            time.sleep(wait * 2e-6)
        moment = REAL.monotonic() + 10
        while not loops[-1].is_closed() and REAL.monotonic() < moment:
            time.sleep(0)
        assert loops[-1].is_closed()
