"""What a rewind undoes: from the cause of a failure to the rows of the history that are taken out.

`core.causes` finds what happened, `core.rewind` makes the commit; here it is judged.  Functions from values
to values.
"""

from collections.abc import Sequence

import msgspec

from . import events as ev
from .causes import Ask, Failure, Probe, causes_of
from .errors import InvariantBroken
from .messages import DEADLINE_EVENT
from .replay import DEADLINE_ERROR_TYPE
from .tasks import OrchestrationCancelledError

RESULTS = (
    ev.TaskCompleted,
    ev.TaskFailed,
    ev.SubOrchestrationInstanceCompleted,
    ev.SubOrchestrationInstanceFailed,
    ev.TimerFired,
)
FAILURES = (ev.TaskFailed, ev.SubOrchestrationInstanceFailed)
_ASKED = (*ev.SCHEDULING_EVENTS, ev.EventSent)
_ENDS = (ev.ExecutionCompleted, ev.ExecutionFailed)


class Plan(msgspec.Struct, frozen=True):
    """What a rewind takes out of a history: these rows, and the episodes' bounds after the row `cut`."""

    cut: int
    undone: frozenset[int]


def plans_by_cause(found: Probe, history: Sequence[ev.HistoryEvent]) -> list[Plan]:
    """What to undo, from what a probe has found; the first plan is the best, a later one undoes less.

    (A failure that nobody awaited may have been looked at all the same; then undoing it would not fit
    the code, and the second plan leaves it.)
    """
    end = end_of(history)
    always = {end}
    deadline = _deadline_row(history, end)
    if deadline is not None:
        return [_plan(history, deadline, {*always, deadline})]
    if found.error is None:
        # The code of today does not fail here: nothing stands in its way but the end.
        return [_plan(history, end, always)]
    causes, moment, cut = _causes(found)
    rows: set[int] = set(always)
    if moment is not None:
        moment, cut, rows_of_attempts = _first_attempts(found, causes, moment, cut)
        rows |= rows_of_attempts
        rows |= {ask.row for ask in found.asks if ask.row is not None and ask.moment >= moment}
        rows |= {f.row for f in found.failures if f.delivered is not None and f.delivered >= moment}
    unseen = {f.row for f in found.failures if f.delivered is None}
    at = end if moment is None else cut
    plans = [_plan(history, at, rows | unseen)]
    if unseen:
        plans.append(_plan(history, at, rows))
    return plans


def _causes(found: Probe) -> tuple[list[Failure], int | None, int]:
    """The failures behind the final error; moment and row of the first thing that happened because of it."""
    chain = causes_of(found.error)
    causes = [f for f in found.failures if f.delivered is not None and id(f.error) in chain]
    moments = [(f.delivered, f.fed) for f in causes if f.delivered is not None]
    moments += [
        (ask.moment, ask.fed)
        for ask in found.asks
        if id(ask.handling) in chain and not isinstance(ask.handling, OrchestrationCancelledError)
    ]
    if not moments:
        # No link in the errors.  A failure after which the code did nothing but end is a cause all the same.
        last = max((ask.moment for ask in found.asks), default=0)
        causes = [f for f in found.failures if f.delivered is not None and f.delivered > last]
        moments = [(f.delivered, f.fed) for f in causes if f.delivered is not None]
    if not moments:
        return [], None, -1
    moment, cut = min(moments)
    return causes, moment, cut


def _first_attempts(found: Probe, causes: Sequence[Failure], moment: int, cut: int) -> tuple[int, int, set[int]]:
    """Go back to the first attempt of tasks that were tried again, where nothing else happened in between.

    Otherwise only their last attempt is made again: taking out an earlier one would renumber other tasks.
    """
    tasks = {id(f.task): f.task for f in causes if len(found.attempts.get(id(f.task), ())) > 1}
    if not tasks:
        return moment, cut, set()
    attempts = [attempt for key in tasks for attempt in found.attempts[key]]
    first = min(attempts, key=lambda attempt: attempt.moment)

    def theirs(ask: Ask) -> bool:
        return id(ask.owner) in tasks

    if first.moment < moment and all(theirs(ask) for ask in found.asks if first.moment < ask.moment < moment):
        return first.moment, first.row, {attempt.row for attempt in attempts}
    return moment, cut, set()


