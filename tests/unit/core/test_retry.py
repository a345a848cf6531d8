"""When a failed attempt is followed by another, and after what delay."""

from datetime import timedelta
from typing import Any

import pytest

from holdtrue.core.events import TICKS_PER_SECOND, FailureDetails
from holdtrue.core.retry import RetryPolicy, next_delay, ticks

DOWN = FailureDetails(message="down", error_type="OSError")
STARTED = 1_000 * TICKS_PER_SECOND


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def delays(count: int, now: int = STARTED, failure: FailureDetails = DOWN, **policy: Any) -> list[float | None]:
    """The delays after each of so many attempts, in seconds."""
    made = RetryPolicy(**{"max_number_of_attempts": 1_000_000, **policy})
    found = [next_delay(made, attempt + 1, failure, STARTED, now) for attempt in range(count)]
    return [None if each is None else each / TICKS_PER_SECOND for each in found]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, [1, 1, 1]),
        ({"max_number_of_attempts": 1}, [None]),
        ({"max_number_of_attempts": 3}, [1, 1, None, None]),
        ({"first_retry_interval": seconds(0)}, [0, 0]),
        ({"first_retry_interval": timedelta(days=2, seconds=3, microseconds=5)}, [172_803.000005]),
        ({"backoff_coefficient": 2}, [1, 2, 4, 8]),
        ({"backoff_coefficient": 1.5, "first_retry_interval": seconds(4)}, [4, 6, 9, 13.5]),
        ({"backoff_coefficient": None}, [1, 1, 1]),
        ({"backoff_coefficient": 3, "max_retry_interval": seconds(5)}, [1, 3, 5, 5]),
        ({"max_retry_interval": seconds(0)}, [0]),
        ({"first_retry_interval": seconds(9), "max_retry_interval": seconds(5)}, [5, 5]),
        ({"handler": lambda attempt, failure: seconds(attempt * 10)}, [10, 20, 30]),
        ({"handler": lambda attempt, failure: seconds(9), "max_retry_interval": seconds(5)}, [9]),
        ({"handler": lambda attempt, failure: None if attempt > 1 else seconds(0)}, [0, None, None]),
        ({"handler": lambda attempt, failure: seconds(0), "max_number_of_attempts": 2}, [0, None]),
        ({"retry_if": lambda failure: failure.message == "down"}, [1, 1]),
        ({"retry_if": lambda failure: failure.error_type == "KeyError"}, [None]),
        ({"retry_if": lambda failure: False, "handler": lambda attempt, failure: seconds(1)}, [None]),
    ],
)
def test_delays(policy: dict[str, Any], expected: list[float | None]) -> None:
    assert delays(len(expected), **policy) == expected


@pytest.mark.parametrize(("after", "tried"), [(0, True), (9.9999999, True), (10, False), (11, False)])
def test_no_other_attempt_after_a_failure_past_the_time_out(after: float, tried: bool) -> None:
    now = STARTED + round(after * TICKS_PER_SECOND)
    policy: dict[str, Any] = {"retry_timeout": seconds(10), "first_retry_interval": seconds(60)}
    assert delays(1, now, **policy) == [60 if tried else None]
    assert delays(1, now, handler=lambda attempt, failure: seconds(3), **policy) == [3 if tried else None]


def test_a_failure_that_says_so_is_not_retried() -> None:
    final = FailureDetails(message="down", error_type="OSError", is_non_retriable=True)
    assert delays(1, failure=final, handler=lambda attempt, failure: seconds(1)) == [None]


def test_growth_without_end_stays_a_number() -> None:
    assert delays(2_000, backoff_coefficient=2.0, max_retry_interval=seconds(5))[-1] == 5
    longest = RetryPolicy(backoff_coefficient=2.0, max_number_of_attempts=5_000)
    assert next_delay(longest, 2_000, DOWN, STARTED, STARTED) == ticks(timedelta.max)


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        ({"first_retry_interval": seconds(-1)}, "first_retry_interval"),
        ({"max_number_of_attempts": 0}, "max_number_of_attempts"),
        ({"backoff_coefficient": 0.99}, "backoff_coefficient"),
        ({"backoff_coefficient": 0}, "backoff_coefficient"),
        ({"max_retry_interval": seconds(-1)}, "max_retry_interval"),
        ({"retry_timeout": seconds(-1)}, "retry_timeout"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(policy: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RetryPolicy(**policy)


def test_the_least_that_makes_sense() -> None:
    made = RetryPolicy(
        first_retry_interval=seconds(0),
        max_number_of_attempts=1,
        backoff_coefficient=1,
        max_retry_interval=seconds(0),
        retry_timeout=seconds(0),
    )
    assert next_delay(made, 1, DOWN, STARTED, STARTED) is None
    assert RetryPolicy().max_number_of_attempts == 3
