"""Schedules and the records of their ticks: each decision is one moment with the start that it makes."""

from bisect import insort

import msgspec

from holdtrue.core.events import Ticks
from holdtrue.core.projection import TERMINAL
from holdtrue.stores.decisions import not_started
from holdtrue.stores.protocol import (
    CreateOutcome,
    CreateRequest,
    CreateResult,
    StoredSchedule,
    Tick,
    TickCommit,
    completed_tick,
)

from . import inbox, starts
from .hub import MemoryHub, Moment


def put(moment: Moment, schedule: StoredSchedule, expect: int | None) -> int | None:
    """Write a schedule, by whoever saw its last version; the new version, or None."""
    hub = moment.hub
    standing = hub.schedules.get(schedule.schedule_id)
    if (None if standing is None else standing.etag) != expect:
        return None
    # Not one that an earlier schedule of this id had: whoever knows that one must not take this for it.
    etag = moment.now if expect is None else expect + 1
    hub.schedules[schedule.schedule_id] = msgspec.structs.replace(schedule, etag=etag)
    moment.schedules = True
    return etag


def listed(hub: MemoryHub, due_by: Ticks | None) -> list[StoredSchedule]:
    """All schedules by id, or those due."""
    if due_by is None:
        found = sorted(hub.schedules.values(), key=lambda one: one.schedule_id)
    else:
        due = [(one.due, one.schedule_id) for one in hub.schedules.values() if one.due is not None]
        found = [hub.schedules[schedule_id] for at, schedule_id in sorted(due) if at <= due_by]
    return [msgspec.structs.replace(one) for one in found]


def delete(moment: Moment, schedule_id: str) -> bool:
    """Remove a schedule and its ticks."""
    moment.hub.ticks.pop(schedule_id, None)
    moment.schedules = True
    return moment.hub.schedules.pop(schedule_id, None) is not None


def tick(moment: Moment, commit: TickCommit) -> CreateOutcome | None | bool:
    """Apply a decision: False where another was faster, None without a start, else what became of it."""
    standing = moment.hub.schedules.get(commit.schedule_id)
    if standing is None or standing.etag != commit.etag:
        return False
    outcome: CreateOutcome | None = None
    record, state, due = commit.tick, commit.state, commit.due
    if commit.request is None:
        _send(moment, commit)
    else:
        outcome = _start(moment, commit, commit.request)
        if outcome.result is CreateResult.REFUSED and commit.state_if_refused is not None:
            state, due = commit.state_if_refused, commit.due_if_refused
        record = completed_tick(commit, outcome)
    standing.state, standing.due, standing.etag = state, due, commit.etag + 1
    moment.schedules = True
    for one in [*commit.missed, *([] if record is None else [record])]:
        insort(moment.hub.ticks.setdefault(one.schedule_id, []), one, key=lambda kept: kept.due)
    return outcome


def _start(moment: Moment, commit: TickCommit, request: CreateRequest) -> CreateOutcome:
    """The start of a tick; its messages go before it, and only where it is not refused."""
    guard = None if commit.guard is None else moment.hub.of(commit.guard)
    if guard is not None and guard.projection.status not in TERMINAL:
        return not_started(CreateResult.REFUSED, guard.projection, guard.condition)
    refused = starts.refusal(moment, request)
    if refused is not None:
        return refused
    _send(moment, commit)
    return starts.create(moment, request)


def _send(moment: Moment, commit: TickCommit) -> None:
    for message in commit.messages:
        inbox.post_unseen(moment, message)


def ticks(hub: MemoryHub, schedule_id: str, after: Ticks | None, limit: int) -> list[Tick]:
    """Records in order of time."""
    return [one for one in hub.ticks.get(schedule_id, ()) if after is None or one.due > after][:limit]


def trim(moment: Moment, before: Ticks, schedule_id: str | None) -> int:
    """Forget records of ticks due before, of all schedules or one."""
    every, trimmed = moment.hub.ticks, 0
    for name in list(every) if schedule_id is None else [schedule_id]:
        kept = every.get(name, [])
        left = [one for one in kept if one.due >= before]
        trimmed += len(kept) - len(left)
        if left:
            every[name] = left
        else:
            every.pop(name, None)
    return trimmed