def plan_without_code(history: Sequence[ev.HistoryEvent]) -> Plan:
    """What to undo where the code is not at hand, or no longer fits: judged by the failure's own details.

    The failures that the final one names, and everything asked for since the first of them was recorded.
    """
    end = end_of(history)
    deadline = _deadline_row(history, end)
    if deadline is not None:
        return _plan(history, deadline, {end, deadline})
    details: list[ev.FailureDetails] = []
    each = getattr(history[end], "failure", None)
    while each is not None:
        details.append(each)
        each = each.inner_failure
    named = [
        row
        for row, event in enumerate(history[:end])
        if isinstance(event, FAILURES) and any(_tells(d, event.failure, event.task_scheduled_id) for d in details)
    ]
    if not named:
        last = next((row for row in range(end - 1, -1, -1) if isinstance(history[row], (*RESULTS, *_ASKED))), None)
        if last is None or not isinstance(history[last], FAILURES):
            return _plan(history, end, {end})
        named = [last]
    cut = named[0]
    rows = {row for row in range(cut, end) if isinstance(history[row], (*_ASKED, *FAILURES))}
    return _plan(history, cut, {end, *rows})


def _tells(details: ev.FailureDetails, failure: ev.FailureDetails | None, task_id: int) -> bool:
    """True where an error's details tell of the failure of that task."""
    if failure is None:
        return f"#{task_id} failed" in details.message
    same = details.error_type == failure.error_type and details.message == failure.message
    return same or f"#{task_id} failed: {failure.message}" in details.message


def end_of(history: Sequence[ev.HistoryEvent]) -> int:
    for row in range(len(history) - 1, -1, -1):
        if isinstance(history[row], _ENDS):
            return row
    raise InvariantBroken("a history without an end cannot be rewound")


def _deadline_row(history: Sequence[ev.HistoryEvent], end: int) -> int | None:
    """The row of the deadline that ended the execution, if that did."""
    failure = getattr(history[end], "failure", None)
    if failure is None or failure.error_type != DEADLINE_ERROR_TYPE:
        return None
    for row in range(end, -1, -1):
        event = history[row]
        if isinstance(event, ev.EventRaised) and event.name == DEADLINE_EVENT:
            return row
    return None


def _plan(history: Sequence[ev.HistoryEvent], cut: int, rows: set[int]) -> Plan:
    """The rows with the results of what is undone, and the bounds of episodes after the cut."""
    undone = set(rows)
    scheduled: dict[int, int] = {}
    for row, event in enumerate(history):
        if isinstance(event, ev.SCHEDULING_EVENTS):
            scheduled[event.event_id] = row
        elif isinstance(event, RESULTS):
            if scheduled.get(task_of(event)) in undone:
                undone.add(row)
        elif row > cut and isinstance(event, (ev.OrchestratorStarted, ev.OrchestratorCompleted)):
            undone.add(row)
    return Plan(cut, frozenset(undone))


def task_of(event: ev.HistoryEvent) -> int:
    """The task id that a result answers."""
    return event.timer_id if isinstance(event, ev.TimerFired) else event.task_scheduled_id  # type: ignore[attr-defined]


def rewound_history(
    history: Sequence[ev.HistoryEvent], plan: Plan, rewound: ev.ExecutionRewound, now: ev.Ticks
) -> list[ev.HistoryEvent]:
    """The history with its undone rows emptied, and the rewind as its last row."""
    new: list[ev.HistoryEvent] = [
        ev.GenericEvent(timestamp=event.timestamp, data=f"Rewound: {type(event).__name__}")
        if row in plan.undone
        else event
        for row, event in enumerate(history)
    ]
    new.append(msgspec.structs.replace(rewound, timestamp=now))
    return new


def children_of(history: Sequence[ev.HistoryEvent]) -> list[str]:
    """The ids of the children that did not complete: their statuses help `rewind_commit` to judge."""
    open_: dict[int, str] = {}
    failed: list[str] = []
    for event in history:
        if isinstance(event, ev.SubOrchestrationInstanceCreated):
            open_[event.event_id] = event.instance_id
        elif isinstance(event, ev.SubOrchestrationInstanceCompleted):
            open_.pop(event.task_scheduled_id, None)
        elif isinstance(event, ev.SubOrchestrationInstanceFailed):
            failed.append(open_.pop(event.task_scheduled_id, ""))
    return list(dict.fromkeys(child for child in (*failed, *open_.values()) if child))
