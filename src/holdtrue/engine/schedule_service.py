"""The service that fires schedules: one runs in each host, and any number of them on one hub agree.

What to do is decided in `planning`; here it is applied.  Two hosts never fire one tick twice, because a tick
is committed only under the version of the schedule that it was planned from.  Nothing that is still to be
done lives here: what is kept is a copy of the hub's schedules, to know how long to sleep.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Iterable
from typing import Final

import msgspec

from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.environment import Environment
from holdtrue.schedules.commits import end_replaced, tick_commit
from holdtrue.schedules.errors import InvalidSchedule
from holdtrue.schedules.planning import Plan, ScheduleState, decode_state, plan, plan_queued, waits_for
from holdtrue.schedules.specification import ScheduleSpec, decode_spec, span_ticks, tick_text
from holdtrue.stores.errors import OutcomeUnknown, StoreError
from holdtrue.stores.protocol import (
    CreateOutcome,
    CreateResult,
    Delivery,
    LockedInstance,
    Notice,
    StoredSchedule,
    TaskHubStore,
    TickCommit,
    completed_tick,
)

_log = logging.getLogger("holdtrue.schedules")

LOOK_AGAIN: Final = 30.0
"""Seconds, by no wall clock, after which the hub's schedules are looked at in any case (no push may have come; the
wall clock may be set)."""
QUEUE_POLL: Final = 1.0
"""Seconds between two looks whether the run that a queued one waits for has ended, where no push says so."""
TRIM_EVERY: Final = 600.0
"""Seconds, or a look more, between two times that old records of ticks are forgotten."""
BACK_OFF: Final = (0.2, 30.0)
"""The first and the longest wait, in seconds, after a failure of the store."""
LET_PASS: Final = TICKS_PER_SECOND // 50
"""Ticks by which a host lets another go first that decided a schedule's last tick: no two write for nothing."""
AT_ONCE: Final = 32
"""So many schedules are decided side by side, so that the store can commit them together."""


class ScheduleCounters(msgspec.Struct):
    """Counts of this service since it began: decisions by kind, `lost` ticks that another host decided, `errors`."""

    started: int = 0
    replaced: int = 0
    skipped: int = 0
    queued: int = 0
    held: int = 0
    missed: int = 0
    lost: int = 0
    errors: int = 0


class _Kept(msgspec.Struct):
    """A schedule of the hub, as far as this host knows; one that failed by itself `rests_until` then (monotonic)."""

    spec: ScheduleSpec
    state: ScheduleState
    due: Ticks | None
    etag: int
    rests_until: float = 0.0


def _nobody(_: str) -> bool:
    return False


def _nothing(_: object) -> None:
    return


