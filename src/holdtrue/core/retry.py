"""Retry policies: how often, and after what delay, a failed activity or child is tried again; and from where.

Pure arithmetic on the orchestration's own time, so that a replay decides as the first run did (the SDK
asks the wall clock for `retry_timeout`, and a replay there may differ).

What an attempt of an activity reported by heartbeat travels in the properties of its failure, and so
stands in the history: the next attempt goes on from there, whoever runs it.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import msgspec

from .actions import ActivityOptions, ScheduleTask
from .events import TICKS_PER_MICROSECOND, FailureDetails, Ticks

_DEFAULT_FIRST = timedelta(seconds=1)

DETAILS_PROPERTY = "holdtrue.details"
"""The property of an activity's failure that holds what its last run reported, as JSON text."""
MAX_DETAILS = 64 * 1024
"""Bytes of UTF-8 that a heartbeat's details may have: each failed attempt keeps its own in the history."""

A = TypeVar("A")


class RetryPolicy:
    """When to try again.

    `first_retry_interval` and its growth by `backoff_coefficient`, at most `max_retry_interval`, up to
    `max_number_of_attempts` in all; one that fails `retry_timeout` after the first was asked for is the last.
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


def with_details(failure: FailureDetails, details: str | None) -> FailureDetails:
    """The failure of an activity, with what it reported last."""
    if details is None:
        return failure
    return msgspec.structs.replace(failure, properties={**(failure.properties or {}), DETAILS_PROPERTY: details})


def resumed(options: ActivityOptions | None, failure: FailureDetails | None) -> ActivityOptions | None:
    """The options of a work item that goes on from what the failed one reported."""
    properties: dict[str, Any] = {} if failure is None else failure.properties or {}
    details = properties.get(DETAILS_PROPERTY)
    if not isinstance(details, str):
        return options
    return msgspec.structs.replace(options or ActivityOptions(), details=details)


def next_attempt(action: A, attempt: int, failure: FailureDetails) -> A:
    """What is asked for at this attempt (from 2), after that failure."""
    if not isinstance(action, ScheduleTask):
        return action
    options = msgspec.structs.replace(resumed(action.options, failure) or ActivityOptions(), attempt=attempt)
    first = action.id if action.retries is None else action.retries
    return msgspec.structs.replace(action, options=options, retries=first)


def ticks(delta: timedelta) -> Ticks:
    """A time delta in ticks."""
    return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * TICKS_PER_MICROSECOND
