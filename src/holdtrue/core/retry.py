"""Retry policies: how often, and after what delay, a failed activity or child is tried again.

Pure arithmetic on the orchestration's own time, so that a replay decides as the first run did (the SDK
asks the wall clock for `retry_timeout`, and a replay there may differ).
"""

from collections.abc import Callable
from datetime import timedelta

from .events import TICKS_PER_MICROSECOND, FailureDetails, Ticks

_DEFAULT_FIRST = timedelta(seconds=1)


class RetryPolicy:
    """When to try again.

    `first_retry_interval` and its growth by `backoff_coefficient`, at most `max_retry_interval`, up to
    `max_number_of_attempts` in all and no new attempt later than `retry_timeout` after the first.
    Extensions: `retry_if` (a predicate on the failure), `handler` (given attempt and failure: the delay,
    or None to give up; it takes the place of intervals and back-off).  Both run inside the orchestration
    and must be deterministic.

    Raises ValueError for a negative interval, fewer than one attempt, or a coefficient below 1.
    """

    def __init__(
        self,
        *,
        first_retry_interval: timedelta = _DEFAULT_FIRST,
        max_number_of_attempts: int = 3,
        backoff_coefficient: float | None = 1.0,
        max_retry_interval: timedelta | None = None,
        retry_timeout: timedelta | None = None,
        retry_if: Callable[[FailureDetails], bool] | None = None,
        handler: Callable[[int, FailureDetails], timedelta | None] | None = None,
    ) -> None:
        zero = timedelta(0)
        if first_retry_interval < zero:
            raise ValueError("first_retry_interval must be >= 0")
        if max_number_of_attempts < 1:
            raise ValueError("max_number_of_attempts must be >= 1")
        if backoff_coefficient is not None and backoff_coefficient < 1:
            raise ValueError("backoff_coefficient must be >= 1")
        if max_retry_interval is not None and max_retry_interval < zero:
            raise ValueError("max_retry_interval must be >= 0")
        if retry_timeout is not None and retry_timeout < zero:
            raise ValueError("retry_timeout must be >= 0")
        self.first_retry_interval = first_retry_interval
        self.max_number_of_attempts = max_number_of_attempts
        self.backoff_coefficient = backoff_coefficient
        self.max_retry_interval = max_retry_interval
        self.retry_timeout = retry_timeout
        self.retry_if = retry_if
        self.handler = handler


def next_delay(policy: RetryPolicy, attempt: int, failure: FailureDetails, started: Ticks, now: Ticks) -> Ticks | None:
    """Ticks to wait before the attempt after `attempt` (from 1), or None to give up.

    `started` is when the first attempt was asked for and `now` the orchestration's time.
    """
    if failure.is_non_retriable or attempt >= policy.max_number_of_attempts:
        return None
    if policy.retry_timeout is not None and now >= started + ticks(policy.retry_timeout):
        return None
    if policy.retry_if is not None and not policy.retry_if(failure):
        return None
    if policy.handler is not None:
        delay = policy.handler(attempt, failure)
        return None if delay is None else ticks(delay)
    cap = None if policy.max_retry_interval is None else ticks(policy.max_retry_interval)
    try:
        wait = int(ticks(policy.first_retry_interval) * (policy.backoff_coefficient or 1.0) ** (attempt - 1))
    except OverflowError:
        wait = cap if cap is not None else ticks(timedelta.max)
    return wait if cap is None else min(wait, cap)


def ticks(delta: timedelta) -> Ticks:
    """A time delta in ticks."""
    return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * TICKS_PER_MICROSECOND