class ScheduleService:
    """Fires the due ticks of a hub's schedules, starts queued runs, and forgets old records.

    `started` is called at each start that was made, so that the host can run it at once: with the instance
    under lock where `wants` says of its orchestrator that this host wants that, else with None.  `deliver`
    gets the messages (to runs that are replaced) for instances that this host holds.  Without `safety_looks` it
    looks only at what it was told of, and when a tick is due.
    """

    def __init__(
        self,
        store: TaskHubStore,
        environment: Environment,
        started: Callable[[LockedInstance | None], None] = _nothing,
        wants: Callable[[str], bool] = _nobody,
        deliver: Callable[[Delivery], None] = _nothing,
        safety_looks: bool = True,
    ) -> None:
        self.counters = ScheduleCounters()
        self._store = store
        self._environment = environment
        self._started = started
        self._wants = wants
        self._deliver = deliver
        self._look_again = LOOK_AGAIN if safety_looks else math.inf
        self._queue_poll = QUEUE_POLL if safety_looks else math.inf
        self._kept: dict[str, _Kept] = {}
        self._unreadable: dict[str, int] = {}
        self._others: set[str] = set()
        self._refresh = True
        self._woken = asyncio.Event()
        self._next_trim = 0.0
        self._next_refresh = 0.0

    # -- what wakes it -------------------------------------------------------------------------------
    def nudge(self) -> None:
        """A schedule was changed: look at all of them at once."""
        self._refresh = True
        self._woken.set()

    def noticed(self, notice: Notice) -> None:
        """What the store's `listen` tells a host."""
        if notice.schedules:
            self.nudge()
        self.instances_changed(notice.changed)

    def instances_changed(self, instance_ids: Iterable[str]) -> None:
        """These instances have changed (none named: some have); a queued run may now start."""
        changed = frozenset(instance_ids)
        awaited = {waits_for(kept.spec, kept.state) for kept in self._kept.values() if kept.state.queued is not None}
        if awaited and not (changed and awaited.isdisjoint(changed)):
            self._woken.set()

    # -- the loop ------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Serve until cancelled.  No failure of the store ends it."""
        wait = BACK_OFF[0]
        while True:
            self._woken.clear()
            try:
                await self.serve_due()
            except StoreError as error:
                self.counters.errors += 1
                self._refresh = True
                _log.warning("schedules: the store failed, next try in %.1f s: %s", wait, error)
            except Exception:  # noqa: BLE001 - schedules must outlive any defect: log it and go on
                self.counters.errors += 1
                self._refresh = True
                _log.exception("schedules: unexpected failure, next try in %.1f s", wait)
            else:
                wait = BACK_OFF[0]
                await self._sleep(self._seconds_to_sleep())
                continue
            await self._environment.sleep(wait * (0.75 + self._environment.random().random() / 2))
            wait = min(wait * 2, BACK_OFF[1])

    async def serve_due(self) -> None:
        """Do all that is due now, once.  Raises StoreError where the store failed; the rest was done."""
        now, moment = self._environment.now(), self._environment.monotonic()
        if self._refresh or moment >= self._next_refresh:
            await self._load_all()
        elif self._due_now():
            await self._load_due(now)
        await self._start_queued()
        await self._each(self._due_now(), self._decide)
        if moment >= self._next_trim:
            await self._trim(now)
        if self._refresh:
            await self._load_all()

    async def _sleep(self, seconds: float) -> None:
        if self._woken.is_set() or seconds <= 0:
            await self._environment.sleep(0)
            return
        handle = self._environment.call_later(seconds, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            handle.cancel()

    def _seconds_to_sleep(self) -> float:
        now, moment = self._environment.now(), self._environment.monotonic()
        seconds = self._next_refresh - moment
        for kept in self._kept.values():
            turn = self._turn(kept)
            if turn is not None:
                seconds = min(seconds, max((turn - now) / TICKS_PER_SECOND, kept.rests_until - moment))
            if waits_for(kept.spec, kept.state) is not None:
                seconds = min(seconds, self._queue_poll)
        return seconds

    # -- knowing the schedules -------------------------------------------------------------------------
    async def _load_all(self) -> None:
        self._refresh = False
        stored = await self._store.get_schedules()
        known = {schedule.schedule_id for schedule in stored}
        for gone in self._kept.keys() - known:
            del self._kept[gone]
            self._others.discard(gone)
        self._keep(stored)
        self._next_refresh = self._environment.monotonic() + self._look_again

    async def _load_due(self, now: Ticks) -> None:
        """Read anew what is due, and all where another host has decided some of it."""
        stored = await self._store.get_schedules(now)
        self._keep(stored)
        still_due = {schedule.schedule_id for schedule in stored}
        if any(
            kept.due is not None and kept.due <= now and schedule_id not in still_due
            for schedule_id, kept in self._kept.items()
        ):
            await self._load_all()

    def _keep(self, stored: Iterable[StoredSchedule]) -> None:
        for schedule in stored:
            schedule_id, etag = schedule.schedule_id, schedule.etag
            kept = self._kept.get(schedule_id)
            if kept is not None and kept.etag == etag:
                continue
            try:
                spec, state = decode_spec(schedule.definition), decode_state(schedule.state)
            except (InvalidSchedule, msgspec.MsgspecError) as error:
                self._kept.pop(schedule_id, None)
                if self._unreadable.get(schedule_id) != etag:
                    self._unreadable[schedule_id] = etag
                    self.counters.errors += 1
                    _log.error("schedule %r is left alone: %s", schedule_id, error)
                continue
            self._kept[schedule_id] = _Kept(spec, state, schedule.due, etag)

    # -- deciding ------------------------------------------------------------------------------------
    def _turn(self, kept: _Kept) -> Ticks | None:
        """When this host is to decide the next tick of a schedule; None: never by the clock."""
        if kept.due is None:
            return None
        return kept.due + LET_PASS if kept.spec.schedule_id in self._others else kept.due

    def _due_now(self) -> list[_Kept]:
        now, moment = self._environment.now(), self._environment.monotonic()
        return [
            kept
            for kept in self._kept.values()
            if (turn := self._turn(kept)) is not None and turn <= now and kept.rests_until <= moment
        ]

    async def _each(self, schedules: list[_Kept], act: Callable[[_Kept], Coroutine[None, None, None]]) -> None:
        """Act on schedules side by side; one that fails by itself rests for a while, and holds up no other."""
        failed: StoreError | None = None
        for first in range(0, len(schedules), AT_ONCE):
            some = schedules[first : first + AT_ONCE]
            for kept, result in zip(some, await asyncio.gather(*map(act, some), return_exceptions=True), strict=True):
                if isinstance(result, StoreError):
                    failed = result
                elif isinstance(result, Exception):
                    self.counters.errors += 1
                    self._refresh = True
                    kept.rests_until = self._environment.monotonic() + LOOK_AGAIN
                    _log.error(
                        "schedule %r failed, next try in %.0f s", kept.spec.schedule_id, LOOK_AGAIN, exc_info=result
                    )
                elif result is not None:
                    raise result
        if failed is not None:
            raise failed

    async def _decide(self, kept: _Kept) -> None:
        """Decide all that is due of one schedule."""
        while True:
            now = self._environment.now()
            decision = plan(kept.spec, kept.state, now)
            if not decision.acts and decision.due == kept.due:
                return
            # Without anything to do this only corrects the stored `due` (zone rules may have been updated).
            if not await self._apply(kept, decision, now) or not decision.acts:
                return

    async def _start_queued(self) -> None:
        """Start the queued runs whose turn has come."""
        moment = self._environment.monotonic()
        waiting = [
            (awaited, kept)
            for kept in self._kept.values()
            if kept.rests_until <= moment and (awaited := waits_for(kept.spec, kept.state)) is not None
        ]
        if not waiting:
            return
        records = await self._store.status([awaited for awaited, _ in waiting])
        free = [
            kept
            for (_, kept), record in zip(waiting, records, strict=True)
            if record is None or record.projection.status.is_terminal
        ]
        await self._each(free, self._start_one_queued)

    async def _start_one_queued(self, kept: _Kept) -> None:
        now = self._environment.now()
        await self._apply(kept, plan_queued(kept.spec, kept.state, now), now)

    async def _apply(self, kept: _Kept, decision: Plan, now: Ticks) -> bool:
        """Commit a decision; false where the schedule was changed in between: load it again."""
        running, delivery = await end_replaced(self._store, kept.spec, decision, now)
        if delivery is not None:
            self._deliver(delivery)
        commit = tick_commit(
            kept.spec,
            decision,
            kept.etag,
            now,
            running=running,
            execution_id=self._environment.new_id(),
            start_id=self._environment.new_id(),
            take=self._wants(kept.spec.orchestrator),
        )
        try:
            outcome = await self._store.commit_tick(commit)
        except OutcomeUnknown:
            # Load again: the etag tells whether it was done.
            self._refresh = True
            raise
        if outcome is False:
            self.counters.lost += 1
            self._others.add(kept.spec.schedule_id)
            self._refresh = True
            return False
        self._others.discard(kept.spec.schedule_id)
        kept.etag += 1
        kept.state, kept.due = decision.state, decision.due
        if commit.missed:
            count = sum(tick.count for tick in commit.missed)
            self.counters.missed += count
            _log.info("schedule %r: %d ticks missed", kept.spec.schedule_id, count)
        if isinstance(outcome, CreateOutcome):
            if outcome.result is CreateResult.REFUSED and decision.state_if_refused is not None:
                kept.state, kept.due = decision.state_if_refused, decision.due_if_refused
            self._tell(commit, outcome)
        return True

    def _tell(self, commit: TickCommit, outcome: CreateOutcome) -> None:
        """Count and log what became of a start, and let the host know of it."""
        tick = completed_tick(commit, outcome)
        if tick is None:
            return
        setattr(self.counters, tick.decision, getattr(self.counters, tick.decision) + 1)
        level = logging.WARNING if tick.decision == "held" else logging.DEBUG
        _log.log(
            level,
            "schedule %r, tick %s: %s, instance %r, status seen %s%s",
            tick.schedule_id,
            tick_text(tick.due),
            tick.decision,
            tick.instance_id,
            tick.status,
            f": {tick.reason}" if tick.reason else "",
        )
        if outcome.result is not CreateResult.REFUSED:
            self._started(outcome.taken)

    # -- upkeep --------------------------------------------------------------------------------------
    async def _trim(self, now: Ticks) -> None:
        for kept in list(self._kept.values()):
            await self._store.trim_ticks(now - span_ticks(kept.spec.keep_ticks), kept.spec.schedule_id)
        self._next_trim = self._environment.monotonic() + TRIM_EVERY
