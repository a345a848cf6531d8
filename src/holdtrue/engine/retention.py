"""Retention: ended instances are purged by age or by count, in the background, a few at a time.

Knows which are to go by the store's `expired` (top-level instances that have ended; a child goes with its
parent, never before it), and nothing of how a store deletes.
"""

import logging
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

import msgspec

from holdtrue.core.errors import InvalidInput
from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.environment import Environment
from holdtrue.stores.errors import StoreError
from holdtrue.stores.protocol import TaskHubStore

_log = logging.getLogger("holdtrue.retention")

BATCH: Final = 200
"""So many instances are purged in one go."""
SHORTEST_PAUSE: Final = 0.05
"""Seconds between two batches; a batch that took longer is followed by a pause as long as itself."""
SWEEP_EVERY: Final = 60.0
"""Seconds between two sweeps."""
BACK_OFF: Final = (1.0, 60.0)
"""The first and the longest wait, in seconds, after a failure of the store."""


class RetentionRule(msgspec.Struct, frozen=True, kw_only=True):
    """What goes: instances that ended over `max_age` ago, and all but the `max_count` that ended last.

    Either condition is enough; None: that condition takes nothing.  Raises InvalidInput for a negative one.
    """

    max_age: timedelta | None = None
    max_count: int | None = None

    def __post_init__(self) -> None:
        """Check both."""
        if self.max_age is not None and self.max_age < timedelta(0):
            raise InvalidInput(f"retention: max_age is {self.max_age}: give a timedelta that is not negative, or None")
        if self.max_count is not None and self.max_count < 0:
            raise InvalidInput(f"retention: max_count is {self.max_count}: give 0 or more, or None to keep any number")


class RetentionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How long a hub keeps ended top-level instances (Completed, Failed, Terminated, Canceled).

    By default 30 days whatever their number: a limit by count would take fresh results from whoever runs
    many instances in an hour.  `per_orchestration` gives the instances of an orchestration a rule of their
    own, by its name; they then neither fall under the general rule nor count in it (`RetentionRule()` keeps
    them all).  `keep_everything` purges nothing at all.  Raises InvalidInput for a negative limit.
    """

    max_age: timedelta | None = timedelta(days=30)
    max_count: int | None = None
    per_orchestration: Mapping[str, RetentionRule] = {}
    keep_everything: bool = False

    def __post_init__(self) -> None:
        """Check the general rule."""
        RetentionRule(max_age=self.max_age, max_count=self.max_count)

    def rules(self) -> Iterator[tuple[str | None, RetentionRule]]:
        """The rules that can take something, by orchestration; None is the general one."""
        if self.keep_everything:
            return
        general = RetentionRule(max_age=self.max_age, max_count=self.max_count)
        for name, rule in (*self.per_orchestration.items(), (None, general)):
            if rule.max_age is not None or rule.max_count is not None:
                yield name, rule


class RetentionCounters(msgspec.Struct):
    """Counts since the service began: top-level `instances` and their `children` purged, `errors` of the store."""

    instances: int = 0
    children: int = 0
    errors: int = 0


class RetentionService:
    """Purges in the background what the policy does not keep.  One in each host; several do no harm."""

    def __init__(self, store: TaskHubStore, environment: Environment, policy: RetentionPolicy) -> None:
        self.counters = RetentionCounters()
        self.policy = policy
        self._store = store
        self._environment = environment

    async def run(self) -> None:
        """Serve until cancelled; returns at once where everything is kept.  No failure of the store ends it."""
        if not any(True for _ in self.policy.rules()):
            return
        wait = BACK_OFF[0]
        while True:
            try:
                await self.sweep()
            except StoreError as error:
                self.counters.errors += 1
                _log.warning("retention: the store failed, next try in %.1f s: %s", wait, error)
            except Exception:  # noqa: BLE001 - must outlive any defect: log it and go on
                self.counters.errors += 1
                _log.exception("retention: unexpected failure, next try in %.1f s", wait)
            else:
                wait = BACK_OFF[0]
                await self._environment.sleep(SWEEP_EVERY)
                continue
            await self._environment.sleep(wait)
            wait = min(wait * 2, BACK_OFF[1])

    async def sweep(self) -> int:
        """Purge all that may go now; how many top-level instances went.  Raises StoreError."""
        total = 0
        for name, rule in self.policy.rules():
            total += await self._sweep_rule(name, rule)
        return total

    async def _sweep_rule(self, name: str | None, rule: RetentionRule) -> int:
        before: Ticks | None = None
        if rule.max_age is not None:
            before = self._environment.now() - int(rule.max_age / timedelta(microseconds=1)) * (
                TICKS_PER_SECOND // 1_000_000
            )
        excluding = () if name is not None else tuple(self.policy.per_orchestration)
        total = 0
        while True:
            begun = self._environment.monotonic()
            expired = await self._store.expired(name, before, rule.max_count, BATCH, excluding)
            if not expired:
                return total
            purged = await self._store.purge(expired, recursive=True)
            self.counters.instances += purged.instances - purged.children
            self.counters.children += purged.children
            total += purged.instances - purged.children
            if len(expired) < BATCH or not purged.instances:
                # All that there was; or none of it went (started anew in between, purged by another host).
                return total
            await self._environment.sleep(max(SHORTEST_PAUSE, self._environment.monotonic() - begun))
