"""Rewind: a failed execution is set back to before its failure, and goes on from there.

What is undone is judged by cause, not by event type.  The failures that stand in the cause chain of the
final error are its causes; from the moment the first of them came into the code on, everything that the
code asked for is undone with its results (clean-up in an `except` block, steps of a fallback), and so are
failures that came in later or were never looked at.  A failure that the code dealt with before stays, a
healthy sibling in a fan-out keeps its result, what came from outside (events, suspend and resume) is
never lost.  The tasks that failed are run again under their old place in history; a failed
sub-orchestration is rewound itself.

Rows that are taken out become GenericEvent, so that no ordinal ever names another event (answers and
idempotency keys name ordinals).  The rows after the point of return are one episode, cut short: its rest
is what the code asks for now.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

from . import events as ev
from .author import Author, OrchestratorNotFound
from .causes import Probe
from .dialect import DIALECTS
from .episode import Episode, EpisodeCommit, ExecutionState
from .errors import InvariantBroken, NonDeterminismError
from .messages import ActivityTask, Dropped, InboundMessage, OutboundMessage, Start
from .outgoing import answer, options_of, start_limit_message, timer_message, work_item
from .projection import Projection, Status, project
from .replay import CANCELLED_ERROR_TYPE, Run
from .retry import resumed
from .rewind_plans import (
    FAILURES,
    RESULTS,
    Plan,
    children_of,
    end_of,
    plan_without_code,
    plans_by_cause,
    rewound_history,
    task_of,
)

__all__ = ["TERMINATED_CHILD_ERROR_TYPE", "children_of", "rewind_commit"]

TERMINATED_CHILD_ERROR_TYPE = "holdtrue.SubOrchestrationTerminatedError"
"""The error type with which `outgoing.answer` tells of a child that was terminated."""


def rewind_commit(
    state: ExecutionState,
    history: Sequence[ev.HistoryEvent],
    messages: Sequence[InboundMessage],
    *,
    now: ev.Ticks,
    new_id: Callable[[], str],
    author: Author | None = None,
    children: Mapping[str, Projection | None] | None = None,
) -> EpisodeCommit:
    """The commit that rewinds a failed execution; `messages` holds an ExecutionRewound.

    The projection of `state` is as before it (Failed), or since it was asked for (`projection.rewinding`).

    With `author` the code is run: once to find the cause, once over the new history, and the commit holds
    what it asks for then, too.  Without it, or where the code does not fit the history (then the next
    episode will say so), the commit ends in a cut episode and asks to be woken.

    `children` gives what stands now under the ids that `children_of(history)` names (None: nothing); a
    child that is not there or was terminated is started again, one that completed meanwhile has its
    answer sent again, a failed one is rewound.  Where it is not given, that is judged by the history.

    Messages before the rewind are dropped (they came to an ended instance); those after it stay.  Use it
    so: lock; `load`; `status(children_of(history))`; `commit([Committing(commit=rewind_commit(...))])`.
    Raises InvariantBroken where the execution has not failed, or there is no ExecutionRewound.
    """
    end = history[end_of(history)]
    if not isinstance(end, ev.ExecutionFailed) and getattr(end, "status", None) != Status.FAILED:
        raise InvariantBroken(
            f"instance {state.projection.instance_id!r} is {state.projection.status.name}: only a failed one is rewound"
        )
    at = next((i for i, message in enumerate(messages) if type(message.event) is ev.ExecutionRewound), None)
    if at is None:
        raise InvariantBroken(f"instance {state.projection.instance_id!r}: there is no message that asks for a rewind")
    rewound: ev.ExecutionRewound = messages[at].event  # type: ignore[assignment]
    plan, new, run = _judge(state, history, rewound, author, now)
    fresh = _state_after(state, new, run)
    if run is None:
        commit = Episode(fresh, (), now=now, new_id=new_id).commit()
        commit.wake = True
    else:
        assert author is not None
        commit = _go_on(fresh, run, author, now, new_id)
    if not commit.replace:
        commit.first, commit.replace = 0, True
        commit.events = [*new, *commit.events]
        if not commit.ended:
            cancelled = set(commit.cancelled)
            _redo(commit, new, plan, history, run, children, cancelled, now, new_id)
        commit.cancelled = []
    commit.old_length = len(history)
    commit.consumed = [message.key for message in messages[: at + 1] if message.key is not None]
    commit.finished = [message.work for message in messages[: at + 1] if message.work is not None]
    commit.dropped = [
        *(Dropped("the instance has ended", message.event) for message in messages[:at]),
        *commit.dropped,
    ]
    commit.status_changed = commit.custom_status_changed = True
    return commit


def _judge(
    state: ExecutionState,
    history: Sequence[ev.HistoryEvent],
    rewound: ev.ExecutionRewound,
    author: Author | None,
    now: ev.Ticks,
) -> tuple[Plan, list[ev.HistoryEvent], Probe | None]:
    """The plan, the new history, and a run fed with it (None: the code is not at hand or does not fit)."""
    if author is not None:
        dialect = DIALECTS[state.dialect]
        found = Probe(author, dialect)
        try:
            found.feed(history[: end_of(history)])
            plans = plans_by_cause(found, history)
        except (NonDeterminismError, OrchestratorNotFound):
            plans = []
        finally:
            found.close()
        for plan in plans:
            new = rewound_history(history, plan, rewound, now)
            run = Probe(author, dialect)
            try:
                run.feed(new)
            except NonDeterminismError:
                run.close()
                continue
            return plan, new, run
    plan = plan_without_code(history)
    return plan, rewound_history(history, plan, rewound, now), None


def _state_after(state: ExecutionState, new: Sequence[ev.HistoryEvent], run: Probe | None) -> ExecutionState:
    before = copy.copy(state.projection)
    before.status = Status.PENDING
    before.output = before.failure = before.completed_at = None
    if run is not None and not run.sets_custom_status and before.generation == 0:
        before.custom_status = None  # what it was set to since is undone
    fresh = ExecutionState(
        projection=project(before, new),
        dialect=state.dialect,
        start_id=state.start_id,
        deadline=state.deadline,
        condition=state.condition,
    )
    fresh.extend(new, project_too=False)
    return fresh


def _go_on(fresh: ExecutionState, run: Run, author: Author, now: ev.Ticks, new_id: Callable[[], str]) -> EpisodeCommit:
    """The rest of the cut episode, as the code decides it."""
    making = Episode(fresh, (), now=now, new_id=new_id)
    decision = run.step(())
    while making.decide(decision):
        run.close()
        run = Run(author, run.dialect)
        decision = run.step(making.feed)
    run.close()
    return making.commit()


def _redo(
    commit: EpisodeCommit,
    new: Sequence[ev.HistoryEvent],
    plan: Plan,
    history: Sequence[ev.HistoryEvent],
    run: Probe | None,
    children: Mapping[str, Projection | None] | None,
    cancelled: set[int],
    now: ev.Ticks,
    new_id: Callable[[], str],
) -> None:
    """Put everything that is outstanding in the new history back to work: the end had taken it back."""
    outstanding: dict[int, int] = {}
    failed: dict[int, int] = {}
    for row, event in enumerate(new):
        if isinstance(event, ev.SCHEDULING_EVENTS):
            outstanding[event.event_id] = row
        elif isinstance(event, RESULTS):
            answered = outstanding.pop(task_of(event), None)
            if answered is not None and isinstance(event, ev.TaskFailed):
                failed.setdefault(event.task_scheduled_id, answered)
    failures = _failures_by_scheduling(history, plan)
    projection = commit.projection
    activities: list[ActivityTask] = []
    messages: list[OutboundMessage] = []
    for row in sorted(outstanding.values()):
        event = new[row]
        if isinstance(event, ev.SubOrchestrationInstanceCreated):
            parent = ev.ParentInstance(
                instance_id=projection.instance_id,
                execution_id=projection.execution_id,
                task_id=event.event_id,
                scheduled=row,
                name=projection.name,
                version=projection.version,
            )
            given = children is not None and event.instance_id in children
            child = children[event.instance_id] if given and children is not None else None
            if given:
                fate = _fate(child, parent)
            else:
                fate = _fate_by_history(row in failures, failures.get(row))
            if fate == "rewind":
                messages.append(_rewind_child(event.instance_id, parent, now))
            elif fate == "answer":
                assert child is not None
                messages.append(answer(parent, child, now))
            elif fate == "start":
                commit.starts = [_start_child(event, parent, commit, now, new_id), *commit.starts]
        elif row in cancelled:
            continue
        elif isinstance(event, ev.TaskScheduled):
            asked = None if run is None else run.activity_at(row)
            options = resumed(None if asked is None else options_of(asked, failed), failures.get(row))
            activities.append(work_item(projection, event, row, options))
            if options is not None and options.schedule_to_start is not None:
                messages.append(start_limit_message(activities[-1], options.schedule_to_start, now))
        elif isinstance(event, ev.TimerCreated):
            messages.append(timer_message(projection, event, row))
    commit.activities = [*activities, *commit.activities]
    commit.messages = [*messages, *commit.messages]


def _failures_by_scheduling(history: Sequence[ev.HistoryEvent], plan: Plan) -> dict[int, ev.FailureDetails | None]:
    """The undone failures by the row that scheduled their task."""
    scheduled: dict[int, int] = {}
    failures: dict[int, ev.FailureDetails | None] = {}
    for row, event in enumerate(history):
        if isinstance(event, ev.SCHEDULING_EVENTS):
            scheduled[event.event_id] = row
        elif isinstance(event, FAILURES) and row in plan.undone:
            failures[scheduled[event.task_scheduled_id]] = event.failure
    return failures


def _fate(child: Projection | None, parent: ev.ParentInstance) -> str:
    """What to do about an outstanding child, by how it stands."""
    if child is None or child.parent is None:
        return "start"
    theirs = child.parent
    if (theirs.instance_id, theirs.execution_id, theirs.scheduled) != (
        parent.instance_id,
        parent.execution_id,
        parent.scheduled,
    ):
        return "start"
    if child.status is Status.FAILED:
        return "rewind"
    if child.status is Status.COMPLETED:
        return "answer"
    if child.status in (Status.TERMINATED, Status.CANCELED):
        return "start"
    return "wait"


def _fate_by_history(failed: bool, failure: ev.FailureDetails | None) -> str:
    if not failed:
        return "wait"
    stopped = failure is not None and failure.error_type in (TERMINATED_CHILD_ERROR_TYPE, CANCELLED_ERROR_TYPE)
    return "start" if stopped else "rewind"


def _rewind_child(instance_id: str, parent: ev.ParentInstance, now: ev.Ticks) -> OutboundMessage:
    return OutboundMessage(
        instance_id=instance_id,
        event=ev.ExecutionRewound(
            timestamp=now,
            reason=f"its parent {parent.instance_id!r} was rewound",
            parent_execution_id=parent.execution_id,
            instance_id=instance_id,
        ),
        sender=parent.instance_id,
    )


def _start_child(
    event: ev.SubOrchestrationInstanceCreated,
    parent: ev.ParentInstance,
    commit: EpisodeCommit,
    now: ev.Ticks,
    new_id: Callable[[], str],
) -> Start:
    execution_id = new_id()
    return Start(
        started=ev.ExecutionStarted(
            timestamp=now,
            instance_id=event.instance_id,
            execution_id=execution_id,
            name=event.name,
            input=event.input,
            version=event.version,
            tags=event.tags,
            parent=parent,
        ),
        start_id=execution_id,
    )
